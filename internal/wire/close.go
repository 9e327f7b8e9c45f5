package wire

import (
	"io"
	"runtime/debug"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
)

// CloseWrite sends FIN (under TLS close_notify first) after what was written;
// reading goes on.
func (c *Conn) CloseWrite(t *turn.Turn) {
	c.mu.Lock()
	if c.state == writeOpen {
		c.state = writeEnds
		c.mark(t)
	}
	c.mu.Unlock()
}

// Close ends the connection in order: the engine hears Closed and no more, and
// what was written still leaves.
func (c *Conn) Close(t *turn.Turn) { c.close(t, nil) }

// Abort gives the connection up: what was written is dropped and the peer hears
// RST, whatever the code.
func (c *Conn) Abort(*turn.Turn, uint32) {
	c.mu.Lock()
	c.failLocked(ErrAborted)
	c.mu.Unlock()
}

func (c *Conn) close(t *turn.Turn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.failed {
		return
	}
	c.closing = true
	if c.err == nil {
		c.err = err
	}
	c.until = time.Now().Add(c.o.Linger)
	c.drv.writeUntil(c.until)
	if c.state == writeOpen {
		c.state = writeEnds
	}
	c.mark(t)
	c.attend()
}

// end is close for the reader's own turn.
func (c *Conn) end(err error) { c.close(c.turn, err) }

func (c *Conn) fail(err error) {
	c.mu.Lock()
	c.failLocked(err)
	c.mu.Unlock()
}

func (c *Conn) failLocked(err error) {
	if c.failed {
		return
	}
	c.failed = true
	if c.err == nil {
		c.err = err
	}
	c.state = writeDead
	if !c.flushing { // else who flushes drops
		c.dropAll()
	}
	c.attend()
}

// giveUp ends the reading that goes on after a write failed.
func (c *Conn) giveUp() { c.fail(nil) }

// attend makes the reader look at the state, wherever it waits. It never closes
// the descriptor itself: only the reader does, at its top. Called with mu held.
func (c *Conn) attend() {
	c.halt.Store(true)
	if c.loop != nil {
		if c.engine != nil { // it is served
			c.loop.post(c)
		}
		return
	}
	c.drv.readUntil(longAgo)
	c.wake.Broadcast()
}

// over reports whether the engine is to hear Closed.
func (c *Conn) over() bool {
	if !c.halt.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed || c.closing || c.state == writeShut && c.eof {
		return true
	}
	if c.broken && !c.salvaging {
		c.salvaging, c.salvage = true, salvageMax
	}
	c.halt.Store(false)
	c.drv.readUntil(time.Time{})
	return false
}

// tellClosed waits for calls that others make into the engine, and makes the
// last one.
func (c *Conn) tellClosed() {
	c.mu.Lock()
	c.ended = true
	err := c.err
	c.mu.Unlock()
	if c.o.Tick > 0 && c.o.Wheel != nil {
		c.o.Wheel.Stop(&c.timer)
	}
	c.calls.Wait()
	c.engineClosed(err)
	c.endTurn()
	c.Flush(c.turn) // the turn that closed may have work left before it ends
	c.endTurn()
}

func (c *Conn) engineClosed(err error) {
	defer c.rescue()
	c.engine.Closed(c.turn, err)
}

// linger lets what was written leave and waits for the peer's FIN, dropping
// what it sends: to close with bytes unread would answer with RST, which may
// overtake what we have sent (RFC 9112, section 9.6).
func (c *Conn) linger() {
	for !c.lingered() {
		if c.pastEnd {
			c.park()
			continue
		}
		c.drop(true)
	}
}

// drop reads what the peer sends to an end that hears no more. It reports
// whether there may be more by now.
func (c *Conn) drop(wait bool) (more bool) {
	b, err := c.drv.read(nil, 16<<10, wait)
	buf.Put(b)
	switch {
	case err == errWouldBlock:
		return false
	case err == io.EOF:
		c.mu.Lock()
		c.eof = true
		c.halt.Store(true)
		c.mu.Unlock()
		c.pastEnd = !c.drv.ended()
	case err != nil && !isTimeout(err):
		c.fail(err)
	}
	return true
}

// lingered reports whether the descriptor may be closed.
func (c *Conn) lingered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halt.Store(false)
	switch {
	case c.failed || c.broken || !c.closing || c.state == writeShut && c.eof:
		return true
	case !time.Now().Before(c.until):
		return true
	}
	c.drv.readUntil(c.until)
	return false
}

// release closes the descriptor. If our bytes did not all leave, the peer must
// not take what it has for the whole: it hears RST.
func (c *Conn) release() {
	c.mu.Lock()
	reset := c.state != writeShut
	if reset && c.closing {
		c.o.Counters.Unread.Add(1)
	}
	c.state = writeDead
	if !c.flushing {
		c.dropAll()
	}
	c.mu.Unlock()
	c.drv.close(reset)
	c.drains.Wait()
}

// sendFIN ends the writing direction of the transport. A transport that cannot
// is closed as a whole soon after.
func (c *Conn) sendFIN() error {
	if ok, err := c.drv.closeWrite(); ok {
		return err
	}
	c.mu.Lock()
	c.eof = true
	c.mu.Unlock()
	return nil
}

// Expired is a tick.
func (c *Conn) Expired(t *turn.Turn, tm *wheel.Timer) {
	c.mu.Lock()
	ok := c.enter()
	if ok {
		c.o.Wheel.Set(tm, c, c.o.Tick)
		if c.loop == nil {
			c.shedIdle()
		}
	}
	c.mu.Unlock()
	if ok {
		defer c.calls.Done()
		defer c.rescue()
		c.engine.Tick(t)
	}
}

// shedIdle wakes a reader that has received nothing for a whole tick, to go on
// in a fresh goroutine: one request makes its stack grow to 4 KiB, and a stack
// of which waiting takes more than a quarter never shrinks. Once is enough until
// bytes come. Called with mu held.
func (c *Conn) shedIdle() {
	switch n := c.stats.bytesIn.Load(); {
	case n != c.seen:
		c.seen, c.shed = n, false
	case !c.shed:
		c.shed = true
		c.shedding.Store(true)
		c.attend()
	}
}

// rescue is deferred around every call into the engine: a panic there ends this
// connection and is told, and the process lives.
func (c *Conn) rescue() {
	if v := recover(); v != nil {
		c.o.Counters.Panics.Add(1)
		c.fail(&PanicError{Value: v, Stack: debug.Stack()})
	}
}
