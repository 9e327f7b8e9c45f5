package proxy

import (
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
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

// Resume is called by whoever a filter waited for, on any goroutine and with no
// lock held. It comes back as a turn of its own.
func (x *exchange) Resume(s *filters.Stream, gen uint64) {
	l, ok := x.enter()
	if !ok {
		return
	}
	var t turn.Turn
	x.resume(&t, s, gen)
	l.Unlock()
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
	if f := x.gaveUp; f != nil {
		x.gaveUp = nil
		x.fail(t, f)
		return
	}
	x.goOn(t, ph, reply)
	x.runHeldRequest(t)
	if x.response.waits && x.pending == noPhase && x.state == xResponding {
		x.response.waits = false
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
		x.afterRequest(t, ph, x.svc.Chain.Request(&x.stream))
	case routeRequest:
		x.afterRequest(t, ph, x.route.Chain.Request(&x.stream))
	case routeResponse:
		x.afterResponse(t, ph, x.route.Chain.Response(&x.stream))
	case serviceResponse:
		x.afterResponse(t, ph, x.svc.Chain.Response(&x.stream))
	case serviceBody, routeBody:
		c := x.request.chunk
		x.filterRequestBody(t, ph, &x.request.chunk)
		if x.pending == noPhase {
			x.request.chunk.Data = nil
			buf.Put(c.Data)
		}
		x.creditRequest(t)
	case routeResponseBody, serviceResponseBody:
		c := x.response.chunk
		x.filterResponseBody(t, ph, &x.response.chunk)
		if x.pending == noPhase {
			x.response.chunk.Data = nil
			buf.Put(c.Data)
		}
		x.creditResponse(t)
	}
}

// answered does what the phase would have done with the reply at once.
func (x *exchange) answered(t *turn.Turn, ph phase, reply *filters.Reply) {
	if ph == routeResponseBody || ph == serviceResponseBody {
		x.fail(t, faultOf(reply))
		return
	}
	x.reply(t, reply)
}
