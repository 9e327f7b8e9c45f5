package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// TestContests: works take turns, each is done by all who are here, and every figure
// is found; who is not installed stands there as that.
func TestContests(t *testing.T) {
	r := newRig(t)
	r.Waypoint = needs.Command(t, "./cmd/waypoint")
	var log bytes.Buffer
	if got := []int{r.place(proxyCPU), r.place(loadCPU)}; got[0] != proxyCPU || got[1] != loadCPU {
		t.Errorf("the CPUs are %v", got)
	}
	r.Rounds, r.For, r.Log = 2, slice, io.MultiWriter(r.Log, &log)
	works := Works()[1:3] // HBONE: fewer take part
	all, err := r.Contests(t.Context(), works, "abcdef")
	if err != nil {
		t.Fatal(err)
	}
	if got := []int{r.place(proxyCPU), r.place(loadCPU)}; got[0] != loadCPU || got[1] != proxyCPU {
		t.Errorf("in the second round the CPUs are %v, want them the other way round", got)
	}
	var turns []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, " of 2: ") {
			turns = append(turns, strings.TrimSpace(line))
		}
	}
	if want := []string{"round 1 of 2: " + works[0].Title, "round 1 of 2: " + works[1].Title, "round 2 of 2: " + works[0].Title, "round 2 of 2: " + works[1].Title}; !slices.Equal(turns, want) {
		t.Errorf("got turns %q, want %q", turns, want)
	}
	for i, w := range works {
		c := all.Contests[i]
		if c.Name != w.Name || w.Latency != (c.Direct != nil && c.Direct.P50.Low > 0) {
			t.Errorf("%s: %s without a proxy: %+v", w.Name, c.Name, c.Direct)
		}
		if c.Entries[0].Name != Ours || len(c.Entries) < 3 {
			t.Fatalf("%s: got %d entries, want ours first and at least two more", w.Name, len(c.Entries))
		}
		for _, e := range c.Entries {
			if e.Missing != "" {
				if !strings.Contains(e.Missing, "is not installed") || e.CPU != nil {
					t.Errorf("%s: %s: %s", w.Name, e.Name, e.Missing)
				}
				continue
			}
			if e.CPU.Low == e.CPU.High {
				t.Errorf("%s: %s has costs of one round: %+v", w.Name, e.Name, e.CPU)
			}
			if e.CPU.Median < 1 || e.CPU.Median > 10_000 || e.Ratio.Median < .05 || e.Ratio.Median > 500 {
				t.Errorf("%s: %s costs %+v µs, %+v of ours", w.Name, e.Name, e.CPU, e.Ratio)
			}
			if e.Idle.RSS < 1<<20 || e.Loaded.RSS < e.Idle.RSS/2 || e.Loaded.RSS < e.Loaded.Anon {
				t.Errorf("%s: %s holds %+v idle and %+v loaded", w.Name, e.Name, e.Idle, e.Loaded)
			}
			if w.Latency != (e.P50 != nil && e.P99 != nil) || w.Latency && (e.P50.Quiet < -100_000 || e.P99.Rounds.High > 10_000_000) {
				t.Errorf("%s: %s adds %+v and %+v µs", w.Name, e.Name, e.P50, e.P99)
			}
			if tells := e.Name == Ours || e.Name == "Go's libraries"; tells != (e.Allocs != nil) {
				t.Errorf("%s: %s tells of allocations: %v", w.Name, e.Name, e.Allocs)
			}
		}
		// The libraries allocate about a hundred objects, ours next to none.
		for _, e := range c.Entries {
			if e.Name == "Go's libraries" && (*e.Allocs < 50 || *e.Allocs > 500) || e.Name == Ours && *e.Allocs > 20 {
				t.Errorf("%s: %s allocates %.1f objects a request", w.Name, e.Name, *e.Allocs)
			}
		}
	}
}

// TestPace: latency is that of answers as expected; others are an error, and so
// is a load that does not begin.
func TestPace(t *testing.T) {
	r := newRig(t)
	echo := startPart(t, r, "echo", PartOptions{})
	w := Work{Name: "few", Streams: 2}
	s, err := r.pace(t.Context(), w, echo, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.End()
	for range 2 {
		if err := s.measure(t.Context(), r.For); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.p50) != 2 || s.p50[0] <= 0 || s.p99[1] < s.p50[1] {
		t.Errorf("got %v and %v µs, want two of each", s.p50, s.p99)
	}
	bad := httptest.NewServer(http.NotFoundHandler())
	defer bad.Close()
	p := &Process{Addr: strings.TrimPrefix(bad.URL, "http://"), done: make(chan struct{})}
	wrong, err := r.pace(t.Context(), w, p, true)
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.End()
	if err := wrong.measure(t.Context(), r.For); err == nil || !strings.Contains(err.Error(), "requests failed") {
		t.Errorf("a server that answers 404: got %v", err)
	}
	bad.Close()
	if _, err := r.pace(t.Context(), w, p, true); err == nil {
		t.Error("load on a port where nobody listens began")
	}
}

func TestWorksHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range Works() {
		if w.Name == "" || w.Title == "" || seen[w.Name] || strings.ContainsAny(w.Title, "|\n") || w.Mesh != (w.Conns > 0) {
			t.Errorf("%+v", w)
		}
		seen[w.Name] = true
	}
}

// TestEstimate: all works take less than eight minutes by default, and more
// rounds more.
func TestEstimate(t *testing.T) {
	r := &Rig{Options: Options{Rounds: DefaultRounds, For: DefaultTime}}
	got := r.Estimate(Works())
	if got < 4*time.Minute || got > 7*time.Minute+40*time.Second {
		t.Errorf("got %v, want some minutes and well below eight", got)
	}
	if r.latencyRounds() != latencyRounds {
		t.Errorf("latency has %d rounds, want no more than %d", r.latencyRounds(), latencyRounds)
	}
	r.Rounds *= 2
	if more := r.Estimate(Works()); more < got*3/2 {
		t.Errorf("twice the rounds: got %v after %v", more, got)
	}
	if r.Rounds = 3; r.latencyRounds() != 3 {
		t.Errorf("three rounds were asked for, latency has %d", r.latencyRounds())
	}
}

func TestMallocs(t *testing.T) {
	text := "# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total 1.25e+06\nother 3\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }))
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")
	if got, err := mallocs(t.Context(), addr); err != nil || got != 1.25e6 {
		t.Errorf("got %v, %v", got, err)
	}
	text = "other 3\n"
	if got, err := mallocs(t.Context(), addr); err == nil {
		t.Errorf("metrics without the name: got %v", got)
	}
}

// found makes a comparison such as a run does, with one who was not there.
func found() *Comparison {
	n := 1.5
	full := func(name string, ratio float64) *Entry {
		return &Entry{
			Name: name, Version: "1.2.3", Note: "does less",
			CPU: &Spread{10 * ratio, 9 * ratio, 11 * ratio}, Ratio: &Spread{ratio, ratio, ratio * 1.1},
			Idle: &account.Memory{RSS: 20 << 20, Anon: 5 << 20}, Loaded: &account.Memory{RSS: 30 << 20, Anon: 15 << 20},
			P50: &Added{95, Spread{100, 90, 120}}, P99: &Added{350, Spread{400, 300, 900}},
		}
	}
	ours := full(Ours, 1)
	ours.Allocs, ours.Ratio = &n, &Spread{1, 1, 1}
	works := Works()
	return &Comparison{
		Date: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), Commit: "abcdef", Machine: Machine{OS: "linux/amd64", CPU: "X", CPUs: 2, Go: "go1", Pinned: true},
		Rounds: 7, For: time.Second, Rate: 1000,
		Contests: []*Contest{
			{Work: works[0], Entries: []*Entry{ours, full("Envoy", 4), {Name: "nginx", Note: "as that", Missing: "nginx is not installed"}}},
			{Work: works[1], Entries: []*Entry{ours, full("Envoy as Istio's waypoint", 12.5)}},
		},
	}
}

func TestComparisonFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	want := found()
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := LoadComparison(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	file := filepath.Join(dir, ComparisonFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), `"commit"`, `"commitment"`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadComparison(dir); err == nil {
		t.Error("a field that nobody knows was read")
	}
}

// cells are a Markdown table's, row by row.
func cells(table string) (rows [][]string) {
	for line := range strings.Lines(table) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "|") {
			var row []string
			for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
				row = append(row, strings.TrimSpace(c))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func TestMarkdown(t *testing.T) {
	page := found().Markdown()
	first, rest, _ := strings.Cut(page, "\n\nHeap objects")
	want := [][]string{
		{"", Works()[0].Title, Works()[1].Title},
		{"---", "---", "---"},
		{Ours, "**1** = 10.0 µs", "**1** = 10.0 µs"},
		{"Envoy as Istio's waypoint", nothing, "12.5 (12.5–13.8)"},
		{"Envoy", "4.00 (4.00–4.40)", nothing},
		{"nginx", "not measured", nothing},
	}
	if got := cells(first); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, row := range cells(rest) {
		if len(row) != len(cells(rest)[0]) {
			t.Errorf("a row of %d cells in a table of %d: %q", len(row), len(cells(rest)[0]), row)
		}
	}
	for _, want := range []string{"- Envoy (1.2.3): does less.\n", "2026-11-29 at commit abcdef on X, 2 CPUs", "7 rounds of 1s"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestText(t *testing.T) {
	text := found().Text()
	for _, want := range []string{Works()[0].Title + "\n", "4.00 (4.00–4.40)", "20 (5)", "30 (15)", "95, 100 (90–120)", "1.50", "nginx: not measured: nginx is not installed", "commit abcdef"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

// TestBusy: a machine whose quietest round is far below the others was busy, and
// the tables say so.
func TestBusy(t *testing.T) {
	for _, c := range []struct {
		direct     Spread // p50
		neighbours float64
		want       string
	}{
		{Spread{100, 90, 500}, 0.01, ""},
		{Spread{200, 90, 500}, 0.01, "latencies say little."},
		{Spread{100, 90, 500}, 0.31, "Neighbours used up to 31 % of the machine"},
	} {
		f := found()
		f.Contests = f.Contests[:1]
		f.Contests[0].Direct, f.Contests[0].Neighbours = &Direct{P50: c.direct}, c.neighbours
		text, page := f.Text(), f.Markdown()
		for _, s := range []string{text, page} {
			if got := strings.Contains(s, "latencies say little"); got != (c.want != "") || !strings.Contains(s, c.want) {
				t.Errorf("%+v: got %v, want %q", c, got, c.want)
			}
		}
		if got := strings.Contains(page, " 95 / 350 |"); got != (c.want == "") || !strings.Contains(text, "95, 100 (90–120)") {
			t.Errorf("%+v: latencies on the page: %v\n%s", c, got, page)
		}
	}
	if a := more([]float64{30, 12, 50}, []float64{10, 20, 5}); *a != (Added{7, Spread{20, -8, 45}}) {
		t.Errorf("got %+v", a)
	}
}

// TestNeighbours: what the rig's own processes burn is not others', what another
// burns is.
func TestNeighbours(t *testing.T) {
	if _, err := account.Busy(); err != nil {
		t.Logf("%v: nothing is told of neighbours", err)
		if got := (&Rig{}).watch().usage().share(); got != 0 {
			t.Errorf("got %v, want 0", got)
		}
		return
	}
	var err error
	for range 12 { // the machine's other work comes and goes
		if err = neighbours(t); err == nil {
			return
		}
	}
	t.Error(err)
}

func neighbours(t *testing.T) error {
	burn := func(r *Rig) *Process {
		p, out, err := r.start("burner", anyCPU, []string{os.Args[0], "burn"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		return p
	}
	r := newRig(t)
	w := r.watch()
	own := burn(r) // burns before it answers
	alone := w.usage().share()
	own.Stop()
	if ended := w.usage().share(); ended < alone-.2 || ended > alone+.2 {
		return fmt.Errorf("a process of the rig has ended: got %.2f after %.2f", ended, alone)
	}
	r.Clear() // a watch is begun before the rig's processes are
	foreign := newRig(t)
	x := r.watch()
	p := burn(foreign)
	used := p.used()
	all := time.Since(x.began) * time.Duration(runtime.NumCPU())
	if got, want := x.usage().share(), float64(used)/float64(all); got < want-.1 {
		return fmt.Errorf("another burnt %v in %v: got %.2f, want at least %.2f", used, time.Since(x.began), got, want)
	}
	return nil
}

// TestSavePage: what stands around the marks stays, and a page without them, or
// with two pairs, is refused.
func TestSavePage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "README.md")
	c := found()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("# A\n\n" + pageBegin + "\nold\n" + pageEnd + "\n\nrest\n")
	for range 2 {
		if err := c.SavePage(file); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if want := "# A\n\n" + pageBegin + "\n" + c.Markdown() + pageEnd + "\n\nrest\n"; err != nil || string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"# A\n", pageBegin + "\n", pageBegin + pageEnd + pageBegin + pageEnd} {
		write(bad)
		if err := c.SavePage(file); err == nil {
			t.Errorf("page %q was written", bad)
		}
	}
}

func TestCommitOf(t *testing.T) {
	git := needs.Program(t, "git")
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(git, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	if got := CommitOf(context.Background(), dir); got != "unknown" {
		t.Errorf("outside a repository: got %q", got)
	}
	write := func(name string) {
		t.Helper()
		file := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(file), 0o755)
		if err := os.WriteFile(file, []byte(t.Name()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.go")
	run("init", "-q")
	run("add", ".")
	run("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "core.hooksPath=/nonexistent", "commit", "-q", "-m", "x")
	write("bench/results/peers.json")
	write("README.md")
	clean := CommitOf(context.Background(), dir)
	if len(clean) != 10 {
		t.Errorf("got %q, want ten digits: results and pages are written by the run itself", clean)
	}
	write("b.go")
	if got := CommitOf(context.Background(), dir); got != clean+"+" {
		t.Errorf("with a change: got %q, want %q", got, clean+"+")
	}
}

// TestReadmeIsWhatARunWrote: the figures on the page are those of the file, and
// all works and proxies are there.
func TestReadmeIsWhatARunWrote(t *testing.T) {
	c, err := LoadComparison("results")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, written, _, err := cutPage(string(page))
	if err != nil {
		t.Fatalf("README.md: %v", err)
	}
	if written != c.Markdown() {
		t.Error("README.md has other figures than bench/results: make peers writes both")
	}
	rows := cells(written)
	if want := 1 + len(Works()); len(rows[0]) != want {
		t.Errorf("the table has %d columns, want %d", len(rows[0]), want)
	}
	for _, who := range contestants() {
		if !strings.Contains(written, "\n| "+who.name+" |") {
			t.Errorf("the table has no row of %s", who.name)
		}
	}
	if c.Rounds < 7 || c.Commit == "" || c.Commit == "unknown" || c.Date.IsZero() || c.Machine.CPUs == 0 {
		t.Errorf("figures of %d rounds at commit %q, %v, on %+v", c.Rounds, c.Commit, c.Date, c.Machine)
	}
}
