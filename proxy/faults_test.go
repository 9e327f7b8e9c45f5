package proxy

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// routed is the shop with one route for service a; %s is what its rule has
// besides its backend.
func routed(rule string) string {
	return shop + `
httpRoutes:
- name: a
  parentRefs: [{group: "", kind: Service, name: a, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: a, port: 80}]
    ` + rule + "\n"
}

const noRetry = "retry: {attempts: 0}"

// TestFaults: what a client sees of each fault that an endpoint or the way to it
// can cause, and what is counted.
func TestFaults(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	for _, row := range []struct {
		name   string
		doc    string
		dest   string
		dial   error
		app    func(a *app)
		after  time.Duration
		status int // 0: the connection is reset in the middle of a response
		kind   fault.Kind
	}{
		{name: "no endpoint", dest: serviceNone, status: 503, kind: fault.NoEndpoint},
		{name: "no route", doc: strings.Replace(routed(noRetry), "value: /}", "value: /elsewhere}", 1), status: 404, kind: fault.NoRoute},
		{name: "no backend", doc: strings.Replace(routed(noRetry), "backendRefs: [{name: a, port", "backendRefs: [{name: gone, port", 1), status: 500, kind: fault.NoBackend},
		{name: "no weight", doc: strings.Replace(routed(noRetry), "backendRefs: [{name: a, port: 80", "backendRefs: [{name: a, port: 80, weight: 0", 1), status: 500, kind: fault.NoBackend},
		{name: "connection refused", dial: syscall.ECONNREFUSED, status: 503, kind: fault.ConnectFailed},
		{name: "connection timeout", dial: os.ErrDeadlineExceeded, after: 11 * time.Second, status: 503, kind: fault.ConnectTimeout},
		{name: "reset before the response", app: func(a *app) { a.request(); a.Reset() }, status: 503, kind: fault.UpstreamReset},
		{name: "closed before the response", app: func(a *app) { a.request(); a.Close() }, status: 503, kind: fault.UpstreamClosed},
		{name: "closed in the head", app: func(a *app) { a.request(); a.send("HTTP/1.1 200 OK\r\n"); a.Close() }, status: 502, kind: fault.UpstreamClosedMidResponse},
		{name: "reset in the head", app: func(a *app) { a.request(); a.send("HTTP/1.1 200 OK\r\n"); <-time.After(time.Millisecond); a.Reset() }, status: 502, kind: fault.UpstreamResetMidResponse},
		{name: "closed in the body", app: func(a *app) { a.request(); a.send(whole + "abc"); a.Close() }, kind: fault.UpstreamClosedMidResponse},
		{name: "reset in the body", app: func(a *app) { a.request(); a.send(whole + "abc"); <-time.After(time.Millisecond); a.Reset() }, kind: fault.UpstreamResetMidResponse},
		{name: "closed in chunks", app: func(a *app) {
			a.request()
			a.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
			a.Close()
		}, kind: fault.UpstreamClosedMidResponse},
		{name: "no HTTP", app: func(a *app) { a.request(); a.send("SSH-2.0-x\r\n\r\n"); a.request() }, status: 502, kind: fault.UpstreamProtocol},
		{name: "two lengths", app: func(a *app) {
			a.request()
			a.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
			a.request()
		}, status: 502, kind: fault.UpstreamProtocol},
		{name: "bad chunk", app: func(a *app) {
			a.request()
			a.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
			a.request()
		}, kind: fault.UpstreamProtocol},
		{name: "a switch nobody asked for", app: func(a *app) {
			a.request()
			a.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
			a.request()
		}, status: 502, kind: fault.UpstreamProtocol},
		{name: "time is up", doc: routed(noRetry + "\n    timeouts: {request: 2s}"), app: func(a *app) { a.request(); a.request() }, after: 3 * time.Second, status: 504, kind: fault.UpstreamTimeout},
		{name: "time is up in the body", doc: routed(noRetry + "\n    timeouts: {request: 2s}"), app: func(a *app) { a.request(); a.send(whole + "abc"); a.request() }, after: 3 * time.Second, kind: fault.UpstreamTimeout},
		{name: "an attempt's time is up", doc: routed(noRetry + "\n    timeouts: {request: 5s, backendRequest: 1s}"), app: func(a *app) { a.request(); a.request() }, after: 2 * time.Second, status: 504, kind: fault.TryTimeout},
	} {
		t.Run(row.name, func(t *testing.T) {
			doc := row.doc
			if doc == "" {
				doc = routed(noRetry)
			}
			inFakeTime(t, rigOptions{doc: doc}, func(a *app) {
				if row.app != nil {
					row.app(a)
				}
				a.Close()
			}, func(r *rig) {
				r.dial = func(string) error { return row.dial }
				if row.dest == "" {
					row.dest = serviceA
				}
				c := r.open(row.dest)
				c.send(post("/x", "b"))
				pass(row.after + 10*time.Millisecond)
				if row.status == 0 {
					if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !c.aborted.Load() {
						t.Errorf("got %q, aborted %v, want a beginning and a reset", got, c.aborted.Load())
					}
				} else {
					p, body := c.response("POST")
					if p.StatusCode != row.status || body != row.kind.Row().Text+"\n" {
						t.Errorf("got %d %q, want %d %q", p.StatusCode, body, row.status, row.kind.Row().Text)
					}
					if c.fin.Load() || c.aborted.Load() {
						t.Error("the client's connection is lost")
					}
				}
				o := r.outcome()
				if o.kind != row.kind || r.p.stats.Faults[row.kind].Load() != 1 {
					t.Errorf("got %v, counted %d, want %s", o, r.p.stats.Faults[row.kind].Load(), row.kind.Row().Details)
				}
				if row.status != 0 && o.status != row.status || row.status == 0 && o.status != 200 {
					t.Errorf("the record has status %d", o.status)
				}
				if row.status != 0 {
					c.send(get("/again")) // whatever comes, comes in order
					c.take()
				}
				c.wantCredit()
			})
		})
	}
}

// TestTimesDoNotOutlive: an attempt's clock ends with it, and the request's with
// the response.
func TestTimesDoNotOutlive(t *testing.T) {
	doc := routed(noRetry + "\n    timeouts: {request: 4s, backendRequest: 1s}")
	inFakeTime(t, rigOptions{doc: doc}, func(a *app) {
		for {
			q, _ := a.request()
			if q == nil {
				return
			}
			a.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
			time.Sleep(3 * time.Second) // longer than an attempt may take for its head
			a.send("b")
		}
	}, func(r *rig) {
		c := r.open(serviceA)
		for range 3 {
			c.send(get("/"))
			pass(3500 * time.Millisecond)
			if got := c.wantStatus(200); got != "ab" {
				t.Errorf("got %q", got)
			}
		}
	})
}

// TestClientGone: wherever an exchange is when its client goes, the endpoint
// learns of it, and the record says so.
func TestClientGone(t *testing.T) {
	part := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
	for _, row := range []struct {
		name     string
		text     string
		dial     error
		answer   string // the endpoint's, before the client goes
		attempts int
		status   int
	}{
		{name: "in the head", text: "POST / HT"},
		{name: "while connecting", text: part, dial: os.ErrDeadlineExceeded},
		{name: "in the request", text: part},
		{name: "before the response", text: post("/", "abc")},
		{name: "after 1xx", text: post("/", "abc"), answer: "HTTP/1.1 103 Early Hints\r\n\r\n"},
		{name: "in the response", text: post("/", "abc"), answer: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", attempts: 1, status: 200},
		{name: "in both", text: part, answer: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", attempts: 1, status: 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			told := make(chan error, 4)
			inFakeTime(t, rigOptions{doc: routed(noRetry)}, func(a *app) {
				buf := make([]byte, 4096)
				a.Read(buf)
				a.send(row.answer)
				for {
					if _, err := a.Read(buf); err != nil {
						told <- err
						return
					}
				}
			}, func(r *rig) {
				told = make(chan error, 4)
				r.dial = func(string) error { return row.dial }
				c := r.open(serviceA)
				c.send(row.text)
				c.reset()
				o := r.outcome()
				if o.kind != fault.ClientGone || o.status != row.status || len(o.attempts) != row.attempts {
					t.Errorf("got %v, want %d attempts and status %d", o, row.attempts, row.status)
				}
				if len(r.apps) > 0 {
					select {
					case <-told:
					default:
						t.Error("the endpoint was not told")
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

// TestClientGoneInBackoff: nothing is tried for a client that has gone.
func TestClientGoneInBackoff(t *testing.T) {
	inFakeTime(t, rigOptions{doc: routed("retry: {attempts: 3, backoff: 1s}")}, echo, func(r *rig) {
		dials := 0
		r.dial = func(string) error { dials++; return syscall.ECONNREFUSED }
		c := r.open(serviceA)
		c.send(get("/"))
		c.reset()
		pass(time.Minute)
		if o := r.outcome(); o.kind != fault.ClientGone || dials != 1 {
			t.Errorf("got %v, %d dials, want 1", o, dials)
		}
	})
}

// TestRetries: which attempts are made again, and which are not.
func TestRetries(t *testing.T) {
	fails := func(n int, how func(a *app)) func(a *app) {
		return func(a *app) {
			if a.n <= n {
				how(a)
				a.Close()
				return
			}
			echo(a)
		}
	}
	closes := func(a *app) { a.request() }
	status503 := func(a *app) { // each on a connection of its own
		a.request()
		a.send("HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
		a.request()
	}
	status503Long := func(a *app) {
		a.request()
		a.send("HTTP/1.1 503 X\r\nContent-Length: 1000\r\n\r\npart")
		a.request()
	}
	small := post("/x", "body")
	limit := post("/x", strings.Repeat("x", replayLimit))
	beyond := post("/x", strings.Repeat("x", replayLimit+1))
	chunks := "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-t: 1\r\n\r\n"
	wide := "retry: {attempts: 2, codes: [503], backoff: 10ms}"
	for _, row := range []struct {
		name     string
		rule     string // "": the default policy
		text     string
		app      func(a *app)
		dials    int // that fail
		status   int
		attempts int
	}{
		{"default: refused connections", "", small, echo, 2, 200, 3},
		{"default: as often as two", "", small, echo, 3, 503, 3},
		{"default: not what was sent", "", get("/"), fails(1, closes), 0, 503, 1},
		{"default: not a status", "", get("/"), fails(1, status503), 0, 503, 1},
		{"stanza: a lost connection", wide, small, fails(1, closes), 0, 200, 2},
		{"stanza: a status", wide, small, fails(2, status503), 0, 200, 3},
		{"stanza: a status with its body open", wide, small, fails(2, status503Long), 0, 200, 3},
		{"stanza: no more than two", wide, get("/"), fails(3, status503), 0, 503, 3},
		{"stanza: none", "retry: {attempts: 0, codes: [503]}", get("/"), fails(1, status503), 0, 503, 1},
		{"body: at the limit", wide, limit, fails(1, status503), 0, 200, 2},
		{"body: beyond it", wide, beyond, fails(1, status503), 0, 503, 1},
		{"body: beyond it, but never sent", wide, beyond, echo, 1, 200, 2},
		{"body: chunks and trailer", wide, chunks, fails(1, status503), 0, 200, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			doc := shop
			if row.rule != "" {
				doc = routed(row.rule)
			}
			inFakeTime(t, rigOptions{doc: doc}, row.app, func(r *rig) {
				n := 0
				r.dial = func(string) error {
					if n++; n <= row.dials {
						return syscall.ECONNREFUSED
					}
					return nil
				}
				c := r.open(serviceA)
				c.send(row.text)
				pass(5 * time.Second)
				body := c.wantStatus(row.status)
				o := r.outcome()
				if len(o.attempts) != row.attempts {
					t.Errorf("got %v, want %d attempts", o, row.attempts)
				}
				if got := r.p.stats.Retries.Load(); got != int64(row.attempts-1) {
					t.Errorf("%d retries counted, want %d", got, row.attempts-1)
				}
				if row.status == 200 && !strings.Contains(row.text, "chunked") {
					_, sent, _ := strings.Cut(row.text, "\r\n\r\n")
					if want := "POST /x " + sent; body != want {
						t.Errorf("the endpoint got %d bytes, want %d", len(body), len(want))
					}
				}
				for i, a := range o.attempts {
					if a.N != i+1 || i > 0 && len(o.attempts) == 2 && a.Endpoint == o.attempts[0].Endpoint {
						t.Errorf("attempt %d went to %s again", a.N, a.Endpoint)
					}
				}
				c.send(get("/after"))
				c.take()
				c.wantCredit()
			})
		})
	}
}

// TestRetryWhileUploading: an attempt fails in the middle of a request. What was
// sent is sent again, what still comes goes to the new attempt, in order.
func TestRetryWhileUploading(t *testing.T) {
	inFakeTime(t, rigOptions{doc: routed("retry: {attempts: 2, backoff: 10ms}")}, func(a *app) {
		if a.n == 1 {
			io.ReadFull(a, make([]byte, 50))
			a.Reset()
			return
		}
		echo(a)
	}, func(r *rig) {
		c := r.open(serviceA)
		c.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
		c.send("def")
		pass(time.Second)
		c.send("ghi")
		if got := c.wantStatus(200); got != "POST /x abcdefghi" {
			t.Errorf("got %q", got)
		}
		c.wantCredit()
	})
}

// TestReplayBudget: all requests together keep no more than the budget; one that
// finds no room is sent all the same, once.
func TestReplayBudget(t *testing.T) {
	inFakeTime(t, rigOptions{doc: routed("retry: {attempts: 2, codes: [503]}")}, func(a *app) {
		for {
			if q, _ := a.request(); q == nil {
				return
			}
			a.reply(503, "no")
		}
	}, func(r *rig) {
		r.p.replay.Add(replayBudget - 3)
		c := r.open(serviceA)
		c.send(post("/x", "four"))
		pass(time.Second)
		c.wantStatus(503)
		if o := r.outcome(); len(o.attempts) != 1 {
			t.Errorf("without room: %v", o)
		}
		if n := r.p.stats.ReplayOver.Load(); n != 1 {
			t.Errorf("%d counted", n)
		}
		c.send(post("/x", "abc")) // the control: this much room there is
		pass(time.Second)
		c.wantStatus(503)
		if o := r.outcome(); len(o.attempts) != 3 {
			t.Errorf("with room: %v", o)
		}
		r.p.replay.Add(-(replayBudget - 3))
	})
}

// TestStaleConnection: a connection that its endpoint closed while it was kept.
// The request is sent again at once if that does no harm, retries or not.
func TestStaleConnection(t *testing.T) {
	for _, row := range []struct {
		name, text       string
		status, attempts int
		kind             fault.Kind
	}{
		{"GET", get("/2"), 200, 2, fault.Kinds},
		{"PUT", strings.Replace(post("/2", "x"), "POST", "PUT", 1), 200, 2, fault.Kinds},
		{"POST", post("/2", "x"), 503, 1, fault.StaleConnection},
	} {
		t.Run(row.name, func(t *testing.T) {
			doc := strings.ReplaceAll(routed(noRetry), "name: a, port: 80", "name: one, port: 80")
			inFakeTime(t, rigOptions{doc: doc}, func(a *app) {
				if a.n > 1 {
					echo(a)
					return
				}
				a.request()
				a.reply(200, "first")
				a.request() // takes the next one and goes without an answer
				a.Close()
			}, func(r *rig) {
				c := r.open(serviceOne)
				c.send(get("/1"))
				c.wantStatus(200)
				r.outcome()
				c.send(row.text)
				c.wantStatus(row.status)
				if o := r.outcome(); o.kind != row.kind || len(o.attempts) != row.attempts {
					t.Errorf("got %v", o)
				} else if first := o.attempts[0]; first.Fault == nil || first.Fault.Kind != fault.StaleConnection || first.Sent == filters.SentNothing {
					t.Errorf("the first attempt: %+v", first)
				}
			})
		})
	}
}

// TestPreviousHost: another attempt goes to another endpoint while there is one.
func TestPreviousHost(t *testing.T) {
	inFakeTime(t, rigOptions{doc: routed("retry: {attempts: 1, codes: [503], backoff: 1ms}")}, func(a *app) {
		for {
			if q, _ := a.request(); q == nil {
				return
			}
			a.reply(503, "no")
		}
	}, func(r *rig) {
		c := r.open(serviceA)
		for range 50 {
			c.send(get("/"))
			pass(100 * time.Millisecond)
			c.wantStatus(503)
			o := r.outcome()
			if len(o.attempts) != 2 || o.attempts[0].Endpoint == o.attempts[1].Endpoint {
				t.Fatalf("got %v", o.attempts)
			}
		}
	})
}

// TestRetriesRespectTheDeadline: the request's time is not started anew.
func TestRetriesRespectTheDeadline(t *testing.T) {
	inFakeTime(t, rigOptions{doc: routed("retry: {attempts: 9, backoff: 10ms}\n    timeouts: {request: 2500ms, backendRequest: 1s}")}, func(a *app) { a.request(); a.request() }, func(r *rig) {
		c := r.open(serviceA)
		start := time.Now()
		c.send(get("/"))
		for c.take() == "" {
			pass(10 * time.Millisecond)
		}
		took := time.Since(start)
		if o := r.outcome(); o.kind != fault.UpstreamTimeout || o.status != 504 || len(o.attempts) != 2 {
			t.Errorf("got %v", o)
		}
		if took < 2500*time.Millisecond || took > 2600*time.Millisecond {
			t.Errorf("took %v, want 2.5 s", took)
		}
	})
}

// TestRetryOnKept: an attempt whose whole answer was no leaves its connection to the
// next that goes to the same endpoint.
func TestRetryOnKept(t *testing.T) {
	asked := 0
	app := func(a *app) {
		for {
			if q, _ := a.request(); q == nil {
				return
			}
			if asked++; asked <= 4 {
				a.reply(503, "no")
			} else {
				a.reply(200, "yes")
			}
		}
	}
	inFakeTime(t, rigOptions{doc: routed("retry: {attempts: 4, codes: [503], backoff: 10ms}")}, app, func(r *rig) {
		c := r.open(serviceA)
		c.send(get("/x"))
		pass(5 * time.Second)
		if body := c.wantStatus(200); body != "yes" {
			t.Errorf("got %q", body)
		}
		o := r.outcome()
		endpoints := map[string]bool{}
		for _, a := range o.attempts {
			endpoints[a.Endpoint.String()] = true
		}
		if len(o.attempts) != 5 || len(r.apps) != len(endpoints) {
			t.Errorf("%d attempts on %d connections to %d endpoints", len(o.attempts), len(r.apps), len(endpoints))
		}
		c.wantCredit()
	})
}
