package proxy

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// A policy refuses requests by their path and by what its claims say, and judges
// them again if it has a Review. Its rules are read as the document's would be.
type policy struct {
	mu      sync.Mutex
	refuses string // paths that begin so; "" is none
	asked   []string
}

func (p *policy) refuse(prefix string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses, p.asked = prefix, nil
}

func (p *policy) was() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.asked)
	return p.asked
}

func (p *policy) judge(s *filters.Stream) *fault.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, string(s.Request.Path))
	if p.refuses != "" && strings.HasPrefix(string(s.Request.Path), p.refuses) {
		return fault.Wrap(fault.PolicyDenied, fault.Local, nil)
	}
	return nil
}

// judgedOnce judges a request when it comes, and never again.
type judgedOnce struct{ *policy }

func (f judgedOnce) Request(s *filters.Stream) *filters.Reply {
	if err := f.judge(s); err != nil {
		return filters.Fail(err)
	}
	return nil
}

// judgedAgain is the same with a Review.
type judgedAgain struct{ judgedOnce }

func (f judgedAgain) Review(s *filters.Stream) error {
	if err := f.judge(s); err != nil {
		return err
	}
	return nil
}

var _ filters.ReviewFilter = judgedAgain{}

// guarded returns a rig for a document that is guarded by a filter.
func guarded(doc string, f filters.Filter) rigOptions {
	kind := filters.Kind{Name: "policy", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return f, nil }}
	return rigOptions{doc: doc, registry: kinds(kind), guard: guardWith("policy", nil)}
}

// offerAt asks for a WebSocket.
func offerAt(path string) string { return strings.Replace(offerOf("websocket"), "/chat", path, 1) }

// endedIn lets time pass, and takes the first request that is over.
func (r *rig) endedIn(d time.Duration) (o outcome, ok bool) {
	pass(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) == 0 {
		return o, false
	}
	o = r.seen[0]
	r.seen = r.seen[1:]
	return o, true
}

// A long is a client's request that lasts, and how to see that it still does.
type long struct {
	name string
	doc  string
	app  func(*app)
	open func(r *rig, path string) (alive func() bool, code func() uint32)
}

// longs are what may outlive a document by requests.
func longs() []long {
	h1 := func(c *client, sends, wants string) func() bool {
		return func() bool { c.send(sends); return !c.aborted.Load() && !c.fin.Load() && c.take() == wants }
	}
	h2 := func(c *client2) func() bool {
		return func() bool {
			c.data(1, "again", false)
			c.flush()
			c.pull()
			got := c.frames
			c.frames = nil
			return slices.Equal(got, []string{`data 1 "again"`})
		}
	}
	codeOf2 := func(c *client2) func() uint32 {
		return func() uint32 {
			c.pull()
			for _, f := range c.frames {
				if f == "reset 1 INADEQUATE_SECURITY" {
					return 12
				}
			}
			c.talker.t.Logf("frames %q", c.frames)
			return 0
		}
	}
	return []long{
		{"a WebSocket", shop, mirror, func(r *rig, path string) (func() bool, func() uint32) {
			c := r.open(serviceA)
			c.send(offerAt(path))
			c.wantSwitch()
			return h1(c, "again", "again"), func() uint32 { return c.code }
		}},
		{"a long response", shop, func(a *app) {
			defer a.Close()
			if q, _ := a.request(); q == nil {
				return
			}
			a.send("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
			for {
				if _, err := a.Conn.Write([]byte("1\r\nx\r\n")); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		}, func(r *rig, path string) (func() bool, func() uint32) {
			c := r.open(serviceA)
			c.send(get(path))
			return func() bool { c.take(); <-time.After(2 * time.Second); return c.take() != "" }, func() uint32 { return c.code }
		}},
		{"a stream of HTTP/2", doc2(""), speaks2(echo2), func(r *rig, path string) (func() bool, func() uint32) {
			c := r.open2(serviceTwo)
			c.head(1, false, postHead(path)...)
			c.flush()
			c.pull()
			c.frames = nil
			return h2(c), codeOf2(c)
		}},
		{"a WebSocket in HTTP/2", doc2(""), ws1(goodProof), func(r *rig, path string) (func() bool, func() uint32) {
			c := r.open2(serviceToOne)
			head := connectHead()
			for i := range head {
				if strings.HasPrefix(head[i], ":path:") {
					head[i] = ":path: " + path
				}
			}
			c.head(1, false, head...)
			c.flush()
			c.pull()
			c.frames = nil
			return h2(c), func() uint32 {
				c.pull()
				if len(c.frames) == 1 && strings.HasPrefix(c.frames[0], "reset 1 ") {
					return hbone.CodeConnect
				}
				return 0
			}
		}},
	}
}

// TestReview: of what lasts, a new document ends what it would refuse, within a
// second, and nothing else.
func TestReview(t *testing.T) {
	for _, row := range longs() {
		t.Run(row.name, func(t *testing.T) {
			p := &policy{}
			inFakeTime(t, guarded(row.doc, judgedAgain{judgedOnce{p}}), row.app, func(r *rig) {
				stays, _ := row.open(r, "/stays")
				goes, code := row.open(r, "/goes")
				if !stays() || !goes() {
					t.Fatal("they do not begin")
				}
				p.refuse("/nobody")
				r.apply(row.doc)
				if got := p.was(); !slices.Equal(got, []string{"/goes", "/stays"}) {
					t.Errorf("asked about %q", got)
				}
				if !stays() || !goes() {
					t.Fatal("a document that refuses nobody ended something")
				}
				p.refuse("/goes")
				r.apply(row.doc)
				o, ok := r.endedIn(time.Second)
				if !ok {
					t.Fatal("what would be refused lives on")
				}
				if o.kind != fault.Revoked || code() == 0 {
					t.Errorf("got %v, reset with %d", o, code())
				}
				if !stays() {
					t.Error("what would be accepted has ended")
				}
				if _, more := r.endedIn(5 * time.Second); more || !stays() {
					t.Error("what would be accepted ended later")
				}
				if n := r.p.stats.Revoked.Load(); n != 1 {
					t.Errorf("%d counted as revoked", n)
				}
				if n := r.p.stats.Faults[fault.Revoked].Load(); n != 1 {
					t.Errorf("%d faults counted", n)
				}
			})
		})
	}
}

// TestReviewIsAskedFor is the control: what a filter without a Review has let in
// lives on under a document that would refuse it, and costs no look.
func TestReviewIsAskedFor(t *testing.T) {
	for _, row := range longs() {
		t.Run(row.name, func(t *testing.T) {
			p := &policy{}
			inFakeTime(t, guarded(row.doc, judgedOnce{p}), row.app, func(r *rig) {
				alive, _ := row.open(r, "/goes")
				p.refuse("/goes")
				before := r.p.stats.Reviewed.Load()
				r.apply(row.doc)
				if _, ended := r.endedIn(5 * time.Second); ended || !alive() {
					t.Error("it has ended")
				}
				if n := r.p.stats.Reviewed.Load() - before; n != 1 || len(p.was()) != 0 {
					t.Errorf("%d looks, asked about %q: want one at the connection", n, p.was())
				}
				c := r.open(map[string]string{shop: serviceA, doc2(""): serviceTwo}[row.doc])
				c.send(get("/goes")) // which shows that the document is in force
				c.wantStatus(403)
			})
		})
	}
}

// TestReviewOfUpload: a request that has no answer yet is answered.
func TestReviewOfUpload(t *testing.T) {
	p := &policy{}
	inFakeTime(t, guarded(shop, judgedAgain{judgedOnce{p}}), echo, func(r *rig) {
		open := func(path string) *client {
			c := r.open(serviceA)
			c.send("POST " + path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000))
			return c
		}
		stays, goes := open("/stays"), open("/goes")
		p.refuse("/goes")
		r.apply(shop)
		goes.wantStatus(403)
		if pass(time.Second); !goes.fin.Load() {
			t.Error("the connection goes on")
		}
		if o := r.outcome(); o.kind != fault.Revoked || o.status != 403 {
			t.Errorf("got %v", o)
		}
		stays.send(strings.Repeat("x", 999_000))
		stays.wantStatus(200)
	})
}

// TestReviewOfHalfAHead: a request that is half there is judged by the document
// of the moment at which it is whole.
func TestReviewOfHalfAHead(t *testing.T) {
	p := &policy{}
	inFakeTime(t, guarded(shop, judgedAgain{judgedOnce{p}}), echo, func(r *rig) {
		c := r.open(serviceA)
		c.send("GET /moved HTTP/1.1\r\n")
		r.apply(strings.Replace(shop, "endpoints: [{workload: a-1}, {workload: a-2}]", "endpoints: []", 1))
		if old := r.p.Snapshot(); c.h.(*inner).snap != old {
			t.Error("the connection keeps the old snapshot")
		}
		c.send("Host: a\r\n\r\n")
		c.wantStatus(503) // by the new document there is nobody to answer
	})
}

// TestReviewSeesTheHeadAsItCame: a policy about a path is asked for the path that
// the client sent, whatever filters have made of it since.
func TestReviewSeesTheHeadAsItCame(t *testing.T) {
	rewrite := filters.Kind{Name: "rewrite", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return rewriter{}, nil }}
	p := &policy{}
	o := guarded(shop, judgedAgain{judgedOnce{p}})
	o.registry = append(o.registry, rewrite)
	o.guard = func(b *filters.Builder, _ string) error {
		if err := b.Add("rewrite", "test", filters.NewSpec(nil)); err != nil { // before the policy, which is new
			return err
		}
		return b.Add("policy", "test", filters.NewSpec(nil))
	}
	inFakeTime(t, o, mirror, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerAt("/as/it/came"))
		c.wantSwitch()
		if got := p.was(); !slices.Equal(got, []string{"/rewritten"}) {
			t.Fatalf("the policy was asked about %q", got)
		}
		p.refuse("/nobody")
		r.apply(shop)
		if got := p.was(); !slices.Equal(got, []string{"/as/it/came"}) {
			t.Errorf("the review is about %q", got)
		}
		c.end()
		r.outcome()
	})
}

type rewriter struct{}

func (rewriter) Request(s *filters.Stream) *filters.Reply {
	s.Request.SetPath([]byte("/rewritten"))
	return nil
}

// A claimer verifies and a claimant decides by what was verified, as a filter for
// tokens and one for policies do.
type (
	claimer  struct{ slot filters.Slot[string] }
	claimant struct {
		slot *filters.Slot[string]
		want *string
	}
)

func (f *claimer) claim(s *filters.Stream) {
	v := s.Request.Header.Get("x-token")
	f.slot.Set(s, &v)
}

func (f *claimer) Request(s *filters.Stream) *filters.Reply { f.claim(s); return nil }
func (f *claimer) Review(s *filters.Stream) error           { f.claim(s); return nil }

func (f *claimant) Request(*filters.Stream) *filters.Reply { return nil }
func (f *claimant) Review(s *filters.Stream) error {
	if got := f.slot.Get(s); got == nil || *got != *f.want {
		return fault.Wrap(fault.Unauthentic, fault.Local, nil)
	}
	return nil
}

// TestReviewHasSlots: filters of the new document tell one another in a review
// what they tell one another in the request phase.
func TestReviewHasSlots(t *testing.T) {
	want := "good"
	var last *claimer
	o := rigOptions{registry: kinds(
		filters.Kind{Name: "claimer", New: func(b *filters.Builder, _ filters.Spec) (filters.Filter, error) {
			last = &claimer{filters.NewSlot[string](b)}
			return last, nil
		}},
		filters.Kind{Name: "claimant", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) {
			return &claimant{&last.slot, &want}, nil
		}},
	), guard: func(b *filters.Builder, _ string) error {
		if err := b.Add("claimer", "test", filters.NewSpec(nil)); err != nil {
			return err
		}
		return b.Add("claimant", "test", filters.NewSpec(nil))
	}}
	inFakeTime(t, o, mirror, func(r *rig) {
		c := r.open(serviceA)
		c.send(strings.Replace(offerAt("/"), "Host: a\r\n", "Host: a\r\nX-Token: good\r\n", 1))
		c.wantSwitch()
		r.apply(shop)
		if _, ended := r.endedIn(time.Second); ended {
			t.Fatal("it ended while its token is good")
		}
		want = "better"
		r.apply(shop)
		if o, ended := r.endedIn(time.Second); !ended || o.kind != fault.Revoked {
			t.Errorf("ended %v: %v", ended, o)
		}
	})
}

// A held filter waits in the request phase for as long as the test likes.
type held struct {
	judgedAgain
	gate chan struct{}
}

func (f *held) Request(*filters.Stream) *filters.Reply { return filters.Wait }
func (f *held) Work(_ context.Context, s *filters.Stream, _ filters.Phase) *filters.Reply {
	s.Request.SetPath([]byte("/by/the/worker"))
	<-f.gate
	return nil
}

// TestReviewWaitsForWorkers: while a Worker has a request nobody looks at its head;
// it is judged when the Worker has returned, and before a byte goes anywhere.
func TestReviewWaitsForWorkers(t *testing.T) {
	for refuses, want := range map[string]int{"/nobody": 200, "/goes": 403} {
		p := &policy{}
		f := &held{judgedAgain: judgedAgain{judgedOnce{p}}}
		inFakeTime(t, guarded(shop, f), echo, func(r *rig) {
			f.gate = make(chan struct{})
			c := r.open(serviceA)
			c.send(get("/goes"))
			p.refuse(refuses)
			r.apply(shop)
			if got := p.was(); len(got) != 0 {
				t.Errorf("asked about %q while a Worker has the request", got)
			}
			close(f.gate)
			synctest.Wait()
			if got := p.was(); !slices.Equal(got, []string{"/goes"}) {
				t.Errorf("asked about %q", got)
			}
			c.wantStatus(want)
			if reached := len(r.apps) > 0; reached != (want == 200) {
				t.Errorf("%s: an endpoint was connected: %v", refuses, reached)
			}
		})
	}
}

// A wicked filter has a bug in its review.
type wicked struct{}

func (wicked) Request(*filters.Stream) *filters.Reply { return nil }
func (wicked) Review(*filters.Stream) error           { panic("a bug") }

// TestReviewPanics: a review that panics costs its request and no other, and fails
// closed.
func TestReviewPanics(t *testing.T) {
	inFakeTime(t, guarded(shop, wicked{}), mirror, func(r *rig) {
		c, d := r.open(serviceA), r.open(serviceA)
		c.send(offerAt("/"))
		c.wantSwitch()
		r.apply(shop)
		if o, ended := r.endedIn(time.Second); !ended || o.kind != fault.FilterTrapped {
			t.Errorf("ended %v: %v", ended, o)
		}
		if len(r.panics) != 1 {
			t.Errorf("%d panics were told of", len(r.panics))
		}
		d.send(offerAt("/"))
		d.wantSwitch()
		d.end()
	})
}
