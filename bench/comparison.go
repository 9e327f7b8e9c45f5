package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Comparison is one run of every work, as it lies in a file.
type Comparison struct {
	Date     time.Time     `json:"date"`
	Commit   string        `json:"commit"`
	Machine  Machine       `json:"machine"`
	Rounds   int           `json:"rounds"`
	For      time.Duration `json:"for"`  // measured time of each in a round, in ns
	Rate     float64       `json:"rate"` // requests a second at which latency was measured
	Contests []*Contest    `json:"contests"`
}

// What a comparison takes if nothing else is asked for: all works are done in
// less than eight minutes. Many short rounds repeat better than few long ones: what
// one costs depends most on how its processes happen to lie in memory.
const (
	DefaultRounds = 25
	DefaultTime   = 400 * time.Millisecond // of each proxy in a round
)

// Contests has every proxy that is here do the works.
//
// Works take turns, a round of each and then the next of each: what a machine costs
// changes within minutes, and more for one proxy than for another. So every ratio is
// one of the whole run, and repeats better than when a work had its own part of it.
func (r *Rig) Contests(ctx context.Context, works []Work, commit string) (*Comparison, error) {
	c := &Comparison{
		Date: time.Now().UTC().Truncate(time.Second), Commit: commit, Machine: r.Machine(),
		Rounds: r.Rounds, For: r.For, Rate: latencyRate,
	}
	r.logf("%d works; about %v if every proxy is here", len(works), r.Estimate(works).Round(10*time.Second))
	r.stepAhead(ctx)
	var races []*race
	for _, w := range works {
		races = append(races, &race{Contest: &Contest{Work: w}})
	}
	for round := range r.Rounds {
		for _, one := range races {
			r.logf("round %d of %d: %s", round+1, r.Rounds, one.Title)
			if err := r.turn(ctx, one, round); err != nil {
				return nil, fmt.Errorf("%s: %w", one.Name, err)
			}
		}
	}
	for _, one := range races {
		c.Contests = append(c.Contests, one.Contest)
	}
	return c, nil
}

// What measuring takes besides the time that is measured: streams that come to
// rest, processes that speak to each other; and for each proxy in each round,
// starting it and its load, and what goes before the first slice.
const (
	restTime  = 10 * time.Millisecond
	drainTime = 150 * time.Millisecond
	beginTime = 150 * time.Millisecond
)

// Estimate is about how long works take if every proxy is here.
func (r *Rig) Estimate(works []Work) (d time.Duration) {
	round := beginTime + time.Duration(contestCut.count(r.For))*(contestCut.slice+restTime)
	latency := beginTime + time.Duration(r.latencyRounds())*(r.latencyTime()+latencyWarm+drainTime)
	for _, w := range works {
		for _, who := range contestants() {
			if !who.does(w) {
				continue
			}
			d += time.Duration(r.Rounds) * round
			if w.Latency {
				d += latency
			}
		}
		if w.Latency { // and without a proxy
			d += latency
		}
	}
	return d
}

// ComparisonFile is where the last run lies, in the folder of results.
const ComparisonFile = "peers.json"

// Save writes the comparison to a file in dir.
func (c *Comparison) Save(dir string) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(c); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ComparisonFile), out.Bytes(), 0o644)
}

// LoadComparison reads what Save wrote, strictly.
func LoadComparison(dir string) (*Comparison, error) {
	f, err := os.Open(filepath.Join(dir, ComparisonFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	c := &Comparison{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return c, nil
}

// What stands between these lines of a page is written by a run.
const (
	pageBegin = "<!-- bench: a run writes what follows -->"
	pageEnd   = "<!-- bench: end -->"
)

// SavePage writes the comparison into a page, between its two marks.
func (c *Comparison) SavePage(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, _, after, err := cutPage(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(before+pageBegin+"\n"+c.Markdown()+pageEnd+after), 0o644)
}

// cutPage finds what a run has written.
func cutPage(page string) (before, written, after string, err error) {
	before, rest, ok1 := strings.Cut(page, pageBegin)
	written, after, ok2 := strings.Cut(rest, pageEnd)
	if !ok1 || !ok2 || strings.Contains(after, pageBegin) {
		return "", "", "", fmt.Errorf("write the lines %q and %q, once, where the comparison goes", pageBegin, pageEnd)
	}
	return before, strings.TrimPrefix(written, "\n"), after, nil
}

// CommitOf names the commit of the source at root, "+" behind it if something
// but results and pages was changed since.
func CommitOf(ctx context.Context, root string) string {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = root
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--short=10", "HEAD")
	if err != nil || root == "" {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--", ".", ":!bench/results", ":!*.md"); err != nil || changed != "" {
		commit += "+"
	}
	return commit
}
