package traffic

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets 3 % wide, from 1 µs to about 70
// minutes.
type histogram struct{ counts [buckets]atomic.Uint32 }

const (
	subBits = 5
	sub     = 1 << subBits
	buckets = (32 - subBits + 1) * sub
)

func (h *histogram) add(d time.Duration) {
	us := uint32(min(max(d.Microseconds(), 0), 1<<32-1))
	h.counts[bucketOf(us)].Add(1)
}

func (h *histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// bucketOf is the number itself below 64; above, its power of two and the five
// bits after the first.
func bucketOf(us uint32) int {
	if us < 2*sub {
		return int(us)
	}
	shift := bits.Len32(us) - 1 - subBits
	return shift*sub + int(us>>shift)
}

// middle returns a duration that falls into the bucket.
func middle(b int) time.Duration {
	if b < 2*sub {
		return time.Duration(b) * time.Microsecond
	}
	shift := b/sub - 1
	low := uint64(b%sub+sub) << shift
	return time.Duration(low+(1<<shift)/2) * time.Microsecond
}

// quantile returns the duration under which the share q of all counted lies.
func (h *histogram) quantile(q float64) time.Duration {
	var total uint64
	for i := range h.counts {
		total += uint64(h.counts[i].Load())
	}
	if total == 0 {
		return 0
	}
	rank := uint64(q * float64(total-1))
	for i := range h.counts {
		n := uint64(h.counts[i].Load())
		if rank < n {
			return middle(i)
		}
		rank -= n
	}
	return middle(buckets - 1)
}
