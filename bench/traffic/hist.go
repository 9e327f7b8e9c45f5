package traffic

import (
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest duration that is told from longer ones, in µs.
const longest = int64(time.Hour / time.Microsecond)

// A histogram counts durations, in µs and with three digits. Streams of a group
// share it.
type histogram struct {
	mu   sync.Mutex
	hist *hdr.Histogram
}

func newHistogram() *histogram { return &histogram{hist: hdr.New(1, longest, 3)} }

func (h *histogram) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.hist.RecordValue(min(max(d.Microseconds(), 0), longest)) // the range has no other values
}

func (h *histogram) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hist.Reset()
}

// quantile returns the duration that the share q of all counted did not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Duration(h.hist.ValueAtPercentile(100*q)) * time.Microsecond
}
