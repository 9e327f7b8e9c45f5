package proxy

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

var (
	_ hbone.RelayOwner = (*opaque)(nil)
	_ hbone.Peeker     = (*opaque)(nil)
	_ wheel.Owner      = (*opaque)(nil)
	_ liveConn         = (*opaque)(nil)
)

// reportEvery is how often the bytes of a live connection are counted.
const reportEvery = 15 * time.Second

// An opaqueState is where an opaque connection is in its life. It goes up only.
type opaqueState uint8

const (
	opDetecting  opaqueState = iota // it is not known yet what is spoken
	opNaming                        // TLS, and it is not known yet for which name
	opConnecting                    // an endpoint is being connected, or a back-off passes
	opRelaying
	opEnding // reset from here; RelayDone follows
	opOver   // or somebody else has the connection
)

// An opaque is a client's connection whose bytes are relayed and not read: a
// lane, and two tunnels. Where nothing is declared it begins as one that may yet
// turn out to be HTTP.
type opaque struct {
	turn.Lane

	// Set once.
	p      *Proxy
	tun    hbone.Tunnel
	source *measure.Source
	since  time.Time
	random uint32

	// Guarded by the lane.
	bound
	relay    hbone.Relay
	state    opaqueState
	answered bool // the client's CONNECT
	metered  bool
	verdict  sniff.Verdict
	probe    *probe // while it is not known what is spoken, or for which name
	sni      string
	route    *snapshot.Route
	attempts []filters.Attempt
	tried    *upstream.Endpoint // whose tunnel is open, or being opened; nil: no one's
	began    turn.Tick          // that attempt
	fault    *fault.Fault       // why it ends
	meter    measure.Conn
	timer    wheel.Timer // the first of the times that wakeAt knows
	retryAt  turn.Tick   // end of the back-off; zero: not waiting
	until    turn.Tick   // of what the client has to send; zero: for ever
}

// newOpaque returns a connection that knows neither its endpoint nor, perhaps,
// its protocol. The caller holds its lane until the handlers are set.
func (p *Proxy) newOpaque(t *turn.Turn, tun hbone.Tunnel, b bound) *opaque {
	o := &opaque{p: p, tun: tun, source: p.sourceOf(b.snap, tun.Peer()), since: t.Now(), random: rand.Uint32(), bound: b}
	o.Lock()
	o.relay.Init(&o.Lane, tun, o)
	return o
}

// start connects an endpoint, and only then the client: its node tunnel learns
// what became of it, as from another node tunnel.
func (o *opaque) start(t *turn.Turn) (hbone.TunnelHandler, error) {
	defer o.p.recheck(t, o, o.snap)
	defer o.Unlock()
	o.verdict = sniff.Verdict{Protocol: spoken[o.svc.Protocol], Reason: sniff.Declared}
	o.route, _ = o.svc.TCP(o.random)
	o.state = opConnecting
	o.p.remember(o)
	o.connect(t)
	return o.relay.Near(), hbone.ErrLater
}

// connect makes one attempt to reach an endpoint. Nothing has been sent, so
// another may follow, whoever the client is.
func (o *opaque) connect(t *turn.Turn) {
	o.retryAt = 0
	if o.route.Fault != nil {
		o.unreachable(t, o.route.Fault)
		return
	}
	e, err := o.route.Backend.Pick(o.attempts)
	if err != nil {
		o.unreachable(t, fault.Of(err))
		return
	}
	o.tried, o.began = e, t.Tick()
	o.relay.Join(e.Dial(t, o.relay.Far()))
	o.arm(t)
}

// FarOpened: the attempt has succeeded, or there may be another.
func (o *opaque) FarOpened(t *turn.Turn, err error) {
	defer o.rescue(t)
	if err == nil {
		o.record(t, nil)
		if o.state == opConnecting {
			o.join(t)
		}
		return
	}
	f := o.tried.OpenFault(err)
	o.tried.Release()
	a := o.record(t, f)
	o.tried = nil
	if o.state >= opEnding {
		return
	}
	if wait, again := o.route.Info.Retry.Next(a); again && a.N < maxAttempts {
		o.p.stats.Retries.Add(1)
		o.retryAt = t.Tick().Add(wait)
		if wait <= 0 {
			o.connect(t)
		} else {
			o.arm(t)
		}
		return
	}
	o.unreachable(t, f)
}

// record notes how an attempt went.
func (o *opaque) record(t *turn.Turn, f *fault.Fault) *filters.Attempt {
	o.attempts = append(o.attempts, filters.Attempt{
		N: len(o.attempts) + 1, Endpoint: o.tried.Addr(), Workload: o.tried.Workload(),
		Fault: f, Took: t.Tick().Sub(o.began), Idempotent: true,
	})
	return &o.attempts[len(o.attempts)-1]
}

// join: both tunnels are open, and it is known that bytes go from one to the
// other.
func (o *opaque) join(t *turn.Turn) {
	o.state = opRelaying
	o.p.stats.Opaque.Add(1)
	if !o.answered {
		o.answered = true
		hbone.Answer(t, o.tun, nil)
	}
	o.open(o.tried.Workload())
	o.arm(t)
}

// open counts the connection as opened, in the mesh's metrics.
func (o *opaque) open(at *filters.Workload) {
	to := o.svc.Info
	if o.route != nil && o.route.Info.To != nil {
		to = o.route.Info.To
	}
	o.meter, o.metered = o.p.meter.Open(o.source, to, at), true
}

// fail ends the connection: with an answer to the client's CONNECT if there was
// none yet, and else with a reset, so that nobody takes a part for the whole.
func (o *opaque) fail(t *turn.Turn, f *fault.Fault) {
	if o.state >= opEnding {
		return
	}
	o.state, o.fault = opEnding, f
	o.retryAt, o.until = 0, 0
	if o.answered {
		o.relay.Abort(t, hbone.CodeConnect)
		return
	}
	o.answered = true
	status := 503
	if denial(f.Kind) {
		status = 401
	}
	hbone.Answer(t, o.tun, &hbone.Refusal{Status: status, Reason: f.Error()})
}

// RelayDone: neither side is left.
func (o *opaque) RelayDone(t *turn.Turn) {
	defer o.p.forget(o, o.snap)
	defer o.rescue(t)
	o.state = opOver
	o.p.wheel.Stop(&o.timer)
	if o.fault == nil {
		o.fault = o.p.relayFault(&o.relay, o.tried)
	}
	if o.tried != nil {
		o.tried.Release()
	}
	o.observe(t)
}

// wakeAt is when something is due.
func (o *opaque) wakeAt(now turn.Tick) turn.Tick {
	at := o.idleAt()
	if o.state == opRelaying && (at == 0 || at.Sub(now) > reportEvery) {
		at = now.Add(reportEvery)
	}
	for _, other := range [...]turn.Tick{o.until, o.retryAt} {
		if other != 0 && (at == 0 || other < at) {
			at = other
		}
	}
	return at
}

// idleAt is when nothing will have moved for too long; zero: never.
func (o *opaque) idleAt() turn.Tick {
	d := o.p.timeouts.TCP
	if d == 0 || o.state >= opEnding {
		return 0
	}
	return max(turn.TickOf(o.relay.Moved()), turn.TickOf(o.since)).Add(d)
}

func (o *opaque) arm(t *turn.Turn) {
	now := t.Tick()
	if at := o.wakeAt(now); at != 0 {
		o.p.wheel.Set(&o.timer, o, max(at.Sub(now), 0))
	}
}

// Expired does what is due.
func (o *opaque) Expired(t *turn.Turn, _ *wheel.Timer) {
	o.Lock()
	defer o.Unlock()
	defer o.rescue(t)
	if o.state >= opEnding {
		return
	}
	now := t.Tick()
	switch {
	case due(o.retryAt, now):
		o.connect(t)
	case due(o.until, now):
		o.until = 0
		o.late(t)
	case due(o.idleAt(), now):
		o.fail(t, errStreamIdle)
	case o.state == opRelaying:
		o.meter.Bytes(o.relay.Bytes())
	}
	if o.state < opEnding {
		o.arm(t)
	}
}

// review lets the connection take the snapshot and judges it: a connection that
// would be refused now ends now. One whose service has gone lives on with what it
// has.
func (o *opaque) review(r *review) {
	o.Lock()
	defer o.Unlock()
	defer o.rescue(r.t)
	if o.state >= opEnding || o.snap == r.snap || !r.snap.Pin() {
		return
	}
	svc, ok := r.service(o.tun.Peer())
	if !ok {
		r.snap.Unpin()
		return
	}
	o.snap.Unpin()
	o.bound = bound{r.snap, svc}
	if f := r.conn(svc, o.conn(o.state > opNaming)); f != nil {
		o.fail(r.t, f)
	}
}

// admit asks the ConnFilters.
func (o *opaque) admit(opaque bool) *fault.Fault {
	return fault.Of(o.p.admit(o.svc.Chain, o.conn(opaque)))
}

func (o *opaque) conn(opaque bool) *filters.Conn {
	return &filters.Conn{Peer: o.tun.Peer(), Service: o.svc.Name, Start: o.since, Opaque: opaque, SNI: o.sni}
}

// drain asks nothing: nobody could tell the client. It has until the deadline.
func (o *opaque) drain(*turn.Turn) {}

// endIdle does not know what is idle here.
func (o *opaque) endIdle(*turn.Turn) bool { return false }

// inspect says what the connection does.
func (o *opaque) inspect() Connection {
	o.Lock()
	defer o.Unlock()
	return Connection{
		Peer: o.tun.Peer(), Service: o.svc.Name, Speaks: o.verdict.Protocol.String(),
		Busy: o.state == opRelaying, Since: o.since,
	}
}

// rescue is the boundary at which a panic ends: it costs the connection. Runs
// with the lane held.
func (o *opaque) rescue(t *turn.Turn) {
	if r := recover(); r != nil {
		o.p.panicked(r)
		o.answered = true
		o.fail(t, fault.Wrap(fault.Internal, fault.Local, errPanic))
	}
}

var errNoName = errors.New("no ClientHello in time")
