package proxy

import (
	"errors"
	"maps"
	"slices"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// openTunnel decides on a tunnel before a byte of it is parsed: is its
// destination ours, does a ConnFilter object, what is spoken inside.
//
// A refusal's status follows Istio's node tunnels: 400 not ours, 401 denied,
// 503 not now.
func (p *Proxy) openTunnel(t *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
	if p.draining.Load() {
		return nil, p.refuse(503, fault.Wrap(fault.Draining, fault.Local, nil))
	}
	snap := p.pin()
	svc, ok := snap.Service(tun.Peer().Destination, tun.Peer().Host)
	if !ok {
		snap.Unpin()
		return nil, p.refuse(400, fault.Wrap(fault.NotOurs, fault.Local, nil))
	}
	if err := p.admit(svc.Chain, &filters.Conn{Peer: tun.Peer(), Service: svc.Name, Start: t.Now()}); err != nil {
		snap.Unpin()
		status, f := 401, fault.Of(err)
		if f.Kind == fault.FilterTrapped {
			status = 503
		}
		return nil, p.refuse(status, f)
	}
	if svc.Protocol == snapshot.HTTP2 {
		return newInner2(t, p, tun, snap, svc), nil
	}
	if svc.Protocol != snapshot.HTTP1 && svc.Protocol != snapshot.Detect { // what is not declared is taken for HTTP/1
		snap.Unpin()
		return nil, p.refuse(503, fault.Wrap(fault.NotImplemented, fault.Local, errors.New(svc.Name+" speaks a protocol that is not carried yet")))
	}
	in := &inner{p: p, tun: tun, snap: snap, svc: svc, source: p.sourceOf(snap, tun.Peer())}
	in.codec.Init(tun, in, p.limits)
	in.watch(t, forIdle)
	p.remember(in)
	if p.snap.Load() != snap { // Apply may have walked the connections just before
		in.repin()
	}
	return in, nil
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
	p.mu.Lock()
	delete(p.live, c)
	p.mu.Unlock()
	if pinned != nil {
		pinned.Unpin()
	}
}

func (p *Proxy) allLive() []liveConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.live))
}
