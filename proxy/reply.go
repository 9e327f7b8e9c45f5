package proxy

import (
	"bytes"
	"strconv"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// reply makes r the response: the attempt in progress is given up, and the
// filters that have seen the request and come before the one that replied see
// the response. This and fail are the only places where an answer is made here.
func (x *exchange) reply(t *turn.Turn, r *filters.Reply) {
	if r.Fault != nil && x.stream.Fault == nil {
		x.stream.Fault = r.Fault
	}
	if x.state >= xStreaming {
		x.cut(t)
		return
	}
	x.spend(t)
	x.dropAttempt(t)
	x.reason = r.Reason
	x.setResponse(t, r)
	x.to(t, xResponding)
	x.startResponse(t)
}

// setResponse turns a Reply into the response head.
func (x *exchange) setResponse(t *turn.Turn, r *filters.Reply) {
	x.NewResponse(t).Reset()
	if asksGRPC(&x.req) {
		x.setStatus(r)
		return
	}
	x.resp.Status = r.Status
	x.resp.Length = int64(len(r.Body))
	for _, f := range r.Header {
		x.resp.Header.Add(f.Name, f.Value)
	}
	x.response.drop()
	x.response = responseSide{ours: true, ended: true, local: r.Body, waits: x.response.waits}
	if x.resp.Bodiless() || string(x.req.Method) == "HEAD" {
		x.response.local = nil
	}
}

// setStatus turns a Reply to a gRPC call into the response that gRPC's clients
// read, a status and nothing else ("Trailers-Only"): its HTTP status is always
// 200, and its body is the status's message.
func (x *exchange) setStatus(r *filters.Reply) {
	x.resp.Status, x.resp.Length = 200, message.UnknownLength
	h := &x.resp.Header
	h.Add("content-type", "application/grpc")
	for _, f := range r.Header {
		if message.LookupString(f.Name) != message.ContentType {
			h.Add(f.Name, f.Value)
		}
	}
	var room [32]byte
	h.SetBytes("grpc-status", strconv.AppendInt(room[:0], int64(grpcStatus(r.Status)), 10))
	if text := bytes.TrimSpace(r.Body); len(text) > 0 {
		h.SetBytes("grpc-message", appendMessage(make([]byte, 0, 128), text[:min(len(text), maxMessage)]))
	}
	x.response.drop()
	x.response = responseSide{ours: true, ended: true}
}

// maxMessage bounds what a status says, because a client's limit for heads is all
// that it has room in.
const maxMessage = 1 << 10

// grpcStatus is the one table of what an HTTP status means to gRPC: the one that
// its clients use for answers of proxies that know nothing of gRPC (gRPC's
// http-grpc-status-mapping).
func grpcStatus(status int) int {
	switch status {
	case 400:
		return 13 // INTERNAL
	case 401:
		return 16 // UNAUTHENTICATED
	case 403:
		return 7 // PERMISSION_DENIED
	case 404:
		return 12 // UNIMPLEMENTED
	case 429, 502, 503, 504:
		return 14 // UNAVAILABLE
	}
	return 2 // UNKNOWN
}

// dropAttempt gives up what goes on upstream.
func (x *exchange) dropAttempt(t *turn.Turn) {
	x.tryUntil, x.retryAt = 0, 0
	x.step = noStep
	x.dropCall(t)
}

func (x *exchange) dropCall(t *turn.Turn) {
	if x.call != nil {
		x.call.Cancel(t)
		x.call = nil
	}
}

// fail ends the exchange with a fault: an answer if the client can still be
// given one, and a cut if not, so that nobody takes half a response for all.
//
// While a Worker has the stream nothing can be answered and nobody told. Then
// what goes on upstream ends now, and the rest when the Worker has returned.
func (x *exchange) fail(t *turn.Turn, f *fault.Fault) {
	if x.state == xOver {
		return
	}
	x.spend(t)
	if x.pending != noPhase || f.Status() == 0 {
		x.stream.Cancel(f)
	}
	if x.pending != noPhase && !x.stream.Abandon() {
		if x.gaveUp == nil || f.Status() == 0 {
			x.gaveUp = f
		}
		x.dropAttempt(t)
		return
	}
	x.pending, x.gaveUp = noPhase, nil
	if x.stream.Fault == nil {
		x.stream.Fault = f
	}
	switch {
	case x.state == xUpgraded: // RelayDone ends it
		x.joined.Abort(t, hbone.CodeConnect)
	case f.Status() == 0: // nobody is left to answer
		x.dropAttempt(t)
		x.to(t, xDone)
		x.finish(t, false)
	case x.state >= xStreaming || x.failing:
		x.cut(t)
	default:
		x.failing = true
		x.reply(t, faultReply(f))
	}
}

// cut ends the exchange in the middle of its response.
func (x *exchange) cut(t *turn.Turn) {
	x.dropAttempt(t)
	x.to(t, xDone)
	x.down.cut(t)
	x.finish(t, false)
}

// faultReply is the answer to a fault: its status, and one line for people.
// What happened underneath is for the log, not for the client.
func faultReply(f *fault.Fault) *filters.Reply { return faultReplies[f.Kind] }

// faultReplies is never written after the program has started.
var faultReplies = func() (all [fault.Kinds]*filters.Reply) {
	plain := []filters.Field{{Name: "content-type", Value: "text/plain"}}
	for k := range all {
		row := fault.Kind(k).Row()
		all[k] = &filters.Reply{Status: row.Status, Header: plain, Body: []byte(row.Text + "\n"), Reason: row.Details}
	}
	return all
}()
