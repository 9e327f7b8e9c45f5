package h2

import (
	"sync"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A Stream is one stream of a Conn, and a turn.Sink. Its methods may be called
// from any goroutine; after Closed they do nothing.
//
// A connection has many, so each event finds one out of the processor's caches:
// received DATA looks at the first 64 bytes only, and sent DATA at the next too.
type Stream struct {
	// Set once.
	c  *Conn
	id uint32

	// Guarded by c.mu: receiving.
	recvWin  int32 // what the peer may still send
	recvOwed int32 // consumed, and not returned yet
	recvMost int32 // what recvWin is when nothing is under way

	// Guarded by c.mu: state.
	h          StreamHandler
	epoch      uint16 // of the connection's count that it is in
	busy       bool   // the reader calls the handler, or has not settled the call
	late       bool   // Notified came meanwhile
	telling    bool   // Notified calls Left
	noted      bool   // a turn will call Notified
	dueLeft    bool   // …of which that is to tell the handler
	told       bool   // Closed has been called
	inRing     bool
	endDue     bool // CloseWrite was called; END_STREAM follows the queue
	sendClosed bool // END_STREAM has been appended
	recvClosed bool // END_STREAM has been received
	closed     bool // out of the table
	gotHead    bool // the final head has been received
	sentHead   bool
	opening    bool // Request has not returned
	connect    bool // a CONNECT request
	tunnel     bool // an open tunnel: nothing but DATA may come
	noHead     bool // the request was HEAD, whose content-length promises nothing
	stopped    bool // nobody wants what the peer still sends
	announced  bool // the content has a length

	// Guarded by c.mu: sending.
	sendWin     int64
	queued      int
	first, last *chunk
	lastPos     int64  // where in all that the connection sent this stream's last byte is
	flight      int64  // bytes sent since the out side held none
	waitAt      int32  // place in c.waiting plus one
	born        uint32 // c.ticks when it was opened

	// Guarded by c.mu: rare.
	prev, next *Stream // in c.ring
	length     int64   // content still to come if it was announced
	trailers   []Field // they follow the queue
	err        error

	// Held while Notified calls the handler; the reader may wait for it. It comes
	// before every other lock, so nothing that a handler calls down takes it.
	up sync.Mutex
}

var (
	_ turn.Sink     = (*Stream)(nil)
	_ turn.Notified = (*Stream)(nil)
)

// Handle sets who hears of the stream. A server calls it in Request; it may be
// called again when a stream changes its protocol.
func (s *Stream) Handle(h StreamHandler) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.h = h
}

// ID returns the stream's number.
func (s *Stream) ID() uint32 { return s.id }

// SendHeaders sends a head: a server's responses, or trailers (with end), which
// wait for queued content. Fields are taken as they are; content-length must
// match what is written. The peer's MAX_HEADER_LIST_SIZE, which is advice, is
// not looked at.
func (s *Stream) SendHeaders(t *turn.Turn, fields []Field, end bool) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closed || s.endDue {
		return
	}
	if !s.sentHead && Status(fields) >= 200 {
		s.sentHead = true
		if !s.connect {
			c.rate.answered++
		}
	}
	s.endDue = end
	switch {
	case s.queued == 0:
		c.appendHead(s.id, fields, end)
		if end {
			s.sendClosed = true
			c.maybeFinish(t, s)
		}
	case end:
		s.trailers = cloneFields(fields)
	default: // a head behind content is no message at all
		c.reset(t, s, &StreamError{Code: CodeInternal, Reason: "head sent behind content"})
	}
	c.mark(t)
}

// cloneFields copies fields, whose bytes are the caller's.
func cloneFields(fields []Field) []Field {
	n := 0
	for i := range fields {
		n += len(fields[i].Name) + len(fields[i].Value)
	}
	all, out := make([]byte, 0, n), make([]Field, len(fields))
	for i := range fields {
		f := &fields[i]
		at := len(all)
		all = append(append(all, f.Name...), f.Value...)
		mid := at + len(f.Name)
		out[i] = Field{Name: all[at:mid:mid], Value: all[mid:len(all):len(all)], Sensitive: f.Sensitive}
	}
	return out
}

// Write implements turn.Sink: it appends a copy of p to what the stream sends.
func (s *Stream) Write(t *turn.Turn, p []byte) {
	c := s.c
	c.mu.Lock()
	n := int64(len(p))
	// What is as most is goes at once, and needs no defer, since nobody is called
	// (TestPanicInSink). BenchmarkMerge/merged 565 → 470 ns.
	if s.closed || s.endDue || !s.sentHead || n == 0 || s.queued > 0 || c.ring.head != nil ||
		n > s.sendWin || n > c.sendWin || len(p) > min(c.peer.send, handAt-len(c.out), outCap-c.sinkHeld-len(c.out)) {
		c.writeSlow(t, s, p)
		return
	}
	c.appendData(t, s, p)
	if s.waitAt > 0 || s.flight > turn.LowMark { // else it cannot hold so much
		c.watch(t, s)
	}
	c.mark(t)
	c.mu.Unlock()
}

// writeSlow is Write of what may have to wait, to be handed on or to be refused. It
// is called with c.mu held, which it lets go.
func (c *Conn) writeSlow(t *turn.Turn, s *Stream, p []byte) {
	defer c.mu.Unlock()
	if s.closed || s.endDue || len(p) == 0 || c.headless(t, s) {
		return
	}
	if s.queued == 0 && c.ring.head == nil { // nobody waits, so nobody is overtaken
		n := int(min(int64(len(p)), s.sendWin, c.sendWin))
		if n > 0 {
			if room := c.outRoom(n); room < n {
				n = max(0, room/c.peer.send*c.peer.send) // whole frames only
			}
		}
		if n > 0 {
			c.appendData(t, s, p[:n])
			p = p[n:]
		}
	}
	if len(p) > 0 {
		c.enqueue(s, p)
		c.ready(t, s)
	}
	if s.waitAt > 0 || s.queued > 0 || s.flight > turn.LowMark { // else it cannot hold so much
		c.watch(t, s)
	}
	c.mark(t)
}

// Buffered implements turn.Sink: the stream's queue, and of its bytes in the
// buffers below what may not have left yet.
func (s *Stream) Buffered() int {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closed {
		return 0
	}
	if s.lastPos > c.left {
		c.look()
	}
	return s.held()
}

// held is Buffered as far as is known. c.mu is held.
func (s *Stream) held() int {
	return s.queued + int(max(0, min(s.flight, s.lastPos-s.c.left)))
}

// CloseWrite implements turn.Sink: END_STREAM follows what was written.
func (s *Stream) CloseWrite(t *turn.Turn) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closed || s.endDue || c.headless(t, s) {
		return
	}
	s.endDue = true
	if s.queued == 0 {
		c.sendEnd(t, s)
		c.mark(t)
	}
}

// Abort implements turn.Sink: RST_STREAM with code. What was queued is dropped;
// Closed follows with a *StreamError.
func (s *Stream) Abort(t *turn.Turn, code uint32) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.closed {
		c.reset(t, s, &StreamError{Code: code})
	}
}

// Stop says that nobody wants what the peer still sends: as soon as this end has
// sent all of its own, RST_STREAM with NO_ERROR tells the peer so (RFC 9113,
// section 8.1). Until then the handler hears of the rest.
func (s *Stream) Stop(t *turn.Turn) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.stopped = true
	c.maybeFinish(t, s)
}

// Consume says that n received bytes are done with, so that the peer may send
// as many more.
func (s *Stream) Consume(t *turn.Turn, n int) {
	c := s.c
	if n <= 0 {
		return
	}
	if t.Inside(&c.in.feed) && c.in.busy == s { // in Data, as a rule: settle sees to it
		c.in.used += n
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.closed {
		c.creditStream(t, s, n)
	}
}

// notify queues s's up-calls. c.mu is held.
func (s *Stream) notify(t *turn.Turn) {
	if !s.noted {
		s.noted = true
		t.Notify(s)
	}
}

// Notified implements turn.Notified.
func (s *Stream) Notified(t *turn.Turn) {
	s.up.Lock()
	defer s.up.Unlock()
	c := s.c
	c.mu.Lock()
	if s.busy { // settle notifies again
		s.late = true
		c.mu.Unlock()
		return
	}
	s.noted = false
	h, err := s.h, s.err // no handler: it was refused in Request, which knows
	closed := h != nil && s.closed && !s.told
	left := h != nil && s.dueLeft && !s.closed
	s.dueLeft, s.told, s.telling = false, s.closed, left
	c.mu.Unlock()
	switch {
	case closed:
		h.Closed(t, s, err)
	case left:
		defer s.toldLeft()
		h.Left(t, s)
	}
}

func (s *Stream) toldLeft() {
	s.c.mu.Lock()
	s.telling = false
	s.c.mu.Unlock()
}
