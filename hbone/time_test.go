package hbone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/testnet"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"golang.org/x/net/http2"
)

// A hub is a listener in memory, which works in fake time, and the way to it.
type hub struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newHub() *hub { return &hub{make(chan net.Conn, 1000), make(chan struct{})} }

func (h *hub) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *hub) Close() error {
	select {
	case <-h.closed:
	default:
		close(h.closed)
	}
	return nil
}

func (h *hub) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 15008} }

func (h *hub) dial(context.Context, netip.AddrPort) (net.Conn, error) {
	client, server := testnet.Pair()
	h.conns <- server
	return client, nil
}

// ticking is how connections are driven in fake time, as in the proxy.
func ticking(t *testing.T) wire.Options {
	return wire.Options{Wheel: newWheel(t), Tick: time.Second}
}

// slowServer is a server in fake time.
func slowServer(t *testing.T) (*testServer, *hub) {
	h := newHub()
	s := newServer(t, func(o *ServerOptions) {
		o.Wire = ticking(t)
		o.TrustProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	return s, h
}

// meshOver makes a client's mesh connection in memory.
func meshOver(t *testing.T, h *hub, certs *Certificates) *testConn {
	nc, _ := h.dial(context.Background(), netip.AddrPort{})
	tc := newTestConn(t, tls.Client(nc, certs.ClientConfig(dest("192.0.2.2:15008", wayURI).expect)))
	tc.nc.SetDeadline(time.Time{})
	tc.greet()
	return tc
}

// nodeOver ends a mesh connection of a pool in memory.
func nodeOver(t *testing.T, h *hub, certs *Certificates) *testConn {
	nc, _ := h.Accept()
	tc := newTestConn(t, tls.Server(nc, certs.ServerConfig()))
	tc.nc.SetDeadline(time.Time{})
	tc.readPreface()
	tc.settle()
	return tc
}

// readPreface reads what a client's connection begins with.
func (tc *testConn) readPreface() {
	tc.t.Helper()
	b := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(tc.nc, b); err != nil || string(b) != http2.ClientPreface {
		tc.t.Fatalf("preface: got %q, %v", b, err)
	}
}

// keepAlive gives signs of life until the test ends, so that no PING comes.
func (tc *testConn) keepAlive() {
	for {
		select {
		case <-tc.t.Context().Done():
			return
		case <-time.After(5 * time.Second):
		}
		tc.fr.WriteRawFrame(0xfe, 0, 0, nil) // of a type that nobody knows
	}
}

// between wants that something took about as long as it should.
func between(t *testing.T, what string, since time.Time, least, most time.Duration) {
	t.Helper()
	if d := time.Since(since); d < least || d > most {
		t.Errorf("%s after %v, want %v to %v", what, d, least, most)
	}
}

// TestDeadClient: a client that is silent for 10 s is asked, and given up 20 s
// later; one that answers stays.
func TestDeadClient(t *testing.T) {
	for _, alive := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, l := slowServer(t)
			go s.ServeHBONE(l)
			tc := meshOver(t, l, s.client(curlURI))
			tc.connect(1, "10.0.0.7:8080")
			tc.wantStatus(1, 200, false)
			h := s.tunnel()
			start := time.Now()
			tc.wantPing(alive)
			between(t, "PING", start, 10*time.Second, 12*time.Second)
			if alive {
				for range 10 {
					tc.wantPing(true)
				}
				between(t, "eleven PINGs", start, 110*time.Second, 135*time.Second)
				h.wantNothing()
				return
			}
			tc.wantGoAway(1, http2.ErrCodeNo, "PING")
			between(t, "GOAWAY", start, 30*time.Second, 33*time.Second)
			if err := h.closed(); err == nil {
				t.Error("the tunnel ended in order")
			}
		})
	}
}

// TestDeadNode: the same for the other end of a mesh connection that we opened;
// the next tunnel gets a new one.
func TestDeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		p := newPool(t, s.client(curlURI), func(o *PoolOptions) { o.Wire, o.Dial = ticking(t), l.dial })
		h := p.open(dest("192.0.2.2:15008", wayURI))
		node := nodeOver(t, l, s.certs)
		f := wanted[*http2.MetaHeadersFrame](node)
		node.writeHeaders(f.StreamID, false, ":status", "200")
		h.want("opened")
		start := time.Now()
		node.wantPing(true)
		node.wantPing(false)
		go io.Copy(io.Discard, node.nc) // a dead node's kernel may still take what is sent
		time.Sleep(time.Minute)
		if err := h.closed(); err == nil {
			t.Error("the tunnel ended in order")
		}
		if n := p.Stats().Conns.Load(); n != 0 {
			t.Errorf("Conns is %d", n)
		}
		between(t, "all", start, 60*time.Second, 90*time.Second)
		h = p.open(dest("192.0.2.2:15008", wayURI))
		nodeOver(t, l, s.certs)
		h.abort(CodeCancel)
	})
}

// TestCertificateEnds: a mesh connection of either role ends with its peer's
// certificate, and asks for another before.
func TestCertificateEnds(t *testing.T) {
	short := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) }
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		tc := meshOver(t, l, s.client(curlURI, short))
		tc.connect(1, "10.0.0.7:8080")
		tc.wantStatus(1, 200, false)
		h := s.tunnel()
		start := time.Now()
		for range 5 {
			time.Sleep(5 * time.Second)
			tc.fr.WriteRawFrame(0xfe, 0, 0, nil) // a sign of life
		}
		tc.wantGoAway(1<<31-1, http2.ErrCodeNo, "") // come again, says the last half of its minute
		between(t, "the first GOAWAY", start, 29*time.Second, 32*time.Second)
		tc.wantPing(true)
		tc.wantGoAway(1, http2.ErrCodeNo, "")
		go tc.keepAlive()
		h.write("still here")
		tc.wantData(1, "still here", false)
		tc.wantGoAway(1, http2.ErrCodeNo, "expired")
		between(t, "the last GOAWAY", start, 59*time.Second, 62*time.Second)
		if err := h.closed(); err == nil {
			t.Error("the tunnel ended in order")
		}
		s.wantFault("expired")
		if n := s.Stats().Distrusted.Load(); n != 1 {
			t.Errorf("Distrusted is %d", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		s.certs.Set(must(ParsePEM(issued(s.ca, wayURI, short))))
		go s.ServeHBONE(l)
		p := newPool(t, s.client(curlURI), func(o *PoolOptions) { o.Wire, o.Dial = ticking(t), l.dial })
		h := p.open(dest("192.0.2.2:15008", wayURI))
		h.want("opened")
		time.Sleep(20 * time.Second)
		s.certs.Set(must(ParsePEM(issued(s.ca, wayURI)))) // renewed: connections have no part in it
		s.tunnel()
		time.Sleep(5 * time.Second)
		same := p.open(dest("192.0.2.2:15008", wayURI))
		same.want("opened")
		if n := p.Stats().Conns.Load(); n != 1 {
			t.Errorf("%d connections, want the one", n)
		}
		s.tunnel()
		time.Sleep(10 * time.Second) // and now its last half has begun
		h.wantNothing()
		next := p.open(dest("192.0.2.2:15008", wayURI))
		next.want("opened")
		if n := p.Stats().Conns.Load(); n != 2 {
			t.Errorf("%d connections, want another for what is new", n)
		}
		time.Sleep(27 * time.Second)
		for _, old := range []*heard{h, same} {
			if err := old.closed(); err == nil {
				t.Error("the tunnel ended in order")
			}
		}
		next.wantNothing()
		next.abort(CodeCancel)
		if n := p.Stats().Distrusted.Load(); n != 1 {
			t.Errorf("Distrusted is %d", n)
		}
	})
}

// TestHeaderDeadline: a PROXY header may take 10 s and no longer.
func TestHeaderDeadline(t *testing.T) {
	for _, at := range []time.Duration{9 * time.Second, 12 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, l := slowServer(t)
			go s.ServeProxy(l)
			nc, _ := l.dial(context.Background(), netip.AddrPort{})
			defer nc.Close()
			nc.Write(header()[:30])
			time.Sleep(at)
			nc.Write(header()[30:])
			synctest.Wait()
			late := at > HeaderTimeout
			if got := len(s.tunnels) == 0; got != late {
				t.Errorf("header complete after %v: refused is %v", at, got)
			}
			if late {
				s.wantFault("not received within 10s")
			}
			if got := s.Stats().BadHeaders.Load() == 1; got != late {
				t.Errorf("header complete after %v: counted is %v", at, got)
			}
		})
	}
}

// TestSilentClients: who connects and says nothing is given up: before TLS,
// after TLS, and behind SETTINGS.
func TestSilentClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		silent, _ := l.dial(context.Background(), netip.AddrPort{})
		defer silent.Close()
		nc, _ := l.dial(context.Background(), netip.AddrPort{})
		tc := tls.Client(nc, s.client(curlURI).ClientConfig(dest("192.0.2.2:15008", wayURI).expect))
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		synctest.Wait()
		if n := s.Stats().Conns.Load(); n != 2 {
			t.Errorf("Conns is %d, want 2", n)
		}
		time.Sleep(16 * time.Second)
		if n := s.Stats().Conns.Load(); n != 0 {
			t.Errorf("Conns is %d behind both deadlines", n)
		}
		if n := s.Stats().BadHandshakes.Load(); n != 1 {
			t.Errorf("BadHandshakes is %d, want the one that never came", n)
		}
	})
}

// TestStalledHandshakes: clients that stall in all places make room, after a
// second, for those that wait, and only for as many.
func TestStalledHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		for range MaxHandshakes {
			nc, _ := l.dial(context.Background(), netip.AddrPort{})
			defer nc.Close()
		}
		synctest.Wait()
		start := time.Now()
		tc := meshOver(t, l, s.client(curlURI))
		between(t, "the handshake of a good client", start, slowHandshake, slowHandshake+time.Millisecond)
		tc.connect(1, "10.0.0.7:8080")
		tc.wantStatus(1, 200, false)
		if n := s.Stats().BadHandshakes.Load(); n != 1 {
			t.Errorf("%d were ended, want one", n)
		}
		s.wantFault("while others waited")
		tc = meshOver(t, l, s.client(curlURI)) // into the place that is free
		between(t, "the next", start, slowHandshake, slowHandshake+time.Millisecond)
		tc.wantQuiet()
		time.Sleep(HandshakeTimeout)
		if n := s.Stats().BadHandshakes.Load(); n != MaxHandshakes {
			t.Errorf("%d handshakes failed, want %d", n, MaxHandshakes)
		}
	})
}

// TestConnectTimeout: TCP and TLS together have 10 s.
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		var wait time.Duration
		p := newPool(t, s.client(curlURI), func(o *PoolOptions) {
			o.Wire = ticking(t)
			o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(wait):
					return l.dial(ctx, a) // and nobody accepts
				}
			}
		})
		for _, d := range []*Dest{dest("192.0.2.2:15008", wayURI), NewPlainDest(behind)} {
			wait = time.Hour
			start := time.Now()
			h := p.open(d)
			time.Sleep(ConnectTimeout)
			if e := wantError[*DialError](t, h.closed(), "no answer in time"); !e.Timeout {
				t.Error("it is no timeout")
			}
			between(t, "no connection", start, ConnectTimeout, ConnectTimeout)
		}
		wait = 6 * time.Second
		start := time.Now()
		h := p.open(dest("192.0.2.2:15008", wayURI))
		time.Sleep(ConnectTimeout)
		wantError[*HandshakeError](t, h.closed())
		between(t, "no TLS", start, ConnectTimeout, ConnectTimeout)
		(<-l.conns).Close()
	})
}

// TestIdleConnections: one to a known endpoint is kept for an hour, any other
// for a minute.
func TestIdleConnections(t *testing.T) {
	for _, held := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, l := slowServer(t)
			go s.ServeHBONE(l)
			p := newPool(t, s.client(curlURI), func(o *PoolOptions) { o.Wire, o.Dial = ticking(t), l.dial })
			d := dest("192.0.2.2:15008", wayURI)
			want := unheldTimeout
			if held {
				p.Hold(d)
				want = IdleTimeout
			}
			h := p.open(d)
			h.want("opened")
			time.Sleep(want + time.Minute) // busy
			h.closeWrite()
			s.tunnel().closeWrite()
			h.want("end", "closed")
			time.Sleep(want - 5*time.Second)
			if n := p.Stats().Conns.Load(); n != 1 {
				t.Errorf("held %v: Conns is %d while there is time left", held, n)
			}
			time.Sleep(10 * time.Second)
			if n := p.Stats().Conns.Load() + s.Stats().Conns.Load(); n != 0 {
				t.Errorf("held %v: %d connections are left", held, n)
			}
			if n := len(p.groups); n != 0 {
				t.Errorf("held %v: %d groups are left", held, n)
			}
		})
	}
}

// TestAuthorityEnds: live connections are looked at now and then, because an
// authority may expire before the certificates that it signed.
func TestAuthorityEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		tc := meshOver(t, l, s.client(curlURI))
		synctest.Wait() // the first looks have been taken
		other := holding(issued(must(devca.New("other")), wayURI), CertificatesOptions{})
		s.certs.current.Store(other.Current()) // without a change that anybody is told of
		go io.Copy(io.Discard, tc.nc)
		go tc.keepAlive()
		time.Sleep(recheckEvery - time.Second)
		if n := s.Stats().Distrusted.Load(); n != 0 {
			t.Errorf("Distrusted is %d already", n)
		}
		time.Sleep(5 * time.Second)
		if n := s.Stats().Distrusted.Load(); n != 1 {
			t.Errorf("Distrusted is %d, want 1", n)
		}
	})
}
