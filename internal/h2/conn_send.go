package h2

import (
	"encoding/binary"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

const (
	// outCap is how much may wait in the out buffer and the sink together
	// before DATA stays with its stream, where it leaves in turn with others'.
	outCap = 128 << 10
	// handAt is how full the out buffer gets before it is handed on without
	// waiting for the turn's end.
	handAt = 64 << 10
	// chunkSize is how large the pieces of a stream's own queue get.
	chunkSize = 16 << 10
	// keepChunks is how many empty chunk headers a connection keeps.
	keepChunks = 64
)

// grow makes room for n more bytes in lent memory.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	bigger := append(buf.Get(max(len(b)+n, 2*cap(b))), b...)
	buf.Put(b)
	return bigger
}

// growOut makes room in the out buffer.
func (c *Conn) growOut(n int) {
	if cap(c.out)-len(c.out) < n {
		c.growOutSlow(n)
	}
}

// growOutSlow takes a larger buffer. The first one begins at what turns before
// needed, because turns resemble each other and each step of growth moves all
// there is: BenchmarkBatch 107 → 77 ns.
func (c *Conn) growOutSlow(n int) {
	if c.out == nil {
		n = max(n, c.outFirst)
	}
	bigger := append(buf.Get(max(len(c.out)+n, 2*cap(c.out))), c.out...)
	buf.Put(c.out)
	c.out = bigger
}

func putLength(h []byte, n int) { h[0], h[1], h[2] = byte(n>>16), byte(n>>8), byte(n) }

// The append functions write frames to the out buffer. c.mu is held.

func (c *Conn) appendRaw(s string) {
	c.growOut(len(s))
	c.out = append(c.out, s...)
	c.tail = nil
}

func (c *Conn) appendFrame(typ, flags byte, id uint32, n int) {
	c.tail = nil
	c.growOut(headerLen)
	c.out = appendHeader(c.out, typ, flags, id, n)
}

func appendHeader(b []byte, typ, flags byte, id uint32, n int) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), typ, flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func (c *Conn) appendWindowUpdate(id, n uint32) {
	c.appendFrame(frameWindowUpdate, 0, id, 4)
	c.appendUint32(n)
}

func (c *Conn) appendReset(id, code uint32) {
	c.appendFrame(frameRSTStream, 0, id, 4)
	c.appendUint32(code)
	c.stats.ResetsOut++
}

func (c *Conn) appendUint32(v uint32) {
	c.growOut(4)
	c.out = binary.BigEndian.AppendUint32(c.out, v)
}

// appendData appends DATA of s, for which windows and room have been seen to.
// What fits goes into the frame that s has at the end of the buffer: many
// small writes of a turn make one frame (BenchmarkMerge), and peers count
// small frames against us.
func (c *Conn) appendData(t *turn.Turn, s *Stream, p []byte) {
	c.countSent(s, len(p))
	if n := c.tailRoom(s); n > 0 {
		n = min(n, len(p))
		c.growOut(n)
		c.out = append(c.out, p[:n]...)
		putLength(c.out[c.tailAt:], len(c.out)-c.tailAt-headerLen)
		c.stats.DataMerged++
		p = p[n:]
	}
	for len(p) > 0 {
		if len(c.out) >= handAt {
			c.hand(t)
		}
		n := min(len(p), c.peer.send)
		c.growOut(headerLen + n) // once for both
		c.tail, c.tailAt = s, len(c.out)
		c.out = append(appendHeader(c.out, frameData, 0, s.id, n), p[:n]...)
		c.stats.DataFramesOut++
		c.rate.dataOut++
		p = p[n:]
	}
	s.lastPos = c.handed + int64(len(c.out))
}

// countSent takes n bytes that s sends now from the windows.
func (c *Conn) countSent(s *Stream, n int) {
	c.sendWin -= int64(n)
	s.sendWin -= int64(n)
	c.stats.DataBytesOut += uint64(n)
	if s.lastPos <= c.left {
		s.flight = 0
		if s.lastPos == 0 && s.connect {
			c.rate.answered++
		}
	}
	s.flight += int64(n)
}

// tailRoom is how much more the frame takes that s has at the end of the buffer.
func (c *Conn) tailRoom(s *Stream) int {
	if c.tail != s {
		return 0
	}
	return c.peer.send - (len(c.out) - c.tailAt - headerLen)
}

// appendEnd ends s's sending direction: on its last DATA frame if that is still
// here, else with an empty one.
func (c *Conn) appendEnd(s *Stream) {
	if c.tail == s {
		c.out[c.tailAt+4] |= flagEndStream
		c.tail = nil
	} else {
		c.appendFrame(frameData, flagEndStream, s.id, 0)
	}
}

// hand gives the out buffer to the sink. One write for all of a turn's frames:
// BenchmarkFlush.
func (c *Conn) hand(t *turn.Turn) {
	// Half more than now, because handAt is looked at behind it; and not much less
	// than before, because a turn's last buffer is a short one. BenchmarkDataOut/64K
	// 2370 → 1350 ns.
	c.outFirst = min(max(len(c.out)*3/2, c.outFirst*3/4), outCap)
	out := c.out
	c.out, c.tail = nil, nil
	if len(out) == 0 || c.end.dead {
		buf.Put(out)
		return
	}
	c.stats.Flushes++
	c.handed += int64(len(out))
	c.sinkHeld += len(out)
	if c.taker != nil {
		c.taker.Take(t, out)
		return
	}
	c.sink.Write(t, out)
	buf.Put(out)
}

// look asks the sink how much it still holds.
func (c *Conn) look() {
	if !c.end.dead {
		c.sinkHeld = c.sink.Buffered()
		c.left = c.handed - int64(c.sinkHeld)
	}
}

// outRoom is how many bytes of DATA may join the out buffer. The sink is asked
// only when what was known says that want does not fit: it never holds more
// than that.
func (c *Conn) outRoom(want int) int {
	if room := outCap - len(c.out) - c.sinkHeld; room >= want {
		return room
	}
	c.look()
	return outCap - len(c.out) - c.sinkHeld
}

// Flush implements turn.Flusher.
func (c *Conn) Flush(t *turn.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marked = false
	c.look()
	for {
		c.pump(t)
		if len(c.out) == 0 {
			break
		}
		c.hand(t)
		c.look()
	}
	c.shut(t)
	if c.sinkHeld <= turn.LowMark {
		c.tellWaiting(t) // the sink will not say Left for so little
	}
}

// pump lets streams that have bytes and window send, one frame each in turn, as
// long as the connection's window and the out buffer have room. c.mu is held.
func (c *Conn) pump(t *turn.Turn) {
	for c.ring.head != nil && c.sendWin > 0 {
		s := c.ring.head
		n := min(s.queued, c.peer.send)
		if c.outRoom(n) < n {
			return // less than that would be a small frame for no reason
		}
		n = min(n, int(min(s.sendWin, c.sendWin)))
		c.ring.remove(s)
		c.sendQueued(t, s, n)
		if s.closed {
			continue
		}
		if s.queued > 0 && s.sendWin > 0 {
			c.ring.add(s)
		}
		c.watch(t, s)
	}
}

// sendQueued moves n bytes from s's queue to the out buffer, and the end behind
// the last of them.
func (c *Conn) sendQueued(t *turn.Turn, s *Stream, n int) {
	for n > 0 {
		q := s.first
		k := min(n, len(q.b)-q.off)
		c.appendData(t, s, q.b[q.off:q.off+k])
		q.off += k
		s.queued -= k
		n -= k
		if q.off == len(q.b) {
			s.first = q.next
			if s.first == nil {
				s.last = nil
			}
			c.freeChunk(q)
		}
	}
	if s.queued == 0 && s.endDue {
		c.sendEnd(t, s)
	}
}

// sendEnd ends s's sending direction now; nothing is queued before it.
func (c *Conn) sendEnd(t *turn.Turn, s *Stream) {
	if s.trailers != nil {
		c.appendHead(s.id, s.trailers, true)
		s.trailers = nil
	} else {
		c.appendEnd(s)
	}
	s.sendClosed = true
	c.maybeFinish(t, s)
}

// A chunk is one piece of a stream's queue.
type chunk struct {
	next *chunk
	b    []byte // lent
	off  int    // bytes of b that have gone
}

// enqueue appends a copy of p to s's queue.
func (c *Conn) enqueue(s *Stream, p []byte) {
	s.queued += len(p)
	for len(p) > 0 {
		q := s.last
		if q == nil || len(q.b) == cap(q.b) {
			q = c.newChunk(len(p), q != nil)
			if s.last == nil {
				s.first = q
			} else {
				s.last.next = q
			}
			s.last = q
		}
		k := min(len(p), cap(q.b)-len(q.b))
		q.b = append(q.b, p[:k]...)
		p = p[k:]
	}
}

// newChunk makes a chunk for n bytes; one that follows another is full size.
func (c *Conn) newChunk(n int, follows bool) *chunk {
	if n > chunkSize || follows {
		n = chunkSize
	}
	q := c.spare
	if q == nil {
		q = new(chunk)
	} else {
		c.spare = q.next
		c.spares--
	}
	q.next, q.b, q.off = nil, buf.Get(n), 0
	return q
}

func (c *Conn) freeChunk(q *chunk) {
	buf.Put(q.b)
	q.b = nil
	if c.spares < keepChunks {
		q.next = c.spare
		c.spare = q
		c.spares++
	}
}

// ring is the streams that wait for their turn to send, in order.
type ring struct{ head, tail *Stream }

func (r *ring) add(s *Stream) {
	s.inRing = true
	s.prev, s.next = r.tail, nil
	if r.tail == nil {
		r.head = s
	} else {
		r.tail.next = s
	}
	r.tail = s
}

func (r *ring) remove(s *Stream) {
	if !s.inRing {
		return
	}
	if s.prev == nil {
		r.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		r.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.inRing, s.prev, s.next = false, nil, nil
}

// watch notes that s holds more than turn.LowMark, or tells it when it no
// longer does. c.mu is held.
func (c *Conn) watch(t *turn.Turn, s *Stream) {
	switch high := s.held() > turn.LowMark; {
	case high && s.waitAt == 0:
		c.waiting = append(c.waiting, s)
		s.waitAt = int32(len(c.waiting))
	case !high && s.waitAt > 0:
		c.unwatch(s)
		s.dueLeft = true
		s.notify(t)
	}
}

func (c *Conn) unwatch(s *Stream) {
	if s.waitAt == 0 {
		return
	}
	last := len(c.waiting) - 1
	moved := c.waiting[last]
	c.waiting[s.waitAt-1] = moved
	moved.waitAt = s.waitAt
	c.waiting[last] = nil
	c.waiting = c.waiting[:last]
	s.waitAt = 0
}

// tellWaiting looks at the streams that wait to hear Left. c.mu is held, and the
// sink has just been looked at.
func (c *Conn) tellWaiting(t *turn.Turn) {
	for i := len(c.waiting) - 1; i >= 0; i-- {
		c.watch(t, c.waiting[i])
	}
}
