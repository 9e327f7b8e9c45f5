package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./cmd/waypoint-load -update writes it anew):\n%s", file, got)
	}
}

// sample is a result with all there can be in one.
func sample() *load.Result {
	ms := time.Millisecond
	sum := func(scale time.Duration) load.Summary {
		return load.Summary{Count: 1000, Min: scale / 10, Mean: scale, StdDev: scale / 3, P50: scale, P90: 2 * scale, P99: 5 * scale, P999: 20 * scale, P9999: 30 * scale, Max: 100 * scale}
	}
	r := &load.Result{
		Version: "v0", Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Machine: "linux/amd64, 2 CPUs", Elapsed: 10 * time.Second,
		Spec: load.Spec{Target: load.Target{Addr: "127.0.0.1:15008", Via: load.ViaHBONE, Protocol: load.HTTP2},
			Schedule: load.Schedule{Shape: load.Poisson, Rate: 100}, Connections: 16, Streams: 4, Mesh: 2, For: 10 * time.Second},
		Sent: 1000, Done: 990, Failed: 10, Failures: map[string]int64{"status": 8, "timeout": 2}, Statuses: map[int]int64{200: 990, 503: 8},
		Why: []string{"status: answered with 503", "timeout: no answer in 10s, <b>"}, Bytes: 1 << 20, Waited: 25, Lost: 3, Refused: 1,
		Offered: 100, Rate: 98.7, Latency: sum(ms), Service: sum(ms / 2), Lag: sum(ms / 100),
		Kinds:     []load.KindResult{{Name: "list", Done: 700, Latency: sum(ms)}, {Name: "a rather long name", Done: 290, Failed: 10, Latency: sum(3 * ms)}},
		Generator: load.Usage{PID: 1, Cores: 0.12, Share: 0.06, PerRequest: 120 * time.Microsecond},
		Target:    &load.Usage{PID: 2, Cores: 0.03, PerRequest: 31 * time.Microsecond, Memory: 21 << 20},
		Bound:     "the generator was late: p99 of its lag is 5ms",
	}
	for i := range 10 {
		d := ms + time.Duration(i)*ms/10
		r.Points = append(r.Points, load.Point{At: float64(i + 1), Rate: 98 + float64(i%3), Sent: 100, Failed: int64(i % 2), P50: d, P99: 5 * d, Max: 50 * d, Lag: ms / 10, Own: 0.1, Cores: 0.03, Memory: int64(20+i) << 20})
	}
	return r
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := writeText(&b, sample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "open.txt", b.Bytes())
	closed := sample()
	closed.Spec.Schedule = load.Schedule{Shape: load.Closed}
	closed.Spec.Mesh, closed.Spec.Streams, closed.Kinds, closed.Target, closed.Bound, closed.Offered, closed.Waited = 0, 1, nil, nil, "", 0, 0
	closed.Failures, closed.Statuses, closed.Why, closed.Lost, closed.Refused = nil, nil, nil, 0, 0
	b.Reset()
	if err := writeText(&b, closed); err != nil {
		t.Fatal(err)
	}
	golden(t, "closed.txt", b.Bytes())
}

// TestReport: the page is well formed, has every figure, and asks for nothing
// from anywhere.
func TestReport(t *testing.T) {
	var b bytes.Buffer
	if err := writeHTML(&b, sample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.html", b.Bytes())
	if bad := regexp.MustCompile(`(?i)https?:|src=|href=|url\(|@import|<script|<link|<img|<iframe`).Find(b.Bytes()); bad != nil {
		t.Errorf("the page asks for something: %q", bad)
	}
	d := xml.NewDecoder(&b)
	d.Entity = xml.HTMLEntity
	curves, texts := 0, ""
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Local == "polyline" {
				curves++
			}
		case xml.CharData:
			texts += string(tok)
		}
	}
	if curves != 13 {
		t.Errorf("%d curves, want 13", curves)
	}
	for _, want := range []string{"<b>", "5.00ms", "Memory of the target", "Failures in each second", "Not valid", "a rather long name"} {
		if !strings.Contains(texts, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// ran executes a command line.
func ran(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

// TestRun goes the whole way: conditions, the exit code, JSON, files.
func TestRun(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, r.Header.Get("x-a"))
	}))
	defer s.Close()
	dir := t.TempDir()
	saved, page, mix := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html"), filepath.Join(dir, "mix.yaml")
	if err := os.WriteFile(mix, []byte("requests:\n- {name: good, path: /good, expect: {bytes: 3}}\n- {name: bad, path: /bad, expect: {status: 503}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"-q", "--closed", "--requests", "200", "--warm", "0s", "--for", "20s"}
	with := func(args ...string) []string { return append(append([]string{"run"}, args...), common...) }
	for _, c := range []struct {
		args []string
		code int
		say  string
	}{
		{with(s.URL+"/good", "-H", "X-A: abc", "--expect-bytes", "3", "--fail-if", "errors>0"), 0, ""},
		{with(s.URL+"/good", "--fail-if", "done>=200 and errors=0"), 1, "is so: done is 200, errors is 0"},
		{with(s.URL + "/bad"), 1, "no request had the answer that was expected"},
		{with(s.URL+"/bad", "--expect-status", "503"), 0, ""},
		{with(s.URL, "--mix", mix, "-H", "x-a: abc", "--fail-if", "good:errors>0, bad:done=0", "--save", saved, "--html", page), 0, ""},
		{with(s.URL, "--fail-if", "p99>5"), 2, "a duration, such as 5ms"},
		{with(s.URL, "--fail-if", "cpu>1"), 2, "write --pid"},
		{with(s.URL, "--rate", "5"), 2, "--closed goes without --rate"},
		{[]string{"run", s.URL}, 2, "write --rate"},
		{with("http://192.0.2.1/"), 2, "--allow-remote"},
		{with("ftp://127.0.0.1/"), 2, "write http://"},
		{with("tcp://127.0.0.1/"), 2, "write a port"},
		{with("https://127.0.0.1/", "--via", "hbone"), 2, "TLS within it is not spoken"},
		{with(s.URL, "-H", "nonsense"), 2, "write 'name: value'"},
		{with(s.URL, "-o", "yaml"), 2, "write text or json"},
		{with(s.URL, "--mix", filepath.Join(dir, "none")), 2, "--mix"},
		{with("http://127.0.0.1:1/"), 2, "connection refused"},
	} {
		code, out, errs := ran(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.say) || c.say == "" && errs != "" || (out == "") != (code == 2) {
			t.Errorf("%v: exit %d, %s%s, want %d and %q", c.args, code, out, errs, c.code, c.say)
		}
	}
	code, out, errs := ran(t, with(s.URL, "-o", "json")...)
	r, err := load.Load([]byte(out))
	if code != 0 || err != nil || r.Done != 200 || r.Version != version {
		t.Errorf("JSON: exit %d, %v, %+v %s", code, err, r, errs)
	}
	text, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := load.Load(text); err != nil || len(r.Kinds) != 2 || r.Kinds[0].Done+r.Kinds[1].Done != 200 {
		t.Errorf("the saved result: %+v, %v", r, err)
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("Latency by percentile")) {
		t.Errorf("the report: %v, %d bytes", err, len(text))
	}
}

// TestCompare: a target that does more work is told from one that does less, and
// a target from itself is not.
func TestCompare(t *testing.T) {
	var slow atomic.Int64
	serve := func(wait time.Duration) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			slow.Add(1)
			timer := time.NewTimer(wait)
			defer timer.Stop()
			<-timer.C
		}))
	}
	a, b := serve(5*time.Millisecond), serve(30*time.Millisecond)
	defer a.Close()
	defer b.Close()
	args := []string{"compare", a.URL, b.URL, "--closed", "-q", "--rounds", "7", "--warm", "10ms", "--for", "300ms", "-o", "json"}
	code, out, errs := ran(t, append(args, "--fail-worse", "2")...)
	var c comparison
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatalf("%v: %s%s", err, out, errs)
	}
	if code == 3 {
		t.Fatalf("the generator was the bottleneck: %s", errs)
	}
	if code != 1 || !strings.Contains(errs, "p50 of B is worse than A's by") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if f := c.Figures[0]; f.Name != "p50" || f.Says != "worse" || f.Of.Ratio < 2 || f.Of.Confidence < 0.95 || len(c.Rounds[1]) != 7 {
		t.Errorf("%+v", f)
	}
	// Saved results, one of them against itself.
	dir := t.TempDir()
	file := filepath.Join(dir, "a.json")
	if code, out, errs := ran(t, "run", a.URL, "--closed", "-q", "--for", "2500ms", "--warm", "0s", "--save", file); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	code, out, errs = ran(t, "compare", file, file)
	if code != 0 || strings.Count(out, "not told apart") != 3 || !strings.Contains(out, "1.000") {
		t.Errorf("a result against itself: exit %d, %s%s", code, out, errs)
	}
	for want, args := range map[string][]string{
		"--rounds is 0":     {"compare", a.URL, b.URL, "--closed", "--rounds", "0"},
		"both --pid":        {"compare", a.URL, b.URL, "--closed", "--pid", "1"},
		"no such file":      {"compare", filepath.Join(dir, "x"), file},
		"different":         {"compare", file, changed(t, file)},
		"not a result":      {"compare", file, "main.go"},
		"write text or jso": {"compare", file, file, "-o", "x"},
	} {
		if code, out, errs := ran(t, args...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %s%s, want %q", args, code, out, errs, want)
		}
	}
}

// changed is a saved result of another schedule.
func changed(t *testing.T, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := file + ".other"
	text = bytes.Replace(text, []byte(`"shape": "closed"`), []byte(`"shape": "poisson", "rate": 5`), 1)
	if err := os.WriteFile(other, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return other
}

func TestSearchCommand(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer s.Close()
	code, out, errs := ran(t, "search", s.URL, "--goal", "errors=0", "--from", "50", "--most", "100", "--warm", "0s", "--for", "200ms")
	if code != 0 || out != "errors=0 held up to 100/s at least, the highest that was asked for (--most, --steps)\n" || strings.Count(errs, "holds") != 2 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	code, out, errs = ran(t, "search", s.URL, "--goal", "done=0", "--from", "50", "--most", "100", "--warm", "0s", "--for", "100ms", "--steps", "2", "-q")
	if code != 1 && code != 3 || !strings.Contains(out, "did not hold at any rate") && code == 1 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if code, _, errs = ran(t, "search", s.URL, "--goal", "p99<5"); code != 2 || !strings.Contains(errs, "--goal: condition") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// TestProgress: a line for each few seconds where nobody looks on, and none with
// -q.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	r := sample()
	p := newProgress(&b, false)
	for i := range r.Points {
		p.tell(r.Points[i], &load.Running{Spec: &r.Spec, Done: 10, Failed: 1, Waited: 2})
	}
	p.end()
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("%d lines in 10 seconds, want 2:\n%s", n, &b)
	}
	want := "1s of 10s  98/s  p50 1.00ms p99 5.00ms max 50.0ms  lag p99 100µs  generator 0.10 cores  target 0.03 cores 20 MiB  answered 10 failed 1 waited 2\n"
	if line, _, _ := strings.Cut(b.String(), "6s of"); line != want {
		t.Errorf("%q, want %q", line, want)
	}
	if got := progressLine(load.Point{Warm: true}, &load.Running{Spec: &load.Spec{Warm: 2 * time.Second}, Elapsed: time.Second}); got != "warming up, 1s of 2s" {
		t.Error(got)
	}
	b.Reset()
	newProgress(&b, true).tell(r.Points[0], &load.Running{Spec: &r.Spec})
	if b.Len() != 0 {
		t.Errorf("with -q: %s", &b)
	}
	term := &progress{w: &b, terminal: true}
	term.tell(r.Points[0], &load.Running{Spec: &r.Spec})
	term.end()
	if !strings.HasPrefix(b.String(), "\r\x1b[K1s of") || !strings.HasSuffix(b.String(), "\r\x1b[K") {
		t.Errorf("on a terminal: %q", &b)
	}
}

func TestBound(t *testing.T) {
	var b bytes.Buffer
	if err := judge(&b, sample(), nil); err != exitBound || !strings.Contains(b.String(), "the generator was late") {
		t.Errorf("%v: %s", err, &b)
	}
	r := sample()
	r.Bound = ""
	if err := judge(&b, r, nil); err != nil {
		t.Error(err)
	}
	for _, f := range []*load.Found{{Rate: 10, Above: 11}, {Rate: 10, Above: 11, Bound: "x"}, {Above: 5}, {Rate: 10}} {
		fmt.Fprintln(&b, foundLine(f, "p99<1ms"), verdict(f))
	}
	golden(t, "found.txt", b.Bytes())
}
