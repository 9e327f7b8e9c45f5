package filters

import (
	"fmt"
	"runtime/debug"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// A wait is what a stream waits for. It is guarded by Stream.mu.
type wait struct {
	gen    uint64 // told apart: every Waker, every piece of work, every request
	state  waitState
	by     place  // who called Suspend
	job    job    // what to run, if queued
	reply  *Reply // the result, if early or resumed
	busy   bool   // RunWork holds the stream
	gaveUp bool   // Abandon was refused because busy
}

type waitState uint8

const (
	idle    waitState = iota
	taken             // a Waker is out, its phase has not returned yet
	early             // that Waker has resumed already
	waiting           // the phase has returned; the Waker is awaited
	queued            // RunWork is awaited
	resumed           // the engine has been told and has not asked yet
)

// A place is where a filter stands: chain, phase and number in that phase.
type place struct {
	level Level
	phase Phase
	next  uint8
}

func (s *Stream) place() place {
	return place{s.level, s.phase, s.runs[s.level].next[s.phase]}
}

// A job is one call off the turn: a costly filter's phase and, if that answers
// Wait, its Work; or the Work alone.
type job struct {
	phase  caller // nil: only the work
	filter *meta
}

// A Waker resumes a stream that waits. The zero Waker does nothing.
type Waker struct {
	s   *Stream
	gen uint64
}

// Suspend gives the means to resume from any goroutine, once. It is called by a
// phase, or by Work, that is about to return Wait. A stale Waker (the stream is
// over, or was resumed, or Suspend was called again) does nothing.
func (s *Stream) Suspend() Waker {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.wait
	w.gen++
	s.touched = true
	w.state, w.by, w.reply = taken, s.place(), nil
	return Waker{s, w.gen}
}

// Resume ends the wait. A nil Reply goes on behind the filter that waited; any
// other is that filter's answer. It may be called before the phase has returned
// Wait.
func (w Waker) Resume(r *Reply) {
	if w.s == nil {
		return
	}
	s := w.s
	s.mu.Lock()
	if s.wait.gen != w.gen {
		s.mu.Unlock()
		return
	}
	engine := s.engine
	tell := s.wait.state == waiting && engine != nil
	switch s.wait.state {
	case taken:
		s.wait.state, s.wait.reply = early, plain(r)
	case waiting:
		s.wait.state, s.wait.reply = resumed, plain(r)
	}
	s.mu.Unlock()
	if tell {
		engine.Resume(s, w.gen)
	}
}

// plain refuses Wait where only a final answer makes sense.
func plain(r *Reply) *Reply {
	if r == Wait {
		return aimless
	}
	return r
}

// aimless answers for a filter that waits for nothing.
var aimless = Fail(fault.Wrap(fault.FilterFailed, fault.Local,
	fmt.Errorf("the filter answered Wait without a Waker and without Work")))

// hold turns Wait, answered by filter m, into the chain's answer: Wait if the
// stream has to wait indeed, else the final answer.
func (s *Stream) hold(m *meta) *Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.wait.by == s.place()
	switch {
	case s.wait.state == queued: // by special
	case mine && s.wait.state == taken:
		s.wait.state = waiting
	case mine && s.wait.state == early:
		s.wait.state = idle
		return s.wait.reply
	case m.worker != nil:
		s.queue(job{filter: m})
	default:
		return aimless
	}
	return Wait
}

// special calls a filter whose cost matters just now: a costly one off the
// turn, any other with a look at the clock.
func (s *Stream) special(f caller, m *meta) *Reply {
	if m.cost.heavy.Load() && s.engine != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.queue(job{f, m})
		return Wait
	}
	return m.timed(s, f)
}

func (s *Stream) queue(j job) {
	s.wait.gen++
	s.wait.state, s.wait.job, s.wait.reply = queued, j, nil
	s.touched = true
}

// Waiting tells the engine, after a phase has answered Wait, by which number it
// will be resumed, and whether RunWork has to be called for that.
func (s *Stream) Waiting() (gen uint64, work bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait.gen, s.wait.state == queued
}

// RunWork does what the stream waits for and then resumes it. The engine calls
// it on a goroutine that may block. It does nothing if the stream was given up
// meanwhile. A panic of the filter becomes its fault.
func (s *Stream) RunWork(gen uint64) {
	s.mu.Lock()
	w := &s.wait
	if w.gen != gen || w.state != queued {
		s.mu.Unlock()
		return
	}
	j := w.job
	w.state, w.busy, w.job, w.by = idle, true, job{}, place{}
	s.mu.Unlock()

	r := s.run(j)

	s.mu.Lock()
	w.busy = false
	if r == Wait {
		switch {
		case w.state == early:
			r = w.reply
		case w.state == taken && !w.gaveUp:
			w.state = waiting
			s.mu.Unlock()
			return // its Waker resumes
		default:
			r = aimless // or given up, and then nobody looks at it
		}
	}
	w.gen++ // a Waker that the work took and did not wait for is stale
	w.state, w.reply = resumed, plain(r)
	gen = w.gen
	engine := s.engine
	s.mu.Unlock()
	if engine != nil {
		engine.Resume(s, gen)
	}
}

func (s *Stream) run(j job) (r *Reply) {
	defer func() {
		if v := recover(); v != nil {
			r = Fail(fault.Wrap(fault.FilterTrapped, fault.Local, fmt.Errorf("panic: %v\n%s", v, debug.Stack())))
		}
	}()
	if j.phase != nil {
		r = j.filter.timed(s, j.phase)
		if r != Wait || j.filter.worker == nil || s.suspended() {
			return r
		}
	}
	return j.filter.worker.Work(s.Context(), s, s.phase)
}

func (s *Stream) suspended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait.state == taken || s.wait.state == early
}

// Resumed tells the engine, with the lane held, how a wait ended: r is the
// answer of the filter that waited, and if it is nil calling the same phase
// again goes on behind that filter. It is not ok if the stream was given up, or
// has been used again, since gen.
func (s *Stream) Resumed(gen uint64) (r *Reply, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait.gen != gen || s.wait.state != resumed {
		return nil, false
	}
	r = s.wait.reply
	s.wait.state, s.wait.reply = idle, nil
	s.waited(r)
	if run := &s.runs[s.level]; r == nil && (s.phase == PhaseRequestBody || s.phase == PhaseResponse) {
		run.repliedAt = run.before
	}
	return r, true
}

// mustBeFree catches an engine that uses a stream which a Worker holds.
func (s *Stream) mustBeFree() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait.busy {
		panic("filters: a Worker holds the stream")
	}
}

// Abandon gives up what the stream waits for. If it reports true nobody else
// uses the stream and a Waker that comes later is stale. If it reports false a
// Worker holds the stream: Engine.Resume follows when it has returned, and the
// engine must not touch the stream before.
func (s *Stream) Abandon() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait.busy {
		s.wait.gaveUp = true
		return false
	}
	s.wait = wait{gen: s.wait.gen + 1}
	return true
}
