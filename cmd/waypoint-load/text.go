package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

// writeText prints a result for people.
func writeText(w io.Writer, r *load.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", headline(r))
	distributions(&b, r)
	b.WriteString("\n")
	for _, row := range rows(r) {
		fmt.Fprintf(&b, "%-10s %s\n", row[0], row[1])
	}
	if len(r.Why) > 0 {
		b.WriteString("\nfirst failures:\n")
		for _, why := range r.Why {
			fmt.Fprintf(&b, "  %s\n", why)
		}
	}
	if r.Bound != "" {
		fmt.Fprintf(&b, "\nNOT VALID: %s\n", r.Bound)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// headline says what was run.
func headline(r *load.Result) string {
	s := &r.Spec
	loop := "closed loop"
	switch c := s.Schedule; {
	case c.To != 0:
		loop = fmt.Sprintf("open loop, %s %s to %s", c.Shape, rate(c.Rate), rate(c.To))
	case c.Shape != load.Closed:
		loop = fmt.Sprintf("open loop, %s %s", c.Shape, rate(c.Rate))
	}
	on := fmt.Sprintf("%d connections", s.Connections)
	if s.Streams > 1 {
		on += fmt.Sprintf(" of %d streams", s.Streams)
	}
	if s.Mesh > 0 {
		on = fmt.Sprintf("%s in tunnels on %d mesh connections", on, s.Mesh)
	}
	return fmt.Sprintf("%s for %v: %s via %s on %s, %s", loop, r.Elapsed.Round(10*time.Millisecond), s.Target.Protocol, s.Target.Via, s.Target.Addr, on)
}

// columns are what is told of each distribution.
var columns = []string{"min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"}

// A summaryLine is one distribution.
type summaryLine struct {
	Name  string
	Cells []string
}

// summaries are the distributions that a result has, and what they mean.
func summaries(r *load.Result) (lines []summaryLine, meaning string) {
	add := func(name string, s *load.Summary) {
		l := summaryLine{Name: name}
		for _, d := range []time.Duration{s.Min, s.Mean, s.P50, s.P90, s.P99, s.P999, s.P9999, s.Max} {
			l.Cells = append(l.Cells, short(d))
		}
		lines = append(lines, l)
	}
	closed := r.Spec.Schedule.Shape == load.Closed
	if !closed {
		add("latency", &r.Latency)
	}
	add("service", &r.Service)
	if !closed {
		add("lag", &r.Lag)
	}
	for i := range r.Kinds {
		add(r.Kinds[i].Name, &r.Kinds[i].Latency)
	}
	if closed {
		return lines, "service: from when a request was sent. A closed loop waits with the target, so a stall is felt by few requests and hides in these figures; an open loop (--rate) shows it."
	}
	return lines, "latency: from when a request was to be sent; service: from when it was; lag: the generator's own."
}

func distributions(b *strings.Builder, r *load.Result) {
	lines, meaning := summaries(r)
	fmt.Fprintf(b, "%-12s", "")
	for _, c := range columns {
		fmt.Fprintf(b, " %9s", c)
	}
	b.WriteString("\n")
	for _, l := range lines {
		name := []rune(l.Name)
		if len(name) > 12 {
			name = append(name[:11], '…')
		}
		fmt.Fprintf(b, "%-12s", string(name))
		for _, c := range l.Cells {
			fmt.Fprintf(b, " %9s", c)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "\n%s\n", folded(meaning, 100))
}

// folded breaks text into lines of that length.
func folded(text string, width int) string {
	var b strings.Builder
	n := 0
	for _, w := range strings.Fields(text) {
		if n > 0 && n+1+len(w) > width {
			b.WriteString("\n")
			n = 0
		} else if n > 0 {
			b.WriteString(" ")
			n++
		}
		b.WriteString(w)
		n += len(w)
	}
	return b.String()
}

func rows(r *load.Result) (all [][2]string) {
	add := func(name, format string, args ...any) {
		all = append(all, [2]string{name, fmt.Sprintf(format, args...)})
	}
	add("requests", "%d sent, %d answered as expected, %d failed", r.Sent, r.Done, r.Failed)
	of := ""
	if r.Offered > 0 {
		of = " of " + rate(r.Offered) + " offered"
	}
	add("rate", "%s%s, %s/s of answers", rate(r.Rate), of, amount(float64(r.Bytes)/r.Elapsed.Seconds()))
	if r.Waited > 0 {
		add("waited", "%d found every connection busy (%.2g %%); more connections would show more of the target", r.Waited, 100*float64(r.Waited)/float64(r.Sent))
	}
	if len(r.Failures) > 0 {
		add("failures", "%s", counts(r.Failures))
	}
	if len(r.Statuses) > 0 {
		add("statuses", "%s", counts(r.Statuses))
	}
	if r.Lost+r.Refused > 0 {
		add("ended", "%d connections, and %d could not be made anew at once", r.Lost, r.Refused)
	}
	for _, k := range r.Kinds {
		add("kind", "%s: %d answered as expected, %d failed", k.Name, k.Done, k.Failed)
	}
	g := r.Generator
	add("generator", "%.2f cores (%.0f %% of its own), %s CPU a request", g.Cores, 100*g.Share, short(g.PerRequest))
	if t := r.Target; t != nil {
		add("target", "process %d: %.2f cores, %s CPU a request, %s at most", t.PID, t.Cores, short(t.PerRequest), amount(float64(t.Memory)))
	}
	return all
}

func counts[K cmp.Ordered](m map[K]int64) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%v %d", k, m[k]))
	}
	return strings.Join(list, ", ")
}

func rate(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f/s", v)
	}
	return fmt.Sprintf("%.3g/s", v)
}

func amount(v float64) string {
	for _, u := range []string{"B", "KiB", "MiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.3g %s", v, u)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.3g GiB", v)
}

// short prints a duration with three digits.
func short(d time.Duration) string {
	switch v := float64(d); {
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d)
	case d < time.Millisecond:
		return digits(v/1e3) + "µs"
	case d < time.Second:
		return digits(v/1e6) + "ms"
	default:
		return digits(v/1e9) + "s"
	}
}

func digits(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// A progress shows a line that changes on a terminal, and a line every few
// seconds elsewhere.
type progress struct {
	w        io.Writer
	quiet    bool
	terminal bool
	lines    int
	label    string
}

// every is how many seconds pass between two lines where nobody looks on.
const every = 5

func newProgress(w io.Writer, quiet bool) *progress {
	p := &progress{w: w, quiet: quiet}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		p.terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) tell(pt load.Point, r *load.Running) {
	if p.quiet {
		return
	}
	p.lines++
	if !p.terminal && p.lines%every != 1 {
		return
	}
	line := p.label + progressLine(pt, r)
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

// end leaves the line.
func (p *progress) end() {
	if p.terminal && p.lines > 0 && !p.quiet {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.lines = 0
}

func progressLine(pt load.Point, r *load.Running) string {
	if pt.Warm {
		return fmt.Sprintf("warming up, %.0fs of %v", r.Elapsed.Seconds(), r.Spec.Warm)
	}
	line := fmt.Sprintf("%.0fs of %v  %s  p50 %s p99 %s max %s  lag p99 %s  generator %.2f cores", pt.At, r.Spec.For, rate(pt.Rate), short(pt.P50), short(pt.P99), short(pt.Max), short(pt.Lag), pt.Own)
	if pt.Memory > 0 {
		line += fmt.Sprintf("  target %.2f cores %s", pt.Cores, amount(float64(pt.Memory)))
	}
	return line + fmt.Sprintf("  answered %d failed %d waited %d", r.Done, r.Failed, r.Waited)
}
