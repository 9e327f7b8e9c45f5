package proxy

import (
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// Timeouts say how long things may take, and how long they may stand still. In
// each, 0 means the default, and less than 0 never. A route's timeout is for one
// request and its response; it ends with a switch of protocols.
type Timeouts struct {
	// Head bounds a request's head, from its first byte to its last. 10 s.
	Head time.Duration
	// Body bounds a whole request, from the first byte of its head. Never.
	Body time.Duration
	// Idle is how long a client's HTTP connection may be unused. 1 h.
	Idle time.Duration
	// Stream is how long a request may be under way without a byte of it or of
	// its response moving. Never, as in Istio: server-sent events and streaming
	// calls are quiet for hours.
	Stream time.Duration
	// Upgraded is the same for a WebSocket, or what else a connection was
	// switched to. Never.
	Upgraded time.Duration
	// TCP is the same for an opaque connection. 1 h, as in Istio.
	TCP time.Duration
	// Detect is how long the first bytes on a port of which nothing is declared
	// may leave it open what is spoken. 1 s.
	Detect time.Duration
}

// defaultTimeouts is never written.
var defaultTimeouts = Timeouts{Head: 10 * time.Second, Idle: time.Hour, TCP: time.Hour, Detect: time.Second}

// filled returns o with defaults in place of zeros, and zeros for never.
func (o Timeouts) filled() Timeouts {
	d := defaultTimeouts
	for _, f := range [...]struct{ to, by *time.Duration }{
		{&d.Head, &o.Head}, {&d.Body, &o.Body}, {&d.Idle, &o.Idle}, {&d.Stream, &o.Stream},
		{&d.Upgraded, &o.Upgraded}, {&d.TCP, &o.TCP}, {&d.Detect, &o.Detect},
	} {
		switch {
		case *f.by < 0:
			*f.to = 0
		case *f.by > 0:
			*f.to = *f.by
		}
	}
	return d
}

// bodyUntil is when the request must have been received whole; zero: never, or
// it has been.
func (x *exchange) bodyUntil() turn.Tick {
	if d := x.p.timeouts.Body; d > 0 && x.state > xNew && x.state < xDone && !x.request.ended {
		return x.began.Add(d)
	}
	return 0
}

// idleAt is when nothing will have moved for too long; zero: never.
func (x *exchange) idleAt() turn.Tick {
	d := x.p.timeouts.Stream
	if x.state == xUpgraded {
		d = x.p.timeouts.Upgraded
		if at := turn.TickOf(x.joined.Moved()); at > x.moved {
			x.moved = at
		}
	}
	if d == 0 || x.state < xFiltering || x.state > xUpgraded || x.moved == 0 {
		return 0
	}
	return x.moved.Add(d)
}

// move notes that bytes have moved.
func (x *exchange) move(t *turn.Turn) {
	if x.p.timeouts.Stream > 0 {
		x.moved = t.Tick()
	}
}

// watchIdle starts the clock of what stands still.
func (x *exchange) watchIdle(t *turn.Turn) {
	x.moved = t.Tick()
	x.arm(t)
}

var (
	errStreamIdle = fault.Wrap(fault.StreamIdle, fault.Local, nil)
	errBodyLate   = fault.Wrap(fault.RequestTimeout, fault.Downstream, nil)
)
