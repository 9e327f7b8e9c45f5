package devmesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// A Mode is how a waypoint is fed.
type Mode string

// The modes.
const (
	HBONE     Mode = "hbone" // the waypoint terminates and originates HBONE
	Sandwich  Mode = "proxy" // its own node tunnel does, and hands over PROXY
	waypointN      = "waypoint"
)

// Options say what mesh to build. Config is required.
type Options struct {
	Config *config.Config
	// Modes are the waypoints to run, one for each; both if empty.
	Modes []Mode
	// Clients are the identities that clients have; DefaultClient if empty.
	Clients []string
	// Handler answers for a workload; nil for the echo.
	Handler func(workload string) http.Handler
	// App is the address of a workload's application that runs already; "" for
	// one made of Handler.
	App func(workload string) string
	// Tune may change a waypoint's options before it starts.
	Tune func(Mode, *proxy.Options)
	// Registry and Guard are the waypoints'.
	Registry filters.Registry
	Guard    func(b *filters.Builder, service string) error
	// Observe hears of each request that a waypoint has finished.
	Observe func(Mode, *proxy.Outcome)
	// ObserveConn hears of each opaque connection that is over.
	ObserveConn func(Mode, *proxy.ConnOutcome)
	// OnFault hears of what went wrong on a connection, and where.
	OnFault func(where string, err error)
	// Lifetime is how long certificates are good; 0 is longer than a mesh lives.
	Lifetime time.Duration
	// Listen is the address entries listen on; 127.0.0.1 if empty.
	Listen string
	// FirstPort is tried for the first entry, the next for the next; 0 chooses
	// free ports.
	FirstPort int
}

// DefaultClient is who enters where no other identity is asked for.
const DefaultClient = "spiffe://cluster.local/ns/demo/sa/curl"

// An Entry is a local URL at which a service can be asked for by a client of
// some identity.
type Entry struct {
	URL      string // tcp://HOST:PORT where no requests are spoken
	Service  string // namespace/name:port
	Identity string
	Mode     Mode
	Address  netip.AddrPort // what the client's node tunnel takes it for
}

// Addr returns the URL's host and port.
func (e *Entry) Addr() string {
	_, addr, _ := strings.Cut(e.URL, "://")
	return addr
}

// A Mesh is what Start built.
type Mesh struct {
	Options
	ca     *devca.CA
	wheel  *wheel.Wheel
	net    *network
	cancel context.CancelFunc
	ctx    context.Context

	mu        sync.Mutex
	entries   []Entry
	waypoints map[Mode]*proxy.Proxy
	tunnels   []*nodeTunnel
	apps      map[string]*app
	holders   []holder
	meshAddr  string // where the waypoint accepts HBONE
	closers   []func()
}

// A holder has certificates for an identity.
type holder struct {
	id    string
	certs *hbone.Certificates
}

// Start builds a mesh for a document: an echo for each workload, a node tunnel
// for each workload and client, and a waypoint for each mode.
func Start(o Options) (*Mesh, error) {
	if len(o.Modes) == 0 {
		o.Modes = []Mode{HBONE, Sandwich}
	}
	if len(o.Clients) == 0 {
		o.Clients = []string{DefaultClient}
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1"
	}
	ca, err := devca.New("waypoint dev")
	if err != nil {
		return nil, err
	}
	m := &Mesh{Options: o, ca: ca, wheel: wheel.New(), net: newNetwork(), waypoints: map[Mode]*proxy.Proxy{}, apps: map[string]*app{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wheel.Start()
	if err := m.build(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Mesh) build() error {
	if err := m.startWorkloads(m.Config); err != nil {
		return err
	}
	for _, mode := range m.Modes {
		if err := m.startWaypoint(mode); err != nil {
			return fmt.Errorf("waypoint in mode %s: %w", mode, err)
		}
	}
	return m.startClients()
}

// Apply runs another document; entries stay as they are.
func (m *Mesh) Apply(c *config.Config) ([]config.Problem, error) {
	if err := m.startWorkloads(c); err != nil {
		return nil, err
	}
	var problems []config.Problem
	for _, mode := range m.Modes {
		problems = m.waypoints[mode].Apply(c)
	}
	return problems, nil
}

// Entries returns where the services can be asked for.
func (m *Mesh) Entries() []Entry { return m.entries }

// Waypoint returns the waypoint of a mode.
func (m *Mesh) Waypoint(mode Mode) *proxy.Proxy { return m.waypoints[mode] }

// CA returns the mesh's authority.
func (m *Mesh) CA() *devca.CA { return m.ca }

// HBONEAddr is where the waypoint of mode HBONE listens.
func (m *Mesh) HBONEAddr() string { return m.meshAddr }

// identity makes certificates for an identity of the mesh.
func (m *Mesh) identity(id string) (*hbone.Certificates, error) {
	c, err := hbone.NewCertificates(hbone.CertificatesOptions{})
	if err != nil {
		return nil, err
	}
	h := holder{id, c}
	if err := m.issue(h); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holders = append(m.holders, h)
	return c, nil
}

// issue gives a holder a new certificate.
func (m *Mesh) issue(h holder) error {
	leaf, err := m.ca.Issue([]string{h.id}, func(c *x509.Certificate) {
		if m.Lifetime > 0 {
			c.NotAfter = time.Now().Add(m.Lifetime)
		}
	})
	if err != nil {
		return err
	}
	cr, err := hbone.ParsePEM(hbone.PEM{Chain: leaf.Chain, Key: leaf.Key, Roots: m.ca.PEM()})
	if err != nil {
		return fmt.Errorf("certificate for %s: %w", h.id, err)
	}
	h.certs.Set(cr)
	return nil
}

// Rotate gives everybody a new certificate.
func (m *Mesh) Rotate() error {
	m.mu.Lock()
	all := slices.Clone(m.holders)
	m.mu.Unlock()
	for _, h := range all {
		if err := m.issue(h); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mesh) wire() wire.Options { return wire.Options{Wheel: m.wheel, Tick: time.Second} }

func (m *Mesh) fault(where string) func(net.Addr, error) {
	return func(remote net.Addr, err error) {
		if m.OnFault != nil {
			m.OnFault(where, fmt.Errorf("from %s: %w", remote, err))
		}
	}
}

// startWorkloads runs what the document's workloads need and does not run yet:
// an application on each port, and a node tunnel.
func (m *Mesh) startWorkloads(c *config.Config) error {
	ports := portsOf(c)
	for _, w := range c.Workloads {
		a, err := m.app(w.Namespace + "/" + w.Name)
		if err != nil {
			return err
		}
		for _, addr := range w.Addresses {
			for port, speaks := range ports[addr] {
				on := a
				if greeting := w.Labels[greetingLabel]; greeting != "" || speaks == config.AppTCP {
					if on, err = m.raw(w.Namespace+"/"+w.Name, greeting); err != nil {
						return err
					}
				}
				m.net.set(netip.AddrPortFrom(addr, port), on.addr)
			}
			if w.Protocol == config.ProtocolTCP || m.net.has(netip.AddrPortFrom(addr, tunnelPort)) {
				continue
			}
			if err := m.startInbound(w.Identity(), addr, nil); err != nil {
				return fmt.Errorf("node tunnel of %s: %w", w.Name, err)
			}
			m.net.identify(addr, w.Identity())
		}
	}
	return nil
}

// portsOf lists the ports of each address on which somebody is expected to
// answer, and what they speak.
func portsOf(c *config.Config) map[netip.Addr]map[uint16]config.AppProtocol {
	byName := map[config.Key]*config.Workload{}
	for _, w := range c.Workloads {
		byName[w.Key()] = w
	}
	out := map[netip.Addr]map[uint16]config.AppProtocol{}
	for _, s := range c.Services {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			ns := e.Namespace
			if ns == "" {
				ns = s.Namespace
			}
			addrs := []netip.Addr{e.Address}
			if w := byName[config.Key{Namespace: ns, Name: e.Workload}]; w != nil {
				addrs = w.Addresses
			}
			for _, a := range addrs {
				for j := range s.Ports {
					if out[a] == nil {
						out[a] = map[uint16]config.AppProtocol{}
					}
					out[a][uint16(e.Target(&s.Ports[j]))] = s.Ports[j].Speaks()
				}
			}
		}
	}
	return out
}

// waypointID is the identity of the waypoints.
func (m *Mesh) waypointID() string {
	return "spiffe://cluster.local/ns/" + m.Config.Metadata.Namespace + "/sa/" + waypointN
}

// waypointAddr is the address of a mode's waypoint in the mesh's network
// (documentation addresses of RFC 5737).
func waypointAddr(mode Mode) netip.Addr {
	if mode == Sandwich {
		return netip.MustParseAddr("192.0.2.2")
	}
	return netip.MustParseAddr("192.0.2.1")
}

func (m *Mesh) startWaypoint(mode Mode) error {
	certs, err := m.identity(m.waypointID())
	if err != nil {
		return err
	}
	o := proxy.Options{Registry: m.Registry, Guard: m.Guard, Dial: m.net.dial, OnFault: m.fault("waypoint (" + string(mode) + ")")}
	o.OnPanic = func(err error) { o.OnFault(nil, err) }
	if m.Observe != nil {
		o.Observe = func(out *proxy.Outcome) { m.Observe(mode, out) }
	}
	if m.ObserveConn != nil {
		o.ObserveConn = func(out *proxy.ConnOutcome) { m.ObserveConn(mode, out) }
	}
	if mode == Sandwich {
		o.Sandwiched = true
		capture := m.newTunnel(certs, "waypoint's node tunnel")
		o.Dial = capture.dialCaptured
	} else {
		o.Certificates = certs
	}
	loops, err := wire.NewLoops(0, o.OnPanic)
	if err != nil {
		return err
	}
	o.Loops = loops
	if m.Tune != nil {
		m.Tune(mode, &o)
	}
	p := proxy.New(o)
	m.waypoints[mode] = p
	p.Apply(m.Config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := netip.AddrPortFrom(waypointAddr(mode), tunnelPort)
	ls := proxy.Listeners{}
	if mode == Sandwich {
		ls.Proxy = []net.Listener{l}
		err = m.startInbound(m.waypointID(), addr.Addr(), l.Addr())
	} else {
		ls.HBONE = []net.Listener{l}
		m.meshAddr = l.Addr().String()
		m.net.set(addr, l.Addr().String())
	}
	m.closers = append(m.closers, func() {
		p.Shutdown(m.ctx)
		loops.Close()
	})
	go func() {
		if err := p.Serve(m.ctx, ls); err != nil {
			o.OnFault(l.Addr(), err)
		}
	}()
	return err
}

// schemes are what URLs begin with; a port that declares nothing is asked in HTTP.
// It is never written.
var schemes = [...]string{config.AppDetect: "http://", config.AppHTTP1: "http://", config.AppHTTP2: "http://", config.AppTCP: "tcp://", config.AppTLS: "https://"}

// startClients opens an entry for each service with an address, identity and
// mode.
func (m *Mesh) startClients() error {
	port := m.FirstPort
	for _, id := range m.Clients {
		certs, err := m.identity(id)
		if err != nil {
			return err
		}
		for _, mode := range m.Modes {
			tun := m.newTunnel(certs, "client's node tunnel")
			for _, s := range m.Config.Services {
				for i := range s.Ports {
					if len(s.Addresses) == 0 {
						continue
					}
					vip := netip.AddrPortFrom(s.Addresses[0], uint16(s.Ports[i].Port))
					e := Entry{URL: schemes[s.Ports[i].Speaks()], Service: fmt.Sprintf("%s/%s:%d", s.Namespace, s.Name, vip.Port()), Identity: id, Mode: mode, Address: vip}
					if err := m.startEntry(tun, e, &port); err != nil {
						return err
					}
				}
			}
		}
	}
	if len(m.entries) == 0 {
		return errors.New("the document has no service with an address: nothing can be asked for")
	}
	return nil
}

func (m *Mesh) startEntry(tun *nodeTunnel, e Entry, port *int) error {
	l, err := m.listen(port)
	if err != nil {
		return err
	}
	e.URL += l.Addr().String()
	m.entries = append(m.entries, e)
	expect, err := peer.ParseID(m.waypointID())
	if err != nil {
		return err
	}
	via := netip.AddrPortFrom(waypointAddr(e.Mode), tunnelPort)
	tun.capture(l, hbone.NewDest(via, e.Address, []peer.ID{expect}))
	return nil
}

// listen takes the next port that is free.
func (m *Mesh) listen(port *int) (net.Listener, error) {
	for *port != 0 && *port < 65536 {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", m.Listen, *port))
		*port++
		if err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", m.Listen+":0")
}

// Close ends everything.
func (m *Mesh) Close() {
	m.cancel()
	for _, f := range m.closers {
		f()
	}
	for _, t := range m.tunnels {
		t.close()
	}
	for _, a := range m.apps {
		a.close()
	}
	m.wheel.Close()
}

// Find returns the entry of a service (by name, or namespace/name:port) in a
// mode.
func (m *Mesh) Find(service string, mode Mode) (Entry, bool) {
	for _, e := range m.entries {
		name, _, _ := strings.Cut(e.Service[strings.Index(e.Service, "/")+1:], ":")
		if e.Mode == mode && (e.Service == service || name == service) {
			return e, true
		}
	}
	return Entry{}, false
}
