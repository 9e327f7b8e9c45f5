package upstream

import (
	"fmt"
	"math"
	"net/netip"
	"testing"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// addr is the address of a member.
func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 8080)
}

// members are plain endpoints with weights.
func members(weights ...uint32) (list []Address) {
	for i, w := range weights {
		list = append(list, Address{Addr: addr(i), Weight: w})
	}
	return list
}

func newBackend(a Algorithm, list []Address) *Backend {
	b := NewBackend("test", hbone.NewPool(hbone.PoolOptions{}))
	b.SetAlgorithm(a)
	b.SetEndpoints(list)
	return b
}

// shares picks n times and counts.
func shares(t *testing.T, b *Backend, n int, tried ...filters.Attempt) map[int]int {
	t.Helper()
	got := map[int]int{}
	for range n {
		e, err := b.Pick(tried)
		if err != nil {
			t.Fatal(err)
		}
		a := e.Addr().Addr().As4()
		got[int(a[2])<<8|int(a[3])]++
	}
	return got
}

func TestRoundRobin(t *testing.T) {
	for _, row := range []struct {
		weights []uint32
		want    []int // of 1200
	}{
		{[]uint32{1, 1, 1}, []int{400, 400, 400}},
		{[]uint32{5, 5}, []int{600, 600}},
		{[]uint32{0, 1}, []int{600, 600}}, // 0 means 1
		{[]uint32{1, 2, 3}, []int{200, 400, 600}},
		{[]uint32{1, 11}, []int{100, 1100}},
		{[]uint32{7}, []int{1200}},
	} {
		got := shares(t, newBackend(RoundRobin, members(row.weights...)), 1200)
		for i, want := range row.want {
			if got[i] != want {
				t.Errorf("weights %v: got %v, want %v", row.weights, got, row.want)
				break
			}
		}
	}
	// Spread evenly: a member of weight 3 of 6 never comes three times running.
	b := newBackend(RoundRobin, members(3, 2, 1))
	run, last := 0, netip.AddrPort{}
	for range 60 {
		e, _ := b.Pick(nil)
		if run++; e.Addr() != last {
			run, last = 1, e.Addr()
		}
		if run > 2 {
			t.Fatalf("%s came %d times running", last, run)
		}
	}
}

// TestLeastRequestShares: with no load the choice is random by weight.
func TestLeastRequestShares(t *testing.T) {
	for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 3}, {10, 20, 30, 40}, {1, 1 << 20}} {
		const n = 20_000
		got := shares(t, newBackend(LeastRequest, members(weights...)), n)
		var sum float64
		for _, w := range weights {
			sum += float64(w)
		}
		for i, w := range weights {
			share := float64(w) / sum
			sigma := math.Sqrt(n * share * (1 - share))
			if d := math.Abs(float64(got[i]) - n*share); d > 5*sigma+1 {
				t.Errorf("weights %v: member %d came %d times, want %.0f", weights, i, got[i], n*share)
			}
		}
	}
}

// TestLeastRequestLoad: of two the one with fewer calls for its weight.
func TestLeastRequestLoad(t *testing.T) {
	b := newBackend(LeastRequest, members(1, 1))
	b.Endpoints()[0].active.Store(5)
	if got := shares(t, b, 1000); got[0] != 0 {
		t.Errorf("the busy one came %d times of 1000", got[0])
	}
	b = newBackend(LeastRequest, members(1, 4))
	b.Endpoints()[0].active.Store(2) // 2 for 1 is more than 7 for 4
	b.Endpoints()[1].active.Store(7)
	if got := shares(t, b, 1000); got[0] != 0 {
		t.Errorf("the one with more calls for its weight came %d times of 1000", got[0])
	}
	// Each pick adds a call: two choices keep many members level.
	b = newBackend(LeastRequest, members(make([]uint32, 50)...))
	var most int32
	for range 5000 {
		e, _ := b.Pick(nil)
		most = max(most, e.active.Add(1))
	}
	if most > 105 {
		t.Errorf("the busiest of 50 has %d calls of 5000, want about 100", most)
	}
}

// TestTried: endpoints that were tried are avoided while there are others, also
// of a lower priority.
func TestTried(t *testing.T) {
	attempts := func(n ...int) (out []filters.Attempt) {
		for _, i := range n {
			out = append(out, filters.Attempt{Endpoint: addr(i)})
		}
		return out
	}
	list := members(1000, 1, 1)
	list[2].Priority = 1
	for _, a := range []Algorithm{LeastRequest, RoundRobin} {
		b := newBackend(a, list)
		for _, row := range []struct {
			tried []filters.Attempt
			want  []int
		}{
			{nil, []int{0, 1}},
			{attempts(0), []int{1}}, // although nearly every pick falls on 0
			{attempts(1), []int{0}},
			{attempts(0, 1), []int{2}},
			{attempts(0, 1, 2), []int{2}},
			{attempts(7), []int{0, 1}},
		} {
			got := shares(t, b, 3000, row.tried...)
			for i := range got {
				if i > 2 || len(row.want) == 1 && i != row.want[0] || len(row.want) == 2 && i == 2 {
					t.Errorf("algorithm %d, tried %v: got %v, want only %v", a, row.tried, got, row.want)
				}
			}
		}
	}
}

func TestHealthAndPriority(t *testing.T) {
	list := members(1, 1, 1)
	list[1].Priority, list[2].Priority = 1, 2
	for _, row := range []struct {
		unhealthy []int
		want      int
	}{{nil, 0}, {[]int{0}, 1}, {[]int{0, 1}, 2}, {[]int{1}, 0}, {[]int{0, 1, 2}, -1}} {
		for i := range list {
			list[i].Unhealthy = false
		}
		for _, i := range row.unhealthy {
			list[i].Unhealthy = true
		}
		b := newBackend(LeastRequest, list)
		if e, err := b.Pick(nil); row.want < 0 {
			if err == nil || fault.Of(err).Kind != fault.NoEndpoint {
				t.Errorf("unhealthy %v: got %v, %v; want no endpoint", row.unhealthy, e, err)
			}
		} else if err != nil || e.Addr() != addr(row.want) {
			t.Errorf("unhealthy %v: got %v, %v; want %s", row.unhealthy, e, err, addr(row.want))
		}
		if len(b.Endpoints()) != 3 {
			t.Errorf("%d members", len(b.Endpoints()))
		}
	}
	if _, err := NewBackend("none", nil).Pick(nil); fault.Of(err).Kind != fault.NoEndpoint {
		t.Errorf("no members: got %v", err)
	}
}

// TestSetEndpoints: who stays keeps his load, who is listed twice is one
// endpoint, and what is said about him is up to date.
func TestSetEndpoints(t *testing.T) {
	w1, w2 := &filters.Workload{Name: "one"}, &filters.Workload{Name: "two"}
	list := members(1, 1)
	list[0].Workload = w1
	b := newBackend(RoundRobin, list)
	a := b.Endpoints()[0]
	a.active.Store(3)

	next := append(members(1, 1)[:1], Address{Addr: addr(9)}, members(1)[0])
	next[0].Workload, next[2].Workload = w2, w2
	b.SetEndpoints(next)
	e := b.Endpoints()
	if len(e) != 3 || e[0] != a || e[2] != a || e[1].Addr() != addr(9) {
		t.Fatalf("got %v", e)
	}
	if a.Active() != 3 || a.Workload() != w2 {
		t.Errorf("it has %d calls and is %v", a.Active(), a.Workload())
	}
	if got := shares(t, b, 300); got[0] != 200 || got[9] != 100 {
		t.Errorf("listed twice: got %v", got)
	}
	if a.left || !a.Plain() {
		t.Error("it has left")
	}
	list[0].Tunnel = netip.MustParseAddrPort("10.1.0.0:15008") // somebody else, to us
	b.SetEndpoints(list[:1])
	if b.Endpoints()[0] == a || !a.left || b.Endpoints()[0].Plain() {
		t.Error("another way in is the same endpoint")
	}
	b.Close()
	b.SetEndpoints(list)
	if len(b.Endpoints()) != 0 {
		t.Error("a closed backend took members")
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("not in this build")
	}
	tried := []filters.Attempt{{Endpoint: addr(0)}}
	for _, a := range []Algorithm{LeastRequest, RoundRobin} {
		for _, list := range [][]Address{members(1, 1, 1), members(1, 2, 3)} {
			b := newBackend(a, list)
			if n := testing.AllocsPerRun(1000, func() { b.Pick(tried) }); n != 0 {
				t.Errorf("algorithm %d: %v allocations", a, n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 100, 1000} {
		for name, a := range map[string]Algorithm{"least": LeastRequest, "robin": RoundRobin} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				list := members(make([]uint32, n)...)
				list[0].Weight = 3
				be := newBackend(a, list)
				for b.Loop() {
					be.Pick(nil)
				}
			})
		}
	}
}
