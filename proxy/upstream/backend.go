package upstream

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// An Algorithm is how a backend chooses among its healthy endpoints.
type Algorithm uint8

const (
	// LeastRequest takes two at random and the one with fewer calls in
	// progress for its weight. Istio's default.
	LeastRequest Algorithm = iota
	// RoundRobin takes them in turn, each as often as its weight says.
	RoundRobin
)

// hostTries is how often a pick that fell on an endpoint already tried is
// repeated, as Istio's retry policy does (host selection attempts 5).
const hostTries = 5

// An Address is one member as configured.
type Address struct {
	// Addr is where the application listens.
	Addr netip.AddrPort
	// Tunnel is where the node tunnel listens. The zero value means that the
	// endpoint speaks no HBONE: it is dialled as plain TCP.
	Tunnel netip.AddrPort
	// Expect lists the identities of which the node tunnel must prove one.
	Expect []peer.ID
	// Workload says whose endpoint it is, for filters, metrics and records.
	Workload *filters.Workload
	// Weight is its share; 0 means 1.
	Weight uint32
	// Priority groups endpoints: a group is used only when no endpoint of a
	// lower number is available.
	Priority uint8
	// Unhealthy members are known and never picked.
	Unhealthy bool
}

// A Backend is a named set of endpoints that serve the same thing. Backends
// outlive snapshots: membership changes far more often than routes do, so it is
// swapped here and not by compiling again.
type Backend struct {
	// Set once.
	name string
	pool *hbone.Pool

	// Atomic.
	algorithm atomic.Uint32
	set       atomic.Pointer[endpointSet]

	mu     sync.Mutex // one SetEndpoints at a time
	closed bool
}

// NewBackend returns a backend without endpoints.
func NewBackend(name string, pool *hbone.Pool) *Backend {
	b := &Backend{name: name, pool: pool}
	b.set.Store(&endpointSet{})
	return b
}

// Name returns the backend's name.
func (b *Backend) Name() string { return b.name }

// SetAlgorithm says how endpoints are chosen from now on.
func (b *Backend) SetAlgorithm(a Algorithm) { b.algorithm.Store(uint32(a)) }

// SetEndpoints replaces the membership. Endpoints that stay keep their load and
// their connections; those that leave finish their calls.
func (b *Backend) SetEndpoints(list []Address) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.replace(list)
}

// Close lets the endpoints go.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.replace(nil)
	return nil
}

func (b *Backend) replace(list []Address) {
	old := b.set.Load()
	stay := make(map[endpointKey]*Endpoint, len(old.all))
	for _, e := range old.all {
		stay[e.key] = e
	}
	next := make([]*Endpoint, 0, len(list))
	here := make(map[endpointKey]*Endpoint, len(list))
	for i := range list {
		k := keyOf(&list[i])
		e := here[k] // listed twice, it is one endpoint with two shares
		if e == nil {
			if e = stay[k]; e == nil {
				e = newEndpoint(b.pool, k, list[i].Expect)
			}
			e.workload.Store(list[i].Workload)
			here[k] = e
		}
		next = append(next, e)
	}
	b.set.Store(newEndpointSet(next, list))
	for k, e := range stay {
		if here[k] == nil {
			e.leave()
		}
	}
}

// Endpoints returns the membership; the slice must not be changed.
func (b *Backend) Endpoints() []*Endpoint { return b.set.Load().all }

// A Member is an endpoint with its place in the membership.
type Member struct {
	*Endpoint
	Priority int
	Weight   uint32
	Healthy  bool // it may be picked
}

// Members returns the membership for people to look at, those that may be picked
// first.
func (b *Backend) Members() []Member {
	set := b.set.Load()
	var out []Member
	listed := map[*Endpoint]bool{}
	for i := range set.groups {
		g := &set.groups[i]
		for j, e := range g.members {
			out = append(out, Member{Endpoint: e, Priority: i, Weight: g.weights[j], Healthy: true})
			listed[e] = true
		}
	}
	for _, e := range set.all {
		if !listed[e] {
			out = append(out, Member{Endpoint: e})
		}
	}
	return out
}

// Size returns how many endpoints there are, and how many may be picked.
func (b *Backend) Size() (members, healthy int) {
	set := b.set.Load()
	for i := range set.groups {
		healthy += len(set.groups[i].members)
	}
	return len(set.all), healthy
}

// Pick chooses an endpoint. It never blocks and never allocates. Endpoints in
// tried are avoided while there are others.
func (b *Backend) Pick(tried []filters.Attempt) (*Endpoint, error) {
	set := b.set.Load()
	for i := range set.groups {
		g := &set.groups[i]
		var e *Endpoint
		for range hostTries {
			e = g.pick(Algorithm(b.algorithm.Load()))
			if !wasTried(e, tried) {
				return e, nil
			}
		}
		for _, m := range g.members {
			if !wasTried(m, tried) {
				return m, nil
			}
		}
		if i == len(set.groups)-1 {
			return e, nil // all have been tried: again is better than not at all
		}
	}
	return nil, fault.Wrap(fault.NoEndpoint, fault.Upstream, nil)
}

func wasTried(e *Endpoint, tried []filters.Attempt) bool {
	for i := range tried {
		if tried[i].Endpoint == e.key.addr {
			return true
		}
	}
	return false
}

// An endpointSet is one membership, prepared for picking. It never changes.
type endpointSet struct {
	all    []*Endpoint
	groups []group // by priority; none is empty
}

// A group is the healthy endpoints of one priority.
type group struct {
	members  []*Endpoint
	weights  []uint32
	upTo     []uint64 // running sums of the weights; nil when they are equal
	schedule []uint16 // members in weighted turn; nil when weights are equal
	next     *atomic.Uint32
}

func newEndpointSet(all []*Endpoint, list []Address) *endpointSet {
	s := &endpointSet{all: all}
	for prio := range 256 {
		g := group{next: new(atomic.Uint32)}
		for i, e := range all {
			if int(list[i].Priority) == prio && !list[i].Unhealthy {
				g.members = append(g.members, e)
				g.weights = append(g.weights, max(list[i].Weight, 1))
			}
		}
		if len(g.members) > 0 {
			g.prepare()
			s.groups = append(s.groups, g)
		}
	}
	return s
}

// prepare builds what weighted choice needs, unless all weights are equal.
func (g *group) prepare() {
	g.next.Store(rand.Uint32()) // else every replica begins with the same endpoint
	equal := true
	var sum uint64
	upTo := make([]uint64, len(g.weights))
	for i, w := range g.weights {
		equal = equal && w == g.weights[0]
		sum += uint64(w)
		upTo[i] = sum
	}
	if equal {
		return
	}
	g.upTo = upTo
	g.schedule = schedule(g.weights, sum)
}

// maxSchedule bounds the turn list of weighted round robin: shares finer than
// 1 in 4,096 are rounded.
const maxSchedule = 4096

// schedule spreads members over one round so that each comes as often as its
// weight and as evenly as can be (smooth weighted round robin).
func schedule(weights []uint32, sum uint64) []uint16 {
	n := min(sum, maxSchedule)
	credit := make([]int64, len(weights))
	out := make([]uint16, 0, n)
	for range n {
		best := 0
		for i, w := range weights {
			credit[i] += int64(w)
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= int64(sum)
		out = append(out, uint16(best))
	}
	return out
}

func (g *group) pick(a Algorithm) *Endpoint {
	if len(g.members) == 1 {
		return g.members[0]
	}
	if a == RoundRobin {
		n := g.next.Add(1)
		if g.schedule != nil {
			return g.members[g.schedule[n%uint32(len(g.schedule))]]
		}
		return g.members[n%uint32(len(g.members))]
	}
	r := rand.Uint64()
	x, y := g.at(uint32(r)), g.at(uint32(r>>32))
	if x == y {
		y = (x + 1) % len(g.members)
	}
	// Fewer calls for its weight wins: a/wa < b/wb without dividing.
	if uint64(g.members[y].active.Load())*uint64(g.weights[x]) < uint64(g.members[x].active.Load())*uint64(g.weights[y]) {
		return g.members[y]
	}
	return g.members[x]
}

// at maps a random number to a member, by weight.
func (g *group) at(r uint32) int {
	if g.upTo == nil {
		return int(uint64(r) * uint64(len(g.members)) >> 32)
	}
	// The product may not overflow: weights sum to less than 2^32 in any
	// document of sane size, and where not the choice is merely less even.
	want := uint64(r) * g.upTo[len(g.upTo)-1] >> 32
	lo, hi := 0, len(g.upTo)-1
	for lo < hi {
		mid := (lo + hi) / 2
		if g.upTo[mid] > want {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}
