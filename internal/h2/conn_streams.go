package h2

import (
	"encoding/binary"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// goneStreams remembers how streams that are out of the table ended, as far as
// it matters for frames that still come for them (RFC 9113, section 5.1).
//
// Frames that were under way when we reset a stream are to be ignored; frames
// for a stream that the peer itself has ended are errors. Ended streams are
// forgotten early and then cost a reset. Reset streams are never taken for
// ended ones: all at or below the highest one forgotten pass as reset.
type goneStreams struct {
	reset     [64]uint32
	ended     [16]uint32
	nReset    uint8
	nEnded    uint8
	forgotten uint32
}

func (g *goneStreams) addReset(id uint32) {
	g.forgotten = max(g.forgotten, g.reset[g.nReset])
	g.reset[g.nReset] = id
	g.nReset = (g.nReset + 1) % uint8(len(g.reset))
}

func (g *goneStreams) addEnded(id uint32) {
	g.ended[g.nEnded] = id
	g.nEnded = (g.nEnded + 1) % uint8(len(g.ended))
}

func (g *goneStreams) wasReset(id uint32) bool {
	if id <= g.forgotten {
		return true
	}
	return has(g.reset[:], id)
}

func (g *goneStreams) hasEnded(id uint32) bool { return has(g.ended[:], id) }

func has(ids []uint32, id uint32) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// room is how many streams Open can make. c.mu is held.
func (c *Conn) room() int {
	if !c.o.Client || c.end.err != nil || c.end.sent || c.end.got || c.nextID > maxStreamID {
		return 0
	}
	return max(0, int(min(c.peer.streams, c.o.MaxStreams))-c.streams.n-c.reserved)
}

// Reserve keeps a place for a stream, unless most are taken already, and reports
// whether there was one. The stream is opened by OpenReserved, or the place given
// back by Unreserve.
func (c *Conn) Reserve(most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room() == 0 || c.streams.n+c.reserved >= most {
		return false
	}
	c.reserved++
	return true
}

// Unreserve gives a place back.
func (c *Conn) Unreserve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserved--
}

// Unused reports whether there is no stream and no place reserved for one.
func (c *Conn) Unused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams.n+c.reserved == 0
}

// OpenReserved is Open for a place that was reserved. It can still fail, if the
// peer has lowered its limit or gone away meanwhile.
func (c *Conn) OpenReserved(t *turn.Turn, h StreamHandler, fields []Field, end bool) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserved--
	return c.open(t, h, fields, end)
}

// Open opens a stream with a request head. It fails with ErrFull, ErrGoneAway or
// ErrClosed, and never calls h.
func (c *Conn) Open(t *turn.Turn, h StreamHandler, fields []Field, end bool) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open(t, h, fields, end)
}

// open is Open. c.mu is held.
func (c *Conn) open(t *turn.Turn, h StreamHandler, fields []Field, end bool) (*Stream, error) {
	switch {
	case c.end.err != nil:
		return nil, ErrClosed
	case c.end.sent || c.end.got || c.nextID > maxStreamID:
		return nil, ErrGoneAway
	case c.room() == 0:
		return nil, ErrFull
	}
	s := c.newStream(c.nextID)
	c.nextID += 2
	s.h = h
	s.sentHead, s.endDue, s.sendClosed = true, end, end
	for i := range fields {
		if string(fields[i].Name) == ":method" {
			s.connect = string(fields[i].Value) == "CONNECT"
			s.noHead = string(fields[i].Value) == "HEAD"
			break
		}
	}
	c.appendHead(s.id, fields, end)
	c.mark(t)
	return s, nil
}

func (c *Conn) newStream(id uint32) *Stream {
	s := &Stream{c: c, id: id, sendWin: c.peer.window, recvWin: c.recvInit, recvMost: c.recvInit, born: c.ticks}
	c.streams.put(s)
	c.stats.StreamsOpened++
	c.rate.opened++
	return s
}

// takeHead takes the head that has just been decoded to its stream.
func (c *Conn) takeHead(t *turn.Turn, id uint32, end bool) error {
	c.mu.Lock()
	s := c.streams.get(id)
	if s == nil {
		c.settle(t)
		s, err := c.openRemote(t, id, end)
		if s != nil {
			c.in.busy, s.busy = s, true
		}
		c.mu.Unlock()
		if s != nil {
			c.deliverRequest(t, s, end)
		}
		return err
	}
	ok, err := c.judgeHead(t, s, end)
	c.mu.Unlock()
	if !ok {
		return err
	}
	if h := c.receiving(t, s, end); h != nil {
		h.Headers(t, s, c.in.head.fields, end)
	}
	return nil
}

// judgeHead judges a head for an open stream. Not ok: it is not to be delivered,
// and the error is the connection's. c.mu is held.
func (c *Conn) judgeHead(t *turn.Turn, s *Stream, end bool) (ok bool, err error) {
	h := &c.in.head
	code, reason := CodeProtocol, ""
	switch {
	case c.in.selfDependent:
		reason = selfDependent
	case s.recvClosed:
		code, reason = CodeStreamClosed, "HEADERS after END_STREAM"
	case s.tunnel:
		reason = "HEADERS in a tunnel" // section 8.5
	case h.tooLarge:
		c.headTooLarge()
		code, reason = CodeEnhanceYourCalm, "head too large"
	case s.gotHead:
		reason = h.trailers(end)
	default:
		reason = h.response(end)
	}
	if reason == "" && h.seen != 0 && h.status >= 200 { // a client's final head
		s.gotHead = true
		s.tunnel = s.connect && h.status < 300
		if !s.tunnel && !s.noHead && h.status != 204 && h.status != 304 {
			s.length, s.announced = h.length, h.length >= 0
		}
	}
	if reason == "" && end && s.length > 0 {
		reason = "content does not have the length announced"
	}
	if reason != "" {
		c.stats.Malformed++
		return false, c.streamError(t, s, code, reason)
	}
	return true, nil
}

// openRemote opens the stream that a peer's head is for, or says why not: by a
// reset, or as the connection's error. c.mu is held.
func (c *Conn) openRemote(t *turn.Turn, id uint32, end bool) (*Stream, error) {
	if c.o.Client || id%2 == 0 || id <= c.maxPeerID {
		return nil, c.absent(t, frame{typ: frameHeaders, id: id})
	}
	c.maxPeerID = id
	if c.end.err != nil || c.end.final {
		return nil, c.charge(LimitStrays) // beyond what GOAWAY promised
	}
	h := &c.in.head
	reason := h.request(c.o.ConnectProtocol)
	tunnel := h.connect
	if c.in.selfDependent {
		reason = selfDependent
	}
	if reason == "" && end && h.length > 0 && !tunnel {
		reason = "content does not have the length announced"
	}
	switch {
	case c.streams.n >= int(c.o.MaxStreams):
		c.stats.StreamsRefused++
		c.met(LimitStreams)
		return nil, c.refuse(t, id, CodeRefusedStream)
	case h.tooLarge:
		c.headTooLarge()
		c.appendHead(id, []Field{NewField(":status", "431")}, true) // RFC 6585, section 5
		if end {
			c.gone.addEnded(id)
			c.mark(t)
			return nil, c.chargeAnswer(LimitResets)
		}
		return nil, c.refuse(t, id, CodeNoError)
	case reason != "":
		c.stats.Malformed++
		return nil, c.refuse(t, id, CodeProtocol)
	}
	s := c.newStream(id)
	s.gotHead, s.connect, s.tunnel, s.opening, s.recvClosed = true, tunnel, tunnel, true, end
	if !tunnel {
		s.length, s.announced = h.length, h.length >= 0
	}
	return s, nil
}

// deliverRequest hands a new stream to the connection's handler.
func (c *Conn) deliverRequest(t *turn.Turn, s *Stream, end bool) {
	c.h.Request(t, s, c.in.head.fields, end)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(t)
	s.opening = false
	c.maybeFinish(t, s)
	if !s.closed && s.h == nil && !s.endDue {
		c.reset(t, s, &StreamError{Code: CodeInternal, Reason: "nobody handles the stream"})
	}
}

// refuse resets a stream that was never opened. c.mu is held.
func (c *Conn) refuse(t *turn.Turn, id, code uint32) error {
	c.appendReset(id, code)
	c.gone.addReset(id)
	c.mark(t)
	return c.chargeAnswer(LimitResets)
}

// absent judges a frame for a stream that is not in the table: idle, or closed.
// What may be dropped is no error. c.mu is held.
func (c *Conn) absent(t *turn.Turn, f frame) error {
	idle := f.id%2 == 0 // only clients open streams, and we push none
	if c.o.Client {
		idle = idle || f.id >= c.nextID
	} else {
		idle = idle || f.id > c.maxPeerID
	}
	switch {
	case idle:
		return &ConnError{Code: CodeProtocol, Reason: shapes[f.typ].name + " on an idle stream"}
	case c.gone.wasReset(f.id) || c.end.final && !c.o.Client && f.id > c.end.last:
		return c.stray(f) // it was under way when we reset the stream or went away
	case f.typ == frameHeaders && c.gone.hasEnded(f.id):
		return &ConnError{Code: CodeStreamClosed, Reason: "HEADERS on a closed stream"}
	case f.typ == frameHeaders:
		return &ConnError{Code: CodeProtocol, Reason: "HEADERS on a stream that is not open"}
	case f.typ == frameData:
		return c.refuse(t, f.id, CodeStreamClosed)
	}
	return c.stray(f) // WINDOW_UPDATE and RST_STREAM may come late
}

// stray charges a frame that is dropped. WINDOW_UPDATE has been charged already.
func (c *Conn) stray(f frame) error {
	if f.typ == frameWindowUpdate {
		return nil
	}
	return c.charge(LimitStrays)
}

// maybeFinish closes a stream that has ended in both directions. c.mu is held.
func (c *Conn) maybeFinish(t *turn.Turn, s *Stream) {
	switch {
	case s.closed || s.opening || !s.sendClosed:
	case s.recvClosed:
		c.gone.addEnded(s.id)
		c.finish(t, s, nil)
	case s.h == nil || s.stopped:
		// Answered in full, and nobody wants what is still to come (section 8.1).
		c.reset(t, s, &StreamError{Code: CodeNoError})
	}
}

// finish takes a stream out of the table and tells its handler. c.mu is held.
func (c *Conn) finish(t *turn.Turn, s *Stream, err error) {
	s.closed, s.err = true, err
	c.streams.remove(s)
	c.ring.remove(s)
	c.unwatch(s)
	if c.tail == s {
		c.tail = nil
	}
	for s.first != nil {
		q := s.first
		s.first = q.next
		c.freeChunk(q)
	}
	s.last, s.trailers, s.queued = nil, nil, 0
	s.notify(t)
	if c.streams.n == 0 {
		c.spare, c.spares = nil, 0
		c.dueIdle = true
		c.notify(t)
		c.maybeDone(t)
	}
}

// reset ends a stream with RST_STREAM. c.mu is held.
func (c *Conn) reset(t *turn.Turn, s *Stream, err *StreamError) {
	c.appendReset(s.id, err.Code)
	if s.recvClosed {
		c.gone.addEnded(s.id) // the peer cannot have more under way
	} else {
		c.gone.addReset(s.id)
	}
	c.finish(t, s, err)
	c.mark(t)
}

// headless resets a stream that sends content before its head, which the peer
// would have to take for an error of the whole connection. c.mu is held.
func (c *Conn) headless(t *turn.Turn, s *Stream) bool {
	if !s.sentHead {
		c.reset(t, s, &StreamError{Code: CodeInternal, Reason: "content sent before the head"})
	}
	return !s.sentHead
}

// streamError resets a stream for what the peer did. Its error, if too many
// were provoked, is the connection's. c.mu is held.
func (c *Conn) streamError(t *turn.Turn, s *Stream, code uint32, reason string) error {
	c.reset(t, s, &StreamError{Code: code, Reason: reason})
	return c.chargeAnswer(LimitResets)
}

func (c *Conn) handleReset(t *turn.Turn, id, code uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.ResetsIn++
	s := c.streams.get(id)
	if s == nil {
		return c.absent(t, frame{typ: frameRSTStream, id: id})
	}
	// Rapid reset: work begun for nothing. A stream that its opener gave up after
	// a wait for its answer is no such thing; deadlines do that. A tunnel is
	// answered at once, so there it is content that counts.
	used := s.lastPos > 0 || s.sentHead && !s.connect
	early := !c.o.Client && !used && c.ticks-s.born < 2
	c.gone.addEnded(id)
	c.finish(t, s, &StreamError{Code: code, Remote: true})
	if early {
		return c.charge(LimitResets)
	}
	return nil
}

const selfDependent = "stream depends on itself"

// dependsOnItself judges priority fields, which are otherwise ignored (RFC 9113,
// section 5.3.2; RFC 7540, section 5.3.1).
func dependsOnItself(id uint32, p []byte) bool {
	return binary.BigEndian.Uint32(p)&maxStreamID == id
}

func (c *Conn) handlePriority(t *turn.Turn, f frame, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	code, reason := CodeProtocol, ""
	if f.n != 5 {
		code, reason = CodeFrameSize, "PRIORITY of the wrong length"
	} else if dependsOnItself(f.id, p) {
		reason = selfDependent
	}
	if reason == "" {
		return c.charge(LimitPriority)
	}
	if s := c.streams.get(f.id); s != nil {
		return c.streamError(t, s, code, reason)
	}
	// There is no stream to reset, and an idle one must not be.
	return &ConnError{Code: code, Reason: reason}
}
