package proxy

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// over returns an exchange that is over and waits to be observed.
func over(t testing.TB, o Options) *exchange {
	t.Helper()
	p := New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Shutdown(ctx)
	})
	x := &exchange{p: p, state: xOver}
	x.stream.Request, x.stream.Peer, x.stream.Start = &x.req, &peer.Info{}, time.Now()
	x.began = turn.TickOf(x.stream.Start)
	x.source = p.meter.Source(x.stream.Peer, nil)
	x.req.Header.Add("content-type", "text/plain")
	x.response.status = 200
	x.attempts = []filters.Attempt{{N: 1, Status: 200, Workload: &filters.Workload{Name: "a-1"}}}
	x.stream.Attempts = x.attempts
	return x
}

// exposed returns the samples of a registry that hold all of the words.
func exposed(t testing.TB, r *metrics.Registry, words ...string) (out []string) {
	t.Helper()
	var b bytes.Buffer
	if err := r.Expose(&b, metrics.Prometheus); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		all := !strings.HasPrefix(line, "#")
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// TestCounted: each way a request can end is counted once, with what the mesh's
// dashboards ask for.
func TestCounted(t *testing.T) {
	r := new(metrics.Registry)
	inFakeTime(t, rigOptions{more: func(o *Options) { o.Metrics = r }}, echo, func(rig *rig) {
		c := rig.open(serviceA)
		c.send(post("/x", "body"))
		c.wantStatus(200)
		c.send("NONSENSE\r\n\r\n")
		rig.open(serviceNone).send(get("/"))
		gone := rig.open(serviceA)
		gone.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx")
		gone.reset()
		rig.seen = nil
		for _, row := range [][]string{
			{`response_code="200"`, `response_flags="-"`, `destination_service="a.shop.svc.cluster.local"`, `destination_workload="a-`, `destination_principal="spiffe://cluster.local/ns/shop/sa/a"`, `request_protocol="http"`, `connection_security_policy="none"`},
			{`response_code="400"`, `response_flags="DPE"`, `destination_workload="unknown"`},
			{`response_code="503"`, `response_flags="UH"`, `destination_service_name="none"`, `destination_workload="unknown"`},
			{`response_code="0"`, `response_flags="DC"`},
		} {
			got := exposed(t, r, append(row, "istio_requests_total{")...)
			if len(got) != 1 || !strings.HasSuffix(got[0], " 1") {
				t.Errorf("%s: %v", row[0], got)
			}
			if got := exposed(t, r, append(row, "istio_response_bytes_sum{")...); len(got) != 1 || row[0] != `response_code="0"` && strings.HasSuffix(got[0], "} 0") {
				t.Errorf("%s: %v", row[0], got)
			}
		}
		for metric, want := range map[string]string{
			"waypoint_requests_total ": "4", `waypoint_faults_total{details="codec_error",response_flags="DPE"}`: "1",
			"config_objects_active ": "5", "waypoint_documents_total ": "1",
		} {
			if got := exposed(t, r, metric); len(got) != 1 || !strings.HasSuffix(got[0], " "+want) {
				t.Errorf("%s: %v, want %s", metric, got, want)
			}
		}
	})
}

// TestStaleObjectsAreTold: an object on its last good version, and one that
// failed closed, have a series each.
func TestStaleObjectsAreTold(t *testing.T) {
	r := new(metrics.Registry)
	inFakeTime(t, rigOptions{doc: routed(noRetry), more: func(o *Options) { o.Metrics = r }}, echo, func(rig *rig) {
		if got := exposed(t, r, "config_stale_objects"); len(got) != 0 {
			t.Errorf("nothing is stale: %v", got)
		}
		rig.apply(routed("retry: {attempts: no}"))
		if got := exposed(t, r, "config_stale_objects{kind=\"HTTPRoute\""); len(got) != 1 || !strings.HasSuffix(got[0], " 1") {
			t.Errorf("stale: %v", got)
		}
	})
}

// TestFamiliesAreWhole: every family has a help, stands in one piece, and its
// counters are called so.
func TestFamiliesAreWhole(t *testing.T) {
	x := over(t, Options{Metrics: new(metrics.Registry)})
	x.observe(new(turn.Turn))
	seen, last := map[string]bool{}, ""
	x.p.Metrics.Each(func(s *metrics.Series) {
		if s.Name != last && seen[s.Name] {
			t.Errorf("%s stands in two places", s.Name)
		}
		seen[s.Name], last = true, s.Name
		if s.Help == "" {
			t.Errorf("%s has no help", s.Name)
		}
		if (s.Type == metrics.CounterType) != strings.HasSuffix(s.Name, "_total") {
			t.Errorf("%s is a %s", s.Name, s.Type)
		}
		ours := false
		for _, prefix := range []string{"istio_", "waypoint_", "config_"} {
			ours = ours || strings.HasPrefix(s.Name, prefix)
		}
		if !ours {
			t.Errorf("%s has no prefix of ours", s.Name)
		}
	})
	if len(seen) < 40 {
		t.Errorf("%d families", len(seen))
	}
}

func TestFailed(t *testing.T) {
	f := fault.Wrap(fault.ClientGone, fault.Downstream, nil)
	for _, row := range []struct {
		o    Outcome
		want bool
	}{
		{Outcome{Status: 200, GRPC: -1}, false},
		{Outcome{Status: 404, GRPC: -1}, false},
		{Outcome{Status: 404, GRPC: -1, Reason: "route_not_found"}, true},
		{Outcome{Status: 302, GRPC: -1, Reason: "direct_response"}, false},
		{Outcome{Status: 500, GRPC: -1}, true},
		{Outcome{Status: 0, GRPC: -1}, true},
		{Outcome{Status: 200, GRPC: 5}, false},
		{Outcome{Status: 200, GRPC: 14}, true},
		{Outcome{Status: 200, GRPC: -1, Stream: &filters.Stream{Fault: f}}, true},
	} {
		if row.o.Stream == nil {
			row.o.Stream = new(filters.Stream)
		}
		if got := row.o.Failed(); got != row.want {
			t.Errorf("%+v: got %v", row.o, got)
		}
	}
}

// observers are the turns in which a request may end: a loop's, and any other.
func observers() map[string]*turn.Turn {
	loop := new(turn.Turn)
	loop.Last()
	return map[string]*turn.Turn{"loop": loop, "goroutine": new(turn.Turn)}
}

func TestObserveAllocatesNothing(t *testing.T) {
	for name, tn := range observers() {
		t.Run(name, func(t *testing.T) {
			n := 0
			x := over(t, Options{Observe: func(*Outcome) { n++ }})
			if got := testing.AllocsPerRun(1000, func() { x.observe(tn); tn.End() }); got != 0 || n != 1001 {
				t.Errorf("%v allocations, %d observed", got, n)
			}
			if got := x.p.stats.Requests.Load(); got != 1001 {
				t.Errorf("%d requests are counted, want 1001", got)
			}
		})
	}
}

// TestCountedBeforeTold: a client that has its answer finds it among the metrics.
func TestCountedBeforeTold(t *testing.T) {
	x := over(t, Options{})
	for name, tn := range observers() {
		before, told := x.p.stats.Requests.Load(), int64(0)
		tn.Mark(flusher(func() { told = x.p.stats.Requests.Load() - before }))
		x.observe(tn)
		tn.End()
		if told != 1 {
			t.Errorf("%s: %d requests are counted when the answer leaves, want 1", name, told)
		}
	}
}

type flusher func()

func (f flusher) Flush(*turn.Turn) { f() }

// BenchmarkObserve: what the engine does for telemetry when a request is over, with
// as many in a turn as a busy one has.
func BenchmarkObserve(b *testing.B) {
	for name, tn := range observers() {
		b.Run(name, func(b *testing.B) {
			x := over(b, Options{})
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				x.began--
				x.observe(tn)
				if n%16 == 0 {
					tn.End()
				}
			}
		})
	}
}
