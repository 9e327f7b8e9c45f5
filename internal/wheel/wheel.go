package wheel

import (
	"math/bits"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// Tick is how coarse the timers are.
const Tick = 10 * time.Millisecond

// Each level has 64 slots, so that one word says which are in use; a slot of a
// level spans all slots of the level below. Four levels reach 46 hours, and
// what lies beyond waits in the last slot and is looked at again from there.
const (
	levels   = 4
	slotBits = 6
	slots    = 1 << slotBits
	horizon  = 1 << (levels * slotBits) // ticks
)

// An Owner is told when its timer is due.
type Owner interface {
	// Expired is called on the wheel's goroutine in a turn of the wheel, with
	// no lock held. The timer is idle by then and may be set again.
	Expired(t *turn.Turn, tm *Timer)
}

// A Timer belongs to one wheel at a time. Its zero value is idle.
type Timer struct {
	// Guarded by the wheel's mu.
	next, prev *Timer // in a ring with its slot's head; nil while idle
	owner      Owner
	due        uint64 // the tick
	level      uint8
	slot       uint8
}

// A Wheel fires timers from one goroutine.
type Wheel struct {
	// Set once.
	start time.Time
	wake  chan struct{} // an earlier timer was set, or the wheel is closing
	done  chan struct{} // the goroutine has ended

	// Guarded by mu.
	mu      sync.Mutex
	now     uint64               // ticks that have been handled
	used    [levels]uint64       // which slots hold timers
	ring    [levels][slots]Timer // heads
	until   uint64               // the tick that run sleeps for; noTick while it has none
	closing bool
	running bool
}

const noTick = ^uint64(0)

// New makes a wheel that stands still until Start.
func New() *Wheel {
	w := &Wheel{start: time.Now(), wake: make(chan struct{}, 1), done: make(chan struct{}), until: noTick}
	for l := range w.ring {
		for s := range w.ring[l] {
			h := &w.ring[l][s]
			h.next, h.prev = h, h
		}
	}
	return w
}

// Start begins firing. A wheel is started once.
func (w *Wheel) Start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running || w.closing {
		return
	}
	w.running = true
	go w.run()
}

// Close ends firing and waits for a turn that is under way. Timers that are
// set stay silent.
func (w *Wheel) Close() {
	w.mu.Lock()
	w.closing = true
	running := w.running
	w.mu.Unlock()
	w.nudge()
	if running {
		<-w.done
	}
}

// Set arms tm to tell o in d, or a little later; a timer that is set already
// is moved.
func (w *Wheel) Set(tm *Timer, o Owner, d time.Duration) {
	due := uint64(time.Since(w.start)+max(d, 0)+Tick-1) / uint64(Tick)
	w.mu.Lock()
	w.unlink(tm)
	tm.owner, tm.due = o, max(due, w.now+1)
	w.link(tm)
	earlier := tm.due < w.until
	w.mu.Unlock()
	if earlier {
		w.nudge()
	}
}

// Stop makes tm idle. It does not wait for an Expired that has begun.
func (w *Wheel) Stop(tm *Timer) {
	w.mu.Lock()
	w.unlink(tm)
	w.mu.Unlock()
}

func (w *Wheel) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// link puts tm where it has to be looked at next. Called with mu held.
func (w *Wheel) link(tm *Timer) {
	at := min(tm.due, w.now+horizon-1)
	level := 0
	if diff := at ^ w.now; diff != 0 { // the highest digit in which they differ
		level = min((bits.Len64(diff)-1)/slotBits, levels-1)
	}
	slot := at >> (level * slotBits) % slots
	tm.level, tm.slot = uint8(level), uint8(slot)
	h := &w.ring[level][slot]
	tm.next, tm.prev = h, h.prev
	h.prev.next, h.prev = tm, tm
	w.used[level] |= 1 << slot
}

// unlink is called with mu held.
func (w *Wheel) unlink(tm *Timer) {
	if tm.next == nil {
		return
	}
	tm.next.prev, tm.prev.next = tm.prev, tm.next
	tm.next, tm.prev, tm.owner = nil, nil, nil
	if h := &w.ring[tm.level][tm.slot]; h.next == h {
		w.used[tm.level] &^= 1 << tm.slot
	}
}

// run sleeps until a slot is due, handles it, and sleeps again; with no timer
// set it sleeps until one is.
func (w *Wheel) run() {
	defer close(w.done)
	sleep := time.NewTimer(time.Hour)
	defer sleep.Stop()
	var t turn.Turn
	for {
		w.mu.Lock()
		if w.closing {
			w.mu.Unlock()
			return
		}
		w.until = w.nextTick()
		until := w.until
		w.mu.Unlock()
		if until == noTick {
			<-w.wake
			continue
		}
		if d := time.Until(w.start.Add(time.Duration(until) * Tick)); d > 0 {
			sleep.Reset(d)
			select {
			case <-sleep.C:
			case <-w.wake:
				continue
			}
		}
		w.advance(&t)
		t.End()
	}
}

// nextTick says when the next slot that is in use comes round. Called with mu
// held.
func (w *Wheel) nextTick() uint64 {
	best := uint64(noTick)
	for l := range w.used {
		if w.used[l] == 0 {
			continue
		}
		shift := l * slotBits
		here := w.now >> shift // slots lie ahead of here, at most one round
		ahead := uint64(bits.TrailingZeros64(bits.RotateLeft64(w.used[l], -int((here+1)%slots)))) + 1
		best = min(best, (here+ahead)<<shift)
	}
	return best
}

// advance handles every tick that has passed.
func (w *Wheel) advance(t *turn.Turn) {
	target := uint64(time.Since(w.start)) / uint64(Tick)
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closing {
		next := w.nextTick()
		if next > target {
			w.now = max(w.now, target)
			return
		}
		w.now = next
		for l := levels - 1; l > 0; l-- { // from above, for what comes down may be due at once
			if w.now%(1<<(l*slotBits)) == 0 {
				w.cascade(l)
			}
		}
		w.fire(t)
	}
}

// cascade moves the timers of a slot that has come round to lower levels.
func (w *Wheel) cascade(level int) {
	slot := w.now >> (level * slotBits) % slots
	h := &w.ring[level][slot]
	last := h.prev // one that comes back to this slot is not looked at twice
	for tm := h.next; tm != h; {
		following, end := tm.next, tm == last
		owner := tm.owner
		w.unlink(tm)
		tm.owner = owner
		w.link(tm)
		if end {
			return
		}
		tm = following
	}
}

// fire tells the owners of the timers that are due now. Called with mu held,
// which it lets go for each call.
func (w *Wheel) fire(t *turn.Turn) {
	h := &w.ring[0][w.now%slots]
	for h.next != h && !w.closing {
		tm := h.next
		owner := tm.owner
		w.unlink(tm)
		w.mu.Unlock()
		t.Event()
		owner.Expired(t, tm)
		if t.Spent() {
			t.End()
		}
		w.mu.Lock()
	}
}
