package proxy

import (
	"math/rand/v2"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// keepOwn is how much of a kind an event loop keeps for itself: what a turn uses.
const keepOwn = turn.MaxEvents

// A shelf is what an event loop keeps from turn to turn. It takes no lock, and has
// what was used last at hand first; what is too much for it goes to the pools,
// where the collector finds it. BenchmarkShelf: 22 → 6 ns;
// BenchmarkObserve, with what is counted: 162 → 99 ns.
type shelf struct {
	p         *Proxy
	exchanges []*exchange
	responses []*message.Response

	chunk    message.Chunk // of a response that was put off; empty but in its step
	outcome  Outcome       // of the request that was over last; empty between turns
	requests int64         // that are over and not counted yet; those of the tally among them
	tally    measure.Tally
	random   rand.PCG // BenchmarkIdentify
}

var _ turn.Flusher = (*shelf)(nil)

// over is count by the loop's own turn.
func (s *shelf) over(t *turn.Turn, r *measure.Request) {
	if s.requests++; s.requests == 1 {
		t.First(s)
	}
	if r != nil {
		s.tally.Request(r)
	}
}

// Flush hands on what was counted, before the turn's last bytes leave: who has an
// answer finds it among the metrics.
func (s *shelf) Flush(*turn.Turn) {
	s.p.stats.Requests.Add(s.requests)
	s.requests, s.outcome = 0, Outcome{} // it refers to a snapshot
	s.tally.Flush()
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
	s := &shelf{p: p, tally: p.meter.Tally()}
	s.random.Seed(rand.Uint64(), rand.Uint64())
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

// What follows takes the turn's shelf, or nil.

// uint64 returns a random number that is no secret.
func (s *shelf) uint64() uint64 {
	if s == nil {
		return rand.Uint64()
	}
	return s.random.Uint64()
}

// lendExchange returns an exchange that is not in use.
func (p *Proxy) lendExchange(s *shelf) *exchange {
	if s != nil {
		if x := pop(&s.exchanges); x != nil {
			return x
		}
	}
	return p.exchanges.Get().(*exchange)
}

func (p *Proxy) returnExchange(s *shelf, x *exchange) {
	if s == nil || !push(&s.exchanges, x) {
		p.exchanges.Put(x)
	}
}

// lendResponse returns an empty message.
func (p *Proxy) lendResponse(s *shelf) *message.Response {
	if s != nil {
		if r := pop(&s.responses); r != nil {
			return r
		}
	}
	return p.responses.Get().(*message.Response)
}

func (p *Proxy) returnResponse(s *shelf, r *message.Response) {
	if s == nil || !push(&s.responses, r) {
		p.responses.Put(r)
	}
}

// lendOutcome returns an outcome to be filled. On the stack it would escape: who
// observes is not known.
func (p *Proxy) lendOutcome(s *shelf) *Outcome {
	if s != nil {
		return &s.outcome // a loop observes one after the other
	}
	return p.outcomes.Get().(*Outcome)
}

func (p *Proxy) returnOutcome(s *shelf, o *Outcome) {
	if s == nil {
		*o = Outcome{}
		p.outcomes.Put(o)
	}
}

// lendChunk returns a chunk for a step. On the stack it would escape to the filters.
func lendChunk(s *shelf) *message.Chunk {
	if s != nil {
		return &s.chunk
	}
	return new(message.Chunk)
}

// count counts a request that is over; r says of what kind it was, or is nil.
func (p *Proxy) count(t *turn.Turn, s *shelf, r *measure.Request) {
	if s != nil {
		s.over(t, r)
		return
	}
	p.stats.Requests.Add(1)
	if r != nil {
		p.meter.Request(r)
	}
}
