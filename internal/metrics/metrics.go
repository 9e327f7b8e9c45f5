package metrics

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
)

// A Counter only grows.
type Counter struct{ n atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Value returns what has been counted so far.
func (c *Counter) Value() uint64 { return c.n.Load() }

// A Gauge goes up and down.
type Gauge struct{ n atomic.Int64 }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) { g.n.Add(n) }

// Set replaces the value.
func (g *Gauge) Set(n int64) { g.n.Store(n) }

// Value returns the present value.
func (g *Gauge) Value() int64 { return g.n.Load() }

// Bounds are the buckets of a histogram, 255 at most. Observations are whole numbers
// of a small unit, such as nanoseconds, so that counting one takes two additions.
type Bounds struct {
	upper []float64 // inclusive, ascending, as they are shown; +Inf is implied
	limit []int64   // the same in the unit of observations
	unit  float64   // how many of those make one of what is shown
	first [64]uint8 // by its length in bits: the first bucket that an observation may fall into
}

// NewBounds returns buckets with these upper bounds, which must ascend, and of
// each of which unit make one that is observed: 1e6 for nanoseconds that are
// shown as milliseconds. A mistake is a bug and panics.
func NewBounds(unit float64, upper ...float64) *Bounds {
	if !slices.IsSorted(upper) || unit <= 0 {
		panic("metrics: bounds do not ascend, or their unit is none")
	}
	if len(upper) > math.MaxUint8 {
		panic("metrics: too many bounds")
	}
	b := &Bounds{upper: upper, unit: unit}
	for _, u := range upper {
		b.limit = append(b.limit, int64(math.Floor(u*unit)))
	}
	for n := range b.first {
		b.first[n] = uint8(b.from(0, int64(uint64(1)<<n>>1)))
	}
	return b
}

// bucket returns the one that v falls into. Most lengths in bits have one bucket,
// or two. BenchmarkObserve, ten bounds: 11.0 → 5.2 ns, and of a Batch 11.2 → 3.9.
func (b *Bounds) bucket(v int64) int {
	if v < 0 {
		return b.from(0, v)
	}
	return b.from(int(b.first[bits.Len64(uint64(v))&63]), v)
}

// from is bucket for one that is the i-th or lies behind.
func (b *Bounds) from(i int, v int64) int {
	for i < len(b.limit) && b.limit[i] < v {
		i++
	}
	return i
}

// A Histogram sorts observations into buckets.
type Histogram struct {
	// Set once.
	bounds *Bounds

	// Atomic.
	sum    atomic.Int64
	counts []atomic.Uint64 // one more than bounds
}

// NewHistogram returns one that belongs to no Registry.
func NewHistogram(b *Bounds) *Histogram {
	return &Histogram{bounds: b, counts: make([]atomic.Uint64, len(b.limit)+1)}
}

// Observe counts v, in the unit of the bounds.
func (h *Histogram) Observe(v int64) {
	h.counts[h.bounds.bucket(v)].Add(1)
	h.sum.Add(v)
}

// A Batch is what one goroutine has observed and not added to a histogram yet. It
// counts without atomics. BenchmarkObserve: 5.2 → 3.9 ns, and no line that cores share.
type Batch struct {
	bounds *Bounds
	sum    int64
	counts []uint32
}

// NewBatch returns one for histograms with those bounds.
func NewBatch(b *Bounds) Batch { return Batch{bounds: b, counts: make([]uint32, len(b.limit)+1)} }

// Observe is as a Histogram's. A batch holds less than 2^32 of them.
func (b *Batch) Observe(v int64) {
	b.counts[b.bounds.bucket(v)]++
	b.sum += v
}

// AddTo adds to h, which has the same bounds, what was observed, and empties b.
func (b *Batch) AddTo(h *Histogram) {
	for i, n := range b.counts {
		if n > 0 {
			h.counts[i].Add(uint64(n))
			b.counts[i] = 0
		}
	}
	h.sum.Add(b.sum)
	b.sum = 0
}

// Count returns how many observations there were.
func (h *Histogram) Count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Sum returns the sum of what was observed, in the unit of observations.
func (h *Histogram) Sum() int64 { return h.sum.Load() }

// Buckets calls f for each bucket with its upper bound and how many
// observations are at or below it, +Inf last, and returns sum and count, all as
// they are shown. While others observe, the figures may be of slightly different
// moments.
func (h *Histogram) Buckets(f func(upper float64, cumulative uint64)) (sum float64, count uint64) {
	for i := range h.counts {
		count += h.counts[i].Load()
		upper := math.Inf(1)
		if i < len(h.bounds.upper) {
			upper = h.bounds.upper[i]
		}
		f(upper, count)
	}
	return float64(h.sum.Load()) / h.bounds.unit, count
}
