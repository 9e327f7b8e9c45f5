package proxy

import (
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A step is what an exchange has put off until the read that brought it has been
// taken apart: the requests of a read are parsed one after the other, then judged one
// after the other, and then sent; responses are parsed, passed on, and ended. Each is
// as much code as a processor's nearest cache holds, or the half of it that one of two
// threads on a core has. BenchmarkWaypoint/8×32, least of many, with what a loop
// counts found sooner: 5.35 → 4.96 µs; what sending and ending for themselves gain is
// in RATIONALE.md.
//
// Only what is whole is put off: a request without a body, a response whose body has
// come with its head. Whoever comes in between, from another goroutine, does the
// step first, or gives it up with the attempt.
type step uint8

const (
	noStep   step = iota
	toJudge       // the request, from its phases on
	toSend        // the request: its phases have let it pass
	toAnswer      // the response: its head
	toFinish      // the response: its head, and the body that came with it
	toEnd         // the exchange: the response has been written
	toReturn      // nothing: only then may the exchange go back to the pool
)

// putOff puts a step off, until the bytes that were read are about to go, and all
// that was put off before has been done.
func (x *exchange) putOff(t *turn.Turn, s step) {
	x.step, x.queued = s, true
	t.Later(x)
}

// mayPutOff reports whether the turn will come back to the exchange. A turn that does
// not last has one connection's bytes only, and gains nothing.
func (x *exchange) mayPutOff(t *turn.Turn) bool {
	return t.Feeding() && x.mayWait(t)
}

// mayPutOffMore is mayPutOff for what follows such a step. Those of other exchanges
// come before it.
func (x *exchange) mayPutOffMore(t *turn.Turn) bool {
	return t.CatchingUp() && x.mayWait(t)
}

func (x *exchange) mayWait(t *turn.Turn) bool {
	return t.Shelf() != nil && !x.queued && x.pending == noPhase
}

// Late does the step that was put off, if nobody has done so and nobody has given
// it up.
func (x *exchange) Late(t *turn.Turn) {
	l := x.lane
	l.Lock()
	x.queued = false
	x.catchUp(t)
	l.Unlock()
}

// Broke ends an exchange whose step has panicked.
func (x *exchange) Broke(t *turn.Turn, v any) {
	defer x.lane.Unlock()
	x.rescued(t, v)
}

// catchUp does the step that was put off.
func (x *exchange) catchUp(t *turn.Turn) {
	s := x.step
	x.step = noStep
	switch s {
	case toJudge:
		x.judgeHead(t)
	case toSend:
		x.pass(t)
	case toAnswer:
		x.responseHead(t)
	case toFinish:
		x.answerWhole(t)
	case toEnd:
		x.finish(t, x.request.ended)
	case toReturn:
		t.Notify(x)
	}
}

// answerWhole is responseHead, and responseChunk of the body that came with it.
func (x *exchange) answerWhole(t *turn.Turn) {
	r := &x.response
	body := r.local
	r.whole = true
	x.responseHead(t)
	r.whole = false
	if !r.ours {
		r.local = nil
	}
	if x.receives() { // else it has been sent, or is not wanted
		c := lendChunk(x.p.shelf(t))
		*c = message.Chunk{Data: body, End: true}
		if x.resp.Trailer.Len() > 0 {
			c.Trailer = &x.resp.Trailer
		}
		x.responseChunk(t, c)
		*c = message.Chunk{} // a view kept here would keep a buffer alive
	}
}

// receives reports whether the endpoint's response is the one that the client gets:
// its head has led neither to another attempt nor to an answer of ours.
func (x *exchange) receives() bool {
	return (x.state == xResponding || x.state == xStreaming) && !x.response.ours
}
