package proxy

import (
	"context"
	"crypto/x509"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// A source is what a warming filter needs; it answers when the test says so.
type source struct {
	asked   atomic.Int64
	once    sync.Once
	answers chan struct{} // made in the bubble
}

func (s *source) channel() chan struct{} {
	s.once.Do(func() { s.answers = make(chan struct{}) })
	return s.answers
}

// kind is "test-warm": a filter that cannot judge before the source has
// answered, and asks to be waited for.
func (s *source) kind() filters.Kind {
	return filters.Kind{Name: "test-warm", New: func(b *filters.Builder, spec filters.Spec) (filters.Filter, error) {
		f := &warming{}
		if err := spec.Decode(f); err != nil {
			return nil, err
		}
		done := b.WarmUp("an answer of its source")
		s.asked.Add(1)
		answers := s.channel()
		go func() {
			<-answers
			f.warm.Store(true)
			done()
			done() // which may be said twice
		}()
		return f, nil
	}}
}

type warming struct {
	FailOpen bool `json:"failOpen"`
	warm     atomic.Bool
}

func (f *warming) Request(*filters.Stream) *filters.Reply {
	if f.FailOpen || f.warm.Load() {
		return nil
	}
	return filters.Fail(fault.Wrap(fault.FilterFailed, fault.Local, nil))
}

// guard puts the filter before two services, of which one fails open.
func (s *source) guard(b *filters.Builder, service string) error {
	switch {
	case strings.HasPrefix(service, "shop/a:"):
		return b.Add("test-warm", "shop/closed", filters.NewSpec(map[string]any{}))
	case strings.HasPrefix(service, "shop/one:"):
		return b.Add("test-warm", "shop/open", filters.NewSpec(map[string]any{"failOpen": true}))
	}
	return nil
}

// listens has the rig's proxy serve without a listener, until the test is over.
func (r *rig) listens() {
	ctx, cancel := context.WithCancel(context.Background())
	r.t.Cleanup(cancel)
	go r.p.Serve(ctx, Listeners{})
	synctest.Wait()
}

// wantReady wants the proxy to be ready, or to wait for something with those
// words.
func (r *rig) wantReady(words string) {
	r.t.Helper()
	switch err := r.p.Ready(); {
	case err == nil && words != "":
		r.t.Errorf("ready, want it to wait for %s", words)
	case err != nil && (words == "" || !strings.Contains(err.Error(), words)):
		r.t.Errorf("got %v, want %q", err, words)
	}
}

// status asks once and returns the status.
func (r *rig) status(dest string) int {
	r.t.Helper()
	c := r.open(dest)
	c.send(get("/"))
	p, _ := c.response("GET")
	return p.StatusCode
}

// TestWarmUp: readiness waits for what filters ask to warm up.
func TestWarmUp(t *testing.T) {
	s := &source{}
	inFakeTime(t, rigOptions{registry: []filters.Kind{s.kind()}, guard: s.guard}, echo, func(r *rig) {
		r.wantReady("listeners")
		r.listens()
		r.wantReady("shop/closed: an answer of its source, shop/open: an answer of its source")
		<-time.After(3 * time.Second)
		r.wantReady("shop/closed")
		close(s.channel())
		synctest.Wait()
		r.wantReady("")
		if got := r.status(serviceA); got != 200 {
			t.Errorf("warm, and answers %d", got)
		}
		if n := r.p.stats.Cold.Load(); n != 0 {
			t.Errorf("%d counted as unfinished", n)
		}
	})
}

// TestWarmUpHasABound: a source that never answers keeps the proxy from being
// ready for five seconds, and for good only the routes that need it, by the fail
// mode of their filter.
func TestWarmUpHasABound(t *testing.T) {
	s := &source{}
	var cold []error
	o := rigOptions{registry: []filters.Kind{s.kind()}, guard: s.guard, more: func(o *Options) {
		o.OnCold = func(err error) { cold = append(cold, err) }
	}}
	inFakeTime(t, o, echo, func(r *rig) {
		defer close(s.channel())
		r.listens()
		<-time.After(DefaultWarmUp - time.Millisecond)
		r.wantReady("shop/closed")
		<-time.After(time.Millisecond)
		r.wantReady("")
		for dest, want := range map[string]int{serviceA: 500, serviceOne: 200, serviceNone: 503} {
			if got := r.status(dest); got != want {
				t.Errorf("%s: status %d, want %d", dest, got, want)
			}
		}
		if n := r.p.stats.Cold.Load(); n != 2 || len(cold) != 1 || !strings.Contains(cold[0].Error(), "shop/open") {
			t.Errorf("%d counted, told %v", n, cold)
		}
		if n := metric(r.p.Metrics, "waypoint_warming_up"); n != 2 {
			t.Errorf("%v warming", n)
		}
		// A document that brings another such filter takes nothing out of service.
		before := s.asked.Load()
		r.apply(shop)
		if s.asked.Load() == before {
			t.Fatal("no filter was built")
		}
		r.wantReady("")
	})
}

// TestWarmUpEndsWithItsChain: what a document no longer has is not waited for.
func TestWarmUpEndsWithItsChain(t *testing.T) {
	s := &source{}
	inFakeTime(t, rigOptions{registry: []filters.Kind{s.kind()}, guard: s.guard}, echo, func(r *rig) {
		defer close(s.channel())
		r.listens()
		r.wantReady("shop/closed")
		r.apply("apiVersion: sandwich-mesh.io/v1alpha1\nkind: Waypoint\nmetadata: {name: waypoint, namespace: shop}\n")
		synctest.Wait()
		r.wantReady("")
		if n := r.p.stats.Cold.Load(); n != 0 {
			t.Errorf("%d counted as unfinished", n)
		}
	})
}

// TestNotReady: each thing that is missing is named, and shutting down is one.
func TestNotReady(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		r.listens()
		r.wantReady("")
		r.p.Drain()
		r.wantReady("successor")
	})
	p := New(Options{})
	defer p.Shutdown(context.Background())
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "listeners") {
		t.Errorf("new: %v", err)
	}
	p.listening.Store(true)
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "the first document") {
		t.Errorf("without a document: %v", err)
	}
}

// metric reads a figure that the proxy hands out.
func metric(r *metrics.Registry, name string) float64 {
	found := -1.0
	r.Each(func(s *metrics.Series) {
		if s.Name == name {
			found = s.Number
		}
	})
	return found
}

// TestExpiredIsNotReady: with a certificate that has expired no handshake would
// begin, so it counts as none; a new one makes the proxy ready again.
func TestExpiredIsNotReady(t *testing.T) {
	var certs *hbone.Certificates
	renew := func(t *testing.T) {
		ca, err := devca.New("root")
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/waypoint"}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
		if err != nil {
			t.Fatal(err)
		}
		creds, err := hbone.ParsePEM(hbone.PEM{Chain: leaf.Chain, Key: leaf.Key, Roots: ca.PEM()})
		if err != nil {
			t.Fatal(err)
		}
		certs.Set(creds)
	}
	o := rigOptions{more: func(o *Options) {
		certs, _ = hbone.NewCertificates(hbone.CertificatesOptions{})
		o.Certificates = certs
	}}
	inFakeTime(t, o, echo, func(r *rig) {
		r.listens()
		r.wantReady("a certificate")
		renew(r.t)
		r.wantReady("")
		<-time.After(time.Hour - time.Second)
		r.wantReady("")
		<-time.After(2 * time.Second)
		r.wantReady("expired at")
		renew(r.t)
		r.wantReady("")
	})
}
