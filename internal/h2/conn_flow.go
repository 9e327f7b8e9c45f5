package h2

import "github.com/sandwich-mesh/sandwich/internal/turn"

// credit takes n received bytes from the connection's window, which has them, and
// returns them at once: they are bounded by the streams' windows, and bytes for
// streams that are gone must not be lost to the others. It is sent at half a
// window. c.mu is held.
func (c *Conn) credit(t *turn.Turn, n int) {
	c.recvWin -= int64(n)
	if c.recvOwed += int32(n); c.recvOwed >= c.o.ConnWindow/2 {
		c.sendCredit(t)
	}
}

// sendCredit sends what credit owes. c.mu is held.
func (c *Conn) sendCredit(t *turn.Turn) {
	c.appendWindowUpdate(0, uint32(c.recvOwed))
	c.recvWin += int64(c.recvOwed)
	c.recvOwed = 0
	c.mark(t)
}

// creditStream owes a stream n bytes more, and returns what is owed at half of
// the stream's share of its window. It is never more than was received, and what
// the window grows by: a caller that counts twice must not let the peer send
// beyond it. c.mu is held.
func (c *Conn) creditStream(t *turn.Turn, s *Stream, n int) {
	s.recvOwed = int32(min(int64(s.recvOwed)+int64(n), int64(s.recvMost)-int64(s.recvWin)))
	most := c.share.of(c.o.StreamWindow)
	if s.recvClosed || !c.due(s, min(s.recvMost, most)) {
		return
	}
	if c.o.Tight != nil && c.o.Tight.Load() {
		if most = min(most, c.o.FirstWindow); !c.due(s, most) {
			return
		}
	}
	if most > s.recvMost { // its bytes go somewhere, so it may have more under way
		grow := min(s.recvMost, most-s.recvMost)
		s.recvMost += grow
		s.recvOwed += grow
	}
	give := min(s.recvOwed, min(s.recvMost, most)-s.recvWin)
	c.appendWindowUpdate(s.id, uint32(give))
	s.recvWin += give
	s.recvOwed -= give
	c.mark(t)
}

// due reports whether a stream that may have so much under way is to hear that it
// may send more.
func (c *Conn) due(s *Stream, most int32) bool {
	give := min(s.recvOwed, most-s.recvWin)
	return give > 0 && give >= most/2
}

func (c *Conn) handleWindowUpdate(t *turn.Turn, id, n uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.charge(LimitWindows); err != nil {
		return err
	}
	if id == 0 {
		if n == 0 {
			return &ConnError{Code: CodeProtocol, Reason: "WINDOW_UPDATE of 0"}
		}
		if c.sendWin += int64(n); c.sendWin > maxWindow {
			return &ConnError{Code: CodeFlowControl, Reason: "connection's window beyond 2^31-1"}
		}
		if c.ring.head != nil {
			c.mark(t) // Flush pumps
		}
		return nil
	}
	s := c.streams.get(id)
	if s == nil {
		return c.absent(t, frame{typ: frameWindowUpdate, id: id})
	}
	if n == 0 {
		return c.streamError(t, s, CodeProtocol, "WINDOW_UPDATE of 0")
	}
	if s.sendWin += int64(n); s.sendWin > maxWindow {
		return c.streamError(t, s, CodeFlowControl, "stream's window beyond 2^31-1")
	}
	c.ready(t, s)
	return nil
}

// ready puts a stream that can send into the ring. c.mu is held.
func (c *Conn) ready(t *turn.Turn, s *Stream) {
	if s.queued > 0 && s.sendWin > 0 && !s.inRing {
		c.ring.add(s)
		c.mark(t)
	}
}

// Held returns how many bytes the connection holds for its peer: what it has not
// read, and what it has sent and nobody has done with yet.
func (c *Conn) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.out) + c.sinkHeld
	for s := range c.streams.all() {
		n += s.queued + int(max(0, s.recvMost-s.recvWin-s.recvOwed))
	}
	return n
}
