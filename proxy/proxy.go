package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/http1"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// Options are what needs a restart to change.
type Options struct {
	// Certificates prove who we are, and whom we trust. Without them there is
	// no HBONE, in or out.
	Certificates *hbone.Certificates
	// Registry says which filters this binary has.
	Registry filters.Registry
	// Metrics is where everything is counted; nil for a registry of its own.
	Metrics *metrics.Registry
	// Zone is where this proxy runs, for counting bytes between zones.
	Zone string
	// Watch is how many requests share one that is watched: each of its filters
	// is timed, and its Outcome says so. 1 watches all, 0 none.
	Watch uint32

	// TunnelPort is where node tunnels listen on endpoints; 0 means 15008.
	TunnelPort uint16
	// Sandwiched says that our own node tunnel captures what we dial and wraps
	// it: endpoints are dialled by pod address as plain TCP.
	Sandwiched bool
	// TrustProxyFrom lists who may send PROXY headers besides loopback.
	TrustProxyFrom []netip.Prefix
	// ProxyV1 admits PROXY headers of version 1, which carry no identity.
	ProxyV1 bool
	// MaxConns is the cap on clients' connections; 0 means none.
	MaxConns int
	// Loops read for connections; with nil each has a goroutine that does. They
	// are the caller's to close, after Shutdown.
	Loops *wire.Loops
	// MemoryLimit is how many bytes this process may have; 0 for no limit. When
	// little is left, windows shrink, clients that hold most are asked to go, nobody
	// new comes in, and at last those that hold most are cut.
	MemoryLimit uint64
	// MemoryUse, if not nil, measures in place of internal/memory.
	MemoryUse func() uint64
	// Limits of inner HTTP/1 connections; nil for the defaults.
	Limits *http1.Limits
	// Timeouts in place of the defaults.
	Timeouts Timeouts
	// Upgrades lists what clients may switch a connection to; nil for
	// "websocket" alone, as in Istio.
	Upgrades []string

	// WarmUp is how long all that filters ask to wait for may keep this proxy from
	// being ready; 0 means DefaultWarmUp, less than 0 not at all.
	WarmUp time.Duration

	// Guard adds filters to every service's chain.
	Guard func(b *filters.Builder, service string) error
	// Dial replaces the dialler towards endpoints and their node tunnels.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

	// Observe is called for each request that is over, inside its turn: it must
	// not block, and keeps nothing of what it is given.
	Observe func(*Outcome)
	// ObserveConn is the same for each opaque connection that is over.
	ObserveConn func(*ConnOutcome)
	// OnFault hears of each connection that was refused or broke a rule.
	OnFault func(remote net.Addr, err error)
	// OnCold hears, once at most, what this proxy became ready without.
	OnCold func(error)
	// OnMemory hears of each step up or down that memory takes.
	OnMemory func(step memory.Step, use uint64)
	// OnPanic is told of each panic that was caught.
	OnPanic func(error)
}

// A Proxy is the waypoint: it serves tunnels by the snapshot of the moment.
type Proxy struct {
	Options
	server   *hbone.Server
	pool     *hbone.Pool
	env      snapshot.Env
	wheel    *wheel.Wheel
	limits   *http1.Limits
	workers  *workers
	meter    *measure.Meter
	timeouts Timeouts // with the defaults; 0 is never
	stats    Stats
	pressure pressure

	exchanges sync.Pool
	responses sync.Pool // messages, apart from the exchanges that wait for them
	outcomes  sync.Pool
	streams2  sync.Pool
	replay    atomic.Int64 // request bytes kept for another attempt
	snap      atomic.Pointer[snapshot.Snapshot]
	listening atomic.Bool
	leaving   atomic.Bool // not ready any more, and serving all the same
	draining  atomic.Bool
	warm      atomic.Bool // filters are waited for no more
	cutting   atomic.Bool // Shutdown waits no longer
	stop      chan struct{}
	stopped   sync.Once

	firstApply atomic.Pointer[time.Time]

	applying sync.Mutex // one Apply at a time

	mu   sync.Mutex
	live map[liveConn]struct{}
}

// A liveConn is a client's connection inside a tunnel, of whatever protocol.
type liveConn interface {
	// review is asked by Apply: it and what goes on in it is judged by the new
	// snapshot, and who is unused takes that.
	review(r *review)
	// inspect is asked by people.
	inspect() Connection

	// drain is asked when the proxy is to end: clients go elsewhere.
	drain(t *turn.Turn)
	// endIdle is asked when the time is nearly up: who waits for a request ends,
	// and says so.
	endIdle(t *turn.Turn) bool
}

// Stats count what the engine did.
type Stats struct {
	Requests   atomic.Int64
	Retries    atomic.Int64
	Upgraded   atomic.Int64                // requests that became another protocol's connection
	Opaque     atomic.Int64                // connections of opaque bytes
	Cut        atomic.Int64                // of both, those that Shutdown had to end
	Reviewed   atomic.Int64                // connections and requests that a new document has judged again
	Revoked    atomic.Int64                // of them, those that it refused
	Settled    [sniff.Reasons]atomic.Int64 // undeclared ports' connections, by what settled what they speak
	ReplayOver atomic.Int64                // requests whose body found no room for another attempt
	Panics     atomic.Int64
	Documents  atomic.Int64 // applied
	Cold       atomic.Int64 // what filters asked to wait for and was not finished when this proxy became ready
	Impossible atomic.Int64 // events that the state table forbids
	Faults     [fault.Kinds]atomic.Int64
	HTTP2      h2.Counters // limits that clients met on inner connections
}

// sweepEvery is how often unused upstream connections are looked at.
const sweepEvery = 10 * time.Second

// tickEvery is how often connections look at their clocks.
const tickEvery = time.Second

// New returns a proxy that knows no service yet: it refuses every tunnel.
func New(o Options) *Proxy {
	p := &Proxy{
		Options:  o,
		wheel:    wheel.New(),
		limits:   o.Limits,
		timeouts: o.Timeouts.filled(),
		workers:  newWorkers(maxWorkers),
		stop:     make(chan struct{}),
		live:     map[liveConn]struct{}{},
	}
	if p.limits == nil {
		p.limits = http1.DefaultLimits() // one for all connections
	}
	if p.Metrics == nil {
		p.Metrics = new(metrics.Registry)
	}
	p.meter = measure.New(p.Metrics, measure.Options{Zone: o.Zone})
	p.Metrics.Collect(p)
	if o.WarmUp == 0 {
		p.WarmUp = DefaultWarmUp
	}
	if o.Upgrades == nil {
		p.Upgrades = []string{"websocket"}
	}
	p.exchanges.New = func() any { return new(exchange) }
	p.responses.New = func() any { return new(message.Response) }
	p.outcomes.New = func() any { return new(Outcome) }
	p.streams2.New = func() any { return new(stream2) }
	p.snap.Store(snapshot.Empty())
	driven := wire.Options{Wheel: p.wheel, Tick: tickEvery, Loops: o.Loops}
	server := hbone.ServerOptions{
		Accept:         p.openTunnel,
		TrustProxyFrom: o.TrustProxyFrom,
		ProxyV1:        o.ProxyV1,
		MaxConns:       o.MaxConns,
		Wire:           driven,
		OnFault:        o.OnFault,
		Tight:          &p.pressure.tight,
		Full:           &p.pressure.full,
	}
	pool := hbone.PoolOptions{Wire: driven, Dial: o.Dial, Tight: &p.pressure.tight}
	if o.Certificates != nil {
		server.Certificates = o.Certificates
		pool.Certificates = o.Certificates
	}
	p.server = hbone.NewServer(server)
	p.pool = hbone.NewPool(pool)
	p.env = snapshot.Env{
		Registry:   o.Registry,
		Shared:     new(refpool.Pool),
		Metrics:    p.Metrics,
		Pool:       p.pool,
		Warming:    new(filters.Warming),
		TunnelPort: o.TunnelPort,
		Sandwiched: o.Sandwiched,
		Guard:      o.Guard,
	}
	p.wheel.Start()
	go p.sweep()
	p.startPressure()
	return p
}

// Stats returns the engine's counters, Server those of the accepting side.
func (p *Proxy) Stats() *Stats                   { return &p.stats }
func (p *Proxy) ServerStats() *hbone.ServerStats { return p.server.Stats() }

// Snapshot returns the snapshot of the moment.
func (p *Proxy) Snapshot() *snapshot.Snapshot { return p.snap.Load() }

// Apply compiles c and makes the result current in one step. Streams that have
// begun keep the snapshot they began with, and are judged again: those that the new
// one would refuse have ended when Apply returns. The problems name each object that
// kept its last good version or failed closed.
func (p *Proxy) Apply(c *config.Config) []config.Problem {
	p.applying.Lock()
	defer p.applying.Unlock()
	old := p.snap.Load()
	next, problems := snapshot.Compile(c, old, p.env)
	p.snap.Store(next)
	if p.firstApply.Load() == nil {
		now := time.Now()
		p.firstApply.Store(&now)
	}
	p.stats.Documents.Add(1)
	old.Retire()
	p.reviewAll()
	return problems
}

// sweep ends upstream connections that nobody uses.
func (p *Proxy) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		s := p.pin()
		var t turn.Turn
		for _, b := range s.Backends() {
			for _, e := range b.Endpoints() {
				e.Sweep(&t)
			}
		}
		t.End()
		s.Unpin()
	}
}
