package proxy_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy"
	msg "github.com/sandwich-mesh/sandwich/proxy/message"
)

// delay is what the tests put into one stage.
const delay = 50 * time.Millisecond

// times keeps the times of requests.
type times struct {
	mu   sync.Mutex
	all  []filters.Times
	wall []time.Duration // by a clock of the test's own
}

func (l *times) observe(o *proxy.Outcome) {
	wall := time.Since(o.Stream.Start)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, o.Stream.Times)
	l.wall = append(l.wall, wall)
}

// kept returns the times so far.
func (l *times) kept() []filters.Times {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// TestStagesOfOpening: a mesh connection that is slow to come is the pool's
// time, a node tunnel that is slow to answer is the connection's.
func TestStagesOfOpening(t *testing.T) {
	for _, row := range []struct {
		want filters.Stage
		tune func(*hbone.ServerOptions, *proxy.Options)
	}{
		{filters.StagePool, func(_ *hbone.ServerOptions, po *proxy.Options) {
			dial := po.Dial
			po.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				<-time.After(delay)
				return dial(ctx, a)
			}
		}},
		{filters.StageConnect, func(so *hbone.ServerOptions, _ *proxy.Options) {
			so.Accept = func(_ *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
				time.AfterFunc(delay, func() {
					var t turn.Turn
					hbone.Answer(&t, tun, nil)
					t.End()
				})
				return &answerer{tun: tun}, hbone.ErrLater
			}
		}},
	} {
		t.Run(row.want.String(), func(t *testing.T) {
			for range 10 { // on a machine that is busy elsewhere anything may be slow once
				first := opening(t, row.tune)
				if took := first[row.want]; took < delay {
					t.Fatalf("%v in %s: %v", took, row.want, first)
				}
				if first[filters.StagePool+filters.StageConnect-row.want] < delay/2 {
					return
				}
			}
			t.Error("the other is slow each time")
		})
	}
}

// opening returns the times of the first request of a course.
func opening(t *testing.T, tune func(*hbone.ServerOptions, *proxy.Options)) filters.Times {
	var got times
	c := newCourse(t, false, tune, func(_ *hbone.ServerOptions, po *proxy.Options) { po.Observe = got.observe })
	c.open().ask(t, 2)
	all := got.kept()
	if len(all) != 2 {
		t.Fatalf("%d requests", len(all))
	}
	if took := all[1][filters.StagePool] + all[1][filters.StageConnect]; took != 0 {
		t.Errorf("a request on an open connection waited %v for one", took)
	}
	return all[0]
}

// A sluggard is a filter that keeps a core busy in one phase. In a turn nothing
// may take long; a filter that does so all the same must show.
type sluggard struct{ in string }

func (f *sluggard) toil(phase string) *filters.Reply {
	if f.in == phase {
		for began := time.Now(); time.Since(began) < delay; {
		}
	}
	return nil
}

func (f *sluggard) Request(*filters.Stream) *filters.Reply  { return f.toil("request") }
func (f *sluggard) Response(*filters.Stream) *filters.Reply { return f.toil("response") }
func (f *sluggard) RequestBody(_ *filters.Stream, c *msg.Chunk) *filters.Reply {
	if len(c.Data) == 0 {
		return nil
	}
	return f.toil("request body")
}

func (f *sluggard) ResponseBody(_ *filters.Stream, c *msg.Chunk) *filters.Reply {
	if len(c.Data) == 0 {
		return nil
	}
	return f.toil("response body")
}

// TestStagesOfFilters: what a filter does is its time, in whatever phase.
func TestStagesOfFilters(t *testing.T) {
	for _, phase := range []string{"request", "request body", "response", "response body"} {
		t.Run(phase, func(t *testing.T) {
			var got times
			c := newCourse(t, false, func(so *hbone.ServerOptions, po *proxy.Options) {
				so.Accept = func(_ *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
					return &answerer{tun: tun, ends: "body"}, nil
				}
				po.Observe = got.observe
				po.Registry = filters.NewRegistry(filters.Kind{Name: "sluggard", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) {
					return &sluggard{phase}, nil
				}})
				po.Guard = func(b *filters.Builder, _ string) error { return b.Add("sluggard", "test", filters.NewSpec(nil)) }
			})
			a := c.open()
			a.asks = []byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
			a.ask(t, 1) // which opens connections
			var last filters.Times
			for range 20 { // on a machine that is busy elsewhere any stage may be slow once
				a.ask(t, 1)
				all := got.kept()
				last = all[len(all)-1]
				if last[filters.StageFilters] < delay {
					t.Fatalf("%v in %s", last[filters.StageFilters], filters.StageFilters)
				}
				if last.Sum()-last[filters.StageFilters] < delay/2 {
					return
				}
			}
			t.Errorf("the others are slow each time: %v", last)
		})
	}
}

// TestStagesAddUp: of requests on many connections at once, the stages are the
// wall's time within 2 % for 999 of 1,000.
func TestStagesAddUp(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes more than the 2 % between two looks at the clock")
	}
	const conns, each = 32, 100
	var got times
	c := newCourse(t, false, func(so *hbone.ServerOptions, po *proxy.Options) {
		po.Observe = got.observe
		so.Accept = func(_ *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) {
			return &answerer{tun: tun, after: 3 * time.Millisecond}, nil
		}
	})
	asks := make([]*asker, conns)
	for i := range asks {
		asks[i] = c.open()
	}
	for round := range 5 { // between two looks at the clock a busy machine may do something else
		got.all, got.wall = nil, nil
		var wg sync.WaitGroup
		for _, a := range asks {
			wg.Go(func() { a.ask(t, each) })
		}
		wg.Wait()
		off := got.off()
		if len(off) != conns*each {
			t.Fatalf("%d requests", len(off))
		}
		at := len(off)*999/1000 - 1
		t.Logf("off by %.5f in the middle, %.5f at 999 of 1,000, %.5f at worst", off[len(off)/2], off[at], off[len(off)-1])
		switch {
		case off[0] < -0.02:
			t.Fatalf("off by %.4f: the stages are more than the request took", off[0])
		case off[at] <= 0.02:
			return
		case round == 4:
			t.Errorf("off by %.4f in each round", off[at])
		}
	}
}

// off returns by how much of the wall's time the stages are less, sorted.
func (l *times) off() (off []float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.all {
		off = append(off, (float64(l.wall[i])-float64(l.all[i].Sum()))/float64(l.wall[i]))
	}
	slices.Sort(off)
	return off
}
