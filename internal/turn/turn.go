package turn

import (
	"sync"
	"time"
)

const (
	// MaxEvents and MaxTime bound a turn: past either it flushes and yields, so
	// that one busy connection cannot hold back what others wait for. Twice as many
	// events as 64 are 1.6 % less work at 256 streams, and less than MaxTime still.
	MaxEvents = 128
	MaxTime   = time.Millisecond

	// clockEvery is how many events pass between two looks at the clock.
	clockEvery = 16
)

// A Late has put a step off.
type Late interface {
	// Late does it. It is called with no lock held.
	Late(t *Turn)
	// Broke is called, by the deferred call that recovered, if Late has panicked with
	// v. What it had locked still is.
	Broke(t *Turn, v any)
}

// A Tick is a moment by the monotonic clock, in nanoseconds since epoch; zero is
// none. It is a third of a time.Time and holds no pointer. BenchmarkTick, the
// turn's clock kept and compared: 11 → 4 ns.
type Tick int64

// epoch is half a century before the process began, so that a test's clock, which
// begins in the year 2000, has ticks greater than zero too.
var epoch = time.Now().Add(-50 * 365 * 24 * time.Hour)

// TickOf returns the tick at at; none for the zero time.
func TickOf(at time.Time) Tick {
	if at.IsZero() {
		return 0
	}
	return Tick(at.Sub(epoch))
}

// Time returns the tick's time; the zero time for none.
func (k Tick) Time() time.Time {
	if k == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(k))
}

// Add returns the tick d later.
func (k Tick) Add(d time.Duration) Tick { return k + Tick(d) }

// Sub returns the time since the tick before.
func (k Tick) Sub(before Tick) time.Duration { return time.Duration(k - before) }

// Ago returns the time since the tick, by a look at the clock.
func (k Tick) Ago() time.Duration { return time.Since(epoch) - time.Duration(k) }

// A Flusher has bytes appended to it during a turn and sends them when asked.
//
// It marks itself at most once until it is flushed; a second turn that appends
// meanwhile relies on the first turn's flush.
type Flusher interface {
	// Flush sends or passes on what was appended. It never blocks and never
	// calls up; it may Mark others and Notify.
	Flush(t *Turn)
}

// A Notified has up-calls waiting for it.
type Notified interface {
	// Notified delivers them. It is called with no lock held.
	Notified(t *Turn)
}

// A Turn collects what one read made necessary.
type Turn struct {
	now     time.Time
	tick    Tick // of now; zero: the clock has not been read
	dirty   []Flusher
	notes   []Notified
	at      int // of dirty: what has been flushed
	told    int // of notes: what has been delivered
	events  int
	look    int // the count of events at which the clock is due
	ending  bool
	shelf   *any
	first   Flusher
	feed    *Feed // the innermost; nil outside any
	late    []Late
	done    int // of late
	scratch []byte
}

// Last says that one goroutine uses the turn again and again.
func (t *Turn) Last() { t.shelf = new(any) }

// Shelf is where somebody may keep what needs no lock then, because only this
// turn comes to it; nil if the turn does not last.
func (t *Turn) Shelf() *any { return t.shelf }

// Now returns the time at which the turn began; the clock is read once.
func (t *Turn) Now() time.Time {
	t.Tick()
	return t.now
}

// Tick returns Now as a tick.
func (t *Turn) Tick() Tick {
	if t.tick == 0 {
		t.read()
	}
	return t.tick
}

func (t *Turn) read() {
	t.now = time.Now()
	t.tick = TickOf(t.now)
}

// First says that f is to be flushed before everything that was marked: it counts
// what the others are going to tell. There is one at most.
func (t *Turn) First(f Flusher) { t.first = f }

// Mark says that f has something to flush. The caller sees to it that f is
// marked once only.
func (t *Turn) Mark(f Flusher) { t.dirty = append(t.dirty, f) }

// Notify queues n's up-calls. The caller sees to it that n is queued once only.
func (t *Turn) Notify(n Notified) { t.notes = append(t.notes, n) }

// Event counts one unit of work: a request, a response, a chunk.
func (t *Turn) Event() { t.events++ }

// Spent reports whether the turn has used its share and should end.
func (t *Turn) Spent() bool {
	if t.events >= MaxEvents {
		return true
	}
	if t.events < t.look+clockEvery {
		return false
	}
	t.look = t.events
	return t.Tick().Ago() > MaxTime
}

// End flushes and delivers until neither is left, and makes the turn ready for
// the next read. If one of them panics, calling End again goes on behind it.
func (t *Turn) End() {
	if t.ending {
		return // an up-call that ends its own turn: the loop below goes on anyway
	}
	t.ending = true
	defer func() { t.ending = false }()
	for {
		if f := t.first; f != nil {
			t.first = nil
			f.Flush(t)
		}
		for t.at < len(t.dirty) { // Flush may mark more: nested connections come before their carriers
			f := t.dirty[t.at]
			t.dirty[t.at] = nil
			t.at++
			f.Flush(t)
		}
		t.dirty, t.at = t.dirty[:0], 0
		if t.told == len(t.notes) {
			break
		}
		t.notes = append(t.notes[:0], t.notes[t.told:]...)
		t.told = 0
		for n := len(t.notes); t.told < n; { // only these: an up-call's own notes wait for its flush
			u := t.notes[t.told]
			t.notes[t.told] = nil
			t.told++
			u.Notified(t)
		}
	}
	t.notes, t.told = t.notes[:0], 0
	t.events, t.look, t.tick = 0, 0, 0
}

// A Feed is an engine handing up what it has received. Engines nest, and so do
// their feeds.
type Feed struct{ outer *Feed }

// Enter begins a feed.
func (t *Turn) Enter(f *Feed) { f.outer, t.feed = t.feed, f }

// Leave ends a feed. Behind the outermost, what was put off is done: the caller holds
// no lock, and still has the bytes that it handed up.
func (t *Turn) Leave(f *Feed) {
	if t.feed, f.outer = f.outer, nil; t.feed == nil {
		t.catchUp()
	}
}

// Inside reports whether f is the innermost feed of the turn: then its handlers
// are calling down, on the goroutine that owns what belongs to f's reader.
func (t *Turn) Inside(f *Feed) bool { return t.feed == f }

// Feeding reports whether an engine is handing up what it has received.
func (t *Turn) Feeding() bool { return t.feed != nil }

// Scratch returns room for n bytes, which is good until it is asked for again; nil if
// the turn does not last, or if that is more than it keeps. What is put together
// there and copied at once stays in the processor's nearest cache.
func (t *Turn) Scratch(n int) []byte {
	if n > cap(t.scratch) {
		if t.shelf == nil || n > scratchSize {
			return nil
		}
		t.scratch = make([]byte, 0, scratchSize)
	}
	return t.scratch
}

const scratchSize = 4 << 10

// CatchingUp reports whether steps that were put off are being done: outside a feed
// none wait otherwise.
func (t *Turn) CatchingUp() bool { return t.feed == nil && len(t.late) > 0 }

// Later puts off a step of l, which is called in a feed, until the outermost one
// ends: the bytes that it handed up are still there then. A step may put off another,
// which comes behind all that wait. Steps of one kind are done one after the other
// so, and find their code in the processor's caches.
func (t *Turn) Later(l Late) { t.late = append(t.late, l) }

// Crowded reports whether as many steps wait as a turn should have events: whoever
// feeds without a lock leaves, and enters again.
func (t *Turn) Crowded() bool { return len(t.late)-t.done >= MaxEvents }

// catchUp does what was put off.
func (t *Turn) catchUp() {
	for t.done < len(t.late) {
		t.catchUpSome()
	}
	t.late, t.done = t.late[:0], 0
}

// catchUpSome does what was put off, to the end or to a step that panics. One deferred
// call serves all of them: one for each, which asks recover, cost 0.7 % of a request.
func (t *Turn) catchUpSome() {
	var l Late
	defer func() {
		if l != nil {
			l.Broke(t, recover())
		}
	}()
	for t.done < len(t.late) {
		l = t.late[t.done]
		t.late[t.done] = nil
		t.done++
		l.Late(t)
	}
	l = nil
}

// A Sink is where bytes go: a transport connection, or a stream of one.
//
// All methods may be called with a lane or an inner connection's lock held, and
// none of them calls up.
type Sink interface {
	// Write appends a copy of p. It never blocks and never fails late: what was
	// lost is told by Closed.
	Write(t *Turn, p []byte)
	// Buffered returns how many written bytes have not left yet: the stream's
	// own queue plus at most its share of the buffers under it.
	Buffered() int
	// CloseWrite ends the writing direction after what was written (END_STREAM
	// or FIN); reading goes on.
	CloseWrite(t *Turn)
	// Abort gives up both directions. The code is an HTTP/2 error code; TCP
	// answers it with RST. Closed follows.
	Abort(t *Turn, code uint32)
}

// A Taker is a Sink that can do without the copy.
type Taker interface {
	Sink
	// Take is Write of a buffer lent by internal/buf. It is the sink's from then
	// on.
	Take(t *Turn, p []byte)
}

// LowMark is where Left is due: a sink that held more and now holds less says
// so. Below it nobody is told, because the receive windows (256 KiB) are wide
// enough for credit to follow with the next event.
const LowMark = 16 << 10

// A Lane is the lock of one inner connection or stream: it guards the codec's
// state, the exchange and what filters see of it. It comes first in the lock
// order.
type Lane struct{ sync.Mutex }
