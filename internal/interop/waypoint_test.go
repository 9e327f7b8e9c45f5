package interop

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// A waypoint is the proxy, whole, in this process.
type waypoint struct {
	proxy        *proxy.Proxy
	mesh, header string // where it listens: HBONE, PROXY

	close func() // ends it now rather than with the test

	mu    sync.Mutex
	wrong []error
}

// virtual is the service's address: nothing listens there, so what reaches the
// application was routed.
const virtual = "10.96.0.10:80"

// newWaypoint starts the proxy between tunnels that are not ours. In the
// sandwich it is fed PROXY headers and dials applications as plain TCP;
// otherwise it speaks HBONE to node tunnels at far's port.
func newWaypoint(t *testing.T, m *mesh, far *tunnel) *waypoint {
	t.Helper()
	w := &waypoint{}
	o := proxy.Options{
		Registry: filters.NewRegistry(), Sandwiched: far == nil,
		OnFault: w.fault,
		OnPanic: func(err error) { t.Errorf("panic: %v", err) },
	}
	if far != nil {
		l := m.leaf(t, "waypoint")
		certs, err := hbone.NewCertificates(hbone.CertificatesOptions{})
		if err != nil {
			t.Fatal(err)
		}
		set, err := hbone.Files{Chain: l.cert, Key: l.key, Roots: []string{m.root}}.Load()
		if err != nil {
			t.Fatal(err)
		}
		certs.Set(set)
		o.Certificates = certs
		fmt.Sscan(portOf(far.addr), &o.TunnelPort)
	}
	var err error
	if o.Loops, err = wire.NewLoops(0, nil); err != nil {
		t.Fatal(err)
	}
	w.proxy = proxy.New(o)
	var ls proxy.Listeners
	w.mesh = open(t, &ls.HBONE, far != nil)
	w.header = open(t, &ls.Proxy, far == nil)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve(ctx, ls) }()
	w.close = sync.OnceFunc(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.proxy.Shutdown(end)
		o.Loops.Close()
		w.report(t)
	})
	t.Cleanup(w.close)
	return w
}

func open(t *testing.T, list *[]net.Listener, wanted bool) string {
	t.Helper()
	if !wanted {
		return ""
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	*list = append(*list, ln)
	return ln.Addr().String()
}

func (w *waypoint) fault(_ net.Addr, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, err)
}

// report shows what the proxy said, if the test failed, and fails it for what
// may never happen.
func (w *waypoint) report(t *testing.T) {
	s := w.proxy.Stats()
	if p, i := s.Panics.Load(), s.Impossible.Load(); p+i > 0 {
		t.Errorf("got %d panics and %d impossible events, want none", p, i)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.Failed() && len(w.wrong) > 0 {
		t.Logf("the waypoint said: %v", w.wrong)
	}
}

// serve makes one service known: at addr, with the application as its endpoint.
func (w *waypoint) serve(t *testing.T, addr string, app application, account string) {
	t.Helper()
	w.apply(t, documentOf(addr, app, account))
}

func (w *waypoint) apply(t *testing.T, text string) {
	t.Helper()
	c, problems := config.Decode(config.File{Name: "interop.yaml", Data: []byte(text)})
	if c != nil {
		problems = append(problems, w.proxy.Apply(c)...)
	}
	for _, p := range problems {
		t.Errorf("document: %s", p.String())
	}
}

// documentOf is a document with one service, at addr, whose endpoint is the
// application under a service account.
func documentOf(addr string, app application, account string) string {
	host, port, _ := net.SplitHostPort(addr)
	return strings.NewReplacer("HOST", host, "PORT", port, "TARGET", portOf(app.addr), "ACCOUNT", account).Replace(`
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: demo}
services:
- {name: app, addresses: ["HOST"], ports: [{port: PORT, targetPort: TARGET, appProtocol: http}], endpoints: [{workload: app}]}
workloads:
- {name: app, address: 127.0.0.1, serviceAccount: ACCOUNT}
`)
}

// TestWaypointHBONE: Envoy's tunnel to us, HTTP at layer 7, our tunnel to
// Apache's and Envoy's, to nginx and Node.
func TestWaypointHBONE(t *testing.T) {
	for _, d := range destinations {
		for _, a := range applications {
			t.Run(d.name+"/"+a.name, func(t *testing.T) {
				m, app := newMesh(t), a.start(t)
				far := d.start(t, m, app)
				w := newWaypoint(t, m, &far)
				w.serve(t, virtual, app, far.kind)
				near := envoyClient(t, m, w.mesh, virtual, m.id("waypoint"))
				carry(t, app, near.addr, nil)
				w.close() // tunnels are kept for the next request, and logged when they end
				line := eventually(t, far.log, "CONNECT "+app.addr)
				if far.kind == "envoy" && !strings.Contains(line, m.id("waypoint")) {
					t.Errorf("Envoy logged %q, want the waypoint's identity", line)
				}
			})
		}
	}
}

// TestWaypointPROXY: HAProxy and Envoy hand connections over behind a PROXY
// header; the application is dialled as plain TCP, for a node tunnel to wrap.
func TestWaypointPROXY(t *testing.T) {
	for _, wr := range writers {
		for _, a := range applications {
			t.Run(wr.name+"/"+a.name, func(t *testing.T) {
				app := a.start(t)
				w := newWaypoint(t, nil, nil)
				front := wr.start(t, w.header, (*mesh)(nil).id("curl"))
				w.serve(t, front, app, "app")
				carry(t, app, front, nil)
			})
		}
	}
}

// TestWaypointRefuses: each refusal beside its control.
func TestWaypointRefuses(t *testing.T) {
	m, app := newMesh(t), node(t)
	far := httpd(t, m, app)
	w := newWaypoint(t, m, &far)
	near := envoyClient(t, m, w.mesh, virtual, m.id("waypoint"))
	status := func(addr string) string {
		t.Helper()
		got, err := curl(t, "-o", os.DevNull, "-w", "%{http_code}", "http://"+addr+"/")
		if err != nil {
			return "cut"
		}
		return got
	}
	if got, want := status(near.addr), "cut"; got != want {
		t.Errorf("a destination that nobody described: got %s, want %s", got, want)
	}
	w.serve(t, virtual, app, far.kind)
	if got, want := status(near.addr), "200"; got != want {
		t.Errorf("the same, described: got %s, want %s", got, want)
	}
	w.serve(t, virtual, app, "somebody-else")
	if got, want := status(near.addr), "503"; got != want {
		t.Errorf("an endpoint with another identity: got %s, want %s", got, want)
	}
	w.serve(t, virtual, application{"nobody", loopback(t)}, far.kind)
	if got, want := status(near.addr), "503"; got != want {
		t.Errorf("a node tunnel that refuses CONNECT: got %s, want %s", got, want)
	}
	w.serve(t, virtual, app, far.kind)
	if got, want := status(near.addr), "200"; got != want {
		t.Errorf("mended: got %s, want %s", got, want)
	}
}
