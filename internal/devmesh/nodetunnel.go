package devmesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A nodeTunnel is one workload's part of its node's tunnel: it wraps what the
// workload dials, and unwraps what comes for it.
type nodeTunnel struct {
	m      *Mesh
	server *hbone.Server
	pool   *hbone.Pool

	// Set for a workload that is handed its tunnels behind PROXY headers.
	appTunnel net.Addr

	mu       sync.Mutex
	captures map[netip.AddrPort]*hbone.Dest // by listener: where what comes there goes
	captured map[netip.AddrPort]string      // by destination: the listener that captures it
}

// newTunnel returns the node tunnel of a workload with those certificates.
func (m *Mesh) newTunnel(certs *hbone.Certificates, name string) *nodeTunnel {
	t := &nodeTunnel{m: m, captures: map[netip.AddrPort]*hbone.Dest{}, captured: map[netip.AddrPort]string{}}
	t.server = hbone.NewServer(hbone.ServerOptions{Accept: t.accept, Certificates: certs, Wire: m.wire(), OnFault: m.fault(name)})
	t.pool = hbone.NewPool(hbone.PoolOptions{Certificates: certs, Wire: m.wire(), Dial: m.net.dial})
	m.mu.Lock()
	m.tunnels = append(m.tunnels, t)
	m.mu.Unlock()
	return t
}

// startInbound runs the node tunnel of a workload at addr. With appTunnel set
// it hands tunnels over behind PROXY headers; else it connects them.
func (m *Mesh) startInbound(id string, addr netip.Addr, appTunnel net.Addr) error {
	certs, err := m.identity(id)
	if err != nil {
		return err
	}
	t := m.newTunnel(certs, "node tunnel of "+addr.String())
	t.appTunnel = appTunnel
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.net.set(netip.AddrPortFrom(addr, tunnelPort), l.Addr().String())
	go t.server.ServeHBONE(l)
	return nil
}

// capture wraps whatever connects to l and sends it to d.
func (t *nodeTunnel) capture(l net.Listener, d *hbone.Dest) {
	t.mu.Lock()
	t.captures[l.Addr().(*net.TCPAddr).AddrPort()] = d
	t.mu.Unlock()
	go t.server.ServePlain(l)
}

// accept joins a tunnel to where it is bound for, and answers when that has
// answered, as node tunnels do.
func (t *nodeTunnel) accept(tn *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
	d, head, err := t.destination(tun.Peer())
	if err != nil {
		return nil, err
	}
	return hbone.Forward(tun, hbone.Forwarding{
		Head: head,
		Open: func(far hbone.TunnelHandler) hbone.Tunnel { return t.pool.Open(tn, d, far) },
	})
}

// destination says where a tunnel goes, and with which bytes it begins there.
func (t *nodeTunnel) destination(p *peer.Info) (*hbone.Dest, []byte, error) {
	if p.How != peer.HBONE {
		t.mu.Lock()
		d := t.captures[p.Local]
		t.mu.Unlock()
		if d == nil {
			return nil, nil, fmt.Errorf("nobody captures %s", p.Local)
		}
		return d, nil, nil
	}
	if t.appTunnel == nil {
		if p.Destination.Port() == tunnelPort {
			return nil, nil, &hbone.Refusal{Status: 503, Reason: "the port is the tunnel's own"}
		}
		return hbone.NewPlainDest(p.Destination), nil, nil
	}
	to := t.appTunnel.(*net.TCPAddr).AddrPort()
	t.m.net.set(to, to.String())
	head, err := proxyproto.Append(nil, proxyproto.Header{Source: p.Source, Destination: p.Destination, Identity: p.ID.String()})
	return hbone.NewPlainDest(to), head, err
}

// dialCaptured is how a captured workload's connections leave: they meet its
// node tunnel, which wraps them if the other end speaks HBONE.
func (t *nodeTunnel) dialCaptured(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	id := t.m.net.identity(a.Addr())
	if id == "" {
		return t.m.net.dial(ctx, a)
	}
	to, err := t.capturer(a, id)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to)
}

// capturer returns the listener that stands for an address.
func (t *nodeTunnel) capturer(a netip.AddrPort, id string) (string, error) {
	t.mu.Lock()
	to, ok := t.captured[a]
	t.mu.Unlock()
	if ok {
		return to, nil
	}
	expect, err := peer.ParseID(id)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	t.capture(l, hbone.NewDest(netip.AddrPortFrom(a.Addr(), tunnelPort), a, []peer.ID{expect}))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.captured[a] = l.Addr().String()
	return l.Addr().String(), nil
}

func (t *nodeTunnel) close() {
	t.pool.Close()
	t.server.Shutdown(t.m.ctx)
}
