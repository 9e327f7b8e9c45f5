package proxy

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A looped is an exchange in a feed of a loop's turn, where steps are put off.
type looped struct {
	*testing.T
	r    *rig
	x    *exchange
	down *deafDown
	call *deafCall
	lane *turn.Lane
	tn   turn.Turn
	feed turn.Feed
}

// inFeed runs test with an exchange in a state, its lane held.
func inFeed(t *testing.T, o rigOptions, s state, test func(l *looped)) {
	inFakeTime(t, o, func(a *app) { a.request() }, func(r *rig) {
		l := &looped{T: t, r: r}
		l.x, l.down, l.call = inState(r, s)
		l.x.request.ended, l.x.request.bodyEnd = s > xNew, s > xNew
		l.x.req.Length = message.NoBody
		l.lane = &r.tunnels[0].h.(*inner).Lane
		l.tn.Last()
		l.tn.Enter(&l.feed)
		l.lane.Lock()
		test(l)
		if n := r.p.stats.Panics.Load(); n != 0 {
			t.Fatalf("panic: %v", r.panics)
		}
		if n := r.p.stats.Impossible.Load(); n != 0 {
			t.Errorf("%d events that may not come", n)
		}
	})
}

// leave ends the feed, in which the steps are done.
func (l *looped) leave() {
	l.lane.Unlock()
	l.tn.Leave(&l.feed)
	l.lane.Lock()
}

// expire is the timer's.
func (l *looped) expire() {
	l.x.publish()
	l.lane.Unlock()
	l.x.Expired(&l.tn, &l.x.timer)
	l.lane.Lock()
}

// over ends exchange and turn, and checks that the exchange went back once.
func (l *looped) over() {
	l.Helper()
	if l.x.p != nil && l.x.state != xOver {
		l.x.downstreamClosed(&l.tn, nil)
	}
	l.lane.Unlock()
	l.tn.End()
	synctest.Wait()
	if l.down.dones != 1 || l.call.cancelled > 1 {
		l.Errorf("%d ends, %d times cancelled", l.down.dones, l.call.cancelled)
	}
	if l.x.p != nil || l.x.queued || l.x.step != noStep {
		l.Errorf("not in the pool: queued %v, step %d", l.x.queued, l.x.step)
	}
	n := 0
	for _, x := range l.r.p.shelf(&l.tn).exchanges {
		if x == l.x {
			n++
		}
	}
	if n > 1 {
		l.Errorf("%d times on the shelf", n)
	}
}

// head is a response's, which is to be followed by a body.
func (l *looped) head(status int) {
	r := l.x.NewResponse(&l.tn)
	r.Status, r.Length = status, 10
	l.x.Head(&l.tn, r, false)
}

func (l *looped) chunk(text string, end bool) {
	l.x.Chunk(&l.tn, &message.Chunk{Data: []byte(text), End: end})
}

// whole is a response with all of its body.
func (l *looped) whole(text string) {
	r := l.x.NewResponse(&l.tn)
	r.Status, r.Length = 200, int64(len(text))
	l.x.Whole(&l.tn, r, []byte(text))
}

// putOffs are the ways to put a step off.
var putOffs = []struct {
	name string
	in   state
	step step
	do   func(l *looped)
	next step // which that one puts off; noStep if it does not
}{
	{"request", xNew, toJudge, func(l *looped) { l.x.requestHead(&l.tn, &l.x.req, true) }, toSend},
	{"head", xSending, toAnswer, func(l *looped) { l.head(200) }, noStep},
	{"response", xSending, toFinish, func(l *looped) { l.head(200); l.chunk("0123456789", true) }, toEnd},
	{"whole response", xSending, toFinish, func(l *looped) { l.whole("0123456789") }, toEnd},
}

// between has do come when the first step has been done, and the next is due.
func (l *looped) between(do func()) { l.tn.Later(betweenSteps{l, do}) }

type betweenSteps struct {
	l  *looped
	do func()
}

func (b betweenSteps) Late(*turn.Turn) {
	b.l.lane.Lock()
	b.do()
	b.l.lane.Unlock()
}

func (b betweenSteps) Broke(*turn.Turn, any) {}

// TestPutOff: a step is done behind the feed and not before, and to the end.
func TestPutOff(t *testing.T) {
	for _, row := range putOffs {
		t.Run(row.name, func(t *testing.T) {
			inFeed(t, rigOptions{}, row.in, func(l *looped) {
				row.do(l)
				if l.x.step != row.step || !l.x.queued || l.down.heads != 0 {
					t.Fatalf("step %d, queued %v, %d heads; want it put off", l.x.step, l.x.queued, l.down.heads)
				}
				l.between(func() {
					if l.x.step != row.next || l.x.queued != (row.next != noStep) || l.down.dones != 0 {
						t.Errorf("behind it: step %d, queued %v, %d ends; want step %d", l.x.step, l.x.queued, l.down.dones, row.next)
					}
				})
				l.leave()
				switch row.step {
				case toJudge:
					if l.x.state != xConnecting {
						t.Errorf("the request is %s", stateNames[l.x.state])
					}
				case toAnswer:
					if l.x.state != xStreaming || l.down.heads != 1 || l.down.chunks != 0 || l.x.call == nil {
						t.Errorf("the response is %s, %+v", stateNames[l.x.state], *l.down)
					}
				case toFinish:
					if l.x.state != xOver || l.down.heads != 1 || l.down.chunks != 1 || !l.down.kept || l.call.cancelled != 0 {
						t.Errorf("the response is %s, %+v", stateNames[l.x.state], *l.down)
					}
				}
				l.over()
			})
		})
	}
}

// TestPutOffAnyTime: whatever comes between an event and its step finds the exchange
// as it would have without, and nothing is done twice.
func TestPutOffAnyTime(t *testing.T) {
	type do = func(l *looped)
	between := map[string]do{
		"nothing":          func(l *looped) {},
		"a timer":          func(l *looped) { l.expire() },
		"downstreamClosed": func(l *looped) { l.x.downstreamClosed(&l.tn, nil) },
		"fail":             func(l *looped) { l.x.fail(&l.tn, fault.Wrap(fault.UpstreamTimeout, fault.Upstream, nil)) },
		"failed":           func(l *looped) { l.x.failed(&l.tn, fault.Wrap(fault.TryTimeout, fault.Upstream, nil)) },
		"downstreamClosed in another turn": func(l *looped) {
			var other turn.Turn
			l.x.downstreamClosed(&other, nil)
			other.End()
			if l.x.p == nil {
				l.Error("the exchange is in the pool, and the turn still refers to it")
			}
		},
		"left":    func(l *looped) { l.x.left(&l.tn) },
		"review":  func(l *looped) { l.x.review(&review{p: l.r.p, snap: l.r.p.snap.Load(), t: &l.tn}, l.x.svc) },
		"abandon": func(l *looped) { l.x.abandon(&l.tn) },
		"requestBroken": func(l *looped) {
			l.x.requestBroken(&l.tn, fault.Wrap(fault.BadRequest, fault.Downstream, nil))
		},
		"the deadline": func(l *looped) { l.x.deadline = turn.TickOf(time.Now()); l.expire() },
	}
	for n := range 2 * len(putOffs) {
		row, when := putOffs[n/2], ""
		next := n%2 > 0 // it comes when the first step has been done
		if next {
			if when = "behind "; row.next == noStep {
				continue
			}
		}
		for name, do := range between {
			t.Run(when+row.name+"/"+name, func(t *testing.T) {
				inFeed(t, rigOptions{}, row.in, func(l *looped) {
					row.do(l)
					if next {
						l.between(func() { do(l) })
					} else {
						do(l)
					}
					l.leave()
					if l.x.queued || l.down.heads > 1 || l.down.chunks > 1 {
						t.Errorf("queued %v, %+v", l.x.queued, *l.down)
					}
					if name == "abandon" { // nobody knows who refers to it: it is the collector's
						l.lane.Unlock()
						l.tn.End()
						if l.x.p == nil || l.down.dones != 1 {
							t.Errorf("an exchange that panicked went back to the pool, or ended %d times", l.down.dones)
						}
						return
					}
					l.over()
				})
			})
		}
	}
}

// TestPutOffHead: what follows a head that was put off comes behind it.
func TestPutOffHead(t *testing.T) {
	retrying := rigOptions{doc: routed("retry: {attempts: 1, codes: [503]}")}
	failure := fault.Wrap(fault.UpstreamReset, fault.Upstream, nil)
	for _, row := range []struct {
		name   string
		status int
		then   func(l *looped)
		state  state // before the feed ends
		cancel int
	}{
		{"the first of the body", 200, func(l *looped) { l.chunk("01234", false) }, xStreaming, 0},
		{"the attempt's deadline", 200, func(l *looped) { l.x.tryUntil = turn.TickOf(time.Now()); l.expire() }, xStreaming, 0},
		{"a failure", 200, func(l *looped) { l.x.Failed(&l.tn, failure) }, xOver, 0},
		{"the first of a body that nobody wants", 503, func(l *looped) { l.chunk("01234", false) }, xConnecting, 1},
		{"all of a body that nobody wants", 503, func(l *looped) {
			l.chunk("0123456789", true)
			l.leave()
			l.tn.Enter(&l.feed)
		}, xConnecting, 0},
		{"the failure of an attempt that is over", 503, func(l *looped) { l.x.Failed(&l.tn, failure) }, xConnecting, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFeed(t, retrying, xSending, func(l *looped) {
				l.head(row.status)
				row.then(l)
				if l.x.state != row.state || l.call.cancelled != row.cancel {
					t.Errorf("the exchange is %s, want %s; %d times cancelled, want %d", stateNames[l.x.state], stateNames[row.state], l.call.cancelled, row.cancel)
				}
				l.leave()
				l.over()
			})
		})
	}
}

// TestPutOffTrailers: trailers that came with the end of a body are put off with it.
func TestPutOffTrailers(t *testing.T) {
	for _, n := range []int{0, 2} {
		inFeed(t, rigOptions{}, xSending, func(l *looped) {
			l.head(200)
			for range n {
				l.x.resp.Trailer.Add("x-sum", "1")
			}
			l.chunk("0123456789", true)
			l.leave()
			if l.down.chunks != 1 || l.down.trailers != n {
				t.Errorf("%d chunks with %d trailers, want 1 with %d", l.down.chunks, l.down.trailers, n)
			}
			l.over()
		})
	}
}

// TestPutOffOnlyInLoops: a turn that does not last comes back to nothing, and one
// outside a feed has no bytes to keep.
func TestPutOffOnlyInLoops(t *testing.T) {
	for name, prepare := range map[string]func(l *looped){
		"no feed":     func(l *looped) { l.leave() },
		"no loop":     func(l *looped) { l.leave(); l.tn = turn.Turn{}; l.tn.Enter(&l.feed) },
		"a wait":      func(l *looped) { l.x.pending = routeBody },
		"put off yet": func(l *looped) { l.x.queued = true },
	} {
		t.Run(name, func(t *testing.T) {
			inFeed(t, rigOptions{}, xSending, func(l *looped) {
				prepare(l)
				if l.x.mayPutOff(&l.tn) {
					t.Error("a step may be put off")
				}
				l.x.pending, l.x.queued = noPhase, false
				l.lane.Unlock()
			})
		})
	}
}
