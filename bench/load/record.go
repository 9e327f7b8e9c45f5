package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sandwich-mesh/sandwich/internal/h2"
)

// What a histogram holds: durations in nanoseconds with three digits.
const (
	hdrMost   = int64(time.Hour)
	hdrDigits = 3
)

func newHistogram() *hdr.Histogram { return hdr.New(1, hdrMost, hdrDigits) }

// add records a duration. Those out of range count as its ends.
func add(h *hdr.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, 0), hdrMost)) // the range has no other values
}

// A Failure is the sort of a request's end that was not an answer as expected.
type Failure uint8

// Failures.
const (
	ok         Failure = iota
	Timeout            // no whole answer in time
	Status             // an answer with another status than expected
	CallStatus         // a gRPC status other than 0
	Content            // an answer that is not what was asked for, or not as long
	Malformed          // bytes that are no answer
	Reset              // the stream or the connection was reset
	Disconnect         // the connection ended under the request
	Dropped            // so many waited for a connection that it was given up
	Unfinished         // the run ended before the answer
	failures
)

var failureNames = [failures]string{"ok", "timeout", "status", "grpc-status", "content", "malformed", "reset", "disconnect", "dropped", "unfinished"}

func (f Failure) String() string { return failureNames[f] }

// failureOf sorts the error that ended a connection or a stream.
func failureOf(err error) Failure {
	var stream *h2.StreamError
	var conn *h2.ConnError
	var wrong *malformed
	switch {
	case errors.As(err, &wrong):
		return wrong.as
	case errors.As(err, &stream), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.As(err, &conn):
		return Malformed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return Disconnect
	}
	return Disconnect
}

// A malformed error is about what the target sent.
type malformed struct {
	as   Failure
	text string
}

func (m *malformed) Error() string { return m.text }

func malformedf(as Failure, format string, args ...any) error {
	return &malformed{as, fmt.Sprintf(format, args...)}
}

// An outcome is how a request ended.
type outcome struct {
	failure Failure
	status  int // of HTTP, or of gRPC
	bytes   int64
	err     error // says more about a failure
}

// A record is what a worker has seen since it was last taken. Its owner is the
// worker's mutex.
type record struct {
	closed                  bool // the loop is: service times are the corrected ones, and kept once
	corrected, service, lag *hdr.Histogram
	kinds                   []kindRecord
	failures                [failures]int64
	statuses                map[int]int64
	sent, done, bytes       int64
	last                    int64 // when a request that counts ended, ns
	ended                   int64 // answers within the part that counts, whenever their requests began
	waited                  int64 // requests that found every connection busy
	lost, refused           int64 // connections: that ended, that could not be made
	why                     []string
}

type kindRecord struct {
	corrected *hdr.Histogram // nil if there is one kind only
	done      int64
	failed    int64
}

func newRecord(s *Spec) *record {
	kinds := len(s.Mix)
	r := &record{closed: s.Schedule.Shape == Closed, corrected: newHistogram(), service: newHistogram(), lag: newHistogram(),
		kinds: make([]kindRecord, kinds), statuses: map[int]int64{}}
	if kinds > 1 {
		for i := range r.kinds {
			r.kinds[i].corrected = newHistogram()
		}
	}
	return r
}

func (r *record) reset() {
	r.corrected.Reset()
	r.service.Reset()
	r.lag.Reset()
	clear(r.statuses)
	for i := range r.kinds {
		if k := &r.kinds[i]; k.corrected != nil {
			k.corrected.Reset()
		}
		r.kinds[i].done, r.kinds[i].failed = 0, 0
	}
	*r = record{closed: r.closed, corrected: r.corrected, service: r.service, lag: r.lag, kinds: r.kinds, statuses: r.statuses, why: r.why[:0]}
}

// maxWhy is how many failures are told in words.
const maxWhy = 5

// merge adds what another record has.
func (r *record) merge(o *record) {
	r.corrected.Merge(o.corrected)
	r.service.Merge(o.service)
	r.lag.Merge(o.lag)
	for i := range r.kinds {
		if r.kinds[i].corrected != nil {
			r.kinds[i].corrected.Merge(o.kinds[i].corrected)
		}
		r.kinds[i].done += o.kinds[i].done
		r.kinds[i].failed += o.kinds[i].failed
	}
	for i := range r.failures {
		r.failures[i] += o.failures[i]
	}
	for k, n := range o.statuses {
		r.statuses[k] += n
	}
	r.sent += o.sent
	r.done += o.done
	r.bytes += o.bytes
	r.last = max(r.last, o.last)
	r.ended += o.ended
	r.waited += o.waited
	r.lost += o.lost
	r.refused += o.refused
	r.why = append(r.why, o.why[:min(len(o.why), maxWhy-min(len(r.why), maxWhy))]...)
}

// note records how a request ended. Times are since the run began; a request
// that was waited for in vain counts with the time that it was waited for.
func (r *record) note(s *slot, now int64, o outcome) {
	k := &r.kinds[s.kind]
	r.last = max(r.last, now)
	if o.status != 0 {
		r.statuses[o.status]++
	}
	if o.failure != ok {
		k.failed++
		r.fail(o)
		if o.failure != Timeout && o.failure != Unfinished {
			return
		}
	} else {
		k.done++
		r.done++
		r.bytes += o.bytes
		if !r.closed {
			add(r.service, now-s.sent)
		}
	}
	add(r.corrected, now-s.intended)
	if k.corrected != nil {
		add(k.corrected, now-s.intended)
	}
}

// fail counts a failure and keeps the words of the first few.
func (r *record) fail(o outcome) {
	r.failures[o.failure]++
	r.say(o.failure.String(), o.err)
}

func (r *record) say(what string, err error) {
	if err != nil && len(r.why) < maxWhy {
		r.why = append(r.why, what+": "+err.Error())
	}
}

// failed is how many requests failed.
func (r *record) failed() (n int64) {
	for _, f := range r.failures {
		n += f
	}
	return n
}
