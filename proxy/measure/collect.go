package measure

import (
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
)

var _ metrics.Collector = (*Meter)(nil)

// A family is one metric: its name, its help, and where a set has it.
type family struct {
	name, help string
	has        func(Protocol) bool
	of         func(*set, *metrics.Series)
}

func http(p Protocol) bool { return p != TCP }
func grpc(p Protocol) bool { return p == GRPC }
func tcp(p Protocol) bool  { return p == TCP }

// families are the mesh's metrics. They are never written.
var families = []family{
	{"istio_requests_total", "Requests, by who called what and how it went.", http, func(s *set, out *metrics.Series) {
		out.Type, out.Number = metrics.CounterType, float64(s.duration.Count())
	}},
	{"istio_request_duration_milliseconds", "Time from the first byte of a request to the last of its response.", http, func(s *set, out *metrics.Series) {
		out.Type, out.Histogram = metrics.HistogramType, s.duration
	}},
	{"istio_request_bytes", "Size of requests, head included.", http, func(s *set, out *metrics.Series) {
		out.Type, out.Histogram = metrics.HistogramType, s.received
	}},
	{"istio_response_bytes", "Size of responses, head included.", http, func(s *set, out *metrics.Series) {
		out.Type, out.Histogram = metrics.HistogramType, s.sent
	}},
	{"istio_request_messages_total", "Messages of gRPC requests.", grpc, func(s *set, out *metrics.Series) {
		out.Type, out.Counter = metrics.CounterType, &s.asked
	}},
	{"istio_response_messages_total", "Messages of gRPC responses.", grpc, func(s *set, out *metrics.Series) {
		out.Type, out.Counter = metrics.CounterType, &s.told
	}},
	{"istio_tcp_connections_opened_total", "Opaque connections opened.", tcp, func(s *set, out *metrics.Series) {
		out.Type, out.Counter = metrics.CounterType, &s.opened
	}},
	{"istio_tcp_connections_closed_total", "Opaque connections closed.", tcp, func(s *set, out *metrics.Series) {
		out.Type, out.Counter = metrics.CounterType, &s.closed
	}},
	{"istio_tcp_sent_bytes_total", "Bytes sent to clients of opaque connections.", tcp, func(s *set, out *metrics.Series) {
		out.Type, out.Counter = metrics.CounterType, &s.sentB
	}},
	{"istio_tcp_received_bytes_total", "Bytes received from clients of opaque connections.", tcp, func(s *set, out *metrics.Series) {
		out.Type, out.Counter = metrics.CounterType, &s.receivedB
	}},
}

// Collect hands out every series, and gives up the sets that nobody touched for
// long.
func (m *Meter) Collect(f func(*metrics.Series)) {
	m.forget(time.Now())
	m.mu.Lock()
	sets, gone := slices.Clone(m.order), m.gone
	m.mu.Unlock()
	for i := range families {
		for _, s := range sets {
			if !families[i].has(s.protocol) {
				continue
			}
			out := metrics.Series{Name: families[i].name, Help: families[i].help, Labels: s.labels}
			families[i].of(s, &out)
			f(&out)
		}
	}
	m.zones(sets, gone, f)
	f(&metrics.Series{
		Name: "waypoint_metrics_overflow_total", Type: metrics.CounterType, Number: float64(m.Overflowed()),
		Help: "Requests and connections that found no series of their own, because there are too many.",
	})
	f(&metrics.Series{
		Name: "waypoint_metrics_sets", Type: metrics.GaugeType, Number: float64(len(sets)),
		Help: "Sets of series that the mesh's metrics have.",
	})
}

// A zoned is bytes by the side, the zone there and the direction.
type zoned [2][zones][2]int64

func (z *zoned) add(s *set) {
	received, sent := int64(s.receivedB.Value()), int64(s.sentB.Value())
	if s.duration != nil {
		received, sent = s.received.Sum(), s.sent.Sum()
	}
	for side, at := range [2]zone{s.fromZone, s.toZone} {
		z[side][at][0] += received
		z[side][at][1] += sent
	}
}

// zones sums bytes by whether the other end is in our zone: traffic between
// zones is what clouds charge for. What passes an endpoint is taken to be what
// passed the client.
func (m *Meter) zones(sets []*set, sum zoned, f func(*metrics.Series)) {
	for _, s := range sets {
		sum.add(s)
	}
	for side, name := range [2]string{"downstream", "upstream"} {
		for z := range zones {
			for way, direction := range [2]string{"request", "response"} {
				f(&metrics.Series{
					Name: "waypoint_zone_bytes_total", Type: metrics.CounterType, Number: float64(sum[side][z][way]),
					Help: "Bytes by the zone of the other end, seen from ours.",
					Labels: []metrics.Label{
						{Name: "side", Value: name}, {Name: "zone", Value: z.String()}, {Name: "direction", Value: direction},
					},
				})
			}
		}
	}
}

// forget gives up the sets that have not changed for long. A request that found
// its set just before is counted in none.
func (m *Meter) forget(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stale := map[*set]bool{}
	for _, s := range m.order {
		n := s.opened.Value() + s.closed.Value() + s.receivedB.Value() + s.sentB.Value()
		if s.duration != nil {
			n = s.duration.Count()
		}
		if n != s.touched {
			s.touched, s.since = n, now
		}
		if now.Sub(s.since) > staleAfter && s.live.Value() == 0 {
			stale[s] = true
			m.gone.add(s)
			delete(m.sets, join(s.labels))
		}
	}
	if len(stale) > 0 {
		m.found.Store(newCache())
		m.order = slices.DeleteFunc(m.order, func(s *set) bool { return stale[s] })
	}
}
