package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// A starter starts what stands before a tunnel's end.
type starter func(ctx context.Context, end *Process) (*Process, error)

func (r *Rig) looseWaypoint(ctx context.Context, end *Process) (*Process, error) {
	w, err := r.waypoint(ctx, anyCPU, upstream{Tunnel: end.Addr})
	if err != nil {
		return nil, err
	}
	return w.hbone, nil
}

func (r *Rig) looseRelay(_ context.Context, end *Process) (*Process, error) {
	return r.Part("relay-tls", anyCPU, PartOptions{To: end.Addr, Certs: r.certs["waypoint"]})
}

// pair starts two proxies alike, for loads that must not meet in one, and
// compares slice by slice. Nothing is pinned: the proxy may use every core.
func (r *Rig) pair(ctx context.Context, start starter, a, b Variant) ([2][]*traffic.Result, error) {
	var got [2][]*traffic.Result
	var sessions [2]*Session
	for i, v := range []*Variant{&a, &b} {
		end, err := r.Part("tunnel", anyCPU, PartOptions{Certs: r.certs["echo"]})
		if err != nil {
			return got, err
		}
		proc, err := start(ctx, end)
		if err != nil {
			return got, err
		}
		if sessions[i], err = r.load(ctx, anyCPU, proc, v.Plan); err != nil {
			return got, fmt.Errorf("%s: %w", v.Name, err)
		}
		defer sessions[i].End()
		if _, err := sessions[i].Measure(ctx, traffic.Measure{Warm: slice, For: slice}); err != nil {
			return got, fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	n := max(4, r.Rounds*int(r.For/(3*slice)))
	for at := range n {
		for k := range 2 {
			i := (at + k) % 2
			res, err := sessions[i].Measure(ctx, traffic.Measure{Warm: sliceWarm, For: 2 * slice})
			if err != nil {
				return got, fmt.Errorf("%s: %w", []string{a.Name, b.Name}[i], err)
			}
			got[i] = append(got[i], res)
		}
	}
	return got, nil
}

// ratios compares a number of each slice of b with that of a, round by round.
func (r *Rig) ratios(got [2][]*traffic.Result, of func(*traffic.Result) float64) Spread {
	var all []float64
	size := max(1, len(got[0])/r.Rounds)
	for from := 0; from+size <= len(got[0]); from += size {
		var mid [2]float64
		for i := range got {
			var s []float64
			for _, res := range got[i][from : from+size] {
				s = append(s, of(res))
			}
			mid[i] = spread(s).Median
		}
		if mid[0] > 0 {
			all = append(all, mid[1]/mid[0])
		}
	}
	return spread(all)
}

func rate(res *traffic.Result) float64 {
	return float64(res.Groups[0].Requests) / res.Elapsed.Seconds()
}

func p99(res *traffic.Result) float64 { return float64(res.Groups[0].P99) }

// oneConnection compares the throughput of 100 streams on one connection with
// that of as many on eight.
func oneConnection() Scenario {
	const name = "hbone-100-on-1-vs-on-8"
	return Scenario{
		Bars: []Bar{{Name: name, Least: 0.80}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			got, err := r.pair(ctx, r.looseWaypoint, Variant{Name: "on 8", Plan: r.meshPlan(8, small(100))}, Variant{Name: "on 1", Plan: r.meshPlan(1, small(100))})
			if err != nil {
				return err
			}
			f[name] = Figure{Spread: r.ratios(got, rate), Note: fmt.Sprintf("%.0f/s on 8 connections, %.0f/s on 1", median(got[0], rate), median(got[1], rate))}
			return nil
		},
	}
}

func median(res []*traffic.Result, of func(*traffic.Result) float64) float64 {
	var s []float64
	for _, r := range res {
		s = append(s, of(r))
	}
	return spread(s).Median
}

// bulkBesideSmall compares the p99 of 50 small streams with a bulk stream on
// their connection with that without.
func bulkBesideSmall() Scenario {
	const name = "hbone-p99-beside-bulk"
	return Scenario{
		Bars: []Bar{{Name: name, Most: 2}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			bulk := traffic.Group{Name: "bulk", Streams: 1, Answer: 8 << 20}
			alone := Variant{Name: "alone", Plan: r.meshPlan(1, small(50))}
			beside := Variant{Name: "beside bulk", Plan: r.meshPlan(1, small(50), bulk)}
			got, err := r.pair(ctx, r.looseWaypoint, alone, beside)
			if err != nil {
				return err
			}
			moved := func(res *traffic.Result) float64 {
				return float64(res.Groups[1].Bytes) / res.Elapsed.Seconds() / (1 << 20)
			}
			if median(got[1], moved) == 0 {
				return errors.New("the bulk stream did not move")
			}
			r.Clear()
			relayed, err := r.pair(ctx, r.looseRelay, alone, beside) // what the ends themselves make of it
			if err != nil {
				return err
			}
			f[name] = Figure{Spread: r.ratios(got, p99), Note: fmt.Sprintf("%v alone, %v beside a bulk of %.0f MiB/s; through the TLS relay %.2f times, beside %.0f MiB/s",
				time.Duration(median(got[0], p99)), time.Duration(median(got[1], p99)), median(got[1], moved), r.ratios(relayed, p99).Median, median(relayed[1], moved))}
			r.logf("  %s", f[name].Note)
			return nil
		},
	}
}

// slowReader compares the rate of streams that have a slow reader of 1 GiB
// among them, on the same connection both ways, with that without; and looks at
// what the engine holds for the slow one.
func slowReader() Scenario {
	const neighbours, held = "slow-reader-neighbours", "slow-reader-holds"
	slow := traffic.Group{Name: "slow", Streams: 1, Answer: 1 << 30, Rate: 256 << 10}
	return Scenario{
		Bars: []Bar{{Name: neighbours, Least: 0.90}, {Name: held, Unit: "KiB", Most: 1024}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			got, err := r.pair(ctx, r.looseWaypoint, Variant{Name: "alone", Plan: r.meshPlan(1, small(31))}, Variant{Name: "beside slow", Plan: r.meshPlan(1, small(31), slow)})
			if err != nil {
				return err
			}
			f[neighbours] = Figure{Spread: r.ratios(got, rate), Note: fmt.Sprintf("%.0f/s alone, %.0f/s beside it", median(got[0], rate), median(got[1], rate))}
			r.Clear()
			f[held], err = r.heldFor(ctx, slow)
			return err
		},
	}
}

// heldFor looks at an engine that works for neighbours, with and without a slow
// stream on another connection of the same client, and says how much more is
// live with it.
func (r *Rig) heldFor(ctx context.Context, slow traffic.Group) (Figure, error) {
	end, err := r.Part("tunnel", loadCPU, PartOptions{Certs: r.certs["echo"]})
	if err != nil {
		return Figure{}, err
	}
	in, err := r.inside(ctx, upstream{Tunnel: end.Addr}, false)
	if err != nil {
		return Figure{}, err
	}
	s, err := r.Load(ctx, in.hbone, r.meshPlan(1, small(31)))
	if err != nil {
		return Figure{}, err
	}
	defer s.End()
	looks := func() (live []float64, err error) {
		for range max(5, r.Rounds) {
			if _, err := s.Measure(ctx, traffic.Measure{For: slice}); err != nil { // rests, so that only what waits is held
				return nil, err
			}
			l, err := in.Look(ctx)
			if err != nil {
				return nil, err
			}
			live = append(live, float64(l.Live)/1024)
		}
		return live, nil
	}
	without, err := looks()
	if err != nil {
		return Figure{}, err
	}
	reader, err := r.Load(ctx, in.hbone, r.meshPlan(1, slow))
	if err != nil {
		return Figure{}, err
	}
	defer reader.End()
	if _, err := reader.Measure(ctx, traffic.Measure{Warm: time.Second, For: 3 * time.Second, Stay: true}); err != nil {
		return Figure{}, err
	}
	with, err := looks()
	if err != nil {
		return Figure{}, err
	}
	base := spread(without)
	r.logf("  live without a slow reader %.0f KiB, with one %.0f KiB", without, with)
	low, high := slices.Min(with)-base.Median, slices.Max(with)-base.Median
	return Figure{Spread: Spread{spread(with).Median - base.Median, low, high}, Note: fmt.Sprintf("%.0f KiB live without it", base.Median)}, nil
}
