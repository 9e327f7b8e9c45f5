package metrics

import (
	"math"
	"sort"
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

// A Histogram sorts observations into buckets.
type Histogram struct {
	// Set once.
	bounds []float64 // upper bounds, inclusive, ascending; +Inf is implied

	// Atomic.
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Uint64   // bits of a float64
}

func newHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts v. NaN is left out: it would make the sum useless for good.
func (h *Histogram) Observe(v float64) {
	if math.IsNaN(v) {
		return
	}
	h.counts[sort.SearchFloat64s(h.bounds, v)].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Buckets calls f for each bucket with its upper bound and how many
// observations are at or below it, +Inf last, and returns sum and count. While
// others observe, the figures may be of slightly different moments.
func (h *Histogram) Buckets(f func(upper float64, cumulative uint64)) (sum float64, count uint64) {
	for i := range h.counts {
		count += h.counts[i].Load()
		upper := math.Inf(1)
		if i < len(h.bounds) {
			upper = h.bounds[i]
		}
		f(upper, count)
	}
	return math.Float64frombits(h.sum.Load()), count
}
