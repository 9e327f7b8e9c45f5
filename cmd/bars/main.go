// Command bars measures the proxy against its bars and prints a line for each:
// name, figure, bar, PASS or FAIL. It exits 1 if one fails.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sandwich-mesh/sandwich/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 4 && os.Args[1] == "part" {
		if err := bench.Part(ctx, os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ok, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bars:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// defaultTime is what -for is if nobody gives it.
const defaultTime = 1500 * time.Millisecond

func run(ctx context.Context) (ok bool, err error) {
	var (
		only     = flag.String("only", "", "run the scenarios with a bar that this regular expression matches")
		long     = flag.Bool("long", false, "run those that take longer than minutes, and no others")
		list     = flag.Bool("list", false, "print the bars and run nothing")
		output   = flag.String("o", "text", "text or json")
		quiet    = flag.Bool("q", false, "no progress on standard error")
		waypoint = flag.String("waypoint", "", "the proxy's binary; built from this module if not given")
		results  = flag.String("results", "", "directory of the last figures; bench/results of this module if not given, - for none")
		rounds   = flag.Int("rounds", 7, "rounds of each comparison")
		measure  = flag.Duration("for", defaultTime, "measured time of each variant in a round; with -long how long the soak lasts, 20m if not given")
	)
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return false, err
	}
	if flag.NArg() > 0 || *rounds < 1 || *output != "text" && *output != "json" {
		return false, errors.New("wrong arguments; see -h")
	}
	scenarios := slices.DeleteFunc(bench.Scenarios(), func(s bench.Scenario) bool {
		return s.Long != *long || !slices.ContainsFunc(s.Bars, func(b bench.Bar) bool { return match.MatchString(b.Name) })
	})
	if len(scenarios) == 0 {
		fmt.Fprintln(os.Stderr, "bars: no bar is of that kind")
	}
	if *list {
		for _, s := range scenarios {
			for _, b := range s.Bars {
				fmt.Printf("%-34s  %s\n", b.Name, b.Limit())
			}
		}
		return true, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	root := moduleRoot(ctx)
	o := bench.Options{Self: []string{self, "part"}, Waypoint: *waypoint, Root: root, Rounds: *rounds, For: *measure, Soak: bench.SoakTime}
	if *long && *measure != defaultTime {
		o.Soak = *measure
	}
	if !*quiet {
		o.Log = os.Stderr
	}
	rig, err := bench.NewRig(o)
	if err != nil {
		return false, err
	}
	defer rig.Close()
	if rig.Waypoint == "" {
		if rig.Waypoint, err = rig.Build(ctx, root, "./cmd/waypoint"); err != nil {
			fmt.Fprintln(os.Stderr, "bars:", err) // bars that need it will fail and say so
		}
	}
	if *results == "" && root != "" {
		*results = filepath.Join(root, "bench", "results")
	}
	return judge(ctx, rig, scenarios, *output, *results)
}

// judge runs the scenarios, prints their lines as they come and keeps them.
func judge(ctx context.Context, rig *bench.Rig, scenarios []bench.Scenario, output, dir string) (ok bool, err error) {
	res := bench.Results{Machine: rig.Machine()}
	ok = true
	for i := range scenarios {
		for _, o := range scenarios[i].Judge(ctx, rig) {
			res.Bars = append(res.Bars, o)
			ok = ok && o.Verdict != bench.Fail
			if output == "text" {
				fmt.Println(o.Line())
			}
		}
		if ctx.Err() != nil {
			return false, errors.New("interrupted; figures are not kept")
		}
	}
	if output == "json" {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(res); err != nil {
			return false, err
		}
	}
	if dir != "" && dir != "-" {
		err = res.Save(dir)
	}
	return ok, err
}

// moduleRoot is the directory of the module that bars is run in, or "".
func moduleRoot(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err != nil || filepath.Base(mod) != "go.mod" {
		return ""
	}
	return filepath.Dir(mod)
}
