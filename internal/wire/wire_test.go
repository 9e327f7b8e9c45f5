package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// patience bounds every wait of a test on a loaded machine.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	if testLoops, _ = NewLoops(2, nil); testLoops != nil {
		settings = append(settings, setting{"plain loop", looped(plainPair), false, true}, setting{"tls loop", looped(tlsPair), true, true})
	}
	code := m.Run()
	testLoops.Close()
	if code == 0 && flag.Lookup("test.fuzz").Value.String() == "" { // fuzzing has goroutines of its own
		code = leaks(before)
	}
	os.Exit(code)
}

// leaks waits for goroutines and buffers of the last test to go.
func leaks(before int) int {
	for end := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
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

// A testEngine does what its functions say and remembers what it was told.
type testEngine struct {
	onFeed   func(t *turn.Turn, p []byte) error
	onEOF    func(t *turn.Turn) bool
	onLeft   func(t *turn.Turn)
	onTick   func(t *turn.Turn)
	onClosed func(t *turn.Turn)

	mu     sync.Mutex
	lefts  int
	ticks  int
	closes int
	late   int // calls after Closed
	err    error
	closed chan struct{}
	eof    chan struct{}
	served chan struct{}
}

func newEngine() *testEngine {
	return &testEngine{closed: make(chan struct{}), eof: make(chan struct{}), served: make(chan struct{})}
}

func (e *testEngine) note(n *int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*n++
	if e.closes > 0 && n != &e.closes {
		e.late++
	}
}

func (e *testEngine) Feed(t *turn.Turn, p []byte) error {
	e.note(new(int))
	if e.onFeed != nil {
		return e.onFeed(t, p)
	}
	return nil
}

func (e *testEngine) EOF(t *turn.Turn) bool {
	e.note(new(int))
	close(e.eof)
	if e.onEOF != nil {
		return e.onEOF(t)
	}
	return false
}

func (e *testEngine) Left(t *turn.Turn) {
	e.note(&e.lefts)
	if e.onLeft != nil {
		e.onLeft(t)
	}
}

func (e *testEngine) Tick(t *turn.Turn) {
	e.note(&e.ticks)
	if e.onTick != nil {
		e.onTick(t)
	}
}

func (e *testEngine) Closed(t *turn.Turn, err error) {
	e.note(&e.closes)
	e.err = err
	if e.onClosed != nil {
		e.onClosed(t)
	}
	close(e.closed) // a second call panics
}

// wantClosed waits for Closed and returns its error.
func (e *testEngine) wantClosed(t *testing.T) error {
	t.Helper()
	await(t, "Closed", e.closed)
	return e.err
}

// wantServed waits until nothing is left and checks that Closed came once, last.
func (e *testEngine) wantServed(t *testing.T) {
	t.Helper()
	await(t, "the end of Serve", e.served)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closes != 1 || e.late != 0 {
		t.Errorf("Closed came %d times and %d calls came after it, want 1 and 0", e.closes, e.late)
	}
}

func await(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		stacks := make([]byte, 64<<10)
		t.Fatalf("no %s in %v\n%s", what, patience, stacks[:runtime.Stack(stacks, true)])
	}
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func serve(c *Conn, e *testEngine) {
	go func() {
		c.Serve(e)
		c.Wait()
		close(e.served)
	}()
}

// sockets returns two ends of a loopback connection.
func sockets(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() }) // a belongs to the connection under test
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// A peer is the far end of a connection under test: blocking, ordinary.
type peer interface {
	net.Conn
	CloseWrite() error
}

// A setting is one way to connect. Tests that hold for all run with each.
type setting struct {
	name string
	// pair returns a connection under test and its peer.
	pair      func(t testing.TB, o Options) (*Conn, peer, *net.TCPConn)
	tls, loop bool
}

var settings = []setting{{"plain", plainPair, false, false}, {"tls", tlsPair, true, false}}

// testLoops are nil where there are none.
var testLoops *Loops

// looped has a loop read for the connection under test.
func looped(pair func(testing.TB, Options) (*Conn, peer, *net.TCPConn)) func(testing.TB, Options) (*Conn, peer, *net.TCPConn) {
	return func(t testing.TB, o Options) (*Conn, peer, *net.TCPConn) {
		o.Loops = testLoops
		return pair(t, o)
	}
}

func plainPair(t testing.TB, o Options) (*Conn, peer, *net.TCPConn) {
	a, b := sockets(t)
	b.SetDeadline(time.Now().Add(2 * patience))
	return New(a, o), b, b
}

func tlsPair(t testing.TB, o Options) (*Conn, peer, *net.TCPConn) {
	t.Helper()
	a, b := sockets(t)
	b.SetDeadline(time.Now().Add(2 * patience))
	server, client := tlsConfigs(t)
	c := NewTLS(a, func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }, o)
	far := tls.Client(b, client)
	failed := make(chan error, 1)
	go func() { failed <- far.Handshake() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(c.Handshake(ctx), <-failed); err != nil {
		t.Fatal(err)
	}
	return c, far, b
}

var makeConfigs = sync.OnceValues(func() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"lab"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS13, DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	}, err
})

func tlsConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	server, err := makeConfigs()
	if err != nil {
		t.Fatal(err)
	}
	return server, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
}

func each(t *testing.T, f func(t *testing.T, s setting)) {
	for _, s := range settings {
		t.Run(s.name, func(t *testing.T) { f(t, s) })
	}
}

func contains(err error, s string) bool { return err != nil && strings.Contains(err.Error(), s) }
