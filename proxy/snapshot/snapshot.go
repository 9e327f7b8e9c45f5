package snapshot

import (
	"io"
	"net/netip"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/route"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

// A Snapshot is one configuration, compiled.
type Snapshot struct {
	settled  *config.Settled
	byAddr   map[netip.AddrPort]*Service
	byHost   map[hostPort]*Service
	services []*Service
	backends []*upstream.Backend
	callers  map[netip.Addr]*filters.Workload // who may be at the other end, by address
	held     []io.Closer                      // backends and chains: given up with the snapshot

	// Atomic: how many hold it, one of them for its being the current one.
	pins atomic.Int64
}

type hostPort struct {
	host string
	port uint16
}

// A Protocol is what a service's port speaks.
type Protocol uint8

// The protocols.
const (
	Detect Protocol = iota // nothing is declared: found out from the first bytes
	HTTP1
	HTTP2
	TCP // opaque
	TLS // the application's own: opaque but for the name asked for
)

func (p Protocol) String() string {
	return [...]string{"found out", "HTTP/1", "HTTP/2", "TCP", "TLS"}[p]
}

// A Service is one port of one service as the engine runs it, or one port of a
// pod that is asked for by its own address.
type Service struct {
	Name     string // namespace/name:port
	Protocol Protocol
	Info     *filters.Service // nil for a pod
	// Chain guards the service: it runs before anything can answer 404.
	Chain *filters.Chain

	http *route.Table[*rule] // HTTPRoutes or GRPCRoutes, or everything to itself
	tls  *route.Hosts[*rule] // TLSRoutes; nil if connections go by tcp
	tcp  *rule               // the TCPRoute's, or everything to itself

	requests bool // there are HTTPRoutes or GRPCRoutes
	reviews  bool // one of its chains has a ReviewFilter
}

// A Route is one rule with one of its backends: everything the engine needs to
// run a stream, found in one step.
type Route struct {
	Info    *filters.RouteInfo
	Chain   *filters.Chain // rule filters, then this backend's
	Backend *upstream.Backend
	// Speaks says how the backend's port is spoken to: HTTP1, HTTP2, or Detect,
	// as the client speaks.
	Speaks Protocol
	// Fault answers in place of the backend: the rule names one that does not
	// exist, or an object fails closed.
	Fault *fault.Fault
}

// Empty returns a snapshot without services: every tunnel is refused.
func Empty() *Snapshot {
	s := &Snapshot{settled: &config.Settled{Config: &config.Config{}}}
	s.pins.Store(1)
	return s
}

// Pin holds the snapshot. It reports false if it was given up already: then
// there is a newer one.
func (s *Snapshot) Pin() bool {
	for {
		n := s.pins.Load()
		if n == 0 {
			return false
		}
		if s.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Unpin lets go of it, and gives it up if nobody else holds it. That is done on
// a goroutine of its own: a backend that closes ends connections, and tells them
// so, while the caller may hold a lane.
func (s *Snapshot) Unpin() {
	if s.pins.Add(-1) == 0 && len(s.held) > 0 {
		go s.giveUp()
	}
}

func (s *Snapshot) giveUp() {
	for _, h := range s.held {
		_ = h.Close() // what filters share; an error of theirs is theirs to report
	}
}

// Retire says that the snapshot is not the current one any more.
func (s *Snapshot) Retire() { s.Unpin() }

// Settled says which objects of the document are in force.
func (s *Snapshot) Settled() *config.Settled { return s.settled }

// Services returns what is served, in document order.
func (s *Snapshot) Services() []*Service { return s.services }

// Backends returns where requests can go.
func (s *Snapshot) Backends() []*upstream.Backend { return s.backends }

// Service finds where a tunnel is bound for: by name if its authority was one,
// else by address. The Host of a request never picks the service.
func (s *Snapshot) Service(addr netip.AddrPort, host string) (*Service, bool) {
	if host != "" {
		v, ok := s.byHost[hostPort{host, addr.Port()}]
		return v, ok
	}
	v, ok := s.byAddr[addr]
	return v, ok
}

// Workload returns who is at an address, by the document; nil if nobody knows.
func (s *Snapshot) Workload(addr netip.Addr) *filters.Workload { return s.callers[addr] }

// Route resolves a request to its route, weighted backend choice included. It
// reports false if there are routes and none matches.
func (v *Service) Route(r *message.Request, random uint32) (*Route, bool) {
	found, ok := v.http.Find(r)
	if !ok {
		return nil, false
	}
	return found.pick(random), true
}

// TCP resolves a connection of opaque bytes to its route.
func (v *Service) TCP(random uint32) (*Route, bool) { return v.tcp.pick(random), true }

// ForRequests reports whether somebody wrote routes for requests.
func (v *Service) ForRequests() bool { return v.requests }

// SeesReview reports whether a filter judges requests that are under way.
func (v *Service) SeesReview() bool { return v.reviews }

// ByName reports whether TLS has to know the name that the client asks for.
func (v *Service) ByName() bool { return v.tls != nil }

// TLS resolves a TLS connection to its route, by the name that the client asks
// for; "" if it asks for none. It reports false if there are routes and none
// matches.
func (v *Service) TLS(sni []byte, random uint32) (*Route, bool) {
	if v.tls == nil {
		return v.TCP(random)
	}
	found, ok := v.tls.Find(sni)
	if !ok {
		return nil, false
	}
	return found.pick(random), true
}
