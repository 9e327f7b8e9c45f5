package filters

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// An engine writes down who may go on.
type engine struct {
	mu   sync.Mutex
	gens []uint64
	told chan struct{}
}

func newEngine() *engine { return &engine{told: make(chan struct{}, 100)} }

func (e *engine) Resume(_ *Stream, gen uint64) {
	e.mu.Lock()
	e.gens = append(e.gens, gen)
	e.mu.Unlock()
	e.told <- struct{}{}
}

// next waits for a Resume and returns what the engine would do with it.
func (e *engine) next(t *testing.T, s *Stream) (*Reply, bool) {
	t.Helper()
	select {
	case <-e.told:
	case <-time.After(5 * time.Second):
		t.Fatal("the engine was not told")
	}
	e.mu.Lock()
	gen := e.gens[len(e.gens)-1]
	e.mu.Unlock()
	return s.Resumed(gen)
}

func (e *engine) silent(t *testing.T) {
	t.Helper()
	select {
	case <-e.told:
		t.Error("the engine was told")
	default:
	}
}

// A suspender takes a Waker in its request phase and hands it out.
type suspender struct {
	waker   Waker
	atOnce  *Reply // resume before returning, if set
	forgets bool   // take a Waker and do not wait
}

func (f *suspender) Request(s *Stream) *Reply {
	f.waker = s.Suspend()
	if f.forgets {
		return nil
	}
	if f.atOnce != nil {
		f.waker.Resume(f.atOnce)
	}
	return Wait
}

func waitingChain(t *testing.T, f Filter) (c *Chain, after *probe, s *Stream, e *engine, log *[]string) {
	t.Helper()
	log = new([]string)
	after = &probe{name: "after", log: log, answer: map[Phase]*Reply{}}
	c, err := NewChain(RouteLevel, f, after)
	if err != nil {
		t.Fatal(err)
	}
	s, e = new(Stream), newEngine()
	s.tick = sampleEvery // no sample in the way
	s.Bind(e)
	return c, after, s, e, log
}

func TestWakerGoesOnBehindTheFilter(t *testing.T) {
	f := new(suspender)
	c, _, s, e, log := waitingChain(t, f)
	if r := c.Request(s); r != Wait {
		t.Fatalf("got %+v, want Wait", r)
	}
	if _, work := s.Waiting(); work {
		t.Error("a Waker is out, and work is wanted")
	}
	if len(*log) != 0 {
		t.Fatalf("went on without waiting: %q", *log)
	}
	go f.waker.Resume(nil)
	if r, ok := e.next(t, s); r != nil || !ok {
		t.Fatalf("resumed with %+v, %v", r, ok)
	}
	if r := c.Request(s); r != nil || len(*log) != 1 {
		t.Errorf("got %+v, log %q", r, *log)
	}
	f.waker.Resume(denied) // once only
	e.silent(t)
}

func TestWakerReplies(t *testing.T) {
	f := new(suspender)
	c, after, s, e, _ := waitingChain(t, f)
	c.Request(s)
	f.waker.Resume(denied)
	if r, ok := e.next(t, s); r != denied || !ok {
		t.Fatalf("resumed with %+v, %v", r, ok)
	}
	c.Done(s)
	c.Response(s)
	if len(*after.log) != 0 {
		t.Errorf("the filter behind was entered: %q", *after.log)
	}
}

func TestResumeBeforeThePhaseReturns(t *testing.T) {
	f := &suspender{atOnce: denied}
	c, _, s, e, _ := waitingChain(t, f)
	if r := c.Request(s); r != denied {
		t.Errorf("got %+v, want the reply at once", r)
	}
	e.silent(t)
}

func TestStaleWakers(t *testing.T) {
	t.Run("after Reset", func(t *testing.T) {
		f := new(suspender)
		c, _, s, e, _ := waitingChain(t, f)
		c.Request(s)
		if !s.Abandon() {
			t.Fatal("Abandon refused")
		}
		s.Reset()
		s.Bind(e)
		f.waker.Resume(denied)
		e.silent(t)
	})
	t.Run("after Abandon", func(t *testing.T) {
		f := new(suspender)
		c, _, s, e, _ := waitingChain(t, f)
		c.Request(s)
		s.Abandon()
		f.waker.Resume(denied)
		e.silent(t)
	})
	t.Run("told, then abandoned before the engine asks", func(t *testing.T) {
		f := new(suspender)
		c, _, s, e, _ := waitingChain(t, f)
		c.Request(s)
		f.waker.Resume(denied)
		s.Abandon()
		if r, ok := e.next(t, s); ok || r != nil {
			t.Errorf("got %+v, %v of a stream that was given up", r, ok)
		}
	})
	t.Run("superseded", func(t *testing.T) {
		f := new(suspender)
		c, _, s, e, _ := waitingChain(t, f)
		c.Request(s)
		first := f.waker
		s.Abandon()
		s.Reset()
		s.Bind(e)
		s.tick = sampleEvery
		c.Request(s) // the next request waits too
		first.Resume(denied)
		e.silent(t)
		f.waker.Resume(nil)
		if r, ok := e.next(t, s); r != nil || !ok {
			t.Errorf("got %+v, %v", r, ok)
		}
	})
	var zero Waker
	zero.Resume(nil)
}

// A filter that took a Waker and did not wait must not resume another's wait.
func TestForgottenWakerIsNobodyElses(t *testing.T) {
	f := &suspender{forgets: true}
	log := new([]string)
	w := worker{&probe{name: "w", log: log, answer: map[Phase]*Reply{PhaseRequest: Wait}}}
	c, _ := NewChain(RouteLevel, f, w)
	s, e := new(Stream), newEngine()
	s.tick = sampleEvery
	s.Bind(e)
	if r := c.Request(s); r != Wait {
		t.Fatalf("got %+v", r)
	}
	f.waker.Resume(denied)
	e.silent(t)
	gen, work := s.Waiting()
	if !work {
		t.Fatal("the worker's work is not wanted")
	}
	s.RunWork(gen)
	if r, ok := e.next(t, s); r != nil || !ok {
		t.Errorf("got %+v, %v", r, ok)
	}
}

func TestWaitForNothingIsAFault(t *testing.T) {
	c, _, s, _, _ := waitingChain(t, &probe{name: "p", log: new([]string), answer: map[Phase]*Reply{PhaseRequest: Wait}})
	r := c.Request(s)
	if r == nil || r == Wait || r.Fault == nil || r.Fault.Kind != fault.FilterFailed || r.Status != 500 {
		t.Errorf("got %+v, want a fault", r)
	}
	f := new(suspender)
	c, _, s, e, _ := waitingChain(t, f)
	c.Request(s)
	f.waker.Resume(Wait)
	if r, _ := e.next(t, s); r == nil || r.Fault == nil {
		t.Errorf("resumed with Wait: got %+v, want a fault", r)
	}
}

func TestWorkerInEveryPhase(t *testing.T) {
	for _, p := range []Phase{PhaseRequest, PhaseRequestBody, PhaseResponse, PhaseResponseBody} {
		for _, want := range []*Reply{nil, denied} {
			r := newRig(t, "a b* c")
			e := newEngine()
			r.s.tick = sampleEvery
			r.s.Bind(e)
			chunk := &message.Chunk{Data: []byte("bytes")}
			phase := func() *Reply {
				switch p {
				case PhaseRequest:
					return r.chain.Request(&r.s)
				case PhaseRequestBody:
					return r.chain.RequestBody(&r.s, chunk)
				case PhaseResponse:
					return r.chain.Response(&r.s)
				}
				return r.chain.ResponseBody(&r.s, chunk)
			}
			if p != PhaseRequest {
				r.chain.Request(&r.s)
			}
			r.log = nil
			r.answers("b", p, Wait)
			held := &message.Chunk{Data: []byte("a copy")}
			r.probes["b"].work = func(s *Stream, at Phase) *Reply {
				if at != p {
					t.Errorf("work on %s, want %s", at, p)
				}
				if body := p == PhaseRequestBody || p == PhaseResponseBody; body && s.Chunk() != held || !body && s.Chunk() != nil {
					t.Errorf("%s: chunk %v", p, s.Chunk())
				}
				return want
			}
			if got := phase(); got != Wait {
				t.Fatalf("%s: got %+v, want Wait", p, got)
			}
			gen, work := r.s.Waiting()
			if !work {
				t.Fatalf("%s: no work wanted", p)
			}
			if r.s.Chunk() != nil {
				r.s.Hold(held)
			}
			go r.s.RunWork(gen)
			if got, ok := e.next(t, &r.s); got != want || !ok {
				t.Errorf("%s: resumed with %+v, %v", p, got, ok)
			}
			first, last := "a ", "c "
			if p == PhaseResponse || p == PhaseResponseBody {
				first, last = last, first
			}
			lines := []string{first + p.String(), "b " + p.String(), "b work on " + p.String()}
			if want == nil {
				chunk = held
				r.wantReply(phase(), nil)
				lines = append(lines, last+p.String())
			}
			r.want(lines...)
		}
	}
}

// A reply that comes late in Response counts like one that came at once.
func TestWorkerRepliesInResponse(t *testing.T) {
	r := newRig(t, "a b* c")
	e := newEngine()
	r.s.tick = sampleEvery
	r.s.Bind(e)
	r.chain.Request(&r.s)
	r.answers("b", PhaseResponse, Wait)
	r.probes["b"].work = func(*Stream, Phase) *Reply { return replaced }
	r.chain.Response(&r.s)
	gen, _ := r.s.Waiting()
	r.s.RunWork(gen)
	if got, _ := e.next(t, &r.s); got != replaced {
		t.Fatalf("got %+v", got)
	}
	r.log = nil
	r.wantReply(r.chain.Response(&r.s), nil)
	r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
	r.want("a response", "a response body")
}

func TestWorkThatSuspends(t *testing.T) {
	for name, resume := range map[string]func(w Waker){
		"later":   func(w Waker) {},
		"at once": func(w Waker) { w.Resume(denied) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "a*")
			e := newEngine()
			r.s.tick = sampleEvery
			r.s.Bind(e)
			var waker Waker
			r.answers("a", PhaseRequest, Wait)
			r.probes["a"].work = func(s *Stream, _ Phase) *Reply {
				waker = s.Suspend()
				resume(waker)
				return Wait
			}
			r.chain.Request(&r.s)
			gen, _ := r.s.Waiting()
			r.s.RunWork(gen)
			if name == "later" {
				e.silent(t)
				waker.Resume(denied)
			}
			if got, ok := e.next(t, &r.s); got != denied || !ok {
				t.Errorf("got %+v, %v", got, ok)
			}
			waker.Resume(nil)
			e.silent(t)
		})
	}
}

func TestAbandonWhileWorkRuns(t *testing.T) {
	r := newRig(t, "a*")
	e := newEngine()
	r.s.tick = sampleEvery
	r.s.Bind(e)
	r.answers("a", PhaseRequest, Wait)
	gone := errors.New("client gone")
	entered := make(chan struct{})
	r.probes["a"].work = func(s *Stream, _ Phase) *Reply {
		close(entered)
		<-s.Context().Done()
		if got := context.Cause(s.Context()); got != gone {
			t.Errorf("cause %v, want %v", got, gone)
		}
		s.Suspend() // and nobody will ever resume
		return Wait
	}
	r.chain.Request(&r.s)
	gen, _ := r.s.Waiting()
	go r.s.RunWork(gen)
	<-entered
	if r.s.Abandon() {
		t.Fatal("a Worker holds the stream, and Abandon was granted")
	}
	r.s.Cancel(gone)
	if _, ok := e.next(t, &r.s); !ok {
		t.Error("the engine does not get its stream back")
	}
	if !r.s.Abandon() {
		t.Error("the Worker has returned, and Abandon was refused")
	}
}

// The housecheck build catches an engine that goes on with a stream that a
// Worker holds.
func TestStreamInUse(t *testing.T) {
	r := newRig(t, "a*")
	r.s.tick = sampleEvery
	r.s.Bind(newEngine())
	r.answers("a", PhaseRequest, Wait)
	caught := false
	r.probes["a"].work = func(s *Stream, _ Phase) *Reply {
		defer func() { caught = recover() != nil }()
		r.chain.Done(s)
		return nil
	}
	r.chain.Request(&r.s)
	gen, _ := r.s.Waiting()
	r.s.RunWork(gen)
	if caught != buf.Check {
		t.Errorf("caught %v in a build with checks %v", caught, buf.Check)
	}
}

func TestAbandonedWorkDoesNotRun(t *testing.T) {
	r := newRig(t, "a*")
	e := newEngine()
	r.s.tick = sampleEvery
	r.s.Bind(e)
	r.answers("a", PhaseRequest, Wait)
	r.chain.Request(&r.s)
	gen, _ := r.s.Waiting()
	r.s.Abandon()
	r.s.RunWork(gen)
	e.silent(t)
	r.want("a request")
}

func TestPanicInWorkIsAFault(t *testing.T) {
	r := newRig(t, "a*")
	e := newEngine()
	r.s.tick = sampleEvery
	r.s.Bind(e)
	r.answers("a", PhaseRequest, Wait)
	r.probes["a"].work = func(*Stream, Phase) *Reply { panic("a bug") }
	r.chain.Request(&r.s)
	gen, _ := r.s.Waiting()
	r.s.RunWork(gen)
	got, ok := e.next(t, &r.s)
	if !ok || got == nil || got.Fault == nil || got.Fault.Kind != fault.FilterTrapped {
		t.Fatalf("got %+v, %v", got, ok)
	}
	if msg := got.Fault.Error(); !strings.Contains(msg, "a bug") || !strings.Contains(msg, "wait_test.go") {
		t.Errorf("the fault does not say where: %s", msg)
	}
}

// A costly filter leaves the turn, and comes back when it has become cheap.
func TestCostlyPhasesLeaveTheTurn(t *testing.T) {
	for _, p := range []Phase{PhaseRequest, PhaseRequestBody, PhaseResponse, PhaseResponseBody} {
		r := newRig(t, "a")
		e := newEngine()
		r.s.tick = sampleEvery
		chunk := &message.Chunk{Data: []byte("bytes")}
		phase := map[Phase]func() *Reply{
			PhaseRequest:      func() *Reply { return r.chain.Request(&r.s) },
			PhaseRequestBody:  func() *Reply { return r.chain.RequestBody(&r.s, chunk) },
			PhaseResponse:     func() *Reply { return r.chain.Response(&r.s) },
			PhaseResponseBody: func() *Reply { return r.chain.ResponseBody(&r.s, chunk) },
		}[p]
		m := map[Phase]*meta{}
		m[PhaseRequest], m[PhaseResponse] = &r.chain.request[0].meta, &r.chain.response[0].meta
		m[PhaseRequestBody], m[PhaseResponseBody] = &r.chain.requestBody[0].meta, &r.chain.responseBody[0].meta
		if p != PhaseRequest {
			r.chain.Request(&r.s)
		}
		r.log = nil
		m[p].cost.heavy.Store(true)
		m[p].cost.average.Store(int64(lightBelow) + 500)
		r.s.Bind(e)
		r.wantReply(phase(), Wait)
		r.want()
		gen, work := r.s.Waiting()
		if !work {
			t.Fatalf("%s: no work wanted", p)
		}
		r.s.RunWork(gen)
		if got, ok := e.next(t, &r.s); got != nil || !ok {
			t.Errorf("%s: resumed with %+v, %v", p, got, ok)
		}
		r.wantReply(phase(), nil)
		r.want("a " + p.String())
		if m[p].cost.heavy.Load() {
			t.Errorf("%s: one cheap call should have brought the average below %s, it is %d ns", p, lightBelow, m[p].cost.average.Load())
		}
	}
}

// A costly filter that waits besides: the phase runs off the turn, and so does
// its work, in one go.
func TestCostlyPhaseOfAWorker(t *testing.T) {
	r := newRig(t, "a*")
	e := newEngine()
	r.s.Bind(e)
	r.s.tick = sampleEvery
	r.chain.request[0].cost.heavy.Store(true)
	r.answers("a", PhaseRequest, Wait)
	r.probes["a"].work = func(*Stream, Phase) *Reply { return denied }
	r.wantReply(r.chain.Request(&r.s), Wait)
	gen, _ := r.s.Waiting()
	r.s.RunWork(gen)
	if got, _ := e.next(t, &r.s); got != denied {
		t.Errorf("got %+v", got)
	}
	r.want("a request", "a work on request")
}

func TestCostHysteresis(t *testing.T) {
	var c cost
	c.add(time.Second) // one pause of the runtime
	if c.heavy.Load() {
		t.Error("a single outlier made the filter costly")
	}
	for range 20 {
		c.add(25 * time.Microsecond)
	}
	if !c.heavy.Load() {
		t.Errorf("25 µs a call is not costly; average %d", c.average.Load())
	}
	for range 50 {
		c.add(15 * time.Microsecond) // between the marks: stays
	}
	if !c.heavy.Load() {
		t.Error("15 µs a call brought it back")
	}
	for range 50 {
		c.add(5 * time.Microsecond)
	}
	if c.heavy.Load() {
		t.Error("5 µs a call did not bring it back")
	}
	for range 50 {
		c.add(15 * time.Microsecond)
	}
	if c.heavy.Load() {
		t.Error("15 µs a call made it costly")
	}
}

func TestOneCallInSampleEveryIsTimed(t *testing.T) {
	var s Stream
	phases := make([]int, 2) // a stream with two calls a request
	for i := range sampleEvery * 2 * 10 {
		if s.sample() {
			phases[i%2]++
		}
	}
	if phases[0] != 10 || phases[1] != 10 {
		t.Errorf("sampled %v, want 10 of each", phases)
	}
}
