package h2

import (
	"encoding/binary"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

const (
	// pingAfter of silence a PING asks whether the peer is there, as node
	// tunnels do; pingTimeout later the connection is given up.
	pingAfter   = 10 * time.Second
	pingTimeout = 20 * time.Second
	// pingSeldom is how often a courteous end asks at most.
	pingSeldom = 5 * time.Minute
	// settingsTimeout is how long the peer may take to acknowledge SETTINGS
	// (RFC 9113, section 6.5.3); it covers a client that never sends a preface.
	settingsTimeout = 10 * time.Second
	// frameTimeout is how long a frame, but DATA, or a head in pieces may take
	// from its first byte to its last.
	frameTimeout = 10 * time.Second
	// closeGrace is how long the transport may take to end after the last
	// frame before it is aborted.
	closeGrace = 2 * time.Second
	// drainWait is how long GOAWAY waits for the answer to its PING before it
	// names the last stream all the same.
	drainWait = 5 * time.Second
	// rateWindow is how long it takes until rates have faded by half.
	rateWindow = 30 * time.Second
)

// The opaque data of our PINGs.
const (
	pingAlive uint64 = 0x73616e6477696368 // "sandwich"
	pingDrain uint64 = 0x676f696e67617761 // "goingawa"
)

type pingState struct {
	began  time.Time // Start
	last   time.Time // something was received, as far as Tick knows
	sent   time.Time // the PING that waits for an answer, or zero
	asked  time.Time // the last PING
	faded  time.Time
	owes   uint64    // what c.owes said when it last changed
	owed   time.Time // which was here
	drain  time.Time // the first GOAWAY of two
	closed time.Time // the first Tick after the sink was told to close
}

func (p *pingState) start(now time.Time) {
	p.began, p.last, p.faded = now, now, now
}

// Tick keeps time: call it every second or so. A connection without it has no
// timeouts, and its rates never fade.
func (c *Conn) Tick(t *turn.Turn) {
	now := t.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.ping
	switch {
	case c.end.dead:
		return
	case c.end.shut:
		c.tickClosing(t, now)
		return
	case p.began.IsZero():
		return // not started
	}
	c.ticks++
	if now.Sub(p.faded) >= rateWindow {
		p.faded = now
		c.rate.fade()
	}
	if c.heard.Swap(false) {
		// Any frame is a sign of life: an answer may wait behind a lot of DATA.
		p.last, p.sent = now, time.Time{}
	}
	if c.end.sent && !c.end.final && now.Sub(p.drain) >= drainWait {
		c.finalGoAway(t)
	}
	if owes := c.owes.Load(); owes != p.owes {
		p.owes, p.owed = owes, now
	}
	switch {
	case p.owes != 0 && now.Sub(p.owed) >= frameTimeout:
		c.fail(t, c.beyond(LimitFrameTime))
	case !c.acked && now.Sub(p.began) >= settingsTimeout:
		c.met(LimitSettingsTime)
		c.fail(t, &ConnError{Code: CodeSettingsTimeout, Reason: ErrSettingsTimeout.Error(), Err: ErrSettingsTimeout})
	case !p.sent.IsZero() && now.Sub(p.sent) >= pingTimeout:
		c.met(LimitPingTime)
		c.fail(t, &ConnError{Code: CodeNoError, Reason: ErrPingTimeout.Error(), Err: ErrPingTimeout})
	case p.sent.IsZero() && now.Sub(p.last) >= pingAfter && c.mayPing(now):
		p.sent, p.asked = now, now
		c.appendPing(pingAlive, 0)
		c.mark(t)
	}
}

// mayPing reports whether the peer bears a PING. c.mu is held.
func (c *Conn) mayPing(now time.Time) bool {
	return !c.o.Courteous || c.streams.n > 0 && (c.ping.asked.IsZero() || now.Sub(c.ping.asked) >= pingSeldom)
}

// tickClosing gives the peer a moment to take what was sent and to close.
func (c *Conn) tickClosing(t *turn.Turn, now time.Time) {
	p := &c.ping
	if p.closed.IsZero() {
		p.closed = now
	} else if now.Sub(p.closed) >= closeGrace {
		p.closed = now
		c.sink.Abort(t, CodeNoError)
	}
}

func (c *Conn) appendPing(data uint64, flags byte) {
	c.appendFrame(framePing, flags, 0, 8)
	c.out = binary.BigEndian.AppendUint64(grow(c.out, 8), data)
}

func (c *Conn) handlePing(t *turn.Turn, f frame, p []byte) error {
	data := binary.BigEndian.Uint64(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.PingsIn++
	if !f.has(flagAck) {
		if err := c.chargeAnswer(LimitPings); err != nil {
			return err
		}
		c.appendPing(data, flagAck)
		c.mark(t)
		return nil
	}
	switch {
	case data == pingAlive: // Tick sees that something was heard
	case data == pingDrain && c.end.sent && !c.end.final:
		c.finalGoAway(t)
	default:
		return c.charge(LimitPings) // an answer that nobody asked for
	}
	return nil
}
