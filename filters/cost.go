package filters

import (
	"sync/atomic"
	"time"
)

const (
	// sampleEvery is how many calls share one that is timed. It is prime, so
	// that a stream with a fixed number of phases does not always time the same
	// one.
	sampleEvery = 61

	// Above heavyAbove a filter leaves the turn, below lightBelow it comes back.
	heavyAbove = 20 * time.Microsecond
	lightBelow = 10 * time.Microsecond

	// One sample moves the average by an eighth, and counts for at most
	// maxSample: a single pause of the runtime does not make a filter costly.
	shareOfSample = 8
	maxSample     = 5 * heavyAbove
)

// A cost is what one phase of one filter takes, sampled.
type cost struct {
	average atomic.Int64 // ns; an update may be lost to another, which does no harm
	heavy   atomic.Bool
}

func (c *cost) add(d time.Duration) {
	average := c.average.Load()
	average += (int64(min(d, maxSample)) - average) / shareOfSample
	c.average.Store(average)
	switch heavy := c.heavy.Load(); {
	case !heavy && average > int64(heavyAbove):
		c.heavy.Store(true)
	case heavy && average < int64(lightBelow):
		c.heavy.Store(false)
	}
}

// sample reports whether this call of a chain is one that is timed. The count
// is the stream's: one that all streams shared would bounce between cores.
func (s *Stream) sample() bool {
	if s.tick > 0 {
		s.tick--
		return false
	}
	s.tick = sampleEvery - 1
	return true
}

// A meta is what every step has, whatever its phase.
type meta struct {
	at     uint8  // its place in the configured order
	worker Worker // the filter, if it is one
	cost   cost
}

// A caller is a step that can be called without knowing its phase.
type caller interface{ call(s *Stream) *Reply }

// timed calls f and learns what it cost.
func (m *meta) timed(s *Stream, f caller) *Reply {
	start := time.Now()
	r := f.call(s)
	d := time.Since(start)
	m.cost.add(d)
	if s.Watched {
		s.note(timing{s.level, s.phase, m.at, false, d})
	}
	return r
}
