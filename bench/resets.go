package bench

import (
	"context"
	"fmt"
	"net"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// resets resets streams in the middle of bodies and looks for what the windows
// of the connections on both sides of the proxy have lost by it.
func resets() Scenario {
	const name = "resets-window-lost"
	const times = 10_000 // in each direction
	return Scenario{
		Bars: []Bar{{Name: name, Unit: "bytes", Most: 0}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			server, _, err := r.certs["echo"].TLS()
			if err != nil {
				return err
			}
			_, client, err := r.certs["curl"].TLS()
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			end := &traffic.LedgerEnd{}
			go end.Serve(l, server)
			way, err := r.waypoint(ctx, proxyCPU, upstream{Tunnel: l.Addr().String()})
			if err != nil {
				return err
			}
			ledger := traffic.Ledger{Addr: way.hbone.Addr, To: vip, Config: client, End: end, Resets: times}
			lost, err := ledger.Count(ctx)
			if err != nil {
				return fmt.Errorf("%w (waypoint says: %s)", err, way.proxy.log)
			}
			v := float64(lost.Sum())
			f[name] = Figure{Spread: Spread{v, v, v}, Note: fmt.Sprintf("%d resets each way; to and from the client %d and %d, to and from the tunnel's end %d and %d",
				times, lost.ToClient, lost.FromClient, lost.ToEnd, lost.FromEnd)}
			return nil
		},
	}
}
