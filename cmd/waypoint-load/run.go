package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

const conditionHelp = `--fail-if takes a condition; if it is so the command exits 1:

  p99>5ms                    the latency that 99 % did not exceed; any percentile
  service.p99>5ms            of the service time; lag.p99 of the generator's lag
  min mean stddev max        further durations
  errors>10   errors>0.1%    requests without the answer that was expected
  waited>1%                  requests that found every connection busy
  sent done lost             requests sent, answered; connections that ended
  rate<990/s  offered        answers, and requests that were to be sent, a second
  cpu>0.5  cpu-per-request>100us  memory>64MiB     of the target, with --pid
  get:p99>5ms                of one kind of a mix

They are joined with and, or, commas (for or) and parentheses.`

const exitHelp = `It exits 0 if it was measured, 1 if a condition of --fail-if is so or nothing was
answered, 2 if it could not be measured, 3 if the generator was the bottleneck:
then the figures are its own, whatever they are.`

// outputFlags say where results go.
type outputFlags struct {
	format, html, save string
	quiet              bool
}

func (f *outputFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.format, "output", "o", "text", "text or json")
	fs.StringVar(&f.save, "save", "", "file to write the result to as well, as JSON")
	fs.StringVar(&f.html, "html", "", "file to write a report to: one page that needs nothing else")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
}

func (f *outputFlags) check() error {
	if f.format != "text" && f.format != "json" {
		return fmt.Errorf("-o %s is unknown: write text or json", f.format)
	}
	return nil
}

// write hands a result to all that were asked for.
func (f *outputFlags) write(w io.Writer, r *load.Result) error {
	r.Version = version
	if f.save != "" {
		if err := saveJSON(f.save, r); err != nil {
			return err
		}
	}
	if f.html != "" {
		if err := writeTo(f.html, func(w io.Writer) error { return writeHTML(w, r) }); err != nil {
			return err
		}
	}
	if f.format == "json" {
		return writeJSON(w, r)
	}
	return writeText(w, r)
}

// writeTo makes a file of what write writes.
func writeTo(file string, write func(io.Writer) error) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(write(out), out.Close())
}

func saveJSON(file string, v any) error {
	return writeTo(file, func(w io.Writer) error { return writeJSON(w, v) })
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func runCommand() *cobra.Command {
	var f loadFlags
	var out outputFlags
	var failIf []string
	cmd := &cobra.Command{
		Use:   "run TARGET",
		Short: "Load a target once and print what came of it",
		Long:  "Load a target once and print what came of it.\n\n" + targetHelp + "\n\n" + conditionHelp + "\n\n" + exitHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.target(args[0])
			if err != nil {
				return err
			}
			if err := out.check(); err != nil {
				return err
			}
			conds, err := conditions("fail-if", failIf, s)
			if err != nil {
				return err
			}
			roomForPacers(s)
			p := newProgress(cmd.ErrOrStderr(), out.quiet)
			r, err := load.Do(cmd.Context(), s, load.Options{Progress: p.tell})
			p.end()
			if err != nil {
				return err
			}
			if err := out.write(cmd.OutOrStdout(), r); err != nil {
				return err
			}
			return judge(cmd.ErrOrStderr(), r, conds)
		},
	}
	f.add(cmd)
	f.addRate(cmd)
	f.addTimes(cmd, 1e9, 10e9)
	out.add(cmd)
	cmd.Flags().StringArrayVar(&failIf, "fail-if", nil, "exit 1 if this is so; see above")
	return cmd
}

// roomForPacers lets an open loop's pacers run beside as many event loops: one that
// wakes finds the scheduler's places taken by loops that sleep in system calls, and
// would wait until the runtime notices, which takes it up to 10 ms.
func roomForPacers(s load.Spec) {
	if s.Schedule.Shape != load.Closed && os.Getenv("GOMAXPROCS") == "" {
		workers := s.Workers
		if workers == 0 {
			workers = runtime.NumCPU()
		}
		runtime.GOMAXPROCS(runtime.NumCPU() + workers)
	}
}

// judge turns a result into an exit code, and says why.
func judge(w io.Writer, r *load.Result, failIf []*load.Condition) error {
	broken := false
	for _, c := range failIf {
		is, said, err := c.Holds(r)
		if err != nil {
			return err
		}
		if is {
			broken = true
			fmt.Fprintf(w, "waypoint-load: --fail-if %q is so: %s\n", c, said)
		}
	}
	if r.Done == 0 {
		broken = true
		fmt.Fprintln(w, "waypoint-load: no request had the answer that was expected")
	}
	switch {
	case r.Bound != "":
		fmt.Fprintf(w, "waypoint-load: %s\n", r.Bound)
		return exitBound
	case broken:
		return exitBroken
	}
	return nil
}
