package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/sandwich-mesh/sandwich/bench/account"
)

// nothing stands where there is no figure.
const nothing = "–"

// Text is the comparison for a terminal, every work with all that was found.
func (c *Comparison) Text() string {
	var b strings.Builder
	for _, w := range c.Contests {
		fmt.Fprintf(&b, "%s\n", w.Title)
		t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		fmt.Fprintf(t, "  \tCPU µs\tagainst %s\tobjects\tMiB idle (own)\tMiB loaded (own)\tadded p50 µs\tadded p99 µs\n", Ours)
		for _, e := range w.Entries {
			if e.Missing != "" {
				continue
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", title(e), micros(e.CPU), times(e.Ratio), objects(e.Allocs), mebi(e.Idle), mebi(e.Loaded), added(e.P50), added(e.P99))
		}
		t.Flush()
		if d := w.Direct; d != nil {
			fmt.Fprintf(&b, "  without a proxy: p50 %.0f (%.0f–%.0f) µs, p99 %.0f (%.0f–%.0f) µs\n",
				d.P50.Median, d.P50.Low, d.P50.High, d.P99.Median, d.P99.Low, d.P99.High)
		}
		for _, e := range w.Entries {
			if e.Missing != "" {
				fmt.Fprintf(&b, "  %s: not measured: %s\n", e.Name, e.Missing)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("CPU: of the proxy's process, a request, median of the rounds. Against: round by round, the\n" +
		"Hodges-Lehmann median, and least to most of the rounds. Objects: on the heap, a request.\n" +
		"MiB: resident, and in brackets what it allocated itself.\n" +
		fmt.Sprintf("Added: to what the same load takes without a proxy at %.0f requests a second, the quietest round of\n", c.Rate) +
		"each, then the median and least to most of the rounds.\n\n")
	for _, n := range c.notes() {
		fmt.Fprintf(&b, "%s: %s.\n", n.name, n.text)
	}
	fmt.Fprintf(&b, "\n%s\n", c.where())
	return b.String()
}

// Markdown is the comparison for a page: two tables with a row for each proxy.
func (c *Comparison) Markdown() string {
	var b strings.Builder
	b.WriteString("CPU time of a request, as a multiple of ours: Hodges-Lehmann median, and least to most of the rounds.\n\n")
	c.table(&b, func(w *Contest) []column {
		return []column{{w.Title, func(e *Entry) string {
			if e.Name == Ours {
				return fmt.Sprintf("**1** = %s µs", micros(e.CPU))
			}
			return times(e.Ratio)
		}}}
	})
	fmt.Fprintf(&b, "\nHeap objects of a request, where the program tells; resident memory (and what of it\n"+
		"it allocated itself) before the first request and under load; latency added\nto the path without a proxy at %.0f requests a second, in the quietest round.\n\n", c.Rate)
	c.table(&b, func(w *Contest) []column {
		if !w.Latency {
			return nil
		}
		short, _, _ := strings.Cut(w.Title, ":")
		return []column{
			{short + ": objects", func(e *Entry) string { return objects(e.Allocs) }},
			{"MiB idle → loaded", func(e *Entry) string {
				if e.Idle == nil || e.Loaded == nil {
					return nothing
				}
				return mebi(e.Idle) + " → " + mebi(e.Loaded)
			}},
			{"added p50 / p99, µs", func(e *Entry) string {
				if e.P50 == nil || e.P99 == nil || w.busy() {
					return nothing
				}
				return fmt.Sprintf("%.0f / %.0f", e.P50.Quiet, e.P99.Quiet)
			}},
		}
	})
	b.WriteString("\n")
	for _, n := range c.notes() {
		fmt.Fprintf(&b, "- %s: %s.\n", n.name, n.text)
	}
	fmt.Fprintf(&b, "\n%s\n", c.where())
	return b.String()
}

type column struct {
	head string
	cell func(e *Entry) string
}

// table writes a row for each proxy and the columns of each work.
func (c *Comparison) table(b *strings.Builder, columns func(w *Contest) []column) {
	head, rule := "| |", "|---|"
	names := c.names()
	rows := make([]string, len(names))
	for i, n := range names {
		rows[i] = "| " + n + " |"
	}
	for _, w := range c.Contests {
		for _, col := range columns(w) {
			head += " " + col.head + " |"
			rule += "---|"
			for i, n := range names {
				rows[i] += " " + cellOf(w, n, col) + " |"
			}
		}
	}
	fmt.Fprintf(b, "%s\n%s\n%s\n", head, rule, strings.Join(rows, "\n"))
}

func cellOf(w *Contest, name string, col column) string {
	at := slices.IndexFunc(w.Entries, func(e *Entry) bool { return e.Name == name })
	switch {
	case at < 0:
		return nothing // it does not do that
	case w.Entries[at].Missing != "":
		return "not measured"
	}
	return col.cell(w.Entries[at])
}

// names are those of all proxies, in the order of the contests.
func (c *Comparison) names() (list []string) {
	for _, who := range contestants() {
		for _, w := range c.Contests {
			if slices.ContainsFunc(w.Entries, func(e *Entry) bool { return e.Name == who.name }) {
				list = append(list, who.name)
				break
			}
		}
	}
	return list
}

type note struct{ name, text string }

// notes say what each proxy lacks or has more, once.
func (c *Comparison) notes() (list []note) {
	for _, w := range c.Contests {
		for _, e := range w.Entries {
			name := title(e)
			if !slices.ContainsFunc(list, func(n note) bool { return n.name == name }) {
				list = append(list, note{name, cmp.Or(e.Note, e.Missing)})
			}
		}
	}
	return list
}

// where says what the figures are of.
func (c *Comparison) where() string {
	m := c.Machine
	pinned := "nothing pinned"
	if m.Pinned {
		pinned = "the proxy on a CPU of its own, load and answers on another, each round the other way round"
	}
	busy, others := "", 0.0
	for _, w := range c.Contests {
		others = max(others, w.Neighbours)
		if w.busy() {
			busy = " The machine was busy with other things, so latencies say little."
		}
	}
	if others > busyOthers {
		busy = fmt.Sprintf(" Neighbours used up to %.0f %% of the machine: latencies say little then, and ratios repeat less well.", 100*others)
	}
	return fmt.Sprintf("Measured %s at commit %s on %s, %d CPUs, %s %s, %s: %s. %d rounds of %v, interleaved.%s",
		c.Date.Format("2006-01-02"), c.Commit, cmp.Or(m.CPU, "an unknown CPU"), m.CPUs, m.OS, m.Kernel, m.Go, pinned, c.Rounds, c.For, busy)
}

func title(e *Entry) string {
	if e.Version == "" {
		return e.Name
	}
	return e.Name + " (" + e.Version + ")"
}

func micros(s *Spread) string {
	if s == nil {
		return nothing
	}
	return digits(s.Median)
}

// digits prints three digits or so.
func digits(v float64) string {
	switch {
	case v < 0.005:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func times(s *Spread) string {
	switch {
	case s == nil:
		return nothing
	case s.Low == s.High:
		return digits(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", digits(s.Median), digits(s.Low), digits(s.High))
}

func added(a *Added) string {
	if a == nil {
		return nothing
	}
	return fmt.Sprintf("%.0f, %.0f (%.0f–%.0f)", a.Quiet, a.Rounds.Median, a.Rounds.Low, a.Rounds.High)
}

func objects(v *float64) string {
	if v == nil {
		return nothing
	}
	return digits(*v)
}

func mebi(m *account.Memory) string {
	if m == nil {
		return nothing
	}
	return fmt.Sprintf("%.0f (%.0f)", float64(m.RSS)/(1<<20), float64(m.Anon)/(1<<20))
}
