package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// telemetryCost times what is done for each request beside serving it: metrics,
// the decision whether it is logged, and a record of one in 64. It is a benchmark
// of the package that has all three; here its figure meets its bar.
func telemetryCost() Scenario {
	const cost, objects = "telemetry-cost", "telemetry-allocs"
	return Scenario{
		Bars: []Bar{{Name: cost, Unit: "ns", Most: 400}, {Name: objects, Unit: "allocs", Most: 0}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			bin := filepath.Join(r.dir, "records.test")
			build := exec.CommandContext(ctx, "go", "test", "-c", "-o", bin, "./proxy/records")
			build.Dir = r.Root
			if out, err := build.CombinedOutput(); err != nil {
				return fmt.Errorf("build the benchmark: %w: %s", err, bytes.TrimSpace(out))
			}
			out, err := exec.CommandContext(ctx, bin, "-test.run", "^$", "-test.bench", "^BenchmarkObserve$/^one_in_64$", "-test.benchmem",
				"-test.benchtime", "100ms", "-test.count", strconv.Itoa(3*r.Rounds)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("run the benchmark: %w: %s", err, bytes.TrimSpace(out))
			}
			ns, allocs, err := benchmarked(out)
			if err != nil {
				return err
			}
			f[cost] = Figure{Spread: spread(ns), Note: fmt.Sprintf("%d times", len(ns))}
			f[objects] = Figure{Spread: spread(allocs)}
			return nil
		},
	}
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark\S+\s+\d+\s+([\d.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op`)

// benchmarked reads what a benchmark printed.
func benchmarked(out []byte) (ns, allocs []float64, err error) {
	for _, m := range benchLine.FindAllSubmatch(out, -1) {
		t, err1 := strconv.ParseFloat(string(m[1]), 64)
		n, err2 := strconv.ParseFloat(string(m[2]), 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, nil, err
		}
		ns, allocs = append(ns, t), append(allocs, n)
	}
	if len(ns) == 0 {
		return nil, nil, fmt.Errorf("no figure in what the benchmark printed: %s", bytes.TrimSpace(out))
	}
	return ns, allocs, nil
}

// stagesAddUp looks, under load, whether the stages of each request are together
// the time that it took.
func stagesAddUp() Scenario {
	const name = "stages-add-up"
	return Scenario{
		Bars: []Bar{{Name: name, Unit: "%", Least: 99.9}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			end, err := r.Part("tunnel", loadCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			in, err := r.insideWith(ctx, upstream{Tunnel: end.Addr}, InsideOptions{Stages: true})
			if err != nil {
				return err
			}
			s, err := r.Load(ctx, in.hbone, r.meshPlan(4, small(32)))
			if err != nil {
				return err
			}
			defer s.End()
			var good []float64
			var worst float64
			var all int64
			for range r.Rounds {
				if _, err := s.Measure(ctx, traffic.Measure{For: r.For}); err != nil {
					return err
				}
				l, err := in.Look(ctx)
				if err != nil {
					return err
				}
				if l.Stages.Requests == 0 {
					return errors.New("no request was looked at")
				}
				good = append(good, 100*float64(l.Stages.Within)/float64(l.Stages.Requests))
				worst = max(worst, l.Stages.Worst)
				all += l.Stages.Requests
			}
			f[name] = Figure{Spread: spread(good), Note: fmt.Sprintf("of %d requests; the worst is off by %.1f %%", all, 100*worst)}
			return nil
		},
	}
}
