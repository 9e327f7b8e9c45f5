package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// ladderLimit is the memory that the proxy of the ladder's scenario may have.
const ladderLimit = 96 << 20

// memoryLadder has clients that do not read hold much more than the proxy may have.
// It is to stay below its limit, to live, and to serve again when they have gone.
func memoryLadder() Scenario {
	const most, after = "memory-under-limit", "served-after-memory-was-short"
	return Scenario{
		Bars: []Bar{{Name: most, Unit: "MiB", Most: ladderLimit >> 20}, {Name: after, Unit: "requests", Least: 1000}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			end, err := r.Part("tunnel", anyCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			metrics, err := r.freeAddr()
			if err != nil {
				return err
			}
			way, err := r.waypoint(ctx, anyCPU, upstream{Tunnel: end.Addr}, "--memory-limit", strconv.Itoa(ladderLimit), "--metrics-listen", metrics)
			if err != nil {
				return err
			}
			flooder, err := r.flooder(ctx, way.hbone)
			if err != nil {
				return err
			}
			defer flooder.End()
			var res traffic.FloodResult
			order := traffic.Flood{Attack: "zero-window", Many: 60, Pause: 20 * time.Millisecond, For: 6 * time.Second}
			before, err := account.Resident(way.hbone.PID())
			if err != nil {
				return err
			}
			grown, err := peak(ctx, way.hbone, func() error { return flooder.ask(ctx, order, &res, order.For+2*startTime) })
			if err != nil {
				return err
			}
			if err := way.hbone.alive(); err != nil {
				return err
			}
			steps, err := scrape(ctx, metrics, `waypoint_memory_steps_total{step="full"}`)
			if err != nil {
				return err
			}
			v := float64(before+grown) / (1 << 20)
			f[most] = Figure{Spread: Spread{v, v, v}, Note: fmt.Sprintf("%d of %d clients were refused or cut; nobody new was let in %.0f times", res.Ended, res.Conns, steps)}
			r.logf("  %.1f MiB; %s; %s", v, f[most].Note, res.Why)
			if steps == 0 {
				return errors.New("the ladder was not climbed, so this shows nothing")
			}
			f[after], err = r.servedAgain(ctx, way.hbone)
			return err
		},
	}
}

// servedAgain says how many requests are answered in a second once memory is not
// short any more.
func (r *Rig) servedAgain(ctx context.Context, p *Process) (Figure, error) {
	began := time.Now()
	for {
		waited := time.Since(began)
		s, err := r.Load(ctx, p, r.meshPlan(1, small(8)))
		if err == nil {
			var m *traffic.Result
			if m, err = s.Measure(ctx, traffic.Measure{For: time.Second}); err == nil {
				s.End()
				v := float64(m.Requests())
				return Figure{Spread: Spread{v, v, v}, Note: fmt.Sprintf("%v after the clients had gone", waited.Round(time.Millisecond))}, nil
			}
			s.End()
		}
		if time.Since(began) > startTime {
			return Figure{}, err
		}
	}
}
