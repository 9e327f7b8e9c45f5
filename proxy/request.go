package proxy

import (
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

const (
	// replayLimit is how much request body is kept for another attempt.
	replayLimit = 64 << 10
	// replayBudget is how much all requests together keep.
	replayBudget = 16 << 20
	// creditAt is from where on received bytes are worth a look whether they have left:
	// it takes two connections' locks. What is less waits for more, or for the end,
	// which gives back the rest; with turn.LowMark it is less than half of the smallest
	// window (FirstWindow), so nobody waits for it.
	creditAt = 2 << 10
	// discardLimit is how much of an unwanted request body is read so that the
	// connection can be kept.
	discardLimit = 64 << 10
	// discardTime is how long the client may take to send it.
	discardTime = 5 * time.Second
)

// A requestSide is the request's way through the exchange: received, held until
// filters may see it, filtered, kept for another attempt, sent.
type requestSide struct {
	filtered   bool // the head has passed the request phases
	ended      bool // the codec has told the end
	broken     bool // the client's bytes are no message from some place on
	rawEnd     bool // the end was received while raw was filled
	bodyEnd    bool // body is all there is
	once       bool // body is too long to be kept when it has been sent
	spent      bool // some of what was sent is no longer in body: no replay
	idempotent bool // the request may be repeated without harm

	owed    int        // received bytes whose credit has not gone back
	sent    int        // how much of body the attempt in progress has been given
	charged int32      // what this request counts in the budget
	head    int32      // bytes of the head as it came
	bytes   int64      // body bytes received
	raw     []byte     // received while nothing could be done with it
	body    []byte     // filtered: what this attempt has to send, and what it sent
	waits   *heldChunk // what a filter waits for; nil before one has
}

// requestChunk brings body bytes. While a filter waits they are held; what is
// held is not credited, so the client's window bounds it.
func (x *exchange) requestChunk(t *turn.Turn, c *message.Chunk) {
	if !x.may(t, evRequestChunk) {
		return
	}
	t.Event()
	x.request.ended = c.End
	x.request.bytes += int64(len(c.Data))
	x.asked.feed(c.Data)
	x.move(t)
	if x.state == xDone { // thrown away
		x.down.consume(t, len(c.Data))
		if c.End {
			x.finish(t, true)
		}
		return
	}
	x.request.owed += len(c.Data)
	if !x.request.filtered || x.pending != noPhase || len(x.request.raw) > 0 {
		x.request.raw = buf.Append(x.request.raw, c.Data)
		x.request.rawEnd = c.End
		return
	}
	x.filterRequestBody(t, serviceBody, c)
	x.creditRequest(t)
}

// runHeldRequest takes up what was held once filters may see it.
func (x *exchange) runHeldRequest(t *turn.Turn) {
	r := &x.request
	if x.pending != noPhase || !r.filtered || x.state >= xDone || r.raw == nil && !r.rawEnd {
		return
	}
	held, end := r.raw, r.rawEnd
	r.raw, r.rawEnd = nil, false
	c := message.Chunk{Data: held, End: end}
	if end && x.req.Trailer.Len() > 0 {
		c.Trailer = &x.req.Trailer
	}
	x.filterRequestBody(t, serviceBody, &c)
	buf.Put(held)
	x.creditRequest(t)
}

// filterRequestBody shows a chunk to the chains, from phase ph on, and passes
// it on.
func (x *exchange) filterRequestBody(t *turn.Turn, ph phase, c *message.Chunk) {
	if ph == serviceBody {
		if !x.requestBodyPhase(t, ph, x.svc.Chain, c) {
			return
		}
	}
	if !x.requestBodyPhase(t, routeBody, x.route.Chain, c) {
		return
	}
	x.sendBody(t, c)
}

// requestBodyPhase runs one chain's body phase, and reports whether the chunk
// goes on.
func (x *exchange) requestBodyPhase(t *turn.Turn, ph phase, chain *filters.Chain, c *message.Chunk) bool {
	if !chain.SeesRequestBody() {
		return true
	}
	x.meetFilters(stageOf[x.state])
	r := chain.RequestBody(&x.stream, c)
	x.spendNow(filters.StageFilters)
	switch r {
	case nil:
		return true
	case filters.Wait:
		x.hold(&x.request.waits, c)
		x.wait(ph)
	default:
		x.reply(t, r)
	}
	return false
}

// hold keeps a chunk for a filter that waits. It may be one that is kept
// already, for a filter before.
func (x *exchange) hold(side **heldChunk, c *message.Chunk) {
	if *side == nil {
		*side = new(heldChunk)
	}
	held := *side
	if c != &held.Chunk {
		held.hold(c)
	}
	x.stream.Hold(&held.Chunk)
}

// sendBody passes filtered bytes on: to the attempt if it stands, and into the
// buffer if it does not or if there may be another.
func (x *exchange) sendBody(t *turn.Turn, c *message.Chunk) {
	r := &x.request
	if len(c.Data) == 0 && !c.End {
		return
	}
	r.bodyEnd = c.End
	standing := x.call != nil && x.state >= xSending
	x.keepBody(c.Data, standing)
	if !standing {
		return
	}
	r.sent += len(c.Data)
	x.mustWrite(t, x.call.WriteChunk(t, c))
}

// keepBody keeps bytes that may have to be sent later or again.
func (x *exchange) keepBody(p []byte, standing bool) {
	r := &x.request
	replay := !r.spent && x.state < xStreaming && x.mayReplay(len(p))
	switch {
	case len(p) == 0:
	case !replay && standing:
		r.spent = true
		x.p.dropReplay(r)
	default:
		r.once = r.once || !replay
		r.body = buf.Append(r.body, p)
	}
}

// mayReplay charges n bytes to the replay buffers, and reports whether there
// was room.
func (x *exchange) mayReplay(n int) bool {
	r := &x.request
	if x.route.Info.Retry == nil || len(r.body)+n > replayLimit {
		return false
	}
	if x.p.replay.Add(int64(n)) > replayBudget {
		x.p.replay.Add(int64(-n))
		x.p.stats.ReplayOver.Add(1)
		return false
	}
	r.charged += int32(n)
	return true
}

// dropReplay gives up what was kept for another attempt.
func (p *Proxy) dropReplay(r *requestSide) {
	if r.charged > 0 {
		p.replay.Add(-int64(r.charged))
		r.charged = 0
	}
	buf.Put(r.body)
	r.body = nil
}

// dropBody gives up all that is held of a request.
func (p *Proxy) dropBody(r *requestSide) {
	p.dropReplay(r)
	buf.Put(r.raw)
	r.raw = nil
	r.waits.drop()
}

// creditRequest returns credit for received bytes that are held nowhere any
// more: neither here nor in the buffers towards the endpoint.
func (x *exchange) creditRequest(t *turn.Turn) {
	r := &x.request
	if r.owed < creditAt || x.state == xOver {
		return
	}
	held := len(r.raw) + r.waits.len()
	switch {
	case x.call != nil && x.state >= xSending:
		held += x.call.Buffered()
	default:
		held += len(r.body)
	}
	if n := r.owed - held; n > 0 {
		r.owed -= n
		x.down.consume(t, n)
	}
}

// requestBroken: what the client sent is no request, or stopped being one.
func (x *exchange) requestBroken(t *turn.Turn, f *fault.Fault) {
	if !x.may(t, evRequestBroken) {
		return
	}
	x.request.broken = true
	if x.state == xDone {
		x.finish(t, false)
		return
	}
	x.fail(t, f)
}
