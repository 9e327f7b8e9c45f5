package proxy

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// An Outcome is what became of one request. It and what its Stream refers to
// die when the observer returns.
type Outcome struct {
	Stream  *filters.Stream
	Source  *measure.Source   // who called; nil if the connection has not told yet
	Service *snapshot.Service // what was asked for; nil if it is not ours any more
	Route   *snapshot.Route   // nil if none matched
	Random  uint32            // what chose the weighted backend
	Verdict sniff.Verdict     // what the client's connection speaks, and what settled that

	Status    int // 0 if no head was sent
	GRPC      int // grpc-status; -1 if there was none, or gRPC was not spoken
	Protocol  measure.Protocol
	Ours      bool   // the answer was made here
	Reason    string // why a filter or this proxy answered; "" if the endpoint did
	Exhausted bool   // it failed after as many attempts as its route grants

	Received     int64 // request body bytes, and what came behind an upgrade
	ReceivedHead int   // bytes of the head
	Sent         int64 // the same of the response
	SentHead     int   // bytes of the head
	Duration     time.Duration
}

// Kind is the kind of fault that the request ended with, or measure.NoFault.
func (o *Outcome) Kind() fault.Kind {
	if f := o.Stream.Fault; f != nil {
		return f.Kind
	}
	return measure.NoFault
}

// To is the service that the request went to, or was bound for; nil if nobody
// knows.
func (o *Outcome) To() *filters.Service { return to(o.Stream.Route, o.Service) }

func to(r *filters.RouteInfo, v *snapshot.Service) *filters.Service {
	switch {
	case r != nil && r.To != nil:
		return r.To
	case v != nil:
		return v.Info
	}
	return nil
}

// Last is the last attempt, or nil.
func (o *Outcome) Last() *filters.Attempt {
	if n := len(o.Stream.Attempts); n > 0 {
		return &o.Stream.Attempts[n-1]
	}
	return nil
}

// Failed reports whether this is what people call an error: a failure of ours or
// of the endpoint, or an answer of ours that says no.
func (o *Outcome) Failed() bool {
	return o.Stream.Fault != nil || o.Status >= 500 || o.Status == 0 ||
		o.Reason != "" && o.Status >= 400 || serverFault(o.GRPC)
}

// serverFault reports whether a gRPC status says that the server failed, by the
// OpenTelemetry convention.
func serverFault(grpc int) bool {
	switch grpc {
	case 2, 4, 12, 13, 14, 15: // unknown, deadline, unimplemented, internal, unavailable, data loss
		return true
	}
	return false
}

// observe turns the facts that the events left into counts and records. It is
// the only place that does.
func (x *exchange) observe(t *turn.Turn) {
	p := x.p
	x.spendNow(stageOf[x.state])
	if f := x.stream.Fault; f != nil {
		p.stats.Faults[f.Kind].Add(1)
	}
	s := p.shelf(t)
	o := p.lendOutcome(s)
	*o = Outcome{
		Stream: &x.stream, Source: x.source, Service: x.svc, Route: x.route, Random: x.random, Verdict: x.verdict,
		Status: int(x.response.status), GRPC: -1, Ours: x.response.ours, Reason: x.reason, Exhausted: x.exhausted(),
		Received: x.request.bytes, ReceivedHead: int(x.request.head),
		Sent: x.response.bytes, SentHead: int(x.response.head),
		Duration: x.stream.Times.Sum(),
	}
	if x.joined != nil {
		near, far := x.joined.Bytes()
		o.Received, o.Sent = o.Received+near, o.Sent+far
	}
	x.speaksGRPC(o)
	x.measure(t, s, o)
	if p.Observe != nil {
		p.Observe(o)
	}
	p.returnOutcome(s, o)
}

// measure counts a request, here and in the mesh's metrics.
func (x *exchange) measure(t *turn.Turn, s *shelf, o *Outcome) {
	if x.source == nil {
		x.p.count(t, s, nil)
		return
	}
	r := measure.Request{
		Source: x.source, To: o.To(), Protocol: o.Protocol, Code: o.Status, GRPC: o.GRPC,
		Fault: o.Kind(), Exhausted: o.Exhausted, Duration: o.Duration,
		Received: o.Received + int64(o.ReceivedHead), Sent: o.Sent + int64(o.SentHead),
	}
	r.Asked, r.Told = x.asked.n, x.told.n
	if a := o.Last(); a != nil {
		r.At = a.Workload
	}
	if x.stream.Upgraded { // how long people talk is no latency
		r.Duration -= x.stream.Times[filters.StageBody]
	}
	x.p.count(t, s, &r)
}

// exhausted reports whether there would have been another attempt if the route
// granted more.
func (x *exchange) exhausted() bool {
	n := len(x.attempts)
	return n > 1 && x.stream.Fault != nil && x.attempts[n-1].Fault == x.stream.Fault
}

// speaksGRPC finds out whether gRPC was spoken, and what its status was.
func (x *exchange) speaksGRPC(o *Outcome) {
	if !x.asked.counts {
		return
	}
	o.Protocol = measure.GRPC
	if x.resp == nil {
		return
	}
	status, ok := x.resp.Trailer.ValueOf(message.GRPCStatus)
	if !ok {
		status, ok = x.resp.Header.ValueOf(message.GRPCStatus)
	}
	if n, err := strconv.ParseUint(string(status), 10, 7); ok && err == nil {
		o.GRPC = int(n)
	}
}

// sourceOf says who is at the other end of a tunnel.
func (p *Proxy) sourceOf(s *snapshot.Snapshot, info *peer.Info) *measure.Source {
	var w *filters.Workload
	if info.Network == "" { // an address of another network names nobody here
		w = s.Workload(info.Client().Addr().Unmap())
	}
	return p.meter.Source(info, w)
}

// A ConnOutcome is what became of one opaque connection. It and what it refers to
// die when the observer returns.
type ConnOutcome struct {
	Peer     *peer.Info
	Source   *measure.Source
	Service  *snapshot.Service  // what was asked for
	Route    *filters.RouteInfo // nil if none was found
	Verdict  sniff.Verdict      // what the connection speaks, and what settled that
	SNI      string             // the name that a TLS client asked for, if that was looked at
	Attempts []filters.Attempt  // to reach an endpoint
	Start    time.Time
	Duration time.Duration
	Received int64 // bytes from the client
	Sent     int64 // bytes from the endpoint
	Fault    *fault.Fault
}

// Kind is the kind of fault that the connection ended with, or measure.NoFault.
func (o *ConnOutcome) Kind() fault.Kind {
	if o.Fault != nil {
		return o.Fault.Kind
	}
	return measure.NoFault
}

// To is as Outcome.To.
func (o *ConnOutcome) To() *filters.Service { return to(o.Route, o.Service) }

// Last is the attempt that reached the endpoint, or the last that did not; nil if
// there was none.
func (o *ConnOutcome) Last() *filters.Attempt {
	if n := len(o.Attempts); n > 0 {
		return &o.Attempts[n-1]
	}
	return nil
}

// observe turns the facts of an opaque connection into counts and a record, once.
// One that never reached its endpoint counts as opened and closed, as in Istio.
func (o *opaque) observe(t *turn.Turn) {
	p := o.p
	out := &ConnOutcome{
		Peer: o.tun.Peer(), Source: o.source, Service: o.svc, Verdict: o.verdict, SNI: o.sni, Attempts: o.attempts,
		Start: o.since, Duration: t.Now().Sub(o.since), Fault: o.fault,
	}
	out.Received, out.Sent = o.relay.Bytes()
	if o.route != nil {
		out.Route = o.route.Info
	}
	if !o.metered {
		var at *filters.Workload
		if a := out.Last(); a != nil {
			at = a.Workload
		}
		o.open(at)
	}
	o.meter.Bytes(out.Received, out.Sent)
	o.meter.Close(out.Kind())
	if o.fault != nil {
		p.stats.Faults[o.fault.Kind].Add(1)
	}
	if p.ObserveConn != nil {
		p.ObserveConn(out)
	}
}

// panicked counts and tells a panic that was caught at an exchange's boundary.
func (p *Proxy) panicked(v any) {
	p.stats.Panics.Add(1)
	if p.OnPanic != nil {
		p.OnPanic(fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
	}
}
