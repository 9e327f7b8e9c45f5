package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
)

// settled is how long a waypoint has been idle when its memory is looked at.
const settled = 10 * time.Second

// idleProcess looks at what a waypoint holds that has its document, 50 services with
// 500 endpoints, and nothing to do; and at how much of that the same binary holds
// that has not begun.
func idleProcess() Scenario {
	const anon, all, over = "idle-rss-anon", "idle-rss", "idle-rss-anon-over-links"
	const times = 3
	return Scenario{
		Bars: []Bar{{Name: anon, Unit: "MiB", Most: 12}, {Name: all, Unit: "MiB", Most: 28}, {Name: over, Unit: "MiB", Most: 6}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			h, err := r.newHouse()
			if err != nil {
				return err
			}
			if err := h.replace("waypoint.yaml", manyServices(50, 500)); err != nil {
				return err
			}
			nothing, err := r.doingNothing(ctx, h)
			if err != nil {
				return err
			}
			var anons, alls, overs, files []float64
			for range times {
				if h.now, err = h.move(ctx); err != nil {
					return err
				}
				m, err := rested(ctx, h.now)
				if err != nil {
					return err
				}
				h.now.Stop()
				r.logf("  %.1f MiB resident, %.1f of them anonymous; doing nothing %.1f and %.1f", mib(m.RSS), mib(m.Anon), mib(nothing.RSS), mib(nothing.Anon))
				anons, alls, overs = append(anons, mib(m.Anon)), append(alls, mib(m.RSS)), append(overs, mib(m.Anon-nothing.Anon))
				files = append(files, mib(m.RSS-nothing.RSS)-mib(m.Anon-nothing.Anon))
			}
			note := fmt.Sprintf("50 services, 500 endpoints, %v idle", settled)
			f[anon], f[all] = Figure{Spread: spread(anons), Note: note}, Figure{Spread: spread(alls), Note: note}
			f[over] = Figure{Spread: spread(overs), Note: fmt.Sprintf("the same binary that waits for its log file holds %.1f MiB, and %.1f anonymous; %.1f more pages of the program file are in use", mib(nothing.RSS), mib(nothing.Anon), spread(files).Median)}
			return nil
		},
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// rested returns what a process holds when it has rested.
func rested(ctx context.Context, p *Process) (account.Memory, error) {
	select {
	case <-time.After(settled):
	case <-ctx.Done():
		return account.Memory{}, ctx.Err()
	}
	if err := p.alive(); err != nil {
		return account.Memory{}, err
	}
	return account.Held(p.PID())
}

// doingNothing is what the binary holds that links all that a waypoint links and has
// not begun: the first thing it does is to open its log, and here it waits in that
// for a reader.
func (r *Rig) doingNothing(ctx context.Context, h *house) (account.Memory, error) {
	if r.Waypoint == "" {
		return account.Memory{}, errNoWaypoint
	}
	pipe := h.file("log")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		return account.Memory{}, err
	}
	p, out, err := r.start("waypoint", anyCPU, []string{r.Waypoint, "serve", "--config", h.file("waypoint.yaml"), "--state-dir", h.file("none"), "--access-log-file", pipe})
	if err != nil {
		return account.Memory{}, err
	}
	go p.drainLog(out)
	defer p.Stop()
	m, err := rested(ctx, p)
	if _, stat := os.Stat(h.file("none")); err == nil && stat == nil {
		err = errors.New("it has begun to do something")
	}
	return m, err
}
