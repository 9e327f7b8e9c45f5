package account

import (
	"errors"
	"fmt"
	"time"
)

// A Sample is what a process has used since it started.
type Sample struct {
	// CPU is the sum over threads that live now, the precise figure.
	CPU time.Duration
	// Coarse is the kernel's figure for the whole process, threads that have
	// ended included, in steps of a clock tick.
	Coarse time.Duration
	// threads says what CPU is made of, so that two samples can be compared.
	threads map[int]time.Duration
}

// ErrThreadsEnded says that the process lost threads between two samples and
// took their CPU time with them.
var ErrThreadsEnded = errors.New("threads ended between the samples, so their CPU time is lost")

// slack is how far the two figures may differ: user and system time are both
// cut to 10 ms ticks, at both ends.
const slack = 50 * time.Millisecond

// A Meter reads the CPU time of one process.
type Meter struct{ PID int }

// Read takes a sample.
func (m Meter) Read() (Sample, error) {
	s, err := readCPU(m.PID)
	if err != nil {
		return s, fmt.Errorf("read CPU time of process %d: %w", m.PID, err)
	}
	return s, nil
}

// Between returns the CPU time used from one sample to the next.
func Between(from, to Sample) (time.Duration, error) {
	if to.threads == nil {
		return to.Coarse - from.Coarse, nil
	}
	var d time.Duration
	for id, v := range to.threads {
		d += v - from.threads[id]
	}
	if lost := to.Coarse - from.Coarse - d; lost > slack {
		return d, fmt.Errorf("%w (%v by the kernel's count, %v by threads)", ErrThreadsEnded, to.Coarse-from.Coarse, d)
	}
	return d, nil
}
