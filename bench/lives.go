package bench

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// What happens in a whole life, and how many requests there are beside it.
const (
	lifeChanges   = 50
	lifeRotations = 5
	lifeRestarts  = 5
	lifeDeaths    = 10
	lifeRequests  = 500_000
	// endTime bounds how long a predecessor may take to drain. Its clients go as
	// soon as they are told.
	endTime = 20 * time.Second
)

// lives changes the document, rotates certificates, restarts the waypoint and kills
// endpoints under load, and counts what failed.
func lives() Scenario {
	const failed, requests = "life-failed-requests", "life-requests"
	return Scenario{
		Long: true,
		Bars: []Bar{{Name: failed, Unit: "requests", Most: 0}, {Name: requests, Unit: "requests", Least: lifeRequests}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			h, err := r.newHouse()
			if err != nil {
				return err
			}
			if h.now, err = h.move(ctx); err != nil {
				return err
			}
			p, err := r.patrons(h.hbone, h.proxy, patronage{Meshes: 4, Tunnels: 16, Calls: 8, Headed: 8})
			if err != nil {
				return err
			}
			err = h.live(ctx, p)
			first := p.Leave()
			if err != nil {
				return err
			}
			v, n := float64(p.failed.Load()+p.refused.Load()), float64(p.asked.Load())
			note := fmt.Sprintf("%d document changes, %d certificate rotations, %d restarts, %d endpoint deaths", lifeChanges, lifeRotations, lifeRestarts, lifeDeaths)
			if first != nil {
				note += "; the first failure: " + first.Error()
			}
			f[failed] = Figure{Spread: Spread{v, v, v}, Note: note}
			f[requests] = Figure{Spread: Spread{n, n, n}}
			return nil
		},
	}
}

// live is all that happens, each thing behind a share of the requests.
func (h *house) live(ctx context.Context, p *Patrons) error {
	for i := range int64(lifeChanges) {
		if err := p.until(ctx, "requests", func() bool { return p.asked.Load() >= (i+1)*lifeRequests/lifeChanges }); err != nil {
			return err
		}
		if err := h.document(i + 1); err != nil {
			return err
		}
		if err := p.until(ctx, "the document's change", func() bool { return p.version.Load() == i+1 }); err != nil {
			return err
		}
		var err error
		switch {
		case i%(lifeChanges/lifeDeaths) == 1:
			err = h.death(ctx, p, int(i/5)%len(h.endpoints))
		case i%(lifeChanges/lifeRotations) == 3:
			err = h.certify()
		case i%(lifeChanges/lifeRestarts) == 7:
			err = h.restart(ctx)
		}
		if err != nil {
			return err
		}
		h.r.logf("  change %d: %d requests, %d failed, %d connections refused", i+1, p.asked.Load(), p.failed.Load(), p.refused.Load())
	}
	return nil
}

// death kills an endpoint, and revives it a few thousand requests later.
func (h *house) death(ctx context.Context, p *Patrons, i int) error {
	h.endpoints[i].Stop()
	at := p.asked.Load()
	if err := p.until(ctx, "requests beside a dead endpoint", func() bool { return p.asked.Load() > at+lifeRequests/200 }); err != nil {
		return err
	}
	return h.revive(i)
}

// restart has another process take over.
func (h *house) restart(ctx context.Context) error {
	before := h.now
	next, err := h.move(ctx, "--take-over")
	if err != nil {
		return err
	}
	h.now = next
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	if err := before.Ended(ctx); err != nil {
		return fmt.Errorf("the predecessor: %w: %s", err, before.log)
	}
	return nil
}

// crashes kills the waypoint under load, takes its document's source away, and
// starts it again.
func crashes() Scenario {
	const beyond, ready = "kill-failed-after", "kill-ready-again"
	const times = 5
	return Scenario{
		Bars: []Bar{{Name: beyond, Unit: "requests", Most: 0}, {Name: ready, Unit: "ms", Most: 1000}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			h, err := r.newHouse()
			if err != nil {
				return err
			}
			if h.now, err = h.move(ctx); err != nil {
				return err
			}
			p, err := r.patrons(h.hbone, h.proxy, patronage{Meshes: 4, Tunnels: 16, Headed: 16})
			if err != nil {
				return err
			}
			defer p.Leave()
			if err := os.Remove(h.file("waypoint.yaml")); err != nil {
				return err
			}
			var tooMany, took []float64
			for range times {
				more, again, err := h.crash(ctx, p)
				if err != nil {
					return err
				}
				tooMany, took = append(tooMany, more), append(took, again)
			}
			f[beyond], f[ready] = Figure{Spread: worst(tooMany)}, Figure{Spread: worst(took), Note: fmt.Sprintf("the worst of %d, from the state directory alone", times)}
			return nil
		},
	}
}

// crash kills the waypoint and starts another. It returns how many requests failed
// that began when it was dead, and how many milliseconds passed from the start to being
// ready.
func (h *house) crash(ctx context.Context, p *Patrons) (beyond, took float64, err error) {
	at := p.asked.Load()
	if err := p.until(ctx, "requests", func() bool { return p.asked.Load() > at+2000 }); err != nil {
		return 0, 0, err
	}
	failed := p.failed.Load()
	if err := h.now.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return 0, 0, err
	}
	<-h.now.done
	begun := time.Now()
	if h.now, err = h.move(ctx); err != nil {
		return 0, 0, err
	}
	took = float64(time.Since(begun)) / float64(time.Millisecond)
	at = p.asked.Load()
	if err := p.until(ctx, "requests after a crash", func() bool { return p.asked.Load() > at+2000 }); err != nil {
		return 0, 0, err
	}
	later := p.failedSince(begun)
	h.r.logf("  %d failed that were under way, %d later; ready after %.0f ms", p.failed.Load()-failed-int64(later), later, took)
	return float64(later), took, nil
}

// worst is a spread of which the largest value counts.
func worst(s []float64) Spread {
	out := spread(s)
	out.Median = out.High
	return out
}
