package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/headers"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/testnet"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// TestMain fails if buffers or goroutines are left when all tests are over.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		code = leaks()
	}
	os.Exit(code)
}

func leaks() int {
	deadline := time.Now().Add(5 * time.Second)
	for buf.Outstanding() != 0 || runtime.NumGoroutine() > 2 {
		if time.Now().After(deadline) {
			all := make([]byte, 1<<20)
			fmt.Printf("%d buffers not returned, %d goroutines:\n%s\n", buf.Outstanding(), runtime.NumGoroutine(), all[:runtime.Stack(all, true)])
			return 1
		}
		runtime.Gosched()
	}
	return 0
}

// shop is the document of most tests: one service with two endpoints.
const shop = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: shop}
services:
- {name: a, addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: a-1}, {workload: a-2}]}
- {name: none, addresses: [10.96.0.2], ports: [{port: 80, appProtocol: http}]}
- {name: one, addresses: [10.96.0.3], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: a-1}]}
workloads:
- {name: a-1, address: 10.1.0.1, serviceAccount: a}
- {name: a-2, address: 10.1.0.2, serviceAccount: a}
`

// Addresses of the shop.
const (
	serviceA    = "10.96.0.1:80"
	serviceNone = "10.96.0.2:80"
	serviceOne  = "10.96.0.3:80"
	podA1       = "10.1.0.1:9080"
	podA2       = "10.1.0.2:9080"
)

// A rig is a proxy in fake time. Its clients are tunnels and its applications
// connections, both in memory.
type rig struct {
	t *testing.T
	p *Proxy

	mu      sync.Mutex
	app     func(c *app)            // what every application does
	dial    func(addr string) error // why a dial fails; ErrDeadlineExceeded: after a while
	seen    []outcome
	conns   []ConnOutcome
	panics  []error
	apps    []*testnet.Conn
	tunnels []*client
}

// An outcome is a copy of an Outcome.
type outcome struct {
	status   int
	kind     fault.Kind // Kinds: none
	reason   string
	received int64
	sent     int64
	attempts []filters.Attempt
	times    filters.Times
	took     time.Duration
	verdict  sniff.Verdict
}

func (o outcome) String() string {
	kind := "no fault"
	if o.kind < fault.Kinds {
		kind = o.kind.Row().Details
	}
	return fmt.Sprintf("status %d, %s, reason %q, %d bytes, %d attempts", o.status, kind, o.reason, o.sent, len(o.attempts))
}

// rigOptions are what tests change.
type rigOptions struct {
	doc      string
	registry []filters.Kind // besides the header filters, or in their place
	guard    func(b *filters.Builder, service string) error
	more     func(*Options)
}

// inFakeTime runs a test with a rig in a bubble. app answers as every endpoint.
func inFakeTime(t *testing.T, o rigOptions, app func(*app), test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, app: app}
		po := Options{Sandwiched: true, Guard: o.guard, Dial: r.connect, Observe: r.observe, ObserveConn: r.observeConn, OnPanic: r.onPanic}
		kinds := o.registry
		has := func(name string) bool {
			for _, k := range kinds {
				if k.Name == name {
					return true
				}
			}
			return false
		}
		for _, k := range []filters.Kind{headers.RequestKind(), headers.ResponseKind()} {
			if !has(k.Name) {
				kinds = append(kinds, k)
			}
		}
		po.Registry = filters.NewRegistry(kinds...)
		if o.more != nil {
			o.more(&po)
		}
		r.p = New(po)
		if o.doc == "" {
			o.doc = shop
		}
		defer r.close()
		r.apply(o.doc)
		test(r)
	})
}

func (r *rig) apply(doc string) []config.Problem {
	r.t.Helper()
	c, problems := config.Decode(config.File{Name: "test.yaml", Data: []byte(doc)})
	if c == nil {
		r.t.Fatalf("no document: %v", problems)
	}
	return append(problems, r.p.Apply(c)...)
}

func (r *rig) close() {
	for _, c := range r.tunnels {
		c.reset()
	}
	r.mu.Lock()
	for _, c := range r.apps {
		c.Close()
	}
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.p.Shutdown(ctx)
	<-time.After(hbone.ConnectTimeout + time.Second) // for dials that nobody waits for any more
	synctest.Wait()
	if n := r.p.stats.Impossible.Load(); n != 0 {
		r.t.Errorf("%d impossible events", n)
	}
	if n := r.p.replay.Load(); n != 0 {
		r.t.Errorf("the replay budget ends at %d", n)
	}
}

func (r *rig) observe(o *Outcome) {
	out := outcome{status: o.Status, kind: fault.Kinds, reason: o.Reason, received: o.Received, sent: o.Sent, verdict: o.Verdict}
	out.times, out.took = o.Stream.Times, time.Since(o.Stream.Start)
	if o.Stream.Fault != nil {
		out.kind = o.Stream.Fault.Kind
	}
	out.attempts = append(out.attempts, o.Stream.Attempts...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, out)
}

func (r *rig) observeConn(o *ConnOutcome) {
	out := *o
	out.Attempts = append([]filters.Attempt(nil), o.Attempts...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, out)
}

// conn returns the only opaque connection that is over, and forgets it.
func (r *rig) conn() ConnOutcome {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.conns) != 1 {
		r.t.Fatalf("%d opaque connections are over, want 1: %+v", len(r.conns), r.conns)
	}
	o := r.conns[0]
	r.conns = nil
	return o
}

func (r *rig) onPanic(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.panics = append(r.panics, err)
}

// outcome returns the only outcome so far, and forgets it.
func (r *rig) outcome() outcome {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) != 1 {
		r.t.Fatalf("%d outcomes, want 1: %v", len(r.seen), r.seen)
	}
	o := r.seen[0]
	r.seen = nil
	return o
}

// connect is the proxy's dialler.
func (r *rig) connect(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	r.mu.Lock()
	dial := r.dial
	r.mu.Unlock()
	if dial != nil {
		err := dial(addr.String())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			<-ctx.Done()
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
	}
	near, far := testnet.Pair()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apps = append(r.apps, far)
	n := len(r.apps)
	go r.app(&app{Conn: far, r: bufio.NewReader(far), addr: addr.String(), n: n})
	return near, nil
}

// An app is one connection of an application.
type app struct {
	*testnet.Conn
	r    *bufio.Reader
	addr string
	n    int // of the connection, from 1
}

// request reads the next request with its body; nil at the end.
func (a *app) request() (*http.Request, string) {
	q, err := http.ReadRequest(a.r)
	if err != nil {
		return nil, ""
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, ""
	}
	return q, string(body)
}

func (a *app) send(text string) { io.WriteString(a.Conn, text) }

// reply sends a whole response.
func (a *app) reply(status int, body string) {
	a.send(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
}

// echo answers every request with its line and body, until the end.
func echo(a *app) {
	defer a.Close()
	for {
		q, body := a.request()
		if q == nil {
			return
		}
		a.reply(200, q.Method+" "+q.RequestURI+" "+body)
	}
}

// A client is a tunnel in memory, and who uses it.
type client struct {
	r    *rig
	h    hbone.TunnelHandler
	info *peer.Info

	mu       sync.Mutex
	got      []byte
	unread   int // of got, while slow
	slow     bool
	sent     int // bytes given to the proxy
	consumed int // of them credited
	ended    bool
	fin      atomic.Bool
	aborted  atomic.Bool
	code     uint32
	told     bool
	answers  []error // to its CONNECT
}

var _ hbone.Tunnel = (*client)(nil)

// open brings a tunnel to the proxy; it fails the test if it is refused.
func (r *rig) open(dest string) *client {
	r.t.Helper()
	c, err := r.tryOpen(dest)
	if err != nil {
		r.t.Fatalf("tunnel to %s: %v", dest, err)
	}
	return c
}

func (r *rig) tryOpen(dest string) (*client, error) {
	c := &client{r: r, info: &peer.Info{How: peer.HBONE}}
	if addr, host, err := peer.ParseAuthority(dest); err != nil {
		r.t.Fatal(err)
	} else {
		c.info.Destination, c.info.Host = addr, host
	}
	var tn turn.Turn
	h, err := r.p.openTunnel(&tn, c)
	c.h = h
	if err == nil {
		c.Respond(&tn, nil)
	}
	if err == hbone.ErrLater {
		err = nil
	}
	tn.End()
	if err == nil {
		r.tunnels = append(r.tunnels, c)
	}
	return c, err
}

func (c *client) Peer() *peer.Info             { return c.info }
func (c *client) Handle(h hbone.TunnelHandler) { c.h = h }
func (c *client) Consume(_ *turn.Turn, n int)  { c.mu.Lock(); c.consumed += n; c.mu.Unlock() }
func (c *client) Buffered() int                { c.mu.Lock(); defer c.mu.Unlock(); return c.unread }
func (c *client) Write(_ *turn.Turn, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted.Load() || c.fin.Load() {
		return
	}
	c.got = append(c.got, p...)
	if c.slow {
		c.unread += len(p)
	}
}

func (c *client) CloseWrite(t *turn.Turn) {
	c.mu.Lock()
	c.fin.Store(true)
	c.mu.Unlock()
	c.over(t)
}

func (c *client) Abort(t *turn.Turn, code uint32) {
	c.mu.Lock()
	c.aborted.Store(true)
	c.code = code
	c.mu.Unlock()
	c.over(t)
}

// Respond is told what became of the CONNECT.
func (c *client) Respond(t *turn.Turn, err error) {
	c.mu.Lock()
	c.answers = append(c.answers, err)
	if err != nil {
		c.aborted.Store(true)
	}
	c.mu.Unlock()
	c.over(t)
}

// answer returns the only answer to the CONNECT, if there is one yet.
func (c *client) answer() (err error, ok bool) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) > 1 {
		c.r.t.Errorf("answered %d times", len(c.answers))
	}
	if len(c.answers) == 0 {
		return nil, false
	}
	return c.answers[0], true
}

// over has Closed told, once, when nothing can follow.
func (c *client) over(t *turn.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if (c.aborted.Load() || c.fin.Load() && c.ended) && !c.told {
		c.told = true
		t.Notify(c)
	}
}

func (c *client) Notified(t *turn.Turn) {
	var err error
	if c.aborted.Load() {
		err = hbone.ErrLocalAbort
	}
	c.h.Closed(t, err)
}

// send gives bytes to the proxy, in one turn, and waits for what comes of it.
func (c *client) send(text string) {
	c.mu.Lock()
	over := c.told
	c.sent += len(text)
	c.mu.Unlock()
	if over {
		return
	}
	view := []byte(text)
	var t turn.Turn
	c.h.Data(&t, view, false)
	for i := range view {
		view[i] = 0xDB
	}
	t.End()
	synctest.Wait()
}

// end is the client's FIN.
func (c *client) end() {
	var t turn.Turn
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.h.Data(&t, nil, true)
	c.over(&t)
	t.End()
	synctest.Wait()
}

// reset is the client's RST.
func (c *client) reset() {
	c.mu.Lock()
	told := c.told
	c.told = true
	c.aborted.Store(true)
	c.mu.Unlock()
	if told {
		return
	}
	var t turn.Turn
	c.h.Closed(&t, &hbone.ResetError{Code: hbone.CodeCancel})
	t.End()
	synctest.Wait()
}

// read takes what a slow client has not read, n bytes of it at most.
func (c *client) read(n int) {
	c.mu.Lock()
	before := c.unread
	c.unread = max(c.unread-n, 0)
	left := before > turn.LowMark && c.unread <= turn.LowMark
	c.mu.Unlock()
	if left {
		var t turn.Turn
		c.h.Left(&t)
		t.End()
		synctest.Wait()
	}
}

// take returns what has come for the client, and forgets it.
func (c *client) take() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := string(c.got)
	c.got = nil
	return got
}

// response parses what has come as one response, and fails if it is not whole.
func (c *client) response(method string) (*http.Response, string) {
	c.r.t.Helper()
	raw := c.take()
	br := bufio.NewReader(strings.NewReader(raw))
	p, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		c.r.t.Fatalf("no response: %v in %q", err, raw)
	}
	body, err := io.ReadAll(p.Body)
	if err != nil {
		c.r.t.Fatalf("response cut short: %v in %q", err, raw)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		c.r.t.Fatalf("behind the response: %q", rest)
	}
	return p, string(body)
}

// wantStatus takes one response and checks its status.
func (c *client) wantStatus(want int) string {
	c.r.t.Helper()
	p, body := c.response("GET")
	if p.StatusCode != want {
		c.r.t.Fatalf("status %d, want %d: %q", p.StatusCode, want, body)
	}
	return body
}

// wantCredit checks that every byte that was sent has been credited.
func (c *client) wantCredit() {
	c.r.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.consumed != c.sent {
		c.r.t.Errorf("%d bytes sent, %d credited", c.sent, c.consumed)
	}
}

// get is a request without a body.
func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }

// post is a request with one.
func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func TestRig(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		for range 3 {
			c.send(post("/x", "body"))
			if got := c.wantStatus(200); got != "POST /x body" {
				t.Errorf("got %q", got)
			}
			if o := r.outcome(); o.status != 200 || o.kind != fault.Kinds || len(o.attempts) != 1 {
				t.Errorf("got %v", o)
			}
		}
		c.wantCredit()
		c.end()
		if !c.fin.Load() || c.aborted.Load() {
			t.Errorf("fin %v, aborted %v, want an end in order", c.fin.Load(), c.aborted.Load())
		}
	})
}

// pass lets time pass, and waits for what comes of it. It is for the test's own
// goroutine.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
