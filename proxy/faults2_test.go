package proxy

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"golang.org/x/net/http2"
)

// TestFaults2: what a client of HTTP/2 sees of each fault that an endpoint of
// HTTP/2 can cause, and what is counted. The connection lives on.
func TestFaults2(t *testing.T) {
	head := func(a *app2) { a.head(1, false, ":status: 200", "content-length: 10") }
	for _, row := range []struct {
		name   string
		rule   string
		dial   error
		app    func(a *app2, frame string)
		after  time.Duration
		status int    // of the answer; 0: the stream is reset
		reset  string // …with this code, behind a head and what came of the body
		kind   fault.Kind
	}{
		{name: "connection refused", dial: syscall.ECONNREFUSED, status: 503, kind: fault.ConnectFailed},
		{name: "reset before the response", app: func(a *app2, _ string) { a.reset(1, http2.ErrCodeInternal) }, status: 503, kind: fault.UpstreamReset},
		{name: "refused", app: func(a *app2, _ string) { a.reset(1, http2.ErrCodeRefusedStream) }, status: 503, kind: fault.RefusedStream},
		{name: "gone away before it", app: func(a *app2, _ string) { a.fw.WriteGoAway(0, http2.ErrCodeNo, nil) }, status: 503, kind: fault.GoneAway},
		{name: "closed before the response", app: func(a *app2, _ string) { a.quit = true }, status: 503, kind: fault.UpstreamClosed},
		{name: "reset in the response", app: func(a *app2, _ string) { head(a); a.data(1, "abc", false); a.reset(1, http2.ErrCodeInternal) }, reset: "INTERNAL_ERROR", kind: fault.UpstreamResetMidResponse},
		{name: "calm in the response", app: func(a *app2, _ string) { head(a); a.data(1, "abc", false); a.reset(1, http2.ErrCodeEnhanceYourCalm) }, reset: "ENHANCE_YOUR_CALM", kind: fault.UpstreamResetMidResponse},
		{name: "refused in the response", app: func(a *app2, _ string) { head(a); a.data(1, "abc", false); a.reset(1, http2.ErrCodeRefusedStream) }, reset: "INTERNAL_ERROR", kind: fault.UpstreamResetMidResponse},
		{name: "no error in the response", app: func(a *app2, _ string) { head(a); a.data(1, "abc", false); a.reset(1, http2.ErrCodeNo) }, reset: "INTERNAL_ERROR", kind: fault.UpstreamResetMidResponse},
		{name: "closed in the response", app: func(a *app2, _ string) { head(a); a.data(1, "abc", false); a.quit = true }, reset: "INTERNAL_ERROR", kind: fault.UpstreamClosedMidResponse},
		{name: "a body too short", app: func(a *app2, _ string) { head(a); a.data(1, "abc", false); a.data(1, "", true) }, reset: "INTERNAL_ERROR", kind: fault.UpstreamProtocol},
		{name: "a bad head", app: func(a *app2, _ string) { a.head(1, true, ":status: 200", "connection: close") }, status: 502, kind: fault.UpstreamProtocol},
		{name: "a length with zeros", app: func(a *app2, _ string) { a.head(1, false, ":status: 200", "content-length: 010") }, status: 502, kind: fault.UpstreamProtocol},
		{name: "1xx without end", app: func(a *app2, _ string) {
			for range 20 {
				a.head(1, false, ":status: 103")
			}
		}, status: 502, kind: fault.UpstreamProtocol},
		{name: "a broken frame", app: func(a *app2, _ string) { a.fw.WriteRawFrame(http2.FrameSettings, 0, 1, nil) }, status: 502, kind: fault.UpstreamProtocol},
		{name: "time is up", rule: "timeouts: {request: 2s}", app: func(*app2, string) {}, after: 3 * time.Second, status: 504, kind: fault.UpstreamTimeout},
		{name: "time is up in the body", rule: "timeouts: {request: 2s}", app: func(a *app2, f string) {
			if strings.HasPrefix(f, "head") {
				head(a)
				a.data(1, "abc", false)
			}
		}, after: 3 * time.Second, reset: "CANCEL", kind: fault.UpstreamTimeout},
		{name: "an attempt's time is up", rule: "timeouts: {request: 5s, backendRequest: 1s}", app: func(*app2, string) {}, after: 2 * time.Second, status: 504, kind: fault.TryTimeout},
	} {
		t.Run(row.name, func(t *testing.T) {
			rule := "retry: {attempts: 0}"
			if row.rule != "" {
				rule += ", " + row.rule
			}
			inFakeTime(t, rigOptions{doc: doc2(rule)}, speaks2(func(a *app2, frame string) { row.app(a, frame) }), func(r *rig) {
				r.dial = func(string) error { return row.dial }
				c := r.open2(serviceTwo)
				c.head(1, true, getHead("/x")...)
				c.flush()
				pass(row.after + 10*time.Millisecond)
				c.pull()
				var got []string
				for _, f := range c.frames {
					if !strings.Contains(f, ":status=103") {
						got = append(got, f)
					}
				}
				c.frames = nil
				text := row.kind.Row().Text + "\n"
				want := []string{fmt.Sprintf("head 1 :status=%d content-type=text/plain content-length=%d", row.status, len(text)), fmt.Sprintf("data 1 %q end", text)}
				if row.status == 0 {
					want = []string{"head 1 :status=200 content-length=10", `data 1 "abc"`, "reset 1 " + row.reset}
				}
				if strings.Join(got, "|") != strings.Join(want, "|") {
					t.Errorf("got  %q\nwant %q", got, want)
				}
				if o := r.outcome(); o.kind != row.kind || r.p.stats.Faults[row.kind].Load() != 1 {
					t.Errorf("got %v, counted %d, want %s", o, r.p.stats.Faults[row.kind].Load(), row.kind.Row().Details)
				}
				if c.fin.Load() || c.aborted.Load() {
					t.Error("the client's connection is lost")
				}
				c.settled2()
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

// TestRetries2: what an endpoint of HTTP/2 did not process is asked of another,
// body and all; what it may have processed is not.
func TestRetries2(t *testing.T) {
	refuses := func(how func(a *app2)) func(*app) {
		ok, no := speaks2(echo2), speaks2(func(a *app2, frame string) {
			if strings.HasPrefix(frame, "head") {
				how(a)
			}
		})
		return func(a *app) {
			if a.n == 1 {
				no(a)
				return
			}
			ok(a)
		}
	}
	for _, row := range []struct {
		name  string
		how   func(a *app2)
		again bool
	}{
		{"refused", func(a *app2) { a.reset(1, http2.ErrCodeRefusedStream) }, true},
		{"gone away", func(a *app2) { a.fw.WriteGoAway(0, http2.ErrCodeNo, nil) }, true},
		{"unavailable", func(a *app2) { a.head(1, true, ":status: 200", "content-type: application/grpc", "grpc-status: 14") }, true},
		{"another status", func(a *app2) { a.head(1, true, ":status: 200", "content-type: application/grpc", "grpc-status: 13") }, false},
		{"reset", func(a *app2) { a.reset(1, http2.ErrCodeCancel) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{doc: doc2("")}, refuses(row.how), func(r *rig) {
				c := r.open2(serviceBoth)
				c.head(1, false, callHead()...)
				c.data(1, "hello", true)
				c.flush()
				pass(time.Second)
				c.pull()
				o := r.outcome()
				if again := len(o.attempts) == 2; again != row.again {
					t.Fatalf("%v: %q", o, c.frames)
				}
				if !row.again {
					return
				}
				c.want("head 1 :status=200", `data 1 "hello" end`)
				if o.attempts[0].Endpoint == o.attempts[1].Endpoint {
					t.Error("the same endpoint was asked again")
				}
				c.settled2()
			})
		})
	}
}

// TestCancel2: whoever gives up, the other side learns of it at once, in the
// middle of whatever there is.
func TestCancel2(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer bool
		end    bool // of the request
	}{
		{"in the request", false, false},
		{"before the response", false, true},
		{"in the response", true, true},
		{"in both", true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen := newSeen2()
			inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) {
				seen.frames <- frame
				if row.answer && strings.HasPrefix(frame, "head") {
					a.head(1, false, ":status: 200")
				}
			}), func(r *rig) {
				seen = newSeen2()
				c := r.open2(serviceTwo)
				c.head(1, false, postHead("/")...)
				c.data(1, "abc", row.end)
				c.flush()
				synctest.Wait()
				for len(seen.frames) > 0 {
					<-seen.frames
				}
				c.giveUp(1)
				seen.want(t, "reset 1 CANCEL")
				if o := r.outcome(); o.kind != fault.ClientGone {
					t.Errorf("got %v", o)
				}
				c.settled2()
			})
		})
	}
	t.Run("of several", func(t *testing.T) {
		seen := newSeen2()
		inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) { seen.frames <- frame }), func(r *rig) {
			seen = newSeen2()
			c := r.open2(serviceTwo)
			for i := range uint32(3) {
				c.head(2*i+1, true, getHead(fmt.Sprint("/", i))...)
			}
			c.flush()
			c.client.reset()
			synctest.Wait()
			n := 0
			for len(seen.frames) > 0 {
				if f := <-seen.frames; strings.HasPrefix(f, "reset") {
					n++
				}
			}
			if n != 3 {
				t.Errorf("%d resets for the endpoint, want 3", n)
			}
			if n := len(r.seen); n != 3 {
				t.Errorf("%d outcomes", n)
			}
		})
	})
}

// giveUp resets a stream.
func (c *client2) giveUp(id uint32) {
	c.talker.reset(id, http2.ErrCodeCancel)
	c.flush()
}

// TestEarlyResponse2: a response that is complete before its request stops the
// upload on both sides, and nothing else.
func TestEarlyResponse2(t *testing.T) {
	seen := newSeen2()
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) {
		seen.frames <- frame
		if strings.HasPrefix(frame, "head 1 ") {
			a.head(1, false, ":status: 200")
			a.data(1, "enough", true)
		} else if strings.HasPrefix(frame, "head") {
			echo2(a, frame)
		}
	}), func(r *rig) {
		seen = newSeen2()
		c := r.open2(serviceTwo)
		c.head(1, false, postHead("/")...)
		c.want("head 1 :status=200", `data 1 "enough" end`, "reset 1 NO_ERROR")
		seen.want(t, "head 1 :method=POST :scheme=http :authority=two :path=/", "reset 1 CANCEL")
		c.data(1, "still under way", false)
		c.head(3, true, getHead("/")...)
		c.want("head 3 :status=200", `data 3 ":method=GET :scheme=http :authority=two :path=/" end`)
		c.settled2()
	})
}

// TestNoErrorBehindResponse: an endpoint that stops an upload behind its answer
// has answered.
func TestNoErrorBehindResponse(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) {
		if strings.HasPrefix(frame, "head") {
			a.head(1, false, ":status: 413")
			a.data(1, "enough", true)
			a.reset(1, http2.ErrCodeNo)
		}
	}), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, false, postHead("/")...)
		c.want("head 1 :status=413", `data 1 "enough" end`, "reset 1 NO_ERROR")
		if o := r.outcome(); o.kind != fault.Kinds || o.status != 413 {
			t.Errorf("got %v", o)
		}
		c.settled2()
	})
}
