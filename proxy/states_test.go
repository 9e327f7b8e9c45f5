package proxy

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

// deafDown is a downstream that remembers how the exchange ended.
type deafDown struct {
	heads, chunks, cuts, dones int
	trailers                   int // fields that came behind bodies
	kept                       bool
	consumed                   int
}

func (d *deafDown) writeContinue(*turn.Turn)                            {}
func (d *deafDown) writeInformational(*turn.Turn, *message.Response)    {}
func (d *deafDown) writeHead(*turn.Turn, *message.Response, bool) error { d.heads++; return nil }
func (d *deafDown) writeChunk(_ *turn.Turn, c *message.Chunk) error {
	if d.chunks++; c.Trailer != nil {
		d.trailers += c.Trailer.Len()
	}
	return nil
}
func (d *deafDown) writeAll(*turn.Turn, *message.Response, []byte) error {
	d.heads++
	d.chunks++
	return nil
}
func (d *deafDown) buffered() int                { return 0 }
func (d *deafDown) consume(_ *turn.Turn, n int)  { d.consumed += n }
func (d *deafDown) serial() bool                 { return true }
func (d *deafDown) cut(*turn.Turn)               { d.cuts++ }
func (d *deafDown) done(_ *turn.Turn, keep bool) { d.dones++; d.kept = keep }

func (d *deafDown) upgrade(*turn.Turn, hbone.TunnelHandler) hbone.Detached {
	panic("not in this state")
}

// deafCall is a call that nobody answers.
type deafCall struct{ cancelled int }

func (c *deafCall) WriteHead(*turn.Turn, *message.Request, bool) error { return nil }
func (c *deafCall) WriteChunk(*turn.Turn, *message.Chunk) error        { return nil }
func (c *deafCall) Buffered() int                                      { return 0 }
func (c *deafCall) Consume(*turn.Turn, int)                            {}
func (c *deafCall) Progress() filters.Progress                         { return filters.SentHead }
func (c *deafCall) Attached() (turn.Tick, bool)                        { return 0, false }
func (c *deafCall) Reused() bool                                       { return false }
func (c *deafCall) Cancel(*turn.Turn)                                  { c.cancelled++ }
func (c *deafCall) Upgrade(*turn.Turn, hbone.TunnelHandler) hbone.Detached {
	panic("not in this state")
}
func (c *deafCall) Endpoint() *upstream.Endpoint { return nil }

// A loneTunnel leads nowhere.
type loneTunnel struct {
	hbone.Tunnel
	h    hbone.TunnelHandler
	told bool
}

func (l *loneTunnel) Abort(t *turn.Turn, _ uint32) {
	if !l.told {
		l.told = true
		t.Notify(l)
	}
}

func (l *loneTunnel) Notified(t *turn.Turn) { l.h.Closed(t, hbone.ErrLocalAbort) }

var stateNames = [states]string{"new", "filtering", "connecting", "sending", "responding", "streaming", "upgraded", "done", "over"}

// fire is what brings each event of the table.
var fire = [events]struct {
	name string
	do   func(x *exchange, t *turn.Turn)
}{
	evRequestHead:  {"requestHead", func(x *exchange, t *turn.Turn) { x.requestHead(t, &x.req, false) }},
	evRequestChunk: {"requestChunk", func(x *exchange, t *turn.Turn) { x.requestChunk(t, &message.Chunk{Data: []byte("x")}) }},
	evRequestBroken: {"requestBroken", func(x *exchange, t *turn.Turn) {
		x.requestBroken(t, fault.Wrap(fault.BadRequest, fault.Downstream, nil))
	}},
	evReady:         {"Ready", func(x *exchange, t *turn.Turn) { x.Ready(t) }},
	evInformational: {"Informational", func(x *exchange, t *turn.Turn) { x.Informational(t, &message.Response{Status: 103}) }},
	evResponseHead: {"Head", func(x *exchange, t *turn.Turn) {
		r := x.NewResponse(t)
		r.Status, r.Length = 200, 10
		x.Head(t, r, false)
	}},
	evResponseChunk: {"Chunk", func(x *exchange, t *turn.Turn) { x.Chunk(t, &message.Chunk{Data: []byte("x")}) }},
	evFailed:        {"Failed", func(x *exchange, t *turn.Turn) { x.Failed(t, fault.Wrap(fault.UpstreamReset, fault.Upstream, nil)) }},
}

// anyTime are the events that may come in every state.
var anyTime = []struct {
	name string
	do   func(x *exchange, t *turn.Turn)
}{
	{"left", func(x *exchange, t *turn.Turn) { x.left(t) }},
	{"Left", func(x *exchange, t *turn.Turn) { x.Left(t) }},
	{"downstreamClosed", func(x *exchange, t *turn.Turn) { x.downstreamClosed(t, nil) }},
	{"resume", func(x *exchange, t *turn.Turn) { x.resume(t, &x.stream, 1) }},
	{"fail", func(x *exchange, t *turn.Turn) { x.fail(t, fault.Wrap(fault.UpstreamTimeout, fault.Upstream, nil)) }},
	{"failed", func(x *exchange, t *turn.Turn) { x.failed(t, fault.Wrap(fault.TryTimeout, fault.Upstream, nil)) }},
}

// inState returns an exchange that has got as far as s, and its two sides.
func inState(r *rig, s state) (*exchange, *deafDown, *deafCall) {
	c := r.open(serviceA)
	in := c.h.(*inner)
	down, call := &deafDown{}, &deafCall{}
	var tn turn.Turn
	x := r.p.newExchange(&tn, in.origin())
	x.down = down
	x.req.Header.Reset()
	x.req.Method, x.req.Path, x.req.Scheme, x.req.Authority = []byte("POST"), []byte("/"), []byte("http"), []byte("a")
	x.req.Length = message.UnknownLength
	x.state = s
	if s > xNew {
		x.findRoute()
	}
	if s > xFiltering && s < xDone {
		x.request.filtered = true
		x.call = call
	}
	if s == xUpgraded {
		near, far := &loneTunnel{}, &loneTunnel{}
		x.call, x.joined = nil, new(hbone.Relay)
		x.joined.Init(&in.Lane, near, x)
		x.tried = r.p.snap.Load().Backends()[0].Endpoints()[0]
		near.h, far.h = x.joined.Near(), x.joined.Far()
		x.joined.JoinOpen(&tn, hbone.Detached{Tunnel: near}, hbone.Detached{Tunnel: far})
	}
	if s >= xResponding {
		r := x.NewResponse(&tn)
		r.Status, r.Length = 200, 10
	}
	x.publish() // as whoever set its timer did
	if s == xOver {
		x.hide()
	}
	return x, down, call
}

// TestStateTable: in each state each event does what the table says: it is
// taken, or it is counted as impossible and ends the exchange.
func TestStateTable(t *testing.T) {
	for s := range states {
		for e := range events {
			t.Run(stateNames[s]+"/"+fire[e].name, func(t *testing.T) {
				inFakeTime(t, rigOptions{}, func(a *app) { a.request() }, func(r *rig) {
					x, down, call := inState(r, s)
					var tn turn.Turn
					lane := &r.tunnels[0].h.(*inner).Lane
					lane.Lock()
					fire[e].do(x, &tn)
					impossible := r.p.stats.Impossible.Swap(0)
					panics := r.p.stats.Panics.Load()
					ended := down.dones
					over := x.state == xOver
					if allowed[s]&(1<<e) != 0 && !over {
						x.downstreamClosed(&tn, nil)
					}
					lane.Unlock()
					tn.End()
					synctest.Wait()
					if s == xUpgraded { // the tunnels end first
						ended, over = down.dones, true
					}
					allowed := allowed[s]&(1<<e) != 0
					if panics != 0 {
						t.Fatalf("panic: %v", r.panics)
					}
					if (impossible == 0) != allowed {
						t.Errorf("allowed %v, but %d impossible events counted", allowed, impossible)
					}
					if !allowed && s != xOver {
						if !over && x.p != nil || ended != 1 || down.kept {
							t.Errorf("an event that may not come: over %v, %d ends, kept %v", over, ended, down.kept)
						}
						if s > xFiltering && s < xUpgraded && call.cancelled != 1 {
							t.Errorf("the call was cancelled %d times", call.cancelled)
						}
					}
					if s == xOver && (ended != 0 || down.heads+down.chunks+down.cuts != 0) {
						t.Errorf("an event after the end did something: %+v", *down)
					}
				})
			})
		}
	}
}

// TestAnyTime: what may come at any time does no harm in any state, and comes
// twice without ending anything twice.
func TestAnyTime(t *testing.T) {
	for s := range states {
		for _, e := range anyTime {
			t.Run(stateNames[s]+"/"+e.name, func(t *testing.T) {
				inFakeTime(t, rigOptions{}, func(a *app) { a.request() }, func(r *rig) {
					x, down, _ := inState(r, s)
					var tn turn.Turn
					lane := &r.tunnels[0].h.(*inner).Lane
					lane.Lock()
					e.do(x, &tn)
					e.do(x, &tn)
					lane.Unlock()
					if n := r.p.stats.Panics.Load(); n != 0 {
						t.Fatalf("panic: %v", r.panics)
					}
					if down.dones > 1 {
						t.Errorf("ended %d times", down.dones)
					}
					tn.End()
				})
			})
		}
	}
}

// TestExpiredAnyTime: a timer that is late finds another state, or another
// request, and does nothing to it.
func TestExpiredAnyTime(t *testing.T) {
	for s := range states {
		t.Run(stateNames[s], func(t *testing.T) {
			inFakeTime(t, rigOptions{}, func(a *app) { a.request() }, func(r *rig) {
				x, down, _ := inState(r, s)
				var tn turn.Turn
				x.Expired(&tn, &x.timer) // nothing is due
				if down.dones != 0 || r.p.stats.Panics.Load() != 0 {
					t.Fatalf("a timer for nothing: %d ends, panics %v", down.dones, r.panics)
				}
				x.deadline = turn.TickOf(time.Now())
				x.Expired(&tn, &x.timer)
				want := 1
				if s == xNew || s == xOver {
					want = 0
				}
				if s == xUpgraded {
					tn.End()
				}
				if down.dones != want {
					t.Errorf("a deadline that has passed: %d ends, want %d", down.dones, want)
				}
				tn.End()
			})
		})
	}
}

// TestTableIsWhole: every state but the last can be left by some event, and a
// control for the walk: the table forbids something in every state.
func TestTableIsWhole(t *testing.T) {
	for s := range states {
		if allowed[s] == 1<<events-1 {
			t.Errorf("state %s forbids nothing", stateNames[s])
		}
		if (allowed[s] == 0) != (s == xOver || s == xUpgraded) { // that one ends with its relay
			t.Errorf("state %s allows %s", stateNames[s], fmt.Sprintf("%b", allowed[s]))
		}
	}
}

// TestCreditAt: a little is not looked after; more is credited with what came before,
// and the end gives the rest back.
func TestCreditAt(t *testing.T) {
	inFakeTime(t, rigOptions{}, func(a *app) { a.request() }, func(r *rig) {
		x, down, _ := inState(r, xSending)
		var tn turn.Turn
		chunk := func(n, want int) {
			t.Helper()
			x.requestChunk(&tn, &message.Chunk{Data: make([]byte, n)})
			if down.consumed != want {
				t.Errorf("%d bytes credited, want %d", down.consumed, want)
			}
		}
		x.request.spent = true // nothing is kept for another attempt
		chunk(creditAt-1, 0)
		chunk(1, creditAt)
		chunk(7, creditAt)
		x.downstreamClosed(&tn, nil)
		if want := creditAt + 7; down.consumed != want {
			t.Errorf("%d bytes credited at the end, want %d", down.consumed, want)
		}
		tn.End()
	})
}
