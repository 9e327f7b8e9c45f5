package proxy

import (
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

var _ hbone.RelayOwner = (*exchange)(nil)

// offer decides on a client's offer to switch protocols. What is not on the list
// is answered as an ordinary request, as a recipient may (RFC 9110, section 7.8):
// bytes behind a switch pass every filter, so what may switch is said, not
// assumed. An extended CONNECT (RFC 8441) comes here as the offer that it is: its
// codec makes GET and Upgrade of it, and of the 101 its 200.
func (p *Proxy) offer(r *message.Request) {
	if len(r.Upgrade) == 0 {
		return
	}
	for _, name := range p.Upgrades {
		if message.EqualFold(r.Upgrade, name) {
			return
		}
	}
	r.Upgrade = nil
}

// relay joins the two connections of an exchange whose client and endpoint have
// agreed on another protocol: body phases are over, and so are the clocks of the
// request. The exchange lasts until both sides have ended.
func (x *exchange) relay(t *turn.Turn) {
	x.to(t, xUpgraded)
	x.stream.Upgraded = true
	x.deadline = 0
	x.p.stats.Upgraded.Add(1)
	x.down.consume(t, x.request.owed)
	x.request.owed = 0
	x.joined = new(hbone.Relay)
	x.joined.Init(x.lane, nil, x)
	near := x.down.upgrade(t, x.joined.Near())
	far := x.call.Upgrade(t, x.joined.Far())
	x.call = nil
	x.joined.JoinOpen(t, near, far)
	x.watchIdle(t)
}

// FarOpened never comes: an upgrade joins two connections that are open.
func (x *exchange) FarOpened(*turn.Turn, error) {}

// RelayDone ends the exchange with the connections that it joined.
func (x *exchange) RelayDone(t *turn.Turn) {
	defer x.rescue(t)
	x.tried.Release()
	if f := x.p.relayFault(x.joined, x.tried); f != nil && x.stream.Fault == nil {
		x.stream.Fault = f
	}
	x.finish(t, false)
}

// relayFault names why a relay did not end in order; nil if it did. Who ended
// first is to blame: the other side was reset for it.
func (p *Proxy) relayFault(r *hbone.Relay, e *upstream.Endpoint) *fault.Fault {
	near, far := r.Errs()
	switch {
	case (near != nil || far != nil) && p.cutting.Load():
		p.stats.Cut.Add(1)
		return fault.Wrap(fault.Draining, fault.Local, nil)
	case near != nil && near != hbone.ErrLocalAbort:
		return fault.Wrap(fault.ClientGone, fault.Downstream, near)
	case far != nil && far != hbone.ErrLocalAbort:
		return e.CloseFault(far)
	}
	return nil
}
