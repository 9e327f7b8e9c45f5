package h2

import (
	"sync"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

const (
	clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	maxWindow     = 1<<31 - 1
	defaultWindow = 65535
	minFrameSize  = 16 << 10
	maxFrameSize  = 1<<24 - 1
	maxStreamID   = 1<<31 - 1

	// firstStreams is how many streams a client opens before the peer's
	// SETTINGS have said how many it may.
	firstStreams = 100
)

// A Field is one header field; pseudo-header fields come first and keep their
// colon. Sensitive fields are never indexed, here and by whoever passes them on:
// nobody who shares the connection can then guess them by what they compress to.
type Field struct {
	Name, Value []byte
	Sensitive   bool
}

// NewField makes a field of strings.
func NewField(name, value string) Field { return Field{Name: []byte(name), Value: []byte(value)} }

// Options says how a connection behaves. The zero value is a server with the
// protocol's defaults.
type Options struct {
	Client bool
	// MaxStreams is what a server advertises and enforces, and how many a
	// client opens at most whatever the peer allows. 0 is 100.
	MaxStreams uint32
	// StreamWindow and ConnWindow are how many bytes the peer may send ahead.
	// They should differ, so that one stream cannot use up the connection's. 0 is
	// 256 KiB and 4 MiB.
	StreamWindow, ConnWindow int32
	// FirstWindow is what a stream's window begins with. It grows to StreamWindow
	// as bytes are done with, so that who does not read holds little. Half of it
	// should be more than turn.LowMark, up to which those who return credit as
	// bytes leave hear nothing. 0 is 48 KiB, or StreamWindow if that is less.
	FirstWindow int32
	// Tight, if not nil, says that memory is short: windows do not grow, and
	// those that have go back to FirstWindow.
	Tight *atomic.Bool
	// MaxFrameSize is the longest frame accepted. 0 is 16 KiB.
	MaxFrameSize uint32
	// MaxSendFrame is the longest DATA frame sent, if the peer takes it: short
	// enough that streams interleave. 0 is 16 KiB, more than 64 KiB is 64 KiB.
	MaxSendFrame uint32
	// MaxHeaderList is the largest head accepted, as RFC 9113 counts it
	// (section 6.5.2). 0 is 64 KiB.
	MaxHeaderList uint32
	// Courteous holds PINGs to what every peer bears: only while streams are open,
	// and one in five minutes. gRPC servers end the connection of a client that
	// asks more often (gRPC proposal A8).
	Courteous bool
	// ConnectProtocol lets clients open streams with extended CONNECT (RFC 8441).
	ConnectProtocol bool
	Limits          Limits
	// Counters, if not nil, say how often peers met a limit.
	Counters *Counters
}

func (o *Options) fill() {
	if o.MaxStreams == 0 {
		o.MaxStreams = firstStreams
	}
	if o.StreamWindow <= 0 {
		o.StreamWindow = 256 << 10
	}
	if o.FirstWindow <= 0 {
		o.FirstWindow = 48 << 10
	}
	o.FirstWindow = min(o.FirstWindow, o.StreamWindow)
	if o.ConnWindow <= 0 {
		o.ConnWindow = 4 << 20
	}
	o.ConnWindow = max(o.ConnWindow, defaultWindow) // it can only be raised from there
	if o.MaxFrameSize == 0 {
		o.MaxFrameSize = minFrameSize
	}
	o.MaxFrameSize = min(max(o.MaxFrameSize, minFrameSize), maxFrameSize)
	if o.MaxSendFrame == 0 {
		o.MaxSendFrame = minFrameSize
	}
	o.MaxSendFrame = min(max(o.MaxSendFrame, minFrameSize), 64<<10)
	if o.MaxHeaderList == 0 {
		o.MaxHeaderList = 64 << 10
	}
	o.Limits.fill()
}

// A ConnHandler hears of a connection, inside a turn and with no lock held.
type ConnHandler interface {
	// Request says that the peer opened a stream; only servers hear it. The
	// head is well formed. Request calls s.Handle or ends the stream before it
	// returns; a stream it leaves without a handler is reset. fields die on
	// return.
	Request(t *turn.Turn, s *Stream, fields []Field, end bool)
	// GoneAway says that the peer sent GOAWAY. Streams beyond last have been
	// closed.
	GoneAway(t *turn.Turn, last, code uint32, debug string)
	// Idle says that the last stream has closed.
	Idle(t *turn.Turn)
}

// A StreamHandler hears of one stream, inside a turn and with no Conn's lock
// held. Calls for one stream never overlap.
type StreamHandler interface {
	// Headers brings a head: for a client an informational or final one, then
	// trailers; for a server trailers. fields die on return.
	Headers(t *turn.Turn, s *Stream, fields []Field, end bool)
	// Data brings content, a view that dies on return; it may be empty with end.
	Data(t *turn.Turn, s *Stream, p []byte, end bool)
	// Left says that the stream held more than turn.LowMark and now holds less.
	Left(t *turn.Turn, s *Stream)
	// Closed is the last call and comes once. err is nil when both directions
	// ended in order.
	Closed(t *turn.Turn, s *Stream, err error)
}

// A Conn is one HTTP/2 connection.
type Conn struct {
	// Set once.
	sink  turn.Sink
	taker turn.Taker // sink, if it is one
	h     ConnHandler
	o     Options

	// Owned by the read loop.
	in recvState

	// Atomic.
	heard atomic.Bool   // something was received since the last Tick
	owes  atomic.Uint64 // which frame the peer has begun and not finished, or 0

	mu sync.Mutex

	// Guarded by mu: the streams.
	streams   streamTable
	nextID    uint32 // the next stream that this client opens
	maxPeerID uint32 // the highest stream that the peer opened
	reserved  int    // places for streams that are to be opened
	gone      goneStreams

	// Guarded by mu: sending.
	out      []byte // lent; nil when empty
	outFirst int    // what the next one has room for at first
	tail     *Stream
	tailAt   int // where in out the last frame begins, if it is DATA of tail
	handed   int64
	left     int64 // of handed, how much was known to have left when last looked
	sinkHeld int   // at most this much was held by the sink when last looked
	ring     ring  // streams with bytes and window, taken in turn
	waiting  []*Stream
	spare    *chunk
	spares   int
	enc      encoder
	marked   bool // a turn will flush
	noted    bool // a turn will call Notified
	dueIdle  bool

	// Guarded by mu: flow control.
	sendWin  int64
	recvWin  int64
	recvOwed int32
	recvInit int32 // window of new streams towards us
	share    share

	// Guarded by mu: the peer's settings.
	peer        peerSettings
	gotSettings bool // the peer's first SETTINGS
	acked       bool // ours are acknowledged

	// Guarded by mu: life and death.
	ticks uint32 // how often Tick was called
	end   endState
	ping  pingState
	rate  rates
	stats Stats
}

var (
	_ turn.Flusher  = (*Conn)(nil)
	_ turn.Notified = (*Conn)(nil)
)

// NewConn makes a connection that writes to sink. Start begins it.
func NewConn(sink turn.Sink, h ConnHandler, o Options) *Conn {
	o.fill()
	c := &Conn{
		sink:     sink,
		h:        h,
		o:        o,
		nextID:   1,
		sendWin:  defaultWindow,
		recvWin:  int64(o.ConnWindow),
		recvInit: max(o.FirstWindow, defaultWindow), // until the peer has seen a smaller one
		peer:     peerSettings{window: defaultWindow, frame: minFrameSize, send: minFrameSize, streams: firstStreams},
	}
	c.taker, _ = sink.(turn.Taker)
	c.enc.init()
	c.in.init(&c.o)
	return c
}

// Start sends the preface: SETTINGS and the connection's window.
func (c *Conn) Start(t *turn.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Client {
		c.appendRaw(clientPreface)
	}
	c.appendSettings()
	if grow := uint32(c.o.ConnWindow) - defaultWindow; grow > 0 {
		c.appendWindowUpdate(0, grow)
	}
	c.ping.start(t.Now())
	c.mark(t)
}

// Streams returns how many streams are open.
func (c *Conn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams.n
}

// Handlers returns who hears of the streams that are open.
func (c *Conn) Handlers() []StreamHandler {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]StreamHandler, 0, c.streams.n)
	for s := range c.streams.all() {
		if s.h != nil {
			all = append(all, s.h)
		}
	}
	return all
}

// Room returns how many more streams Open can make now.
func (c *Conn) Room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room()
}

// ConnectProtocol reports whether the peer, a server, takes extended CONNECT.
func (c *Conn) ConnectProtocol() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.connectProtocol
}

// Left says that the sink fell below its low mark: what waited may go.
func (c *Conn) Left(t *turn.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	c.pump(t)
	if len(c.out) > 0 {
		c.mark(t)
	}
	c.tellWaiting(t)
}

// Notified implements turn.Notified.
func (c *Conn) Notified(t *turn.Turn) {
	c.mu.Lock()
	c.noted = false
	idle := c.dueIdle && c.streams.n == 0
	c.dueIdle = false
	c.mu.Unlock()
	if idle {
		c.h.Idle(t)
	}
}

// notify queues c's up-calls. c.mu is held.
func (c *Conn) notify(t *turn.Turn) {
	if !c.noted {
		c.noted = true
		t.Notify(c)
	}
}

// mark sees to it that a turn flushes. c.mu is held.
func (c *Conn) mark(t *turn.Turn) {
	if !c.marked {
		c.marked = true
		t.Mark(c)
	}
}
