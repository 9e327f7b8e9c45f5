package snapshot

import (
	"net/netip"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

// serviceBackend returns the backend of one port of a service.
func (b *builder) serviceBackend(s *config.Service, port *config.ServicePort) *upstream.Backend {
	name := portName(s, port)
	if be, ok := b.backends[name]; ok {
		return be
	}
	algorithm := upstream.LeastRequest
	if s.LoadBalancer.Simple == config.RoundRobin {
		algorithm = upstream.RoundRobin
	}
	be := b.backend(name, algorithm)
	b.members[be] = nil // known even if it has none: those that it had are gone
	for _, m := range b.addresses(s, port) {
		if m.Workload == nil || m.primary {
			b.members[be] = append(b.members[be], m.Address)
		}
	}
	return be
}

// backend returns the backend of that name, which outlives snapshots.
func (b *builder) backend(name string, a upstream.Algorithm) *upstream.Backend {
	be, ref, err := refpool.Get(b.env.Shared, "backend\x00"+name, func() (*upstream.Backend, error) {
		return upstream.NewBackend(name, b.env.Pool), nil
	})
	if err != nil {
		panic(err) // the function above returns none
	}
	be.SetAlgorithm(a)
	b.out.held = append(b.out.held, ref)
	b.out.backends = append(b.out.backends, be)
	b.backends[name] = be
	return be
}

// A member is an address at which an endpoint answers. A pod of two address
// families has two, and is one endpoint: at the first.
type member struct {
	upstream.Address
	primary bool
}

// addresses returns the members of a service's port.
func (b *builder) addresses(s *config.Service, port *config.ServicePort) []member {
	var out []member
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		w := b.workloadOf(s, e)
		switch {
		case w != nil:
			for j, a := range w.Addresses {
				if m, ok := b.member(s, w, netip.AddrPortFrom(a, uint16(e.Target(port)))); ok {
					out = append(out, member{m, j == 0})
				}
			}
		case e.Address.IsValid():
			out = append(out, member{b.nameless(s, e, netip.AddrPortFrom(e.Address, uint16(e.Target(port)))), true})
		}
	}
	return out
}

// workloadOf finds whose endpoint it is, by name or by address.
func (b *builder) workloadOf(s *config.Service, e *config.Endpoint) *config.Workload {
	if e.Workload == "" {
		return b.byAddress[e.Address]
	}
	ns := e.Namespace
	if ns == "" {
		ns = s.Namespace
	}
	return b.workloads[config.Key{Namespace: ns, Name: e.Workload}]
}

// member makes a workload's address an endpoint. A weight of 0 takes no share.
func (b *builder) member(s *config.Service, w *config.Workload, addr netip.AddrPort) (upstream.Address, bool) {
	weight := uint32(1)
	if w.Weight != nil {
		weight = uint32(*w.Weight)
	}
	if weight == 0 {
		return upstream.Address{}, false
	}
	m := upstream.Address{
		Addr:      addr,
		Weight:    weight,
		Unhealthy: w.Health == config.Unhealthy,
		Workload:  b.known[w],
	}
	if w.Protocol == config.ProtocolTCP || b.env.Sandwiched {
		return m, true
	}
	if m.Workload.ID.IsZero() {
		m.Unhealthy = true // nobody could prove to be it; the document's checks have told
	}
	m.Tunnel = netip.AddrPortFrom(addr.Addr(), b.env.TunnelPort)
	m.Expect = b.expected(s, m.Workload.ID)
	return m, true
}

// known says what is known of a workload. One whose identity is none has the zero
// ID; the document's checks have told.
func known(w *config.Workload) *filters.Workload {
	id, _ := peer.NewID(w.TrustDomain, w.Namespace, w.ServiceAccount)
	return &filters.Workload{
		Name: w.Name, Namespace: w.Namespace, ID: id,
		Region: w.Locality.Region, Zone: w.Locality.Zone, Subzone: w.Locality.Subzone,
		Labels: w.Labels,
	}
}

// nameless makes an address without a workload an endpoint. Without one of the
// service's own identities to expect, a tunnel to it proves nothing.
func (b *builder) nameless(s *config.Service, e *config.Endpoint, addr netip.AddrPort) upstream.Address {
	m := upstream.Address{Addr: addr}
	if e.Protocol == config.ProtocolTCP || b.env.Sandwiched {
		return m
	}
	m.Tunnel = netip.AddrPortFrom(addr.Addr(), b.env.TunnelPort)
	m.Expect = b.expected(s, peer.ID{})
	m.Unhealthy = len(m.Expect) == 0
	return m
}

// expected lists who may answer for an endpoint: its workload, and the names
// that the service vouches for.
func (b *builder) expected(s *config.Service, id peer.ID) []peer.ID {
	var out []peer.ID
	if !id.IsZero() {
		out = append(out, id)
	}
	for _, san := range s.SubjectAltNames {
		if other, err := peer.ParseID(san); err == nil {
			out = append(out, other)
		}
	}
	return out
}
