package upstream

import (
	"errors"
	"fmt"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/http2"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var (
	_ Call             = (*call2)(nil)
	_ h2.StreamHandler = (*call2)(nil)
	_ turn.Notified    = (*call2)(nil)
)

// maxInterim is how many informational responses may come before the final one.
const maxInterim = 10

// A call2 is one call on a connection that is shared: one stream. It is pooled,
// and goes back when the stream has told its end and the handler has let go.
type call2 struct {
	// Set while it is in use.
	ep   *Endpoint
	lane *turn.Lane
	c    *conn2 // nil if none had a place

	// Guarded by the lane.
	h        CallHandler // nil when the call is over for it
	s        *h2.Stream  // nil until the head is written
	codec    http2.Client
	resp     *message.Response // being read
	chunk    message.Chunk
	offer    *message.Request // an extended CONNECT that waits for the endpoint's SETTINGS
	held     []byte           // lent: what came behind its answer before Upgrade
	to       h2.StreamHandler // whose the stream is, once it speaks something else
	lost     *fault.Fault     // why it never got a stream; told by Notified
	heardAt  uint32           // what the connection had heard when the head was written
	progress filters.Progress
	interim  uint8
	reused   bool
	waits    bool // for the connection to be open
	started  bool // something of the response has come
	final    bool // …the final head
	body     bool // …which content may follow
	sentEnd  bool // the request has been written to its end
	switched bool // the answer was 101
	fin      bool // …and the endpoint has ended its side
}

// newCall2 takes a call from the pool.
func (e *Endpoint) newCall2(lane *turn.Lane, h CallHandler) *call2 {
	k, ok := e.calls.Get().(*call2)
	if !ok {
		k = new(call2)
	}
	k.ep, k.lane, k.h = e, lane, h
	return k
}

func (k *call2) Endpoint() *Endpoint { return k.ep }
func (k *call2) Reused() bool        { return k.reused }

// Attached is about the connection that the call waits for, or has.
func (k *call2) Attached() (turn.Tick, bool) {
	if k.c == nil {
		return 0, false
	}
	return hbone.Attached(k.c.tun)
}

func (k *call2) Progress() filters.Progress { return k.progress }

// Buffered returns what the stream holds.
func (k *call2) Buffered() int {
	if k.s == nil {
		return 0
	}
	return k.s.Buffered()
}

// WriteHead opens the stream. If the connection has come to an end since it was
// chosen, Failed follows.
func (k *call2) WriteHead(t *turn.Turn, r *message.Request, end bool) error {
	if len(r.Upgrade) > 0 {
		return k.connect(t, r)
	}
	return k.open(t, r, end)
}

// connect offers to switch protocols, if the endpoint takes such offers: that is
// known when its SETTINGS have come. r must stay as it is until then.
func (k *call2) connect(t *turn.Turn, r *message.Request) error {
	k.offer = nil
	switch {
	case k.c.settle(k):
		k.offer = r
	case !k.c.h2.ConnectProtocol():
		k.c.h2.Unreserve()
		k.reservedNoMore(t, fault.UpstreamProtocol, errConnect)
	default:
		return k.open(t, r, false)
	}
	return nil
}

var errConnect = errors.New("it takes no extended CONNECT (RFC 8441)")

// settled: the endpoint's SETTINGS have come.
func (k *call2) settled(t *turn.Turn) {
	k.lane.Lock()
	defer k.lane.Unlock()
	switch {
	case k.h == nil: // cancelled meanwhile
		k.giveBack(t)
		k.recycle(t)
	default:
		if err := k.connect(t, k.offer); err != nil {
			k.c.h2.Unreserve()
			k.reservedNoMore(t, fault.Internal, err)
		}
	}
}

func (k *call2) open(t *turn.Turn, r *message.Request, end bool) error {
	k.heardAt = k.c.heard.Load()
	s, err := k.codec.WriteHead(t, http2.Place{Conn: k.c.h2, Handler: k}, r, end)
	switch {
	case err == http2.ErrHead || err == http2.ErrLength:
		return err // and Cancel gives the place back
	case err == h2.ErrFull:
		k.reservedNoMore(t, fault.RefusedStream, err)
	case err == h2.ErrGoneAway:
		k.reservedNoMore(t, fault.GoneAway, err)
	case err != nil:
		k.reservedNoMore(t, fault.StaleConnection, err)
	default:
		k.s, k.progress, k.sentEnd = s, filters.SentHead, end && len(r.Upgrade) == 0
	}
	return nil
}

// reservedNoMore: the place was lost with the attempt to use it.
func (k *call2) reservedNoMore(t *turn.Turn, kind fault.Kind, err error) {
	k.c = nil
	k.failLater(t, kind, err)
}

// failLater tells the handler, at the turn's top level, that there is no stream.
func (k *call2) failLater(t *turn.Turn, kind fault.Kind, err error) {
	k.lost = k.fault(kind, err)
	t.Notify(k)
}

func (k *call2) fault(kind fault.Kind, err error) *fault.Fault {
	return fault.Wrap(kind, fault.Upstream, fmt.Errorf("endpoint %s: %w", k.ep.key.addr, err))
}

// WriteChunk sends request body bytes.
func (k *call2) WriteChunk(t *turn.Turn, c *message.Chunk) error {
	if k.s == nil {
		return nil // Failed is on its way
	}
	if len(c.Data) > 0 {
		k.progress = filters.SentBody
	}
	k.sentEnd = c.End
	return k.codec.WriteChunk(t, k.s, c)
}

// Consume returns credit for response body bytes.
func (k *call2) Consume(t *turn.Turn, n int) { k.s.Consume(t, n) }

// Cancel gives the call up: the endpoint is told at once.
func (k *call2) Cancel(t *turn.Turn) {
	k.h, k.resp = nil, nil
	k.ep.active.Add(-1)
	switch {
	case k.s != nil:
		k.s.Abort(t, h2.CodeCancel)
	case k.lost != nil, k.offer != nil: // which Notified finds out, or settled
	case !k.waits:
		k.giveBack(t)
		k.recycle(t)
	}
}

// giveBack gives up a place that was not used. A connection that was to end with
// it does.
func (k *call2) giveBack(t *turn.Turn) {
	k.c.h2.Unreserve()
	k.c.leave(t)
}

// opened: the connection stands.
func (k *call2) opened(t *turn.Turn) {
	k.lane.Lock()
	defer k.lane.Unlock()
	k.waits = false
	if k.h == nil { // cancelled meanwhile
		k.giveBack(t)
		k.recycle(t)
		return
	}
	k.h.Ready(t)
}

// notOpened: there is no connection.
func (k *call2) notOpened(t *turn.Turn, err error) {
	k.lane.Lock()
	defer k.lane.Unlock()
	k.waits = false
	k.fail(t, k.ep.OpenFault(err))
	k.recycle(t)
}

// fail ends the call for the handler.
func (k *call2) fail(t *turn.Turn, f *fault.Fault) {
	h := k.h
	if h == nil {
		return
	}
	k.h, k.resp = nil, nil
	k.ep.active.Add(-1)
	h.Failed(t, f)
}

// recycle has the call go back to the pool, at the turn's top level.
func (k *call2) recycle(t *turn.Turn) {
	t.Notify(k)
}

// Notified tells of a call that got no stream, or puts one back that is over.
func (k *call2) Notified(t *turn.Turn) {
	k.lane.Lock()
	if k.lost != nil {
		k.fail(t, k.lost)
	}
	e, lane := k.ep, k.lane
	buf.Put(k.held)
	k.codec.Reset()
	*k = call2{codec: k.codec}
	lane.Unlock()
	e.calls.Put(k)
}

// Headers brings a head: informational, final, or trailers.
func (k *call2) Headers(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	k.lane.Lock()
	defer k.lane.Unlock()
	switch {
	case k.h == nil || k.switched:
	case k.final:
		http2.ReadTrailer(&k.resp.Trailer, fields)
		k.chunk = message.Chunk{End: true}
		if k.resp.Trailer.Len() > 0 {
			k.chunk.Trailer = &k.resp.Trailer
		}
		k.over(t).Chunk(t, &k.chunk)
	default:
		k.head(t, fields, end)
	}
}

func (k *call2) head(t *turn.Turn, fields []h2.Field, end bool) {
	k.started = true
	if k.resp == nil {
		k.resp = k.h.NewResponse(t)
	}
	r := k.resp
	body, err := k.codec.ReadHead(r, fields, end)
	if err == nil && r.Status < 200 && r.Status != 101 {
		if k.interim++; k.interim <= maxInterim {
			k.h.Informational(t, r)
			r.Reset()
			return
		}
		err = &http2.Error{Reason: "too many informational responses"}
	}
	switch {
	case err != nil:
		k.s.Abort(t, h2.CodeProtocol)
		k.fail(t, k.fault(fault.UpstreamProtocol, err))
		return
	case end:
		k.over(t).Head(t, r, true)
		return
	}
	k.final, k.body, k.switched = true, body, r.Status == 101
	k.h.Head(t, r, false)
}

// over ends the call in order, and returns the handler for the last time. What is
// left of the request is of no use to anybody.
func (k *call2) over(t *turn.Turn) CallHandler {
	h := k.h
	k.h = nil
	k.ep.active.Add(-1)
	if !k.sentEnd {
		k.s.Abort(t, h2.CodeCancel)
	}
	return h
}

// Upgrade hands the stream to h after a 101.
func (k *call2) Upgrade(_ *turn.Turn, h hbone.TunnelHandler) hbone.Detached {
	d := hbone.Detached{Held: k.held, Ended: k.fin}
	k.h, k.resp, k.held = nil, nil, nil
	d.Tunnel, k.to = hbone.Adopt(k.s, k.c.tun.Peer(), h)
	return d
}

// Data brings response body bytes. To a response that has none they are dropped.
func (k *call2) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if to := k.data(t, s, p, end); to != nil {
		to.Data(t, s, p, end)
	}
}

// data returns whose the stream is if that is somebody else by now: an event may
// have been on its way.
func (k *call2) data(t *turn.Turn, s *h2.Stream, p []byte, end bool) h2.StreamHandler {
	k.lane.Lock()
	defer k.lane.Unlock()
	switch {
	case k.to != nil:
		return k.to
	case k.h == nil:
		s.Consume(t, len(p))
	case k.switched:
		k.held = buf.Append(k.held, p)
		k.fin = k.fin || end
	default:
		k.content(t, s, p, end)
	}
	return nil
}

func (k *call2) content(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if !k.body && !end {
		s.Consume(t, len(p))
		return
	}
	if !k.body {
		p = nil
	}
	k.chunk = message.Chunk{Data: p, End: end}
	switch {
	case end:
		k.over(t).Chunk(t, &k.chunk)
	case len(p) > 0:
		k.h.Chunk(t, &k.chunk)
	}
	k.chunk = message.Chunk{} // a view kept here would keep a buffer alive
}

// Left: request bytes have left.
func (k *call2) Left(t *turn.Turn, s *h2.Stream) {
	if to := k.left(t); to != nil {
		to.Left(t, s)
	}
}

func (k *call2) left(t *turn.Turn) h2.StreamHandler {
	k.lane.Lock()
	defer k.lane.Unlock()
	if k.h != nil {
		k.h.Left(t)
	}
	return k.to
}

// Closed is the last that is heard of the stream.
func (k *call2) Closed(t *turn.Turn, s *h2.Stream, err error) {
	if to := k.closed(t, err); to != nil {
		to.Closed(t, s, err)
	}
}

func (k *call2) closed(t *turn.Turn, err error) h2.StreamHandler {
	k.lane.Lock()
	defer k.lane.Unlock()
	if k.to != nil {
		return k.to // and k does not go back to the pool: an event may be on its way
	}
	if k.h != nil {
		k.fail(t, k.classify(err))
	}
	k.recycle(t)
	return nil
}

// classify names why the stream ended under the call.
func (k *call2) classify(err error) *fault.Fault {
	kind, reset := fault.UpstreamClosed, fault.UpstreamReset
	if k.started {
		kind, reset = fault.UpstreamClosedMidResponse, fault.UpstreamResetMidResponse
	} else if k.reused && k.c.heard.Load() == k.heardAt {
		kind = fault.StaleConnection // it had come to its end before it was asked
	}
	se, isStream := errors.AsType[*h2.StreamError](err)
	ce, isConn := errors.AsType[*h2.ConnError](err)
	ge, isGone := errors.AsType[*h2.GoAwayError](err)
	switch {
	case isGone && ge.Unprocessed:
		k.progress, kind = filters.SentNothing, fault.GoneAway
	case isStream && se.Remote && se.Code == h2.CodeRefusedStream && !k.started:
		k.progress, kind = filters.SentNothing, fault.RefusedStream
	case isStream && se.Remote:
		kind = reset
	case isStream, isConn && ce.Err == nil: // it broke a rule
		kind = fault.UpstreamProtocol
	case isConn: // it is not there any more
	case wasReset(err) && kind != fault.StaleConnection:
		kind = reset
	}
	return k.fault(kind, err)
}
