package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// TestReviewOfConnections: ConnFilters are asked about connections of requests too.
// Idle ones are ended in order, those with a request by an answer if one is due.
func TestReviewOfConnections(t *testing.T) {
	for _, again := range []bool{true, false} {
		j := &connJudge{}
		inFakeTime(t, judged(j, shop), func(a *app) { a.request(); a.request() }, func(r *rig) {
			idle, half, busy, two := r.open(serviceA), r.open(serviceA), r.open(serviceA), r.open2(serviceA)
			half.send("GET / HT")
			busy.send(get("/"))
			two.head(1, true, getHead("/")...)
			two.want()
			if again {
				j.refuse = func(*filters.Conn) bool { return true }
			}
			j.asked = nil
			r.apply(shop)
			pass(time.Second)
			if len(j.asked) != 4 {
				t.Errorf("asked %d times", len(j.asked))
			}
			if !again { // the control
				if idle.fin.Load() || half.fin.Load() || busy.fin.Load() || two.fin.Load() || len(r.seen) > 0 {
					t.Error("a connection that may stay has ended")
				}
				return
			}
			if !idle.fin.Load() || idle.take() != "" {
				t.Error("an idle connection goes on")
			}
			for _, c := range []*client{half, busy} {
				c.wantStatus(403)
				if !c.fin.Load() {
					t.Error("a connection with a request goes on")
				}
			}
			two.pull()
			if got := strings.Join(two.frames, "|"); !strings.HasPrefix(got, "head 1 :status=403") || !strings.Contains(got, "goaway 1 INADEQUATE_SECURITY") {
				t.Errorf("got %s", got)
			}
			if !two.fin.Load() {
				t.Error("a connection of HTTP/2 goes on")
			}
			for _, o := range r.seen {
				if o.kind != fault.Revoked {
					t.Errorf("got %v", o)
				}
			}
			if len(r.seen) != 3 {
				t.Errorf("%d requests are over", len(r.seen))
			}
		})
	}
}

// TestReviewMeetsOpening: a connection that is let in by a document and found by
// nobody when the next comes is judged as it opens.
func TestReviewMeetsOpening(t *testing.T) {
	for _, dest := range []string{serviceA, tcpService, guessService, tlsByName} {
		j := &connJudge{}
		doc := harbour
		if dest == serviceA {
			doc = shop
		}
		var r *rig
		meet := func(c *filters.Conn) bool {
			if len(j.asked) == 1 { // the first look: now comes the next document, and looks at nobody
				r.apply(doc)
			}
			return len(j.asked) > 1
		}
		inFakeTime(t, judged(j, doc), parrot, func(rr *rig) {
			r = rr
			j.refuse = meet
			c, err := r.tryOpen(dest)
			synctest.Wait()
			refused := err != nil
			for _, a := range c.answers {
				refused = refused || a != nil
			}
			if !refused && !c.aborted.Load() && !c.fin.Load() {
				t.Errorf("%s: a connection that the document refuses is open; asked %q", dest, j.asked)
			}
			if n := len(r.p.live); n != 0 && !c.fin.Load() {
				t.Errorf("%s: %d connections are remembered", dest, n)
			}
		})
	}
}

// A slow connection is one that a review takes a while for.
type slowConn struct {
	liveConn
	n     int
	flush func(n int)
}

func (c *slowConn) review(r *review) {
	r.t.Event()
	r.t.Mark(c)
}
func (c *slowConn) Flush(*turn.Turn) { c.flush(c.n) }

// TestReviewWorksInTurns: what a review ended is flushed before it has been through
// thousands of others, and others have the processor meanwhile.
func TestReviewWorksInTurns(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		const all = 5000
		var reviewed, flushed, most int
		for n := range all {
			c := &slowConn{n: n}
			c.flush = func(int) { flushed++ }
			r.p.remember(&countedConn{c, func() {
				reviewed++
				most = max(most, reviewed-flushed)
			}})
		}
		r.p.reviewAll()
		if reviewed != all || flushed != all {
			t.Errorf("%d reviewed, %d flushed", reviewed, flushed)
		}
		if most > turn.MaxEvents {
			t.Errorf("%d ended before the first of them was told", most)
		}
		clear(r.p.live)
	})
}

// A countedConn says when it is reviewed.
type countedConn struct {
	*slowConn
	count func()
}

func (c *countedConn) review(r *review) { c.count(); c.slowConn.review(r) }

// TestFailedClosedReviews: a policy that fails closed ends what is under way too.
func TestFailedClosedReviews(t *testing.T) {
	broken := false
	o := rigOptions{registry: kinds(filtertest.Deny()), guard: func(b *filters.Builder, _ string) error {
		if broken {
			return fmt.Errorf("no policy can be made: %w", io.ErrUnexpectedEOF)
		}
		return nil
	}}
	inFakeTime(t, o, mirror, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerAt("/"))
		c.wantSwitch()
		r.apply(shop)
		if _, ended := r.endedIn(time.Second); ended {
			t.Fatal("it ended before")
		}
		broken = true
		r.apply(shop)
		if o, ended := r.endedIn(time.Second); !ended || o.kind != fault.Revoked {
			t.Errorf("ended %v: %v", ended, o)
		}
	})
}

// BenchmarkReview: what it costs to judge a request again that may go on. Ten
// thousand of them take as many times that, and nobody waits for more than one.
func BenchmarkReview(b *testing.B) {
	o := guarded("", judgedNever{})
	x := over(b, Options{Registry: filters.NewRegistry(o.registry...), Guard: o.guard})
	c, _ := config.Decode(config.File{Name: "test.yaml", Data: []byte(shop)})
	x.p.Apply(c)
	x.state = xStreaming
	x.req.SetMethod([]byte("GET"))
	x.req.SetPath([]byte("/api/v1/items"))
	for _, name := range []string{"user-agent", "accept", "accept-encoding", "authorization", "traceparent"} {
		x.req.Header.Add(name, "something of the usual length")
	}
	x.keepHead()
	r := &review{p: x.p, snap: x.p.pin(), t: new(turn.Turn)}
	defer r.snap.Unpin()
	svc := r.snap.Services()[0]
	b.ReportAllocs()
	for b.Loop() {
		x.review(r, svc)
		r.pause()
	}
	if x.p.stats.Revoked.Load() > 0 || x.p.stats.Reviewed.Load() == 0 {
		b.Errorf("%d judged, %d refused", x.p.stats.Reviewed.Load(), x.p.stats.Revoked.Load())
	}
}

// judgedNever refuses nobody.
type judgedNever struct{}

func (judgedNever) Request(*filters.Stream) *filters.Reply { return nil }
func (judgedNever) Review(*filters.Stream) error           { return nil }
