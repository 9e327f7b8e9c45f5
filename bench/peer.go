package bench

import (
	"context"
	"fmt"
	"os"

	"github.com/sandwich-mesh/sandwich/bench/peers"
)

// Peer starts a proxy that others wrote, on the CPU of the proxy under test.
func (r *Rig) Peer(ctx context.Context, p peers.Peer, at peers.Place) (*Process, error) {
	addr, err := r.freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.dir, "peer-")
	if err != nil {
		return nil, err
	}
	certs := r.certs["waypoint"]
	at.Listen, at.Service, at.Cert, at.Key, at.Roots = addr, vip, certs.Cert, certs.Key, certs.Roots
	argv, err := p.Command(dir, at)
	if err != nil {
		return nil, err
	}
	proc, err := r.Program(ctx, p.Name, proxyCPU, addr, argv...)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	return proc, nil
}
