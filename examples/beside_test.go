package examples

import (
	"bufio"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// An agent is a SPIFFE Workload API in this process, for one workload.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	says *workload.X509SVIDResponse
}

func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, s grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if err := s.Send(a.says); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// startAgent serves an identity and returns the API's address.
func startAgent(t *testing.T, ca *devca.CA, id string) string {
	t.Helper()
	leaf, err := ca.Issue([]string{id})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "api") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(s, &agent{says: &workload.X509SVIDResponse{
		Svids:            []*workload.X509SVID{{SpiffeId: id, X509Svid: der(leaf.Chain), X509SvidKey: der(leaf.Key), Bundle: der(ca.PEM())}},
		FederatedBundles: map[string][]byte{"spiffe://example.org": der(ca.PEM()), "spiffe://partner.example": der(ca.PEM())},
	}})
	go s.Serve(l)
	t.Cleanup(func() { s.Stop(); os.RemoveAll(dir) })
	return "unix://" + l.Addr().String()
}

// der is the contents of PEM blocks, end to end.
func der(text []byte) (out []byte) {
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			return out
		}
		out, text = append(out, b.Bytes...), rest
	}
}

// fetched are certificates from an agent.
func fetched(t *testing.T, api string) *hbone.Certificates {
	t.Helper()
	c, err := hbone.NewCertificates(hbone.CertificatesOptions{OnProblem: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Changed()
	go (hbone.WorkloadAPI{Addr: api}).Watch(t.Context(), c)
	select {
	case <-first:
	case <-time.After(limit):
		t.Fatal("no certificate came")
	}
	return c
}

// A node is a node tunnel with those certificates.
func node(t *testing.T, c *hbone.Certificates, open func(*turn.Turn, *hbone.Pool, hbone.Tunnel, hbone.TunnelHandler) hbone.Tunnel) *hbone.Server {
	wh := wheel.New()
	wh.Start()
	w := wire.Options{Wheel: wh, Tick: time.Second}
	pool := hbone.NewPool(hbone.PoolOptions{Certificates: c, Wire: w})
	s := hbone.NewServer(hbone.ServerOptions{Certificates: c, Wire: w, Accept: func(tn *turn.Turn, near hbone.Tunnel) (hbone.TunnelHandler, error) {
		return hbone.Forward(near, hbone.Forwarding{Open: func(far hbone.TunnelHandler) hbone.Tunnel { return open(tn, pool, near, far) }})
	}})
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		pool.Close()
		s.Shutdown(now)
		wh.Close()
	})
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// application answers who it is, and keeps what it was asked from.
func application(t *testing.T, name string) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s got %s, x-through %q", name, r.URL.Path, r.Header.Get("x-through"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// ask asks what listens at l, as its workload would, and wants an answer with those
// words; "" is a refusal.
func ask(t *testing.T, l net.Listener, want string) {
	t.Helper()
	c := http.Client{Timeout: limit, Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://" + l.Addr().String() + "/hello")
	if want == "" {
		if err == nil {
			r.Body.Close()
			t.Errorf("answered %s, want a refusal", r.Status)
		}
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || !strings.Contains(string(body), want) {
		t.Errorf("got %s %q, %v; want %q", r.Status, body, err, want)
	}
}

// besideSPIRE gives the waypoint, a client's node tunnel and the endpoint's an
// agent each, and asks from one end to the other when the page has been through.
func (p *page) besideSPIRE() {
	t := p.t
	ca, err := devca.New("example.org")
	if err != nil {
		t.Fatal(err)
	}
	const id = "spiffe://example.org/ns/shop/sa/waypoint"
	p.replace = append(p.replace, "unix:///run/spire/agent/api.sock", startAgent(t, ca, id))

	app := application(t, "reviews-a")
	near := node(t, fetched(t, startAgent(t, ca, "spiffe://example.org/ns/shop/sa/reviews")), func(tn *turn.Turn, pool *hbone.Pool, _ hbone.Tunnel, far hbone.TunnelHandler) hbone.Tunnel {
		return pool.Open(tn, hbone.NewPlainDest(app), far)
	})
	tunnels := listen(t)
	go near.ServeHBONE(tunnels)
	p.document("10.1.0.51", "127.0.0.1")
	p.flags = fmt.Sprintf(" --tunnel-port %d", tunnels.Addr().(*net.TCPAddr).Port)

	p.after = append(p.after, func() {
		waypoint, err := peer.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		to := hbone.NewDest(netip.MustParseAddrPort(p.addrs["127.0.0.1:15008"]), netip.MustParseAddrPort("10.96.0.50:80"), []peer.ID{waypoint})
		for client, want := range map[string]string{
			"spiffe://example.org/ns/web/sa/web":     "reviews-a got /hello",
			"spiffe://partner.example/ns/web/sa/web": "", // the same authority, but a trust domain that nobody spoke of
		} {
			l := listen(t)
			go node(t, fetched(t, startAgent(t, ca, client)), func(tn *turn.Turn, pool *hbone.Pool, _ hbone.Tunnel, far hbone.TunnelHandler) hbone.Tunnel {
				return pool.Open(tn, to, far)
			}).ServePlain(l)
			ask(t, l, want)
		}
	})
}

// besideSandwich is the application, and the node tunnel that hands over.
func (p *page) besideSandwich() {
	t := p.t
	app := application(t, "cart-a")
	p.document("10.1.0.41", "127.0.0.1", "targetPort: 8080", fmt.Sprintf("targetPort: %d", app.Port()))
	p.after = append(p.after, func() {
		const client = "spiffe://cluster.local/ns/web/sa/web"
		nc, err := net.Dial("tcp", p.addrs["127.0.0.1:15088"])
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(limit))
		head, err := proxyproto.Append(nil, proxyproto.Header{
			Source: netip.MustParseAddrPort("10.1.0.5:40000"), Destination: netip.MustParseAddrPort("10.96.0.40:80"), Identity: client,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(append(head, "GET /hello HTTP/1.1\r\nHost: cart\r\n\r\n"...)); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if want := `cart-a got /hello, x-through "waypoint"`; err != nil || string(body) != want {
			t.Errorf("got %s %q, %v; want %q", r.Status, body, err, want)
		}
		if got := run(t, "curl -s http://"+p.addrs["127.0.0.1:15000"]+"/connections"); !strings.Contains(got, client) {
			t.Errorf("the waypoint does not know who calls: %s", got)
		}
	})
}
