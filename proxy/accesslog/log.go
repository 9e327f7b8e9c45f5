package accesslog

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
)

// MaxPending is how many bytes may wait for the writer.
const MaxPending = 1 << 20

// Which requests are written.
type Which uint8

// From none to all.
const (
	None   Which = iota
	Errors       // what failed, and what was refused here
	All
)

// ParseWhich reads a flag's word.
func ParseWhich(s string) (Which, error) {
	for w, word := range [...]string{"none", "errors", "all"} {
		if s == word {
			return Which(w), nil
		}
	}
	return None, fmt.Errorf("access log %q is not understood: write none, errors or all", s)
}

// A Format is how a line looks.
type Format uint8

// The formats.
const (
	Text Format = iota
	JSON
)

// ParseFormat reads a flag's word.
func ParseFormat(s string) (Format, error) {
	for f, word := range [...]string{"text", "json"} {
		if s == word {
			return Format(f), nil
		}
	}
	return Text, fmt.Errorf("access log format %q is not understood: write text or json", s)
}

// Options say what to write, and where.
type Options struct {
	Writer io.Writer
	Which  Which
	Format Format
	// Metrics counts lines; nil for a registry of its own.
	Metrics *metrics.Registry
	// OnError hears of the first write that fails, and of the next after one
	// that did not.
	OnError func(error)
}

// A Log writes access log lines.
type Log struct {
	// Set once.
	o                        Options
	written, dropped, failed *metrics.Counter
	lines                    sync.Pool // of *line
	done                     chan struct{}

	// Guarded by mu.
	mu      sync.Mutex
	wake    sync.Cond
	pending []byte
	count   uint64 // lines in pending
	writing bool   // some lines are with the writer
	closed  bool
}

// A line is room to put one together.
type line struct{ b []byte }

// keepLine and keepPending are how much room is kept for what comes next.
const (
	keepLine    = 16 << 10
	keepPending = 64 << 10
)

// New starts a Log.
func New(o Options) *Log {
	if o.Metrics == nil {
		o.Metrics = new(metrics.Registry)
	}
	l := &Log{
		o:       o,
		written: o.Metrics.Counter("waypoint_access_log_lines_total", "Lines of the access log written."),
		dropped: o.Metrics.Counter("waypoint_access_log_dropped_total", "Lines dropped because the writer did not keep up, or failed."),
		failed:  o.Metrics.Counter("waypoint_access_log_errors_total", "Writes of the access log that failed."),
		done:    make(chan struct{}),
	}
	l.wake.L = &l.mu
	l.lines.New = func() any { return new(line) }
	go l.run()
	return l
}

// Wants reports whether a request will be written.
func (l *Log) Wants(o *proxy.Outcome) bool {
	return l.o.Which == All || l.o.Which == Errors && o.Failed()
}

// Observe writes a line for a request, or not.
func (l *Log) Observe(o *proxy.Outcome) {
	if l.Wants(o) {
		e := entryOf(o)
		l.write(&e)
	}
}

// ObserveConn writes a line for an opaque connection, or not.
func (l *Log) ObserveConn(o *proxy.ConnOutcome) {
	if l.o.Which == All || l.o.Which == Errors && o.Fault != nil {
		e := entryOfConn(o)
		l.write(&e)
	}
}

func (l *Log) write(e *entry) {
	n := l.lines.Get().(*line)
	if l.o.Format == JSON {
		n.b = e.appendJSON(n.b[:0])
	} else {
		n.b = e.appendText(n.b[:0])
	}
	l.add(n.b)
	if cap(n.b) <= keepLine {
		l.lines.Put(n)
	}
}

func (l *Log) add(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.pending)+len(b) > MaxPending {
		l.dropped.Add(1)
		return
	}
	l.pending = append(l.pending, b...)
	if l.count++; l.count == 1 && !l.writing {
		l.wake.Signal()
	}
}

// run writes what waits, until Close. Two buffers take turns.
func (l *Log) run() {
	defer close(l.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	var spare []byte
	failing := false
	for {
		for l.count == 0 {
			if l.closed {
				return
			}
			l.wake.Wait()
		}
		b, n := l.pending, l.count
		l.pending, l.count, l.writing = spare[:0], 0, true
		l.mu.Unlock()
		_, err := l.o.Writer.Write(b)
		switch {
		case err == nil:
			l.written.Add(n)
		default:
			l.failed.Add(1)
			l.dropped.Add(n)
			if !failing && l.o.OnError != nil {
				l.o.OnError(fmt.Errorf("access log: %w", err))
			}
		}
		failing = err != nil
		l.mu.Lock()
		if spare, l.writing = b, false; cap(b) > keepPending {
			spare = nil
		}
	}
}

// Close writes what waits and ends the log. If the writer has not taken it by
// the end of ctx, the rest is left to it.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.wake.Signal()
	l.mu.Unlock()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("access log not written to its end: %w", ctx.Err())
	}
}
