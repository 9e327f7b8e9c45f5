package proxy

import (
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var _ filters.Engine = (*exchange)(nil)

// A phase is a phase of one of the two chains: what an exchange goes on with
// when a filter has waited.
type phase uint8

const (
	noPhase phase = iota
	serviceRequest
	routeRequest
	serviceBody
	routeBody
	routeResponse
	serviceResponse
	routeResponseBody
	serviceResponseBody
)

// wait leaves the turn. Until the filter resumes, events set flags and hold
// bytes; the heads need no copy, for they live in the exchange's messages.
func (x *exchange) wait(ph phase) {
	x.pending = ph
	gen, work := x.stream.Waiting()
	if work {
		x.p.workers.submit(func() { x.stream.RunWork(gen) })
	}
}

// Resume is called by whoever a filter waited for. That may be another stream's
// filter, in its turn and with its lane held: lanes have no order among them, so
// the exchange goes on on a goroutine of its own.
func (x *exchange) Resume(s *filters.Stream, gen uint64) { go x.comeBack(s, gen) }

// comeBack takes the lane and goes on, in a turn of its own.
func (x *exchange) comeBack(s *filters.Stream, gen uint64) {
	l, ok := x.enter()
	if !ok {
		return
	}
	p := x.p
	var t turn.Turn
	x.resume(&t, s, gen)
	l.Unlock()
	p.endTurn(&t)
}

// endTurn ends a turn on a goroutine that is no connection's: a panic there must
// not reach its top.
func (p *Proxy) endTurn(t *turn.Turn) {
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r)
		}
	}()
	t.End()
}

func (x *exchange) resume(t *turn.Turn, s *filters.Stream, gen uint64) {
	defer x.rescue(t)
	reply, ok := s.Resumed(gen)
	if !ok || x.pending == noPhase {
		return
	}
	ph := x.pending
	x.pending = noPhase
	x.stream.Spend(filters.StageFilters, t.Tick().Sub(x.began))
	x.stream.Attempts = x.attempts
	switch {
	case x.gaveUp != nil:
		x.fail(t, x.gaveUp)
		return
	case due(x.deadline, t.Tick()): // a Worker learns of it by its context, and may be quicker than the wheel
		x.fail(t, fault.Wrap(fault.UpstreamTimeout, fault.Upstream, nil))
		return
	case x.unjudged && !x.judge(t):
		return
	}
	x.goOn(t, ph, reply)
	x.runHeldRequest(t)
	if x.response.due && x.pending == noPhase && x.state == xResponding {
		x.response.due = false
		x.startResponse(t)
	}
	x.runHeldResponse(t)
}

// goOn continues a phase behind the filter that waited: calling the chain again
// does that, unless the filter has replied.
func (x *exchange) goOn(t *turn.Turn, ph phase, reply *filters.Reply) {
	if reply != nil {
		x.answered(t, ph, reply)
		return
	}
	switch ph {
	case serviceRequest:
		x.afterRequest(t, ph, x.requestPhase(x.svc.Chain))
	case routeRequest:
		x.afterRequest(t, ph, x.requestPhase(x.route.Chain))
	case routeResponse:
		x.afterResponse(t, ph, x.responsePhase(x.route.Chain))
	case serviceResponse:
		x.afterResponse(t, ph, x.responsePhase(x.svc.Chain))
	case serviceBody, routeBody:
		x.filterRequestBody(t, ph, &x.request.waits.Chunk)
		if x.pending == noPhase {
			x.request.waits.drop()
		}
		x.creditRequest(t)
	case routeResponseBody, serviceResponseBody:
		x.filterResponseBody(t, ph, &x.response.waits.Chunk)
		if x.pending == noPhase {
			x.response.waits.drop()
		}
		x.creditResponse(t)
	}
}

// A heldChunk is the chunk that a filter waits for. What it was given as is kept
// apart from Data, which a filter may point at memory of its own. An exchange
// keeps it for the requests that follow.
type heldChunk struct {
	message.Chunk
	lent []byte
}

// hold copies c, whose bytes die with the turn.
func (h *heldChunk) hold(c *message.Chunk) {
	h.lent = buf.Append(nil, c.Data)
	h.Chunk = message.Chunk{Data: h.lent, End: c.End, Trailer: c.Trailer}
}

func (h *heldChunk) drop() {
	if h != nil {
		buf.Put(h.lent)
		*h = heldChunk{}
	}
}

func (h *heldChunk) len() int {
	if h == nil {
		return 0
	}
	return len(h.lent)
}

// answered does what the phase would have done with the reply at once.
func (x *exchange) answered(t *turn.Turn, ph phase, reply *filters.Reply) {
	if ph == routeResponseBody || ph == serviceResponseBody {
		x.fail(t, faultOf(reply))
		return
	}
	x.reply(t, reply)
}
