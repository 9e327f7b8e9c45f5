package proxy

import (
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

var _ upstream.CallHandler = (*exchange)(nil)

// forward makes one attempt: pick, open, and send as soon as it stands.
func (x *exchange) forward(t *turn.Turn) {
	if x.route.Fault != nil {
		x.fail(t, x.route.Fault)
		return
	}
	e, err := x.route.Backend.Pick(x.attempts)
	if err != nil {
		x.fail(t, fault.Of(err))
		return
	}
	if x.req.ExpectContinue { // ours to answer: the body may have to be sent twice
		x.req.ExpectContinue = false
		x.down.writeContinue(t)
	}
	if len(x.req.Upgrade) > 0 {
		x.askWebSocket()
	}
	x.to(t, xConnecting)
	x.started = t.Tick()
	x.req.AsParsed = !x.kept && !x.seesRequestBody()
	x.request.idempotent = idempotent(x.req.Method) // now, while the head is at hand
	x.request.sent = 0
	x.tried = e
	if d := x.route.Info.TryTimeout; d > 0 {
		x.tryUntil = x.started.Add(d)
		x.arm(t)
	}
	var ready bool
	if x.asHTTP2() {
		x.call, ready = e.OpenHTTP2(t, x.lane, x)
	} else {
		x.call, ready = e.Open(t, x.lane, x)
	}
	if ready {
		x.send(t)
		x.creditRequest(t)
	}
}

// asHTTP2 reports whether the request goes upstream as HTTP/2: by what the
// backend's port is declared to speak, and if that is not declared as it came. An
// offer to switch protocols then goes as HTTP/1, in which all servers take it.
func (x *exchange) asHTTP2() bool {
	return x.route.Speaks == snapshot.HTTP2 ||
		x.route.Speaks == snapshot.Detect && x.req.Proto == message.HTTP2 && len(x.req.Upgrade) == 0
}

// Ready: the connection that the attempt waited for stands.
func (x *exchange) Ready(t *turn.Turn) {
	defer x.rescue(t)
	if x.may(t, evReady) {
		x.send(t)
		x.creditRequest(t)
	}
}

// send writes what there is of the request.
func (x *exchange) send(t *turn.Turn) {
	r := &x.request
	x.to(t, xSending)
	bodiless := r.bodyEnd || r.rawEnd && r.raw == nil && !x.seesRequestBody()
	if bodiless && len(r.body) == 0 && x.req.Trailer.Len() == 0 {
		r.bodyEnd, r.rawEnd = true, false
		x.mustWrite(t, x.call.WriteHead(t, &x.req, true))
		return
	}
	if !x.mustWrite(t, x.call.WriteHead(t, &x.req, false)) || len(r.body) == 0 && !r.bodyEnd {
		return
	}
	c := message.Chunk{Data: r.body, End: r.bodyEnd}
	if r.bodyEnd && x.req.Trailer.Len() > 0 {
		c.Trailer = &x.req.Trailer
	}
	r.sent = len(r.body)
	err := x.call.WriteChunk(t, &c)
	if r.once {
		r.spent = true
		x.p.dropReplay(r)
	}
	x.mustWrite(t, err)
}

// seesRequestBody reports whether a filter sees the request's body.
func (x *exchange) seesRequestBody() bool {
	return x.svc.Chain.SeesRequestBody() || x.route.Chain.SeesRequestBody()
}

// mustWrite ends the exchange if what a filter left of the request is none.
func (x *exchange) mustWrite(t *turn.Turn, err error) bool {
	if err != nil {
		x.fail(t, fault.Wrap(fault.FilterFailed, fault.Local, err))
	}
	return err == nil
}

// Failed: the attempt has ended without a whole response.
func (x *exchange) Failed(t *turn.Turn, f *fault.Fault) {
	defer x.rescue(t)
	if x.step == toAnswer { // the head came before
		x.call = nil
		x.catchUp(t)
		if !x.receives() {
			return
		}
	}
	if !x.may(t, evFailed) {
		return
	}
	if x.state >= xResponding {
		x.call = nil
		x.fail(t, f)
		return
	}
	sent := x.call.Progress()
	x.spend(t)
	x.call = nil
	x.retry(t, x.record(t, 0, f, sent))
}

// failed ends an attempt from our side.
func (x *exchange) failed(t *turn.Turn, f *fault.Fault) {
	if x.state != xConnecting && x.state != xSending || x.call == nil {
		return
	}
	sent := x.call.Progress()
	x.spend(t)
	x.call.Cancel(t)
	x.call = nil
	x.retry(t, x.record(t, 0, f, sent))
}

// record notes how the attempt went.
func (x *exchange) record(t *turn.Turn, status int, f *fault.Fault, sent filters.Progress) *filters.Attempt {
	x.attempts = append(x.attempts, filters.Attempt{})
	n := len(x.attempts)
	a := &x.attempts[n-1] // filled in place: put together first it would be copied
	a.N, a.Status, a.Fault, a.Sent = n, status, f, sent
	a.Took, a.Idempotent = t.Tick().Sub(x.started), x.request.idempotent
	if x.tried != nil {
		a.Endpoint, a.Workload = x.tried.Addr(), x.tried.Workload()
	}
	if x.pending == noPhase {
		x.stream.Attempts = x.attempts
	}
	x.tryUntil = 0
	return a
}

// idempotent reports whether a request may be repeated without harm even if the
// endpoint has acted on it (RFC 9110, section 9.2.2).
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// retry makes another attempt if that is safe and the policy wants it, and else
// ends the request with the attempt's fault.
func (x *exchange) retry(t *turn.Turn, a *filters.Attempt) {
	if wait, again := x.mayRetry(a); again {
		x.again(t, wait)
		return
	}
	x.fail(t, a.Fault)
}

// mayRetry is the one place where another attempt is decided. Safe means that
// no byte of a response has gone downstream and all of the request is at hand,
// and that no endpoint may have switched protocols for it; no policy can override
// that.
func (x *exchange) mayRetry(a *filters.Attempt) (time.Duration, bool) {
	if len(x.req.Upgrade) > 0 && a.Sent != filters.SentNothing {
		return 0, false
	}
	if x.state >= xStreaming || x.request.spent || a.N >= maxAttempts || x.route.Info.Retry == nil {
		return 0, false
	}
	return x.route.Info.Retry.Next(a)
}

// again makes the next attempt, now or after a while.
func (x *exchange) again(t *turn.Turn, wait time.Duration) {
	x.p.stats.Retries.Add(1)
	x.to(t, xConnecting)
	if wait <= 0 {
		x.forward(t)
		return
	}
	x.retryAt = t.Tick().Add(wait)
	x.arm(t)
}
