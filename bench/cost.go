package bench

import (
	"context"
	"fmt"
	"math"

	"github.com/sandwich-mesh/sandwich/bench/peers"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// vip is the address that the bars' one service has in the document; clients
// name it in CONNECT and PROXY headers. Nothing listens there.
const vip = "10.96.0.10:80"

// clientID is who PROXY headers say the client is.
const clientID = "spiffe://cluster.local/ns/demo/sa/curl"

// small is the request that costs are counted for.
func small(streams int) traffic.Group {
	return traffic.Group{Name: "small", Streams: streams, Answer: 1024}
}

func proxyPlan(g ...traffic.Group) traffic.Plan {
	return traffic.Plan{Via: traffic.ViaProxy, To: vip, Identity: clientID, Groups: g}
}

// harness compares the byte relay with itself: what comes out is the error of
// every ratio below.
func harness() Scenario {
	const name = "harness-relay-vs-itself"
	return Scenario{
		Bars: []Bar{{Name: name, Unit: "off", Most: 0.05}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			costs, err := r.Compare(ctx, func() ([]Variant, error) {
				echo, err := r.Part("echo", loadCPU, PartOptions{})
				if err != nil {
					return nil, err
				}
				var vs []Variant
				for _, n := range []string{"relay", "itself"} {
					p, err := r.Part("relay-byte", proxyCPU, PartOptions{To: echo.Addr})
					if err != nil {
						return nil, err
					}
					vs = append(vs, Variant{n, p, proxyPlan(small(32))})
				}
				return vs, nil
			})
			if err != nil {
				return err
			}
			s := Ratio(costs[1], costs[0])
			off := math.Abs(s.Median - 1)
			f[name] = Figure{Spread: Spread{off, off, off}, Note: fmt.Sprintf("ratio %.3f, rounds %.2f..%.2f", s.Median, s.Low, s.High)}
			return nil
		},
	}
}

// proxyCost compares PROXY in, plain out with the byte relay and HAProxy.
func proxyCost() Scenario {
	const vsRelay, vsHAProxy, peerVsRelay = "proxy-plain-32-vs-byte-relay", "proxy-plain-32-vs-haproxy", "haproxy-vs-byte-relay"
	const loops = "event-loops-vs-goroutines"
	return Scenario{
		Bars: []Bar{{Name: vsRelay, Most: 1.15}, {Name: vsHAProxy, Most: 1.00}, {Name: loops, Most: 1.00}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			peer := peers.HAProxy()
			missing := peer.Missing()
			costs, err := r.Compare(ctx, func() ([]Variant, error) { return r.plainField(ctx, peer, missing == nil) })
			if err != nil {
				return err
			}
			f[vsRelay], f[loops] = compared(costs[0], costs[1]), compared(costs[0], costs[2])
			if f[vsHAProxy] = (Figure{Missing: missing}); missing == nil {
				f[vsHAProxy] = compared(costs[0], costs[3])
				r.logf("  %s %.2f", peerVsRelay, Ratio(costs[3], costs[1]).Median)
			}
			return nil
		},
	}
}

// plainField starts who takes PROXY in and plain out: the waypoint, the byte relay,
// the waypoint without event loops, and a peer.
func (r *Rig) plainField(ctx context.Context, peer peers.Peer, with bool) ([]Variant, error) {
	echo, err := r.Part("echo", loadCPU, PartOptions{})
	if err != nil {
		return nil, err
	}
	way, err := r.waypoint(ctx, proxyCPU, upstream{Plain: echo.Addr})
	if err != nil {
		return nil, err
	}
	rel, err := r.Part("relay-byte", proxyCPU, PartOptions{To: echo.Addr})
	if err != nil {
		return nil, err
	}
	without, err := r.waypoint(ctx, proxyCPU, upstream{Plain: echo.Addr}, "--event-loops", "-1")
	if err != nil {
		return nil, err
	}
	plan := proxyPlan(small(32))
	vs := []Variant{{"waypoint", way.proxy, plan}, {"byte-relay", rel, plan}, {"goroutines", without.proxy, plan}}
	if !with {
		return vs, nil
	}
	p, err := r.Peer(ctx, peer, peers.Place{Application: echo.Addr})
	return append(vs, Variant{peer.Name, p, plan}), err
}

// meshPlan is load through HBONE, from one client.
func (r *Rig) meshPlan(conns int, g ...traffic.Group) traffic.Plan {
	return traffic.Plan{Via: traffic.ViaHBONE, Conns: conns, To: vip, Certs: r.certs["curl"], Groups: g}
}

// meshCost compares HBONE in and out with the TLS relay, which carries the
// same HTTP/2 unread.
func meshCost(streams, conns int, bar float64) Scenario {
	name := fmt.Sprintf("hbone-hbone-%d-on-%d-vs-tls-relay", streams, conns)
	return Scenario{
		Bars: []Bar{{Name: name, Most: bar}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			plan := r.meshPlan(conns, small(streams))
			costs, err := r.Compare(ctx, func() ([]Variant, error) { return r.meshField(ctx, "tunnel", plan) })
			if err != nil {
				return err
			}
			f[name] = compared(costs[0], costs[1])
			return nil
		},
	}
}

// meshField starts the waypoint and the TLS relay before an end of a tunnel.
func (r *Rig) meshField(ctx context.Context, part string, plan traffic.Plan) ([]Variant, error) {
	end, err := r.Part(part, loadCPU, PartOptions{Certs: r.certs["echo"]})
	if err != nil {
		return nil, err
	}
	way, err := r.waypoint(ctx, proxyCPU, upstream{Tunnel: end.Addr, GRPC: plan.Calls > 0})
	if err != nil {
		return nil, err
	}
	rel, err := r.Part("relay-tls", proxyCPU, PartOptions{To: end.Addr, Certs: r.certs["waypoint"]})
	return []Variant{{"waypoint", way.hbone, plan}, {"tls-relay", rel, plan}}, err
}

// callsPlan is gRPC through HBONE: so many calls at once, each mesh connection
// with one HTTP/2 connection inside.
func (r *Rig) callsPlan(conns, calls int) traffic.Plan {
	p := r.meshPlan(conns, small(calls))
	p.Calls = calls / conns
	return p
}

// callCost compares gRPC in HBONE, in and out, with the TLS relay.
func callCost(calls, conns int, bar float64) Scenario {
	name := fmt.Sprintf("grpc-%d-on-%d-vs-tls-relay", calls, conns)
	return Scenario{
		Bars: []Bar{{Name: name, Most: bar}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			plan := r.callsPlan(conns, calls)
			costs, err := r.Compare(ctx, func() ([]Variant, error) { return r.meshField(ctx, "tunnel-grpc", plan) })
			if err != nil {
				return err
			}
			f[name] = compared(costs[0], costs[1])
			return nil
		},
	}
}

// compared is the figure for a ratio of costs.
func compared(of, to Costs) Figure {
	return Figure{Spread: Ratio(of, to), Note: fmt.Sprintf("%.2f µs %s, %.2f µs %s", spread(of.Costs).Median, of.Name, spread(to.Costs).Median, to.Name)}
}
