package records

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/headers"
	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/accesslog"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

var update = flag.Bool("update", false, "rewrite the golden file")

const doc = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: shop}
services:
- {name: a, addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: a-1}]}
- {name: b, addresses: [10.96.0.2], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: a-1}]}
- {name: none, addresses: [10.96.0.3], ports: [{port: 80, appProtocol: http}]}
workloads:
- {name: a-1, address: 10.1.0.1, serviceAccount: a}
httpRoutes:
- name: r
  parentRefs: [{kind: Service, name: a}]
  rules:
  - name: gold
    matches: [{path: {type: PathPrefix, value: /api}, headers: [{name: x-tier, value: gold}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}]}}]
    backendRefs: [{name: a, port: 80, weight: 1}, {name: b, port: 80, weight: 0}]
  - name: rest
    matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: a, port: 80}]
  - name: gone
    matches: [{path: {value: /gone}}]
    backendRefs: [{name: nowhere, port: 80}]
`

// A guard answers some paths, waits for others, and lets the rest pass.
type guard struct{}

func (guard) Request(s *filters.Stream) *filters.Reply {
	switch path := string(s.Request.Path); {
	case strings.HasPrefix(path, "/denied"):
		return &filters.Reply{Status: 403, Reason: "no_entry", Fault: fault.Wrap(fault.PolicyDenied, fault.Local, nil)}
	case path == "/teapot":
		return &filters.Reply{Status: 302}
	case path == "/api/waits":
		return filters.Wait
	}
	return nil
}

func (guard) Work(context.Context, *filters.Stream, filters.Phase) *filters.Reply { return nil }

// mesh starts one with a ring, and returns how to ask it.
func mesh(t *testing.T, every uint32) (*Ring, func(service, path string, fields ...string) int) {
	t.Helper()
	c, problems := config.Decode(config.File{Name: "test.yaml", Data: []byte(doc)})
	if c == nil {
		t.Fatal(problems)
	}
	c = config.Settle(nil, c).Config
	ring := new(Ring)
	m, err := devmesh.Start(devmesh.Options{
		Config: c, Modes: []devmesh.Mode{devmesh.HBONE},
		Registry: filters.NewRegistry(headers.RequestKind(), headers.ResponseKind(), filters.Kind{
			Name: "guard", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return guard{}, nil },
		}),
		Guard:   func(b *filters.Builder, _ string) error { return b.Add("guard", "shop/test", filters.NewSpec(nil)) },
		Observe: func(_ devmesh.Mode, o *proxy.Outcome) { ring.Observe(o) },
		Tune:    func(_ devmesh.Mode, o *proxy.Options) { o.Watch = every },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return ring, func(service, path string, fields ...string) int {
		t.Helper()
		e, ok := m.Find(service, devmesh.HBONE)
		if !ok {
			t.Fatalf("no entry for %s", service)
		}
		q, err := http.NewRequest("GET", e.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			q.Header.Set(fields[i], fields[i+1])
		}
		p, err := (&http.Transport{}).RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, p.Body)
		p.Body.Close()
		return p.StatusCode
	}
}

// varies is what differs from run to run.
var varies = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d\d:\d\d:\d\d\.\d+|127\.0\.0\.1:\d+|[0-9.]+(µs|ms)|(queue|detect|accept|filters|backoff|pool|connect|first_byte|body) T, |, (took|waited) T`)

// TestRecords looks at whole records, from a mesh.
func TestRecords(t *testing.T) {
	ring, ask := mesh(t, 1)
	for _, q := range [][]string{
		{"a", "/api/x?token=hunter2", "x-tier", "gold", "authorization", "Bearer hunter2"},
		{"a", "/api/waits"},
		{"a", "/denied"},
		{"a", "/teapot"},
		{"a", "/nothing"},
		{"a", "/gone"},
		{"none", "/"},
	} {
		ask(q[0], q[1], q[2:]...)
	}
	var got strings.Builder
	for _, r := range ring.Since(0) {
		text := r.Text()
		for range 2 { // stages are found once their times are gone
			text = varies.ReplaceAllStringFunc(text, func(s string) string {
				if strings.HasSuffix(s, "s") && strings.ContainsAny(s[:1], "0123456789") {
					return "T"
				}
				if strings.HasSuffix(s, "T, ") || strings.HasSuffix(s, "T") {
					return ""
				}
				return "?"
			})
		}
		got.WriteString(text)
		var sum int64
		for _, took := range r.Stages {
			sum += took
		}
		if sum > r.Took || sum < r.Took-int64(filters.Stages) { // each is cut to microseconds
			t.Errorf("stages are %dµs together, the request took %d", sum, r.Took)
		}
	}
	const file = "testdata/records.txt"
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
	if strings.Contains(got.String(), "hunter2") {
		t.Error("a record tells a secret")
	}
}

// TestOwnAnswersHaveRecords: without anything watched, what we answered and what
// failed has a record, and the rest has none.
func TestOwnAnswersHaveRecords(t *testing.T) {
	ring, ask := mesh(t, 0)
	want := 0
	for _, q := range []struct {
		service, path string
		status        int
		kept          bool
	}{
		{"a", "/api/x", 200, false}, {"a", "/denied", 403, true}, {"a", "/teapot", 302, true}, {"a", "/nothing", 404, true},
		{"a", "/gone", 500, true}, {"none", "/", 503, true}, {"b", "/", 200, false},
	} {
		if got := ask(q.service, q.path); got != q.status {
			t.Errorf("%s%s: status %d, want %d", q.service, q.path, got, q.status)
		}
		if q.kept {
			want++
		}
		if got := ring.Kept(); got != uint64(want) {
			t.Errorf("%s%s: %d records, want %d", q.service, q.path, got, want)
			want = int(got)
		}
	}
	last := ring.Since(uint64(want - 1))
	if len(last) != 1 || last[0].Details != "no_healthy_upstream" || last[0].Members == nil || last[0].Members.Members != 0 {
		t.Errorf("got %+v", last)
	}
}

// failed is an outcome of which a record is kept.
func failed(path string, n int) *proxy.Outcome {
	r := new(message.Request)
	r.SetMethod([]byte("GET"))
	r.SetPath([]byte(path))
	r.Header.Add("x-request-id", "id-"+path[1:])
	for range n {
		r.Header.Add("x-much", strings.Repeat("v", 100))
	}
	return &proxy.Outcome{Stream: &filters.Stream{Request: r, Start: time.Now()}, Status: 503, GRPC: -1}
}

// TestConns: opaque connections that failed have a record, of the others one in
// so many.
func TestConns(t *testing.T) {
	r := &Ring{Every: 10}
	r.Observe(failed("/a", 0))
	fine := &proxy.ConnOutcome{
		Verdict: sniff.Verdict{Protocol: sniff.TLS, Reason: sniff.ClientHello}, SNI: "db.example", Received: 7, Sent: 9,
		Attempts: []filters.Attempt{{N: 1}}, Duration: time.Second,
	}
	for range 20 {
		r.ObserveConn(fine)
	}
	refused := *fine
	refused.Fault = fault.Wrap(fault.PolicyDenied, fault.Local, nil)
	r.ObserveConn(&refused)
	list := r.Since(0)
	if len(list) != 4 {
		t.Fatalf("%d records, want 4", len(list))
	}
	for i, want := range []string{"tls 7/9 bytes - - 1s", "tls 7/9 bytes - - 1s", "tls 7/9 bytes - rbac_access_denied 1s"} {
		one := list[i+1]
		if !strings.Contains(one.Line(), want) || one.SNI != "db.example" || one.Path != "" || len(one.Tries) != 1 {
			t.Errorf("got %s, want %s", one.Text(), want)
		}
	}
	if text := list[3].Text(); !strings.Contains(text, "speaks     tls, settled by client hello, name db.example") {
		t.Errorf("got %s", text)
	}
}

func TestRingIsBounded(t *testing.T) {
	r := new(Ring)
	for i := range 3*Size + 7 {
		r.Observe(failed("/"+string(rune('a'+i%26)), 0))
	}
	list := r.Since(0)
	if len(list) != Size || list[0].N != 2*Size+8 || list[Size-1].N != 3*Size+7 {
		t.Errorf("%d records from %d to %d", len(list), list[0].N, list[len(list)-1].N)
	}
	if list := r.Since(3*Size + 5); len(list) != 2 {
		t.Errorf("%d records behind the last but two", len(list))
	}
}

func TestLargeHeadsAreCut(t *testing.T) {
	r := new(Ring)
	r.Observe(failed("/"+strings.Repeat("x", 1000), 100))
	s := r.slots[1].Load()
	if n := s.req.Header.Size(); !s.cut || n > 2*maxLine+100 {
		t.Errorf("%d bytes are kept", n)
	}
	if got := r.Since(0)[0]; len(got.Path) != maxLine || got.Method != "GET" || !strings.HasPrefix(got.RequestID, "id-xxx") {
		t.Errorf("got %+v", got)
	}
	r.Observe(failed("/y", 5))
	if s := r.slots[2].Load(); s.cut || s.req.Header.Len() != 6 {
		t.Error("a usual head was cut")
	}
}

func TestQuery(t *testing.T) {
	r := new(Ring)
	for _, path := range []string{"/a", "/b", "/c"} {
		r.Observe(failed(path, 0))
	}
	ask := func(q string) (string, error) {
		values, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = r.Query(t.Context(), values, func(b []byte) error { out.Write(b); return nil })
		return out.String(), err
	}
	for q, want := range map[string]string{"": "/a /b /c", "n=2": "/b /c", "id=id-b": "/b", "service=x": "", "failed=1&n=1": "/c"} {
		got, err := ask(q)
		var paths []string
		for _, p := range []string{"/a", "/b", "/c"} {
			if strings.Contains(got, " GET "+p+" ") {
				paths = append(paths, p)
			}
		}
		if err != nil || strings.Join(paths, " ") != want {
			t.Errorf("%q: got %q, %v", q, got, err)
		}
	}
	if got, _ := ask("id=id-a"); !strings.Contains(got, "\n  stages ") {
		t.Errorf("one record is told in full: %q", got)
	}
	lines, _ := ask("format=json")
	for line := range strings.Lines(lines) {
		var one Record
		if err := json.Unmarshal([]byte(line), &one); err != nil || one.Status != 503 {
			t.Errorf("%q: %v", line, err)
		}
	}
	for q, want := range map[string]string{"n=x": "write n=20", "n=-1": "write n=20", "format=xml": "write line, text or json"} {
		if _, err := ask(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", q, err)
		}
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(Ring)
		r.Observe(failed("/a", 0))
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		var out bytes.Buffer
		ended := make(chan error)
		go func() {
			ended <- r.Query(ctx, url.Values{"f": {"1"}}, func(b []byte) error {
				mu.Lock()
				defer mu.Unlock()
				out.Write(b)
				return nil
			})
		}()
		for _, path := range []string{"/b", "/c"} {
			time.Sleep(time.Second)
			r.Observe(failed(path, 0))
		}
		time.Sleep(time.Second)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("%d lines: %s", n, out.String())
		}
	})
}

// TestClean: what a client sends does nothing to a terminal.
func TestClean(t *testing.T) {
	r := &Record{Method: "GET", Path: "/\x1b[2J\u009b", RequestID: "a\nb"}
	if line := r.Line(); strings.ContainsAny(line, "\x1b\n\u009b") {
		t.Errorf("got %q", line)
	}
}

func TestManyKeepAtOnce(t *testing.T) {
	r := new(Ring)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			o := failed("/x", 1)
			for range 2000 {
				r.Observe(o)
			}
		})
		wg.Go(func() {
			for range 20 {
				for _, one := range r.Since(0) {
					if one.Path != "/x" || one.RequestID != "id-x" {
						t.Errorf("a record of two requests: %+v", one)
					}
				}
			}
		})
	}
	wg.Wait()
	if r.Kept() != 8000 || len(r.Since(0)) != Size {
		t.Errorf("%d kept, %d there", r.Kept(), len(r.Since(0)))
	}
}

// everything is what is done for each request beside serving it.
type everything struct {
	meter *measure.Meter
	log   *accesslog.Log
	ring  *Ring
	q     measure.Request
}

func newEverything(t testing.TB) *everything {
	l := accesslog.New(accesslog.Options{Writer: io.Discard, Which: accesslog.Errors})
	t.Cleanup(func() { l.Close(context.Background()) })
	m := measure.New(new(metrics.Registry), measure.Options{})
	return &everything{meter: m, log: l, ring: new(Ring), q: measure.Request{
		Source: &measure.Source{}, To: &filters.Service{Name: "a"}, At: &filters.Workload{Name: "a-1"},
		Code: 200, GRPC: -1, Fault: measure.NoFault, Duration: time.Millisecond, Received: 100, Sent: 1000,
	}}
}

func (e *everything) observe(o *proxy.Outcome) {
	e.meter.Request(&e.q)
	e.log.Observe(o)
	e.ring.Observe(o)
}

func usualRequest() *proxy.Outcome {
	o := failed("/api/v1/items/12345?expand=owner", 0)
	o.Status = 200
	for _, f := range []string{"user-agent", "accept", "accept-encoding", "traceparent"} {
		o.Stream.Request.Header.Add(f, "something of the usual length")
	}
	o.Stream.Attempts = []filters.Attempt{{N: 1, Status: 200}}
	return o
}

func TestAllocations(t *testing.T) {
	e, o := newEverything(t), usualRequest()
	for _, watched := range []bool{false, true} {
		o.Stream.Watched = watched
		for range 2 * Size {
			e.observe(o)
		}
		if got := testing.AllocsPerRun(1000, func() { e.observe(o) }); got != 0 {
			t.Errorf("watched %v: %v allocations a request, want 0", watched, got)
		}
	}
}

// BenchmarkObserve: metrics, the decision to log, and a record, if there is one.
func BenchmarkObserve(b *testing.B) {
	for name, every := range map[string]int{"none": 0, "one in 64": 64, "all": 1} {
		b.Run(name, func(b *testing.B) {
			e, o := newEverything(b), usualRequest()
			b.ReportAllocs()
			for n := 1; b.Loop(); n++ {
				o.Stream.Watched = every > 0 && n%every == 0
				e.observe(o)
			}
		})
	}
}
