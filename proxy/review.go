package proxy

import (
	"runtime"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// A review judges what is under way by a snapshot that has become current
// meanwhile: a connection by the ConnFilters, a request by the filters that have
// a Review. What would be refused now ends now. What is unused takes the snapshot.
//
// A review takes one lane at a time, and for as long as one judgement lasts.
type review struct {
	p    *Proxy
	snap *snapshot.Snapshot // pinned
	t    *turn.Turn
	// opening says that the tunnel may have no answer yet to its CONNECT.
	opening bool

	// A request's copy, and the stream that filters see of it.
	req    message.Request
	stream filters.Stream
}

// reviewAll is asked by Apply. It works in turns, so that what ended is flushed
// soon, and yields between them.
func (p *Proxy) reviewAll() {
	all := p.allLive()
	r := &review{p: p, snap: p.pin(), t: new(turn.Turn)}
	defer r.snap.Unpin()
	for _, c := range all {
		c.review(r)
		r.pause()
	}
	p.endTurn(r.t)
}

// pause ends the turn if it has used its share. No lane is held.
func (r *review) pause() {
	if r.t.Spent() {
		r.p.endTurn(r.t)
		runtime.Gosched()
	}
}

// recheck does what Apply would have done if it had found the connection, in the
// turn that has just remembered it.
func (p *Proxy) recheck(t *turn.Turn, c liveConn, pinned *snapshot.Snapshot) {
	if p.snap.Load() == pinned {
		return
	}
	r := &review{p: p, snap: p.pin(), t: t, opening: true}
	defer r.snap.Unpin()
	c.review(r)
}

// service finds where a tunnel is bound for. What has no service any more lives on
// with what it has.
func (r *review) service(info *peer.Info) (*snapshot.Service, bool) {
	return r.snap.Service(info.Destination, info.Host)
}

// conn asks the ConnFilters; nil if the connection may stay.
func (r *review) conn(svc *snapshot.Service, c *filters.Conn) *fault.Fault {
	r.t.Event()
	r.p.stats.Reviewed.Add(1)
	c.Service = svc.Name
	return r.verdict(r.p.admit(svc.Chain, c))
}

// request asks the filters that have a Review; nil if the request may go on.
func (r *review) request(svc *snapshot.Service, x *exchange) (f *fault.Fault) {
	r.t.Event()
	r.p.stats.Reviewed.Add(1)
	defer r.stream.Reset()
	defer func() {
		if v := recover(); v != nil {
			r.p.panicked(v)
			f = r.verdict(fault.Wrap(fault.FilterTrapped, fault.Local, nil))
		}
	}()
	if x.kept {
		x.original.CopyTo(&r.req, &x.req)
	} else {
		r.req.CopyFrom(&x.req)
	}
	s := &r.stream
	s.Request, s.Peer, s.Start = &r.req, x.stream.Peer, x.stream.Start
	route, found := svc.Route(&r.req, x.random)
	if found {
		s.Route = route.Info
	}
	err := svc.Chain.Review(s)
	if err == nil && found {
		err = route.Chain.Review(s)
	}
	return r.verdict(err)
}

// verdict counts a refusal, and says that it came late.
func (r *review) verdict(err error) *fault.Fault {
	f := fault.Of(err)
	if f == nil {
		return nil
	}
	r.p.stats.Revoked.Add(1)
	if denial(f.Kind) {
		return fault.Wrap(fault.Revoked, fault.Local, f)
	}
	return f
}

// denial reports whether somebody said no, rather than that something failed.
func denial(k fault.Kind) bool {
	switch k {
	case fault.PolicyDenied, fault.FilterDenied, fault.Unauthentic, fault.ExternalDeny, fault.Revoked:
		return true
	}
	return false
}

// refuse answers a CONNECT that has no answer yet.
func (r *review) refuse(tun hbone.Tunnel, f *fault.Fault) {
	if r.opening {
		hbone.Answer(r.t, tun, &hbone.Refusal{Status: denied(f), Reason: f.Error()})
	}
}

// review lets an HTTP/1 connection take the snapshot if no request of it has begun,
// and judges it and its request.
func (in *inner) review(r *review) {
	in.Lock()
	defer in.Unlock()
	defer in.rescue(r.t)
	if in.over || in.closing || in.to != nil && in.x == nil { // or somebody else has the tunnel
		return
	}
	begun := in.x != nil && in.x.state != xNew
	old := in.snap
	if !begun {
		in.pin()
		if in.x != nil { // half a head has come
			in.x.svc, in.x.source = in.svc, in.source
		}
	}
	svc, ok := r.service(in.tun.Peer())
	if !ok {
		return
	}
	if f := r.conn(svc, &filters.Conn{Peer: in.tun.Peer(), Start: in.since.Time()}); f != nil {
		r.refuse(in.tun, f)
		in.revoke(r.t, f)
		return
	}
	if begun && old != r.snap {
		in.x.review(r, svc)
	}
}

// revoke ends a connection that would be refused now: with an answer, if one is
// due that has not begun.
func (in *inner) revoke(t *turn.Turn, f *fault.Fault) {
	in.revoked = true
	switch {
	case in.x == nil:
	case in.x.state == xNew:
		in.x.requestBroken(t, f)
	default:
		in.x.fail(t, f)
	}
	if in.x == nil && !in.over {
		in.close(t)
	}
}

// review lets an HTTP/2 connection take the snapshot, and judges it and its
// requests.
func (in *inner2) review(r *review) {
	defer in.rescue(r.t)
	conn, over := in.repin()
	if over {
		return
	}
	svc, ok := r.service(in.tun.Peer())
	if !ok {
		return
	}
	f := r.conn(svc, conn)
	if f == nil && !svc.SeesReview() {
		return
	}
	for _, st := range in.streams() {
		st.review(r, svc, f)
		if f == nil {
			r.pause()
		}
	}
	if f != nil {
		r.refuse(in.tun, f)
		in.h2.Flush(r.t) // the answers
		in.h2.Fail(r.t, h2.CodeInadequateSecurity, f.Error())
	}
}

// streams returns the requests under way. One that begins just now is not among
// them if it has yet to take its snapshot.
func (in *inner2) streams() (all []*stream2) {
	for _, h := range in.h2.Handlers() {
		if st, ok := h.(*stream2); ok {
			all = append(all, st)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for st := range in.upgraded {
		all = append(all, st)
	}
	return all
}

// review judges a request, or ends it with its connection. The stream may be
// another request's by now: then that is judged.
func (st *stream2) review(r *review, svc *snapshot.Service, f *fault.Fault) {
	st.Lock()
	defer st.Unlock()
	if st.x == nil {
		return
	}
	defer st.rescue(r.t)
	switch {
	case f != nil:
		st.x.fail(r.t, f)
	case st.hold.snap != r.snap:
		st.x.review(r, svc)
	}
}

// review judges a request that is under way. While a Worker has it nobody may look
// at its head, and no byte of it goes anywhere: it is judged when the Worker has
// returned.
func (x *exchange) review(r *review, svc *snapshot.Service) {
	switch {
	case x.state < xFiltering || x.state > xUpgraded || !svc.SeesReview():
	case x.pending != noPhase:
		x.unjudged = true
	default:
		if f := r.request(svc, x); f != nil {
			x.fail(r.t, f)
		}
	}
}

// judge is the review of a request that could not be judged when it was due. It
// reports whether the request may go on.
func (x *exchange) judge(t *turn.Turn) bool {
	x.unjudged = false
	r := &review{p: x.p, snap: x.p.pin(), t: t}
	defer r.snap.Unpin()
	svc, ok := r.service(x.stream.Peer)
	if !ok {
		return true
	}
	f := r.request(svc, x)
	if f != nil {
		x.fail(t, f)
	}
	return f == nil
}

// keepHead keeps the head as it came from filters that are about to change it: a
// review asks for that one.
func (x *exchange) keepHead() {
	if x.kept {
		return
	}
	x.kept = true
	if x.original == nil {
		x.original = new(message.Original)
	}
	x.original.Keep(&x.req)
}
