package measure

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// Limits of a Meter.
const (
	// MaxSets is how many sets of series there are. One is about 70 lines of an
	// exposition and 3 KiB here.
	MaxSets = 2000
	// maxSources is how many sources are known at once.
	maxSources = 4096
	// staleAfter is how long a set is kept that nobody touches.
	staleAfter = time.Hour
)

// A Protocol is what metrics say was spoken.
type Protocol uint8

// The protocols.
const (
	HTTP Protocol = iota
	GRPC
	TCP
)

func (p Protocol) String() string { return [...]string{"http", "grpc", "tcp"}[p] }

// Options say what a Meter needs to know.
type Options struct {
	// Zone is where this proxy runs; "" if nobody knows.
	Zone string
	// MaxSets replaces the limit of that name, if it is not 0.
	MaxSets int
}

// A Meter counts requests and connections.
type Meter struct {
	o Options

	// Atomic.
	found      atomic.Pointer[cache]
	overflowed metrics.Counter

	// Guarded by mu.
	mu      sync.Mutex
	sources map[Source]*Source
	sets    map[string]*set // by their labels
	order   []*set
	gone    zoned // bytes of sets that were given up
}

// A key says of what kind a request or connection is. Pointers of the same
// meaning may differ, as they do after a change of the document: then two keys
// have one set.
type key struct {
	source    *Source
	to        *filters.Service
	at        *filters.Workload
	code      int16
	grpc      int8 // -1: none
	fault     fault.Kind
	protocol  Protocol
	exhausted bool
}

// A set is the series of one kind of request, or of connection.
type set struct {
	// Set once.
	labels           []metrics.Label
	protocol         Protocol
	fromZone, toZone zone
	duration         *metrics.Histogram // in ns; nil for connections, as the next two
	received, sent   *metrics.Histogram // in bytes

	// Atomic; of gRPC.
	asked, told metrics.Counter

	// Atomic; of connections.
	opened, closed   metrics.Counter
	receivedB, sentB metrics.Counter
	live             metrics.Gauge // how many hold the set

	// Guarded by the Meter's mu.
	touched uint64    // what Collect found the last time
	since   time.Time // and since when
}

// New returns a Meter whose series r exposes.
func New(r *metrics.Registry, o Options) *Meter {
	if o.MaxSets == 0 {
		o.MaxSets = MaxSets
	}
	m := &Meter{o: o, sources: map[Source]*Source{}, sets: map[string]*set{}}
	m.found.Store(newCache())
	r.Collect(m)
	return m
}

// Overflowed counts requests and connections that found no set of their own.
func (m *Meter) Overflowed() uint64 { return m.overflowed.Value() }

// Source says who is at the other end of a tunnel; w is who the document says
// is at its address, or nil. It is asked once for each tunnel.
func (m *Meter) Source(p *peer.Info, w *filters.Workload) *Source {
	s := m.source(p, w)
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.sources[s]; known != nil {
		return known
	}
	if len(m.sources) >= maxSources { // those in use stay what they are
		clear(m.sources)
	}
	m.sources[s] = &s
	return &s
}

// A Request is what is counted of one.
type Request struct {
	Source    *Source
	To        *filters.Service  // nil if there is none
	At        *filters.Workload // who the endpoint was; nil if none was picked, or nobody knows
	Protocol  Protocol
	Code      int        // 0 if no head was sent
	GRPC      int        // -1 if there is none
	Fault     fault.Kind // NoFault if there is none
	Exhausted bool       // it was tried as often as the route grants
	Duration  time.Duration
	Received  int64  // bytes from the client, head included
	Sent      int64  // bytes to the client, head included
	Asked     uint32 // messages of a gRPC request
	Told      uint32 // and of its response
}

// key says of what kind it is.
func (r *Request) key() key {
	return key{
		source: r.Source, to: r.To, at: r.At, code: int16(r.Code), grpc: int8(r.GRPC),
		fault: r.Fault, protocol: r.Protocol, exhausted: r.Exhausted,
	}
}

// Request counts one.
func (m *Meter) Request(r *Request) {
	k := r.key()
	s := m.set(&k)
	s.duration.Observe(int64(r.Duration))
	s.received.Observe(r.Received)
	s.sent.Observe(r.Sent)
	if r.Protocol == GRPC {
		s.asked.Add(uint64(r.Asked))
		s.told.Add(uint64(r.Told))
	}
}

// A Tally counts requests for one goroutine and hands them on when it is asked to:
// those of a turn are of few kinds, and counting one behind another of its kind
// takes no atomics. BenchmarkRequest: 132 → 44 ns.
type Tally struct {
	m              *Meter
	key            key
	set            *set // nil: nothing is counted
	asked, told    uint64
	duration       metrics.Batch
	received, sent metrics.Batch
}

// Tally returns one that has counted nothing.
func (m *Meter) Tally() Tally {
	return Tally{m: m, duration: metrics.NewBatch(milliseconds), received: metrics.NewBatch(bytes), sent: metrics.NewBatch(bytes)}
}

// Request counts one, which Flush will hand on.
func (y *Tally) Request(r *Request) {
	if k := r.key(); y.set == nil || k != y.key {
		y.Flush()
		y.key, y.set = k, y.m.set(&k)
	}
	y.duration.Observe(int64(r.Duration))
	y.received.Observe(r.Received)
	y.sent.Observe(r.Sent)
	y.asked += uint64(r.Asked)
	y.told += uint64(r.Told)
}

// Flush hands on what was counted. What comes next looks its set up anew: the
// Meter may give sets up that nobody touches.
func (y *Tally) Flush() {
	s := y.set
	if s == nil {
		return
	}
	y.duration.AddTo(s.duration)
	y.received.AddTo(s.received)
	y.sent.AddTo(s.sent)
	if y.key.protocol == GRPC {
		s.asked.Add(y.asked)
		s.told.Add(y.told)
	}
	y.set, y.asked, y.told = nil, 0, 0
}

// set finds the set of a kind.
func (m *Meter) set(k *key) *set {
	if s := m.found.Load().find(k); s != nil {
		return s
	}
	return m.setSlow(k)
}

// setSlow finds a set by its labels, or makes it, and remembers it by its key.
func (m *Meter) setSlow(k *key) *set {
	labels := k.labels()
	name := join(labels)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sets[name]
	switch {
	case s != nil:
	case len(m.sets) < m.o.MaxSets:
		s = m.add(name, labels, k)
	default:
		m.overflowed.Add(1)
		labels = overflowed(labels, k.code)
		if name = join(labels); m.sets[name] == nil {
			m.add(name, labels, &key{protocol: k.protocol})
		}
		return m.sets[name] // not remembered: there may be room when it comes again
	}
	m.found.Load().put(k, s)
	return s
}

// add makes a set. mu is held.
func (m *Meter) add(name string, labels []metrics.Label, k *key) *set {
	s := &set{labels: labels, protocol: k.protocol, since: time.Now()}
	if k.source != nil {
		s.fromZone = k.source.zone
	}
	if k.at != nil {
		s.toZone = m.zoneOf(k.at.Zone)
	}
	if k.protocol != TCP {
		s.duration = metrics.NewHistogram(milliseconds)
		s.received, s.sent = metrics.NewHistogram(bytes), metrics.NewHistogram(bytes)
	}
	m.sets[name] = s
	m.order = append(m.order, s)
	return s
}

func join(list []metrics.Label) string {
	var b strings.Builder
	for i := range list {
		b.WriteString(list[i].Value)
		b.WriteByte(0)
	}
	return b.String()
}

// The mesh's buckets, of milliseconds and bytes alike. They are never written.
var (
	milliseconds = metrics.NewBounds(1e6, buckets...)
	bytes        = metrics.NewBounds(1, buckets...)
	buckets      = []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}
)

// A Conn counts one opaque connection.
type Conn struct {
	m              *Meter
	key            key
	set            *set
	received, sent int64 // so far
}

// Open counts a connection that was opened. Its owner sees to it that calls do
// not overlap.
func (m *Meter) Open(from *Source, to *filters.Service, at *filters.Workload) Conn {
	c := Conn{m: m, key: key{source: from, to: to, at: at, fault: NoFault, grpc: -1, protocol: TCP}}
	c.set = m.set(&c.key)
	c.set.opened.Add(1)
	c.set.live.Add(1)
	return c
}

// Bytes says how many bytes have come from the client and gone to it so far.
func (c *Conn) Bytes(received, sent int64) {
	c.set.receivedB.Add(uint64(received - c.received))
	c.set.sentB.Add(uint64(sent - c.sent))
	c.received, c.sent = received, sent
}

// Close counts its end, for which k was the reason, or NoFault.
func (c *Conn) Close(k fault.Kind) {
	c.set.live.Add(-1)
	if c.key.fault = k; k != NoFault {
		c.set = c.m.set(&c.key)
	}
	c.set.closed.Add(1)
}
