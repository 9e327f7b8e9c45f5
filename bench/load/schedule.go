package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// arrivals tells when one worker's requests are to be sent: its share of a
// schedule. Requests come at whole numbers, or at sums of exponential gaps, of a
// time in which the rate is one; the integral of the rate maps that to the clock.
type arrivals struct {
	from, slope float64 // requests a second at 0, and how it grows each second
	span        float64 // seconds until a ramp is at its end
	step        float64 // from one request of this worker to its next
	at          float64 // of the last, in requests
	random      *rand.Rand
	left        int64 // how many there may still be
}

// newArrivals is the schedule of one of n workers over a run of the length given.
func newArrivals(s *Spec, length time.Duration, worker int) *arrivals {
	n := float64(s.Workers)
	a := &arrivals{from: s.Schedule.Rate, step: n, at: float64(worker+1) - n, left: math.MaxInt64}
	if s.Schedule.To != 0 {
		a.span = length.Seconds()
		a.slope = (s.Schedule.To - s.Schedule.Rate) / a.span
	}
	if s.Schedule.Shape == Poisson {
		a.random = newRandom(s.Seed, worker)
		a.at = 0
	}
	if s.Requests > 0 {
		a.left = share(s.Requests, s.Workers, worker)
	}
	return a
}

// newRandom is a worker's own source of chance, the same in each run of a seed.
func newRandom(seed uint64, worker int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(worker)+1))
}

// share is what one of n workers gets of a number.
func share(total int64, n, worker int) int64 {
	q, r := total/int64(n), total%int64(n)
	if int64(worker) < r {
		q++
	}
	return q
}

// next returns when the next request is to be sent, since the run began.
func (a *arrivals) next() (at time.Duration, ok bool) {
	if a.left == 0 {
		return 0, false
	}
	a.left--
	if a.random != nil {
		a.at += a.random.ExpFloat64() * a.step
	} else {
		a.at += a.step
	}
	return time.Duration(a.when(a.at) * float64(time.Second)), true
}

// when returns the second at which n requests have been due: the inverse of
// from·t + slope·t²/2 up to the ramp's end, and of its last rate behind it.
func (a *arrivals) when(n float64) float64 {
	if a.slope == 0 {
		return n / a.from
	}
	end, last := a.from*a.span+a.slope*a.span*a.span/2, a.from+a.slope*a.span
	if n >= end {
		return a.span + (n-end)/last
	}
	// 2n / (from + √(from² + 2·slope·n)): this form of the root loses no digits.
	return 2 * n / (a.from + math.Sqrt(a.from*a.from+2*a.slope*n))
}
