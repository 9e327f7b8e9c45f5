package upstream

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	if os.Getenv("SANDWICH_EVENT_LOOPS") != "none" {
		loops = must(wire.NewLoops(2, nil))
	}
	code := m.Run()
	loops.Close()
	if code == 0 && flag.Lookup("test.fuzz").Value.String() == "" {
		code = leaks(before)
	}
	os.Exit(code)
}

// loops read for every socket under test, as in the program; with
// SANDWICH_EVENT_LOOPS=none, and for what is no socket, goroutines do.
var loops *wire.Loops

// leaks waits for goroutines and buffers of the last test to go.
func leaks(before int) int {
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		g, b := runtime.NumGoroutine(), buf.Outstanding()
		if g <= before && b == 0 {
			return 0
		}
		if time.Now().After(end) {
			stacks := make([]byte, 64<<10)
			stacks = stacks[:runtime.Stack(stacks, true)]
			fmt.Printf("%d goroutines, want %d; %d buffers lent, want 0 %v\n%s\n", g, before, b, buf.Holders(), stacks)
			return 1
		}
	}
}

const patience = 5 * time.Second

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// An app is an endpoint's application, played by hand.
type app struct {
	t *testing.T
	l *net.TCPListener
}

type appConn struct {
	*net.TCPConn
	t *testing.T
	r *bufio.Reader
}

func newApp(t *testing.T) *app {
	a := &app{t: t, l: must(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener)}
	t.Cleanup(func() { a.l.Close() })
	return a
}

func (a *app) addr() netip.AddrPort { return a.l.Addr().(*net.TCPAddr).AddrPort() }

func (a *app) accept() *appConn {
	a.t.Helper()
	a.l.SetDeadline(time.Now().Add(patience))
	nc, err := a.l.AcceptTCP()
	if err != nil {
		a.t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(2 * patience))
	a.t.Cleanup(func() { nc.Close() })
	return &appConn{nc, a.t, bufio.NewReader(nc)}
}

// wantHead reads a request's head.
func (c *appConn) wantHead() {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("the application reads: %v", err)
		}
		if line == "\r\n" {
			return
		}
	}
}

func (c *appConn) say(s string) { io.WriteString(c.TCPConn, s) }

// wantEnd wants the connection to end, in order or by a reset.
func (c *appConn) wantEnd(inOrder bool) {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if len(b) > 0 || (err == nil) != inOrder {
		c.t.Errorf("the application reads %q, %v; want the end, in order: %v", b, err, inOrder)
	}
}

// A rig is a backend with one endpoint.
type rig struct {
	pool *hbone.Pool
	b    *Backend
	e    *Endpoint
	node string // where the node tunnel listens, if there is one
}

const (
	wayURI = "spiffe://cluster.local/ns/demo/sa/waypoint"
	podURI = "spiffe://cluster.local/ns/demo/sa/reviews"
)

func driven(t *testing.T) wire.Options {
	w := wheel.New()
	w.Start()
	t.Cleanup(w.Close)
	return wire.Options{Wheel: w, Tick: 20 * time.Millisecond, Loops: loops}
}

// plainRig reaches the application by bare TCP.
func plainRig(t *testing.T, at netip.AddrPort) *rig {
	r := &rig{pool: hbone.NewPool(hbone.PoolOptions{Wire: driven(t)})}
	r.start(t, Address{Addr: at})
	return r
}

func (r *rig) start(t *testing.T, a Address) {
	r.b = NewBackend("test", r.pool)
	r.b.SetEndpoints([]Address{a})
	r.e = must(r.b.Pick(nil))
	t.Cleanup(func() {
		r.b.Close()
		r.pool.Close()
	})
}

// certs returns certificates of an identity.
func certs(ca *devca.CA, id string) *hbone.Certificates {
	leaf := must(ca.Issue([]string{id}))
	c := must(hbone.NewCertificates(hbone.CertificatesOptions{}))
	c.Set(must(hbone.ParsePEM(hbone.PEM{Chain: leaf.Chain, Key: leaf.Key, Roots: ca.PEM()})))
	return c
}

// meshRig reaches it through a node tunnel, which calls itself id.
func meshRig(t *testing.T, at netip.AddrPort, id string) (*rig, *hbone.Server) {
	ca := must(devca.New("root"))
	plain := hbone.NewPool(hbone.PoolOptions{Wire: driven(t)})
	s := hbone.NewServer(hbone.ServerOptions{
		Certificates: certs(ca, id),
		Wire:         driven(t),
		Accept: func(tn *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
			return hbone.Forward(tun, hbone.Forwarding{Open: func(far hbone.TunnelHandler) hbone.Tunnel {
				return plain.Open(tn, hbone.NewPlainDest(tun.Peer().Destination), far)
			}})
		},
	})
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go s.ServeHBONE(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	r := &rig{pool: hbone.NewPool(hbone.PoolOptions{Certificates: certs(ca, wayURI), Wire: driven(t)}), node: l.Addr().String()}
	r.start(t, Address{Addr: at, Tunnel: l.Addr().(*net.TCPAddr).AddrPort(), Expect: []peer.ID{must(peer.ParseID(podURI))}})
	return r, s
}

// each runs a test over both transports.
func each(t *testing.T, f func(t *testing.T, r *rig, a *app)) {
	t.Run("plain", func(t *testing.T) {
		a := newApp(t)
		f(t, plainRig(t, a.addr()), a)
	})
	t.Run("mesh", func(t *testing.T) {
		a := newApp(t)
		r, _ := meshRig(t, a.addr(), podURI)
		f(t, r, a)
	})
}

// A caller makes calls, one at a time, and remembers what it is told.
type caller struct {
	turn.Lane
	t      *testing.T
	events chan string

	// Guarded by the lane.
	call   Call
	resp   message.Response
	post   bool                // the request's body is left open
	onHead func(tn *turn.Turn) // in Head
	fault  *fault.Fault
	over   bool // the call has ended
}

func newCaller(t *testing.T) *caller { return &caller{t: t, events: make(chan string, 10_000)} }

// do runs f in a turn of its own, with the lane held.
func (x *caller) do(f func(tn *turn.Turn)) {
	var tn turn.Turn
	x.Lock()
	f(&tn)
	x.Unlock()
	tn.End()
}

// ask begins a call, and reports whether an unused connection serves it.
func (x *caller) ask(e *Endpoint) (ready bool) {
	x.do(func(tn *turn.Turn) {
		x.resp.Reset()
		x.fault, x.over = nil, false
		x.call, ready = e.Open(tn, &x.Lane, x)
		if ready {
			x.Ready(tn)
		}
	})
	return ready
}

func (x *caller) Ready(tn *turn.Turn) {
	x.events <- "ready"
	q := &message.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("h")}
	if x.post {
		q.Method, q.Length = []byte("POST"), 10
	}
	if err := x.call.WriteHead(tn, q, !x.post); err != nil {
		x.t.Error(err)
	}
}

func (x *caller) NewResponse(*turn.Turn) *message.Response { return &x.resp }
func (x *caller) Left(*turn.Turn)                          {}

func (x *caller) Informational(_ *turn.Turn, r *message.Response) {
	x.events <- fmt.Sprint("informational ", r.Status)
}

func (x *caller) Head(tn *turn.Turn, r *message.Response, end bool) {
	x.events <- fmt.Sprint("head ", r.Status)
	if end {
		x.over = true
		x.events <- "end"
	}
	if x.onHead != nil {
		x.onHead(tn)
	}
}

func (x *caller) Whole(tn *turn.Turn, r *message.Response, body []byte) {
	x.Head(tn, r, false)
	x.Chunk(tn, &message.Chunk{Data: body, End: true})
}

func (x *caller) Chunk(tn *turn.Turn, c *message.Chunk) {
	if len(c.Data) > 0 {
		x.events <- "body " + string(c.Data)
	}
	if c.End {
		x.over = true
		x.events <- "end"
	} else {
		x.call.Consume(tn, len(c.Data))
	}
}

func (x *caller) Failed(_ *turn.Turn, f *fault.Fault) {
	x.fault, x.over = f, true
	x.events <- "failed"
}

func (x *caller) next() string {
	x.t.Helper()
	select {
	case e := <-x.events:
		return e
	case <-time.After(patience):
		x.t.Fatal("nothing happens on the call")
		return ""
	}
}

func (x *caller) want(events ...string) {
	x.t.Helper()
	for _, want := range events {
		if got := x.next(); got != want {
			x.Lock()
			defer x.Unlock()
			x.t.Fatalf("call: got %q (%v), want %q", got, x.fault, want)
		}
	}
}

// wantFault wants the call to fail, with that kind.
func (x *caller) wantFault(kind fault.Kind, words ...string) {
	x.t.Helper()
	x.want("failed")
	x.Lock()
	defer x.Unlock()
	if x.fault.Kind != kind || x.fault.Side != fault.Upstream {
		x.t.Errorf("got %v (%v), want %v", x.fault.Kind, x.fault, kind)
	}
	for _, w := range words {
		if !strings.Contains(x.fault.Error(), w) {
			x.t.Errorf("got %q, want %q in it", x.fault, w)
		}
	}
}

// wantCounts wants so many calls in progress, and unused connections.
func (r *rig) wantCounts(t *testing.T, active, idle int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d active and %d unused", active, idle), func() bool {
		return r.e.Active() == active && r.e.Idle() == idle
	})
}

// hammered answers requests as chance has it, until the listener closes.
func hammered(l net.Listener, chance func() int) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { hammeredConn(nc.(*net.TCPConn), chance) })
		}
	})
	return &wg
}

func hammeredConn(nc *net.TCPConn, chance func() int) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line != "\r\n" {
			continue
		}
		switch chance() {
		case 0: // gone instead of an answer
			return
		case 1:
			nc.SetLinger(0)
			return
		case 2: // in the middle of it
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
			return
		case 3: // behind it: the connection is stale in a moment
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
			return
		case 4:
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
			io.WriteString(nc, "HTTP/1.1 408 Request Timeout\r\n\r\n")
			return
		case 5:
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
			return
		}
		io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	}
}
