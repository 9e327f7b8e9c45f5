package filtertest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func TestEchoModes(t *testing.T) {
	for mode, want := range map[string][2]string{
		"": {"one ", "two"}, "upper": {"ONE ", "TWO"}, "double": {"one one ", "twotwo"}, "drop": {"", ""}, "hold": {"", "one two"},
	} {
		t.Run(mode, func(t *testing.T) {
			d := New(t, Echo(), EchoSettings{Request: mode, Response: mode})
			for range 2 { // the second stream must not see the first's bytes
				q, p := Request("POST", "/"), Response(200)
				q.Length, p.Length = 7, 7
				if r := d.Request(q); r != nil {
					t.Fatalf("replied %+v", r)
				}
				if changed := q.Length == message.UnknownLength; changed != (mode == "double" || mode == "drop") {
					t.Errorf("request length %d", q.Length)
				}
				d.wantBody(t, d.RequestBody, want)
				if r := d.Response(p); r != nil {
					t.Fatalf("replied %+v", r)
				}
				d.wantBody(t, d.ResponseBody, want)
				d.Done()
			}
		})
	}
}

func (d *Drive) wantBody(t *testing.T, phase func(string, bool) (string, *filters.Reply), want [2]string) {
	t.Helper()
	for i, in := range []string{"one ", "two"} {
		got, r := phase(in, i == 1)
		if got != want[i] || r != nil {
			t.Errorf("run %d: got %q, %+v, want %q", i, got, r, want[i])
		}
	}
}

func TestEchoReplies(t *testing.T) {
	d := New(t, Echo(), EchoSettings{Request: "reply", Limit: 8})
	d.Request(Request("POST", "/"))
	if got, r := d.RequestBody("1234", false); got != "" || r != nil {
		t.Fatalf("got %q, %+v", got, r)
	}
	if _, r := d.RequestBody("5678", true); r == nil || r.Status != 200 || string(r.Body) != "12345678" {
		t.Errorf("got %+v", r)
	}
	d.Done()
	d.Request(Request("POST", "/"))
	if _, r := d.RequestBody("123456789", true); r == nil || r.Status != 413 {
		t.Errorf("beyond the limit: %+v", r)
	}
}

func TestWaiterInEveryPhase(t *testing.T) {
	for p := filters.PhaseRequest; p < filters.PhaseDone; p++ {
		for _, waker := range []bool{false, true} {
			for _, status := range []int{0, 429} {
				synctest.Test(t, func(t *testing.T) {
					d := New(t, Waiter(nil), WaiterSettings{Phase: p.String(), Delay: time.Second, Waker: waker, Status: status})
					start := time.Now()
					var replies []*filters.Reply
					replies = append(replies, d.Request(Request("GET", "/")))
					out, r := d.RequestBody("abc", true)
					replies = append(replies, r)
					if out != "abc" {
						t.Errorf("%s: request body %q", p, out)
					}
					replies = append(replies, d.Response(Response(200)))
					_, r = d.ResponseBody("abc", true)
					replies = append(replies, r)
					for i, r := range replies {
						want := 0
						if filters.PhaseRequest+filters.Phase(i) == p {
							want = status
						}
						if got := statusOf(r); got != want {
							t.Errorf("%s, waker %v: phase %d replied %d, want %d", p, waker, i, got, want)
						}
					}
					if got := time.Since(start); got != time.Second {
						t.Errorf("%s, waker %v: took %s", p, waker, got)
					}
				})
			}
		}
	}
}

func statusOf(r *filters.Reply) int {
	if r == nil {
		return 0
	}
	return r.Status
}

func TestGate(t *testing.T) {
	g := NewGate()
	d := New(t, Waiter(g), nil)
	done := make(chan *filters.Reply)
	go func() { done <- d.Request(Request("GET", "/")) }()
	<-g.Entered
	if g.Waiting() != 1 {
		t.Errorf("%d wait", g.Waiting())
	}
	g.Open()
	if r := <-done; r != nil {
		t.Errorf("got %+v", r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	closed := NewGate()
	closed.pass(ctx)
	if closed.Dropped() != 1 || g.Dropped() != 0 {
		t.Errorf("dropped %d and %d", closed.Dropped(), g.Dropped())
	}
}

func TestDeny(t *testing.T) {
	const bad, good = "spiffe://cluster.local/ns/a/sa/bad", "spiffe://cluster.local/ns/a/sa/good"
	d := New(t, Deny(), DenySettings{IDs: []string{bad, ""}})
	for _, id := range []string{bad, ""} {
		err := d.Conn(id)
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Kind != fault.PolicyDenied {
			t.Errorf("%q: got %v", id, err)
		}
	}
	if err := d.Conn(good); err != nil {
		t.Error(err)
	}
}

func TestBurn(t *testing.T) {
	d := New(t, Burn(), BurnSettings{For: 2 * time.Millisecond})
	start := time.Now()
	d.Request(Request("GET", "/"))
	if got := time.Since(start); got < 2*time.Millisecond {
		t.Errorf("took %s", got)
	}
}

func TestPanic(t *testing.T) {
	d := New(t, Panic(), nil)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	d.Request(Request("GET", "/"))
}

func TestUnknownSettings(t *testing.T) {
	for k, settings := range map[*filters.Kind]any{
		ptr(Echo()):      EchoSettings{Request: "louder"},
		ptr(Waiter(nil)): WaiterSettings{Phase: "done"},
	} {
		b := filters.NewBuilder(filters.Env{Registry: filters.NewRegistry(*k)})
		if err := b.Add(k.Name, "o", filters.NewSpec(settings)); err == nil {
			t.Errorf("%s takes %+v", k.Name, settings)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestReviewIsDriven: a filter's Review is asked on a stream of its own.
func TestReviewIsDriven(t *testing.T) {
	d := New(t, filters.Kind{Name: "r", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return byPath{}, nil }}, nil)
	if err := d.Review(Request("GET", "/yes")); err != nil {
		t.Errorf("got %v", err)
	}
	if err := d.Review(Request("GET", "/no")); err == nil {
		t.Error("not refused")
	}
}

type byPath struct{}

func (byPath) Review(s *filters.Stream) error {
	if string(s.Request.Path) == "/no" {
		return errors.New("no")
	}
	return nil
}
