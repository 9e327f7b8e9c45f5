package load

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// What a slot is to its worker.
type slotState uint8

const (
	down  slotState = iota // its connection is not there
	idle                   // it waits in the worker's list
	taken                  // a request is on it, or about to be
)

// A slot is the place of one request at a time on a connection.
type slot struct {
	link *link
	at   int // on its connection

	turn.Lane          // what follows
	app       app      // of the connection at hand
	up        bool     // the connection takes requests
	busy      bool     // a request is on its way
	kind      int      // of it
	intended  int64    // when it was to be sent, ns since the run began
	sent      int64    // when it was
	give      giveBack // how the request is given up

	state  slotState // guarded by the worker's mu
	counts bool      // the request counts; whose it is when the slot is taken
}

// giveBack ends a request that nobody waits for any more. The slot is locked.
type giveBack func(t *turn.Turn)

// A worker accounts for some of the connections and paces their requests.
type worker struct {
	run   *Run
	id    int
	links []*link
	kinds *chooser

	mu     sync.Mutex // what follows
	idle   ring[*slot]
	queue  ring[int64] // intended times that no slot was free for
	rec    *record
	busy   int
	paced  bool  // the pacer has sent all there is
	budget int64 // requests that a closed loop may still make
}

// send puts the next request on a slot. It is locked, and taken.
func (s *slot) send(t *turn.Turn, intended, now int64) {
	w := s.link.worker
	if !s.up {
		w.unsend(s, intended)
		return
	}
	s.busy, s.intended, s.sent = true, intended, now
	s.kind = w.kinds.next()
	if w.run.closed {
		s.intended = s.sent
	}
	s.app.ask(t, s)
}

// done says that the request on s has ended, and has the slot go on if it can.
// s is locked.
func (s *slot) done(t *turn.Turn, o outcome, usable bool) {
	s.busy, s.give = false, nil
	if !usable {
		s.up = false
	}
	w := s.link.worker
	now := w.run.now()
	w.mu.Lock()
	w.busy--
	if o.failure == ok && w.counted(now) {
		w.rec.ended++
	}
	if s.counts {
		w.rec.note(s, now, o)
	}
	var intended int64
	again := false
	if usable {
		intended, again = w.next(s, now)
	} else {
		s.state = down
	}
	w.mu.Unlock()
	if again {
		s.send(t, intended, now)
	}
}

// next finds what a slot that has become free does: it is taken for a request
// that waits, or idle. w is locked.
func (w *worker) next(s *slot, now int64) (intended int64, again bool) {
	switch {
	case w.run.closed && w.run.going.Load() && w.budget > 0:
		w.budget--
		again = true
	case w.queue.len() > 0:
		intended, again = w.overdue(now)
	}
	if !again {
		s.state = idle
		w.idle.push(s)
		return 0, false
	}
	w.take(s, intended, now)
	return intended, true
}

// take gives a slot to a request that goes out. w is locked.
func (w *worker) take(s *slot, intended, now int64) {
	if w.run.closed {
		intended = now
	}
	s.state = taken
	w.busy++
	if s.counts = w.counted(intended); s.counts {
		w.rec.sent++
	}
}

// counted reports whether a request that was to be sent at that time counts.
func (w *worker) counted(intended int64) bool { return intended >= w.run.counts.Load() }

// overdue returns the first of the queue that somebody still waits for. w is
// locked.
func (w *worker) overdue(now int64) (int64, bool) {
	for w.queue.len() > 0 {
		intended := w.queue.pop()
		if now-intended <= int64(w.run.spec.Timeout) {
			return intended, true
		}
		w.missed(intended, now, Timeout)
	}
	return 0, false
}

// missed records a request that was never sent. w is locked.
func (w *worker) missed(intended, now int64, f Failure) {
	if w.counted(intended) {
		w.rec.note(&slot{intended: intended, sent: now, kind: w.kinds.next()}, now, outcome{failure: f})
	}
}

// dispatch sends a request that is due, or has it wait for a slot.
func (w *worker) dispatch(t *turn.Turn, intended int64) {
	now := w.run.now()
	w.mu.Lock()
	if w.counted(intended) {
		add(w.rec.lag, now-intended)
	}
	if w.idle.len() == 0 {
		w.enqueue(intended, now)
		w.mu.Unlock()
		return
	}
	s := w.idle.pop()
	w.take(s, intended, now)
	w.mu.Unlock()
	s.Lock()
	s.send(t, intended, w.run.now()) // whoever held the lane may have kept it for a while
	s.Unlock()
}

// enqueue keeps a request that no slot is free for. w is locked.
func (w *worker) enqueue(intended, now int64) {
	if w.counted(intended) {
		w.rec.waited++
	}
	if w.queue.len() >= w.run.queue {
		w.missed(intended, now, Dropped)
		return
	}
	w.queue.push(intended)
}

// unsend takes a request back from a slot whose connection takes none: it waits
// for another. s is locked.
func (w *worker) unsend(s *slot, intended int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	s.busy, s.up = false, false
	s.state = down
	if s.counts {
		w.rec.sent--
	}
	if w.run.closed {
		w.budget++
	} else {
		w.queue.unpop(intended)
	}
}

// admit says that s takes requests. It is locked.
func (s *slot) admit(t *turn.Turn) {
	w := s.link.worker
	s.up = true
	w.mu.Lock()
	if s.state != down { // somebody is about to send on it
		w.mu.Unlock()
		return
	}
	now := w.run.now()
	intended, again := w.next(s, now)
	w.mu.Unlock()
	if again {
		s.send(t, intended, now)
	}
}

// dismiss says that s takes none any more because its connection has ended, which
// fails the request on it. s is locked.
func (s *slot) dismiss(t *turn.Turn, err error) {
	w := s.link.worker
	s.up = false
	if s.busy {
		s.done(t, outcome{failure: failureOf(err), err: err}, false)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.state == idle {
		w.idle.remove(func(x *slot) bool { return x == s })
		s.state = down
	}
}

// kick has every idle slot of a closed loop ask.
func (w *worker) kick() {
	for {
		var t turn.Turn
		n := 0
		for ; n < turn.MaxEvents; n++ {
			w.mu.Lock()
			if w.idle.len() == 0 || w.budget == 0 {
				w.mu.Unlock()
				break
			}
			s := w.idle.pop()
			w.budget--
			w.take(s, 0, w.run.now())
			w.mu.Unlock()
			s.Lock()
			s.send(&t, 0, w.run.now())
			s.Unlock()
		}
		t.End()
		if n < turn.MaxEvents {
			return
		}
	}
}

// expire gives up requests that have taken too long, or all that are left.
func (w *worker) expire(all bool) {
	now, f := w.run.now(), Timeout
	limit := int64(w.run.spec.Timeout)
	if all {
		limit, f = -1, Unfinished
	}
	w.mu.Lock()
	for w.queue.len() > 0 && now-w.queue.first() > limit {
		w.missed(w.queue.pop(), now, f)
	}
	w.mu.Unlock()
	for _, l := range w.links {
		for _, s := range l.slots {
			s.expire(now, limit, f)
		}
	}
}

func (s *slot) expire(now, limit int64, f Failure) {
	var t turn.Turn
	s.Lock()
	if s.busy && now-s.sent > limit {
		give := s.give
		err := fmt.Errorf("no answer in %v", s.link.worker.run.spec.Timeout)
		if f == Unfinished {
			err = nil
		}
		s.done(&t, outcome{failure: f, err: err}, false)
		give(&t)
	}
	s.Unlock()
	t.End()
}

// rest returns how many requests are on their way or wait.
func (w *worker) rest() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy + w.queue.len()
}

// swap returns what was recorded since the last call, in exchange for an empty
// record.
func (w *worker) swap(empty *record) *record {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rec
	w.rec = empty
	return r
}

// tell counts what happened to a connection.
func (w *worker) tell(lost bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := "connect"
	if lost {
		what = "connection lost"
		w.rec.lost++
	} else {
		w.rec.refused++
	}
	w.rec.say(what, err)
}

// A chooser draws kinds by their weight. Its owner is whoever sends for a worker,
// so it has a lock of its own where there is a choice.
type chooser struct {
	mu     sync.Mutex
	random *rand.Rand
	upTo   []float64 // sums of weights
}

func newChooser(kinds []Kind, random *rand.Rand) *chooser {
	c := &chooser{random: random}
	sum := 0.0
	for _, k := range kinds {
		sum += k.Weight
		c.upTo = append(c.upTo, sum)
	}
	return c
}

func (c *chooser) next() int {
	n := len(c.upTo)
	if n == 1 {
		return 0
	}
	c.mu.Lock()
	x := c.random.Float64() * c.upTo[n-1]
	c.mu.Unlock()
	for i, u := range c.upTo {
		if x < u {
			return i
		}
	}
	return n - 1
}

// A ring is a queue that keeps its memory.
type ring[T any] struct {
	items []T
	head  int
	n     int
}

func (r *ring[T]) len() int { return r.n }
func (r *ring[T]) first() T { return r.items[r.head] }

func (r *ring[T]) grow() {
	if r.n < len(r.items) {
		return
	}
	items := make([]T, max(16, 2*len(r.items)))
	for i := range r.n {
		items[i] = r.items[(r.head+i)%len(r.items)]
	}
	r.items, r.head = items, 0
}

func (r *ring[T]) push(v T) {
	r.grow()
	r.items[(r.head+r.n)%len(r.items)] = v
	r.n++
}

// unpop puts back what pop took.
func (r *ring[T]) unpop(v T) {
	r.grow()
	r.head = (r.head + len(r.items) - 1) % len(r.items)
	r.items[r.head] = v
	r.n++
}

func (r *ring[T]) pop() T {
	v := r.items[r.head]
	var none T
	r.items[r.head] = none
	r.head = (r.head + 1) % len(r.items)
	r.n--
	return v
}

// remove takes out the first that is meant.
func (r *ring[T]) remove(is func(T) bool) {
	for n := r.n; n > 0; n-- {
		v := r.pop()
		if is(v) {
			// Those before it have gone to the end: their order in a list of idle
			// slots means nothing.
			return
		}
		r.push(v)
	}
}
