package devmesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// tunnelPort is where node tunnels listen in the mesh's network.
const tunnelPort = 15008

// A network maps the mesh's addresses to listeners on loopback.
type network struct {
	mu     sync.Mutex
	routes map[netip.AddrPort]string
	ids    map[netip.Addr]string // who must answer for a pod
}

func newNetwork() *network {
	return &network{routes: map[netip.AddrPort]string{}, ids: map[netip.Addr]string{}}
}

func (n *network) set(a netip.AddrPort, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.routes[a] = to
}

func (n *network) has(a netip.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.routes[a]
	return ok
}

func (n *network) identify(a netip.Addr, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ids[a] = id
}

// identity returns who must answer for a pod; "" if it speaks no HBONE.
func (n *network) identity(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ids[a]
}

// dial connects to an address of the mesh.
func (n *network) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	to, ok := n.routes[a]
	n.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no route to %s in the mesh", a)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to)
}
