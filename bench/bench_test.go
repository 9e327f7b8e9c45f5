package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/peers"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// The test binary is also the parts that the tests start.
func TestMain(m *testing.M) {
	if what, ok := strings.CutPrefix(os.Args[min(2, len(os.Args)-1)], "leak "); ok {
		fmt.Fprintln(os.Stderr, leakPart(what))
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == "part" {
		if err := Part(context.Background(), os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "burn" {
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		}
		fmt.Println("burnt")
		io.Copy(io.Discard, os.Stdin) // until the test ends it
	}
	os.Exit(m.Run())
}

func newRig(t *testing.T) *Rig {
	t.Helper()
	r, err := NewRig(Options{Self: []string{os.Args[0], "part"}, Rounds: 2, For: 2 * slice, Log: testLog{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func startPart(t *testing.T, r *Rig, name string, o PartOptions) *Process {
	t.Helper()
	p, err := r.Part(name, loadCPU, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Rounds give every variant a cost, and what goes straight to the answering end
// is cheaper than nothing at all only for the process that it leaves out.
func TestCompare(t *testing.T) {
	r := newRig(t)
	plain := proxyPlan(small(4))
	plain.Via = traffic.ViaPlain
	var started []int
	costs, err := r.Compare(t.Context(), func() ([]Variant, error) {
		echo := startPart(t, r, "echo", PartOptions{})
		a := startPart(t, r, "relay-byte", PartOptions{To: echo.Addr})
		idle := startPart(t, r, "relay-byte", PartOptions{To: echo.Addr})
		bypass := *idle // load that never touches the process it is counted for
		bypass.Addr = echo.Addr
		started = append(started, a.PID())
		return []Variant{{"relay", a, proxyPlan(small(4))}, {"bypass", &bypass, plain}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(started) != 2 || started[0] == started[1] {
		t.Errorf("the rounds had the processes %v, want each its own", started)
	}
	if used := r.past; used < time.Millisecond || used > time.Minute {
		t.Errorf("they are said to have used %v", used)
	}
	if len(costs[0].Costs) != 2 || len(costs[1].Costs) != 2 {
		t.Fatalf("got %+v, want two rounds of each", costs)
	}
	if c := spread(costs[0].Costs); c.Low < 1 || c.High > 10_000 {
		t.Errorf("a relay's request costs %+v µs", c)
	}
	if ratio := Ratio(costs[1], costs[0]); ratio.Median > .1 {
		t.Errorf("a process that carries nothing costs %.2f of one that does", ratio.Median)
	}
}

// A port that is picked is free, none that a connection may be given meanwhile, and
// not picked again while nobody listens there yet.
func TestFreeAddr(t *testing.T) {
	r := &Rig{port: highPort - 3} // comes to the end
	seen := map[string]bool{}
	for range 20 {
		addr, err := r.freeAddr()
		if err != nil {
			t.Fatal(err)
		}
		if at := netip.MustParseAddrPort(addr); !at.Addr().IsLoopback() || at.Port() < lowPort || at.Port() >= highPort || seen[addr] {
			t.Errorf("got %s after %v", addr, seen)
		}
		seen[addr] = true
	}
	addr, err := r.freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.port-- // comes to it again
	if got, err := r.freeAddr(); err != nil || got == addr {
		t.Errorf("got %s, %v, which is taken", got, err)
	}
}

// What is measured goes before others' work where the system allows that.
func TestStepAhead(t *testing.T) {
	r := newRig(t)
	niceness := func() string {
		_, out, err := r.start("nice", loadCPU, []string{r.nice})
		if err != nil {
			t.Fatal(err)
		}
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	if r.nice == "" {
		r.stepAhead(t.Context())
		if r.ahead {
			t.Error("nobody can be nice, and yet")
		}
		return
	}
	before := niceness()
	r.stepAhead(t.Context())
	if after := niceness(); r.ahead != strings.HasPrefix(after, "-") || !r.ahead && after != before {
		t.Errorf("niceness %s, then %s; it is allowed: %v", before, after, r.ahead)
	}
}

// Loads begin side by side. Those of all variants can be measured then, and if one
// does not begin, it is said which, and none is left.
func TestSessions(t *testing.T) {
	r := newRig(t)
	echo := startPart(t, r, "echo", PartOptions{})
	relay := func(name string) Variant {
		return Variant{name, startPart(t, r, "relay-byte", PartOptions{To: echo.Addr}), proxyPlan(small(2))}
	}
	good := []Variant{relay("first"), relay("second")}
	sessions, err := r.sessions(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sessions {
		res, err := s.Measure(t.Context(), traffic.Measure{For: slice})
		if err != nil || s.to != good[i].Proc || res.Total <= res.Requests() {
			t.Errorf("%s: got %+v, %v, want answers, some before they were counted", good[i].Name, res, err)
		}
		s.End()
	}
	before := len(r.started)
	bad := Variant{"bad", echo, proxyPlan(small(2))} // takes a PROXY header for nonsense
	if _, err := r.sessions(t.Context(), []Variant{good[0], bad, good[1]}); err == nil || !strings.HasPrefix(err.Error(), "bad: ") {
		t.Errorf("got %v, want it to say who", err)
	}
	loads := r.started[before:]
	if len(loads) != 3 {
		t.Errorf("%d loads were started, want 3", len(loads))
	}
	for _, p := range loads {
		if p.alive() == nil {
			t.Errorf("process %d is left", p.PID())
		}
	}
}

// gRPC goes through the relay that it is compared with.
func TestCallsThroughRelay(t *testing.T) {
	r := newRig(t)
	plan := r.meshPlan(2, small(8))
	plan.Calls = 4
	costs, err := r.Compare(t.Context(), func() ([]Variant, error) {
		end := startPart(t, r, "tunnel-grpc", PartOptions{Certs: r.certs["echo"]})
		return []Variant{{"relay", startPart(t, r, "relay-tls", PartOptions{To: end.Addr, Certs: r.certs["waypoint"]}), plan}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := spread(costs[0].Costs); c.Low < 1 || c.High > 10_000 {
		t.Errorf("a relay's call costs %+v µs", c)
	}
}

// Load that fails, a process that dies and a program that never listens are
// errors, and come in bounded time.
func TestWhatGoesWrongIsSaid(t *testing.T) {
	r := newRig(t)
	echo := startPart(t, r, "echo", PartOptions{})
	t.Run("wrong protocol", func(t *testing.T) {
		// The answering end takes a PROXY header for nonsense.
		_, err := r.round(t.Context(), 0, []Variant{{"echo", echo, proxyPlan(small(1))}}, barsCut, nil)
		if err == nil {
			t.Error("got no error")
		}
	})
	t.Run("dead process", func(t *testing.T) {
		rel := startPart(t, r, "relay-byte", PartOptions{To: echo.Addr})
		s, err := r.Load(t.Context(), rel, proxyPlan(small(1)))
		if err != nil {
			t.Fatal(err)
		}
		rel.Stop()
		if _, err := s.Measure(t.Context(), traffic.Measure{For: slice}); err == nil || !strings.Contains(err.Error(), "relay-byte ended") {
			t.Errorf("got %v, want it to say that the relay ended", err)
		}
	})
	t.Run("unknown part", func(t *testing.T) {
		if _, err := r.Part("nonsense", loadCPU, PartOptions{}); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ends at once", func(t *testing.T) {
		if _, err := r.Program(t.Context(), "false", anyCPU, "127.0.0.1:1", "false"); err == nil || !strings.Contains(err.Error(), "ended") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("never listens", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := r.Program(ctx, "sleep", anyCPU, "127.0.0.1:1", "sleep", "60"); err == nil || !strings.Contains(err.Error(), "does not listen") {
			t.Errorf("got %v", err)
		}
	})
}

// The engine answers looks, under load and after it.
func TestInside(t *testing.T) {
	r := newRig(t)
	end := startPart(t, r, "tunnel", PartOptions{Certs: r.certs["echo"]})
	in, err := r.inside(t.Context(), upstream{Tunnel: end.Addr}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, via := range []struct {
		to   *Process
		plan traffic.Plan
	}{{in.hbone, r.meshPlan(2, small(8))}, {in.proxy, proxyPlan(small(2))}} {
		s, err := r.Load(t.Context(), via.to, via.plan)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Measure(t.Context(), traffic.Measure{For: 5 * slice})
		if err != nil {
			t.Fatal(err)
		}
		if res.Requests() == 0 {
			t.Errorf("no request via %s", via.plan.Via)
		}
		s.End()
	}
	l, err := in.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l.Live < 100<<10 || l.Resident < l.Live/2 || l.Goroutines < 3 {
		t.Errorf("got %+v, which is too little for an engine", l)
	}
	in.proxy.Stop()
	if _, err := in.Look(t.Context()); err == nil {
		t.Error("an engine that has ended gave an answer")
	}
}

// What somebody else's goroutine allocates is counted, each object.
func TestAllocationsAreCounted(t *testing.T) {
	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 1
	defer func() { runtime.MemProfileRate = rate }()
	a := allocations{}
	a.since()
	const times = 500
	for range times {
		go strings.Repeat("allocate", 100)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > 50 && time.Now().Before(end); {
		runtime.Gosched()
	}
	got := a.since()
	if got.Ours < times || got.Ours > 3*times {
		t.Errorf("counted %d objects for %d that were made; by place: %q", got.Ours, times, got.Top)
	}
	if got = a.since(); got.Ours > times/10 {
		t.Errorf("counted %d objects for none; by place: %q", got.Ours, got.Top)
	}
}

func TestWhose(t *testing.T) {
	pc := func(f any) uintptr { return reflect.ValueOf(f).Pointer() + 1 }
	for _, tc := range []struct {
		name  string
		stack []uintptr
		want  string
	}{
		{"engine", []uintptr{pc(strings.Repeat), pc(config.Load)}, "ours"},
		{"crypto/tls for the engine", []uintptr{pc(strings.Repeat), pc(tls.Server), pc(config.Load)}, "tls"},
		{"the harness itself", []uintptr{pc(strings.Repeat), pc(spread)}, "harness"},
		{"traffic", []uintptr{pc(traffic.Serve)}, "harness"},
	} {
		if got, _ := whose(tc.stack); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// Processes do not outlive the rig.
func TestCloseEndsProcesses(t *testing.T) {
	r := newRig(t)
	p := startPart(t, r, "echo", PartOptions{})
	if err := p.alive(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if p.alive() == nil {
		t.Error("the part runs on after Close")
	}
	if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the rig's directory is still there: %v", err)
	}
}

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{2}, Spread{2, 2, 2}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
		{[]float64{1, 1, 1, 1, 100}, Spread{1, 1, 100}},
	} {
		if got := spread(tc.in); got != tc.want {
			t.Errorf("spread of %v: got %v, want %v", tc.in, got, tc.want)
		}
	}
}

// The ratio is taken round by round: a disturbance that doubles a whole round
// for both does not show.
func TestRatio(t *testing.T) {
	a := Costs{Costs: []float64{12, 24, 12, 13}}
	b := Costs{Costs: []float64{10, 20, 10, 10}}
	if got, want := Ratio(a, b), (Spread{1.2, 1.2, 1.3}); math.Abs(got.Median-want.Median) > 1e-9 || math.Abs(got.Low-want.Low) > 1e-9 || math.Abs(got.High-want.High) > 1e-9 {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What is told of two that were compared is the median of the means of any two
// rounds, and the plain rounds that lie farthest apart.
func TestAgainst(t *testing.T) {
	a, b := Costs{Costs: []float64{10, 20, 80}}, Costs{Costs: []float64{10, 10, 10}}
	got, err := against(a, b)
	if want := math.Pow(2, 1.25); err != nil || math.Abs(got.Median-want) > 1e-9 || got.Low != 1 || got.High != 8 {
		t.Errorf("got %v, %v; want %.3f from 1 to 8", got, err, want)
	}
	if _, err := against(a, Costs{}); err == nil {
		t.Error("rounds without a fellow are compared")
	}
}

func TestTally(t *testing.T) {
	var c Costs
	var sum tally
	for _, res := range []traffic.Result{
		{CPU: time.Millisecond, Elapsed: time.Second, Groups: []traffic.GroupResult{{Requests: 100}}},
		{CPU: 3 * time.Millisecond, Elapsed: time.Second, Groups: []traffic.GroupResult{{Requests: 100}}},
	} {
		sum.add(&res)
	}
	c.add(&sum)
	if c.Costs[0] != 20 || c.Rates[0] != 100 {
		t.Errorf("got %+v, want 20 µs and 100/s", c)
	}
}

func TestVerdicts(t *testing.T) {
	fig := func(v float64) Figures { return Figures{"b": {Spread: Spread{v, v, v}}} }
	for _, tc := range []struct {
		name string
		bar  Bar
		run  func(f Figures) error
		want string
		line string
	}{
		{"under", Bar{Name: "b", Most: 1.15}, func(f Figures) error { f["b"] = fig(1.15)["b"]; return nil }, Pass, "1.15"},
		{"over", Bar{Name: "b", Most: 1.15}, func(f Figures) error { f["b"] = fig(1.151)["b"]; return nil }, Fail, "1.15"},
		{"enough", Bar{Name: "b", Least: .8}, func(f Figures) error { f["b"] = fig(.8)["b"]; return nil }, Pass, ">= 0.80"},
		{"too little", Bar{Name: "b", Least: .8}, func(f Figures) error { f["b"] = fig(.79)["b"]; return nil }, Fail, ">= 0.80"},
		{"zero", Bar{Name: "b", Unit: "allocs"}, func(f Figures) error { f["b"] = fig(0)["b"]; return nil }, Pass, "<= 0 allocs"},
		{"not a number", Bar{Name: "b", Most: 1}, func(f Figures) error { f["b"] = fig(math.NaN())["b"]; return nil }, Fail, "NaN"},
		{"error", Bar{Name: "b", Most: 1}, func(Figures) error { return errors.New("it broke") }, Fail, "it broke"},
		{"error after a figure", Bar{Name: "b", Most: 1}, func(f Figures) error { f["b"] = fig(0)["b"]; return errors.New("it broke") }, Fail, "it broke"},
		{"missing", Bar{Name: "b", Most: 1}, func(f Figures) error {
			f["b"] = Figure{Missing: fmt.Errorf("haproxy %w", peers.ErrMissing)}
			return nil
		}, Skipped, "haproxy is not installed"},
		{"no figure", Bar{Name: "b", Most: 1}, func(Figures) error { return nil }, Fail, "no figure"},
	} {
		s := Scenario{Bars: []Bar{tc.bar}, Run: func(_ context.Context, _ *Rig, f Figures) error { return tc.run(f) }}
		out := s.Judge(t.Context(), &Rig{})
		if len(out) != 1 || out[0].Verdict != tc.want || !strings.Contains(out[0].Line(), tc.line) {
			t.Errorf("%s: got %q, want %s with %q", tc.name, out[0].Line(), tc.want, tc.line)
		}
	}
	stray := Scenario{Run: func(_ context.Context, _ *Rig, f Figures) error { f["other"] = Figure{}; return nil }}
	if out := stray.Judge(t.Context(), &Rig{}); len(out) != 1 || out[0].Verdict != Fail {
		t.Errorf("a figure without a bar: got %v", out)
	}
}

func TestBarsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Scenarios() {
		for _, b := range s.Bars {
			if b.Name == "" || seen[b.Name] || strings.ContainsAny(b.Name, " \t") {
				t.Errorf("bar %q is unnamed, named twice or has a blank", b.Name)
			}
			seen[b.Name] = true
		}
	}
}

func TestSaveKeepsOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	here := Machine{Kernel: "1"}
	names := func() (s string) {
		b, err := os.ReadFile(filepath.Join(dir, "bars.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"alpha", "beta", "old", "new"} {
			if strings.Contains(string(b), `"`+n) {
				s += n + " "
			}
		}
		return s
	}
	save := func(m Machine, o ...Outcome) {
		t.Helper()
		if err := (&Results{m, o}).Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	save(here, Outcome{Name: "alpha", Note: "old"}, Outcome{Name: "beta"})
	save(here, Outcome{Name: "alpha", Note: "new"})
	if got, want := names(), "alpha beta new "; got != want {
		t.Errorf("after a run of one bar: %s, want %s", got, want)
	}
	save(Machine{Kernel: "2"}, Outcome{Name: "alpha", Note: "new"})
	if got, want := names(), "alpha new "; got != want {
		t.Errorf("after a run on another machine: %s, want %s", got, want)
	}
}

func TestDocument(t *testing.T) {
	for _, tc := range []struct {
		u    upstream
		want []string
	}{
		{upstream{Plain: "127.0.0.1:9000"}, []string{"targetPort: 9000", "address: 127.0.0.1,", "protocol: TCP", "addresses: [10.96.0.10]"}},
		{upstream{Tunnel: "127.0.0.1:4000"}, []string{"targetPort: 9080", "address: 127.0.0.1,", "protocol: HBONE"}},
	} {
		text, err := tc.u.document()
		if err != nil {
			t.Fatal(err)
		}
		doc, problems := config.Decode(config.File{Name: "bars.yaml", Data: []byte(text)})
		if len(problems) > 0 || len(doc.Services) != 1 {
			t.Errorf("the document has problems: %v", problems)
		}
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("document lacks %q:\n%s", want, text)
			}
		}
	}
}
