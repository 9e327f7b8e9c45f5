package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// allocationsAndGoroutines counts heap objects of ours per request, and goroutines per
// stream, HBONE in and out.
func allocationsAndGoroutines() Scenario {
	const objects, routines = "hbone-allocs-per-request", "hbone-goroutines-per-stream"
	return Scenario{
		// What pools make anew after a collection is in the figure; for the bar
		// it is rounded away.
		Bars: []Bar{{Name: objects, Unit: "allocs", Most: 0.01}, {Name: routines, Unit: "goroutines", Most: 0}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			end, err := r.Part("tunnel", loadCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			in, err := r.inside(ctx, upstream{Tunnel: end.Addr}, true)
			if err != nil {
				return err
			}
			if f[objects], err = r.countAllocs(ctx, in, r.meshPlan(4, small(32))); err != nil {
				return err
			}
			f[routines], err = r.countGoroutines(ctx, in)
			return err
		},
	}
}

// callAllocations counts heap objects of ours per gRPC call, HBONE in and out.
func callAllocations() Scenario {
	const objects = "grpc-allocs-per-call"
	return Scenario{
		Bars: []Bar{{Name: objects, Unit: "allocs", Most: 3}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			end, err := r.Part("tunnel-grpc", loadCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			in, err := r.inside(ctx, upstream{Tunnel: end.Addr, GRPC: true}, true)
			if err != nil {
				return err
			}
			f[objects], err = r.countAllocs(ctx, in, r.callsPlan(4, 32))
			return err
		},
	}
}

func (r *Rig) countAllocs(ctx context.Context, in *Inside, plan traffic.Plan) (Figure, error) {
	s, err := r.Load(ctx, in.hbone, plan)
	if err != nil {
		return Figure{}, err
	}
	defer s.End()
	before, err := s.Measure(ctx, traffic.Measure{For: time.Second})
	if err != nil {
		return Figure{}, err
	}
	if _, err := in.Look(ctx); err != nil {
		return Figure{}, err
	}
	after := before
	for after.Total-before.Total < 10_000 {
		if after, err = s.Measure(ctx, traffic.Measure{For: 2 * time.Second}); err != nil {
			return Figure{}, err
		}
	}
	l, err := in.Look(ctx)
	if err != nil {
		return Figure{}, err
	}
	n := float64(after.Total - before.Total)
	v := float64(l.Allocs.Ours) / n
	note := fmt.Sprintf("%.0f requests; crypto/tls %.2f each; ours: %s", n, float64(l.Allocs.TLS)/n, strings.Join(l.Allocs.Top, "; "))
	r.logf("  %s", note)
	return Figure{Spread: Spread{v, v, v}, Note: note}, nil
}

// countGoroutines compares few streams with many on as many connections, both
// under load. Goroutines of full sockets and dials come and go, so the least of
// several looks counts.
func (r *Rig) countGoroutines(ctx context.Context, in *Inside) (Figure, error) {
	const few, many = 8, 256
	var least [2]int
	for i, streams := range []int{few, many} {
		s, err := r.Load(ctx, in.hbone, r.meshPlan(8, small(streams)))
		if err != nil {
			return Figure{}, err
		}
		for range 4 {
			if _, err := s.Measure(ctx, traffic.Measure{For: time.Second, Stay: true}); err != nil {
				return Figure{}, err
			}
			l, err := in.Look(ctx)
			if err != nil {
				return Figure{}, err
			}
			if least[i] == 0 || l.Goroutines < least[i] {
				least[i] = l.Goroutines
			}
		}
		s.End()
	}
	v := max(0, float64(least[1]-least[0])) / (many - few)
	return Figure{Spread: Spread{v, v, v}, Note: fmt.Sprintf("%d with %d streams, %d with %d", least[0], few, least[1], many)}, nil
}

// Idle memory is the difference between some idle streams and idle more. The
// first ones pay for what the engine makes once.
const some, idle = 100, 1000

// A connection is idle once it has rested: its reader sheds its stack within two
// ticks of a second.
const rest = 3 * time.Second

// idleMemory counts what one more idle stream or connection holds that has been
// used before. Both figures are resident memory after a collection.
func idleMemory() Scenario {
	const stream, conn = "idle-connect-stream", "idle-proxy-connection"
	return Scenario{
		Bars: []Bar{{Name: stream, Unit: "KiB", Most: 4}, {Name: conn, Unit: "KiB", Most: 6}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			end, err := r.Part("tunnel", loadCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			echo, err := r.Part("echo", loadCPU, PartOptions{})
			if err != nil {
				return err
			}
			mesh := func(n int) traffic.Plan { return r.meshPlan(10, small(n)) }
			if f[stream], err = r.idleOf(ctx, upstream{Tunnel: end.Addr}, mesh); err != nil {
				return err
			}
			f[conn], err = r.idleOf(ctx, upstream{Plain: echo.Addr}, func(n int) traffic.Plan { return proxyPlan(small(n)) })
			return err
		},
	}
}

// idleOf compares what fresh engines hold for some and for many streams.
func (r *Rig) idleOf(ctx context.Context, u upstream, plan func(streams int) traffic.Plan) (Figure, error) {
	var held []float64
	const times = 3
	for range times {
		in, err := r.inside(ctx, u, false)
		if err != nil {
			return Figure{}, err
		}
		var with [2]*look
		for i, streams := range []int{some, some + idle} {
			if with[i], err = r.lookAtIdle(ctx, in, plan(streams)); err != nil {
				return Figure{}, err
			}
		}
		in.proxy.Stop()
		each := func(n int64) float64 { return float64(n) / idle / 1024 }
		r.logf("  %.2f KiB resident, %.2f KiB live; goroutines %d and %d", each(with[1].Resident-with[0].Resident),
			each(with[1].Live-with[0].Live), with[0].Goroutines, with[1].Goroutines)
		held = append(held, each(with[1].Resident-with[0].Resident))
	}
	return Figure{Spread: spread(held), Note: fmt.Sprintf("%d of them beyond the first %d", idle, some)}, nil
}

// lookAtIdle has each stream of a load ask once and looks at what is held when
// all rest.
func (r *Rig) lookAtIdle(ctx context.Context, in *Inside, plan traffic.Plan) (*look, error) {
	to := in.proxy
	if plan.Via == traffic.ViaHBONE {
		to = in.hbone
	}
	s, err := r.Load(ctx, to, plan)
	if err != nil {
		return nil, err
	}
	defer s.End()
	if _, err := s.Measure(ctx, traffic.Measure{Each: true}); err != nil {
		return nil, err
	}
	select {
	case <-time.After(rest):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return in.Look(ctx)
}
