package traffic

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// measure loads addr for a moment.
func measure(t *testing.T, addr string, groups ...Group) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	run, err := Start(ctx, &Plan{Addr: addr, Via: ViaPlain, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	res, err := run.Measure(ctx, Measure{Warm: 10 * time.Millisecond, For: 100 * time.Millisecond, Stay: true})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestHonestServer(t *testing.T) {
	l := listen(t)
	go Serve(l)
	for _, g := range []Group{
		{Name: "small", Streams: 4, Answer: 1024},
		{Name: "nothing", Streams: 1, Answer: 0},
		{Name: "long", Streams: 1, Answer: 300_000},
		{Name: "upload", Streams: 2, Answer: 10, Upload: 100_000},
	} {
		t.Run(g.Name, func(t *testing.T) {
			res := measure(t, l.Addr().String(), g)
			if err := res.Err(); err != nil {
				t.Fatal(err)
			}
			got := res.Groups[0]
			if got.Requests < 1 || got.Stalled != 0 || g.Answer > 0 && got.P50 == 0 && got.Max == 0 {
				t.Errorf("got %+v, want requests and no stalls", got)
			}
			if low, high := (got.Requests-1)*g.Answer, (got.Requests+int64(g.Streams))*g.Answer; got.Bytes < low-int64(g.Streams)*g.Answer || got.Bytes > high {
				t.Errorf("%d requests brought %d bytes, want about %d", got.Requests, got.Bytes, got.Requests*g.Answer)
			}
		})
	}
}

func TestRunsRestAndResume(t *testing.T) {
	l := listen(t)
	go Serve(l)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	run, err := Start(ctx, &Plan{Addr: l.Addr().String(), Via: ViaPlain, Groups: []Group{{Name: "small", Streams: 8, Answer: 1024}}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	for range 5 {
		res, err := run.Measure(ctx, Measure{Warm: time.Millisecond, For: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Err(); err != nil {
			t.Fatal(err)
		}
		before := res.Total
		if res, err = run.Measure(ctx, Measure{Each: true}); err != nil {
			t.Fatal(err)
		}
		if got := res.Total - before; got != 8 {
			t.Errorf("each of 8 streams asked once: %d answers", got)
		}
		rested := run.counts()
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if got := run.counts(); fmt.Sprint(got) != fmt.Sprint(rested) {
			t.Fatalf("streams went on while the run rested: %v, then %v", rested, got)
		}
	}
}

// certs issues files for one identity.
// TestWhole: every request that is begun is counted, and none else; a server so
// slow that a measurement ends before its first answer is accounted all the same.
func TestWhole(t *testing.T) {
	l := listen(t)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				var q question
				for buf := make([]byte, 4096); ; {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					_, r, err := q.feed(buf[:n])
					if err != nil || r == nil {
						return
					}
					<-time.After(60 * time.Millisecond)
					if r.writeTo(nc) != nil {
						return
					}
				}
			}()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	run, err := Start(ctx, &Plan{Addr: l.Addr().String(), Via: ViaPlain, Groups: []Group{{Name: "slow", Streams: 3, Answer: 100}}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	// The control: what is counted in the middle misses all of them.
	res, err := run.Measure(ctx, Measure{For: 20 * time.Millisecond})
	if err != nil || res.Requests() != 0 || res.Total != 3 {
		t.Fatalf("in the middle: got %d of %d requests, %v; want none of 3", res.Requests(), res.Total, err)
	}
	for n := range int64(2) {
		res, err := run.Measure(ctx, Measure{For: 20 * time.Millisecond, Whole: true})
		if err != nil || res.Err() != nil {
			t.Fatal(err, res.Err())
		}
		if res.Requests() != 3 || res.Total != 6+3*n || res.Elapsed < 60*time.Millisecond {
			t.Errorf("got %d of %d requests in %v, want the 3 that were begun", res.Requests(), res.Total, res.Elapsed)
		}
	}
	for _, m := range []Measure{{For: 1, Whole: true, Stay: true}, {For: 1, Whole: true, Warm: 1}} {
		if _, err := run.Measure(ctx, m); err == nil {
			t.Errorf("%+v was measured", m)
		}
	}
}

func certs(t *testing.T) Certs {
	t.Helper()
	ca, err := devca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/curl"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := Certs{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "roots.pem")}
	for file, b := range map[string][]byte{c.Cert: leaf.Chain, c.Key: leaf.Key, c.Roots: ca.PEM()} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestTunnels(t *testing.T) {
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go ServeTunnels(t.Context(), l, server)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, tc := range []struct {
		name   string
		conns  int
		groups []Group
	}{
		{"one connection", 1, []Group{{Name: "small", Streams: 8, Answer: 1024}}},
		{"more connections", 3, []Group{{Name: "small", Streams: 8, Answer: 1024}}},
		{"beyond the first 100", 1, []Group{{Name: "small", Streams: 300, Answer: 100}}},
		{"bulk beside small", 1, []Group{{Name: "small", Streams: 8, Answer: 1024}, {Name: "bulk", Streams: 1, Answer: 5 << 20}}},
		{"uploads", 2, []Group{{Name: "up", Streams: 4, Answer: 10, Upload: 300_000}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run, err := Start(ctx, &Plan{Addr: l.Addr().String(), Via: ViaHBONE, Conns: tc.conns, To: "10.96.0.10:80", Certs: c, Groups: tc.groups})
			if err != nil {
				t.Fatal(err)
			}
			defer run.Close()
			requests := int64(0)
			for range 3 {
				res, err := run.Measure(ctx, Measure{Warm: 5 * time.Millisecond, For: 50 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				if err := res.Err(); err != nil {
					t.Fatal(err)
				}
				requests += res.Requests()
				before := res.Total
				if res, err = run.Measure(ctx, Measure{Each: true}); err != nil {
					t.Fatal(err)
				}
				streams := 0
				for _, g := range tc.groups {
					streams += g.Streams
				}
				if got := res.Total - before; got != int64(streams) {
					t.Errorf("each of %d streams asked once: %d answers", streams, got)
				}
			}
			if requests == 0 {
				t.Error("no request was answered")
			}
		})
	}
}

// A slow reader gets what its rate allows and what fits into its window.
func TestSlowReader(t *testing.T) {
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go ServeTunnels(t.Context(), l, server)
	run, err := Start(t.Context(), &Plan{Addr: l.Addr().String(), Via: ViaHBONE, To: "10.96.0.10:80", Certs: c,
		Groups: []Group{{Name: "slow", Streams: 1, Answer: 1 << 30, Rate: 1 << 20}, {Name: "small", Streams: 1, Answer: 10}}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	res, err := run.Measure(t.Context(), Measure{Warm: 300 * time.Millisecond, For: 700 * time.Millisecond, Stay: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Err(); err != nil {
		t.Fatal(err)
	}
	got := res.Groups[0].Bytes
	if got < 256<<10 || got > 1<<20 {
		t.Errorf("a reader of 1 MiB/s got %d bytes in 0.7 s", got)
	}
}

// A tunnel that refuses, resets or ends is an error, as is an unknown root.
func TestTunnelFails(t *testing.T) {
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go ServeTunnels(t.Context(), l, server)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	plan := &Plan{Addr: l.Addr().String(), Via: ViaHBONE, To: "10.96.0.10:80", Certs: certs(t), Groups: []Group{{Streams: 1}}}
	if _, err := Start(ctx, plan); err == nil || !strings.Contains(err.Error(), "TLS with the proxy") {
		t.Errorf("other root: got %v", err)
	}
	plan.Certs.Key = "nowhere"
	if _, err := Start(ctx, plan); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("no key: got %v", err)
	}
}

// liar answers each request as the honest server would and lets tell change it.
func liar(t *testing.T, tell func(n int, honest string) string) string {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go lie(c, tell)
		}
	}()
	return l.Addr().String()
}

func lie(c net.Conn, tell func(int, string) string) {
	defer c.Close()
	var q question
	b := make([]byte, 16<<10)
	for count := 1; ; {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		_, r, err := q.feed(b[:n])
		if err != nil {
			return
		}
		if r == nil {
			continue
		}
		answer := tell(count, string(r.bytes))
		count++
		if answer == "" {
			return
		}
		io.WriteString(c, answer)
	}
}

// Whatever a server does wrong is an error and never counts as an answer. The
// first row is the control: the same server that tells the truth.
func TestLyingServer(t *testing.T) {
	replace := func(old, new string) func(int, string) string {
		return func(_ int, s string) string { return strings.Replace(s, old, new, 1) }
	}
	for _, tc := range []struct {
		name string
		tell func(n int, honest string) string
		want string // in the reason; "" for none
	}{
		{"honest", func(_ int, s string) string { return s }, ""},
		{"status", replace("200 OK", "503 Service Unavailable"), `answer is "HTTP/1.1 503`},
		{"another's answer", replace("x-echo: 0", "x-echo: 1"), "came for"},
		{"no number", replace("x-echo", "x-lost"), "came for"},
		{"shorter", replace("content-length: 1024", "content-length: 1023"), "has 1023 bytes"},
		{"no length", replace("content-length: 1024\r\n", ""), "content-length"},
		{"length is no number", replace("content-length: 1024", "content-length: 1e3"), "is no number"},
		{"a byte changed", func(_ int, s string) string { return s[:len(s)-1] + "\xff" }, "body differs"},
		{"bytes moved", func(_ int, s string) string { return s[:len(s)-20] + s[len(s)-10:] + s[len(s)-20:len(s)-10] }, "body differs"},
		{"a byte more", func(_ int, s string) string { return s + "x" }, "nobody asked"},
		{"an answer more", func(_ int, s string) string { return s + s }, "nobody asked"},
		{"stops", func(_ int, s string) string { return s[:len(s)-1] }, "got nothing"},
		{"says nothing", func(_ int, s string) string { return "\r\n" }, "got nothing"},
		{"closes", func(_ int, s string) string { return "" }, "closed under request 1"},
		{"closes later", func(n int, s string) string {
			if n > 3 {
				return ""
			}
			return s
		}, "closed under request 4"},
		{"endless head", func(_ int, s string) string { return strings.Repeat("a: b\r\n", 3000) }, "longer than"},
		{"no HTTP", func(_ int, s string) string { return "SSH-2.0-x\r\n\r\n" }, `answer is "SSH`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := measure(t, liar(t, tc.tell), Group{Name: "small", Streams: 2, Answer: 1024})
			err := res.Err()
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("honest server: %v", err)
			case tc.want != "" && err == nil:
				t.Errorf("counted %d answers and no error", res.Requests())
			case tc.want != "" && !strings.Contains(err.Error(), tc.want):
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNothingListens(t *testing.T) {
	l := listen(t)
	l.Close()
	_, err := Start(context.Background(), &Plan{Addr: l.Addr().String(), Via: ViaPlain, Groups: []Group{{Streams: 1}}})
	if err == nil {
		t.Error("connecting to nobody gave no error")
	}
	if _, err := Start(context.Background(), &Plan{Via: "pigeon"}); err == nil {
		t.Error("an unknown way gave no error")
	}
	if err := (&Result{Errors: 1, Groups: []GroupResult{{Requests: 1000}}}).Err(); err == nil {
		t.Error("a result with errors gave none")
	}
}

// A server that answers nonsense to the answering end's question is closed on.
func TestServeRefusesNonsense(t *testing.T) {
	l := listen(t)
	go Serve(l)
	for _, tc := range []struct {
		name, text string
		answered   bool
	}{
		{"control", "GET /?bytes=1 HTTP/1.1\r\nx-echo: 0123456789abcdef\r\n\r\n", true},
		{"no size", "GET / HTTP/1.1\r\nx-echo: 0123456789abcdef\r\n\r\n", false},
		{"no number", "GET /?bytes=1 HTTP/1.1\r\nx-other: 0123456789abcdef\r\n\r\n", false},
		{"bad size", "GET /?bytes=1x HTTP/1.1\r\nx-echo: 0123456789abcdef\r\n\r\n", false},
	} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, tc.text)
		n, err := c.Read(make([]byte, 1))
		if (n > 0) != tc.answered {
			t.Errorf("%s: got %d bytes, %v; want an answer: %v", tc.name, n, err, tc.answered)
		}
		c.Close()
	}
}

func TestRequestSize(t *testing.T) {
	r := newRequest(1024, 0)
	if n := strings.Count(string(r.bytes), "\r\n") - 2; n != 7 {
		t.Errorf("request has %d fields, want 7", n)
	}
	if n := len(r.bytes); n < 220 || n > 320 {
		t.Errorf("request has %d bytes, want about 250", n)
	}
	if n := strings.Count(string(newResponse(1024).bytes[:200]), "\r\n") - 2; n != 4 {
		t.Errorf("response has %d fields, want 4", n)
	}
}

func TestHistogram(t *testing.T) {
	h := newHistogram()
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * 100 * time.Microsecond)
	}
	for _, tc := range []struct {
		q    float64
		want time.Duration
	}{{0, 100 * time.Microsecond}, {.5, 50 * time.Millisecond}, {.99, 99 * time.Millisecond}, {1, 100 * time.Millisecond}} {
		got := h.quantile(tc.q)
		if off := float64(got-tc.want) / float64(tc.want); off < -.001 || off > .001 {
			t.Errorf("quantile %v: got %v, want %v", tc.q, got, tc.want)
		}
	}
	h.reset()
	if got := h.quantile(.5); got != 0 {
		t.Errorf("quantile of nothing: got %v", got)
	}
	h.add(1 << 62) // longer than the longest
	h.add(-1)
	if got := h.quantile(1); got < time.Hour {
		t.Errorf("longest: got %v", got)
	}
}

func TestHeadInPieces(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\na: 1\r\nContent-Length:  12 \r\n\r\nbody"
	for cut := range whole {
		var h headReader
		head, n, err := h.take([]byte(whole[:cut]))
		at := n
		if head == nil && err == nil {
			head, n, err = h.take([]byte(whole[cut:]))
			at = cut + n
		}
		if err != nil || whole[at:] != "body" {
			t.Fatalf("cut at %d: stopped before %q, %v", cut, whole[at:], err)
		}
		if got := string(field(head, "content-length")); got != "12" {
			t.Fatalf("cut at %d: content-length %q", cut, got)
		}
	}
}
