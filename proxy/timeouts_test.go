package proxy

import (
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// TestTimeoutsFilled: zero is the default, less than zero never.
func TestTimeoutsFilled(t *testing.T) {
	if got := (Timeouts{}).filled(); got != defaultTimeouts {
		t.Errorf("got %+v", got)
	}
	got := Timeouts{Head: -1, Body: 2, Idle: 3, Stream: 4, Upgraded: 5, TCP: -1, Detect: 6}.filled()
	if want := (Timeouts{Body: 2, Idle: 3, Stream: 4, Upgraded: 5, Detect: 6}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestBodyTimeout: a request that does not come whole in time is answered 408,
// however it trickles; none is where none is set.
func TestBodyTimeout(t *testing.T) {
	for _, limit := range []time.Duration{0, 10 * time.Second} {
		o := rigOptions{more: func(o *Options) { o.Timeouts.Body = limit }}
		inFakeTime(t, o, echo, func(r *rig) {
			c := r.open(serviceA)
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
			for range 30 {
				pass(time.Second)
				c.send("x")
			}
			if limit == 0 {
				if got := c.take(); got != "" {
					t.Errorf("answered without a limit: %q", got)
				}
				return
			}
			c.wantStatus(408)
			if o := r.outcome(); o.kind != fault.RequestTimeout {
				t.Errorf("got %v", o)
			}
			c = r.open(serviceA)
			c.send(post("/", "in time"))
			pass(time.Minute)
			c.wantStatus(200)
		})
	}
}

// TestStreamIdle: a response that stands still is cut after the limit, and one
// that moves is not; by default neither is.
func TestStreamIdle(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Minute} {
		o := rigOptions{more: func(o *Options) { o.Timeouts.Stream = limit }}
		inFakeTime(t, o, func(a *app) {
			a.request()
			a.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
			for range 5 {
				<-time.After(50 * time.Second)
				a.send("data: x\n\n")
			}
			<-time.After(24 * time.Hour)
			a.Close()
		}, func(r *rig) {
			c := r.open(serviceA)
			c.send(get("/events"))
			pass(251 * time.Second)
			if c.aborted.Load() || len(c.take()) == 0 {
				t.Fatal("cut while it moved")
			}
			pass(2 * time.Hour)
			if c.aborted.Load() != (limit > 0) {
				t.Errorf("limit %v: cut %v", limit, c.aborted.Load())
			}
			if limit > 0 {
				if o := r.outcome(); o.kind != fault.StreamIdle || o.status != 200 {
					t.Errorf("got %v", o)
				}
			}
			pass(24 * time.Hour)
		})
	}
}
