package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/net/websocket"
	"google.golang.org/grpc"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// listen returns a listener on loopback that is closed with the test.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveHTTP serves h on l, with HTTP/2 without TLS as well.
func serveHTTP(t testing.TB, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

// certs issues a certificate of a mesh.
func certs(t testing.TB) traffic.Certs {
	t.Helper()
	ca, err := devca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/curl"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := traffic.Certs{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Roots: filepath.Join(dir, "roots.pem")}
	for file, b := range map[string][]byte{c.Cert: leaf.Chain, c.Key: leaf.Key, c.Roots: ca.PEM()} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// page answers with so many bytes as ?bytes says, and the length of what it got
// in a field.
var page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	got, _ := io.Copy(io.Discard, r.Body)
	w.Header().Set("x-got", fmt.Sprint(got))
	var n int
	fmt.Sscan(r.URL.Query().Get("bytes"), &n)
	io.WriteString(w, strings.Repeat("x", n))
})

// short is a run that ends as soon as it has made its requests.
func short(t Target, k Kind) Spec {
	s := Spec{Target: t, Connections: 4, Workers: 2, For: time.Minute, Requests: 500,
		Schedule: Schedule{Shape: Poisson, Rate: 2000}, Mix: []Kind{k}, Timeout: 30 * time.Second}
	if t.Protocol == HTTP2 || t.Protocol == GRPC {
		s.Streams = 3
	}
	return s
}

// bothLoops makes a run in an open and a closed loop: all requests are answered
// as expected.
func bothLoops(t *testing.T, s Spec) {
	t.Helper()
	for _, sch := range []Schedule{s.Schedule, {Shape: Closed}} {
		s.Schedule = sch
		r, err := Do(context.Background(), s, Options{})
		if err != nil {
			t.Fatalf("%s: %v", sch.Shape, err)
		}
		if r.Done != s.Requests || r.Failed != 0 || r.Sent != s.Requests || r.Lost != 0 {
			t.Errorf("%s: %d answered, %d failed of %d, %d connections lost: %v %v", sch.Shape, r.Done, r.Failed, r.Sent, r.Lost, r.Failures, r.Why)
		}
		if r.Latency.Count != s.Requests || r.Service.Count != s.Requests || r.Latency.P50 < r.Service.P50 || r.Service.P50 <= 0 {
			t.Errorf("%s: %d latencies with p50 %v, %d service times with p50 %v", sch.Shape, r.Latency.Count, r.Latency.P50, r.Service.Count, r.Service.P50)
		}
		if lag := r.Lag.Count; sch.Shape != Closed && lag != s.Requests || sch.Shape == Closed && lag != 0 {
			t.Errorf("%s: the lag of %d requests", sch.Shape, lag)
		}
	}
}

func TestHTTP1(t *testing.T) {
	l := listen(t)
	serveHTTP(t, l, page)
	for _, k := range []Kind{
		{Path: "/?bytes=1000", Bytes: 1000},
		{Path: "/?bytes=100000", Bytes: 100000},        // chunked
		{Path: "/?bytes=10", Method: "HEAD", Bytes: 0}, // no body, whatever the length says
		{Path: "/?bytes=0", Size: 1 << 20, Bytes: 0},   // more than a sink takes at once
		{Path: "/?bytes=3", Size: 10, Method: "PUT", Bytes: 3, Fields: []Field{{"X-A", "b"}}},
	} {
		t.Run(k.Method+k.Path, func(t *testing.T) {
			s := short(Target{Addr: l.Addr().String(), Protocol: HTTP1}, k)
			if k.Size > 1000 {
				s.Requests = 50
			}
			bothLoops(t, s)
		})
	}
}

func TestHTTP2(t *testing.T) {
	l := listen(t)
	serveHTTP(t, l, page)
	bothLoops(t, short(Target{Addr: l.Addr().String(), Protocol: HTTP2}, Kind{Path: "/?bytes=1000", Bytes: 1000}))
	bothLoops(t, short(Target{Addr: l.Addr().String(), Protocol: HTTP2}, Kind{Path: "/?bytes=7", Size: 300_000, Bytes: 7}))
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(page)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	for _, p := range []string{HTTP1, HTTP2} {
		bothLoops(t, short(Target{Addr: s.Listener.Addr().String(), Via: ViaTLS, Protocol: p, Insecure: true}, Kind{Path: "/?bytes=1000", Bytes: 1000}))
	}
	// The name is checked unless it is said that it need not be.
	_, err := Do(context.Background(), short(Target{Addr: s.Listener.Addr().String(), Via: ViaTLS, Protocol: HTTP1}, Kind{Bytes: -1}), Options{})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate nobody vouches for: %v", err)
	}
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

// serveGRPC echoes messages, but for /test.Echo/Fail.
func serveGRPC(t testing.TB, l net.Listener) {
	s := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		var m []byte
		if err := ss.RecvMsg(&m); err != nil {
			return err
		}
		if name, _ := grpc.MethodFromServerStream(ss); strings.HasSuffix(name, "Fail") {
			return fmt.Errorf("as asked")
		}
		return ss.SendMsg(&m)
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
}

func TestGRPC(t *testing.T) {
	l := listen(t)
	serveGRPC(t, l)
	bothLoops(t, short(Target{Addr: l.Addr().String(), Protocol: GRPC}, Kind{Path: "/test.Echo/Call", Size: 100, Bytes: 100}))
	s := short(Target{Addr: l.Addr().String(), Protocol: GRPC}, Kind{Path: "/test.Echo/Fail", Size: 100, Bytes: -1})
	r, err := Do(context.Background(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Failures["grpc-status"]; n != s.Requests || r.Done != 0 {
		t.Errorf("%d calls failed of %d, want all: %v", n, s.Requests, r.Why)
	}
}

func TestWebSocket(t *testing.T) {
	l := listen(t)
	serveHTTP(t, l, websocket.Handler(func(c *websocket.Conn) { io.Copy(c, c) }))
	for _, n := range []int{1, 200, 70_000} {
		s := short(Target{Addr: l.Addr().String(), Protocol: WebSocket}, Kind{Path: "/", Size: n, Fields: []Field{{"Origin", "http://test"}}})
		if n > 1000 {
			s.Requests = 100
		}
		s.Mix[0].Bytes = -1
		bothLoops(t, s)
	}
}

// serveEcho sends back what comes.
func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func TestTCPEcho(t *testing.T) {
	l := listen(t)
	go serveEcho(l)
	bothLoops(t, short(Target{Addr: l.Addr().String(), Protocol: Echo}, Kind{Size: 1000}))
}

// TestProxyV2 has the headers read by a parser of others.
func TestProxyV2(t *testing.T) {
	raw := listen(t)
	l := &proxyproto.Listener{Listener: raw}
	var seen [3]atomic.Int64
	ids := []string{"spiffe://cluster.local/ns/demo/sa/a", "spiffe://cluster.local/ns/demo/sa/b"}
	s := &http.Server{Handler: page, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		h := c.(*proxyproto.Conn).ProxyHeader()
		if h == nil || h.SourceAddr.String() != "10.1.0.5:40000" || h.DestinationAddr.String() != "10.96.0.10:80" {
			t.Errorf("header is %+v", h)
			return ctx
		}
		tlvs, err := h.TLVs()
		if err != nil || len(tlvs) != 1 || tlvs[0].Type != 0xD0 {
			t.Errorf("TLVs are %v, %v", tlvs, err)
			return ctx
		}
		for i, id := range ids {
			if string(tlvs[0].Value) == id {
				seen[i].Add(1)
			}
		}
		return ctx
	}}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	bothLoops(t, short(Target{Addr: raw.Addr().String(), Via: ViaProxy, To: "10.96.0.10:80", Identities: ids, Protocol: HTTP1}, Kind{Path: "/?bytes=10", Bytes: 10}))
	if a, b := seen[0].Load(), seen[1].Load(); a != 4 || b != 4 {
		t.Errorf("%d connections of the first identity, %d of the second, want 4 each", a, b)
	}
}

// number is the field that the ends of package traffic want.
var number = []Field{{"x-echo", "0123456789abcdef"}}

func TestHBONE(t *testing.T) {
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go traffic.ServeTunnels(context.Background(), l, server)
	s := short(Target{Addr: l.Addr().String(), Via: ViaHBONE, To: "10.96.0.10:80", Certs: c, Protocol: HTTP1}, Kind{Path: "/api/items?bytes=1024", Bytes: 1024, Fields: number})
	s.Connections, s.Mesh = 12, 3
	bothLoops(t, s)
}

func TestGRPCInHBONE(t *testing.T) {
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go traffic.ServeCalls(context.Background(), l, server)
	k := Kind{Path: traffic.Method, Body: []byte("0123456789abcdef00000064"), Bytes: 100 + 16}
	s := short(Target{Addr: l.Addr().String(), Via: ViaHBONE, To: "10.96.0.10:80", Certs: c, Protocol: GRPC}, k)
	s.Mesh = 2
	bothLoops(t, s)
}

var _ = tls.VersionTLS13
