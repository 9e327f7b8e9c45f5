package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/bench/load"
	"github.com/sandwich-mesh/sandwich/bench/rank"
)

const compareHelp = `Compare two targets, which get the same load in turns, or two results that were
saved (run --save).

Targets take turns: A B, B A, A B, … with one measurement each in a round, so that
what disturbs the machine meets both. The ratio is the Hodges-Lehmann median of the
rounds' ratios, and its interval that of Wilcoxon's signed ranks: it asks for no
distribution. Six rounds are the fewest that reach 95 %.

Two saved results have no rounds in common. Their seconds are compared as two sets
(Mann and Whitney): that tells these two runs apart, and says nothing of how two
others would differ.`

// A comparison is what compare found.
type comparison struct {
	A       string          `json:"a"`
	B       string          `json:"b"`
	Method  string          `json:"method"`
	Figures []compared      `json:"figures"`
	Bound   string          `json:"bound,omitempty"`
	Rounds  [][]load.Result `json:"rounds,omitempty"` // of A and B
}

// compared is one figure of both.
type compared struct {
	Name string     `json:"name"`
	A    float64    `json:"a"` // medians
	B    float64    `json:"b"`
	Of   rank.Ratio `json:"of"`   // B to A
	Says string     `json:"says"` // of B: better, worse, not told apart
	show measure
	more bool // more of it is better
}

// A figure is something that results are compared by.
type figure struct {
	name  string
	show  measure
	more  bool
	of    func(r *load.Result) float64
	point func(p *load.Point) float64 // in each second; nil: it is not kept
}

// figuresOf are what two runs of one schedule can be compared by.
func figuresOf(s *load.Spec, pids bool) []figure {
	all := []figure{
		{"p50", duration, false, func(r *load.Result) float64 { return r.Latency.P50.Seconds() }, func(p *load.Point) float64 { return p.P50.Seconds() }},
		{"p99", duration, false, func(r *load.Result) float64 { return r.Latency.P99.Seconds() }, func(p *load.Point) float64 { return p.P99.Seconds() }},
	}
	if s.Schedule.Shape == load.Closed {
		all = append(all, figure{"rate", perSecond, true, func(r *load.Result) float64 { return r.Rate }, func(p *load.Point) float64 { return p.Rate }})
	}
	if pids {
		all = append(all,
			figure{"cpu/request", duration, false, func(r *load.Result) float64 { return r.Target.PerRequest.Seconds() }, func(p *load.Point) float64 { return p.Cores / p.Rate }},
			figure{"memory", memory, false, func(r *load.Result) float64 { return float64(r.Target.Memory) }, func(p *load.Point) float64 { return float64(p.Memory) }})
	}
	return all
}

func compareCommand() *cobra.Command {
	var f loadFlags
	var out outputFlags
	var rounds, pid int
	var worse float64
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two targets, or two saved results",
		Long:  compareHelp + "\n\n" + targetHelp,
		Example: `  waypoint-load compare http://127.0.0.1:8080/ http://127.0.0.1:8081/ --rate 1000 --rounds 9
  waypoint-load compare before.json after.json --fail-worse 1.1`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := out.check(); err != nil {
				return err
			}
			var c *comparison
			if strings.Contains(args[0], "://") {
				c, err = f.rounds(cmd.Context(), args, live{rounds: rounds, pid: pid, p: newProgress(cmd.ErrOrStderr(), out.quiet)})
			} else {
				c, err = compareFiles(args[0], args[1])
			}
			if err != nil {
				return err
			}
			if out.save != "" {
				if err := saveJSON(out.save, c); err != nil {
					return err
				}
			}
			if out.format == "json" {
				err = writeJSON(cmd.OutOrStdout(), c)
			} else {
				err = c.write(cmd.OutOrStdout())
			}
			return errors.Join(err, c.verdict(cmd.ErrOrStderr(), worse))
		},
	}
	f.add(cmd)
	f.addRate(cmd)
	f.addTimes(cmd, 500*time.Millisecond, 3*time.Second)
	fs := cmd.Flags()
	fs.IntVar(&rounds, "rounds", 7, "rounds of two targets")
	fs.IntVar(&pid, "pid-b", 0, "process of B whose CPU time and memory are taken along; --pid is A's")
	fs.Float64Var(&worse, "fail-worse", 0, "exit 1 if B is surely worse than A by more than this ratio, such as 1.1; 0 is never")
	fs.StringVarP(&out.format, "output", "o", "text", "text or json")
	fs.StringVar(&out.save, "save", "", "file to write the comparison to as well, as JSON")
	fs.BoolVarP(&out.quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

// live is what a comparison of two targets needs besides the load.
type live struct {
	rounds, pid int
	p           *progress
}

// maxRounds bounds a comparison.
const maxRounds = 100

// rounds loads two targets in turns.
func (f *loadFlags) rounds(ctx context.Context, urls []string, l live) (*comparison, error) {
	if l.rounds < 1 || l.rounds > maxRounds {
		return nil, fmt.Errorf("--rounds is %d: it must be 1 to %d", l.rounds, maxRounds)
	}
	if (f.spec.Target.PID == 0) != (l.pid == 0) {
		return nil, errors.New("write both --pid and --pid-b, or neither")
	}
	runs := make([]*load.Run, 2)
	for i, url := range urls {
		s, err := f.target(url)
		if err != nil {
			return nil, err
		}
		if i == 1 {
			s.Target.PID = l.pid
		}
		roomForPacers(s)
		if runs[i], err = load.Start(ctx, s, load.Options{Progress: l.p.tell}); err != nil {
			return nil, err
		}
		defer runs[i].Close()
	}
	c := &comparison{A: urls[0], B: urls[1], Method: "rounds in turns, Hodges-Lehmann, Wilcoxon's signed ranks", Rounds: make([][]load.Result, 2)}
	for n := range l.rounds {
		for i := range 2 {
			at := (n + i) % 2
			l.p.label = fmt.Sprintf("round %d of %d, %c: ", n+1, l.rounds, 'A'+at)
			r, err := runs[at].Measure(ctx)
			l.p.end()
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", n+1, urls[at], err)
			}
			if r.Done == 0 {
				return nil, fmt.Errorf("round %d, %s: no request had the answer that was expected: %v", n+1, urls[at], r.Why)
			}
			if c.Bound == "" {
				c.Bound = r.Bound
			}
			r.Version = version
			c.Rounds[at] = append(c.Rounds[at], *r)
		}
	}
	s := runs[0].Spec()
	for _, fig := range figuresOf(&s, l.pid != 0) {
		var a, b []float64
		for n := range l.rounds {
			a, b = append(a, fig.of(&c.Rounds[0][n])), append(b, fig.of(&c.Rounds[1][n]))
		}
		if err := c.add(fig, a, b, rank.Paired); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// compareFiles compares the seconds of two saved results.
func compareFiles(a, b string) (*comparison, error) {
	var rs [2]*load.Result
	for i, file := range []string{a, b} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if rs[i], err = load.Load(text); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if was, is := rs[0].Spec.Schedule, rs[1].Spec.Schedule; was != is {
		return nil, fmt.Errorf("%s is of schedule %+v and %s of %+v: latencies of different schedules are not compared", a, was, b, is)
	}
	c := &comparison{A: a, B: b, Method: "seconds of one run each, Hodges-Lehmann, Mann and Whitney"}
	for _, r := range rs {
		if c.Bound == "" {
			c.Bound = r.Bound
		}
	}
	for _, fig := range figuresOf(&rs[0].Spec, rs[0].Target != nil && rs[1].Target != nil) {
		if err := c.add(fig, seconds(rs[0], fig), seconds(rs[1], fig), rank.Independent); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// seconds are a figure in each second that had answers, the last of those that
// there is room for.
func seconds(r *load.Result, f figure) (all []float64) {
	for i := range r.Points {
		if p := &r.Points[i]; p.Rate > 0 && f.point(p) > 0 {
			all = append(all, f.point(p))
		}
	}
	return all[max(0, len(all)-rank.Most):]
}

func (c *comparison) add(f figure, a, b []float64, compare func(a, b []float64) (rank.Ratio, error)) error {
	r, err := compare(a, b)
	if err != nil {
		return fmt.Errorf("compare %s: %w", f.name, err)
	}
	says := r.Says()
	switch {
	case says == "more" && f.more, says == "less" && !f.more:
		says = "better"
	case says != "not told apart":
		says = "worse"
	}
	c.Figures = append(c.Figures, compared{Name: f.name, A: middle(a), B: middle(b), Of: r, Says: says, show: f.show, more: f.more})
	return nil
}

// middle is the median.
func middle(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func (c *comparison) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "A  %s\nB  %s\n\n%-12s %10s %10s %7s  %-24s %s\n", c.A, c.B, "", "A", "B", "B/A", "interval", "B is")
	for _, f := range c.Figures {
		in := fmt.Sprintf("%.3f..%.3f (%.1f %%)", f.Of.Low, f.Of.High, 100*f.Of.Confidence)
		fmt.Fprintf(&b, "%-12s %10s %10s %7.3f  %-24s %s\n", f.Name, f.show(f.A), f.show(f.B), f.Of.Ratio, in, f.Says)
	}
	fmt.Fprintf(&b, "\n%s, %d of them\n", c.Method, c.Figures[0].Of.Count)
	if c.Bound != "" {
		fmt.Fprintf(&b, "\nNOT VALID: %s\n", c.Bound)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// verdict is a comparison's exit code, and why.
func (c *comparison) verdict(w io.Writer, worse float64) error {
	broken := false
	for _, f := range c.Figures {
		low := f.Of.Low
		if f.more {
			low = 1 / f.Of.High
		}
		if worse > 0 && low > worse {
			broken = true
			fmt.Fprintf(w, "waypoint-load: %s of B is worse than A's by %.3f at least, and --fail-worse is %v\n", f.Name, low, worse)
		}
	}
	switch {
	case c.Bound != "":
		fmt.Fprintf(w, "waypoint-load: %s\n", c.Bound)
		return exitBound
	case broken:
		return exitBroken
	}
	return nil
}
