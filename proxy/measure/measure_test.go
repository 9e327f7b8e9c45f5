package measure

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func id(t testing.TB, s string) peer.ID {
	t.Helper()
	got, err := peer.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The people of the tests.
func curl(t testing.TB) (*peer.Info, *filters.Workload) {
	who := id(t, "spiffe://cluster.local/ns/web/sa/curl")
	return &peer.Info{How: peer.HBONE, ID: who}, &filters.Workload{
		Name: "curl-7f9", Namespace: "web", ID: who, Zone: "z1",
		Labels: map[string]string{"service.istio.io/workload-name": "curl", "app": "curl", "version": "v3"},
	}
}

func reviews(t testing.TB) (*filters.Service, *filters.Workload) {
	return &filters.Service{Namespace: "shop", Name: "reviews", Host: "reviews.shop.svc.cluster.local", Port: 80}, &filters.Workload{
		Name: "reviews-v2-1", Namespace: "shop", ID: id(t, "spiffe://cluster.local/ns/shop/sa/reviews"), Zone: "z2", Cluster: "Kubernetes",
		Labels: map[string]string{"app.kubernetes.io/name": "reviews", "version": "v2", "service.istio.io/workload-name": "reviews-v2"},
	}
}

func request(from *Source, to *filters.Service, at *filters.Workload) *Request {
	return &Request{
		Source: from, To: to, At: at, Code: 200, GRPC: -1, Fault: NoFault,
		Duration: 7 * time.Millisecond, Received: 120, Sent: 20_000,
	}
}

// TestNames holds names, labels, their order and buckets to what dashboards of
// the mesh look for.
func TestNames(t *testing.T) {
	r := new(metrics.Registry)
	m := New(r, Options{Zone: "z1"})
	info, w := curl(t)
	to, at := reviews(t)
	m.Request(request(m.Source(info, w), to, at))
	denied := request(m.Source(&peer.Info{How: peer.NONE}, nil), to, nil)
	denied.Code, denied.Fault = 503, fault.ConnectFailed
	denied.Exhausted, denied.Protocol, denied.GRPC, denied.Asked = true, GRPC, 14, 3
	m.Request(denied)
	c := m.Open(m.Source(info, w), to, at)
	c.Bytes(10, 100)
	c.Bytes(15, 300)
	c.Close(fault.ClientGone)
	var got strings.Builder
	if err := r.Expose(&got, metrics.Prometheus); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s", got.String())
	}
}

func TestSources(t *testing.T) {
	m := New(new(metrics.Registry), Options{})
	info, w := curl(t)
	other := &peer.Info{ID: id(t, "spiffe://cluster.local/ns/evil/sa/x")}
	told := &peer.Info{ID: info.ID, Baggage: "k8s.namespace.name=lies,k8s.deployment.name=d,service.name=s,service.version=r,k8s.cluster.name=c"}
	for name, tc := range map[string]struct {
		peer *peer.Info
		at   *filters.Workload
		want Source
	}{
		"of the document":   {info, w, Source{"curl", "curl", "v3", "web", info.ID.String(), "curl", "v3", "unknown", 0, true}},
		"no identity":       {&peer.Info{}, w, Source{"curl", "curl", "v3", "web", "unknown", "curl", "v3", "unknown", 0, false}},
		"another's address": {other, w, Source{"unknown", "unknown", "latest", "evil", other.ID.String(), "unknown", "unknown", "unknown", 0, true}},
		"by itself":         {told, nil, Source{"d", "s", "r", "web", info.ID.String(), "s", "r", "c", 0, true}},
		"nobody":            {&peer.Info{}, nil, Source{"unknown", "unknown", "latest", "unknown", "unknown", "unknown", "unknown", "unknown", 0, false}},
	} {
		got := m.Source(tc.peer, tc.at)
		if *got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, *got, tc.want)
		}
		if again := m.Source(tc.peer, tc.at); again != got {
			t.Errorf("%s: not interned", name)
		}
	}
	for i := range 3 * maxSources {
		m.Source(&peer.Info{Baggage: peer.Baggage(fmt.Sprintf("service.name=s%d", i))}, nil)
	}
	if n := len(m.sources); n > maxSources {
		t.Errorf("%d sources are remembered", n)
	}
}

// TestOverflow: what finds no room is counted, so that sums stay right.
func TestOverflow(t *testing.T) {
	r := new(metrics.Registry)
	m := New(r, Options{MaxSets: 10})
	info, w := curl(t)
	from := m.Source(info, w)
	send := func(name string, code int) {
		q := request(from, &filters.Service{Name: name}, nil)
		q.Code = code
		m.Request(q)
	}
	for i := range 100 {
		send(fmt.Sprint("service-", i), 200)
	}
	send("service-3", 200)
	send("service-77", 503)
	if got := m.Overflowed(); got != 91 {
		t.Errorf("%d overflowed, want 91", got)
	}
	total, sets := 0.0, map[string]float64{}
	r.Each(func(s *metrics.Series) {
		if s.Name != "istio_requests_total" {
			return
		}
		total += s.Value()
		if s.Labels[17].Value == "overflow" {
			sets[s.Labels[21].Value] = s.Value()
		}
	})
	if total != 102 || len(sets) != 2 || sets["2xx"] != 90 || sets["5xx"] != 1 {
		t.Errorf("total %v, overflow %v", total, sets)
	}
}

// TestPointersMayChange: a document that is applied again makes new pointers of
// the same meaning.
func TestPointersMayChange(t *testing.T) {
	m := New(new(metrics.Registry), Options{})
	info, w := curl(t)
	for range 3 * cacheSize {
		to, at := reviews(t)
		m.Request(request(m.Source(info, w), to, at))
	}
	if len(m.sets) != 1 || m.order[0].duration.Count() != 3*cacheSize {
		t.Errorf("%d sets", len(m.sets))
	}
}

func TestStaleSetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(metrics.Registry)
		m := New(r, Options{Zone: "z1"})
		info, w := curl(t)
		to, at := reviews(t)
		from := m.Source(info, w)
		count := func(name string) (n int, sum float64) {
			r.Each(func(s *metrics.Series) {
				if s.Name == name {
					n++
					sum += s.Value()
				}
			})
			return n, sum
		}
		m.Request(request(from, to, at))
		c := m.Open(from, to, at)
		for range 4 {
			time.Sleep(25 * time.Minute)
			count("x")
		}
		if n, _ := count("istio_requests_total"); n != 0 {
			t.Error("a set that nobody touches stays")
		}
		if n, _ := count("istio_tcp_connections_opened_total"); n != 1 {
			t.Error("the set of a live connection went")
		}
		if _, sum := count("waypoint_zone_bytes_total"); sum != 2*20_120 {
			t.Errorf("bytes by zone went down to %v", sum)
		}
		c.Bytes(1, 2)
		c.Close(NoFault)
		m.Request(request(from, to, at))
		if _, sum := count("istio_requests_total"); sum != 1 {
			t.Errorf("a set that came again has %v", sum)
		}
		if _, sum := count("istio_tcp_connections_closed_total"); sum != 1 {
			t.Errorf("%v closed", sum)
		}
	})
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		kind      fault.Kind
		exhausted bool
		want      string
	}{
		{NoFault, false, "-"}, {NoFault, true, "-"}, {fault.ConnectFailed, false, "UF"}, {fault.ConnectFailed, true, "UF,URX"},
		{fault.RetryOverflow, true, "URX"}, {fault.PolicyDenied, false, "-"}, {fault.FilterFailed, true, "URX"},
	} {
		if got := Flags(tc.kind, tc.exhausted); got != tc.want {
			t.Errorf("%v, %v: got %s, want %s", tc.kind, tc.exhausted, got, tc.want)
		}
	}
}

func TestManyCountAtOnce(t *testing.T) {
	r := new(metrics.Registry)
	m := New(r, Options{})
	info, w := curl(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				to, at := reviews(t)
				q := request(m.Source(info, w), to, at)
				q.Code = 200 + i%50
				m.Request(q)
				r.Each(func(*metrics.Series) {})
			}
		})
	}
	wg.Wait()
	total := 0.0
	r.Each(func(s *metrics.Series) {
		if s.Name == "istio_requests_total" {
			total += s.Value()
		}
	})
	if total != 2000 {
		t.Errorf("%v counted", total)
	}
}

func TestAllocations(t *testing.T) {
	m := New(new(metrics.Registry), Options{})
	info, w := curl(t)
	to, at := reviews(t)
	q := request(m.Source(info, w), to, at)
	if got := testing.AllocsPerRun(1000, func() { m.Request(q) }); got != 0 {
		t.Errorf("%v allocations a request, want 0", got)
	}
}

// What a tally hands on is what would have been counted one by one.
func TestTallyAgainstTwin(t *testing.T) {
	info, w := curl(t)
	to, at := reviews(t)
	r := rand.New(rand.NewPCG(3, 4))
	var text [2]strings.Builder
	var meters [2]*Meter
	var registries [2]metrics.Registry
	for i := range meters {
		meters[i] = New(&registries[i], Options{Zone: "z1"})
	}
	tally := meters[1].Tally()
	for range 500 {
		q := request(nil, to, at)
		q.Code = 200 + r.IntN(2)*300
		if r.IntN(4) == 0 {
			q.Protocol, q.GRPC, q.Asked, q.Told = GRPC, r.IntN(2), r.Uint32N(9), r.Uint32N(9)
		}
		q.Duration, q.Received, q.Sent = time.Duration(r.Int64N(1e10)), r.Int64N(1e6), r.Int64N(1e6)
		q.Source = meters[0].Source(info, w)
		meters[0].Request(q)
		q.Source = meters[1].Source(info, w)
		tally.Request(q)
		if r.IntN(20) == 0 {
			tally.Flush()
		}
	}
	tally.Flush()
	tally.Flush() // adds nothing
	for i := range registries {
		if err := registries[i].Expose(&text[i], metrics.Prometheus); err != nil {
			t.Fatal(err)
		}
	}
	if text[0].Len() < 1000 || text[0].String() != text[1].String() {
		t.Errorf("one by one:\n%s\nby a tally:\n%s", &text[0], &text[1])
	}
}

func TestTallyAllocatesNothing(t *testing.T) {
	m := New(new(metrics.Registry), Options{})
	info, w := curl(t)
	to, at := reviews(t)
	q := request(m.Source(info, w), to, at)
	tally := m.Tally()
	if got := testing.AllocsPerRun(1000, func() { tally.Request(q); tally.Flush() }); got != 0 {
		t.Errorf("%v allocations a request, want 0", got)
	}
}

func BenchmarkRequest(b *testing.B) {
	m := New(new(metrics.Registry), Options{})
	info, w := curl(b)
	to, at := reviews(b)
	for i := range 500 { // a map of some size
		q := request(m.Source(info, w), to, at)
		q.Code = 100 + i
		m.Request(q)
	}
	q := request(m.Source(info, w), to, at)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Request(q)
		}
	})
	b.Run("tally", func(b *testing.B) {
		b.ReportAllocs()
		tally := m.Tally()
		for n := 0; b.Loop(); n++ {
			tally.Request(q)
			if n%16 == 0 {
				tally.Flush()
			}
		}
	})
}
