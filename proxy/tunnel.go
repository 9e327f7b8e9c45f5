package proxy

import (
	"maps"
	"slices"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// openTunnel decides on a tunnel before a byte of it is parsed: is its
// destination ours, does a ConnFilter object, what is spoken inside.
//
// A refusal's status follows Istio's node tunnels: 400 not ours, 401 denied,
// 503 not now. While this proxy drains it takes what comes: node tunnels repeat
// nothing, and a client that has been told to go opens no more.
func (p *Proxy) openTunnel(t *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
	if p.cutting.Load() {
		return nil, p.refuse(503, fault.Wrap(fault.Draining, fault.Local, nil))
	}
	if p.pressure.full.Load() {
		return nil, p.refuse(503, errFull)
	}
	snap := p.pin()
	svc, ok := snap.Service(tun.Peer().Destination, tun.Peer().Host)
	if !ok {
		snap.Unpin()
		return nil, p.refuse(400, fault.Wrap(fault.NotOurs, fault.Local, nil))
	}
	opaque := svc.Protocol == snapshot.TCP || svc.Protocol == snapshot.TLS && !svc.ByName()
	if err := p.admit(svc.Chain, &filters.Conn{Peer: tun.Peer(), Service: svc.Name, Start: t.Now(), Opaque: opaque}); err != nil {
		snap.Unpin()
		return nil, p.refuse(denied(err), fault.Of(err))
	}
	switch {
	case opaque:
		return p.newOpaque(t, tun, bound{snap, svc}).start(t)
	case svc.Protocol == snapshot.TLS:
		return p.newOpaque(t, tun, bound{snap, svc}).awaitName(t)
	case svc.Protocol == snapshot.Detect:
		return p.newOpaque(t, tun, bound{snap, svc}).detect(t)
	}
	return p.newCodec(t, tun, bound{snap, svc}, sniff.Verdict{Protocol: spoken[svc.Protocol], Reason: sniff.Declared}), nil
}

// spoken is what a declaration says, in the words of what is found out. It is
// never written.
var spoken = [...]sniff.Protocol{snapshot.HTTP1: sniff.HTTP1, snapshot.HTTP2: sniff.HTTP2, snapshot.TCP: sniff.Opaque, snapshot.TLS: sniff.TLS}

// A bound is where a tunnel is bound for: a snapshot that is pinned, and the
// service found in it.
type bound struct {
	snap *snapshot.Snapshot
	svc  *snapshot.Service
}

// newCodec returns the handler of a connection that speaks HTTP. A declaration
// says how endpoints are spoken to; which HTTP a client speaks, its first bytes
// say, as they do in Istio.
func (p *Proxy) newCodec(t *turn.Turn, tun hbone.Tunnel, b bound, v sniff.Verdict) hbone.TunnelHandler {
	if v.Protocol == sniff.HTTP2 && v.Reason != sniff.Declared {
		return newInner2(t, p, tun, b, v)
	}
	in := &inner{p: p, tun: tun, snap: b.snap, svc: b.svc, source: p.sourceOf(b.snap, tun.Peer()), verdict: v}
	in.codec.Init(tun, in, p.limits)
	in.watch(t, forIdle)
	p.remember(in)
	p.recheck(t, in, b.snap)
	return in
}

// denied is the answer to the CONNECT of a client that a ConnFilter refused.
func denied(err error) int {
	if fault.Of(err).Kind == fault.FilterTrapped {
		return 503
	}
	return 401
}

// admit asks the ConnFilters. One that panics costs its tunnel, and not the mesh
// connection with everybody else's.
func (p *Proxy) admit(chain *filters.Chain, c *filters.Conn) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r)
			err = fault.Wrap(fault.FilterTrapped, fault.Local, nil)
		}
	}()
	return chain.Conn(c)
}

// refuse counts a refused tunnel and says why.
func (p *Proxy) refuse(status int, f *fault.Fault) error {
	p.stats.Faults[f.Kind].Add(1)
	return &hbone.Refusal{Status: status, Reason: f.Error()}
}

// pin returns the snapshot of the moment, pinned.
func (p *Proxy) pin() *snapshot.Snapshot {
	for {
		if s := p.snap.Load(); s.Pin() {
			return s
		}
	}
}

// remember and forget keep the set of live connections, which Apply and Drain walk,
// and forget lets go of the snapshot that one pinned, if it still does.
func (p *Proxy) remember(c liveConn) {
	p.mu.Lock()
	p.live[c] = struct{}{}
	p.mu.Unlock()
}

func (p *Proxy) forget(c liveConn, pinned *snapshot.Snapshot) {
	p.leave(c)
	if pinned != nil {
		pinned.Unpin()
	}
}

// leave takes a connection out of the set; another has its snapshot.
func (p *Proxy) leave(c liveConn) {
	p.mu.Lock()
	delete(p.live, c)
	p.mu.Unlock()
}

// allLive is quick, because tunnels that open or end wait for it.
func (p *Proxy) allLive() []liveConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.AppendSeq(make([]liveConn, 0, len(p.live)), maps.Keys(p.live))
}
