package hbone

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	if os.Getenv("SANDWICH_EVENT_LOOPS") != "none" {
		loops = must(wire.NewLoops(2, nil))
	}
	code := m.Run()
	loops.Close()
	if code == 0 && flag.Lookup("test.fuzz").Value.String() == "" { // fuzzing has goroutines of its own
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

// patience bounds every wait of a test.
const patience = 4 * time.Second

// eventually waits until a fact holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// wantCount waits until a counter has a value.
func wantCount(t *testing.T, what string, get func() int64, want int64) {
	t.Helper()
	for end := time.Now().Add(patience); get() != want; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: got %d, want %d", what, get(), want)
		}
	}
}

// newWheel returns a wheel that runs until the test ends.
func newWheel(t *testing.T) *wheel.Wheel {
	w := wheel.New()
	w.Start()
	t.Cleanup(w.Close)
	return w
}

// quick are ticks for tests in real time.
const quick = 20 * time.Millisecond

// A heard is the handler of one tunnel. It consumes what comes and remembers it.
type heard struct {
	t      *testing.T
	events chan string
	mu     sync.Mutex
	tun    Tunnel
	err    error // of Closed
}

func newHeard(t *testing.T) *heard { return &heard{t: t, events: make(chan string, 10_000)} }

func (h *heard) Opened(*turn.Turn) { h.events <- "opened" }
func (h *heard) Left(*turn.Turn)   { h.events <- "left" }
func (h *heard) Data(tn *turn.Turn, p []byte, end bool) {
	if len(p) > 0 {
		h.events <- "data " + string(p)
	}
	if end {
		h.events <- "end"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tun.Consume(tn, len(p))
}

func (h *heard) Closed(_ *turn.Turn, err error) {
	h.mu.Lock()
	h.err = err
	h.mu.Unlock()
	if err == nil {
		h.events <- "closed"
	} else {
		h.events <- "failed"
	}
}

// closed waits for the tunnel's end and returns its error.
func (h *heard) closed() error {
	h.t.Helper()
	for {
		if e := h.next(); e == "closed" || e == "failed" {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.err
		}
	}
}

func (h *heard) next() string {
	h.t.Helper()
	select {
	case e := <-h.events:
		return e
	case <-time.After(patience):
		h.t.Fatal("nothing happens on the tunnel")
		return ""
	}
}

// want wants these events next.
func (h *heard) want(events ...string) {
	h.t.Helper()
	for _, want := range events {
		if got := h.next(); got != want {
			h.t.Fatalf("tunnel: got %q (%v), want %q", got, h.err, want)
		}
	}
}

// wantNothing wants that nothing has happened.
func (h *heard) wantNothing() {
	h.t.Helper()
	select {
	case e := <-h.events:
		h.t.Fatalf("tunnel: got %q, want nothing", e)
	default:
	}
}

// do runs f in a turn of its own.
func do(f func(tn *turn.Turn)) {
	var tn turn.Turn
	f(&tn)
	tn.End()
}

func (h *heard) write(s string)   { do(func(tn *turn.Turn) { h.tun.Write(tn, []byte(s)) }) }
func (h *heard) closeWrite()      { do(h.tun.CloseWrite) }
func (h *heard) abort(why uint32) { do(func(tn *turn.Turn) { h.tun.Abort(tn, why) }) }

// A testServer is a Server whose tunnels are heard.
type testServer struct {
	*Server
	t       *testing.T
	ca      *devca.CA
	certs   *Certificates
	tunnels chan *heard
	faults  chan error
	refuse  func(tun Tunnel) error // in Accept
}

// newServer returns a server, wayURI, that takes every tunnel.
func newServer(t *testing.T, edit ...func(*ServerOptions)) *testServer {
	ca := must(devca.New("root"))
	s := &testServer{t: t, ca: ca, certs: holding(issued(ca, wayURI), CertificatesOptions{}),
		tunnels: make(chan *heard, 1000), faults: make(chan error, 10_000)}
	o := ServerOptions{
		Accept:       s.accept,
		Certificates: s.certs,
		Wire:         wire.Options{Wheel: newWheel(t), Tick: quick, Loops: loops},
		OnFault: func(remote net.Addr, err error) {
			if remote == nil || err == nil {
				t.Errorf("fault from %v: %v", remote, err)
			}
			s.faults <- err
		},
	}
	for _, e := range edit {
		e(&o)
	}
	s.Server = NewServer(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	return s
}

func (s *testServer) accept(_ *turn.Turn, tun Tunnel) (TunnelHandler, error) {
	h := newHeard(s.t)
	h.tun = tun
	if s.refuse != nil {
		if err := s.refuse(tun); err != nil {
			if err == ErrLater {
				s.tunnels <- h
				return h, err
			}
			return nil, err
		}
	}
	s.tunnels <- h
	return h, nil
}

// tunnel returns the next tunnel that was accepted.
func (s *testServer) tunnel() *heard {
	s.t.Helper()
	select {
	case h := <-s.tunnels:
		return h
	case <-time.After(patience):
		s.t.Fatal("no tunnel came")
		return nil
	}
}

// wantFault wants a fault that says words.
func (s *testServer) wantFault(words ...string) {
	s.t.Helper()
	select {
	case err := <-s.faults:
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				s.t.Errorf("fault: got %q, want %q in it", err, w)
			}
		}
	case <-time.After(patience):
		s.t.Fatalf("no fault came, want %q", words)
	}
}

func (s *testServer) wantNoFault() {
	s.t.Helper()
	select {
	case err := <-s.faults:
		s.t.Errorf("fault: got %q, want none", err)
	default:
	}
}

// listen serves on a free port and returns its address.
func (s *testServer) listen(on string, serve func(net.Listener) error) string {
	s.t.Helper()
	l, err := net.Listen("tcp", on)
	if err != nil {
		s.t.Fatal(err)
	}
	go serve(l)
	return l.Addr().String()
}

func (s *testServer) mesh() string { return s.listen("127.0.0.1:0", s.ServeHBONE) }

// client returns what a workload of the server's mesh connects with.
func (s *testServer) client(id string, edit ...func(*x509.Certificate)) *Certificates {
	return holding(issued(s.ca, id, edit...), CertificatesOptions{})
}

// A testPool is a Pool whose tunnels are heard.
type testPool struct {
	*Pool
	t *testing.T
}

func newPool(t *testing.T, certs *Certificates, edit ...func(*PoolOptions)) *testPool {
	o := PoolOptions{Certificates: certs, Wire: wire.Options{Wheel: newWheel(t), Tick: quick, Loops: loops}}
	for _, e := range edit {
		e(&o)
	}
	p := &testPool{NewPool(o), t}
	t.Cleanup(p.Close)
	return p
}

// open asks for a tunnel.
func (p *testPool) open(d *Dest) *heard {
	h := newHeard(p.t)
	do(func(tn *turn.Turn) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tun = p.Open(tn, d, h)
	})
	return h
}

var behind = netip.MustParseAddrPort("10.0.0.7:8080")

// dest returns a destination behind a node tunnel that is one of ids.
func dest(addr string, ids ...string) *Dest {
	var expect []peer.ID
	for _, id := range ids {
		expect = append(expect, testID(id))
	}
	return NewDest(netip.MustParseAddrPort(addr), behind, expect)
}

func wantError[E error](t *testing.T, err error, words ...string) E {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Fatalf("got %T %v, want %T", err, err, e)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
	return e
}
