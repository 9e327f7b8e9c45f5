package bench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestTrend: noise, a heap's saw teeth and a begin that grows are no trend; what
// grows slowly behind the same noise is one.
func TestTrend(t *testing.T) {
	const n = 600
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(int) float64 { return 20000 + 500*rng.NormFloat64() }
	wander := 0.0
	for _, row := range []struct {
		name  string
		at    func(i int) float64
		grows bool
	}{
		{"the same", func(int) float64 { return 37 }, false},
		{"noise", noise, false},
		{"saw teeth", func(i int) float64 { return 20000 + float64(i%47)*40 }, false},
		{"slow waves", func(i int) float64 { return 20000 + 800*math.Sin(float64(i)/40) + 50*rng.NormFloat64() }, false},
		{"what comes back", func(int) float64 { wander = .9*wander + 100*rng.NormFloat64(); return 20000 + wander }, false},
		{"spikes", func(i int) float64 { return 37 + 30*float64(i%50/49) }, false},
		{"a begin", func(i int) float64 { return 20000 - 8000*math.Exp(-float64(i)/40) + 500*rng.NormFloat64() }, false},
		{"falls", func(i int) float64 { return noise(i) - 3*float64(i) }, false},
		{"a leak in noise", func(i int) float64 { return noise(i) + 3*float64(i) }, true},
		{"a leak in saw teeth", func(i int) float64 { return 20000 + float64(i%47)*40 + 3*float64(i) }, true},
		{"one in a hundred looks", func(i int) float64 { return 37 + float64(i/100) }, true},
	} {
		var samples []float64
		for i := range n {
			samples = append(samples, row.at(i))
		}
		got, ok := trendOf(samples, 2)
		if !ok {
			t.Fatalf("%s: %d samples are too few", row.name, n)
		}
		if grows := got.Least > 0; grows != row.grows {
			t.Errorf("%s: slope %.4f, certain %.4f a second; grows %v, want %v", row.name, got.Slope, got.Least, grows, row.grows)
		}
	}
	if _, ok := trendOf(make([]float64, trendBlocks), 1); ok {
		t.Error("a trend was seen in too few samples")
	}
}

// TestTrendFindsNothing: of a hundred runs without growth, next to none is said to
// grow; of as many with growth, next to all.
func TestTrendFindsNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	found := [2]int{}
	for leak := range found {
		for range 100 {
			wander := 0.0
			var samples []float64
			for i := range 600 {
				wander = .8*wander + 100*rng.NormFloat64()
				samples = append(samples, 20000+wander+float64(leak*3*i))
			}
			if got, _ := trendOf(samples, 2); got.Least > 0 {
				found[leak]++
			}
		}
	}
	t.Logf("of 100 each: %d without a leak, %d with one", found[0], found[1])
	if found[0] > 2 || found[1] < 98 {
		t.Errorf("grew of 100 each: %d without a leak, %d with one", found[0], found[1])
	}
}

// leakPart is a program that may lose what it is named after with every request,
// and tells its goroutines.
func leakPart(what string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var lost [][]byte
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		for range 4 {
			switch {
			case strings.Contains(what, "memory"):
				lost = append(lost, bytes.Repeat([]byte{1}, 4<<10))
			case strings.Contains(what, "goroutines"):
				go func() { select {} }()
			case strings.Contains(what, "descriptors"):
				if f, err := os.Open(os.DevNull); err == nil {
					runtime.SetFinalizer(f, nil)
					leaked = append(leaked, f)
				}
			}
		}
		runtime.GC() // or what is waste would grow until the first collection
		fmt.Fprintf(w, "go_goroutines %d\n", runtime.NumGoroutine())
	})
	fmt.Println(l.Addr())
	return http.Serve(l, nil)
}

var leaked []*os.File // of the process that leaks

// TestSoakFindsLeaks: a program that loses memory, goroutines or descriptors is
// found out by the bar for that, and one that loses nothing is not.
func TestSoakFindsLeaks(t *testing.T) {
	for what, bar := range map[string]string{
		"nothing": "", "memory": "soak-rss-growth", "goroutines": "soak-goroutines-growth", "descriptors": "soak-descriptors-growth",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.Soak = 4 * time.Second
			p, err := r.Part("leak "+what, anyCPU, PartOptions{})
			if err != nil {
				t.Fatal(err)
			}
			rest := func(context.Context) (int64, error) { return 1, nil }
			f := Figures{}
			seen := soaked{p, p.Addr}
			if what == "nothing" {
				lookUntilStill(t, seen)
			}
			var wrong []string
			for range 6 { // in so few seconds chance is much
				if err := r.soak(t.Context(), []soaked{seen}, rest, f); err != nil {
					t.Fatal(err)
				}
				wrong = wrong[:0]
				for _, b := range soakBars {
					if what != "nothing" && b.Name != bar { // what is lost has memory too
						continue
					}
					got := b.judge(f[b.Name], true, nil)
					if want := map[bool]string{true: Fail, false: Pass}[b.Name == bar]; got.Verdict != want {
						wrong = append(wrong, fmt.Sprintf("%s: %s (%s), want %s", b.Name, got.Line(), got.Note, want))
					}
				}
				if len(wrong) == 0 {
					return
				}
			}
			t.Error(wrong)
		})
	}
}

// lookUntilStill looks at a process until it has found its size, for which a soak of
// minutes has the time.
func lookUntilStill(t *testing.T, p soaked) {
	most, since := 0.0, 0
	for n := 0; since < 400 && n < 6000; n++ {
		v, err := p.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if since++; v[0] > most {
			most, since = v[0], 0
		}
	}
}

// TestSoakIsDriven: the load of a soak works, in all manners, and short ones say
// that they are too short.
func TestSoakIsDriven(t *testing.T) {
	r := newRig(t)
	r.Soak = time.Second
	bin, err := r.Build(t.Context(), "..", "./cmd/waypoint")
	if err != nil {
		t.Fatal(err)
	}
	r.Waypoint = bin
	w, err := r.soakedWaypoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.end()
	w.turns = 5 // so that the document changes
	err = r.soak(t.Context(), w.seen, w.work, Figures{})
	if err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("got %v, want it to be too short", err)
	}
}
