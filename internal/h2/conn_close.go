package h2

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// maxDebug is how much of a GOAWAY's debug data is kept.
const maxDebug = 256

// endState is how far a connection has come in ending.
type endState struct {
	sent  bool   // a GOAWAY of ours
	final bool   // it named the last stream
	last  uint32 // which is this one

	got      bool // the peer's GOAWAY
	gotLast  uint32
	gotCode  uint32
	gotDebug string

	err     error // why no frame is taken any more, or nil
	shutDue bool  // the sink is to be closed behind what is in the out buffer
	shut    bool  // it has been
	dead    bool  // the transport is gone
}

// GoAway ends the connection without losing a stream: a server takes streams
// until the peer must have heard of it, a client opens no more, and when the
// last has ended the transport is closed.
func (c *Conn) GoAway(t *turn.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end.sent || c.end.err != nil {
		return
	}
	c.end.sent = true
	if c.o.Client { // which the peer opens no streams to
		c.finalGoAway(t)
		return
	}
	c.appendGoAway(maxStreamID, CodeNoError, "")
	c.appendPing(pingDrain, 0) // its answer comes behind all streams opened in ignorance
	c.ping.drain = t.Now()
	c.mark(t)
}

// finalGoAway names the last stream. c.mu is held.
func (c *Conn) finalGoAway(t *turn.Turn) {
	c.end.final, c.end.last = true, c.maxPeerID
	c.appendGoAway(c.end.last, CodeNoError, "")
	c.mark(t)
	c.maybeDone(t)
}

func (c *Conn) appendGoAway(last, code uint32, debug string) {
	c.appendFrame(frameGoAway, 0, 0, 8+len(debug))
	c.out = binary.BigEndian.AppendUint32(grow(c.out, 8+len(debug)), last)
	c.out = binary.BigEndian.AppendUint32(c.out, code)
	c.out = append(c.out, debug...)
}

// Draining reports whether GOAWAY was sent or received.
func (c *Conn) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end.sent || c.end.got
}

// Done reports whether the connection has ended all it had to do: it is over,
// or there are no streams and GOAWAY says that there will be none.
func (c *Conn) Done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done()
}

func (c *Conn) done() bool {
	return c.end.err != nil || c.streams.n == 0 && (c.end.final || c.o.Client && c.end.got)
}

// maybeDone closes the transport behind what is still to be sent when nothing
// can follow. c.mu is held.
func (c *Conn) maybeDone(t *turn.Turn) {
	if c.done() {
		c.end.shutDue = true
		c.mark(t)
	}
}

// Fail gives the connection up: GOAWAY, and the transport is closed. Streams end
// with a *ConnError.
func (c *Conn) Fail(t *turn.Turn, code uint32, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(t, &ConnError{Code: code, Reason: reason})
}

// fail is Fail; err is what streams are told. c.mu is held.
func (c *Conn) fail(t *turn.Turn, err error) {
	if c.end.err != nil {
		return
	}
	code, debug := CodeInternal, ""
	if ce, ok := errors.AsType[*ConnError](err); ok {
		code, debug = ce.Code, ce.Reason
	}
	last := c.maxPeerID
	if c.end.final {
		last = c.end.last // it must not rise
	}
	c.end.err = err
	c.end.sent, c.end.final, c.end.last = true, true, last
	c.appendGoAway(last, code, debug)
	c.closeStreams(t, err)
	c.end.shutDue = true
	c.mark(t)
}

func (c *Conn) closeStreams(t *turn.Turn, err error) {
	for s := range c.streams.all() {
		c.finish(t, s, err)
	}
}

// shut closes the sink when nothing is left to hand to it. c.mu is held.
func (c *Conn) shut(t *turn.Turn) {
	if c.end.shutDue && !c.end.shut && !c.end.dead {
		c.end.shut = true
		c.sink.CloseWrite(t)
	}
}

// Closed says that the transport is gone, once and after the last Feed. Every
// stream hears of it.
func (c *Conn) Closed(t *turn.Turn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end.dead {
		return
	}
	switch {
	case c.end.got && c.end.gotCode != CodeNoError:
		err = &GoAwayError{Code: c.end.gotCode, Debug: c.end.gotDebug}
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	c.end.dead = true
	if c.end.err == nil {
		c.end.err = err
	}
	c.closeStreams(t, err)
	c.in.release()
	buf.Put(c.out)
	c.out, c.tail = nil, nil
	c.sinkHeld, c.left = 0, c.handed
}

func (c *Conn) handleGoAway(t *turn.Turn, p []byte) error {
	last := binary.BigEndian.Uint32(p) & maxStreamID
	code := binary.BigEndian.Uint32(p[4:])
	debug := string(p[8:min(len(p), 8+maxDebug)])
	c.mu.Lock()
	if c.end.got && last > c.end.gotLast {
		c.mu.Unlock()
		return &ConnError{Code: CodeProtocol, Reason: "GOAWAY names a later stream than the one before"}
	}
	err := c.chargeAnswer(LimitSettings)
	c.end.got, c.end.gotLast, c.end.gotCode, c.end.gotDebug = true, last, code, debug
	if c.o.Client {
		for s := range c.streams.all() {
			if s.id > last {
				c.finish(t, s, &GoAwayError{Code: code, Unprocessed: true, Debug: debug})
			}
		}
		if c.streams.n == 0 {
			c.maybeDone(t)
		}
	}
	c.mu.Unlock()
	c.h.GoneAway(t, last, code, debug)
	return err
}
