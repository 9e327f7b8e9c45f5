package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/internal/filesource"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// devFlags are what `waypoint dev` can be told.
type devFlags struct {
	mode, config string
	identities   []string
	port         int
	duration     time.Duration
	check, quiet bool
}

func devCommand() *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole ambient path on this machine",
		Long: `Dev runs, in one process and without privileges, a throw-away CA, node tunnels,
the waypoint and echo services, and prints a local URL for each service and
identity. It needs no cluster. With --check it asks a fixed set of requests
through every mode, prints how each went, and exits 0 only if all passed.`,
		Example: `  waypoint dev
  waypoint dev --mode proxy --config waypoint.yaml --identity spiffe://cluster.local/ns/web/sa/web
  waypoint dev --check`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return f.run(ctx, &lockedWriter{w: cmd.OutOrStdout()})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.mode, "mode", "both", "how the waypoint is fed: hbone, proxy or both")
	fl.StringVarP(&f.config, "config", "c", "", "your document, a file or a directory; it is watched")
	fl.StringSliceVar(&f.identities, "identity", []string{devmesh.DefaultClient}, "who the clients are")
	fl.IntVar(&f.port, "port", 8080, "the first local port; 0 for any")
	fl.DurationVar(&f.duration, "for", 0, "stop after that time")
	fl.BoolVar(&f.check, "check", false, "send a fixed set of requests, print PASS or FAIL for each, and stop")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no line for each request")
	return cmd
}

func (f *devFlags) run(ctx context.Context, out io.Writer) error {
	modes, ok := map[string][]devmesh.Mode{
		"hbone": {devmesh.HBONE}, "proxy": {devmesh.Sandwich}, "both": {devmesh.HBONE, devmesh.Sandwich},
	}[f.mode]
	if !ok {
		return fmt.Errorf("--mode %s is not understood: write hbone, proxy or both", f.mode)
	}
	if f.check && f.config != "" {
		return errors.New("--check asks what its own document answers: leave --config out")
	}
	c, problems := f.document()
	printProblems(out, problems)
	if c == nil {
		return exitProblems
	}
	o := devmesh.Options{Config: c, Modes: modes, Clients: f.identities, Registry: kinds(), FirstPort: f.port}
	if f.check {
		o.FirstPort = 0
	} else {
		o.OnFault = func(where string, err error) { fmt.Fprintf(out, "! %s: %v\n", where, err) }
		if !f.quiet {
			o.Observe = func(mode devmesh.Mode, x *proxy.Outcome) { printRequest(out, mode, x) }
			o.ObserveConn = func(mode devmesh.Mode, x *proxy.ConnOutcome) { printConn(out, mode, x) }
		}
	}
	m, err := devmesh.Start(o)
	if err != nil {
		return err
	}
	defer m.Close()
	if f.check {
		return runChecks(out, m)
	}
	printMesh(out, m)
	return f.wait(ctx, out, m)
}

// document reads the user's document, or the one that comes with the program.
func (f *devFlags) document() (*config.Config, []config.Problem) {
	if f.config == "" {
		return devmesh.DevDocument()
	}
	c, problems := config.Load(f.config)
	if c != nil {
		c = config.Settle(nil, c).Config
	}
	return c, problems
}

// wait runs until it is told to stop, and applies the document as it changes.
func (f *devFlags) wait(ctx context.Context, out io.Writer, m *devmesh.Mesh) error {
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	if f.config != "" {
		apply := func(c *config.Config) []config.Problem {
			problems, err := m.Apply(c)
			if err != nil {
				fmt.Fprintf(out, "! %v\n", err)
			}
			return problems
		}
		go filesource.New(f.config, apply, func(p []config.Problem) { printProblems(out, p) }).Run(ctx)
	}
	<-ctx.Done()
	return nil
}

func printProblems(out io.Writer, problems []config.Problem) {
	for i := range problems {
		fmt.Fprintln(out, problems[i].String())
	}
}

// try is a command that asks an entry something.
func try(e *devmesh.Entry) string {
	switch scheme, addr, _ := strings.Cut(e.URL, "://"); scheme {
	case "tcp":
		return "nc " + strings.Replace(addr, ":", " ", 1)
	case "https":
		return "curl -k " + e.URL + "/hello"
	}
	return "curl " + e.URL + "/hello"
}

// printMesh shows what runs and what to ask.
func printMesh(out io.Writer, m *devmesh.Mesh) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "URL\tSERVICE\tENTERS AS\tMODE")
	for _, e := range m.Entries() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.URL, e.Service, e.Identity, e.Mode)
	}
	w.Flush()
	fmt.Fprintf(out, "\nTry:\n  %s\n", try(&m.Entries()[0]))
	if e, ok := m.Find("reviews", m.Entries()[0].Mode); ok {
		fmt.Fprintf(out, "  curl -H 'x-tier: gold' %s/hello\n", e.URL)
	}
	fmt.Fprintln(out, "\nEach request prints a line here. Ctrl-C stops.")
}

func printRequest(out io.Writer, mode devmesh.Mode, x *proxy.Outcome) {
	s := x.Stream
	line := fmt.Sprintf("%-5s %s %s %s -> %d", mode, s.Peer.ID, s.Request.Method, s.Request.Path, x.Status)
	if n := len(s.Attempts); n > 0 {
		a := s.Attempts[n-1]
		line += fmt.Sprintf(" from %s", a.Endpoint)
		if n > 1 {
			line += fmt.Sprintf(" (attempt %d)", n)
		}
	}
	if s.Route != nil && s.Route.Rule != "" {
		line += fmt.Sprintf(" by %s[%s]", s.Route.Name, s.Route.Rule)
	}
	if s.Fault != nil {
		line += fmt.Sprintf(" [%s %v]", s.Fault.Flag(), s.Fault)
	}
	fmt.Fprintf(out, "%s in %v\n", line, x.Duration.Round(10*time.Microsecond))
}

// printConn tells of an opaque connection.
func printConn(out io.Writer, mode devmesh.Mode, x *proxy.ConnOutcome) {
	line := fmt.Sprintf("%-5s %s %s %s (%s)", mode, x.Peer.ID, x.Service.Name, x.Verdict.Protocol, x.Verdict.Reason)
	if x.SNI != "" {
		line += " for " + x.SNI
	}
	line += fmt.Sprintf(" %d bytes up, %d down", x.Received, x.Sent)
	if a := x.Last(); a != nil {
		line += fmt.Sprintf(" at %s", a.Endpoint)
	}
	if x.Fault != nil {
		line += fmt.Sprintf(" [%s %v]", x.Fault.Flag(), x.Fault)
	}
	fmt.Fprintf(out, "%s in %v\n", line, x.Duration.Round(10*time.Microsecond))
}

func runChecks(out io.Writer, m *devmesh.Mesh) error {
	fmt.Fprintf(out, "%-6s %-5s %8s  %s\n", "RESULT", "MODE", "TOOK", "CHECK")
	ok := m.Check(func(r devmesh.Result) {
		word := "PASS"
		if r.Err != nil {
			word = "FAIL"
		}
		fmt.Fprintf(out, "%-6s %-5s %8s  %s\n", word, r.Mode, r.Took.Round(100*time.Microsecond), r.Check)
		if r.Err != nil {
			fmt.Fprintf(out, "       %v\n", r.Err)
		}
	})
	if !ok {
		return exitProblems
	}
	return nil
}

// A lockedWriter keeps the lines of many goroutines apart.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
