package proxy

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// put2 is put before service two.
func put2(k filters.Kind, settings any) rigOptions {
	return rigOptions{doc: doc2(""), registry: kinds(k), guard: guardWith(k.Name, settings)}
}

// TestBodyFilters2: what a filter does to bodies, with trailers both ways.
func TestBodyFilters2(t *testing.T) {
	for mode, want := range map[string]string{"": "hello", "upper": "HELLO", "drop": "", "hold": "hello"} {
		t.Run(mode, func(t *testing.T) {
			o := put2(filtertest.Echo(), filtertest.EchoSettings{Request: mode, Response: mode})
			inFakeTime(t, o, speaks2(echo2), func(r *rig) {
				c := r.open2(serviceTwo)
				for i := range uint32(2) {
					id := 2*i + 1
					c.head(id, false, postHead("/x")...)
					for _, b := range "hello" {
						c.data(id, string(b), false)
					}
					c.head(id, true, "x-t: 1")
					c.flush()
					c.pull()
					body, last := "", ""
					for _, f := range c.frames {
						var text string
						if n, _ := fmt.Sscanf(f, fmt.Sprintf("data %d %%q", id), &text); n == 1 {
							body += text
						}
						last = f
					}
					if body != want || last != fmt.Sprintf("head %d got=x-t=1 end", id) {
						t.Errorf("got %q", c.frames)
					}
					c.frames = nil
				}
				c.settled2()
			})
		})
	}
}

// TestWaits2: a filter that waits, in each phase, holds its own stream and no
// other; bodies and trailers that come meanwhile are kept.
func TestWaits2(t *testing.T) {
	for p := filters.PhaseRequest; p < filters.PhaseDone; p++ {
		for _, waker := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/waker %v", p, waker), func(t *testing.T) {
				s := filtertest.WaiterSettings{Phase: p.String(), Delay: time.Second, Waker: waker}
				inFakeTime(t, put2(filtertest.Waiter(nil), s), speaks2(echo2), func(r *rig) {
					c := r.open2(serviceTwo)
					c.head(1, false, postHead("/x")...)
					c.data(1, "abc", false)
					c.flush()
					pass(500 * time.Millisecond)
					c.data(1, "def", false)
					c.head(1, true, "x-t: 1")
					c.head(3, true, getHead("/y")...) // beside it
					c.flush()
					pass(10 * time.Second)
					c.pull()
					body, ends := "", 0
					for _, f := range c.frames {
						var text string
						if n, _ := fmt.Sscanf(f, "data 1 %q", &text); n == 1 {
							body += text
						}
						if strings.HasSuffix(f, " end") {
							ends++
						}
					}
					if body != "abcdef" || ends != 2 || !strings.Contains(strings.Join(c.frames, "|"), "head 1 got=x-t=1 end") {
						t.Errorf("got %q", c.frames)
					}
					c.frames = nil
					c.settled2()
				})
			})
		}
	}
}

// TestGoneWhileWaiting2: a stream that is reset while its filter waits is not
// pooled before the filter has let go, and the endpoint hears at once.
func TestGoneWhileWaiting2(t *testing.T) {
	for p := filters.PhaseRequest; p < filters.PhaseDone; p++ {
		t.Run(p.String(), func(t *testing.T) {
			seen := newSeen2()
			s := filtertest.WaiterSettings{Phase: p.String(), Delay: time.Minute}
			inFakeTime(t, put2(filtertest.Waiter(nil), s), speaks2(func(a *app2, frame string) {
				seen.frames <- frame
				if frame == "reset 1 CANCEL" {
					return
				}
				echo2(a, frame)
			}), func(r *rig) {
				seen = newSeen2()
				c := r.open2(serviceTwo)
				c.head(1, false, postHead("/x")...)
				c.data(1, "abc", false)
				c.flush()
				c.giveUp(1)
				synctest.Wait()
				reset := false
				for len(seen.frames) > 0 {
					reset = reset || <-seen.frames == "reset 1 CANCEL"
				}
				if reset != (p > filters.PhaseRequest) { // before it nothing had gone upstream
					t.Errorf("the endpoint was reset: %v", reset)
				}
				c.pass(2 * time.Minute)
				if o := r.outcome(); o.kind != fault.ClientGone {
					t.Errorf("got %v", o)
				}
				c.frames = nil
				c.settled2()
			})
		})
	}
}

// TestPanics2: a panic costs its stream, on both sides, and the connection lives.
func TestPanics2(t *testing.T) {
	for p := filters.PhaseRequest; p <= filters.PhaseDone; p++ {
		t.Run(p.String(), func(t *testing.T) {
			var log []string
			o := scribes("a", p, true, &log)
			o.doc = doc2("")
			inFakeTime(t, o, speaks2(echo2), func(r *rig) {
				c := r.open2(serviceTwo)
				for i := range uint32(2) {
					id := 2*i + 1
					c.head(id, false, postHead("/x")...)
					c.data(id, "abc", true)
					c.flush()
					c.pull()
					last := c.frames[len(c.frames)-1]
					if p == filters.PhaseDone {
						if last != fmt.Sprintf(`data %d "abc" end`, id) {
							t.Errorf("got %q", c.frames)
						}
					} else if last != fmt.Sprintf("reset %d INTERNAL_ERROR", id) {
						t.Errorf("got %q", c.frames)
					}
					c.frames = nil
					if len(r.panics) != 1 {
						t.Errorf("panics told: %v", r.panics)
					}
					r.panics = nil
					if o := r.outcome(); p != filters.PhaseDone && o.kind != fault.Internal {
						t.Errorf("got %v", o)
					}
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
