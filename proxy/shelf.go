package proxy

import (
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// keepOwn is how much of a kind an event loop keeps for itself: what a turn uses.
const keepOwn = turn.MaxEvents

// A shelf is what an event loop keeps from turn to turn. It takes no lock, and has
// what was used last at hand first; what is too much for it goes to the pools,
// where the collector finds it. BenchmarkShelf: 22 → 6 ns.
type shelf struct {
	p         *Proxy
	exchanges []*exchange
	responses []*message.Response
}

// shelf returns that of the turn's loop, or nil.
func (p *Proxy) shelf(t *turn.Turn) *shelf {
	at := t.Shelf()
	if at == nil {
		return nil
	}
	if s, ok := (*at).(*shelf); ok && s.p == p {
		return s
	}
	return p.newShelf(at)
}

// newShelf takes a place that nobody has.
func (p *Proxy) newShelf(at *any) *shelf {
	if *at != nil {
		return nil
	}
	s := &shelf{p: p}
	*at = s
	return s
}

// pop takes the last of a list; nil if there is none.
func pop[T any](list *[]*T) *T {
	n := len(*list) - 1
	if n < 0 {
		return nil
	}
	x := (*list)[n]
	*list = (*list)[:n]
	return x
}

// push puts x on a list unless that is full.
func push[T any](list *[]*T, x *T) bool {
	if len(*list) >= keepOwn {
		return false
	}
	*list = append(*list, x)
	return true
}

// lendExchange returns an exchange that is not in use.
func (p *Proxy) lendExchange(t *turn.Turn) *exchange {
	if s := p.shelf(t); s != nil {
		if x := pop(&s.exchanges); x != nil {
			return x
		}
	}
	return p.exchanges.Get().(*exchange)
}

func (p *Proxy) returnExchange(t *turn.Turn, x *exchange) {
	if s := p.shelf(t); s == nil || !push(&s.exchanges, x) {
		p.exchanges.Put(x)
	}
}

// lendResponse returns an empty message.
func (p *Proxy) lendResponse(t *turn.Turn) *message.Response {
	if s := p.shelf(t); s != nil {
		if r := pop(&s.responses); r != nil {
			return r
		}
	}
	return p.responses.Get().(*message.Response)
}

func (p *Proxy) returnResponse(t *turn.Turn, r *message.Response) {
	if s := p.shelf(t); s == nil || !push(&s.responses, r) {
		p.responses.Put(r)
	}
}
