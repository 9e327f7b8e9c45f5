package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

func searchCommand() *cobra.Command {
	var f loadFlags
	var goal, format string
	var quiet bool
	g := load.Search{}
	cmd := &cobra.Command{
		Use:   "search TARGET",
		Short: "Find the highest rate at which a condition holds",
		Long: `Find the highest rate at which a condition holds: the rate is doubled until it does
not, and then the gap is halved. A step at which it does not hold is made twice.

` + targetHelp + "\n\n" + exitHelp,
		Example: `  waypoint-load search http://127.0.0.1:8080/ --goal 'p99<5ms and errors=0'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("-o %s is unknown: write text or json", format)
			}
			f.spec.Schedule.Rate = g.From
			s, err := f.target(args[0])
			if err != nil {
				return err
			}
			goals, err := conditions("goal", []string{goal}, s)
			if err != nil {
				return err
			}
			g.Goal = goals[0]
			roomForPacers(s)
			p := newProgress(cmd.ErrOrStderr(), quiet)
			g.Tell = func(st load.Step) {
				p.end()
				if !quiet {
					fmt.Fprintln(cmd.ErrOrStderr(), stepLine(st))
				}
			}
			found, err := g.Find(cmd.Context(), func(ctx context.Context, at float64) (*load.Result, error) {
				s.Schedule.Rate = at
				p.label = rate(at) + ": "
				return load.Do(ctx, s, load.Options{Progress: p.tell})
			})
			p.end()
			if err != nil {
				return err
			}
			if format == "json" {
				err = writeJSON(cmd.OutOrStdout(), found)
			} else {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), foundLine(found, goal))
			}
			return errors.Join(err, verdict(found))
		},
	}
	f.add(cmd)
	f.addTimes(cmd, time.Second, 5*time.Second)
	f.addShape(cmd)
	fs := cmd.Flags()
	fs.StringVar(&goal, "goal", "p99<10ms and errors=0", "what is to hold, as a condition of --fail-if (see run --help)")
	fs.Float64Var(&g.From, "from", 100, "requests a second of the first step")
	fs.Float64Var(&g.Most, "most", 100_000, "requests a second that are never exceeded")
	fs.Float64Var(&g.Precision, "precision", 0.05, "the gap at which the search ends, as a share of the rate")
	fs.IntVar(&g.Steps, "steps", 24, "runs at most")
	fs.StringVarP(&format, "output", "o", "text", "text or json")
	fs.BoolVarP(&quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

func stepLine(st load.Step) string {
	says := "holds"
	switch {
	case st.Bound != "":
		says = "not valid, " + st.Bound
	case !st.Holds:
		says = "does not hold"
	}
	return fmt.Sprintf("%10s  %s: %s", rate(st.Rate), st.Said, says)
}

func foundLine(f *load.Found, goal string) string {
	switch {
	case f.Rate == 0:
		return fmt.Sprintf("%s did not hold at any rate; the lowest was %s", goal, rate(f.Above))
	case f.Bound != "":
		return fmt.Sprintf("%s held up to %s at least: at %s the generator was the bottleneck", goal, rate(f.Rate), rate(f.Above))
	case f.Above == 0:
		return fmt.Sprintf("%s held up to %s at least, the highest that was asked for (--most, --steps)", goal, rate(f.Rate))
	}
	return fmt.Sprintf("%s held up to %s, and not at %s", goal, rate(f.Rate), rate(f.Above))
}

// verdict is a search's exit code.
func verdict(f *load.Found) error {
	switch {
	case f.Bound != "":
		return exitBound
	case f.Rate == 0:
		return exitBroken
	}
	return nil
}
