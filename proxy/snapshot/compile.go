package snapshot

import (
	"fmt"
	"net/netip"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/route"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

// DefaultTunnelPort is where node tunnels listen.
const DefaultTunnelPort = 15008

// An Env is what documents are compiled with.
type Env struct {
	Registry filters.Registry
	Shared   *refpool.Pool
	Metrics  *metrics.Registry
	Pool     *hbone.Pool
	// Warming hears what filters want to be waited for; nil: nobody waits.
	Warming *filters.Warming
	// TunnelPort is where node tunnels listen on an endpoint's address; 0 means
	// DefaultTunnelPort.
	TunnelPort uint16
	// Sandwiched says that our own node tunnel wraps what we dial: endpoints
	// are dialled by their address as plain TCP.
	Sandwiched bool
	// Guard adds filters to a service's chain, behind those of the document.
	Guard func(b *filters.Builder, service string) error
}

// Compile builds c object by object and reports every problem it finds. An
// object with a problem keeps its version from prev; a new one fails closed: its
// routes answer 500, its policy denies. The others are not touched by it.
func Compile(c *config.Config, prev *Snapshot, env Env) (*Snapshot, []config.Problem) {
	if env.TunnelPort == 0 {
		env.TunnelPort = DefaultTunnelPort
	}
	var last *config.Config
	if prev != nil {
		last = prev.settled.Config
	}
	bad, problems := tryRoutes(c, env)
	settled := config.Settle(last, c, bad...)
	b := &builder{env: env, c: settled.Config, out: &Snapshot{
		settled: settled,
		byAddr:  map[netip.AddrPort]*Service{},
		callers: map[netip.Addr]*filters.Workload{},
		byHost:  map[hostPort]*Service{},
	}}
	b.out.pins.Store(1)
	b.build()
	return b.out, append(problems, config.References(settled.Config)...)
}

// A builder is one Compile.
type builder struct {
	env Env
	c   *config.Config
	out *Snapshot

	attached  *config.RouteIndex
	workloads map[config.Key]*config.Workload
	known     map[*config.Workload]*filters.Workload
	byAddress map[netip.Addr]*config.Workload
	services  map[config.Key]*config.Service
	infos     map[string]*filters.Service
	backends  map[string]*upstream.Backend
	members   map[*upstream.Backend][]upstream.Address
	reviews   bool // a chain of the service that is being built has a ReviewFilter
}

func (b *builder) build() {
	b.index()
	for _, s := range b.c.Services {
		for i := range s.Ports {
			b.service(s, &s.Ports[i])
		}
	}
	for _, s := range b.c.Services {
		for i := range s.Ports {
			b.pods(s, &s.Ports[i])
		}
	}
	for be, list := range b.members {
		be.SetEndpoints(list)
	}
}

func (b *builder) index() {
	b.attached = b.c.IndexRoutes()
	b.workloads = map[config.Key]*config.Workload{}
	b.known = map[*config.Workload]*filters.Workload{}
	b.byAddress = map[netip.Addr]*config.Workload{}
	b.services = map[config.Key]*config.Service{}
	b.infos = map[string]*filters.Service{}
	b.backends = map[string]*upstream.Backend{}
	b.members = map[*upstream.Backend][]upstream.Address{}
	for _, w := range b.c.Workloads {
		b.workloads[w.Key()] = w
		b.known[w] = known(w)
		for _, a := range w.Addresses {
			setFirst(b.byAddress, a, w)
			setFirst(b.out.callers, a, b.known[w])
		}
	}
	for _, s := range b.c.Services {
		b.services[s.Key()] = s
	}
}

// service builds one port of a service and makes it known by every address and
// name. The first service that wants an address has it; the document's checks
// have told of the others.
func (b *builder) service(s *config.Service, port *config.ServicePort) {
	v := &Service{Name: portName(s, port), Protocol: protocolOf(port), Info: b.info(s, port)}
	b.reviews = false
	v.Chain = b.guard(s, v.Name)
	b.routes(v, s, port)
	v.reviews = b.reviews || v.Chain.SeesReview()
	b.out.services = append(b.out.services, v)
	for _, a := range s.Addresses {
		setFirst(b.out.byAddr, netip.AddrPortFrom(a, uint16(port.Port)), v)
	}
	for _, h := range s.Hostnames {
		setFirst(b.out.byHost, hostPort{h, uint16(port.Port)}, v)
	}
}

func setFirst[K comparable, V any](m map[K]V, k K, v V) {
	if _, taken := m[k]; !taken {
		m[k] = v
	}
}

func portName(s *config.Service, port *config.ServicePort) string {
	return fmt.Sprintf("%s/%s:%d", s.Namespace, s.Name, port.Port)
}

// info says what metrics, logs and records call a service's port.
func (b *builder) info(s *config.Service, port *config.ServicePort) *filters.Service {
	name := portName(s, port)
	if b.infos[name] == nil {
		info := &filters.Service{Namespace: s.Namespace, Name: s.Name, Port: uint16(port.Port)}
		if len(s.Hostnames) > 0 {
			info.Host = s.Hostnames[0]
		}
		b.infos[name] = info
	}
	return b.infos[name]
}

func protocolOf(port *config.ServicePort) Protocol { return protocols[port.Speaks()] }

// protocols is never written.
var protocols = [...]Protocol{
	config.AppDetect: Detect,
	config.AppHTTP1:  HTTP1,
	config.AppHTTP2:  HTTP2,
	config.AppTCP:    TCP,
	config.AppTLS:    TLS,
}

// speaks says how requests are sent to a port. To one that is not HTTP they go
// as HTTP/1, as Istio has it.
func speaks(port *config.ServicePort) Protocol {
	switch p := protocolOf(port); p {
	case Detect, HTTP2:
		return p
	}
	return HTTP1
}

// guard builds the service's chain. A policy that failed closed, or a chain that
// cannot be built, denies.
func (b *builder) guard(s *config.Service, name string) *filters.Chain {
	for i := range b.c.Closed {
		if cl := &b.c.Closed[i]; cl.Role == config.RolePolicy && has(cl.Services, s.Key()) {
			return deny(filters.ServiceLevel, fmt.Errorf("%s has no valid version", cl.By))
		}
	}
	fb := b.filterBuilder(filters.ServiceLevel)
	if b.env.Guard != nil {
		if err := b.env.Guard(fb, name); err != nil {
			_ = fb.Discard()
			return deny(filters.ServiceLevel, err)
		}
	}
	return b.chain(fb, filters.ServiceLevel)
}

func has(list []config.Key, k config.Key) bool {
	for i := range list {
		if list[i] == k {
			return true
		}
	}
	return false
}

func (b *builder) filterBuilder(l filters.Level) *filters.Builder {
	return filters.NewBuilder(filters.Env{Level: l, Registry: b.env.Registry, Shared: b.env.Shared, Metrics: b.env.Metrics, Warming: b.env.Warming})
}

// chain finishes a chain; the snapshot holds what its filters share.
func (b *builder) chain(fb *filters.Builder, l filters.Level) *filters.Chain {
	c, err := fb.Chain()
	if err != nil {
		return deny(l, err)
	}
	b.out.held = append(b.out.held, c)
	b.reviews = b.reviews || c.SeesReview()
	return c
}

// A denier is the filter of what fails closed.
type denier struct{ reply *filters.Reply }

func (d denier) Request(*filters.Stream) *filters.Reply { return d.reply }
func (d denier) Conn(*filters.Conn) error               { return d.reply.Fault }
func (d denier) Review(*filters.Stream) error           { return d.reply.Fault }

// deny returns a chain that refuses whatever comes.
func deny(l filters.Level, why error) *filters.Chain {
	c, err := filters.NewChain(l, denier{filters.Fail(fault.Wrap(fault.PolicyDenied, fault.Local, why))})
	if err != nil {
		panic(err) // one filter with two phases always makes a chain
	}
	return c
}

// pods makes a service's endpoints known by their own addresses: traffic bound
// for a pod passes no route of the service.
func (b *builder) pods(s *config.Service, port *config.ServicePort) {
	for _, m := range b.addresses(s, port) {
		if _, taken := b.out.byAddr[m.Addr]; taken {
			continue
		}
		name := m.Addr.String()
		if m.Workload != nil {
			name = fmt.Sprintf("%s/%s:%d", m.Workload.Namespace, m.Workload.Name, m.Addr.Port())
		}
		v := &Service{Name: name, Protocol: protocolOf(port), Chain: b.guard(s, name)}
		v.reviews = v.Chain.SeesReview()
		be := b.backend("pod "+m.Addr.String(), upstream.LeastRequest)
		b.members[be] = []upstream.Address{m.Address}
		v.tcp = b.defaultRule(name, be, speaks(port))
		v.http = b.table([]route.Rule[*rule]{{Result: v.tcp}})
		b.out.services = append(b.out.services, v)
		b.out.byAddr[m.Addr] = v
	}
}
