package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/http1"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// Options are what needs a restart to change. Env is required.
type Options struct {
	// Env is what snapshots are compiled with: the filter kinds that this
	// binary has, and the pool that opens tunnels.
	Env snapshot.Env
	// Server is how tunnels are accepted. Accept is the proxy's.
	Server hbone.ServerOptions
	// Wheel is the wheel that the connections use.
	Wheel *wheel.Wheel
	// Limits of inner HTTP/1 connections; nil for the defaults.
	Limits *http1.Limits
	// Observe is called for each request that is over, inside its turn: it must
	// not block, and keeps nothing of what it is given.
	Observe func(*Outcome)
	// OnPanic is told of each panic that was caught.
	OnPanic func(error)
}

// A Proxy is the waypoint: it serves tunnels by the snapshot of the moment.
type Proxy struct {
	Options
	server  *hbone.Server
	wheel   *wheel.Wheel
	limits  *http1.Limits
	workers *workers
	stats   Stats

	exchanges sync.Pool
	replay    atomic.Int64 // request bytes kept for another attempt
	snap      atomic.Pointer[snapshot.Snapshot]
	draining  atomic.Bool
	stop      chan struct{}

	applying sync.Mutex // one Apply at a time

	mu     sync.Mutex
	inners map[*inner]struct{}
}

// Stats count what the engine did.
type Stats struct {
	Requests   atomic.Int64
	Retries    atomic.Int64
	ReplayOver atomic.Int64 // requests whose body found no room for another attempt
	Panics     atomic.Int64
	Impossible atomic.Int64 // events that the state table forbids
	Faults     [fault.Kinds]atomic.Int64
}

// sweepEvery is how often unused upstream connections are looked at.
const sweepEvery = 10 * time.Second

// New returns a proxy that knows no service yet: it refuses every tunnel.
func New(o Options) *Proxy {
	p := &Proxy{
		Options: o,
		wheel:   o.Wheel,
		limits:  o.Limits,
		workers: newWorkers(maxWorkers),
		stop:    make(chan struct{}),
		inners:  map[*inner]struct{}{},
	}
	p.exchanges.New = func() any { return new(exchange) }
	p.snap.Store(snapshot.Empty())
	o.Server.Accept = p.openTunnel
	p.server = hbone.NewServer(o.Server)
	go p.sweep()
	return p
}

// Stats returns the engine's counters, Server those of the accepting side.
func (p *Proxy) Stats() *Stats                   { return &p.stats }
func (p *Proxy) ServerStats() *hbone.ServerStats { return p.server.Stats() }

// Snapshot returns the snapshot of the moment.
func (p *Proxy) Snapshot() *snapshot.Snapshot { return p.snap.Load() }

// Apply compiles c and makes the result current in one step. Streams that have
// begun keep the snapshot they began with. The problems name each object that
// kept its last good version or failed closed.
func (p *Proxy) Apply(c *config.Config) []config.Problem {
	p.applying.Lock()
	defer p.applying.Unlock()
	old := p.snap.Load()
	next, problems := snapshot.Compile(c, old, p.Env)
	p.snap.Store(next)
	old.Retire()
	p.mu.Lock()
	all := make([]*inner, 0, len(p.inners))
	for in := range p.inners {
		all = append(all, in)
	}
	p.mu.Unlock()
	for _, in := range all {
		in.repin()
	}
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

// Drain stops accepting, and asks clients to go elsewhere: GOAWAY on mesh
// connections, and Connection: close on the next response of each inner one.
func (p *Proxy) Drain() {
	p.draining.Store(true)
	p.server.Drain()
}

// Shutdown drains, waits for what is under way until ctx ends, and cuts the
// rest. It returns how many connections it cut.
func (p *Proxy) Shutdown(ctx context.Context) int {
	p.Drain()
	cut := p.server.Shutdown(ctx)
	close(p.stop)
	p.workers.close()
	old := p.snap.Swap(snapshot.Empty())
	old.Retire()
	return cut
}
