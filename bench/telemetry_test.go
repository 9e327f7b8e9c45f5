package bench

import (
	"net"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy"
)

func TestBenchmarked(t *testing.T) {
	out := "goos: linux\nBenchmarkObserve/one_in_64-2         \t 1841244\t       160.5 ns/op\t       0 B/op\t       0 allocs/op\n" +
		"BenchmarkObserve/one_in_64         \t 1841244\t       1600 ns/op\t      16 B/op\t       2 allocs/op\nPASS\n"
	ns, allocs, err := benchmarked([]byte(out))
	if err != nil || len(ns) != 2 || ns[0] != 160.5 || ns[1] != 1600 || allocs[0] != 0 || allocs[1] != 2 {
		t.Errorf("got %v, %v, %v", ns, allocs, err)
	}
	if _, _, err := benchmarked([]byte("PASS\n")); err == nil {
		t.Error("nothing was measured, and that is no error")
	}
}

// TestStageBook: a request whose stages leave a gap, or are more than its time, is
// not among those that add up.
func TestStageBook(t *testing.T) {
	var b stageBook
	for _, share := range []float64{1, .9, 1.1} {
		s := &filters.Stream{Start: time.Now().Add(-time.Hour)}
		s.Times[filters.StageBody] = time.Duration(share * float64(time.Hour))
		b.observe(&proxy.Outcome{Stream: s})
	}
	l := b.look()
	if l.Requests != 3 || l.Within != 1 || l.Worst < .09 || l.Worst > .11 {
		t.Errorf("got %+v", l)
	}
	if l = b.look(); l.Requests != 0 {
		t.Errorf("got %+v, want nothing since", l)
	}
}

// TestStageOf: what is injected is found where it was, and nowhere else.
func TestStageOf(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveSlowly(l)
	for _, one := range []stageTest{{stage: filters.StageFilters, path: "/", slow: "filters"}, {stage: filters.StageBody, path: "/body"}} {
		took, err := r.stageOf(t.Context(), l.Addr().String(), one)
		if err != nil {
			t.Fatal(err)
		}
		if took[one.stage] < injected {
			t.Errorf("%v in %s", took[one.stage], one.stage)
		}
		for s, d := range took {
			if s := filters.Stage(s); s != one.stage && d >= injected && s != filters.StageConnect {
				t.Errorf("%v in %s, made slow was %s", d, s, one.stage)
			}
		}
	}
	if _, err := r.stageOf(t.Context(), l.Addr().String(), stageTest{path: "/", slow: "nonsense"}); err == nil {
		t.Error("what is unknown was made slow")
	}
}
