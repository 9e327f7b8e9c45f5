package filters

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func TestContextIsMadeOnFirstUse(t *testing.T) {
	var s Stream
	s.Cancel(errors.New("before anyone asked"))
	if s.ctx != nil {
		t.Fatal("Cancel made a context")
	}
	if ctx := s.Context(); ctx.Err() == nil || ctx != s.Context() {
		t.Error("a context made after the end is not over, or not the same twice")
	}
	s.Reset()
	ctx := s.Context()
	if ctx.Err() != nil {
		t.Fatal("the next request's context is over")
	}
	gone := errors.New("gone")
	s.Cancel(gone)
	s.Cancel(errors.New("too late"))
	if got := context.Cause(ctx); got != gone {
		t.Errorf("cause %v, want %v", got, gone)
	}
	s.Reset()
	ctx = s.Context()
	s.Reset()
	if ctx.Err() == nil {
		t.Error("Reset left a context alive")
	}
}

func TestContextEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Stream{Deadline: time.Now().Add(time.Second)}
		ctx := s.Context()
		if d, ok := ctx.Deadline(); !ok || !d.Equal(s.Deadline) {
			t.Errorf("deadline %v, %v", d, ok)
		}
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Error("over too early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("got %v", ctx.Err())
		}
		s.Reset()
	})
}

// slotted keeps two values per stream.
type slotted struct {
	first  Slot[int]
	second Slot[string]
}

func (*slotted) Request(*Stream) *Reply { return nil }

func TestSlots(t *testing.T) {
	var fs []*slotted
	kind := Kind{Name: "slotted", New: func(b *Builder, _ Spec) (Filter, error) {
		f := &slotted{NewSlot[int](b), NewSlot[string](b)}
		fs = append(fs, f)
		return f, nil
	}}
	var chains []*Chain
	for _, level := range []Level{ServiceLevel, RouteLevel} {
		b := NewBuilder(Env{Level: level, Registry: NewRegistry(kind)})
		for range 2 {
			if err := b.Add("slotted", "o", Spec{}); err != nil {
				t.Fatal(err)
			}
		}
		c, err := b.Chain()
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, c)
	}
	var s Stream
	if fs[0].first.Get(&s) != nil {
		t.Error("a value before the chain was entered")
	}
	for range 2 { // a second round on the same stream must not see the first
		chains[0].Request(&s)
		chains[1].Request(&s)
		for i, f := range fs {
			if f.first.Get(&s) != nil || f.second.Get(&s) != nil {
				t.Fatalf("filter %d finds a value nobody set", i)
			}
			n, str := i, "s"
			f.first.Set(&s, &n)
			f.second.Set(&s, &str)
		}
		for i, f := range fs {
			if got := *f.first.Get(&s); got != i {
				t.Errorf("filter %d has the value of %d", i, got)
			}
		}
		s.Reset()
	}
}

func TestResetForgets(t *testing.T) {
	s := Stream{Request: new(message.Request), Response: new(message.Response), Peer: new(peer.Info),
		Route: new(RouteInfo), Start: time.Now(), Upgraded: true, Attempts: []Attempt{{N: 1, Workload: new(Workload)}}}
	s.Bind(newEngine())
	s.Hold(new(message.Chunk))
	s.Reset()
	if s.Request != nil || s.Response != nil || s.Peer != nil || s.Route != nil || !s.Start.IsZero() || s.Upgraded ||
		len(s.Attempts) != 0 || s.engine != nil || s.chunk != nil {
		t.Errorf("left behind: %+v", &s)
	}
	if a := s.Attempts[:1]; a[0].Workload != nil {
		t.Error("the attempts keep what they pointed at")
	}
}

func TestAttr(t *testing.T) {
	id, err := peer.NewID("cluster.local", "web", "shop")
	if err != nil {
		t.Fatal(err)
	}
	r := new(message.Request)
	r.SetMethod([]byte("GET"))
	r.SetPath([]byte("/a/b?x=1"))
	r.SetAuthority([]byte("reviews"))
	r.Header.Add("X-Two", "1")
	r.Header.Add("x-two", "2")
	r.Header.Add("user-agent", "curl")
	r.Header.Add("x-empty", "")
	resp := &message.Response{Status: 204}
	resp.Header.Add("server", "us")
	s := &Stream{Request: r, Response: resp,
		Peer:  &peer.Info{ID: id, Source: netip.MustParseAddrPort("10.0.0.1:99"), Destination: netip.MustParseAddrPort("10.96.0.10:80")},
		Route: &RouteInfo{Service: "shop/reviews", Name: "shop/r", Rule: "0", Backend: "shop/reviews-v1"}}
	for name, want := range map[string]string{
		"request.method": "GET", "request.path": "/a/b?x=1", "request.url_path": "/a/b", "request.query": "x=1",
		"request.host": "reviews", "request.protocol": "HTTP/1.1", "request.useragent": "curl",
		"request.headers[X-TWO]": "1,2", "response.code": "204", "response.headers[server]": "us",
		"source.principal": "cluster.local/ns/web/sa/shop", "source.namespace": "web", "source.service_account": "shop",
		"source.trust_domain": "cluster.local", "source.address": "10.0.0.1",
		"destination.address": "10.96.0.10", "destination.port": "80", "destination.service": "shop/reviews",
		"route.name": "shop/r", "route.rule": "0", "route.backend": "shop/reviews-v1",
	} {
		if got, ok := s.Attr(name); got != want || !ok {
			t.Errorf("%s: got %q, %v, want %q", name, got, ok, want)
		}
		if !HasAttr(name) {
			t.Errorf("%s: HasAttr says no", name)
		}
	}
	if got, ok := s.Attr("request.headers[x-empty]"); got != "" || !ok {
		t.Errorf("an empty header: got %q, %v, want present", got, ok)
	}
	for _, name := range []string{"", "source", "source.principle", "request.headers[none]", "request.headers[", "request.id"} {
		if got, ok := s.Attr(name); ok {
			t.Errorf("%q: got %q, want nothing", name, got)
		}
	}
	for _, name := range []string{"", "source.principle", "request.headers[", "request.headers[]"} {
		if HasAttr(name) {
			t.Errorf("%q: HasAttr says yes", name)
		}
	}
	var empty Stream
	for name := range attributes {
		if got, ok := empty.Attr(name); ok {
			t.Errorf("%s of an empty stream: %q", name, got)
		}
	}
	if _, ok := empty.Attr("request.headers[a]"); ok {
		t.Error("an empty stream has headers")
	}
}
