package proxy_test

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy"
)

const (
	question = "GET /api/v1/items/12345?expand=owner HTTP/1.1\r\nHost: items.demo\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Request-ID: 6f1c7f0a-53b8\r\n\r\n"
	reply    = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
)

// A course is a proxy between two ends that are built on hbone alone: what is
// counted in this process is counted of all three.
type course struct {
	t      testing.TB
	proxy  *proxy.Proxy
	pool   *hbone.Pool // the client's
	dest   *hbone.Dest
	mesh   netip.AddrPort
	expect []peer.ID
	plain  string // where PROXY connections come in
}

func identity(t testing.TB, ca *devca.CA, id string) *hbone.Certificates {
	t.Helper()
	leaf, err := ca.Issue([]string{id})
	if err != nil {
		t.Fatal(err)
	}
	set, err := hbone.ParsePEM(hbone.PEM{Chain: leaf.Chain, Key: leaf.Key, Roots: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := hbone.NewCertificates(hbone.CertificatesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Set(set)
	return c
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// newCourse starts one. Its endpoint speaks HBONE, or plain TCP if sandwiched.
func newCourse(t testing.TB, sandwiched bool, tune ...func(*hbone.ServerOptions, *proxy.Options)) *course {
	t.Helper()
	return newCourseOf(t, sandwiched, plainDoc(once), tune...)
}

func newCourseOf(t testing.TB, sandwiched bool, doc string, tune ...func(*hbone.ServerOptions, *proxy.Options)) *course {
	t.Helper()
	ca, err := devca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	far := listen(t)
	answer := func(_ *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) { return &answerer{tun: tun}, nil }
	so := hbone.ServerOptions{Accept: answer, Certificates: identity(t, ca, "spiffe://cluster.local/ns/shop/sa/a")}
	waypointID := "spiffe://cluster.local/ns/shop/sa/waypoint"
	loops, err := wire.NewLoops(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	po := proxy.Options{
		Certificates: identity(t, ca, waypointID), Registry: filters.NewRegistry(), Sandwiched: sandwiched, Loops: loops,
		Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", far.Addr().String())
		},
	}
	for _, f := range tune {
		f(&so, &po)
	}
	server := hbone.NewServer(so)
	if sandwiched {
		go server.ServePlain(far)
	} else {
		go server.ServeHBONE(far)
	}
	p := proxy.New(po)
	p.Apply(decode(t, doc))
	mesh, header := listen(t), listen(t)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- p.Serve(ctx, proxy.Listeners{HBONE: []net.Listener{mesh}, Proxy: []net.Listener{header}})
	}()
	c := &course{t: t, proxy: p, plain: header.Addr().String()}
	c.pool = hbone.NewPool(hbone.PoolOptions{Certificates: identity(t, ca, devmeshClient)})
	id, err := peer.ParseID(waypointID)
	if err != nil {
		t.Fatal(err)
	}
	c.mesh, c.expect = mesh.Addr().(*net.TCPAddr).AddrPort(), []peer.ID{id}
	c.dest = hbone.NewDest(mesh.Addr().(*net.TCPAddr).AddrPort(), netip.MustParseAddrPort("10.96.0.1:80"), []peer.ID{id})
	t.Cleanup(func() {
		stop()
		<-served
		end, cancel := context.WithCancel(context.Background())
		cancel()
		c.pool.Close()
		p.Shutdown(end)
		server.Shutdown(end)
		loops.Close()
	})
	return c
}

const devmeshClient = "spiffe://cluster.local/ns/demo/sa/curl"

// An answerer replies to each question, in the turn that brings it.
type answerer struct {
	tun   hbone.Tunnel
	got   int
	after time.Duration // 0: at once
	ends  string        // what a question ends with; "" is an empty line
}

func (a *answerer) Opened(*turn.Turn) {}
func (a *answerer) Left(*turn.Turn)   {}
func (a *answerer) Data(t *turn.Turn, p []byte, end bool) {
	a.tun.Consume(t, len(p))
	// The proxy writes a question its own way; an empty line ends it all the same.
	mark := cmp.Or(a.ends, "\r\n\r\n")
	if a.got += len(p); len(p) >= len(mark) && string(p[len(p)-len(mark):]) == mark {
		a.got = 0
		if a.after > 0 {
			time.AfterFunc(a.after, a.later)
			return
		}
		a.tun.Write(t, replyBytes)
	}
	if end {
		a.tun.CloseWrite(t)
	}
}
func (a *answerer) Closed(*turn.Turn, error) {}

func (a *answerer) later() {
	var t turn.Turn
	a.tun.Write(&t, replyBytes)
	t.End()
}

var questionBytes, replyBytes = []byte(question), []byte(reply)

// An asker asks so many times, each time in the turn that brings the answer.
type asker struct {
	tun    hbone.Tunnel
	asks   []byte
	left   int
	got    int
	done   chan struct{}
	failed error
}

func (a *asker) Opened(t *turn.Turn) { a.done <- struct{}{} }
func (a *asker) Left(*turn.Turn)     {}
func (a *asker) Data(t *turn.Turn, p []byte, end bool) {
	a.tun.Consume(t, len(p))
	a.got += len(p)
	if len(p) < 5 || string(p[len(p)-5:]) != "hello" {
		return
	}
	a.got = 0
	if a.left--; a.left > 0 {
		a.tun.Write(t, a.asks)
		return
	}
	a.done <- struct{}{}
}
func (a *asker) Closed(_ *turn.Turn, err error) { a.failed = err; close(a.done) }

func (c *course) open() *asker {
	c.t.Helper()
	a := &asker{done: make(chan struct{}, 1), asks: questionBytes}
	var t turn.Turn
	a.tun = c.pool.Open(&t, c.dest, a)
	t.End()
	if _, ok := <-a.done; !ok {
		c.t.Fatal("no tunnel: ", a.failed)
	}
	return a
}

// ask asks n times.
func (a *asker) ask(t *testing.T, n int) {
	t.Helper()
	a.left = n
	var tn turn.Turn
	a.tun.Write(&tn, a.asks)
	tn.End()
	select {
	case _, ok := <-a.done:
		if !ok {
			t.Fatal("closed: ", a.failed)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
}

// TestAllocsPerRequest: a request allocates nothing here, HBONE to HBONE. Each
// of the four ends of its two connections reads one TLS record for it, for which
// crypto/tls allocates one object; credit and the like add a record now and then.
func TestAllocsPerRequest(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build allocates for its checks")
	}
	c := newCourse(t, false)
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
	t.Logf("%.3f allocations a request in the whole process, 4 of them crypto/tls's; %.1f bytes", per, float64(after.TotalAlloc-before.TotalAlloc)/n)
	if per > 4.05 {
		t.Errorf("%.3f allocations a request, want the 4 of crypto/tls", per)
	}
	if got := c.proxy.Stats().Requests.Load(); got != 2000+n {
		t.Errorf("%d requests counted", got)
	}
}

// TestAllocsPerPlainRequest: from a PROXY connection to a plain one there is no
// TLS, and so nothing at all.
func TestAllocsPerPlainRequest(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build allocates for its checks")
	}
	c := newCourse(t, true)
	nc := c.proxyConn()
	defer nc.Close()
	p := make([]byte, 4096)
	ask := func() {
		if _, err := nc.Write(questionBytes); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 5 || string(p[got-5:got]) != "hello"; {
			n, err := nc.Read(p[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
	for range 1000 {
		ask()
	}
	old := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(old)
	const n = 10000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		ask()
	}
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / n
	t.Logf("%.3f allocations a request", per)
	if per > 0.05 {
		t.Errorf("%.3f allocations a request, want 0", per)
	}
}

// proxyConn is a client's connection behind a PROXY header.
func (c *course) proxyConn() net.Conn {
	c.t.Helper()
	nc, err := net.Dial("tcp", c.plain)
	if err != nil {
		c.t.Fatal(err)
	}
	h, err := proxyproto.Append(nil, proxyproto.Header{
		Source: netip.MustParseAddrPort("10.1.0.9:40000"), Destination: netip.MustParseAddrPort("10.96.0.1:80"), Identity: devmeshClient,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := nc.Write(h); err != nil {
		c.t.Fatal(err)
	}
	return nc
}

// inUse is what the process holds when nothing happens: heap and stacks.
func inUse() int64 {
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestIdleTunnels: a thousand CONNECT streams that have served a request and are
// idle: no goroutine for any of them, and at most 4 KiB each, with what the
// client's end of them takes in this process.
func TestIdleTunnels(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build takes memory for its checks")
	}
	c := newCourse(t, false)
	const n = 1000
	c.open().ask(t, 10)
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
}

// bare makes a connection a descriptor, which takes no memory of this process
// and is the caller's to close.
func bare(t *testing.T, nc net.Conn) (fd int) {
	t.Helper()
	f, err := nc.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err = syscall.Dup(int(f.Fd())) // which makes it a blocking one
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	nc.Close()
	return fd
}

// TestIdleProxyConnections: a thousand connections behind PROXY headers, idle
// after a request: a goroutine each, and at most 7 KiB, of which 4 are its
// stack: Go gives none back below that.
func TestIdleProxyConnections(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build takes memory for its checks")
	}
	c := newCourse(t, true)
	const n = 1000
	p, fds := make([]byte, 4096), make([]int, 0, n+1)
	t.Cleanup(func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	})
	ask := func() {
		fd := bare(t, c.proxyConn())
		fds = append(fds, fd)
		if _, err := syscall.Write(fd, questionBytes); err != nil {
			t.Fatal(err)
		}
		if n, err := syscall.Read(fd, p); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	ask()
	goroutines, before := runtime.NumGoroutine(), inUse()
	for range n {
		ask()
	}
	per := (inUse() - before) / n
	more := runtime.NumGoroutine() - goroutines
	t.Logf("%d bytes and %d goroutines in all for %d idle connections", per, more, n)
	if per > 7<<10 {
		t.Errorf("an idle connection takes %d bytes, want at most 7 KiB", per)
	}
	if more > n+16 {
		t.Errorf("%d goroutines more for %d connections", more, n)
	}
}
