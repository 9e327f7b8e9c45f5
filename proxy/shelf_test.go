package proxy

import (
	"context"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// bare returns a proxy that serves nothing.
func bare(tb testing.TB) *Proxy {
	p := New(Options{})
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Shutdown(ctx)
	})
	return p
}

// TestShelf: a loop's turn gets back what it returned, last first and so many at
// most; other turns, and those of another proxy's loop, use the pools.
func TestShelf(t *testing.T) {
	p, other := bare(t), bare(t)
	var loop, passing turn.Turn
	loop.Last()
	var all []*exchange
	for range keepOwn + 1 {
		all = append(all, p.lendExchange(p.shelf(&loop)))
	}
	for _, x := range all {
		p.returnExchange(p.shelf(&loop), x)
	}
	if n := len(p.shelf(&loop).exchanges); n != keepOwn {
		t.Errorf("%d exchanges are on the shelf, want %d", n, keepOwn)
	}
	for i := keepOwn - 1; i >= 0; i-- {
		if p.lendExchange(p.shelf(&loop)) != all[i] {
			t.Fatalf("exchange %d is not the next", i)
		}
	}
	r := p.lendResponse(p.shelf(&loop))
	p.returnResponse(p.shelf(&loop), r)
	if p.lendResponse(p.shelf(&loop)) != r {
		t.Error("the message did not come back")
	}
	if p.shelf(&passing) != nil || other.shelf(&loop) != nil {
		t.Error("a turn that does not last, or is another proxy's, has a shelf")
	}
	other.returnExchange(other.shelf(&loop), other.lendExchange(other.shelf(&loop)))
	p.returnExchange(p.shelf(&passing), p.lendExchange(p.shelf(&passing)))
}

// BenchmarkShelf takes and returns as many exchanges as a turn's read of a busy
// connection begins.
func BenchmarkShelf(b *testing.B) {
	p := bare(b)
	for _, row := range []struct {
		name  string
		lasts bool
	}{{"loop", true}, {"pool", false}} {
		b.Run(row.name, func(b *testing.B) {
			var t turn.Turn
			if row.lasts {
				t.Last()
			}
			var taken [32]*exchange
			for b.Loop() {
				for i := range taken {
					taken[i] = p.lendExchange(p.shelf(&t))
				}
				for _, x := range taken {
					p.returnExchange(p.shelf(&t), x)
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(len(taken)), "ns/exchange")
		})
	}
}
