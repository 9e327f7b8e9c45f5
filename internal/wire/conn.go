package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
)

var (
	_ turn.Taker    = (*Conn)(nil)
	_ turn.Flusher  = (*Conn)(nil)
	_ turn.Notified = (*Conn)(nil)
	_ wheel.Owner   = (*Conn)(nil)
)

// An Engine is a protocol state machine on one transport connection.
type Engine interface {
	// Feed brings received bytes, a view that dies when Feed returns. An error
	// ends the connection after what was written has left.
	Feed(t *turn.Turn, p []byte) error
	// EOF says that the peer has finished sending. The answer true keeps the
	// writing direction open; false closes the connection.
	EOF(t *turn.Turn) bool
	// Left says that the out buffer held more than turn.LowMark and now holds
	// less.
	Left(t *turn.Turn)
	// Tick comes every Options.Tick, from the wheel's goroutine.
	Tick(t *turn.Turn)
	// Closed is the last call, and comes once. err is nil when the connection
	// ended in order.
	Closed(t *turn.Turn, err error)
}

const (
	// readSize is what one read asks for. Few requests fit any size; bulk wants few
	// reads (64 KiB: 7.6 us, four of 16 KiB: 12.8 us), and so do hundreds of streams:
	// a waypoint of 256 spends 6 % less than with 64 KiB.
	readSize = 128 << 10
	// flushAt is where an out buffer is sent before its turn ends, so that a
	// long turn neither hoards memory nor leaves the peer idle.
	flushAt = 64 << 10
	// MaxLinger bounds how long a closing connection waits for its peer.
	MaxLinger = 5 * time.Second
	// salvageMax bounds what is read after a write has failed.
	salvageMax = 256 << 10
)

// Options say how a connection is driven. The zero value is for an engine that
// accounts for what it receives (HTTP/2) and needs no ticks.
type Options struct {
	// Park is how many received bytes may await Consume before the reader
	// pauses; it goes on below half. 0 means never: the engine has windows.
	// While it pauses, the peer's FIN or RST is not noticed.
	Park int
	// Wheel and Tick give the engine its ticks; both or none.
	Wheel *wheel.Wheel
	Tick  time.Duration
	// Linger bounds closing; 0 means MaxLinger, and more is cut to it.
	Linger time.Duration
	// Counters, if not nil, count what should be rare; many connections may
	// share them.
	Counters *Counters
	// Loops, if not nil, read for sockets, in place of a goroutine each.
	Loops *Loops
}

// Errors that Closed may bring besides those of the transport.
var (
	// ErrAborted ends a connection that Abort was called on.
	ErrAborted = errors.New("connection aborted here")
	// ErrTruncated says that the peer sent FIN and no close_notify: what came
	// before may not be all there was (RFC 8446, section 6.1).
	ErrTruncated = errors.New("TLS connection ended without close_notify")
	errAnswers   = errors.New("peer asks TLS for answers that it does not read")
)

// A PanicError ends a connection whose engine panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("panic in a connection's engine: %v", e.Value)
}

// How the writing direction stands.
type writeState uint8

const (
	writeOpen writeState = iota
	writeEnds            // FIN follows what is buffered
	writeShut            // FIN was sent
	writeDead            // what is buffered is dropped
)

// A Conn is one transport connection and what drives it.
type Conn struct {
	// Set once, before Serve.
	nc     net.Conn
	drv    driver
	rec    *records // nil without TLS
	tc     *tls.Conn
	o      Options
	loop   *loop      // that reads; nil if a goroutine of its own does
	turn   *turn.Turn // the reader's: the loop's, or its own
	engine Engine     // by Serve, under mu

	// Owned by the reader: the loop, or the goroutine in serve.
	open      bool // the turn has done something since it last ended
	pastEnd   bool // EOF was read, and the driver cannot wait for more
	salvaging bool // a write failed: what has arrived is read, without waiting
	begun     bool // a loop has looked at it
	lingers   bool // the engine has heard Closed
	gone      bool // a loop has let it go
	salvage   int  // how many bytes of it still may be

	// Owned by whoever set flushing.
	src    []byte // taken from out, being encrypted
	srcOff int
	raw    []byte // being sent
	rawOff int
	flight int // how many bytes of Write the rest of raw stands for, at most

	// Atomic.
	halt       atomic.Bool  // the reader has to look at the state
	parked     atomic.Bool  // the reader waits for Consume
	shedding   atomic.Bool  // the reader is to go on in a fresh goroutine when it waits next
	buffered   atomic.Int64 // written and not yet taken by the socket
	unconsumed atomic.Int64
	stats      stats

	// Guarded by mu.
	mu       sync.Mutex
	wake     sync.Cond // the reader waits on it while parked
	out      []byte    // written; nobody has taken it yet
	dirty    bool      // some turn will flush
	flushing bool      // somebody owns the sending side
	again    bool      // a flush was asked for meanwhile
	high     bool      // more than turn.LowMark has been buffered
	leftDue  bool      // Left is queued in some turn
	state    writeState
	notified bool  // close_notify was sent, or must not be
	eof      bool  // the peer has finished
	closing  bool  // the engine is to hear no more; what was written still leaves
	broken   bool  // a write failed
	failed   bool  // give up at once, with RST
	ended    bool  // Closed is due: nothing else is called any more
	shed     bool  // the reader has shed its stack since it last received
	err      error // what Closed will say; the first one stays
	until    time.Time
	timer    wheel.Timer
	seen     int64 // bytes received up to the last tick
	posted   bool  // guarded by loop.mu: the loop is to look at it

	calls  sync.WaitGroup // calls into the engine from other goroutines
	drains sync.WaitGroup // the drain goroutine
	reader sync.WaitGroup // whoever is in serve
}

// New makes a connection of nc, which it owns from then on. Bytes may be
// written at once; nothing is read before Serve.
func New(nc net.Conn, o Options) *Conn {
	c := newConn(nc, o)
	if !c.join() {
		c.alone()
	}
	return c
}

// alone has a goroutine of its own read for the connection.
func (c *Conn) alone() {
	c.drv = newDriver(c.nc, &c.stats)
	c.turn = new(turn.Turn)
}

func newConn(nc net.Conn, o Options) *Conn {
	c := &Conn{nc: nc, o: o}
	c.wake.L = &c.mu
	if o.Linger <= 0 || o.Linger > MaxLinger {
		c.o.Linger = MaxLinger
	}
	if o.Counters == nil {
		c.o.Counters = new(Counters)
	}
	return c
}

// Run calls f in a turn of its own on the calling goroutine. It is for what
// begins outside any turn: a dial that is done, a value that arrived.
func (c *Conn) Run(f func(t *turn.Turn)) {
	var t turn.Turn
	func() {
		defer c.rescue()
		f(&t)
	}()
	c.endOf(&t)
}

// Serve reads until the connection is over, but may return before: a loop may
// read, and with ticks a connection that idles goes on in another goroutine. It is
// called once.
func (c *Conn) Serve(e Engine) {
	c.reader.Add(1)
	c.mu.Lock()
	c.engine = e
	if c.o.Tick > 0 && c.o.Wheel != nil {
		c.o.Wheel.Set(&c.timer, c, c.o.Tick)
	}
	c.mu.Unlock()
	if c.loop != nil {
		c.loop.post(c)
		return
	}
	c.begin()
	c.serve()
}

// begin is the reader's first look.
func (c *Conn) begin() {
	c.mu.Lock()
	c.noteLeft(c.turn) // what was written before may have left
	c.mu.Unlock()
	c.open = true
}

// Wait returns when the connection is over and nothing of it is left: no
// descriptor, no goroutine. It comes after Serve.
func (c *Conn) Wait() { c.reader.Wait() }

func (c *Conn) serve() {
	if !c.read() {
		*c.turn = turn.Turn{} // and the room that it has kept
		c.o.Counters.Sheds.Add(1)
		go c.serve()
		return
	}
	c.tellClosed()
	c.linger()
	c.release()
	c.reader.Done()
}

// read is the loop: wait, read once, do everything that made possible, flush.
// It returns false when the reader is to shed its stack before it waits.
func (c *Conn) read() (over bool) {
	for !c.over() {
		if c.pastEnd || c.full() {
			if c.open {
				c.endTurn()
			} else {
				c.park()
			}
			continue
		}
		if c.rec != nil && c.rec.ready() {
			c.decrypt() // what came with the handshake, or was left when over had to look
			continue
		}
		wait := !c.open && !c.salvaging
		if wait && c.shedding.Load() {
			c.shedding.Store(false)
			return false
		}
		in, size := c.held(), c.readSize()
		b, err := c.drv.read(in, size, wait)
		if c.rec != nil {
			c.rec.in = b
		}
		switch {
		case err == nil:
			c.received(b, len(b)-len(in))
			if len(b) < size || c.turn.Spent() || c.full() {
				c.breathe()
			}
		case err == errWouldBlock && c.open:
			c.endTurn()
		default:
			c.unread(err)
		}
	}
	c.readOver()
	return true
}

// readOver ends the last turn that a read began.
func (c *Conn) readOver() {
	c.endTurn()
	if c.rec != nil {
		c.rec.discard()
	}
}

// unread handles a read that brought nothing.
func (c *Conn) unread(err error) {
	switch {
	case err == io.EOF:
		c.transportEOF()
	case err == errWouldBlock: // all that had arrived has been read, and the writing side is broken
		c.giveUp()
	case isTimeout(err): // attend's doing; over knows why
	default:
		c.fail(err)
	}
}

// held returns ciphertext that is kept: the start of a record.
func (c *Conn) held() []byte {
	if c.rec == nil {
		return nil
	}
	return c.rec.in
}

func (c *Conn) readSize() int {
	if room := c.o.Park - int(c.unconsumed.Load()); c.o.Park > 0 && c.rec == nil && room < readSize {
		return max(room, 4<<10)
	}
	return readSize
}

// received handles what one read brought.
func (c *Conn) received(b []byte, n int) {
	c.open = true
	if c.salvaging {
		if c.salvage -= n; c.salvage <= 0 {
			c.giveUp()
		}
	}
	if c.rec != nil {
		c.decrypt()
		return
	}
	c.deliver(b)
	buf.Put(b)
}

// deliver gives bytes to the engine.
func (c *Conn) deliver(p []byte) {
	c.open = true
	c.turn.Event()
	if c.o.Park > 0 {
		c.unconsumed.Add(int64(len(p)))
	}
	if err := c.feed(p); err != nil {
		c.end(err)
	}
}

// breathe ends a turn that is done or has had its share.
func (c *Conn) breathe() {
	spent := c.turn.Spent()
	c.endTurn()
	if spent && c.loop == nil {
		runtime.Gosched()
	}
}

func (c *Conn) full() bool {
	return c.o.Park > 0 && int(c.unconsumed.Load()) >= c.o.Park
}

// park waits, holding nothing, until the engine has consumed half of what may
// be unconsumed, or there is a reason to end.
func (c *Conn) park() {
	if c.salvaging {
		c.giveUp()
		return
	}
	if c.rec != nil {
		c.rec.compact()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.o.Counters.Parks.Add(1)
	c.parked.Store(true)
	for (c.pastEnd || 2*int(c.unconsumed.Load()) >= c.o.Park) && !c.halt.Load() {
		c.wake.Wait()
	}
	c.parked.Store(false)
}

// Consume says that n received bytes are done with.
func (c *Conn) Consume(_ *turn.Turn, n int) {
	if c.o.Park == 0 {
		return
	}
	if left := c.unconsumed.Add(-int64(n)); 2*int(left) < c.o.Park && c.parked.Load() {
		c.unpark()
	}
}

// unpark makes a reader that waits for Consume look again.
func (c *Conn) unpark() {
	if c.loop != nil {
		c.loop.post(c)
		return
	}
	c.mu.Lock()
	c.wake.Broadcast()
	c.mu.Unlock()
}

// transportEOF handles the transport's FIN. Under TLS an end that close_notify
// did not announce may be a cut.
func (c *Conn) transportEOF() {
	c.mu.Lock()
	known := c.eof
	c.mu.Unlock()
	switch {
	case known:
	case c.rec != nil:
		c.fail(ErrTruncated)
	default:
		c.peerEnded()
	}
	c.pastEnd = !c.drv.ended()
}

// peerEnded tells the engine that the peer has finished, in order.
func (c *Conn) peerEnded() {
	c.open = true
	c.mu.Lock()
	c.eof = true
	if c.state == writeShut {
		c.attend()
	}
	c.mu.Unlock()
	keep := c.engineEOF()
	c.endTurn()
	if !keep {
		c.end(nil)
	}
}

// Each call into the engine recovers for itself, so that a panic closes this
// connection and no other whose turn it happened in.

func (c *Conn) feed(p []byte) (err error) {
	defer c.rescue()
	return c.engine.Feed(c.turn, p)
}

func (c *Conn) engineEOF() (keep bool) {
	defer c.rescue()
	return c.engine.EOF(c.turn)
}

func (c *Conn) endTurn() {
	c.open = false
	if c.loop != nil {
		c.loop.endTurn()
		return
	}
	c.endOf(c.turn)
}

// endOf ends a turn. A Flusher or an up-call of another connection may panic in
// it; the turn goes on behind that one, or the rest would stay unflushed.
func (c *Conn) endOf(t *turn.Turn) {
	for !c.tryEnd(t) {
	}
}

func (c *Conn) tryEnd(t *turn.Turn) (ended bool) {
	defer c.rescue()
	t.End()
	return true
}
