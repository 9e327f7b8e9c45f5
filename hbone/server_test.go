package hbone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
)

// TestConnectForms: every refused form differs from an accepted one in one
// place.
func TestConnectForms(t *testing.T) {
	good := []string{":method", "CONNECT", ":authority", "10.0.0.7:8080"}
	with := func(fields ...string) []string { return fields }
	for _, row := range []struct {
		name   string
		fields []string
		end    bool
		status int // 0: reset with PROTOCOL_ERROR
		dest   string
		words  string // of the fault
	}{
		{"address", good, false, 200, "10.0.0.7:8080", ""},
		{"v6 address", with(":method", "CONNECT", ":authority", "[2001:db8::7]:8080"), false, 200, "[2001:db8::7]:8080", ""},
		{"hostname", with(":method", "CONNECT", ":authority", "reviews.shop.svc.cluster.local:80"), false, 200, "reviews.shop.svc.cluster.local:80", ""},
		{"more fields", with(":method", "CONNECT", ":authority", "10.0.0.7:8080", "x-istio-source", "gateway"), false, 200, "10.0.0.7:8080", ""},
		{"GET", with(":method", "GET", ":scheme", "http", ":authority", "10.0.0.7:8080", ":path", "/"), false, 400, "", `method is "GET", want CONNECT`},
		{"no port", with(":method", "CONNECT", ":authority", "10.0.0.7"), false, 400, "", "10.0.0.7"},
		{"port 0", with(":method", "CONNECT", ":authority", "10.0.0.7:0"), false, 400, "", "10.0.0.7:0"},
		{"no host", with(":method", "CONNECT", ":authority", ":8080"), false, 400, "", ":8080"},
		{"user info", with(":method", "CONNECT", ":authority", "a@10.0.0.7:8080"), false, 0, "", ""},
		{"ended with its head", good, true, 400, "", "ended with its head"},
		{"scheme", append([]string{":scheme", "http"}, good...), false, 0, "", ""},
		{"path", append([]string{":path", "/"}, good...), false, 0, "", ""},
		{"protocol", append([]string{":protocol", "websocket"}, good...), false, 0, "", ""},
		{"no authority", with(":method", "CONNECT"), false, 0, "", ""},
		{"two methods", append([]string{":method", "CONNECT"}, good...), false, 0, "", ""},
		{"connection field", append(good[:4:4], "connection", "close"), false, 0, "", ""},
		{"upper case", append(good[:4:4], "Baggage", "a=b"), false, 0, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newServer(t)
			tc := dialMesh(t, s.mesh(), s.client(curlURI))
			tc.writeHeaders(1, row.end, row.fields...)
			switch row.status {
			case 0:
				tc.wantReset(1, http2.ErrCodeProtocol)
			case 200:
				tc.wantStatus(1, 200, false)
				if got := s.tunnel().tun.Peer().Dest(); got != row.dest {
					t.Errorf("destination: got %s, want %s", got, row.dest)
				}
			default:
				tc.wantStatus(1, row.status, true)
				tc.wantReset(1, http2.ErrCodeNo)
				s.wantFault(row.words)
				wantCount(t, "BadConnects", s.Stats().BadConnects.Load, 1)
			}
			tc.wantQuiet() // the connection lives
			tc.connect(3, "10.0.0.7:8080")
			tc.wantStatus(3, 200, false)
		})
	}
}

// TestRefusals: what the owner says becomes the status that node tunnels know.
func TestRefusals(t *testing.T) {
	for _, row := range []struct {
		name   string
		err    error
		status int
	}{
		{"not ours", &Refusal{400, "not ours"}, 400},
		{"denied", &Refusal{401, "denied"}, 401},
		{"cannot be reached", &Refusal{503, "down"}, 503},
		{"wrapped", errors.Join(&Refusal{401, "denied"}), 401},
		{"any other", errors.New("something"), 503},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, later := range []bool{false, true} {
				s := newServer(t)
				s.refuse = func(Tunnel) error {
					if later {
						return ErrLater
					}
					return row.err
				}
				tc := dialMesh(t, s.mesh(), s.client(curlURI))
				tc.connect(1, "10.0.0.7:8080")
				if later {
					tc.writeData(1, "early", false)
					h := s.tunnel()
					h.want("data early")
					tc.wantQuiet() // no answer yet
					do(func(tn *turn.Turn) {
						Answer(tn, h.tun, row.err)
						Answer(tn, h.tun, nil) // comes too late
					})
					if err := h.closed(); err != row.err {
						t.Errorf("the handler heard %v, want %v", err, row.err)
					}
				}
				tc.wantStatus(1, row.status, true)
				tc.wantReset(1, http2.ErrCodeNo)
				s.wantFault(row.err.Error())
				st := s.Stats()
				if st.Refused.Load() != 1 || st.Tunnels.Load() != 0 || st.BadConnects.Load() != 0 {
					t.Errorf("Refused %d, Tunnels %d, BadConnects %d; want 1, 0, 0", st.Refused.Load(), st.Tunnels.Load(), st.BadConnects.Load())
				}
			}
		})
	}
}

// TestAnswerLater: 200 comes when the owner says so, and bytes flow before.
func TestAnswerLater(t *testing.T) {
	s := newServer(t)
	s.refuse = func(Tunnel) error { return ErrLater }
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	h := s.tunnel()
	tc.writeData(1, "early", false)
	h.want("data early")
	tc.wantQuiet()
	if n := s.Stats().Tunnels.Load(); n != 0 {
		t.Errorf("Tunnels is %d before the answer", n)
	}
	do(func(tn *turn.Turn) { Answer(tn, h.tun, nil) })
	tc.wantStatus(1, 200, false)
	h.write("welcome")
	tc.wantData(1, "welcome", false)
	if n := s.Stats().Tunnels.Load(); n != 1 {
		t.Errorf("Tunnels is %d, want 1", n)
	}
}

// TestSettings: what node tunnels rely on (fewer than 100 streams would leave
// theirs waiting; equal windows can deadlock).
func TestSettings(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	if n := tc.setting(http2.SettingMaxConcurrentStreams); n < 100 {
		t.Errorf("MAX_CONCURRENT_STREAMS %d, want at least 100", n)
	}
	if n := tc.setting(http2.SettingMaxHeaderListSize); n != 64<<10 {
		t.Errorf("MAX_HEADER_LIST_SIZE %d, want 64 KiB", n)
	}
	stream := tc.setting(http2.SettingInitialWindowSize)
	f, ok := tc.next().(*http2.WindowUpdateFrame)
	if !ok || f.StreamID != 0 {
		t.Fatalf("got %v, want the connection's window", f)
	}
	conn := f.Increment + 65535
	if stream != 48<<10 || conn != 4<<20 {
		t.Errorf("windows %d and %d, want 48 KiB a stream to begin with and 4 MiB a connection", stream, conn)
	}
	for _, set := range tc.set {
		if set.ID == http2.SettingEnableConnectProtocol {
			t.Error("extended CONNECT is offered")
		}
	}
}

// TestDescription: what the CONNECT says about the client is read, and what does
// not parse is counted and costs nothing else.
func TestDescription(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080",
		"forwarded", `for="10.0.0.9:41234";host=reviews.shop.svc.cluster.local`,
		"baggage", "k8s.namespace.name=demo,k8s.deployment.name=curl",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
		"x-forwarded-network", "west")
	tc.wantStatus(1, 200, false)
	p := s.tunnel().tun.Peer()
	if p.ID != testID(curlURI) || p.Source != netip.MustParseAddrPort(tc.nc.LocalAddr().String()) || p.Local.String() != tc.nc.RemoteAddr().String() {
		t.Errorf("got %v from %v at %v", p.ID, p.Source, p.Local)
	}
	if p.Client().String() != "10.0.0.9:41234" || p.Forwarded.Host != "reviews.shop.svc.cluster.local" || p.Network != "west" {
		t.Errorf("got %v %q %q", p.Client(), p.Forwarded.Host, p.Network)
	}
	if string(p.Traceparent) != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00" || p.Baggage.Workload().Namespace != "demo" {
		t.Errorf("got %v, %+v", p.Traceparent, p.Baggage)
	}
	if n := s.Stats().BadMetadata.Load(); n != 0 {
		t.Errorf("BadMetadata is %d", n)
	}
	tc.connect(3, "10.0.0.7:8080", "forwarded", "for=", "traceparent", "zero", "baggage", "k8s.namespace.name=demo")
	tc.wantStatus(3, 200, false)
	if p := s.tunnel().tun.Peer(); p.Baggage.Workload().Namespace != "demo" || p.Forwarded.Host != "" || p.Network != "" {
		t.Errorf("the second tunnel has %+v", p)
	}
	wantCount(t, "BadMetadata", s.Stats().BadMetadata.Load, 2)
}

// TestHalfClose: each direction ends for itself.
func TestHalfClose(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 200, false)
	h := s.tunnel()
	tc.writeData(1, "all", true)
	h.want("data all", "end")
	h.write("more")
	tc.wantData(1, "more", false)
	h.write("last")
	h.closeWrite()
	tc.wantData(1, "last", true)
	h.want("closed")

	tc.connect(3, "10.0.0.7:8080")
	tc.wantStatus(3, 200, false)
	h = s.tunnel()
	h.closeWrite()
	tc.wantData(3, "", true)
	tc.writeData(3, "still", false) // the upload goes on behind the answer's end
	h.want("data still")
	tc.writeData(3, "done", true)
	h.want("data done", "end", "closed")
	tc.wantQuiet()
}

// TestResets: codes pass both ways, and a handler can tell an end that node
// tunnels mean well.
func TestResets(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	id := uint32(1)
	for _, row := range []struct {
		code  http2.ErrCode
		clean bool
	}{{http2.ErrCodeNo, true}, {http2.ErrCodeCancel, true}, {http2.ErrCodeStreamClosed, false}, {http2.ErrCodeInternal, false}} {
		tc.connect(id, "10.0.0.7:8080")
		tc.wantStatus(id, 200, false)
		h := s.tunnel()
		tc.fr.WriteRSTStream(id, row.code)
		if e := wantError[*ResetError](t, h.closed()); e.Code != uint32(row.code) || e.Clean() != row.clean {
			t.Errorf("%v: got %v, clean %v", row.code, e, e.Clean())
		}
		id += 2
	}
	for _, code := range []uint32{CodeCancel, CodeInternal, CodeConnect} {
		tc.connect(id, "10.0.0.7:8080")
		tc.wantStatus(id, 200, false)
		h := s.tunnel()
		h.abort(code)
		tc.wantReset(id, http2.ErrCode(code))
		if err := h.closed(); err != ErrLocalAbort {
			t.Errorf("got %v, want %v", err, ErrLocalAbort)
		}
		id += 2
	}
	tc.connect(id, "10.0.0.7:8080") // RFC 9113, section 8.5: nothing but DATA in a tunnel
	tc.wantStatus(id, 200, false)
	h := s.tunnel()
	tc.writeHeaders(id, true, "trailer", "x")
	tc.wantReset(id, http2.ErrCodeProtocol)
	if err := h.closed(); err == nil || !strings.Contains(err.Error(), "HEADERS in a tunnel") {
		t.Errorf("got %v", err)
	}
}

// TestLostConnection: every tunnel hears of it.
func TestLostConnection(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	var hs []*heard
	for id := uint32(1); id < 6; id += 2 {
		tc.connect(id, "10.0.0.7:8080")
		tc.wantStatus(id, 200, false)
		hs = append(hs, s.tunnel())
	}
	tc.nc.(*tls.Conn).NetConn().Close()
	for _, h := range hs {
		if err := h.closed(); err == nil || !strings.Contains(err.Error(), "mesh connection lost") {
			t.Errorf("got %v", err)
		}
	}
	wantCount(t, "Conns", s.Stats().Conns.Load, 0)
}

// TestProtocolError: a connection error is told with GOAWAY before the end.
func TestProtocolError(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 200, false)
	tc.fr.WriteData(5, false, []byte("on an idle stream"))
	tc.wantGoAway(1, http2.ErrCodeProtocol, "idle stream")
	tc.wantEOF()
	tc.nc.Close()
	wantCount(t, "Conns", s.Stats().Conns.Load, 0)
}

// TestDrain: GOAWAY; streams under way finish and the connection ends with the
// last; nobody new is let in.
func TestDrain(t *testing.T) {
	s := newServer(t)
	addr := s.mesh()
	tc := dialMesh(t, addr, s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 200, false)
	h := s.tunnel()
	s.Drain()
	tc.wantGoAway(1<<31-1, http2.ErrCodeNo, "")
	tc.connect(3, "10.0.0.7:8080") // sent before the GOAWAY was seen
	tc.wantPing(true)
	tc.wantStatus(3, 200, false)
	tc.wantGoAway(3, http2.ErrCodeNo, "")
	tc.connect(5, "10.0.0.7:8080") // too late: ignored, and so safe to repeat
	eventually(t, "the listener closes", func() bool {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	done := make(chan int)
	go func() { done <- s.Shutdown(context.Background()) }()
	tc.writeData(1, "finish", true)
	h.want("data finish", "end")
	h.closeWrite()
	tc.wantData(1, "", true)
	h = s.tunnel()
	h.closeWrite()
	tc.wantData(3, "", true)
	tc.writeData(3, "", true)
	tc.wantEOF()
	tc.nc.Close()
	if n := <-done; n != 0 {
		t.Errorf("Shutdown cut %d, want none", n)
	}
}

// TestDrainDuringHandshake: a connection that is being made when the server
// drains is let in, serves what comes in ignorance, and is told to go.
func TestDrainDuringHandshake(t *testing.T) {
	s := newServer(t)
	nc := must(net.Dial("tcp", s.mesh()))
	wantCount(t, "Conns", s.Stats().Conns.Load, 1)
	s.Drain()
	tc := newTestConn(t, tls.Client(nc, s.client(curlURI).ClientConfig([]peer.ID{testID(wayURI)})))
	tc.greet()
	tc.wantGoAway(1<<31-1, http2.ErrCodeNo, "")
	tc.connect(1, "10.0.0.7:8080")
	tc.wantPing(true)
	tc.wantStatus(1, 200, false)
	tc.wantGoAway(1, http2.ErrCodeNo, "")
	s.tunnel().closeWrite()
	tc.wantData(1, "", true)
	tc.writeData(1, "", true)
	tc.wantEOF()
	tc.nc.Close()
	if n := s.Shutdown(context.Background()); n != 0 {
		t.Errorf("Shutdown cut %d, want none", n)
	}
}

// A lateListener has its first Accept wait until it is woken, so that what comes
// meanwhile waits in its queue.
type lateListener struct {
	*net.TCPListener
	woken chan struct{}
	once  sync.Once
}

func (l *lateListener) Accept() (nc net.Conn, err error) {
	first := false
	l.once.Do(func() {
		first = true
		<-l.woken
	})
	if first {
		return nil, os.ErrDeadlineExceeded
	}
	return l.TCPListener.Accept()
}

func (l *lateListener) SetDeadline(t time.Time) error {
	if !t.After(time.Now()) {
		close(l.woken)
	}
	return l.TCPListener.SetDeadline(t)
}

// TestDrainEmptiesTheQueue: who has connected and was not accepted yet is let in
// before the listener closes, for closing it would reset them.
func TestDrainEmptiesTheQueue(t *testing.T) {
	s := newServer(t)
	l := &lateListener{TCPListener: must(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener), woken: make(chan struct{})}
	over := make(chan error)
	go func() { over <- s.ServePlain(l) }()
	const waiting = 5
	var conns []net.Conn
	for range waiting {
		conns = append(conns, must(net.Dial("tcp", l.Addr().String())))
	}
	wantCount(t, "Listeners", func() int64 { s.mu.Lock(); defer s.mu.Unlock(); return int64(len(s.listeners)) }, 1)
	s.Drain()
	if err := <-over; err != nil {
		t.Error(err)
	}
	wantCount(t, "Tunnels", s.Stats().Tunnels.Load, waiting)
	for _, nc := range conns {
		h := s.tunnel()
		h.write("answer")
		nc.Close()
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("the listener still accepts")
	}
	if n := s.Shutdown(context.Background()); n != 0 {
		t.Errorf("Shutdown cut %d, want none", n)
	}
}

// TestShutdownCuts: what is left when the time is up is cut and counted: mesh
// connections, handshakes, TCP tunnels.
func TestShutdownCuts(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 200, false)
	h := s.tunnel()
	silent := must(net.Dial("tcp", s.mesh())) // never shakes hands
	defer silent.Close()
	plain := must(net.Dial("tcp", s.listen("127.0.0.1:0", s.ServePlain)))
	defer plain.Close()
	s.tunnel()
	wantCount(t, "Conns", s.Stats().Conns.Load, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if n := s.Shutdown(ctx); n != 3 {
		t.Errorf("cut %d, want 3", n)
	}
	if n := s.Stats().Conns.Load(); n != 0 {
		t.Errorf("Conns is %d behind Shutdown", n)
	}
	h.closed()
	plain.SetDeadline(time.Now().Add(patience))
	if _, err := plain.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a TCP tunnel that was cut: got %v, want a reset", err)
	}
	if n := s.Shutdown(ctx); n != 0 {
		t.Errorf("second Shutdown cut %d", n)
	}
}

// TestPeerGoesAway: a client's GOAWAY stops nothing that is under way.
func TestPeerGoesAway(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 200, false)
	h := s.tunnel()
	tc.fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	tc.writeData(1, "more", false)
	h.want("data more")
	h.write("and more")
	tc.wantData(1, "and more", false)
}

// TestConnCap: the cap counts every sort of connection, handshakes too, and
// frees a place with each that goes.
func TestConnCap(t *testing.T) {
	s := newServer(t, func(o *ServerOptions) { o.MaxConns = 2 })
	mesh := s.mesh()
	tc := dialMesh(t, mesh, s.client(curlURI))
	silent := must(net.Dial("tcp", mesh))
	wantCount(t, "Conns", s.Stats().Conns.Load, 2)
	third := must(net.Dial("tcp", mesh))
	defer third.Close()
	third.SetDeadline(time.Now().Add(patience))
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("the third connection was let in")
	}
	s.wantFault("connection cap reached: 2")
	wantCount(t, "OverCap", s.Stats().OverCap.Load, 1)
	silent.Close()
	wantCount(t, "Conns", s.Stats().Conns.Load, 1)
	tc2 := dialMesh(t, mesh, s.client(curlURI))
	tc2.connect(1, "10.0.0.7:8080")
	tc2.wantStatus(1, 200, false)
	tc.wantQuiet()
}

// TestHandshakesWait: more handshakes than the limit wait for their turn.
func TestHandshakesWait(t *testing.T) {
	s := newServer(t)
	mesh := s.mesh()
	for range MaxHandshakes {
		s.handshakes <- struct{}{} // as if they were under way
	}
	got := make(chan error, 1)
	go func() {
		nc, err := tls.Dial("tcp", mesh, s.client(curlURI).ClientConfig(dest("127.0.0.1:1", wayURI).expect))
		if err == nil {
			nc.Close()
		}
		got <- err
	}()
	wantCount(t, "Conns", s.Stats().Conns.Load, 1)
	select {
	case err := <-got:
		t.Fatalf("no place was free, and the handshake ended: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	<-s.handshakes
	if err := <-got; err != nil {
		t.Error(err)
	}
	for range MaxHandshakes - 1 {
		<-s.handshakes
	}
}

// TestBadHandshakes: what is wrong is said in words and counted by reason, to
// the client too where TLS allows; and the server goes on.
func TestBadHandshakes(t *testing.T) {
	s := newServer(t)
	mesh := s.mesh()
	good := issued(s.ca, curlURI)
	over := func(c *tls.Config) func(nc net.Conn) error {
		return func(nc net.Conn) error {
			tc := tls.Client(nc, c)
			if err := tc.Handshake(); err != nil {
				return err
			}
			io.WriteString(tc, http2.ClientPreface+strings.Repeat("x", 4096)) // unread there when it closes
			_, err := tc.Read(make([]byte, 1))
			return err
		}
	}
	say := func(text string) func(nc net.Conn) error {
		return func(nc net.Conn) error {
			io.WriteString(nc, text)
			_, err := io.ReadAll(nc)
			return err
		}
	}
	for _, row := range []struct {
		name   string
		talk   func(nc net.Conn) error
		reason TLSReason
		words  string
	}{
		{"plain HTTP", say("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), TLSNotTLS, "plain HTTP"},
		{"plain HTTP/2", say(http2.ClientPreface), TLSNotTLS, "plain HTTP"},
		{"noise", say("\x00\x01\x02\x03\x04\x05\x06\x07"), TLSNotTLS, "not TLS"},
		{"TLS 1.2", over(edited(raw(good), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })), TLSVersion, "TLS 1.3"},
		{"no ALPN", over(edited(raw(good), func(c *tls.Config) { c.NextProtos = nil })), TLSNoALPN, "ALPN"},
		{"no certificate", over(raw(PEM{})), TLSNoCertificate, "no certificate"},
		{"other authority", over(raw(issued(must(devca.New("other")), curlURI))), TLSUnknownAuthority, "not among the roots"},
		{"other trust domain", over(raw(issued(s.ca, "spiffe://other.example/ns/demo/sa/curl"))), TLSWrongTrustDomain, "other.example"},
		{"expired", over(raw(issued(s.ca, curlURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))), TLSExpired, "expired"},
		{"refuses us", over(holding(good, CertificatesOptions{}).ClientConfig(dest("127.0.0.1:1", curlURI).expect)), TLSRefusedByPeer, "refused us"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, bad := s.Stats().TLS.Count(row.reason), s.Stats().BadHandshakes.Load()
			nc := must(net.Dial("tcp", mesh))
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			err := row.talk(nc)
			s.wantFault("TLS with 127.0.0.1:", row.words)
			if row.reason >= TLSNoCertificate && row.reason <= TLSRevoked && ReasonOf(err) != TLSRefusedByPeer {
				t.Errorf("the client was told %v, want an alert", err)
			}
			if got := s.Stats().TLS.Count(row.reason) - before; got != 1 {
				t.Errorf("%v counted %d times, want once", row.reason, got)
			}
			if got := s.Stats().BadHandshakes.Load() - bad; got != 1 {
				t.Errorf("BadHandshakes grew by %d, want 1", got)
			}
		})
	}
	tc := dialMesh(t, mesh, s.client(curlURI))
	tc.wantQuiet()
	if err := NewServer(ServerOptions{}).ServeHBONE(must(net.Listen("tcp", "127.0.0.1:0"))); err == nil || !strings.Contains(err.Error(), "without certificates") {
		t.Errorf("HBONE without certificates: got %v", err)
	}
}

// A failing listener has no descriptors left, until it is closed.
type failing struct {
	net.Listener
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left--; f.left < 0 {
		return nil, net.ErrClosed
	}
	return nil, errors.New("too many open files")
}

// TestAcceptErrors: the listener is not given up for them.
func TestAcceptErrors(t *testing.T) {
	s := newServer(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	if err := s.ServePlain(&failing{l, 3}); err != nil {
		t.Error(err)
	}
	if n := s.Stats().AcceptErrors.Load(); n != 3 {
		t.Errorf("AcceptErrors is %d, want 3", n)
	}
	s.Drain()
	if err := s.ServePlain(must(net.Listen("tcp", "127.0.0.1:0"))); !errors.Is(err, net.ErrClosed) {
		t.Errorf("behind Drain: got %v", err)
	}
}
