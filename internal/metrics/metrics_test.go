package metrics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
)

func TestHistogram(t *testing.T) {
	var r Registry
	h := r.Histogram("h", "", NewBounds(10, 0.5, 1, 5))
	for _, v := range []int64{0, 5, 6, 50, 51} {
		h.Observe(v)
	}
	var got []string
	sum, count := h.Buckets(func(upper float64, n uint64) { got = append(got, fmt.Sprint(upper, ":", n)) })
	want := []string{"0.5:2", "1:3", "5:4", "+Inf:5"}
	if !slices.Equal(got, want) || count != 5 || math.Abs(sum-11.2) > 1e-9 || h.Sum() != 112 || h.Count() != 5 {
		t.Errorf("got %v sum %v count %v, want %v", got, sum, count, want)
	}
}

func TestSameNameAndLabelsIsTheSameSeries(t *testing.T) {
	var r Registry
	r.Counter("a", "help", Label{"x", "1"}).Add(2)
	r.Counter("a", "help", Label{"x", "1"}).Add(3)
	r.Counter("a", "help", Label{"x", "2"}).Add(7)
	r.Gauge("g", "").Set(5)
	r.Gauge("g", "").Add(-6)
	var got []string
	r.Each(func(s *Series) {
		switch s.Type {
		case CounterType:
			got = append(got, fmt.Sprintf("%s%v%d", s.Name, s.Labels, s.Counter.Value()))
		case GaugeType:
			got = append(got, fmt.Sprintf("%s%v%d", s.Name, s.Labels, s.Gauge.Value()))
		}
	})
	want := []string{"a[{x 1}]5", "a[{x 2}]7", "g[]-1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	var r Registry
	for i := range MaxSeries {
		r.Counter("a", "", Label{"x", strconv.Itoa(i)}).Add(1)
	}
	if got := r.Overflowed(); got != 0 {
		t.Fatalf("%d overflowed within the limit", got)
	}
	b, c := r.Counter("a", "", Label{"x", "one more"}), r.Counter("a", "", Label{"x", "and more"})
	if b != c || r.Overflowed() != 2 {
		t.Errorf("shared %v, overflowed %d", b == c, r.Overflowed())
	}
	if old := r.Counter("a", "", Label{"x", "7"}); old == b || old.Value() != 1 {
		t.Error("a series within the limit was lost")
	}
	n := 0
	r.Each(func(*Series) { n++ })
	if n != MaxSeries+1 {
		t.Errorf("%d series, want %d", n, MaxSeries+1)
	}
}

func TestTwoTypesPanic(t *testing.T) {
	var r Registry
	r.Counter("a", "")
	for name, f := range map[string]func(){
		"other type":      func() { r.Gauge("a", "") },
		"no unit":         func() { NewBounds(0, 1) },
		"unsorted bounds": func() { NewBounds(1, 2, 1) },
		"too many bounds": func() { NewBounds(1, make([]float64, math.MaxUint8+1)...) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestCountingAtOnce(t *testing.T) {
	var r Registry
	h := r.Histogram("h", "", NewBounds(1, 1))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				r.Counter("c", "").Add(1)
				h.Observe(2)
			}
		})
	}
	wg.Wait()
	sum, n := h.Buckets(func(float64, uint64) {})
	if got := r.Counter("c", "").Value(); got != 4000 || sum != 8000 || n != 4000 {
		t.Errorf("counter %d, sum %v, count %d", got, sum, n)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	var r Registry
	c, h := r.Counter("c", ""), r.Histogram("h", "", NewBounds(1, 1, 2, 3))
	if got := testing.AllocsPerRun(100, func() { c.Add(1); h.Observe(2) }); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

// What is found from an observation's length in bits is what a walk over all bounds
// finds: beside every bound and every power of two.
func TestBucketAgainstWalk(t *testing.T) {
	for _, bounds := range []*Bounds{
		NewBounds(1, 0.5, 1, 5, 10, 25, 50, 1e3, 1e18),
		NewBounds(1e6, 0.5, 1, 5, 10, 25, 50, 1e3, 3.6e6),
		NewBounds(1, -5, -1, 0, 3), NewBounds(1), NewBounds(1, make([]float64, math.MaxUint8)...),
	} {
		at := append([]int64{math.MinInt64, math.MaxInt64}, bounds.limit...)
		for n := range 63 {
			at = append(at, 1<<n)
		}
		for _, near := range at {
			for _, v := range []int64{near - 1, near, near + 1} {
				want := 0
				for want < len(bounds.limit) && bounds.limit[want] < v {
					want++
				}
				if got := bounds.bucket(v); got != want {
					t.Errorf("%d of %v is in bucket %d, want %d", v, bounds.limit, got, want)
				}
			}
		}
	}
}

// A batch adds up to what would have been observed one by one.
func TestBatchAgainstTwin(t *testing.T) {
	bounds := NewBounds(10, 0.5, 1, 5, 100)
	r := rand.New(rand.NewPCG(1, 2))
	one, many, batch := NewHistogram(bounds), NewHistogram(bounds), NewBatch(bounds)
	for range 100 {
		for range r.IntN(5) {
			v := r.Int64N(2000)
			one.Observe(v)
			batch.Observe(v)
		}
		batch.AddTo(many)
	}
	var want, got []float64
	wantSum, wantCount := one.Buckets(func(_ float64, n uint64) { want = append(want, float64(n)) })
	sum, count := many.Buckets(func(_ float64, n uint64) { got = append(got, float64(n)) })
	if !slices.Equal(got, want) || sum != wantSum || count != wantCount || count == 0 {
		t.Errorf("got %v, sum %v of %d; want %v, %v of %d", got, sum, count, want, wantSum, wantCount)
	}
}

func BenchmarkObserve(b *testing.B) {
	bounds := NewBounds(1e6, 0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000)
	const v = 300e6 // many bounds are below it, as below most requests' bytes
	h, batch := NewHistogram(bounds), NewBatch(bounds)
	b.Run("histogram", func(b *testing.B) {
		for b.Loop() {
			h.Observe(v)
		}
	})
	b.Run("batch", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			batch.Observe(v)
			if n%16 == 0 {
				batch.AddTo(h)
			}
		}
	})
}
