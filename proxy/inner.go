package proxy

import (
	"bytes"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/http1"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

var (
	_ hbone.TunnelHandler = (*inner)(nil)
	_ http1.ServerHandler = (*inner)(nil)
	_ downstream          = (*inner)(nil)
	_ wheel.Owner         = (*inner)(nil)
)

const (
	// lingerTime is how long a connection that we have ended may stay without
	// the client's end and without its reading any of what we sent.
	lingerTime = 5 * time.Second
	// maxUnread is how much response may wait for the client before the next
	// pipelined request is begun.
	maxUnread = 64 << 10
)

// An inner is one inner HTTP/1 connection of a client: a lane, a codec, and the
// exchange in progress. Between exchanges it holds no message and no buffer.
type inner struct {
	turn.Lane

	// Set once.
	p   *Proxy
	tun hbone.Tunnel

	// Guarded by the lane. What the end of an exchange needs stands together: it finds
	// the connection out of the processor's caches.
	codec   http1.Server
	x       *exchange // nil between exchanges
	snap    *snapshot.Snapshot
	svc     *snapshot.Service
	source  *measure.Source     // who calls, by the snapshot
	to      hbone.TunnelHandler // who has the tunnel, once the connection speaks something else
	since   turn.Tick           // of the head or the idleness that timer watches
	waitsAt timerFor
	next    bool // the next exchange is due, at the turn's top level
	stalled bool // …once the client has read what it was sent
	fin     bool // the client has ended its side
	closing bool // ours is ended; what still comes is thrown away
	over    bool
	began   bool          // a byte has come
	revoked bool          // it ends with its exchange: a new document refuses it
	verdict sniff.Verdict // what settled that it is HTTP/1
	behind  filters.Stage // for what bytes of the next request wait,
	queued  turn.Tick     // and since when; zero: none do
	held    int           // bytes received that are neither credited nor the exchange's
	unread  int           // when lingering: what the client had not read on the last look
	timer   wheel.Timer
}

// A timerFor says what an inner's timer is for.
type timerFor uint8

const (
	forNothing timerFor = iota
	forHead
	forIdle
	forLinger
)

// Opened never comes: the client opened the tunnel.
func (in *inner) Opened(*turn.Turn) {}

// Data feeds the codec. What is not request body is done with at once.
func (in *inner) Data(t *turn.Turn, p []byte, end bool) {
	if to := in.data(t, p, end); to != nil {
		to.Data(t, p, end)
	}
}

// data returns who has the tunnel if that is somebody else by now: an event may
// have been on its way.
func (in *inner) data(t *turn.Turn, p []byte, end bool) hbone.TunnelHandler {
	in.Lock()
	defer in.Unlock()
	if in.to == nil && (in.began || !in.speaksTwo(t, p)) {
		in.feed(t, p, end)
		return nil
	}
	return in.to
}

// speaksTwo looks at the first bytes: a connection of HTTP/2 goes on as what it is.
func (in *inner) speaksTwo(t *turn.Turn, p []byte) bool {
	in.began = len(p) > 0
	if in.over || in.closing || !in.begins(p) {
		return false
	}
	in.p.wheel.Stop(&in.timer)
	in.waitsAt = forNothing
	in.codec.Release()
	in.p.leave(in)
	in.verdict.Protocol = sniff.HTTP2
	in.to = newInner2(t, in.p, in.tun, bound{in.snap, in.svc}, in.verdict)
	in.tun.Handle(in.to)
	return true
}

// begins reports whether p begins HTTP/2. PRI is the method of its preface and of
// nothing else (RFC 9113, section 11.6). Where HTTP/2 is declared, it is for that
// engine to refuse what is neither.
func (in *inner) begins(p []byte) bool {
	if bytes.HasPrefix(p, prefaceMethod) {
		return true
	}
	var first sniff.Detector
	return in.verdict.Protocol == sniff.HTTP2 && first.Feed(p).Protocol > sniff.HTTP2
}

var prefaceMethod = []byte("PRI ")

func (in *inner) feed(t *turn.Turn, p []byte, end bool) {
	defer in.rescue(t)
	if in.closing || in.over {
		in.tun.Consume(t, len(p))
		return
	}
	if len(p) > 0 {
		in.held += len(p)
		in.codec.Feed(t, p)
		in.wait(t)
		in.credit(t)
	}
	if end {
		in.fin = true
		in.codec.EOF(t)
	}
	in.settle(t)
}

// wait notes since when a request waits for the one before it.
func (in *inner) wait(t *turn.Turn) {
	switch waits := in.codec.Kept() > 0; {
	case !waits:
		in.queued = 0
	case in.queued == 0:
		in.queued = t.Tick()
	}
}

// credit returns credit for what the codec has taken and found to be no body:
// the exchange says when body bytes are done with.
func (in *inner) credit(t *turn.Turn) {
	if n := in.held - in.codec.Kept(); n > 0 {
		in.held -= n
		in.tun.Consume(t, n)
	}
}

// settle sees to timers and to the end of a connection after the codec was fed.
// A request that waits for its turn is not late.
func (in *inner) settle(t *turn.Turn) {
	switch {
	case in.over || in.closing || in.next || in.stalled:
	case in.x != nil && in.x.state != xNew: // the exchange has clocks of its own
	case in.fin && in.codec.Idle():
		in.close(t)
	case in.codec.Idle():
		in.watch(t, forIdle)
	default:
		in.watch(t, forHead)
	}
}

// watch starts the clock for what the connection now waits for. The timer is
// not moved for each request: when it expires it looks at the time that counts.
func (in *inner) watch(t *turn.Turn, what timerFor) {
	if in.waitsAt == forHead && what == forHead {
		return // the head has begun before
	}
	in.since = t.Tick()
	if in.waitsAt == what {
		return
	}
	in.waitsAt = what
	if d := in.limit(); d > 0 {
		in.p.wheel.Set(&in.timer, in, d)
	}
}

func (in *inner) limit() time.Duration {
	switch in.waitsAt {
	case forHead:
		return in.p.timeouts.Head
	case forLinger:
		return lingerTime
	}
	return in.p.timeouts.Idle
}

// Expired looks whether what the timer watches has really lasted that long.
func (in *inner) Expired(t *turn.Turn, _ *wheel.Timer) {
	in.Lock()
	defer in.Unlock()
	defer in.rescue(t)
	if in.over || in.waitsAt == forNothing {
		return
	}
	d := in.limit()
	if d == 0 {
		return
	}
	if left := d - t.Tick().Sub(in.since); left > 0 {
		in.p.wheel.Set(&in.timer, in, left)
		return
	}
	what := in.waitsAt
	in.waitsAt = forNothing
	switch what {
	case forHead:
		in.refuse(t, fault.Wrap(fault.HeaderTimeout, fault.Downstream, nil))
	case forIdle:
		if in.x == nil && !in.next {
			in.close(t)
		}
	case forLinger:
		in.linger(t)
	}
}

// close ends our side; the client gets a while to read, and to end its own.
func (in *inner) close(t *turn.Turn) {
	if in.closing {
		return
	}
	in.closing = true
	in.tun.CloseWrite(t)
	in.codec.Release()
	in.credit(t)
	in.unread = in.tun.Buffered()
	in.watch(t, forLinger)
}

// linger waits on for a client that still reads, and gives up one that does not.
func (in *inner) linger(t *turn.Turn) {
	n := in.tun.Buffered()
	if n >= in.unread {
		in.tun.Abort(t, hbone.CodeNoError)
		return
	}
	in.unread = n
	in.watch(t, forLinger)
}

// Left: the client has read. That may be what the next pipelined request
// waited for.
func (in *inner) Left(t *turn.Turn) {
	if to := in.left(t); to != nil {
		to.Left(t)
	}
}

func (in *inner) left(t *turn.Turn) hbone.TunnelHandler {
	in.Lock()
	defer in.Unlock()
	defer in.rescue(t)
	if in.over || in.to != nil {
		return in.to
	}
	if in.x != nil {
		in.x.left(t)
	}
	if in.stalled && in.tun.Buffered() < maxUnread {
		in.stalled = false
		in.goOn(t)
	}
	return nil
}

// Closed: the tunnel is over, in order or not.
func (in *inner) Closed(t *turn.Turn, err error) {
	if to := in.closed(t, err); to != nil {
		to.Closed(t, err)
	}
}

func (in *inner) closed(t *turn.Turn, err error) hbone.TunnelHandler {
	in.Lock()
	defer in.Unlock()
	if in.to != nil {
		return in.to
	}
	defer in.forget()
	defer in.rescue(t)
	in.over = true
	in.p.wheel.Stop(&in.timer)
	in.waitsAt = forNothing
	if in.x != nil {
		in.x.downstreamClosed(t, err)
	}
	in.codec.Release()
	return nil
}

func (in *inner) forget() { in.p.forget(in, in.snap) }

// pin takes the snapshot of the moment, if it has changed.
func (in *inner) pin() {
	cur := in.p.snap.Load()
	if cur == in.snap {
		return
	}
	old := in.snap
	if !cur.Pin() { // replaced meanwhile: look again
		in.pin()
		return
	}
	in.snap = cur
	in.svc, _ = cur.Service(in.tun.Peer().Destination, in.tun.Peer().Host)
	in.source = in.p.sourceOf(cur, in.tun.Peer())
	if old != nil {
		old.Unpin()
	}
}

// drain has nothing to do now: the next response says that it is the last.
func (in *inner) drain(*turn.Turn) {}

// endIdle ends a connection that waits for a request: no answer will tell its
// client that it is the last.
func (in *inner) endIdle(t *turn.Turn) bool {
	in.Lock()
	defer in.Unlock()
	defer in.rescue(t)
	if in.to != nil || in.over || in.closing || in.next || in.x != nil && in.x.state != xNew || !in.codec.Idle() {
		return false
	}
	in.close(t)
	return true
}

// NewRequest lends the message into which the codec parses the next head.
func (in *inner) NewRequest(t *turn.Turn) *message.Request {
	if in.x == nil {
		in.pin()
		in.x = in.p.newExchange(t, in.origin())
		if in.queued != 0 {
			in.x.waited(t, in.queued, in.behind)
			in.behind = filters.StageQueue
		}
	}
	return &in.x.req
}

func (in *inner) origin() origin {
	return origin{in, &in.Lane, in.tun.Peer(), in.svc, in.source, in.verdict}
}

// Request begins the exchange.
func (in *inner) Request(t *turn.Turn, r *message.Request, end bool) {
	t.Event()
	if in.waitsAt == forHead {
		in.waitsAt = forIdle // the timer runs on and will look at since
	}
	in.since = t.Tick()
	in.x.requestHead(t, r, end)
}

// RequestChunk brings body bytes of the exchange in progress.
func (in *inner) RequestChunk(t *turn.Turn, c *message.Chunk) {
	in.held -= len(c.Data) // the exchange's from here on
	if in.x == nil {
		in.tun.Consume(t, len(c.Data))
		return
	}
	in.x.requestChunk(t, c)
}

// RequestError answers what is no request. Nothing after it can be trusted to
// begin where it seems to.
func (in *inner) RequestError(t *turn.Turn, err *http1.ParseError) {
	kind := kindOfStatus(err.Status)
	f := fault.Wrap(kind, fault.Downstream, err)
	if in.x != nil && in.x.state != xNew {
		in.x.requestBroken(t, f)
		return
	}
	in.refuse(t, f)
}

// refuse answers a request that never became one.
func (in *inner) refuse(t *turn.Turn, f *fault.Fault) {
	if in.x == nil {
		in.pin()
		in.x = in.p.newExchange(t, in.origin())
	}
	in.x.requestBroken(t, f)
}

func kindOfStatus(status int) fault.Kind {
	switch status {
	case 408:
		return fault.HeaderTimeout
	case 413:
		return fault.BodyTooLarge
	case 414:
		return fault.TargetTooLong
	case 431:
		return fault.HeadTooLarge
	case 501:
		return fault.NotImplemented
	case 505:
		return fault.VersionNotSupported
	}
	return fault.BadRequest
}

// The downstream of an exchange.

func (in *inner) writeContinue(t *turn.Turn)                           { in.codec.Continue(t) }
func (in *inner) writeInformational(t *turn.Turn, r *message.Response) { in.codec.Informational(t, r) }
func (in *inner) writeHead(t *turn.Turn, r *message.Response, end bool) error {
	if hbone.Draining(in.tun) { // the next request finds another tunnel
		r.Close = true
	}
	return in.codec.WriteHead(t, r, end)
}
func (in *inner) writeAll(t *turn.Turn, r *message.Response, body []byte) error {
	if hbone.Draining(in.tun) {
		r.Close = true
	}
	return in.codec.WriteAll(t, r, body)
}
func (in *inner) writeChunk(t *turn.Turn, c *message.Chunk) error { return in.codec.WriteChunk(t, c) }
func (in *inner) buffered() int                                   { return in.tun.Buffered() }
func (in *inner) consume(t *turn.Turn, n int)                     { in.tun.Consume(t, n) }
func (in *inner) serial() bool                                    { return true }

// cut ends the connection in the middle of a message.
func (in *inner) cut(t *turn.Turn) {
	if !in.over {
		in.tun.Abort(t, hbone.CodeCancel)
	}
}

// upgrade hands the tunnel to h: what comes from now on is another protocol's.
func (in *inner) upgrade(t *turn.Turn, h hbone.TunnelHandler) hbone.Detached {
	in.p.wheel.Stop(&in.timer)
	in.waitsAt = forNothing
	held, _ := in.codec.Detach()
	in.tun.Consume(t, in.held-len(held))
	in.held, in.to = 0, h
	in.tun.Handle(h)
	return hbone.Detached{Tunnel: in.tun, Held: held, Ended: in.fin}
}

// done is told when the exchange is over. A pipelined request begins at the
// turn's top level: the upstream connection that this one used is free by then,
// and a client that pipelines cannot make the stack deep.
func (in *inner) done(t *turn.Turn, keep bool) {
	in.x = nil
	if in.to != nil { // and with the exchange the tunnel is over
		in.over = true
		in.forget()
		return
	}
	if in.over {
		return
	}
	in.pin() // a connection that is unused from now on keeps no old snapshot
	if !keep || in.revoked || !in.codec.KeepAlive() {
		in.close(t)
		return
	}
	in.since = t.Tick()
	if in.codec.Kept() == 0 {
		in.codec.Next(t)
		in.settle(t)
		return
	}
	in.next = true
	t.Notify(in)
}

// Notified begins the next exchange.
func (in *inner) Notified(t *turn.Turn) {
	in.Lock()
	defer in.Unlock()
	defer in.rescue(t)
	if in.next {
		in.next = false
		in.goOn(t)
	}
}

// goOn takes up what the client has sent meanwhile, unless it does not read:
// answers to it would only pile up.
func (in *inner) goOn(t *turn.Turn) {
	if in.over || in.closing || in.x != nil {
		return
	}
	if in.tun.Buffered() >= maxUnread {
		in.stalled = true
		return
	}
	in.codec.Next(t)
	in.wait(t)
	in.credit(t)
	in.settle(t)
}

// rescue is the boundary at which a panic ends: it costs the connection, is
// counted and told, and the process lives. Runs with the lane held.
func (in *inner) rescue(t *turn.Turn) {
	if r := recover(); r != nil {
		in.p.panicked(r)
		if in.x != nil {
			in.x.abandon(t)
		}
		in.x = nil
		in.over = true
		in.tun.Abort(t, hbone.CodeInternal)
	}
}
