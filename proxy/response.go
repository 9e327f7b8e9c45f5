package proxy

import (
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A responseSide is the response's way through the exchange: received, held
// while a filter waits, filtered, sent.
type responseSide struct {
	ended  bool       // the head has said that no body follows
	due    bool       // the head has come while a filter waited: its phases are to run
	ours   bool       // the response is a Reply, not the endpoint's
	rawEnd bool       // the end was received while raw was filled
	whole  bool       // local is the endpoint's body, which came with the head
	status int32      // of the head that went downstream
	head   int32      // bytes of it
	owed   int        // received bytes whose credit has not gone back
	bytes  int64      // body bytes written downstream
	raw    []byte     // received while a filter waited
	local  []byte     // the body of a Reply, or one that was put off with its head; not ours to change
	waits  *heldChunk // what a filter waits for; nil before one has
}

func (r *responseSide) drop() {
	buf.Put(r.raw)
	r.raw = nil
	r.waits.drop()
}

// NewResponse lends the message for the next head. An exchange has none before: those
// that wait for their responses are many, and a message that has just been used is
// in the processor's caches.
func (x *exchange) NewResponse(t *turn.Turn) *message.Response {
	if x.resp == nil {
		x.resp = x.p.lendResponse(x.p.shelf(t))
	}
	return x.resp
}

// Informational passes a 1xx head on, all but 100: that was ours to send.
func (x *exchange) Informational(t *turn.Turn, r *message.Response) {
	defer x.rescue(t)
	if x.may(t, evInformational) && r.Status != 100 && x.pending == noPhase {
		x.down.writeInformational(t, r)
	}
}

// Head brings the endpoint's final head.
func (x *exchange) Head(t *turn.Turn, r *message.Response, end bool) {
	defer x.rescue(t)
	if !x.may(t, evResponseHead) {
		return
	}
	x.sent, x.response.ended = x.call.Progress(), end
	if end && r.Status != 101 {
		x.call = nil // it is over: the connection may serve another
	}
	if !x.asHTTP2() && len(x.req.Upgrade) == 0 && x.mayPutOff(t) {
		x.putOff(t, toAnswer)
		return
	}
	x.responseHead(t)
}

// Whole brings the endpoint's final head and all of the body.
func (x *exchange) Whole(t *turn.Turn, r *message.Response, body []byte) {
	defer x.rescue(t)
	if !x.may(t, evResponseHead) {
		return
	}
	x.sent, x.response.ended = x.call.Progress(), false
	x.call = nil // it is over: the connection may serve another
	x.response.local = body
	if !x.asHTTP2() && len(x.req.Upgrade) == 0 && x.mayPutOff(t) {
		x.putOff(t, toFinish)
		return
	}
	x.answerWhole(t)
}

// responseHead goes on with a head that has come: another attempt, or the response
// phases.
func (x *exchange) responseHead(t *turn.Turn) {
	r := x.resp
	a := x.record(t, r.Status, nil, x.sent)
	if x.response.ended {
		a.GRPC = grpcStatusOf(r)
	}
	if wait, again := x.mayRetry(a); again {
		x.dropCall(t)
		x.resp.Reset()
		x.again(t, wait)
		return
	}
	if len(x.req.Upgrade) > 0 && !x.switched(t) {
		return
	}
	x.to(t, xResponding)
	if x.pending != noPhase {
		x.response.due = true
		return
	}
	x.startResponse(t)
}

// startResponse runs the response phases on x.resp, last chain first.
func (x *exchange) startResponse(t *turn.Turn) {
	x.stream.Response = x.resp
	ph, reply := serviceResponse, (*filters.Reply)(nil)
	if x.route != nil {
		ph, reply = routeResponse, x.responsePhase(x.route.Chain)
	} else if x.svc != nil {
		reply = x.responsePhase(x.svc.Chain)
	}
	x.afterResponse(t, ph, reply)
}

// afterResponse goes on behind a response phase that answered reply.
func (x *exchange) afterResponse(t *turn.Turn, ph phase, reply *filters.Reply) {
	switch {
	case reply == filters.Wait:
		x.wait(ph)
	case reply != nil:
		x.reply(t, reply)
	case ph == routeResponse:
		x.afterResponse(t, serviceResponse, x.responsePhase(x.svc.Chain))
	default:
		x.commit(t)
	}
}

// commit sends the head downstream. From here on there is no other attempt.
func (x *exchange) commit(t *turn.Turn) {
	r := &x.response
	x.to(t, xStreaming)
	if !x.request.spent {
		x.request.spent = true
		x.p.dropReplay(&x.request)
	}
	if r.ours && !x.request.ended && !x.mayDiscard() || x.p.draining.Load() {
		x.resp.Close = true
	}
	if r.whole && x.mayGoWhole() {
		x.commitWhole(t)
		return
	}
	end := r.ended && len(r.local) == 0
	if err := x.down.writeHead(t, x.resp, end); err != nil {
		x.fail(t, fault.Wrap(fault.FilterFailed, fault.Local, err))
		return
	}
	r.status, r.head = int32(x.resp.Status), int32(x.resp.Header.Size())
	switch {
	case x.resp.Status == 101:
		x.relay(t)
	case end:
		x.respond(t)
	case r.ours:
		x.writeLocal(t)
	default:
		x.runHeldResponse(t)
	}
}

// mostWhole is the longest body that is copied to stand behind its head in one write.
const mostWhole = 2 << 10

// mayGoWhole reports whether the body that came with the head is to leave with it: it
// is as most are, and no filter sees it.
func (x *exchange) mayGoWhole() bool {
	r := &x.response
	return len(r.local) <= mostWhole && x.resp.Length == int64(len(r.local)) && x.resp.Trailer.Len() == 0 &&
		!x.svc.Chain.SeesResponseBody() && !x.route.Chain.SeesResponseBody()
}

// commitWhole sends the head and the body that came with it.
func (x *exchange) commitWhole(t *turn.Turn) {
	r := &x.response
	body := r.local
	if err := x.down.writeAll(t, x.resp, body); err != nil {
		x.fail(t, fault.Wrap(fault.FilterFailed, fault.Local, err))
		return
	}
	r.status, r.head, r.bytes = int32(x.resp.Status), int32(x.resp.Header.Size()), int64(len(body))
	x.told.feed(body)
	x.respond(t)
}

// writeLocal sends the body of a Reply through the body phases.
func (x *exchange) writeLocal(t *turn.Turn) {
	c := message.Chunk{Data: x.response.local, End: true}
	x.filterResponseBody(t, routeResponseBody, &c)
}

// Chunk brings response body bytes. While a filter waits they are held; what is
// held is not credited, so the stream's window bounds it.
func (x *exchange) Chunk(t *turn.Turn, c *message.Chunk) {
	defer x.rescue(t)
	switch {
	case x.step != toAnswer:
	case c.End:
		x.step, x.response.local, x.call = toFinish, c.Data, nil
		return
	default:
		x.catchUp(t)
		if !x.receives() {
			return
		}
	}
	x.responseChunk(t, c)
}

// responseChunk goes on with body bytes that have come.
func (x *exchange) responseChunk(t *turn.Turn, c *message.Chunk) {
	if !x.may(t, evResponseChunk) {
		return
	}
	if c.End {
		x.call = nil // it is over, and gives the rest of its credit back itself
		x.response.owed = 0
	} else {
		x.response.owed += len(c.Data)
	}
	r := &x.response
	x.move(t)
	if x.state != xStreaming || x.pending != noPhase || len(r.raw) > 0 {
		r.raw = buf.Append(r.raw, c.Data)
		r.rawEnd = c.End
		return
	}
	x.filterResponseBody(t, routeResponseBody, c)
	x.creditResponse(t)
}

// runHeldResponse takes up what was held while a filter waited.
func (x *exchange) runHeldResponse(t *turn.Turn) {
	r := &x.response
	if x.pending != noPhase || x.state != xStreaming || r.raw == nil && !r.rawEnd {
		return
	}
	held, end := r.raw, r.rawEnd
	r.raw, r.rawEnd = nil, false
	c := message.Chunk{Data: held, End: end}
	if end && x.resp.Trailer.Len() > 0 {
		c.Trailer = &x.resp.Trailer
	}
	x.filterResponseBody(t, routeResponseBody, &c)
	buf.Put(held)
	x.creditResponse(t)
}

// filterResponseBody shows a chunk to the chains, last chain first, from phase
// ph on, and sends it.
func (x *exchange) filterResponseBody(t *turn.Turn, ph phase, c *message.Chunk) {
	if ph == routeResponseBody && x.route != nil {
		if !x.responseBodyPhase(t, ph, x.route.Chain, c) {
			return
		}
	}
	if x.svc != nil && !x.responseBodyPhase(t, serviceResponseBody, x.svc.Chain, c) {
		return
	}
	x.sendResponse(t, c)
}

// responseBodyPhase runs one chain's body phase, and reports whether the chunk
// goes on. The head has gone, so a Reply can only cut the response.
func (x *exchange) responseBodyPhase(t *turn.Turn, ph phase, chain *filters.Chain, c *message.Chunk) bool {
	if !chain.SeesResponseBody() {
		return true
	}
	x.meetFilters(stageOf[x.state])
	r := chain.ResponseBody(&x.stream, c)
	x.spendNow(filters.StageFilters)
	switch r {
	case nil:
		return true
	case filters.Wait:
		x.hold(&x.response.waits, c)
		x.wait(ph)
	default:
		x.fail(t, faultOf(r))
	}
	return false
}

// faultOf is why a Reply was given.
func faultOf(r *filters.Reply) *fault.Fault {
	if r.Fault != nil {
		return r.Fault
	}
	return fault.Wrap(fault.FilterDenied, fault.Local, nil)
}

// sendResponse writes filtered bytes downstream.
func (x *exchange) sendResponse(t *turn.Turn, c *message.Chunk) {
	if len(c.Data) == 0 && !c.End {
		return
	}
	x.response.bytes += int64(len(c.Data))
	x.told.feed(c.Data)
	if err := x.down.writeChunk(t, c); err != nil {
		x.fail(t, fault.Wrap(fault.FilterFailed, fault.Local, err))
		return
	}
	if c.End {
		x.respond(t)
	}
}

// respond ends the response. The client's connection is kept if the request has
// ended too, or if so little of it is left that reading it is cheaper.
func (x *exchange) respond(t *turn.Turn) {
	if x.call != nil { // answered here, or the filters ended it before the endpoint did
		x.call.Cancel(t)
		x.call = nil
	}
	x.to(t, xDone)
	if x.request.ended || x.request.broken || !x.mayDiscard() {
		if x.mayPutOffMore(t) {
			x.putOff(t, toEnd)
			return
		}
		x.finish(t, x.request.ended)
		return
	}
	x.dropRequest(t)
	x.deadline = t.Tick().Add(discardTime)
	x.arm(t)
}

// mayDiscard reports whether the rest of an unwanted request body is short
// enough to be read and thrown away. A client that waits for 100 would wait on,
// and one that has other streams can be told to stop.
func (x *exchange) mayDiscard() bool {
	return x.down.serial() && !x.request.broken && !x.req.ExpectContinue && x.req.Length >= 0 && x.req.Length <= discardLimit
}

// dropRequest throws away what was held of the request.
func (x *exchange) dropRequest(t *turn.Turn) {
	x.p.dropBody(&x.request)
	if x.request.owed > 0 {
		x.down.consume(t, x.request.owed)
		x.request.owed = 0
	}
}

// creditResponse returns credit for response bytes that have left towards the
// client.
func (x *exchange) creditResponse(t *turn.Turn) {
	r := &x.response
	if r.owed < creditAt || x.call == nil {
		return
	}
	if n := r.owed - len(r.raw) - r.waits.len() - x.down.buffered(); n > 0 {
		r.owed -= n
		x.call.Consume(t, n)
	}
}

// Left: request bytes have left towards the endpoint.
func (x *exchange) Left(t *turn.Turn) {
	defer x.rescue(t)
	x.left(t)
}
