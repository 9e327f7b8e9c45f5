package proxy

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// guardWith puts one filter before every service.
func guardWith(kind string, settings any) func(*filters.Builder, string) error {
	return func(b *filters.Builder, _ string) error { return b.Add(kind, "test", filters.NewSpec(settings)) }
}

func kinds(list ...filters.Kind) []filters.Kind { return list }

// place is one of the two chains in which a filter can stand.
type place string

const (
	onService place = "service"
	onRoute   place = "route"
)

// put returns a rig whose only filter is of that kind, at that place. The
// document can put but few kinds on a route, so the kind takes one's name there.
func put(at place, k filters.Kind, settings any) rigOptions {
	if at == onService {
		return rigOptions{doc: routed(noRetry), registry: kinds(k), guard: guardWith(k.Name, settings)}
	}
	build := k.New
	own := filters.Kind{Name: "RequestHeaderModifier", New: func(b *filters.Builder, _ filters.Spec) (filters.Filter, error) {
		return build(b, filters.NewSpec(settings))
	}}
	return rigOptions{
		doc:      routed(noRetry + "\n    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}]}}]"),
		registry: kinds(own),
	}
}

// TestBodyFilters: each thing that a filter can do to a body, on both sides, in
// both chains, with a body in one piece, in many, and by chunks.
func TestBodyFilters(t *testing.T) {
	many := func(text string) []string { return strings.Split(text, "") }
	bodies := map[string][]string{
		"one piece": {post("/x", "hello")},
		"bytes":     many(post("/x", "hello")),
		"chunks":    {"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nhe\r\n3\r\nllo\r\n", "0\r\nx-t: 1\r\n\r\n"},
	}
	for _, at := range []place{onService, onRoute} {
		for mode, want := range map[string][2]string{ // what arrives, and what comes back
			"":      {"hello", "hello"},
			"upper": {"HELLO", "HELLO"},
			"drop":  {"", ""},
			"hold":  {"hello", "hello"},
		} {
			for name, pieces := range bodies {
				t.Run(string(at)+"/"+mode+"/"+name, func(t *testing.T) {
					o := put(at, filtertest.Echo(), filtertest.EchoSettings{Request: mode, Response: mode})
					inFakeTime(t, o, func(a *app) {
						for {
							q, body := a.request()
							if q == nil {
								return
							}
							if body != want[0] {
								t.Errorf("the endpoint got %q, want %q", body, want[0])
							}
							a.reply(200, "hello")
						}
					}, func(r *rig) {
						c := r.open(serviceA)
						for range 2 {
							for _, p := range pieces {
								c.send(p)
							}
							if got := c.wantStatus(200); got != want[1] {
								t.Errorf("the client got %q, want %q", got, want[1])
							}
						}
						c.wantCredit()
					})
				})
			}
		}
	}
}

// TestBodyFilterReplies: an answer made of the body, after the request has begun
// to go upstream.
func TestBodyFilterReplies(t *testing.T) {
	for _, at := range []place{onService, onRoute} {
		inFakeTime(t, put(at, filtertest.Echo(), filtertest.EchoSettings{Request: "reply", Limit: 16}), func(a *app) { a.request() }, func(r *rig) {
			c := r.open(serviceA)
			for range 2 {
				c.send(post("/x", "hello"))
				if got := c.wantStatus(200); got != "hello" {
					t.Errorf("%s: got %q", at, got)
				}
				if o := r.outcome(); o.reason != "echo" {
					t.Errorf("%s: got %v", at, o)
				}
			}
			c.send(post("/x", strings.Repeat("x", 17)))
			c.wantStatus(413)
			if o := r.outcome(); o.kind != fault.BodyTooLarge {
				t.Errorf("%s: got %v", at, o)
			}
			c.wantCredit()
		})
	}
}

// TestWaits: a filter waits in each phase, as a Worker and for a Waker, in each
// chain, and then goes on or replies. Nothing is lost and nothing overtakes.
func TestWaits(t *testing.T) {
	for _, at := range []place{onService, onRoute} {
		for p := filters.PhaseRequest; p < filters.PhaseDone; p++ {
			for _, waker := range []bool{false, true} {
				for _, status := range []int{0, 429} {
					t.Run(fmt.Sprintf("%s/%s/waker %v/%d", at, p, waker, status), func(t *testing.T) {
						waits(t, at, filtertest.WaiterSettings{Phase: p.String(), Delay: time.Second, Waker: waker, Status: status})
					})
				}
			}
		}
	}
}

func waits(t *testing.T, at place, s filtertest.WaiterSettings) {
	inFakeTime(t, put(at, filtertest.Waiter(nil), s), echo, func(r *rig) {
		c := r.open(serviceA)
		for i := range 3 {
			c.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
			c.send("def")
			pass(10 * time.Second)
			switch {
			case s.Status == 0:
				if got := c.wantStatus(200); got != "POST /x abcdef" {
					t.Errorf("got %q", got)
				}
			case s.Phase == filters.PhaseResponseBody.String(): // the head has gone: it can only be cut
				if got := c.take(); !c.aborted.Load() || !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "POST") {
					t.Errorf("got %q, aborted %v", got, c.aborted.Load())
				}
				c = r.open(serviceA)
			default:
				c.wantStatus(s.Status)
				if c.fin.Load() {
					c = r.open(serviceA)
				}
			}
			r.outcome()
			if i == 0 && s.Status == 0 {
				c.wantCredit()
			}
		}
	})
}

// TestClientGoneWhileWaiting: in each phase the endpoint is told at once, the
// filter's context ends, and the exchange is pooled only when a Worker has
// returned.
func TestClientGoneWhileWaiting(t *testing.T) {
	for p := filters.PhaseRequest; p < filters.PhaseDone; p++ {
		for _, waker := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/waker %v", p, waker), func(t *testing.T) {
				var told atomic.Int64
				var gate *filtertest.Gate
				k := filters.Kind{Name: "test-wait", New: func(b *filters.Builder, s filters.Spec) (filters.Filter, error) {
					return filtertest.Waiter(gate).New(b, s)
				}}
				o := put(onService, k, filtertest.WaiterSettings{Phase: p.String(), Waker: waker})
				inFakeTime(t, o, func(a *app) {
					for {
						if q, _ := a.request(); q == nil {
							told.Add(1)
							return
						}
						a.reply(200, "ok")
					}
				}, func(r *rig) {
					gate = filtertest.NewGate()
					r.apply(o.doc) // with a gate of this bubble
					told.Store(0)
					c := r.open(serviceA)
					c.send(post("/x", "abc"))
					if gate.Waiting() != 1 {
						t.Fatalf("%d wait", gate.Waiting())
					}
					c.reset()
					if gate.Waiting() != 0 || gate.Dropped() != 1 {
						t.Errorf("%d wait, %d were told", gate.Waiting(), gate.Dropped())
					}
					if o := r.outcome(); o.kind != fault.ClientGone {
						t.Errorf("got %v", o)
					}
					if n := len(r.apps); n > 0 && p < filters.PhaseResponseBody && told.Load() != int64(n) && p != filters.PhaseResponse {
						t.Errorf("%d of %d endpoints' connections heard of it", told.Load(), n)
					}
					gate.Open()
					c = r.open(serviceA)
					c.send(post("/x", "abc"))
					c.wantStatus(200)
				})
			})
		}
	}
}

// TestDeadlineWhileWaiting: the request's time counts for filters too.
func TestDeadlineWhileWaiting(t *testing.T) {
	for p := filters.PhaseRequest; p < filters.PhaseResponseBody; p++ {
		for _, waker := range []bool{false, true} {
			o := put(onRoute, filtertest.Waiter(nil), filtertest.WaiterSettings{Phase: p.String(), Delay: time.Minute, Waker: waker})
			o.doc = strings.Replace(o.doc, noRetry, noRetry+"\n    timeouts: {request: 2s}", 1)
			inFakeTime(t, o, echo, func(r *rig) {
				c := r.open(serviceA)
				c.send(post("/x", "abc"))
				pass(1900 * time.Millisecond)
				if got := c.take(); got != "" {
					t.Fatalf("%s: before its time: %q", p, got)
				}
				pass(200 * time.Millisecond)
				c.wantStatus(504)
				if o := r.outcome(); o.kind != fault.UpstreamTimeout {
					t.Errorf("%s: got %v", p, o)
				}
				pass(2 * time.Minute)
				if got := c.take(); got != "" {
					t.Errorf("%s: behind the answer: %q", p, got)
				}
			})
		}
	}
}

// TestResponseWhileRequestFilterWaits: an endpoint answers before it has the
// body, while a filter still works on that.
func TestResponseWhileRequestFilterWaits(t *testing.T) {
	for _, waker := range []bool{false, true} {
		for _, answer := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n"} {
			o := put(onService, filtertest.Waiter(nil), filtertest.WaiterSettings{Phase: "request body", Delay: time.Second, Waker: waker})
			inFakeTime(t, o, func(a *app) {
				if _, err := http.ReadRequest(a.r); err == nil {
					a.send(answer)
				}
				a.request()
			}, func(r *rig) {
				c := r.open(serviceA)
				c.send(post("/x", "abc"))
				pass(500 * time.Millisecond)
				if got := c.take(); got != "" {
					t.Fatalf("got %q while the filter waited", got)
				}
				pass(time.Second)
				if got := c.wantStatus(200); got != "early" && !strings.Contains(answer, "Length: 0") {
					t.Errorf("got %q", got)
				}
				if o := r.outcome(); o.status != 200 || o.kind != fault.Kinds {
					t.Errorf("got %v", o)
				}
				c.wantCredit()
			})
		}
	}
}

// TestRetryWhileFilterWaits: an attempt fails while a body filter waits; the
// next one gets the whole body.
func TestRetryWhileFilterWaits(t *testing.T) {
	for _, waker := range []bool{false, true} {
		o := put(onService, filtertest.Waiter(nil), filtertest.WaiterSettings{Phase: "request body", Delay: time.Second, Waker: waker})
		o.doc = shop
		inFakeTime(t, o, echo, func(r *rig) {
			n := 0
			r.dial = func(string) error {
				if n++; n == 1 {
					return syscall.ECONNREFUSED
				}
				return nil
			}
			c := r.open(serviceA)
			c.send(post("/x", "abc"))
			pass(10 * time.Second)
			if got := c.wantStatus(200); got != "POST /x abc" {
				t.Errorf("got %q", got)
			}
			if o := r.outcome(); len(o.attempts) != 2 {
				t.Errorf("got %v", o)
			}
		})
	}
}

// TestNoEndpointWhileFilterWaits: the end comes from the attempt while a Worker
// holds the stream: it is told when the Worker has returned, and not before.
func TestNoEndpointWhileFilterWaits(t *testing.T) {
	o := put(onService, filtertest.Waiter(nil), filtertest.WaiterSettings{Phase: "request body", Delay: time.Second})
	inFakeTime(t, o, echo, func(r *rig) {
		r.dial = func(string) error { return syscall.ECONNREFUSED }
		for range 3 {
			c := r.open(serviceA)
			c.send(post("/x", "abc"))
			pass(10 * time.Second)
			c.wantStatus(503)
			if o := r.outcome(); o.kind != fault.ConnectFailed || len(o.attempts) != 1 {
				t.Errorf("got %v", o)
			}
		}
	})
}

// A changer is a Worker that points the chunk it waits with at memory of its own.
type changer struct{ own []byte }

func (f *changer) RequestBody(*filters.Stream, *message.Chunk) *filters.Reply  { return filters.Wait }
func (f *changer) ResponseBody(*filters.Stream, *message.Chunk) *filters.Reply { return filters.Wait }
func (f *changer) Request(s *filters.Stream) *filters.Reply {
	s.Request.Length = message.UnknownLength
	return nil
}
func (f *changer) Response(s *filters.Stream) *filters.Reply {
	s.Response.Length = message.UnknownLength
	return nil
}
func (f *changer) Work(_ context.Context, s *filters.Stream, _ filters.Phase) *filters.Reply {
	if c := s.Chunk(); len(c.Data) > 0 {
		c.Data = f.own
	}
	return nil
}

// TestWorkerReplacesChunk: memory that belongs to a filter never gets into the
// buffer pool, and what the engine lent for the wait goes back once.
func TestWorkerReplacesChunk(t *testing.T) {
	own := []byte(strings.Repeat("own ", 1<<10/4)) // as large as a buffer of the pool
	k := filters.Kind{Name: "test-change", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return &changer{own}, nil }}
	for _, at := range []place{onService, onRoute} {
		inFakeTime(t, put(at, k, nil), func(a *app) {
			for {
				q, body := a.request()
				if q == nil {
					return
				}
				if body != string(own) {
					t.Errorf("%s: the endpoint got %.20q", at, body)
				}
				a.reply(200, "theirs")
			}
		}, func(r *rig) {
			c := r.open(serviceA)
			for range 5 {
				c.send(post("/x", "abc"))
				if got := c.wantStatus(200); got != string(own) {
					t.Errorf("%s: the client got %.20q", at, got)
				}
			}
		})
	}
	if string(own) != strings.Repeat("own ", 1<<10/4) {
		t.Error("the filter's memory was written to")
	}
}

// TestWaitThenReply: one body filter waits for a chunk and the next answers on
// seeing it: the chunk's memory goes back once.
func TestWaitThenReply(t *testing.T) {
	guard := func(b *filters.Builder, _ string) error {
		if err := b.Add("test-wait", "test", filters.NewSpec(filtertest.WaiterSettings{Phase: "request body", Delay: time.Second})); err != nil {
			return err
		}
		return b.Add("test-echo", "test", filters.NewSpec(filtertest.EchoSettings{Request: "reply"}))
	}
	inFakeTime(t, rigOptions{registry: kinds(filtertest.Waiter(nil), filtertest.Echo()), guard: guard}, echo, func(r *rig) {
		c := r.open(serviceA)
		for range 5 {
			c.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
			c.send("def")
			pass(10 * time.Second)
			if got := c.wantStatus(200); got != "abcdef" {
				t.Errorf("got %q", got)
			}
		}
		c.wantCredit()
	})
}

// A scribe writes down what it hears, and replies where it is told to.
type scribe struct {
	name  string
	at    filters.Phase // where it replies; PhaseDone: nowhere
	log   *[]string
	mu    *sync.Mutex
	panic bool // rather than reply
}

func (f *scribe) hear(p filters.Phase) *filters.Reply {
	f.mu.Lock()
	*f.log = append(*f.log, f.name+" "+p.String())
	f.mu.Unlock()
	if p != f.at {
		return nil
	}
	if f.panic {
		panic("a bug in the " + p.String() + " phase")
	}
	return &filters.Reply{Status: 418, Body: []byte(f.name), Reason: "told to"}
}

func (f *scribe) Conn(*filters.Conn) error                { f.hearQuietly(filters.PhaseConn); return nil }
func (f *scribe) Request(*filters.Stream) *filters.Reply  { return f.hear(filters.PhaseRequest) }
func (f *scribe) Response(*filters.Stream) *filters.Reply { return f.hear(filters.PhaseResponse) }
func (f *scribe) Done(*filters.Stream)                    { f.hear(filters.PhaseDone) }
func (f *scribe) hearQuietly(p filters.Phase) {
	if f.panic && f.at == p {
		panic("a bug in the conn phase")
	}
}
func (f *scribe) RequestBody(_ *filters.Stream, c *message.Chunk) *filters.Reply {
	return f.hear(filters.PhaseRequestBody)
}
func (f *scribe) ResponseBody(_ *filters.Stream, c *message.Chunk) *filters.Reply {
	return f.hear(filters.PhaseResponseBody)
}

// scribes puts a and b before the service and c on its route; the one that is
// named replies at a phase, or panics.
func scribes(who string, at filters.Phase, panics bool, log *[]string) rigOptions {
	mu := new(sync.Mutex)
	build := func(name string) filters.Kind {
		return filters.Kind{Name: name, New: func(*filters.Builder, filters.Spec) (filters.Filter, error) {
			f := &scribe{name: name, at: filters.PhaseDone + 1, log: log, mu: mu}
			if name == who {
				f.at, f.panic = at, panics
			}
			return f, nil
		}}
	}
	onRoute := build("c")
	onRoute.Name = "RequestHeaderModifier"
	return rigOptions{
		doc:      routed(noRetry + "\n    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}]}}]"),
		registry: kinds(build("a"), build("b"), onRoute),
		guard: func(b *filters.Builder, _ string) error {
			if err := b.Add("a", "test", filters.NewSpec(nil)); err != nil {
				return err
			}
			return b.Add("b", "test", filters.NewSpec(nil))
		},
	}
}

// TestReplyOrder: who hears of a stream, in which order, if one of three filters
// replies in each of the phases.
func TestReplyOrder(t *testing.T) {
	for _, row := range []struct {
		who    string
		at     filters.Phase
		status int // 0: cut
		want   string
	}{
		{"", 0, 200, "a request, b request, c request, a request body, b request body, c request body, c response, b response, a response, c response body, b response body, a response body, c done, b done, a done"},
		{"a", filters.PhaseRequest, 418, "a request, a done"},
		{"b", filters.PhaseRequest, 418, "a request, b request, a response, a response body, b done, a done"},
		{"c", filters.PhaseRequest, 418, "a request, b request, c request, b response, a response, b response body, a response body, c done, b done, a done"},
		{"b", filters.PhaseRequestBody, 418, "a request, b request, c request, a request body, b request body, c response, a response, c response body, a response body, c done, b done, a done"},
		{"c", filters.PhaseResponse, 418, "a request, b request, c request, a request body, b request body, c request body, c response, b response, a response, b response body, a response body, c done, b done, a done"},
		{"b", filters.PhaseResponse, 418, "a request, b request, c request, a request body, b request body, c request body, c response, b response, a response, a response body, c done, b done, a done"},
		{"c", filters.PhaseResponseBody, 0, "a request, b request, c request, a request body, b request body, c request body, c response, b response, a response, c response body, c done, b done, a done"},
	} {
		t.Run(row.who+" "+row.at.String(), func(t *testing.T) {
			var log []string
			inFakeTime(t, scribes(row.who, row.at, false, &log), echo, func(r *rig) {
				c := r.open(serviceA)
				c.send(post("/x", "abc"))
				if row.status == 0 {
					if c.take(); !c.aborted.Load() {
						t.Error("not cut")
					}
				} else if body := c.wantStatus(row.status); row.status == 418 && body != row.who {
					t.Errorf("the answer is %q", body)
				}
				if got := strings.Join(log, ", "); got != row.want {
					t.Errorf("heard\n%s\nwant\n%s", got, row.want)
				}
			})
		})
	}
}

// TestPanics: a filter panics in each phase of each chain. The process lives, it
// is counted and told, both streams are reset, those that had heard of the stream
// hear of its end, and the next request goes its way.
func TestPanics(t *testing.T) {
	for _, who := range []string{"a", "c"} {
		for p := filters.PhaseRequest; p <= filters.PhaseDone; p++ {
			t.Run(who+" "+p.String(), func(t *testing.T) {
				var log []string
				inFakeTime(t, scribes(who, p, true, &log), func(a *app) {
					for {
						q, body := a.request()
						if q == nil {
							return
						}
						a.reply(200, body)
					}
				}, func(r *rig) {
					for range 2 {
						log = nil
						c := r.open(serviceA)
						c.send(post("/x", "abc"))
						got := c.take()
						if p == filters.PhaseDone { // the response was whole by then
							if !strings.HasSuffix(got, "abc") || !c.fin.Load() {
								t.Errorf("got %q, ended %v", got, c.fin.Load())
							}
						} else if !c.aborted.Load() {
							t.Errorf("the client was not reset: %q", got)
						}
						if len(r.panics) != 1 || r.p.stats.Panics.Swap(0) != 1 {
							t.Errorf("panics told: %v", r.panics)
						}
						r.panics = nil
						if !slices.Contains(log, "a done") {
							t.Errorf("a was not told of the end: %v", log)
						}
						if o := r.outcome(); p != filters.PhaseDone && o.kind != fault.Internal {
							t.Errorf("got %v", o)
						}
					}
					for _, b := range r.p.Snapshot().Backends() {
						for _, e := range b.Endpoints() {
							if e.Active() != 0 {
								t.Errorf("%s still counts %d calls", e.Addr(), e.Active())
							}
						}
					}
				})
			})
		}
	}
}

// TestPanicResetsUpstream: an endpoint in the middle of its response learns of it.
func TestPanicResetsUpstream(t *testing.T) {
	for _, p := range []filters.Phase{filters.PhaseResponse, filters.PhaseResponseBody} {
		var log []string
		told := false
		inFakeTime(t, scribes("b", p, true, &log), func(a *app) {
			a.request()
			a.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
			q, _ := a.request()
			told = q == nil
		}, func(r *rig) {
			c := r.open(serviceA)
			c.send(get("/"))
			if c.take(); !c.aborted.Load() || !told {
				t.Errorf("%s: the client was reset: %v, the endpoint told: %v", p, c.aborted.Load(), told)
			}
		})
	}
}

// TestConnFilterPanics: that costs its tunnel, and leaves no pin behind.
func TestConnFilterPanics(t *testing.T) {
	var log []string
	inFakeTime(t, scribes("a", filters.PhaseConn, true, &log), echo, func(r *rig) {
		if _, err := r.tryOpen(serviceA); err == nil {
			t.Error("the tunnel was taken")
		}
		if n := r.p.stats.Faults[fault.FilterTrapped].Load(); n != 1 || len(r.panics) != 1 {
			t.Errorf("%d faults, panics %v", n, r.panics)
		}
		r.apply(shop)
		synctest.Wait()
	})
}

// TestWakerInAnotherTurn: a filter resumes another stream from within its own
// phase. Lanes have no order, so that must not take one with the other held.
func TestWakerInAnotherTurn(t *testing.T) {
	var mu sync.Mutex
	var waiting []filters.Waker
	k := filters.Kind{Name: "test-pair", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) {
		return pair{&mu, &waiting}, nil
	}}
	inFakeTime(t, put(onService, k, nil), echo, func(r *rig) {
		waiting = nil
		a, b := r.open(serviceA), r.open(serviceA)
		for range 20 {
			a.send(get("/a"))
			if got := a.take(); got != "" {
				t.Fatalf("not held: %q", got)
			}
			b.send(get("/b"))
			a.wantStatus(200)
			b.wantStatus(200)
			a, b = b, a
		}
	})
}

// A pair holds one stream until another comes.
type pair struct {
	mu      *sync.Mutex
	waiting *[]filters.Waker
}

func (f pair) Request(s *filters.Stream) *filters.Reply {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(*f.waiting) == 0 {
		*f.waiting = append(*f.waiting, s.Suspend())
		return filters.Wait
	}
	(*f.waiting)[0].Resume(nil)
	*f.waiting = nil
	return nil
}

// A bodyGuard sees request bodies, and no heads.
type bodyGuard struct{}

func (bodyGuard) RequestBody(*filters.Stream, *message.Chunk) *filters.Reply { return nil }

// A headGuard sees heads, and tells the length of none.
type headGuard struct{}

func (headGuard) Request(*filters.Stream) *filters.Reply { return nil }
func (headGuard) Response(s *filters.Stream) *filters.Reply {
	s.Response.Length = message.UnknownLength
	return nil
}

func kindOf(f filters.Filter) filters.Kind {
	return filters.Kind{Name: "guard", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return f, nil }}
}

// TestWholeOfNoLength: a body that came with its head follows a filter's idea of its
// length.
func TestWholeOfNoLength(t *testing.T) {
	for _, at := range []place{onService, onRoute} {
		inFakeTime(t, put(at, kindOf(headGuard{}), nil), func(a *app) { a.request(); a.reply(200, "hello"); a.request() }, func(r *rig) {
			c := r.open(serviceA)
			c.send(get("/x"))
			if got := c.wantStatus(200); got != "hello" {
				t.Errorf("%s: got %q", at, got)
			}
		})
	}
}

// TestAsParsed: only a request that no filter has had is sent without its start line
// being checked again.
func TestAsParsed(t *testing.T) {
	for name, row := range map[string]struct {
		o    rigOptions
		want bool
	}{
		"no filter":        {rigOptions{doc: routed(noRetry)}, true},
		"one sees heads":   {put(onRoute, kindOf(headGuard{}), nil), false},
		"one sees bodies":  {put(onService, kindOf(bodyGuard{}), nil), false},
		"and on the route": {put(onRoute, kindOf(bodyGuard{}), nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			var got []bool
			row.o.more = func(po *Options) {
				observe := po.Observe
				po.Observe = func(o *Outcome) {
					got = append(got, o.Stream.Request.AsParsed)
					observe(o)
				}
			}
			inFakeTime(t, row.o, echo, func(r *rig) {
				c := r.open(serviceA)
				c.send(get("/x"))
				c.wantStatus(200)
			})
			if len(got) != 1 || got[0] != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}
