package proxy

import (
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// A probe is what is needed to find out what a connection speaks, or for which
// name.
type probe struct {
	first sniff.Detector
	hello sniff.Hello
	heard turn.Tick    // when the client's first byte came
	dead  *fault.Fault // why no endpoint can be reached: not told while HTTP could tell it better
}

// detect finds out what is spoken where nothing is declared. The endpoint is
// connected at once and the client's bytes are looked at meanwhile, so a server
// that speaks first is heard without delay; what the client has sent counts for
// more than that. The client's node tunnel waits for its answer before it sends a
// byte, so it is told at once that the tunnel stands.
func (o *opaque) detect(t *turn.Turn) (hbone.TunnelHandler, error) {
	defer o.p.recheck(t, o, o.snap)
	defer o.Unlock()
	o.probe = new(probe)
	o.relay.Gate(o)
	o.answered = true
	o.route, _ = o.svc.TCP(o.random)
	o.p.remember(o)
	o.connect(t)
	return o.relay.Near(), nil
}

// awaitName reads the ClientHello first, because its name chooses the route.
func (o *opaque) awaitName(t *turn.Turn) (hbone.TunnelHandler, error) {
	defer o.p.recheck(t, o, o.snap)
	defer o.Unlock()
	o.verdict = sniff.Verdict{Protocol: sniff.TLS, Reason: sniff.Declared}
	o.naming(t)
	return o.relay.Near(), nil
}

func (o *opaque) naming(t *turn.Turn) {
	o.probe = new(probe)
	o.state, o.answered = opNaming, true
	o.relay.Gate(o)
	if d := o.p.timeouts.Head; d > 0 {
		o.until = t.Tick().Add(d)
	}
	o.arm(t)
	o.p.remember(o)
}

// Peek looks at bytes that are held back.
func (o *opaque) Peek(t *turn.Turn, fromFar bool, p []byte, end bool) {
	defer o.rescue(t)
	switch {
	case o.state == opNaming && !fromFar:
		o.readName(t, p, end)
	case o.state != opDetecting:
	case fromFar:
		if !o.probe.first.Started() {
			o.settle(t, sniff.Verdict{Protocol: sniff.Opaque, Reason: sniff.ServerFirst})
		}
	default:
		o.firstBytes(t, p, end)
	}
}

// firstBytes takes what the client sent. The clock starts with its first byte: a
// client that is silent holds nothing up.
func (o *opaque) firstBytes(t *turn.Turn, p []byte, end bool) {
	before := o.probe.first.Started()
	if !before {
		o.probe.heard = t.Tick()
	}
	v := o.probe.first.Feed(p)
	switch {
	case v.Protocol != sniff.Unknown:
		o.settle(t, v)
	case end:
		o.settle(t, sniff.Verdict{Protocol: sniff.Opaque, Reason: sniff.ClientEnd})
	case !before && o.p.timeouts.Detect > 0:
		o.until = t.Tick().Add(o.p.timeouts.Detect)
		o.arm(t)
	}
}

// settle acts on a verdict.
func (o *opaque) settle(t *turn.Turn, v sniff.Verdict) {
	o.p.stats.Settled[v.Reason].Add(1)
	o.verdict = v
	o.until = 0
	switch {
	case v.Protocol == sniff.HTTP1 || v.Protocol == sniff.HTTP2:
		o.handOver(t, o.p.newCodec)
		return
	case v.Protocol == sniff.TLS && o.svc.ByName():
		o.handOver(t, o.p.newNaming)
		return
	}
	dead := o.probe.dead
	o.probe = nil
	if f := o.admit(true); f != nil {
		o.fail(t, f)
		return
	}
	if dead != nil {
		o.fail(t, dead)
		return
	}
	o.state = opConnecting
	if o.relay.FarOpen() {
		o.join(t)
	}
	o.relay.Open(t)
}

// handOver gives the client's tunnel, and what has come through it, to the
// handler that make returns. The endpoint's is kept for HTTP/1 calls.
func (o *opaque) handOver(t *turn.Turn, make func(*turn.Turn, hbone.Tunnel, bound, sniff.Verdict) hbone.TunnelHandler) {
	o.state = opOver
	o.p.wheel.Stop(&o.timer)
	o.p.leave(o)
	switch {
	case o.tried == nil:
	case o.verdict.Protocol == sniff.HTTP1:
		o.tried.Adopt(t, &o.relay)
	default:
		d := o.relay.LetFar(hbone.Deaf())
		buf.Put(d.Held)
		d.Tunnel.Abort(t, hbone.CodeCancel)
		o.tried.Release()
	}
	h := make(t, o.tun, o.bound, o.verdict)
	if in, ok := h.(*inner); ok && o.probe != nil {
		in.queued, in.behind = o.probe.heard, filters.StageDetect
	}
	d := o.relay.LetNear(h)
	h.Data(t, d.Held, d.Ended)
	buf.Put(d.Held)
}

// newNaming returns the handler of a connection that turned out to be TLS, and
// whose route the name chooses.
func (p *Proxy) newNaming(t *turn.Turn, tun hbone.Tunnel, b bound, v sniff.Verdict) hbone.TunnelHandler {
	o := p.newOpaque(t, tun, b)
	defer p.recheck(t, o, o.snap)
	defer o.Unlock()
	o.verdict = v
	o.naming(t)
	return o.relay.Near()
}

// readName takes bytes of the ClientHello. One that cannot be read asks for no
// name.
func (o *opaque) readName(t *turn.Turn, p []byte, end bool) {
	if o.probe.hello.Feed(p) == sniff.HelloMore && !end {
		return
	}
	o.until = 0
	name := o.probe.hello.Name()
	o.sni = string(name)
	o.probe = nil
	route, ok := o.svc.TLS(name, o.random)
	if !ok {
		o.fail(t, fault.Wrap(fault.NoRoute, fault.Local, nil))
		return
	}
	o.route = route
	if f := o.admit(true); f != nil {
		o.fail(t, f)
		return
	}
	o.state = opConnecting
	o.relay.Open(t)
	o.connect(t)
}

// unreachable: there is no endpoint, and no other attempt. A client that may
// speak HTTP is given the time to say so: it can be told.
func (o *opaque) unreachable(t *turn.Turn, f *fault.Fault) {
	if o.state != opDetecting {
		o.fail(t, f)
		return
	}
	o.probe.dead = f
	if o.until == 0 && !o.svc.ForRequests() { // or its requests may go elsewhere
		o.until = t.Tick().Add(max(o.p.timeouts.Detect, time.Millisecond))
	}
	o.arm(t)
}

// late: the client has not sent in time what it had to.
func (o *opaque) late(t *turn.Turn) {
	switch {
	case o.state == opNaming:
		o.fail(t, fault.Wrap(fault.HeaderTimeout, fault.Downstream, errNoName))
	case o.state != opDetecting:
	case !o.probe.first.Started():
		o.fail(t, o.probe.dead)
	default:
		o.settle(t, sniff.Verdict{Protocol: sniff.Opaque, Reason: sniff.TimeUp})
	}
}
