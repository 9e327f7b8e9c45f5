package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// A sample is a request that was served; tests change what their case is about.
func sample(t testing.TB, path string, fields ...string) *proxy.Outcome {
	t.Helper()
	r := new(message.Request)
	if !r.SetMethod([]byte("GET")) || !r.SetPath([]byte(path)) || !r.SetAuthority([]byte("reviews.shop")) {
		t.Fatalf("%q is no path", path)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	id, err := peer.ParseID("spiffe://cluster.local/ns/web/sa/curl")
	if err != nil {
		t.Fatal(err)
	}
	return &proxy.Outcome{
		Stream: &filters.Stream{
			Request: r,
			Peer: &peer.Info{
				How: peer.HBONE, ID: id, Source: netip.MustParseAddrPort("10.1.0.9:41234"),
				Destination: netip.MustParseAddrPort("10.96.0.10:80"),
			},
			Route: &filters.RouteInfo{
				Service: "shop/reviews:80", Name: "shop/reviews", Rule: "1", Backend: "shop/reviews-v1:80",
				To: &filters.Service{Namespace: "shop", Name: "reviews-v1", Host: "reviews-v1.shop.svc.cluster.local", Port: 80},
			},
			Start:    time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC),
			Attempts: []filters.Attempt{{N: 1, Endpoint: netip.MustParseAddrPort("10.1.0.11:9080"), Status: 200, Took: 3 * time.Millisecond}},
		},
		Status: 200, GRPC: -1, Received: 12, Sent: 3456, Duration: 5_700 * time.Microsecond,
	}
}

// goldens are what the formats look like.
func goldens(t testing.TB) map[string]*proxy.Outcome {
	served := sample(t, "/api/v1", "user-agent", "curl/8.5.0", "x-request-id", "6f1c7f0a-53b8-4d61-9a7e-1f2b3c4d5e6f", "x-forwarded-for", "192.0.2.7")
	secrets := sample(t, "/login?user=ann&password=hunter2&token&&next=/%22", "authorization", "Bearer hunter2", "cookie", "session=hunter2")
	hostile := sample(t, "/a\"b\\c", "user-agent", "x\" 200 - \"\x01\xff\u2028é")
	refused := sample(t, "/private")
	refused.Status, refused.Reason, refused.Sent = 403, "rbac_access_denied_matched_policy[shop/only-web]", 19
	refused.Stream.Fault = fault.Wrap(fault.PolicyDenied, fault.Local, nil)
	refused.Stream.Attempts = nil
	down := sample(t, "/down")
	f := fault.Wrap(fault.ConnectTimeout, fault.Upstream, errors.New("endpoint 10.1.0.12:9080: dial tcp 10.1.0.12:15008: i/o timeout"))
	down.Stream.Attempts = []filters.Attempt{{N: 1, Endpoint: netip.MustParseAddrPort("10.1.0.11:9080"), Fault: f}, {N: 2, Endpoint: netip.MustParseAddrPort("10.1.0.12:9080"), Fault: f}}
	down.Stream.Fault, down.Status, down.Reason, down.Exhausted = f, 503, f.Details(), true
	gone := sample(t, "/slow")
	gone.Status, gone.Stream.Fault, gone.Stream.Attempts = 0, fault.Wrap(fault.ClientGone, fault.Downstream, nil), nil
	broken := &proxy.Outcome{Status: 400, GRPC: -1, Reason: "codec_error", Stream: &filters.Stream{
		Request: new(message.Request), Start: served.Stream.Start, Fault: fault.Wrap(fault.BadRequest, fault.Downstream, nil),
	}}
	return map[string]*proxy.Outcome{
		"served": served, "secrets": secrets, "hostile": hostile, "refused": refused, "down": down, "gone": gone, "broken": broken,
	}
}

// conns are the same for opaque connections.
func conns(t testing.TB) map[string]*proxy.ConnOutcome {
	s := sample(t, "/").Stream
	tcp := &proxy.ConnOutcome{
		Peer: s.Peer, Route: s.Route, Attempts: s.Attempts, Start: s.Start, Duration: 90 * time.Second, Received: 12, Sent: 3456,
	}
	tcp.Attempts[0].Status = 0
	refused := *tcp
	refused.SNI, refused.Attempts = "db.example", nil
	refused.Fault = fault.Wrap(fault.PolicyDenied, fault.Local, nil)
	return map[string]*proxy.ConnOutcome{"tcp": tcp, "tls-refused": &refused}
}

func TestGolden(t *testing.T) {
	entries := map[string]entry{}
	for name, o := range goldens(t) {
		entries[name] = entryOf(o)
	}
	for name, o := range conns(t) {
		entries[name] = entryOfConn(o)
	}
	for name, e := range entries {
		for ext, got := range map[string][]byte{".txt": e.appendText(nil), ".json": e.appendJSON(nil)} {
			file := filepath.Join("testdata", name+ext)
			if *update {
				if err := os.WriteFile(file, got, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
			}
			if ext == ".json" && !json.Valid(got) {
				t.Errorf("%s is no JSON", file)
			}
			if bytes.Contains(got, []byte("hunter2")) {
				t.Errorf("%s tells a secret", file)
			}
		}
	}
}

// FuzzLine: whatever a client sends, a line is one line and valid UTF-8, and its
// JSON says what was sent.
func FuzzLine(f *testing.F) {
	f.Add([]byte("/a?b=c&d"), []byte("agent"))
	f.Add([]byte("/\"\\"), []byte("\xff\x00\u0085"))
	f.Fuzz(func(t *testing.T, path, agent []byte) {
		o := sample(t, "/")
		o.Stream.Request.Path = path
		o.Stream.Request.Header.AddBytes([]byte("user-agent"), agent)
		text, raw := AppendText(nil, o), AppendJSON(nil, o)
		for _, line := range [][]byte{text, raw} {
			if n := bytes.Count(line, []byte("\n")); n != 1 || line[len(line)-1] != '\n' || !utf8.Valid(line) {
				t.Fatalf("%q is not one line", line)
			}
		}
		var got struct {
			Agent *string `json:"user_agent"`
		}
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		sent, _ := o.Stream.Request.Header.Value("user-agent")
		if want := string(sent); utf8.ValidString(want) && !strings.ContainsAny(want, "\u0085\u2028\u2029\ufffd") && want != "" && (got.Agent == nil || *got.Agent != want) {
			t.Fatalf("sent %q, the line says %q", want, raw)
		}
	})
}

func TestWhich(t *testing.T) {
	all := goldens(t)
	all["upstream 500"] = sample(t, "/")
	all["upstream 500"].Status = 500
	all["upstream 404"] = sample(t, "/")
	all["upstream 404"].Status = 404
	all["gRPC unavailable"] = sample(t, "/")
	all["gRPC unavailable"].GRPC = 14
	all["gRPC not found"] = sample(t, "/")
	all["gRPC not found"].GRPC = 5
	fine := map[string]bool{"served": true, "secrets": true, "hostile": true, "upstream 404": true, "gRPC not found": true}
	for name, o := range all {
		for which, want := range map[Which]bool{None: false, Errors: !fine[name], All: true} {
			if got := (&Log{o: Options{Which: which}}).Wants(o); got != want {
				t.Errorf("%s with %d: got %v", name, which, got)
			}
		}
	}
}

func TestWhichConn(t *testing.T) {
	for which, want := range map[Which]uint64{None: 0, Errors: 1, All: 2} {
		l := New(Options{Writer: void{}, Which: which})
		for _, o := range conns(t) {
			l.ObserveConn(o)
		}
		if err := l.Close(t.Context()); err != nil || l.written.Value() != want {
			t.Errorf("%d: %d lines, want %d; %v", which, l.written.Value(), want, err)
		}
	}
}

func TestFlags(t *testing.T) {
	for w, word := range []string{"none", "errors", "all"} {
		if got, err := ParseWhich(word); err != nil || got != Which(w) {
			t.Errorf("%s: %d, %v", word, got, err)
		}
	}
	if _, err := ParseWhich("some"); err == nil || !strings.Contains(err.Error(), "write none, errors or all") {
		t.Errorf("got %v", err)
	}
	if f, err := ParseFormat("json"); err != nil || f != JSON {
		t.Errorf("%d, %v", f, err)
	}
	if _, err := ParseFormat("xml"); err == nil || !strings.Contains(err.Error(), "write text or json") {
		t.Errorf("got %v", err)
	}
}

// A gate is a writer that takes nothing until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
	err  error
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	return g.got.Write(p)
}

// TestWriterThatHangs: requests go on, lines are dropped and counted, and what
// had room is written when the writer takes it.
func TestWriterThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		r := new(metrics.Registry)
		l := New(Options{Writer: g, Which: All, Metrics: r})
		o := sample(t, "/")
		size := len(AppendText(nil, o))
		fit := MaxPending / size
		l.Observe(o)
		synctest.Wait() // the writer has the first line, and hangs
		for range fit + 5 {
			l.Observe(o)
		}
		if got := l.dropped.Value(); got != 5 {
			t.Errorf("%d dropped, want 5", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closed: %v", err)
		}
		l.Observe(o)
		close(g.open)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := bytes.Count(g.got.Bytes(), []byte("\n")); got != fit+1 || l.written.Value() != uint64(fit+1) || l.dropped.Value() != 6 {
			t.Errorf("%d lines, %d counted, %d dropped; want %d", got, l.written.Value(), l.dropped.Value(), fit+1)
		}
	})
}

func TestWriterThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{}), err: errors.New("no space left")}
		close(g.open)
		var told []error
		l := New(Options{Writer: g, Which: All, OnError: func(err error) { told = append(told, err) }})
		for range 3 {
			l.Observe(sample(t, "/"))
			synctest.Wait()
		}
		g.mu.Lock()
		g.err = nil
		g.mu.Unlock()
		l.Observe(sample(t, "/"))
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if len(told) != 1 || !strings.Contains(told[0].Error(), "no space left") || l.failed.Value() != 3 || l.dropped.Value() != 3 || l.written.Value() != 1 {
			t.Errorf("told %v, %d failed, %d dropped, %d written", told, l.failed.Value(), l.dropped.Value(), l.written.Value())
		}
	})
}

func TestManyWriteAtOnce(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	l := New(Options{Writer: g, Which: All, Format: JSON})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			o := sample(t, "/")
			for range 250 { // all of them have room, should the writer be late
				l.Observe(o)
			}
		})
	}
	wg.Wait()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(g.got.Bytes(), []byte("\n")), []byte("\n"))
	if len(lines) != 1000 {
		t.Errorf("%d lines, want 1000", len(lines))
	}
	for _, one := range lines {
		if !json.Valid(one) {
			t.Fatalf("%q is no line", one)
		}
	}
}

type void struct{}

func (void) Write(p []byte) (int, error) { return len(p), nil }

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool forgets on purpose")
	}
	for _, f := range []Format{Text, JSON} {
		l := New(Options{Writer: void{}, Which: All, Format: f})
		o := sample(t, "/api?a=b", "user-agent", "curl")
		// The pending buffer grows now and then; lines themselves cost nothing.
		if got := testing.AllocsPerRun(1000, func() { l.Observe(o) }); got >= 1 {
			t.Errorf("format %d: %v allocations a line", f, got)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	for name, o := range map[string]Options{"errors": {Which: Errors}, "text": {Which: All}, "json": {Which: All, Format: JSON}} {
		b.Run(name, func(b *testing.B) {
			o.Writer = void{}
			l := New(o)
			defer l.Close(b.Context())
			s := sample(b, "/api/v1/items?expand=owner", "user-agent", "curl/8.5.0", "x-request-id", "6f1c7f0a-53b8-4d61-9a7e-1f2b3c4d5e6f")
			b.ReportAllocs()
			for b.Loop() {
				l.Observe(s)
			}
		})
	}
}
