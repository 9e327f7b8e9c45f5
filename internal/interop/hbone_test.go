package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// A hop ends tunnels and begins them with package hbone, and does nothing
// between: the transport alone, without the proxy.
type hop struct {
	server       *hbone.Server
	pool         *hbone.Pool
	far          *hbone.Dest
	mesh, header string // where it listens: HBONE, PROXY

	mu    sync.Mutex
	heard []peer.Info
	wrong []error
}

// newHop starts a hop whose tunnels all go on to authority, through far.
func newHop(t *testing.T, m *mesh, far tunnel, authority string) *hop {
	t.Helper()
	l := m.leaf(t, "waypoint")
	certs, err := hbone.NewCertificates(hbone.CertificatesOptions{OnProblem: func(err error) { t.Errorf("certificates: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	set, err := hbone.Files{Chain: l.cert, Key: l.key, Roots: []string{m.root}}.Load()
	if err != nil {
		t.Fatal(err)
	}
	certs.Set(set)
	id, err := peer.ParseID(m.id(far.kind))
	if err != nil {
		t.Fatal(err)
	}
	w := wheel.New()
	w.Start()
	t.Cleanup(w.Close)
	drive := wire.Options{Wheel: w, Tick: time.Second}
	h := &hop{
		pool: hbone.NewPool(hbone.PoolOptions{Certificates: certs, Wire: drive}),
		far:  hbone.NewDest(netip.MustParseAddrPort(far.addr), netip.MustParseAddrPort(authority), []peer.ID{id}),
	}
	h.server = hbone.NewServer(hbone.ServerOptions{Accept: h.accept, Certificates: certs, Wire: drive, OnFault: h.fault})
	h.mesh = h.listen(t, h.server.ServeHBONE)
	h.header = h.listen(t, h.server.ServeProxy)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		h.server.Shutdown(ctx)
		h.pool.Close()
	})
	return h
}

func (h *hop) listen(t *testing.T, serve func(net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go serve(ln)
	return ln.Addr().String()
}

func (h *hop) accept(tn *turn.Turn, near hbone.Tunnel) (hbone.TunnelHandler, error) {
	h.mu.Lock()
	h.heard = append(h.heard, *near.Peer())
	h.mu.Unlock()
	return hbone.Forward(near, hbone.Forwarding{Open: func(far hbone.TunnelHandler) hbone.Tunnel {
		return h.pool.Open(tn, h.far, far)
	}})
}

func (h *hop) fault(_ net.Addr, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, err)
}

// last returns what the latest tunnel said about itself.
func (h *hop) last(t *testing.T) peer.Info {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.heard) == 0 {
		t.Fatal("no tunnel came in")
	}
	return h.heard[len(h.heard)-1]
}

// TestHBONE: package hbone between a client's tunnel and a destination's that
// are not ours.
func TestHBONE(t *testing.T) {
	for _, d := range destinations {
		for _, a := range applications {
			t.Run(d.name+"/"+a.name, func(t *testing.T) {
				m, app := newMesh(t), a.start(t)
				far := d.start(t, m, app)
				h := newHop(t, m, far, app.addr)
				near := envoyClient(t, m, h.mesh, app.addr, m.id("waypoint"))
				carry(t, app, near.addr, d.without)
				eventually(t, far.log, "CONNECT "+app.addr)
				checkPeer(t, h.last(t), app.addr, near.addr)
				if n := h.pool.Stats().Dials.Load(); n != 1 {
					t.Errorf("dialled %s %d times, want one connection for all tunnels", far.kind, n)
				}
			})
		}
	}
}

// checkPeer: what Envoy's CONNECT tells about its client arrives.
func checkPeer(t *testing.T, got peer.Info, authority, near string) {
	t.Helper()
	if got.ID.String() != (*mesh)(nil).id("curl") {
		t.Errorf("identity: got %s", got.ID)
	}
	if got.How != peer.HBONE || got.Destination.String() != authority {
		t.Errorf("got %v to %s, want HBONE to %s", got.How, got.Destination, authority)
	}
	if !got.Forwarded.For.Addr().IsLoopback() || got.Forwarded.For.String() == near {
		t.Errorf("forwarded: got %s, want the client's own address", got.Forwarded.For)
	}
	if ns, _ := got.Baggage.Value("k8s.namespace.name"); ns != "demo" {
		t.Errorf("baggage: got %q, want namespace demo", got.Baggage)
	}
}

// TestPROXYIn: package hbone behind a writer of PROXY headers that is not
// ours, before a destination's tunnel that is not either.
func TestPROXYIn(t *testing.T) {
	for _, w := range writers {
		t.Run(w.name, func(t *testing.T) {
			m, app := newMesh(t), node(t)
			h := newHop(t, m, envoyDestination(t, m, app), app.addr)
			front := w.start(t, h.header, m.id("curl"))
			carry(t, app, front, nil)
			got := h.last(t)
			if got.How != peer.PROXY || got.Destination.String() != front || !got.Source.Addr().IsLoopback() {
				t.Errorf("got %v from %s to %s, want PROXY to %s", got.How, got.Source, got.Destination, front)
			}
			if want := map[bool]string{true: m.id("curl")}[w.identity]; got.ID.String() != want {
				t.Errorf("identity: got %q, want %q", got.ID, want)
			}
		})
	}
}

// TestWhoIsRefused: a client of another mesh, and a destination that is not
// whom we expect.
func TestWhoIsRefused(t *testing.T) {
	m, app := newMesh(t), node(t)
	far := envoyDestination(t, m, app)
	h := newHop(t, m, far, app.addr)
	stranger := newMesh(t)
	stranger.root = m.root // it would talk to us; we do not talk to it
	near := envoyClient(t, stranger, h.mesh, app.addr, "")
	if got, err := curl(t, "http://"+near.addr+"/"); err == nil {
		t.Errorf("a client of another mesh: got %q, want an error", got)
	}
	if got := h.server.Stats().BadHandshakes.Load(); got == 0 {
		t.Error("no handshake was counted as bad")
	}

	impostor := newHop(t, m, tunnel{kind: "somebody-else", addr: far.addr}, app.addr)
	near = envoyClient(t, m, impostor.mesh, app.addr, m.id("waypoint"))
	if got, err := curl(t, "http://"+near.addr+"/"); err == nil {
		t.Errorf("a destination with another identity: got %q, want an error", got)
	}
	if text := eventually(t, near.log, "|"); strings.HasPrefix(text, "-|") {
		t.Errorf("Envoy logged %q, want a flag", text)
	}

	// The control: the same with the right ones.
	near = envoyClient(t, m, h.mesh, app.addr, m.id("waypoint"))
	if _, err := curl(t, "http://"+near.addr+"/"); err != nil {
		t.Error(err)
	}
}

// TestManyTunnels: a hundred clients at once, on the few mesh connections that
// Envoy opens to us and we to Envoy.
func TestManyTunnels(t *testing.T) {
	m, app := newMesh(t), node(t)
	h := newHop(t, m, envoyDestination(t, m, app), app.addr)
	near := envoyClient(t, m, h.mesh, app.addr, m.id("waypoint"))
	sent := loaf()[:64<<10]
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			nc, err := net.Dial("tcp", near.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(startTimeout))
			fmt.Fprintf(nc, "POST / HTTP/1.1\r\nHost: app.demo\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(sent))
			nc.Write(sent)
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Error(err)
				return
			}
			var got understood
			if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.N != len(sent) {
				t.Errorf("got %d bytes, %v; want %d", got.N, err, len(sent))
			}
		})
	}
	all.Wait()
	if in, out := h.server.Stats().Accepted.Load(), h.pool.Stats().Dials.Load(); in > 4 || out > 4 {
		t.Errorf("got %d mesh connections in and %d out for 100 tunnels, want few", in, out)
	}
}

// TestDestinationRestarts: a node dies with tunnels open; they end, and what
// comes after finds the one that took its place.
func TestDestinationRestarts(t *testing.T) {
	m, app := newMesh(t), node(t)
	far := envoyDestination(t, m, app)
	h := newHop(t, m, far, app.addr)
	near := envoyClient(t, m, h.mesh, app.addr, m.id("waypoint"))
	if _, err := curl(t, "http://"+near.addr+"/before"); err != nil {
		t.Fatal(err)
	}
	open := dial(t, near.addr)
	fmt.Fprint(open, "GET /open HTTP/1.1\r\nHost: app.demo\r\n\r\n")
	br := bufio.NewReader(open)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)

	far.kill()
	if _, err := br.ReadByte(); err == nil {
		t.Error("a tunnel to a dead node: got a byte, want its end")
	}
	if got, err := curl(t, "http://"+near.addr+"/dead"); err == nil {
		t.Errorf("a dead node: got %q, want an error", got)
	}
	envoyDestinationAt(t, m, app, far.addr)
	if _, err := curl(t, "http://"+near.addr+"/after"); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}
