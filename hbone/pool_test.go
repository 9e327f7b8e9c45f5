package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"golang.org/x/net/http2"
)

const nodeURI = "spiffe://cluster.local/ns/demo/sa/reviews"

// A testNode is a node tunnel that is driven by hand.
type testNode struct {
	t     *testing.T
	l     net.Listener
	certs *Certificates
}

func newNode(t *testing.T, certs *Certificates) *testNode {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	return &testNode{t, l, certs}
}

// accept takes a mesh connection and announces settings.
func (n *testNode) accept(settings ...http2.Setting) *testConn {
	n.t.Helper()
	n.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	nc, err := n.l.Accept()
	if err != nil {
		n.t.Fatal(err)
	}
	tc := newTestConn(n.t, tls.Server(nc, n.certs.ServerConfig()))
	tc.readPreface()
	tc.settle(settings...)
	return tc
}

// wantConnect wants a CONNECT and returns its stream.
func (tc *testConn) wantConnect(authority string) uint32 {
	tc.t.Helper()
	f := wanted[*http2.MetaHeadersFrame](tc)
	var names []string
	for _, x := range f.Fields {
		names = append(names, x.Name)
	}
	if got := strings.Join(names, " "); got != ":method :authority" || f.PseudoValue("method") != "CONNECT" || f.PseudoValue("authority") != authority || f.StreamEnded() {
		tc.t.Fatalf("got %v, want CONNECT %s", f, authority)
	}
	return f.StreamID
}

func (tc *testConn) answer(id uint32, status string, end bool) {
	tc.t.Helper()
	tc.writeHeaders(id, end, ":status", status)
}

// TestOpen: one tunnel from CONNECT to its end, as a node tunnel sees it.
func TestOpen(t *testing.T) {
	s := newServer(t)
	n := newNode(t, s.client(nodeURI))
	p := newPool(t, s.client(curlURI))
	h := p.open(dest(n.l.Addr().String(), nodeURI))
	node := n.accept()
	if got := node.setting(http2.SettingEnablePush); got != 0 {
		t.Errorf("ENABLE_PUSH is %d", got)
	}
	id := node.wantConnect("10.0.0.7:8080")
	h.wantNothing()
	node.answer(id, "103", false)
	node.answer(id, "200", false)
	h.want("opened")
	if pe := h.tun.Peer(); pe.How != peer.HBONE || pe.Destination != behind {
		t.Errorf("got %+v", pe)
	}
	h.write("hello")
	node.wantData(id, "hello", false)
	h.closeWrite()
	node.wantData(id, "", true)
	node.writeData(id, "good day", true)
	h.want("data good day", "end", "closed")
	node.wantQuiet()
}

// TestSingleFlight: who comes while a connection is being made waits for it.
func TestSingleFlight(t *testing.T) {
	s := newServer(t)
	gate := make(chan struct{})
	p := newPool(t, s.client(curlURI), func(o *PoolOptions) {
		o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			<-gate
			return dialTCP(ctx, a)
		}
	})
	d := dest(s.mesh(), wayURI)
	var hs [80]*heard
	var wg sync.WaitGroup
	for i := range hs {
		wg.Go(func() { hs[i] = p.open(d) })
	}
	wg.Wait()
	close(gate)
	for _, h := range hs {
		h.want("opened")
	}
	for range 20 {
		p.open(d).want("opened")
	}
	if n := p.Stats().Dials.Load(); n != 1 {
		t.Errorf("dialled %d times, want once", n)
	}
}

// TestKeys: a connection is shared by those who agree in the address and in who
// must answer there, whatever lies behind.
func TestKeys(t *testing.T) {
	s := newServer(t)
	addr := s.mesh()
	other := s.mesh()
	p := newPool(t, s.client(curlURI))
	open := func(d *Dest) { p.open(d).want("opened") }
	open(dest(addr, wayURI))
	open(NewDest(netip.MustParseAddrPort(addr), netip.MustParseAddrPort("10.0.0.7:9090"), dest(addr, wayURI).expect))
	if n := p.Stats().Dials.Load(); n != 1 {
		t.Errorf("another port behind: dialled %d times, want once", n)
	}
	open(dest(addr, wayURI, nodeURI))
	if n := p.Stats().Dials.Load(); n != 2 {
		t.Errorf("one more identity: dialled %d times, want twice", n)
	}
	open(dest(addr, nodeURI, wayURI))
	if n := p.Stats().Dials.Load(); n != 2 {
		t.Errorf("the same in another order: dialled %d times, want twice", n)
	}
	open(dest(other, wayURI))
	if n := p.Stats().Dials.Load(); n != 3 {
		t.Errorf("another address: dialled %d times, want three times", n)
	}
	e := wantError[*HandshakeError](t, p.open(dest(addr, nodeURI)).closed(), wayURI, nodeURI)
	if !e.WrongIdentity() || p.Stats().TLS.Count(TLSWrongIdentity) != 1 {
		t.Errorf("got %v, counted %d", e, p.Stats().TLS.Count(TLSWrongIdentity))
	}
	wantError[*HandshakeError](t, p.open(dest(addr)).closed(), "no identity is expected")
}

// TestRefusedByServer: under TLS 1.3 a server looks at our certificate when our
// part of the handshake is over. The tunnels fail with a clear error all the
// same.
func TestRefusedByServer(t *testing.T) {
	s := newServer(t)
	foreign := issued(s.ca, "spiffe://other.example/ns/demo/sa/curl")
	p := newPool(t, holding(foreign, CertificatesOptions{}))
	d := dest(s.mesh(), wayURI)
	for range 5 {
		hs := []*heard{p.open(d), p.open(d)}
		for _, h := range hs {
			e := wantError[*HandshakeError](t, h.closed(), "refused us")
			if e.WrongIdentity() {
				t.Error("it passes for another identity")
			}
		}
	}
	if got, dials := p.Stats().TLS.Count(TLSRefusedByPeer), p.Stats().Dials.Load(); got != dials || p.Stats().DialErrors.Load() != dials {
		t.Errorf("refused_by_peer %d, DialErrors %d of %d dials", got, p.Stats().DialErrors.Load(), dials)
	}
	wantCount(t, "Conns", p.Stats().Conns.Load, 0)
}

// TestSilentNode: one that ends the connection before it has said anything is
// told from one that ends it later.
func TestSilentNode(t *testing.T) {
	s := newServer(t)
	n := newNode(t, s.client(nodeURI))
	p := newPool(t, s.client(curlURI))
	d := dest(n.l.Addr().String(), nodeURI)
	h := p.open(d)
	nc := must(n.l.Accept())
	tc := tls.Server(nc, n.certs.ServerConfig())
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	tc.Close()
	wantError[*HandshakeError](t, h.closed(), "before the peer said anything")
	h = p.open(d)
	node := n.accept()
	node.wantConnect("10.0.0.7:8080")
	node.nc.Close()
	if err := h.closed(); err == nil || !strings.Contains(err.Error(), "mesh connection lost") {
		t.Errorf("got %v", err)
	}
}

// TestConnectAnswers: anything but 200 is a refusal with its status.
func TestConnectAnswers(t *testing.T) {
	s := newServer(t)
	n := newNode(t, s.client(nodeURI))
	p := newPool(t, s.client(curlURI))
	d := dest(n.l.Addr().String(), nodeURI)
	h := p.open(d)
	node := n.accept()
	node.answer(node.wantConnect("10.0.0.7:8080"), "200", false)
	h.want("opened")
	for _, row := range []struct {
		status string
		end    bool
		want   int
	}{{"400", true, 400}, {"401", true, 401}, {"503", true, 503}, {"503", false, 503}, {"204", false, 204}, {"200", true, 200}} {
		h := p.open(d)
		id := node.wantConnect("10.0.0.7:8080")
		node.answer(id, row.status, row.end)
		if e := wantError[*Refusal](t, h.closed(), row.status); e.Status != row.want {
			t.Errorf("%s: got %v", row.status, e)
		}
		node.wantReset(id, http2.ErrCodeCancel)
	}
	h = p.open(d)
	id := node.wantConnect("10.0.0.7:8080")
	node.writeData(id, "too early", false)
	node.wantReset(id, http2.ErrCodeProtocol)
	if err := h.closed(); err == nil {
		t.Error("DATA before the head passed")
	}
	if n := p.Stats().Dials.Load(); n != 1 {
		t.Errorf("dialled %d times, want once", n)
	}
}

// TestUnprocessed: what the node tunnel never looked at may be tried again.
func TestUnprocessed(t *testing.T) {
	s := newServer(t)
	n := newNode(t, s.client(nodeURI))
	p := newPool(t, s.client(curlURI))
	d := dest(n.l.Addr().String(), nodeURI)
	first, second := p.open(d), p.open(d)
	node := n.accept()
	a, b := node.wantConnect("10.0.0.7:8080"), node.wantConnect("10.0.0.7:8080")
	node.answer(a, "200", false)
	first.want("opened")
	node.fr.WriteRSTStream(b, http2.ErrCodeRefusedStream)
	if e := wantError[*UnprocessedError](t, second.closed()); e.GoneAway {
		t.Error("a refused stream passes for gone away")
	}
	third := p.open(d)
	node.wantConnect("10.0.0.7:8080")
	node.fr.WriteGoAway(a, http2.ErrCodeNo, nil)
	if e := wantError[*UnprocessedError](t, third.closed()); !e.GoneAway {
		t.Error("a stream beyond GOAWAY passes for refused")
	}
	fourth := p.open(d) // on a new connection
	node2 := n.accept()
	node2.answer(node2.wantConnect("10.0.0.7:8080"), "200", false)
	fourth.want("opened")
	first.write("goes on")
	node.wantData(a, "goes on", false)
	first.closeWrite()
	node.wantData(a, "", true)
	node.writeData(a, "", true)
	first.want("end", "closed")
	node.wantEOF() // the old connection ends with its last stream
	node.nc.Close()
	wantCount(t, "Conns", p.Stats().Conns.Load, 1)
	fifth := p.open(d)
	node2.fr.WriteRSTStream(node2.wantConnect("10.0.0.7:8080"), http2.ErrCodeInternal)
	if e := wantError[*ResetError](t, fifth.closed()); e.Code != CodeInternal {
		t.Errorf("got %v", e)
	}
}

// TestFewStreams: node tunnels that allow few streams get more connections, and
// nobody waits for a stream to end.
func TestFewStreams(t *testing.T) {
	s := newServer(t)
	n := newNode(t, s.client(nodeURI))
	p := newPool(t, s.client(curlURI))
	d := dest(n.l.Addr().String(), nodeURI)
	var hs []*heard
	var nodes []*testConn
	for i := range 5 {
		if i%2 == 0 {
			hs = append(hs, p.open(d))
			nodes = append(nodes, n.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2}))
		} else {
			hs = append(hs, p.open(d))
		}
		node := nodes[len(nodes)-1]
		node.answer(node.wantConnect("10.0.0.7:8080"), "200", false)
		hs[i].want("opened")
	}
	if n := p.Stats().Conns.Load(); n != 3 {
		t.Errorf("%d connections for five tunnels, want 3", n)
	}
	hs[0].abort(CodeCancel)
	hs[0].closed()
	h := p.open(d) // the place that has become free
	nodes[0].wantReset(1, http2.ErrCodeCancel)
	nodes[0].answer(nodes[0].wantConnect("10.0.0.7:8080"), "200", false)
	h.want("opened")
}

// TestFull: a destination gets so many connections and no more; who finds no
// room is told so.
func TestFull(t *testing.T) {
	s := newServer(t)
	n := newNode(t, s.client(nodeURI))
	p := newPool(t, s.client(curlURI))
	d := dest(n.l.Addr().String(), nodeURI)
	for range maxConns {
		h := p.open(d)
		node := n.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		node.answer(node.wantConnect("10.0.0.7:8080"), "200", false)
		h.want("opened")
	}
	if err := p.open(d).closed(); err == nil || !strings.Contains(err.Error(), "64 mesh connections to "+n.l.Addr().String()+" are full") {
		t.Errorf("got %v", err)
	}
	if n := p.Stats().Full.Load(); n != 1 {
		t.Errorf("Full is %d", n)
	}
}

// TestSpread: a crowd gets a second connection; if it cannot be made, the crowd
// stays where it is and the dial is not repeated for each who joins it.
func TestSpread(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one core needs one connection")
	}
	for _, works := range []bool{true, false} {
		s := newServer(t)
		var dials atomic.Int64
		p := newPool(t, s.client(curlURI), func(o *PoolOptions) {
			o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				if dials.Add(1) > 1 && !works {
					return nil, errors.New("no route")
				}
				return dialTCP(ctx, a)
			}
		})
		d := dest(s.mesh(), wayURI)
		p.open(d).want("opened")
		for range spreadAt - 1 {
			p.open(d).want("opened")
		}
		if n := dials.Load(); n != 1 {
			t.Fatalf("%d dials for %d tunnels, want one", n, spreadAt)
		}
		p.open(d).want("opened")
		if works {
			wantCount(t, "Conns", p.Stats().Conns.Load, 2)
		} else {
			wantCount(t, "DialErrors", p.Stats().DialErrors.Load, 1)
		}
		for range 20 {
			p.open(d).want("opened")
		}
		if n := dials.Load(); n != 2 {
			t.Errorf("works %v: %d dials, want 2", works, n)
		}
		conns, _ := p.group(d).current()
		if works && (conns[0].Streams() != spreadAt+1 || conns[1].Streams() != 20) {
			t.Errorf("%d and %d tunnels, want the new ones on the new connection", conns[0].Streams(), conns[1].Streams())
		}
	}
}

// TestDialFails: all who wait hear why, and the next tries again.
func TestDialFails(t *testing.T) {
	s := newServer(t)
	var down atomic.Bool
	down.Store(true)
	gate := make(chan struct{}, 10)
	p := newPool(t, s.client(curlURI), func(o *PoolOptions) {
		o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			<-gate
			if down.Load() {
				return nil, errors.New("no route")
			}
			return dialTCP(ctx, a)
		}
	})
	d := dest(s.mesh(), wayURI)
	a, b := p.open(d), p.open(d)
	gate <- struct{}{}
	for _, h := range []*heard{a, b} {
		if e := wantError[*DialError](t, h.closed(), "no route"); e.Timeout {
			t.Error("it passes for a timeout")
		}
	}
	if n := p.Stats().Dials.Load(); n != 1 {
		t.Errorf("dialled %d times, want once", n)
	}
	down.Store(false)
	gate <- struct{}{}
	p.open(d).want("opened")
	wantCount(t, "groups", func() int64 { p.mu.Lock(); defer p.mu.Unlock(); return int64(len(p.groups)) }, 1)
}

// TestPlainTunnels: bare TCP has the same events.
func TestPlainTunnels(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	p := newPool(t, nil)
	d := NewPlainDest(netip.MustParseAddrPort(l.Addr().String()))
	h := p.open(d)
	h.want("opened")
	app := must(l.Accept()).(*net.TCPConn)
	app.Write([]byte("hi"))
	h.want("data hi")
	h.closeWrite()
	if n, err := app.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes, want FIN", n)
	}
	app.Close()
	h.want("end", "closed")
	h = p.open(d)
	h.want("opened")
	app = must(l.Accept()).(*net.TCPConn)
	h.abort(CodeCancel)
	if err := h.closed(); err != ErrLocalAbort {
		t.Errorf("got %v, want %v", err, ErrLocalAbort)
	}
	app.Close()
	l.Close()
	wantError[*DialError](t, p.open(d).closed(), "connect to "+l.Addr().String())
	e := wantError[*HandshakeError](t, p.open(dest(l.Addr().String(), wayURI)).closed(), "no certificates")
	if ReasonOf(e) != TLSOwnCertificate {
		t.Errorf("a mesh destination without certificates: %v", ReasonOf(e))
	}
	if got := p.Stats(); got.Plain.Load() != 3 || got.Tunnels.Load() != 4 {
		t.Errorf("%d of %d tunnels counted as plain text, want 3 of 4", got.Plain.Load(), got.Tunnels.Load())
	}
}

// TestAbortWhileDialling: the handler hears Closed at once; a mesh connection is
// made all the same and serves the next, a plain dial is given up.
func TestAbortWhileDialling(t *testing.T) {
	s := newServer(t)
	gate, gaveUp := make(chan struct{}), make(chan struct{}, 1)
	p := newPool(t, s.client(curlURI), func(o *PoolOptions) {
		o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			select {
			case <-gate:
				return dialTCP(ctx, a)
			case <-ctx.Done():
				gaveUp <- struct{}{}
				return nil, ctx.Err()
			}
		}
	})
	d := dest(s.mesh(), wayURI)
	h, plain, stays := p.open(d), p.open(NewPlainDest(behind)), p.open(d)
	for _, h := range []*heard{h, plain} {
		h.abort(CodeCancel)
		h.abort(CodeCancel)
		h.want("failed")
		if h.err != ErrLocalAbort {
			t.Errorf("got %v, want %v", h.err, ErrLocalAbort)
		}
	}
	select {
	case <-gaveUp:
	case <-time.After(patience):
		t.Error("the plain dial goes on")
	}
	close(gate)
	stays.want("opened")
	h.wantNothing()
	plain.wantNothing()
	s.tunnel()
	select {
	case <-s.tunnels:
		t.Error("a CONNECT was sent for a tunnel that nobody wanted")
	default:
	}
}

// TestRelease: when the last endpoint has left, nobody new gets the old
// connection, and what is under way finishes.
func TestRelease(t *testing.T) {
	s := newServer(t)
	p := newPool(t, s.client(curlURI))
	d := dest(s.mesh(), wayURI)
	p.Hold(d)
	p.Hold(d)
	h := p.open(d)
	h.want("opened")
	far := s.tunnel()
	p.Release(d)
	p.open(d).want("opened")
	s.tunnel()
	if n := p.Stats().Dials.Load(); n != 1 {
		t.Errorf("one endpoint is left, and %d dials were made", n)
	}
	p.Release(d)
	p.open(d).want("opened")
	if n := p.Stats().Dials.Load(); n != 2 {
		t.Errorf("no endpoint was left, and %d dials were made, want 2", n)
	}
	h.write("finish")
	far.want("data finish")
	far.closeWrite()
	h.want("end")
	h.closeWrite()
	h.want("closed")
	if len(p.held) != 0 {
		t.Errorf("%d destinations are held", len(p.held))
	}
}

// TestPoolClose: who waits hears, what is under way finishes, nobody new.
func TestPoolClose(t *testing.T) {
	s := newServer(t)
	gate := make(chan struct{})
	p := newPool(t, s.client(curlURI), func(o *PoolOptions) {
		o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			if a.Port() == 1 {
				<-gate
			}
			return dialTCP(ctx, a)
		}
	})
	d := dest(s.mesh(), wayURI)
	open := p.open(d)
	open.want("opened")
	far := s.tunnel()
	waits := p.open(dest("127.0.0.1:1", wayURI))
	p.Close()
	p.Close()
	if err := waits.closed(); err != ErrClosed {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
	if err := p.open(d).closed(); err != ErrClosed {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
	close(gate)
	open.closeWrite()
	far.want("end")
	far.closeWrite()
	open.want("end", "closed")
	wantCount(t, "Conns", p.Stats().Conns.Load, 0)
	wantCount(t, "the server's Conns", s.Stats().Conns.Load, 0)
}

// TestPoolRace: many open, abort and lose tunnels while connections go away;
// every handler hears one end.
func TestPoolRace(t *testing.T) {
	s := newServer(t)
	s.refuse = func(tun Tunnel) error { return nil }
	p := newPool(t, s.client(curlURI))
	addr := s.mesh()
	d := dest(addr, wayURI)
	p.Hold(d)
	go func() {
		for h := range s.tunnels {
			if h == nil {
				return
			}
			h.write("x")
			h.closeWrite()
		}
	}()
	const each = 60
	var wg sync.WaitGroup
	var opened, failed atomic.Int64
	for g := range 4 {
		wg.Go(func() {
			for i := range each {
				h := p.open(d)
				switch (i + g) % 4 {
				case 0:
					h.abort(CodeCancel)
				case 1:
					h.want1("opened", &opened)
					h.abort(CodeCancel)
				default:
					if h.want1("opened", &opened) {
						h.closeWrite()
					}
				}
				if err := h.closed(); err != nil {
					failed.Add(1)
				}
				select {
				case e := <-h.events:
					t.Errorf("%q behind Closed", e)
				default:
				}
			}
		})
	}
	for range 20 { // endpoints come and go
		p.Release(d)
		p.Hold(d)
		runtime.Gosched()
	}
	wg.Wait()
	s.tunnels <- nil
	t.Logf("%d opened, %d failed, %d dials", opened.Load(), failed.Load(), p.Stats().Dials.Load())
	p.Close()
	wantCount(t, "Conns", p.Stats().Conns.Load, 0)
}

// want1 waits for an event or the end, and reports whether it was the event.
func (h *heard) want1(event string, n *atomic.Int64) bool {
	switch e := h.next(); e {
	case event:
		n.Add(1)
		return true
	case "closed", "failed":
		h.events <- e
	default:
		h.t.Errorf("tunnel: got %q", e)
	}
	return false
}
