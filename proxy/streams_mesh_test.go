package proxy_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// portDoc has one service with one endpoint, of a port as the words say.
func portDoc(port string) string {
	return head + `
services:
- {name: a, addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080` + port + `}], endpoints: [{workload: a-1}]}
workloads:
- {name: a-1, address: 10.1.0.1, serviceAccount: a}
`
}

const (
	declaredTCP = ", appProtocol: tcp"
	undeclared  = ""
)

// A connLog collects what the waypoints tell of opaque connections.
type connLog struct {
	mu   sync.Mutex
	seen []proxy.ConnOutcome
}

func (l *connLog) tune(_ devmesh.Mode, o *proxy.Options) {
	o.ObserveConn = func(c *proxy.ConnOutcome) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen = append(l.seen, *c)
	}
}

// next waits for one outcome and forgets it.
func (l *connLog) next(t testing.TB) (o proxy.ConnOutcome) {
	t.Helper()
	eventually(t, "an opaque connection to be told of", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.seen) == 0 {
			return false
		}
		o, l.seen = l.seen[0], l.seen[1:]
		return true
	})
	return o
}

// TestTCPOnAPath: 16 MiB each way at once through whole paths, unchanged, and
// the connection ends as its ends say.
func TestTCPOnAPath(t *testing.T) {
	size := int64(16 << 20)
	if buf.Check || raceEnabled {
		size = 2 << 20
	}
	source := func(seed byte) io.Reader {
		return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
	}
	sum := func(r io.Reader) string {
		h := sha256.New()
		n, err := io.Copy(h, r)
		return fmt.Sprintf("%d %x %v", n, h.Sum(nil), err)
	}
	got := make(chan string, 1)
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		var both sync.WaitGroup
		both.Go(func() { io.Copy(nc, source(1)); nc.CloseWrite() })
		got <- sum(r)
		both.Wait()
	})
	var l connLog
	m := start(t, portDoc(declaredTCP), devmesh.Options{App: a.everywhere, Tune: l.tune})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		nc := m.dial("a", mode)
		go func() { io.Copy(nc, source(2)); nc.CloseWrite() }()
		if down, want := sum(nc), sum(source(1)); down != want {
			t.Errorf("down %s, want %s", down, want)
		}
		if up, want := <-got, sum(source(2)); up != want {
			t.Errorf("up %s, want %s", up, want)
		}
		o := l.next(t)
		if o.Kind() != measure.NoFault || o.Received != size || o.Sent != size || o.Last().Endpoint.String() != "10.1.0.1:9080" || o.Peer.ID.String() != devmesh.DefaultClient {
			t.Errorf("got %+v, %v", o, o.Fault)
		}
	})
}

// TestTCPRefusedOnAPath: the client's node learns that the endpoint cannot be
// reached, and resets its application.
func TestTCPRefusedOnAPath(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close() // nobody answers there now
	var l connLog
	m := start(t, portDoc(declaredTCP), devmesh.Options{Modes: []devmesh.Mode{devmesh.HBONE}, App: func(string) string { return gone.Addr().String() }, Tune: l.tune})
	nc := m.dial("a", devmesh.HBONE)
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v", err)
	}
	if o := l.next(t); o.Kind() != fault.ConnectRefused || len(o.Attempts) != 3 {
		t.Errorf("%v after %d attempts", o.Fault, len(o.Attempts))
	}
}

// TestServerFirstOnAPath: what an undeclared port adds to the time until a
// greeting is heard, against a declared one: less than 5 ms.
func TestServerFirstOnAPath(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		io.WriteString(nc, "220 hello\r\n")
		io.Copy(io.Discard, r)
	})
	best := map[string]time.Duration{}
	for _, port := range []string{declaredTCP, undeclared} {
		m := start(t, portDoc(port), devmesh.Options{App: a.everywhere})
		m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
			for range 30 {
				began := time.Now()
				nc := m.dial("a", mode)
				line, err := bufio.NewReader(nc).ReadString('\n')
				if line != "220 hello\r\n" {
					t.Fatalf("%q, %v", line, err)
				}
				if d := time.Since(began); best[port] == 0 || d < best[port] {
					best[port] = d
				}
				nc.Close()
			}
		})
	}
	t.Logf("heard after %v declared, %v undeclared", best[declaredTCP], best[undeclared])
	if more := best[undeclared] - best[declaredTCP]; more > 5*time.Millisecond {
		t.Errorf("detection costs a greeting %v", more)
	}
}

// TestDetectOnAPath: HTTP, TLS and Redis through one undeclared port.
func TestDetectOnAPath(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		switch p, _ := r.Peek(1); string(p) {
		case "G":
			for {
				if q, _ := take(r); q == nil {
					return
				}
				io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhttp")
			}
		case "*":
			r.ReadString('\n')
			io.WriteString(nc, "+OK\r\n")
		default:
			io.Copy(nc, r)
		}
	})
	var l connLog
	m := start(t, portDoc(undeclared), devmesh.Options{App: a.everywhere, Tune: l.tune})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
		defer c.CloseIdleConnections()
		for range 3 {
			r, err := c.Get(m.url("a", mode))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if o := m.outcome(); string(body) != "http" || o.status != 200 {
				t.Errorf("%q, %+v", body, o)
			}
		}
		nc := m.dial("a", mode)
		io.WriteString(nc, "*1\r\n$4\r\nPING\r\n")
		if line, _ := bufio.NewReader(nc).ReadString('\n'); line != "+OK\r\n" {
			t.Errorf("Redis: %q", line)
		}
		nc.Close()
		if o := l.next(t); o.Verdict.Reason != sniff.NotHTTP {
			t.Errorf("Redis: %v", o.Verdict)
		}
		raw := m.dial("a", mode)
		err := tls.Client(raw, &tls.Config{ServerName: "x.example"}).Handshake() // its own words come back to it
		if err == nil || !strings.Contains(err.Error(), "tls") {
			t.Errorf("TLS: %v", err)
		}
		raw.Close()
		if o := l.next(t); o.Verdict != (sniff.Verdict{Protocol: sniff.TLS, Reason: sniff.ClientHello}) {
			t.Errorf("TLS: %v", o.Verdict)
		}
	})
}

// TestTLSOnAPath: TLS from end to end: the certificate is the application's.
func TestTLSOnAPath(t *testing.T) {
	ca, err := devca.New("application")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue([]string{"spiffe://cluster.local/ns/shop/sa/tls"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		s := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{pair}})
		io.Copy(s, s)
		s.Close()
	})
	m := start(t, portDoc(", appProtocol: tls")+`
tlsRoutes:
- {name: a, hostnames: [a.example], parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}
`, devmesh.Options{App: a.everywhere})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		for _, name := range []string{"a.example", "b.example"} {
			c := tls.Client(m.dial("a", mode), &tls.Config{ServerName: name, InsecureSkipVerify: true})
			err := c.Handshake()
			if name == "b.example" {
				if err == nil {
					t.Error("a name that no route has was let through")
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
				t.Errorf("got %q, %v", b, err)
			}
			if uri := c.ConnectionState().PeerCertificates[0].URIs[0].String(); uri != "spiffe://cluster.local/ns/shop/sa/tls" {
				t.Errorf("the certificate is of %s", uri)
			}
			c.Close()
		}
	})
}

// TestSlowReaderOnAPath: an endpoint that sends without end to clients that do
// not read: memory stays within windows, and others are not held up.
func TestSlowReaderOnAPath(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		line, _ := r.ReadString('\n')
		if line == "ping\n" {
			io.WriteString(nc, "pong\n")
			return
		}
		io.Copy(nc, pattern{})
	})
	m := start(t, portDoc(declaredTCP), devmesh.Options{App: a.everywhere})
	const slow = 50
	before := inUse()
	for _, mode := range m.Modes {
		for range slow {
			nc := m.dial("a", mode)
			nc.SetReadBuffer(4 << 10)
			io.WriteString(nc, "flood\n")
		}
	}
	var last int64
	eventually(t, "the flood to stop", func() bool {
		<-time.After(100 * time.Millisecond)
		now := inUse()
		done := now-last < 1<<20
		last = now
		return done
	})
	// Two waypoints and the node tunnels on both sides of them share this process:
	// in all each connection passes up to eight buffers of at most a window.
	per := (inUse() - before) / (2 * slow)
	t.Logf("%d KiB for each connection that is not read, in the whole process", per>>10)
	if per > 8*(256+64)<<10 {
		t.Errorf("%d bytes for each connection that is not read", per)
	}
	for _, mode := range m.Modes {
		nc := m.dial("a", mode)
		io.WriteString(nc, "ping\n")
		if line, err := bufio.NewReader(nc).ReadString('\n'); line != "pong\n" {
			t.Errorf("%s: beside them %q, %v", mode, line, err)
		}
	}
	runtime.KeepAlive(m)
}

// TestShutdownCutsRelays: opaque and upgraded connections live until the end of
// the drain, and are then reset, told of and counted.
func TestShutdownCutsRelays(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		if p, _ := r.Peek(3); string(p) == "GET" {
			take(r)
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}
		io.Copy(nc, r)
	})
	var l connLog
	m := start(t, portDoc(undeclared), devmesh.Options{App: a.everywhere, Tune: l.tune})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		tcp, ws := m.dial("a", mode), m.dial("a", mode)
		talk := func(nc net.Conn, text string) {
			t.Helper()
			io.WriteString(nc, text)
			b := make([]byte, len(text))
			if _, err := io.ReadFull(nc, b); err != nil || string(b) != text {
				t.Fatalf("got %q, %v", b, err)
			}
		}
		talk(tcp, "\x00opaque")
		io.WriteString(ws, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		r := bufio.NewReader(ws)
		if p, err := http.ReadResponse(r, nil); err != nil || p.StatusCode != 101 {
			t.Fatal(p, err)
		}
		w := m.Waypoint(mode)
		w.Drain()
		talk(tcp, "still here")
		talk(ws, "still here")
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		w.Shutdown(ctx)
		for _, nc := range []net.Conn{tcp, ws} {
			if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %v, want a reset", err)
			}
		}
		if o := l.next(t); o.Kind() != fault.Draining {
			t.Errorf("opaque: %v", o.Fault)
		}
		if o := m.outcome(); o.kind != fault.Draining || o.status != 101 {
			t.Errorf("upgraded: %+v", o)
		}
		if n := w.Stats().Cut.Load(); n != 2 {
			t.Errorf("%d counted", n)
		}
	})
}

// TestAllocsPerRelay: a question and its answer through an opaque connection
// allocate nothing here; what is counted is crypto/tls's, as for a request.
func TestAllocsPerRelay(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build allocates for its checks")
	}
	c := newCourseOf(t, false, portDoc(declaredTCP))
	a := c.open()
	a.ask(t, 2000)
	const n = 10000
	old := debug.SetGCPercent(-1) // a collection empties the pools
	defer debug.SetGCPercent(old)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a.ask(t, n)
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / n
	t.Logf("%.3f allocations for a question and its answer in the whole process", per)
	if per > 4.05 {
		t.Errorf("%.3f allocations, want the 4 of crypto/tls", per)
	}
}

// TestIdleOpaque: a thousand opaque tunnels that have carried something and are
// idle: no goroutine for any of them, and at most 4 KiB each, with what both ends
// of them take in this process.
func TestIdleOpaque(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build takes memory for its checks")
	}
	for name, port := range map[string]string{"declared": declaredTCP, "detected as HTTP": undeclared} {
		t.Run(name, func(t *testing.T) {
			c := newCourseOf(t, false, portDoc(port))
			c.open().ask(t, 10)
			const n = 1000
			goroutines, before := runtime.NumGoroutine(), inUse()
			all := make([]*asker, n)
			for i := range all {
				all[i] = c.open()
				all[i].ask(t, 1)
			}
			per := (inUse() - before) / n
			more := runtime.NumGoroutine() - goroutines
			t.Logf("%d bytes and %d goroutines in all for %d idle tunnels", per, more, n)
			if per > 4<<10 {
				t.Errorf("an idle tunnel takes %d bytes, want at most 4 KiB", per)
			}
			if more > 64 { // the readers of the few mesh connections they share
				t.Errorf("%d goroutines more for %d tunnels", more, n)
			}
			runtime.KeepAlive(all)
		})
	}
}

// BenchmarkRelay: a question and its answer through opaque connections, HBONE to
// HBONE, all ends in this process.
func BenchmarkRelay(b *testing.B) {
	c := newCourseOf(b, false, portDoc(declaredTCP))
	a := c.open()
	a.left = b.N
	b.ResetTimer()
	var tn turn.Turn
	a.tun.Write(&tn, questionBytes)
	tn.End()
	if _, ok := <-a.done; !ok {
		b.Fatal("closed: ", a.failed)
	}
}

// TestOpaqueHammer: connections of every sort while endpoints close, reset and
// stay silent, clients do the same, and documents change: each connection is
// told of once, as opaque or by its requests, and nothing is left.
func TestOpaqueHammer(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		switch rand.IntN(6) {
		case 0:
			io.WriteString(nc, "220 hello\r\n")
		case 1:
			reset(nc)
			return
		case 2:
			nc.CloseWrite()
		}
		if p, _ := r.Peek(4); string(p) == "GET " {
			for q, _ := take(r); q != nil; q, _ = take(r) {
				io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
			return
		}
		io.Copy(nc, r)
	})
	var l connLog
	m := start(t, portDoc(undeclared), devmesh.Options{App: a.everywhere, Tune: l.tune})
	docs := []*config.Config{decode(t, portDoc(undeclared)), decode(t, portDoc(declaredTCP)), decode(t, portDoc(undeclared))}
	stop := make(chan struct{})
	var applies, clients sync.WaitGroup
	applies.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if _, err := m.Apply(docs[i%len(docs)]); err != nil {
				t.Error(err)
			}
		}
	})
	const workers, each = 4, 40
	for _, mode := range m.Modes {
		addr := m.addr("a", mode)
		for range workers {
			clients.Go(func() {
				for range each {
					hammerOpaque(addr)
				}
			})
		}
	}
	clients.Wait()
	close(stop)
	applies.Wait()
	for _, mode := range m.Modes {
		w := m.Waypoint(mode)
		eventually(t, "connections to end", func() bool { return len(w.Connections()) == 0 })
		if n := w.Stats().Panics.Load(); n != 0 {
			t.Errorf("%s: %d panics: %v", mode, n, m.panics)
		}
		if n := w.Stats().Impossible.Load(); n != 0 {
			t.Errorf("%s: %d impossible events", mode, n)
		}
		for _, b := range w.Snapshot().Backends() {
			for _, e := range b.Endpoints() {
				eventually(t, "endpoints to be unused", func() bool { return e.Active() == 0 })
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	kinds := map[string]int{}
	for i := range l.seen {
		kinds[l.seen[i].Verdict.Reason.String()]++
	}
	t.Logf("opaque by %v", kinds)
	if kinds["declared"] == 0 || kinds["not http"] == 0 || kinds["server spoke first"] == 0 {
		t.Error("the hammer did not hit")
	}
}

// hammerOpaque makes one connection and does something to it.
func hammerOpaque(addr string) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(500 * time.Millisecond))
	switch rand.IntN(8) {
	case 0: // nothing
	case 1:
		io.WriteString(nc, "GE")
	case 2, 3:
		for _, c := range []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n") {
			nc.Write([]byte{c})
		}
		http.ReadResponse(bufio.NewReader(nc), nil)
	case 4:
		nc.Read(make([]byte, 1))
	default:
		io.WriteString(nc, "*1\r\n$4\r\nPING\r\n")
		nc.Read(make([]byte, 1+rand.IntN(20)))
	}
	switch rand.IntN(3) {
	case 0:
		reset(nc)
	case 1:
		nc.(*net.TCPConn).CloseWrite()
		nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		io.Copy(io.Discard, nc)
	}
}
