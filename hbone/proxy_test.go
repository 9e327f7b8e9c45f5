package hbone

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// header returns a PROXY header of curl's to 10.0.0.7:8080.
func header(edit ...func(*proxyproto.Header)) []byte {
	h := proxyproto.Header{Source: netip.MustParseAddrPort("10.0.0.9:41234"), Destination: behind, Identity: curlURI}
	for _, e := range edit {
		e(&h)
	}
	return must(proxyproto.Append(nil, h))
}

// dialTunnel connects to a listener of TCP tunnels.
func dialTunnel(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn)
}

// wantReset wants that a connection was reset and not ended.
func wantReset(t *testing.T, nc net.Conn) {
	t.Helper()
	if _, err := nc.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a reset", err)
	}
}

// TestProxyTunnels: on both loopback addresses, what the header says is known
// and the bytes behind it are the tunnel's.
func TestProxyTunnels(t *testing.T) {
	for _, on := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := newServer(t)
		nc := dialTunnel(t, s.listen(on, s.ServeProxy))
		nc.Write(append(header(func(h *proxyproto.Header) { h.Service = "Reviews.shop.svc" }), "hello"...))
		h := s.tunnel()
		p := h.tun.Peer()
		if p.How != peer.PROXY || p.ID != testID(curlURI) || p.Destination != behind || p.Source.String() != "10.0.0.9:41234" || p.Forwarded.Host != "reviews.shop.svc" {
			t.Errorf("%s: got %+v", on, p)
		}
		if p.Local.String() != nc.RemoteAddr().String() {
			t.Errorf("%s: local is %s", on, p.Local)
		}
		h.want("data hello")
		h.write("good day")
		h.closeWrite()
		if got, err := io.ReadAll(nc); string(got) != "good day" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		nc.Write([]byte("more")) // half-closed
		nc.CloseWrite()
		h.want("data more", "end", "closed")
		if n := s.Stats().Tunnels.Load(); n != 1 {
			t.Errorf("Tunnels is %d", n)
		}
		wantCount(t, "Conns", s.Stats().Conns.Load, 0)
	}
}

// TestRestingTunnels: the reader of a tunnel at rest sheds its stack, the server
// counts it, and the tunnel goes on.
func TestRestingTunnels(t *testing.T) {
	s := newServer(t, func(o *ServerOptions) { o.Wire.Loops = nil }) // which have no stack to shed
	nc := dialTunnel(t, s.listen("127.0.0.1:0", s.ServeProxy))
	nc.Write(append(header(), "hello"...))
	h := s.tunnel()
	h.want("data hello")
	eventually(t, "the reader sheds its stack", func() bool { return s.Stats().Wire.Sheds.Load() > 0 })
	nc.Write([]byte("more"))
	nc.CloseWrite()
	h.want("data more", "end")
	h.closeWrite()
	h.want("closed")
}

// TestProxyPieces: the longest header there can be, byte by byte and cut in two
// at many places.
func TestProxyPieces(t *testing.T) {
	s := newServer(t)
	addr := s.listen("127.0.0.1:0", s.ServeProxy)
	long := "spiffe://cluster.local/ns/demo/sa/" + strings.Repeat("a", 2048-len("spiffe://cluster.local/ns/demo/sa/"))
	whole := header(func(h *proxyproto.Header) { h.Identity = long })
	all := append(whole, "hello"...)
	for cut := 1; cut < len(all); cut += 97 {
		nc := dialTunnel(t, addr)
		nc.Write(all[:cut])
		if cut < len(whole) {
			wantCount(t, "Conns", s.Stats().Conns.Load, 1)
		}
		nc.Write(all[cut:])
		h := s.tunnel()
		if got := h.tun.Peer().ID.String(); got != long {
			t.Fatalf("cut at %d: got %.50s", cut, got)
		}
		got := ""
		for got != "hello" {
			got += strings.TrimPrefix(h.next(), "data ")
		}
		h.abort(CodeCancel)
		wantReset(t, nc)
		h.closed()
		wantCount(t, "Conns", s.Stats().Conns.Load, 0)
	}
	nc := dialTunnel(t, addr)
	for _, b := range all {
		nc.Write([]byte{b})
	}
	if got := s.tunnel().tun.Peer().ID.String(); got != long {
		t.Errorf("byte by byte: got %.50s", got)
	}
}

// TestBadProxyHeaders: each is refused by RST, counted and told; the server
// lives.
func TestBadProxyHeaders(t *testing.T) {
	s := newServer(t)
	addr := s.listen("127.0.0.1:0", s.ServeProxy)
	good := header()
	broken := func(at int, b byte) string {
		h := append([]byte(nil), good...)
		h[at] = b
		return string(h)
	}
	for _, row := range []struct{ name, send, words string }{
		{"no header", "GET / HTTP/1.1\r\n\r\n", "signature"},
		{"signature", broken(5, 'x'), "signature"},
		{"version", broken(12, 0x31), "version 3"},
		{"UDP", broken(13, 0x12), ""},
		{"addresses cut", string(good[:14]) + "\x00\x04abcd", ""},
		{"TLV cut", string(good[:14]) + "\x00\x0e" + string(good[16:28]) + "\xd0\x00", ""},
		{"too long", string(good[:14]) + "\xff\xff", "at most"},
		{"UNSPEC", string(header(func(h *proxyproto.Header) { h.Source = netip.MustParseAddrPort("[::1]:1") })), "address family must be the same"},
		{"LOCAL", string(header(func(h *proxyproto.Header) { h.Local = true })), "LOCAL"},
		{"version 1", "PROXY TCP4 10.0.0.9 10.0.0.7 41234 8080\r\n", "signature"},
		{"identity", string(header(func(h *proxyproto.Header) { h.Identity = "spiffe://cluster.local/curl" })), "TLV 0xD0"},
	} {
		before := s.Stats().BadHeaders.Load()
		nc := dialTunnel(t, addr)
		nc.Write([]byte(row.send))
		wantReset(t, nc)
		s.wantFault("PROXY header: ", row.words)
		if got := s.Stats().BadHeaders.Load() - before; got != 1 {
			t.Errorf("%s: counted %d times, want once", row.name, got)
		}
	}
	nc := dialTunnel(t, addr) // truncated by FIN
	nc.Write(good[:20])
	nc.CloseWrite()
	if _, err := io.ReadAll(nc); err != nil {
		t.Errorf("truncated: %v", err)
	}
	s.wantFault("unexpected EOF")
	nc = dialTunnel(t, addr) // a probe that only connects is nobody's fault
	nc.CloseWrite()
	if _, err := io.ReadAll(nc); err != nil {
		t.Errorf("probe: %v", err)
	}
	s.wantNoFault()
	select {
	case h := <-s.tunnels:
		t.Errorf("a tunnel to %s came", h.tun.Peer().Dest())
	default:
	}
	nc = dialTunnel(t, addr)
	nc.Write(good)
	s.tunnel()
	wantCount(t, "Conns", s.Stats().Conns.Load, 1)
}

// TestProxyV1: only if asked for, and without identity.
func TestProxyV1(t *testing.T) {
	s := newServer(t, func(o *ServerOptions) { o.ProxyV1 = true })
	addr := s.listen("127.0.0.1:0", s.ServeProxy)
	nc := dialTunnel(t, addr)
	nc.Write([]byte("PROXY TCP4 10.0.0.9 10.0.0.7 41234 8080\r\nhello"))
	h := s.tunnel()
	if p := h.tun.Peer(); p.Destination != behind || !p.ID.IsZero() {
		t.Errorf("got %+v", p)
	}
	h.want("data hello")
	nc = dialTunnel(t, addr)
	nc.Write([]byte("PROXY UNKNOWN\r\n"))
	wantReset(t, nc)
	s.wantFault("destination is lost")
	nc = dialTunnel(t, addr)
	nc.Write(header())
	if s.tunnel().tun.Peer().ID != testID(curlURI) {
		t.Error("version 2 is not read any more")
	}
}

// TestMappedAddresses: ::ffff:a.b.c.d is a.b.c.d, or no service would be found.
func TestMappedAddresses(t *testing.T) {
	s := newServer(t)
	nc := dialTunnel(t, s.listen("127.0.0.1:0", s.ServeProxy))
	nc.Write(header(func(h *proxyproto.Header) {
		h.Source = netip.MustParseAddrPort("[::ffff:10.0.0.9]:41234")
		h.Destination = netip.MustParseAddrPort("[::ffff:10.0.0.7]:8080")
	}))
	if p := s.tunnel().tun.Peer(); p.Destination != behind || p.Source.String() != "10.0.0.9:41234" {
		t.Errorf("got %s from %s", p.Destination, p.Source)
	}
}

// TestServiceHint: a name that is none is dropped.
func TestServiceHint(t *testing.T) {
	s := newServer(t)
	addr := s.listen("127.0.0.1:0", s.ServeProxy)
	for name, want := range map[string]string{"a.B": "a.b", "a/b": "", "a:80": "", "": ""} {
		nc := dialTunnel(t, addr)
		nc.Write(header(func(h *proxyproto.Header) { h.Service = name }))
		if got := s.tunnel().tun.Peer().Forwarded.Host; got != want {
			t.Errorf("service %q: got %q, want %q", name, got, want)
		}
	}
}

// TestTrusted: headers come from loopback and the prefixes configured, from
// nobody else.
func TestTrusted(t *testing.T) {
	s := NewServer(ServerOptions{})
	open := NewServer(ServerOptions{TrustProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}})
	for _, row := range []struct {
		from             string
		byDefault, asked bool
	}{
		{"127.0.0.1", true, true}, {"127.9.9.9", true, true}, {"::1", true, true}, {"::ffff:127.0.0.1", true, true},
		{"10.1.2.3", false, true}, {"::ffff:10.1.2.3", false, true}, {"2001:db8::1", false, true},
		{"10.2.0.1", false, false}, {"2001:db9::1", false, false}, {"0.0.0.0", false, false},
	} {
		a := netip.MustParseAddr(row.from)
		if s.trusted(a) != row.byDefault || open.trusted(a) != row.asked {
			t.Errorf("%s: got %v and %v, want %v and %v", a, s.trusted(a), open.trusted(a), row.byDefault, row.asked)
		}
	}
}

// afar is a listener whose connections say that they come from another host: no
// test sends beyond loopback.
type afar struct {
	net.Listener
	from netip.AddrPort
}

func (l afar) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return afarConn{nc, net.TCPAddrFromAddrPort(l.from)}, nil
}

type afarConn struct {
	net.Conn
	from net.Addr
}

func (c afarConn) RemoteAddr() net.Addr { return c.from }

// TestUntrusted: the same header from another host, and from one that is
// trusted.
func TestUntrusted(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.7:4000")
	serve := func(s *testServer) string {
		return s.listen("127.0.0.1:0", func(l net.Listener) error { return s.ServeProxy(afar{l, from}) })
	}
	s := newServer(t)
	nc := dialTunnel(t, serve(s))
	nc.Write(header())
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes", n)
	}
	s.wantFault("only from loopback")
	wantCount(t, "Untrusted", s.Stats().Untrusted.Load, 1)
	wantCount(t, "Conns", s.Stats().Conns.Load, 0)
	trusting := newServer(t, func(o *ServerOptions) { o.TrustProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	nc = dialTunnel(t, serve(trusting))
	nc.Write(header())
	trusting.tunnel()
}

// TestProxyRefused: a tunnel that the owner refuses, at once or later, is reset
// and told: an end would pass for an empty answer.
func TestProxyRefused(t *testing.T) {
	for _, later := range []bool{false, true} {
		s := newServer(t)
		s.refuse = func(Tunnel) error {
			if later {
				return ErrLater
			}
			return &Refusal{400, "not ours"}
		}
		nc := dialTunnel(t, s.listen("127.0.0.1:0", s.ServeProxy))
		nc.Write(append(header(), "hello"...))
		if later {
			h := s.tunnel()
			h.want("data hello")
			do(func(tn *turn.Turn) { Answer(tn, h.tun, &Refusal{400, "not ours"}) })
			if err := h.closed(); err != ErrLocalAbort {
				t.Errorf("the handler heard %v", err)
			}
		}
		wantReset(t, nc)
		s.wantFault("tunnel to 10.0.0.7:8080", "not ours")
		wantCount(t, "Refused", s.Stats().Refused.Load, 1)
		if n := s.Stats().Tunnels.Load() + s.Stats().BadHeaders.Load(); n != 0 {
			t.Errorf("Tunnels and BadHeaders are %d", n)
		}
	}
}

// TestPlainBinding: a tunnel without a header is bound for the address dialled.
func TestPlainBinding(t *testing.T) {
	s := newServer(t)
	addr := s.listen("127.0.0.1:0", s.ServePlain)
	nc := dialTunnel(t, addr)
	h := s.tunnel() // before a byte has come: servers may speak first
	p := h.tun.Peer()
	if p.How != peer.NONE || p.Destination.String() != addr || p.Source.String() != nc.LocalAddr().String() || !p.ID.IsZero() {
		t.Errorf("got %+v", p)
	}
	h.write("220 ready")
	b := make([]byte, 9)
	if _, err := io.ReadFull(nc, b); err != nil || string(b) != "220 ready" {
		t.Errorf("got %q, %v", b, err)
	}
	nc.SetLinger(0)
	nc.Close()
	if err := h.closed(); err == nil {
		t.Error("a reset passed for an end")
	}
	s = newServer(t)
	s.refuse = func(Tunnel) error { return errors.New("not captured") }
	if nc, err := net.Dial("tcp", s.listen("127.0.0.1:0", s.ServePlain)); err == nil { // else it was reset before that
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		wantReset(t, nc)
	}
	s.wantFault("not captured")
}
