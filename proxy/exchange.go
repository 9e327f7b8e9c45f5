package proxy

import (
	"errors"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

// A state is where an exchange is in its life. It goes up only, but for another
// attempt.
type state uint8

const (
	xNew        state = iota // lent to the codec; no head yet
	xFiltering               // request phase: chains, route
	xConnecting              // an attempt waits for its connection, or for its back-off
	xSending                 // the request is on its way; no response head yet
	xResponding              // response head: response phases
	xStreaming               // committed: the head has gone downstream
	xUpgraded                // both sides speak another protocol now: bytes are relayed
	xDone                    // the response is complete; the rest of the request is thrown away
	xOver                    // nothing may happen any more
	states
)

// An event is what can happen to an exchange.
type event uint8

const (
	evRequestHead event = iota
	evRequestChunk
	evRequestBroken
	evReady
	evInformational
	evResponseHead
	evResponseChunk
	evFailed
	events
)

// allowed says which event may come in which state. An event that may not is a
// bug and is treated as one: the exchange fails with Internal. Not listed are
// left, downstreamClosed, Expired and Resume: they may come at any time, and
// mean nothing when it is too late.
var allowed = [states]uint16{
	xNew:        1<<evRequestHead | 1<<evRequestBroken,
	xFiltering:  1<<evRequestChunk | 1<<evRequestBroken,
	xConnecting: 1<<evRequestChunk | 1<<evRequestBroken | 1<<evReady | 1<<evFailed,
	xSending:    1<<evRequestChunk | 1<<evRequestBroken | 1<<evInformational | 1<<evResponseHead | 1<<evFailed,
	xResponding: 1<<evRequestChunk | 1<<evRequestBroken | 1<<evResponseChunk | 1<<evFailed,
	xStreaming:  1<<evRequestChunk | 1<<evRequestBroken | 1<<evResponseChunk | 1<<evFailed,
	xUpgraded:   0,
	xDone:       1<<evRequestChunk | 1<<evRequestBroken,
	xOver:       0,
}

// A downstream is the client's side of an exchange: an inner HTTP/1 connection,
// or a stream of an inner HTTP/2 one.
type downstream interface {
	writeContinue(t *turn.Turn)
	writeInformational(t *turn.Turn, r *message.Response)
	writeHead(t *turn.Turn, r *message.Response, end bool) error
	writeChunk(t *turn.Turn, c *message.Chunk) error
	// writeAll is writeHead, and writeChunk of a body that is whole and has r.Length
	// bytes.
	writeAll(t *turn.Turn, r *message.Response, body []byte) error
	buffered() int
	consume(t *turn.Turn, n int)
	// serial says that requests come one behind the other, so that what is left
	// of one must be read before the next.
	serial() bool
	// cut ends it in the middle of a message.
	cut(t *turn.Turn)
	// upgrade hands the connection, or the stream, to h once a head of status 101
	// has been written. Of its events only done follows.
	upgrade(t *turn.Turn, h hbone.TunnelHandler) hbone.Detached
	// done says that the exchange is over; keep, that the next may follow.
	done(t *turn.Turn, keep bool)
}

// An exchange is one request in progress, and its response. Its events come
// with the lane held; each does its step and returns.
type exchange struct {
	// Set while it is in use.
	p      *Proxy
	down   downstream
	svc    *snapshot.Service
	source *measure.Source
	lane   *turn.Lane

	// Atomic: who comes from another goroutine finds the lane here, and looks
	// again when it has it. Nil while nobody may come: in the pool, and before the
	// exchange has set a timer or met a filter. Most never do.
	known atomic.Pointer[turn.Lane]

	// Guarded by the lane. A response finds its exchange out of the processor's
	// caches, if there are hundreds: what every one needs stands together.
	state    state
	pending  phase            // the phase in which a filter waits; noPhase if none does
	armed    bool             // timer is set
	failing  bool             // an answer to a fault is being made; a second fault cuts
	kept     bool             // filters may have changed the head: original has it
	step     step             // what was put off
	queued   bool             // a turn will call Late
	sent     filters.Progress // how far the request had got when the head of the response came
	unjudged bool             // a review is due when the filter that waits has come back
	verdict  sniff.Verdict    // what the client's connection speaks, and how that is known
	random   uint32           // chooses the weighted backend, the same on every look
	uses     uint32           // since the last request that was watched
	route    *snapshot.Route
	call     upstream.Call      // nil between attempts
	tried    *upstream.Endpoint // whom the attempt in progress was made to
	began    turn.Tick          // stream.Start
	started  turn.Tick          // of the attempt in progress
	resp     *message.Response  // from the first byte of one
	response responseSide
	asked    messages           // of a gRPC request
	told     messages           // and of its response
	tryUntil turn.Tick          // of the attempt; zero: none
	attempts []filters.Attempt  // all of them; the stream has those made while no Worker held it
	first    [1]filters.Attempt // where attempts begins: most requests need no more
	stream   filters.Stream
	request  requestSide
	req      message.Request

	timer    wheel.Timer // the first of the times below, and those of timeouts.go
	deadline turn.Tick   // of the request; zero: none
	retryAt  turn.Tick   // end of the back-off; zero: not waiting
	moved    turn.Tick   // when a byte last moved, as far as somebody wants to know

	joined *hbone.Relay // of an exchange that was upgraded
	gaveUp *fault.Fault // why it ends as soon as a Worker has returned
	reason string       // why a filter replied, for the log

	original *message.Original // the head as it came, if kept
}

// maxAttempts bounds the attempts of one request, whatever a policy asks for.
const maxAttempts = 16

// An origin is where an exchange comes from.
type origin struct {
	down    downstream
	lane    *turn.Lane
	peer    *peer.Info
	svc     *snapshot.Service
	source  *measure.Source
	verdict sniff.Verdict
}

// newExchange takes an exchange from the pool for the next request of o.
func (p *Proxy) newExchange(t *turn.Turn, o origin) *exchange {
	x := p.lendExchange(p.shelf(t))
	if x.attempts == nil {
		x.attempts = x.first[:0]
	}
	x.p, x.down, x.svc, x.source, x.verdict = p, o.down, o.svc, o.source, o.verdict
	x.state = xNew
	x.stream.Bind(x)
	if p.Watch > 0 {
		if x.uses++; x.uses >= p.Watch {
			x.uses, x.stream.Watched = 0, true
		}
	}
	x.stream.Request, x.stream.Peer, x.stream.Start, x.began = &x.req, o.peer, t.Now(), t.Tick()
	x.lane = o.lane
	return x
}

// publish lets others come: a timer, or who wakes a filter.
func (x *exchange) publish() {
	if x.known.Load() == nil {
		x.known.Store(x.lane)
	}
}

// hide lets nobody come any more.
func (x *exchange) hide() {
	if x.known.Load() != nil {
		x.known.Store(nil)
	}
}

// enter takes the exchange's lane for somebody who comes from another
// goroutine. It reports false, without the lane, if the exchange is over.
func (x *exchange) enter() (*turn.Lane, bool) {
	for {
		l := x.known.Load()
		if l == nil {
			return nil, false
		}
		l.Lock()
		if x.known.Load() == l {
			return l, true
		}
		l.Unlock()
	}
}

// may checks an event against the table.
func (x *exchange) may(t *turn.Turn, e event) bool {
	if allowed[x.state]&(1<<e) != 0 {
		return true
	}
	x.p.stats.Impossible.Add(1)
	x.fail(t, fault.Wrap(fault.Internal, fault.Local, nil))
	return false
}

// requestHead begins the exchange: the service's chain, the route, the route's
// chain, and then upstream.
func (x *exchange) requestHead(t *turn.Turn, r *message.Request, end bool) {
	if !x.may(t, evRequestHead) {
		return
	}
	x.to(t, xFiltering)
	x.request.head = int32(r.Header.Size())
	x.asked.counts = asksGRPC(r)
	x.told.counts = x.asked.counts
	x.request.ended = end
	x.request.rawEnd = end
	if end && x.mayPutOff(t) {
		x.putOff(t, toJudge)
		return
	}
	x.judgeHead(t)
}

// judgeHead goes on with a head that has come: what no client may say is taken
// away, what nobody may ask is refused, and then the phases run.
func (x *exchange) judgeHead(t *turn.Turn) {
	r := &x.req
	offers := len(r.Upgrade) > 0
	s := x.p.shelf(t)
	x.sanitize(s, r)
	if lim := &x.p.timeouts; lim.Body > 0 || lim.Stream > 0 {
		x.watchIdle(t)
	}
	if x.p.pressure.full.Load() {
		x.fail(t, errFull)
		return
	}
	if x.svc == nil {
		x.fail(t, fault.Wrap(fault.NotOurs, fault.Local, nil))
		return
	}
	if offers && len(r.Upgrade) == 0 && r.Proto == message.HTTP2 { // an extended CONNECT is nothing without it
		x.fail(t, fault.Wrap(fault.NotImplemented, fault.Downstream, errors.New("extended CONNECT for a protocol that may not be switched to")))
		return
	}
	if string(r.Method) == "CONNECT" {
		x.fail(t, fault.Wrap(fault.NotImplemented, fault.Downstream, errors.New("CONNECT inside a tunnel is not carried")))
		return
	}
	x.random = uint32(s.uint64())
	x.findRoute() // provisional: filters of the service's chain see it
	x.afterRequest(t, serviceRequest, x.requestPhase(x.svc.Chain))
}

// sanitize removes what a client must not tell: who it is, is told by the mesh.
func (x *exchange) sanitize(s *shelf, r *message.Request) {
	r.Header.DelKnown(message.XForwardedClientCert)
	identify(s, r)
	x.p.offer(r)
}

// findRoute looks the route up and lets filters see it.
func (x *exchange) findRoute() {
	x.route, _ = x.svc.Route(&x.req, x.random)
	x.stream.Route = nil
	if x.route != nil {
		x.stream.Route = x.route.Info
	}
}

// afterRequest goes on behind a request phase that answered reply.
func (x *exchange) afterRequest(t *turn.Turn, ph phase, reply *filters.Reply) {
	switch {
	case reply == filters.Wait:
		x.wait(ph)
	case reply != nil:
		x.reply(t, reply)
	case ph == serviceRequest:
		if x.svc.Chain.SeesRequest() {
			x.findRoute() // a filter may have changed the head
		}
		if x.route == nil {
			x.fail(t, fault.Wrap(fault.NoRoute, fault.Local, nil))
			return
		}
		x.setDeadline(t)
		x.afterRequest(t, routeRequest, x.requestPhase(x.route.Chain))
	default:
		x.request.filtered = true
		if x.mayPutOffMore(t) {
			x.putOff(t, toSend)
			return
		}
		x.pass(t)
	}
}

// pass sends a request that its phases have let pass, and what has come of its body.
func (x *exchange) pass(t *turn.Turn) {
	x.forward(t)
	x.runHeldRequest(t)
}

// setDeadline starts the route's clock for the whole request.
func (x *exchange) setDeadline(t *turn.Turn) {
	d := x.route.Info.Timeout
	if own := grpcTimeout(&x.req); own > 0 && (d == 0 || own < d) {
		d = own
	}
	if d > 0 {
		x.deadline = x.began.Add(x.stream.Times[filters.StageQueue] + d) // its turn begins the time
		x.stream.Deadline = x.deadline.Time()
		x.arm(t)
	}
}

// arm sets the timer for whatever is due first.
func (x *exchange) arm(t *turn.Turn) {
	at := x.deadline
	for _, other := range [...]turn.Tick{x.tryUntil, x.retryAt, x.bodyUntil(), x.idleAt()} {
		if other != 0 && (at == 0 || other < at) {
			at = other
		}
	}
	if at != 0 {
		x.publish()
		x.armed = true
		x.p.wheel.Set(&x.timer, x, max(at.Sub(t.Tick()), 0))
	}
}

// Expired is called by the wheel, perhaps late: after the exchange is over, or
// for the next one, which then finds nothing due.
func (x *exchange) Expired(t *turn.Turn, _ *wheel.Timer) {
	l, ok := x.enter()
	if !ok {
		return
	}
	defer l.Unlock()
	defer x.rescue(t)
	x.catchUp(t)
	now := t.Tick()
	switch {
	case x.state == xNew:
		return
	case x.state == xDone:
		if due(x.deadline, now) { // of the rest of a request that nobody wants
			x.finish(t, false)
			return
		}
	case due(x.deadline, now):
		x.deadline = 0
		x.fail(t, fault.Wrap(fault.UpstreamTimeout, fault.Upstream, nil))
	case due(x.tryUntil, now):
		x.tryUntil = 0
		x.failed(t, fault.Wrap(fault.TryTimeout, fault.Upstream, nil))
	case due(x.retryAt, now):
		x.spend(t)
		x.retryAt = 0
		x.forward(t)
	case due(x.bodyUntil(), now):
		x.fail(t, errBodyLate)
	case due(x.idleAt(), now):
		x.moved = 0
		x.fail(t, errStreamIdle)
	}
	if x.state != xOver {
		x.arm(t)
	}
}

func due(at, now turn.Tick) bool { return at != 0 && now >= at }

// left: bytes have left one side or the other, so credit may go back.
func (x *exchange) left(t *turn.Turn) {
	x.creditRequest(t)
	x.creditResponse(t)
}

// downstreamClosed: the client has gone. What it asked for is of no use.
func (x *exchange) downstreamClosed(t *turn.Turn, err error) {
	if x.state >= xDone {
		x.finish(t, false)
		return
	}
	if x.p.cutting.Load() {
		x.fail(t, fault.Wrap(fault.Draining, fault.Local, nil))
		return
	}
	x.fail(t, fault.Wrap(fault.ClientGone, fault.Downstream, err))
}

// finish ends the exchange: everybody who saw the stream is told, once. keep
// says that the client's connection may bring another request.
func (x *exchange) finish(t *turn.Turn, keep bool) {
	if x.state == xOver {
		return
	}
	x.state = xOver
	if x.armed {
		x.p.wheel.Stop(&x.timer)
	}
	x.stream.Attempts = x.attempts
	keep = x.tell(t) && keep
	if x.request.owed > 0 {
		x.down.consume(t, x.request.owed)
	}
	x.hide()
	x.down.done(t, keep)
	if x.queued {
		x.step = toReturn
		return
	}
	t.Notify(x) // back to the pool when no frame of this turn refers to it any more
}

// tell runs what is due once an exchange is over. A panic in one of its steps is
// counted and keeps nobody from hearing; it only ends the connection.
func (x *exchange) tell(t *turn.Turn) (ok bool) {
	ok = true
	for next := routeDone; next < told; {
		sound := false
		next, sound = x.tellFrom(t, next)
		ok = ok && sound
	}
	return ok
}

// A teller is a step of tell.
type teller uint8

const (
	routeDone teller = iota
	serviceDone
	observed
	told
)

// tellFrom runs the steps from one on, and returns the step behind that which
// panicked, or told.
func (x *exchange) tellFrom(t *turn.Turn, from teller) (next teller, sound bool) {
	next, sound = from, true
	defer func() {
		if next != told {
			next, sound = next+1, false
			x.p.panicked(recover())
		}
	}()
	if next == routeDone {
		if x.route != nil {
			x.route.Chain.Done(&x.stream)
		}
		next++
	}
	if next == serviceDone {
		if x.svc != nil {
			x.svc.Chain.Done(&x.stream)
		}
		next++
	}
	x.observe(t)
	next++
	return next, sound
}

// Notified puts the exchange back into the pool.
func (x *exchange) Notified(t *turn.Turn) {
	x.stream.Reset() // which empties the attempts too
	x.attempts = x.stream.Attempts
	x.req.Reset()
	p := x.p
	s := p.shelf(t)
	if x.resp != nil {
		x.resp.Reset()
		p.returnResponse(s, x.resp)
		x.resp = nil
	}
	p.dropBody(&x.request)
	x.response.drop()
	x.p, x.down, x.svc, x.source, x.lane, x.route, x.call, x.tried, x.joined = nil, nil, nil, nil, nil, nil, nil, nil, nil
	x.request, x.response = requestSide{waits: x.request.waits}, responseSide{waits: x.response.waits}
	x.asked, x.told = messages{}, messages{}
	x.deadline, x.tryUntil, x.retryAt, x.began, x.started, x.moved = 0, 0, 0, 0, 0, 0
	x.armed, x.failing, x.reason, x.unjudged = false, false, "", false
	if x.kept {
		x.original.Reset()
		x.kept = false
	}
	x.pending, x.gaveUp, x.state = noPhase, nil, xNew
	p.returnExchange(s, x)
}

// rescue is the boundary at which a panic of an exchange ends: it costs both
// streams, is counted and told, and the process lives.
func (x *exchange) rescue(t *turn.Turn) {
	x.rescued(t, recover())
}

func (x *exchange) rescued(t *turn.Turn, r any) {
	if r != nil {
		x.p.panicked(r)
		x.abandon(t)
	}
}

// abandon drops an exchange that panicked, and resets both its streams. It does
// not go back to the pool: nobody knows what still refers to it. Filters are
// told, unless a Worker has the stream just now.
func (x *exchange) abandon(t *turn.Turn) {
	if x.state == xOver { // in finish, behind all that could be told
		x.hide()
		x.down.cut(t)
		return
	}
	f := fault.Wrap(fault.Internal, fault.Local, errPanic)
	x.state = xOver
	x.p.wheel.Stop(&x.timer)
	x.dropAttempt(t)
	if x.joined != nil {
		x.joined.Abort(t, hbone.CodeInternal)
	}
	x.stream.Cancel(f)
	if x.pending == noPhase || x.stream.Abandon() {
		x.stream.Attempts, x.stream.Fault = x.attempts, f
		x.tell(t)
		x.p.dropBody(&x.request)
		x.response.drop()
	} else {
		x.p.replay.Add(-int64(x.request.charged))
	}
	x.hide()
	x.down.cut(t)
	x.down.done(t, false)
}

var errPanic = errors.New("panic")
