//lint:file-ignore SA1019 The twin is made of x/net/http2, whose tunnels may be served one connection at a time.

package stock

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/devca"
)

const service = "10.96.0.10:80"

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func certs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca, err := devca.New("stock")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/x"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := traffic.Certs{Cert: filepath.Join(dir, "c"), Key: filepath.Join(dir, "k"), Roots: filepath.Join(dir, "r")}
	for file, b := range map[string][]byte{c.Cert: leaf.Chain, c.Key: leaf.Key, c.Roots: ca.PEM()} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if server, client, err = c.TLS(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// echo answers with the fields that it got.
func echo(t *testing.T) string {
	t.Helper()
	l := listen(t)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Write(w)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func header(destination string) string {
	var ip [4]byte
	var port int
	fmt.Sscanf(destination, "%d.%d.%d.%d:%d", &ip[0], &ip[1], &ip[2], &ip[3], &port)
	tlv := "\xd0\x00\x03abc"
	return signature + "\x21\x11\x00" + string(rune(12+len(tlv))) + "\x0a\x01\x00\x05" + string(ip[:]) + "\x9c\x40" + string([]byte{byte(port >> 8), byte(port)}) + tlv
}

func ask(c io.ReadWriter, path string, fields ...string) (status int, body string, err error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: svc.bench\r\n%s\r\n", path, strings.Join(append(fields, ""), "\r\n")); err != nil {
		return 0, "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// TestPROXY: what the header names is served, and nothing else; routes are by
// path and field; fields pass untouched but for the one that clients may not
// send, and a request id is given.
func TestPROXY(t *testing.T) {
	l := listen(t)
	go New(Options{Service: service, Prefix: "/api", Application: echo(t)}).ServePROXY(l)
	dial := func(head string) net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, head)
		return c
	}
	c := dial(header(service))
	status, body, err := ask(c, "/api/x", "X-Canary: 1", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Client-Cert: By=me")
	if err != nil || status != 200 {
		t.Fatalf("got %d, %v", status, err)
	}
	for _, want := range []string{"Host: svc.bench\r\n", "X-Canary: 1\r\n", "X-Forwarded-For: 1.2.3.4\r\n", "X-Request-Id: "} {
		if !strings.Contains(body, want) {
			t.Errorf("the application got no %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "Client-Cert") {
		t.Errorf("the application got a certificate's field:\n%s", body)
	}
	if status, body, err = ask(c, "/api/y", "X-Request-Id: mine"); err != nil || status != 200 || !strings.Contains(body, "X-Request-Id: mine\r\n") {
		t.Errorf("on the same connection: got %d, %v\n%s", status, err, body)
	}
	if status, _, err := ask(c, "/other"); err != nil || status != 404 {
		t.Errorf("a path that no route has: got %d, %v", status, err)
	}
	for _, head := range []string{header("10.96.0.11:80"), "", "PROXY TCP4 1.2.3.4 1.2.3.4 1 80\r\nGET / HTTP/1.1\r\n\r\n"} {
		if status, _, err := ask(dial(head), "/api/x"); err == nil && status == 200 {
			t.Errorf("header %q was served", head)
		}
	}
}

// TestHBONE: CONNECT to the service is accepted and carried through another
// tunnel; anything else is refused.
func TestHBONE(t *testing.T) {
	server, client := certs(t)
	end := listen(t) // a node tunnel: a CONNECT is a connection to what it names
	outer := &http2.Server{}
	go func() {
		for {
			nc, err := end.Accept()
			if err != nil {
				return
			}
			go serveMesh(tls.Server(nc, server), outer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := newServerTunnel(w, r)
				if err != nil {
					return
				}
				far, err := net.Dial("tcp", r.Host)
				if err != nil {
					return
				}
				defer far.Close()
				go io.Copy(far, c)
				io.Copy(c, far)
			}))
		}
	}()
	l := listen(t)
	go New(Options{Service: service, Prefix: "/api", Application: echo(t), Tunnel: end.Addr().String(), Server: server, Client: client}).ServeHBONE(l)
	near := New(Options{Tunnel: l.Addr().String(), Client: client})
	c, err := near.tunnels.Dial(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if status, body, err := ask(c, "/api/x"); err != nil || status != 200 || !strings.Contains(body, "GET /api/x") {
			t.Fatalf("got %d, %v\n%s", status, err, body)
		}
	}
	if _, err := near.tunnels.Dial(t.Context(), "10.96.0.11:80"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("another service: got %v", err)
	}
	r, err := http.NewRequest("GET", "https://"+l.Addr().String()+"/api/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := near.tunnels.transport.RoundTrip(r); err != nil || res.StatusCode != 400 {
		t.Errorf("a GET outside a tunnel: got %v, %v", res, err)
	}
}

// TestMetrics: what is allocated shows.
func TestMetrics(t *testing.T) {
	l := listen(t)
	go ServeMetrics(l)
	scrape := func() (n float64) {
		t.Helper()
		res, err := http.Get("http://" + l.Addr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		_, rest, _ := strings.Cut(string(b), "\ngo_memstats_mallocs_total ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatalf("%v in %q", err, b)
		}
		return n
	}
	before := scrape()
	keep := make([]*[64]byte, 10_000)
	for i := range keep {
		keep[i] = new([64]byte)
	}
	if got := scrape() - before; got < float64(len(keep)) || got > float64(len(keep))+5000 {
		t.Errorf("%d allocations show as %v", len(keep), got)
	}
}
