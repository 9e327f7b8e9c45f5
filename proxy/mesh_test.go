package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/filters/headers"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// patience bounds every wait of these tests; none of them should take a second.
const patience = 20 * time.Second

const head = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: shop}
`

// plainDoc has one service with one endpoint, with whatever retries the rule says.
func plainDoc(rule string) string {
	return head + `
services:
- {name: a, addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: a-1}]}
workloads:
- {name: a-1, address: 10.1.0.1, serviceAccount: a}
httpRoutes:
- name: a
  parentRefs: [{group: "", kind: Service, name: a, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: a, port: 80}]
    ` + rule + "\n"
}

const once = "retry: {attempts: 0}"

func decode(t testing.TB, text string) *config.Config {
	t.Helper()
	c, problems := config.Decode(config.File{Name: "test.yaml", Data: []byte(text)})
	if c == nil {
		t.Fatalf("no document: %v", problems)
	}
	return c
}

// A mesh is a devmesh under test, and what its waypoints told.
type mesh struct {
	*devmesh.Mesh
	t testing.TB

	mu     sync.Mutex
	seen   []told
	panics []error
}

// told is a copy of an outcome.
type told struct {
	mode     devmesh.Mode
	status   int
	kind     fault.Kind // Kinds: none
	attempts int
}

// start runs a document in both modes unless o says otherwise.
func start(t testing.TB, text string, o devmesh.Options) *mesh {
	t.Helper()
	m := &mesh{t: t}
	o.Config = decode(t, text)
	if len(o.Registry.Names()) == 0 {
		o.Registry = filters.NewRegistry(headers.RequestKind(), headers.ResponseKind(), filtertest.Echo(), filtertest.Waiter(nil), filtertest.Deny(), filtertest.Panic())
	}
	o.Observe = m.observe
	more := o.Tune
	o.Tune = func(mode devmesh.Mode, po *proxy.Options) {
		po.OnPanic = m.onPanic
		if more != nil {
			more(mode, po)
		}
	}
	var err error
	if m.Mesh, err = devmesh.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func (m *mesh) observe(mode devmesh.Mode, o *proxy.Outcome) {
	x := told{mode: mode, status: o.Status, kind: fault.Kinds, attempts: len(o.Stream.Attempts)}
	if o.Stream.Fault != nil {
		x.kind = o.Stream.Fault.Kind
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = append(m.seen, x)
}

func (m *mesh) onPanic(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.panics = append(m.panics, err)
}

// outcome waits for one outcome and forgets it.
func (m *mesh) outcome() (o told) {
	m.t.Helper()
	eventually(m.t, "an outcome", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.seen) == 0 {
			return false
		}
		o, m.seen = m.seen[0], m.seen[1:]
		return true
	})
	return o
}

// eventually waits until it holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// inModes runs a test in each mode of a mesh.
func (m *mesh) inModes(t *testing.T, f func(t *testing.T, mode devmesh.Mode)) {
	for _, mode := range m.Modes {
		t.Run(string(mode), func(t *testing.T) { f(t, mode) })
	}
}

// url is where a service can be asked for.
func (m *mesh) url(service string, mode devmesh.Mode) string {
	m.t.Helper()
	e, ok := m.Find(service, mode)
	if !ok {
		m.t.Fatalf("no entry for %s", service)
	}
	return e.URL
}

// addr is the same without the scheme.
func (m *mesh) addr(service string, mode devmesh.Mode) string {
	_, addr, _ := strings.Cut(m.url(service, mode), "://")
	return addr
}

// dial connects to a service.
func (m *mesh) dial(service string, mode devmesh.Mode) *net.TCPConn {
	m.t.Helper()
	nc, err := net.Dial("tcp", m.addr(service, mode))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn)
}

// reset closes a connection with RST.
func reset(nc net.Conn) {
	nc.(*net.TCPConn).SetLinger(0)
	nc.Close()
}

// A rawApp is an application that speaks in bytes.
type rawApp struct{ net.Listener }

// newApp serves every connection with f, and closes it then.
func newApp(t testing.TB, f func(nc *net.TCPConn, r *bufio.Reader)) *rawApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &rawApp{Listener: l}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.SetDeadline(time.Now().Add(6 * patience))
			all.Go(func() {
				defer nc.Close()
				f(nc.(*net.TCPConn), bufio.NewReader(nc))
			})
		}
	})
	return a
}

func (a *rawApp) everywhere(string) string { return a.Addr().String() }

// take reads one request, body included.
func take(r *bufio.Reader) (*http.Request, []byte) {
	q, err := http.ReadRequest(r)
	if err != nil {
		return nil, nil
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, nil
	}
	return q, body
}

// TestFilters: one filter of each phase, on a whole path.
func TestFilters(t *testing.T) {
	for name, guard := range map[string]func(b *filters.Builder) error{
		"body echo":    adds("test-echo", filtertest.EchoSettings{Request: "upper"}),
		"waits":        adds("test-wait", filtertest.WaiterSettings{Phase: "request", Delay: 5 * time.Millisecond}),
		"waits, waker": adds("test-wait", filtertest.WaiterSettings{Phase: "request body", Delay: 5 * time.Millisecond, Waker: true}),
		"waits late":   adds("test-wait", filtertest.WaiterSettings{Phase: "response body", Delay: 5 * time.Millisecond}),
	} {
		t.Run(name, func(t *testing.T) {
			m := start(t, plainDoc(once), devmesh.Options{Guard: func(b *filters.Builder, _ string) error { return guard(b) }})
			m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
				for range 3 {
					r, err := http.Post(m.url("a", mode)+"/body", "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(r.Body)
					r.Body.Close()
					want := "hello"
					if name == "body echo" {
						want = "HELLO"
					}
					if err != nil || string(got) != want {
						t.Errorf("got %q, %v, want %q", got, err, want)
					}
				}
			})
		})
	}
}

func adds(kind string, settings any) func(b *filters.Builder) error {
	return func(b *filters.Builder) error { return b.Add(kind, "test", filters.NewSpec(settings)) }
}

// TestConnFilter: a client that a ConnFilter denies gets no connection; another
// identity, on the same service, does.
func TestConnFilter(t *testing.T) {
	other := "spiffe://cluster.local/ns/demo/sa/other"
	m := start(t, plainDoc(once), devmesh.Options{
		Clients: []string{devmesh.DefaultClient, other},
		Guard: func(b *filters.Builder, _ string) error {
			return adds("test-deny", filtertest.DenySettings{IDs: []string{other}})(b)
		},
	})
	for _, e := range m.Entries() {
		r, err := http.Get(e.URL)
		if err == nil {
			r.Body.Close()
		}
		if denied := err != nil; denied != (e.Identity == other) {
			t.Errorf("%s in %s: %v", e.Identity, e.Mode, err)
		}
	}
	for _, mode := range m.Modes {
		if n := m.Waypoint(mode).Stats().Faults[fault.PolicyDenied].Load(); n == 0 {
			t.Errorf("%s: no denial counted", mode)
		}
	}
}

// TestPanicOnAPath: the process lives, and the next request does too.
func TestPanicOnAPath(t *testing.T) {
	m := start(t, plainDoc(once), devmesh.Options{Guard: func(b *filters.Builder, service string) error { return adds("test-panic", nil)(b) }})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		for i := range 3 {
			nc := m.dial("a", mode)
			fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if got, err := io.ReadAll(nc); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %q, %v, want a reset", got, err)
			}
			if o := m.outcome(); o.kind != fault.Internal {
				t.Errorf("got %v", o)
			}
			if n := m.Waypoint(mode).Stats().Panics.Load(); n != int64(i+1) {
				t.Errorf("%d panics counted, want %d", n, i+1)
			}
		}
	})
}

// TestFaultsOnAPath: faults that need a real network, or both ends of TLS.
func TestFaultsOnAPath(t *testing.T) {
	part := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
	for _, row := range []struct {
		name   string
		app    func(nc *net.TCPConn, r *bufio.Reader)
		dial   error
		doc    string // applied after the start
		status int    // 0: reset in the middle of a response
		kinds  map[devmesh.Mode]fault.Kind
	}{
		{name: "reset before the response", app: func(nc *net.TCPConn, r *bufio.Reader) { take(r); reset(nc) }, status: 503, kinds: both(fault.UpstreamReset)},
		{name: "closed before the response", app: func(nc *net.TCPConn, r *bufio.Reader) { take(r) }, status: 503, kinds: both(fault.UpstreamClosed)},
		{name: "reset in the response", app: func(nc *net.TCPConn, r *bufio.Reader) { take(r); io.WriteString(nc, part); wait(); reset(nc) }, kinds: both(fault.UpstreamResetMidResponse)},
		{name: "closed in the response", app: func(nc *net.TCPConn, r *bufio.Reader) { take(r); io.WriteString(nc, part) }, kinds: both(fault.UpstreamClosedMidResponse)},
		{name: "no HTTP", app: func(nc *net.TCPConn, r *bufio.Reader) { take(r); io.WriteString(nc, "220 smtp\r\n\r\n"); take(r) }, status: 502, kinds: both(fault.UpstreamProtocol)},
		{name: "no connection", dial: syscall.ECONNREFUSED, status: 503, kinds: both(fault.ConnectFailed)},
		{name: "connection timeout", dial: context.DeadlineExceeded, status: 503, kinds: both(fault.ConnectTimeout)},
		// A node tunnel that holds another identity. Sandwiched, the waypoint's own
		// node tunnel meets it, and closes what it had captured.
		{name: "another identity", doc: strings.Replace(plainDoc(once), "serviceAccount: a", "serviceAccount: b", 1), status: 503,
			kinds: map[devmesh.Mode]fault.Kind{devmesh.HBONE: fault.IdentityMismatch}},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := devmesh.Options{}
			if row.app != nil {
				o.App = newApp(t, row.app).everywhere
			}
			if row.dial != nil {
				o.Tune = func(_ devmesh.Mode, po *proxy.Options) {
					po.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, row.dial }
				}
			}
			m := start(t, plainDoc(once), o)
			if row.doc != "" {
				if _, err := m.Apply(decode(t, row.doc)); err != nil {
					t.Fatal(err)
				}
			}
			m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
				kind, ours := row.kinds[mode]
				if !ours { // a node tunnel's to answer, not the waypoint's
					return
				}
				nc := m.dial("a", mode)
				fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				r, err := http.ReadResponse(bufio.NewReader(nc), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(r.Body)
				if row.status == 0 {
					if r.StatusCode != 200 || err == nil {
						t.Errorf("got %d, %q, %v, want a response cut short", r.StatusCode, body, err)
					}
				} else if r.StatusCode != row.status || err != nil || string(body) != kind.Row().Text+"\n" {
					t.Errorf("got %d, %q, %v, want %d", r.StatusCode, body, err, row.status)
				}
				if o := m.outcome(); o.kind != kind || o.mode != mode {
					t.Errorf("got %+v, want %s", o, kind.Row().Details)
				}
				if n := m.Waypoint(mode).Stats().Faults[kind].Load(); n != 1 {
					t.Errorf("%d counted", n)
				}
			})
		})
	}
}

func both(k fault.Kind) map[devmesh.Mode]fault.Kind {
	return map[devmesh.Mode]fault.Kind{devmesh.HBONE: k, devmesh.Sandwich: k}
}

// wait gives what was written time to get through four tunnels before a reset
// overtakes it.
func wait() { <-time.After(50 * time.Millisecond) }

// TestConnectRefused: the node tunnel stands and its application does not.
func TestConnectRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody answers there now
	m := start(t, plainDoc(once), devmesh.Options{App: func(string) string { return l.Addr().String() }})
	r, err := http.Get(m.url("a", devmesh.HBONE))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if o := m.outcome(); r.StatusCode != 503 || o.kind != fault.ConnectRefused {
		t.Errorf("got %d, %+v", r.StatusCode, o)
	}
}

// TestClientGoneOnAPath: a client that resets its connection; its application
// sees a reset, whatever the exchange was doing.
func TestClientGoneOnAPath(t *testing.T) {
	for _, row := range []struct{ name, text, answer string }{
		{"in the request", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", ""},
		{"before the response", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"in the response", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, gone := make(chan struct{}, 8), make(chan error, 8)
			a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				io.WriteString(nc, row.answer)
				got <- struct{}{}
				_, err := io.Copy(io.Discard, r)
				gone <- err
			})
			m := start(t, plainDoc(once), devmesh.Options{App: a.everywhere})
			m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
				nc := m.dial("a", mode)
				io.WriteString(nc, row.text)
				<-got
				if row.answer != "" {
					io.ReadFull(nc, make([]byte, len(row.answer)))
				}
				reset(nc)
				if err := <-gone; !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the application read %v, want a reset", err)
				}
				if o := m.outcome(); o.kind != fault.ClientGone {
					t.Errorf("got %+v", o)
				}
			})
		})
	}
}

// TestHalfCloseOnAPath: a client's FIN goes no further than its request.
func TestHalfCloseOnAPath(t *testing.T) {
	gate := make(chan struct{}, 2)
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		for {
			if q, _ := take(r); q == nil {
				return
			}
			<-gate
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
		}
	})
	m := start(t, plainDoc(once), devmesh.Options{App: a.everywhere})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		nc := m.dial("a", mode)
		fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		nc.CloseWrite()
		wait()
		gate <- struct{}{}
		got, err := io.ReadAll(nc)
		if err != nil || !strings.HasSuffix(string(got), "\r\n\r\nlate") {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestApplyUnderLoad: documents change all the time and no request is lost.
func TestApplyUnderLoad(t *testing.T) {
	m := start(t, plainDoc(once), devmesh.Options{})
	docs := []*config.Config{
		decode(t, plainDoc("retry: {attempts: 1}")),
		decode(t, strings.Replace(plainDoc(once), "endpoints: [{workload: a-1}]", "endpoints: [{workload: a-1}, {workload: a-2}]", 1)+"\n"),
		decode(t, plainDoc(once)),
	}
	docs[1].Workloads = append(docs[1].Workloads, decode(t, strings.Replace(strings.ReplaceAll(plainDoc(once), "a-1", "a-2"), "10.1.0.1", "10.1.0.2", 1)).Workloads...)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var done atomic.Int64
	for _, mode := range m.Modes {
		for range 4 {
			clients.Go(func() {
				c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
				defer c.CloseIdleConnections()
				for {
					select {
					case <-stop:
						return
					default:
					}
					r, err := c.Post(m.url("a", mode)+"/body", "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Errorf("%s: %v", mode, err)
						return
					}
					body, err := io.ReadAll(r.Body)
					r.Body.Close()
					if err != nil || r.StatusCode != 200 || string(body) != "hello" {
						t.Errorf("%s: %d %q, %v", mode, r.StatusCode, body, err)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	for i := range 50 {
		if _, err := m.Apply(docs[i%len(docs)]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "requests to go on", func() bool { return done.Load() > int64(5*i) || t.Failed() })
	}
	close(stop)
	clients.Wait()
	t.Logf("%d requests under 50 documents", done.Load())
}

// TestLongTransfers: 64 MiB up and 64 MiB down, with a slow reader at either end.
// Nothing stalls, no more waits in the waypoint than its windows allow, and the
// connection goes on for many requests more.
func TestLongTransfers(t *testing.T) {
	size, more := int64(64<<20), 200
	if buf.Check { // every buffer is written twice then
		size, more = 5<<20, 10
	}
	slow := func(r io.Reader) io.Reader { return &slowReader{r: r} }
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			switch q.URL.Path {
			case "/up":
				sum := sha256.New()
				n, _ := io.Copy(sum, slow(q.Body))
				text := fmt.Sprintf("%d %x", n, sum.Sum(nil))
				fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			case "/down":
				io.Copy(io.Discard, q.Body)
				fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
				io.Copy(nc, io.LimitReader(pattern{}, size))
			default:
				body, _ := io.ReadAll(q.Body)
				fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
		}
	})
	m := start(t, plainDoc(once), devmesh.Options{App: a.everywhere})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		nc := m.dial("a", mode)
		nc.SetDeadline(time.Now().Add(6 * patience))
		br := bufio.NewReader(nc)
		ask := func(path string, n int64) *http.Response {
			go func() {
				fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", path, n)
				io.Copy(nc, io.LimitReader(pattern{}, n))
			}()
			r, err := http.ReadResponse(br, nil)
			if err != nil || r.StatusCode != 200 {
				t.Fatalf("%s: %v, %v", path, r, err)
			}
			return r
		}
		sum := sha256.New()
		io.Copy(sum, io.LimitReader(pattern{}, size))
		want := fmt.Sprintf("%d %x", size, sum.Sum(nil))
		got, err := io.ReadAll(ask("/up", size).Body)
		if err != nil || string(got) != want {
			t.Fatalf("up: %q, %v, want %q", got, err, want)
		}
		sum.Reset()
		n, err := io.Copy(sum, slow(ask("/down", 1).Body))
		if have := fmt.Sprintf("%d %x", n, sum.Sum(nil)); err != nil || have != want {
			t.Fatalf("down: %q, %v, want %q", have, err, want)
		}
		for i := range more { // 100 KiB each
			body, err := io.ReadAll(ask("/echo", 100<<10).Body)
			if err != nil || len(body) != 100<<10 {
				t.Fatalf("request %d: %d bytes, %v", i, len(body), err)
			}
		}
	})
}

// A slowReader pauses now and then, so that what lies before it fills up.
type slowReader struct {
	r io.Reader
	n int
}

func (s *slowReader) Read(p []byte) (int, error) {
	if s.n++; s.n%512 == 0 {
		<-time.After(time.Millisecond)
	}
	return s.r.Read(p[:min(len(p), 16<<10)])
}

// pattern is endless bytes of a recognisable order.
type pattern struct{}

var block = bytes.Repeat([]byte("sandwich"), 4<<10)

func (pattern) Read(p []byte) (int, error) { return copy(p, block), nil }
