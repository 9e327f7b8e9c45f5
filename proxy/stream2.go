package proxy

import (
	"errors"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/http2"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var (
	_ h2.StreamHandler = (*stream2)(nil)
	_ downstream       = (*stream2)(nil)
	_ turn.Notified    = (*stream2)(nil)
)

// A stream2 is one request of a client on an inner HTTP/2 connection, and its
// lane. It is pooled: it goes back when both the exchange and the stream are over.
type stream2 struct {
	turn.Lane

	// Guarded by the lane.
	in     *inner2
	s      *h2.Stream
	hold   *hold
	codec  http2.Server
	x      *exchange // nil when it is over
	chunk  message.Chunk
	held   []byte           // lent: what came behind an extended CONNECT before its answer
	to     h2.StreamHandler // whose the stream is, once it speaks something else
	fin    bool             // the client has ended its side behind an extended CONNECT
	closed bool             // the stream is over, and its handler has heard so
}

// Request begins an exchange.
func (in *inner2) Request(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	t.Event()
	st := in.p.streams2.Get().(*stream2)
	st.Lock()
	defer st.Unlock()
	defer st.rescue(t)
	st.in, st.s = in, s
	st.codec.Init(s)
	s.Handle(st) // before it takes its snapshot: a review that does not find it is over by then
	st.hold = in.begin()
	st.x = in.p.newExchange(t, origin{st, &st.Lane, in.tun.Peer(), st.hold.svc, st.hold.source, in.verdict})
	if err := st.codec.ReadHead(&st.x.req, fields, end); err != nil {
		st.x.requestBroken(t, fault.Wrap(kindOfStatus(err.Status), fault.Downstream, err))
		return
	}
	st.x.requestHead(t, &st.x.req, end || st.codec.Upgrade())
}

// Data brings content of the request.
func (st *stream2) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if to := st.data(t, s, p, end); to != nil {
		to.Data(t, s, p, end)
	}
}

// data returns whose the stream is if that is somebody else by now: an event may
// have been on its way.
func (st *stream2) data(t *turn.Turn, s *h2.Stream, p []byte, end bool) h2.StreamHandler {
	st.Lock()
	defer st.Unlock()
	defer st.rescue(t)
	switch {
	case st.to != nil:
		return st.to
	case st.x == nil:
		s.Consume(t, len(p))
	case st.codec.Upgrade(): // no body: it is for whom the endpoint switches to
		st.held = buf.Append(st.held, p)
		st.fin = end
	case len(p) > 0 || end:
		st.chunk = message.Chunk{Data: p, End: end}
		st.x.requestChunk(t, &st.chunk)
		st.chunk = message.Chunk{} // a view kept here would keep a buffer alive
	}
	return nil
}

// Headers brings the request's trailers.
func (st *stream2) Headers(t *turn.Turn, _ *h2.Stream, fields []h2.Field, _ bool) {
	st.Lock()
	defer st.Unlock()
	defer st.rescue(t)
	if st.x == nil || st.codec.Upgrade() {
		return
	}
	st.chunk = message.Chunk{End: true}
	if h := &st.x.req.Trailer; !st.x.request.broken {
		http2.ReadTrailer(h, fields)
		if h.Len() > 0 {
			st.chunk.Trailer = h
		}
	}
	st.x.requestChunk(t, &st.chunk)
	st.chunk = message.Chunk{}
}

// Left: the client has read.
func (st *stream2) Left(t *turn.Turn, s *h2.Stream) {
	if to := st.left(t); to != nil {
		to.Left(t, s)
	}
}

func (st *stream2) left(t *turn.Turn) h2.StreamHandler {
	st.Lock()
	defer st.Unlock()
	defer st.rescue(t)
	if st.x != nil && st.to == nil {
		st.x.left(t)
	}
	return st.to
}

// Closed is the last that is heard of the stream.
func (st *stream2) Closed(t *turn.Turn, s *h2.Stream, err error) {
	if to := st.over(t, err); to != nil {
		to.Closed(t, s, err)
	}
}

func (st *stream2) over(t *turn.Turn, err error) h2.StreamHandler {
	st.Lock()
	defer st.Unlock()
	defer st.rescue(t)
	switch {
	case st.to != nil:
	case st.x == nil:
		t.Notify(st)
	default:
		st.closed = true
		st.x.downstreamClosed(t, err)
	}
	return st.to
}

// Notified puts the stream back into the pool: nothing refers to it any more.
func (st *stream2) Notified(*turn.Turn) {
	st.Lock()
	p := st.in.p
	buf.Put(st.held)
	st.codec.Init(nil)
	st.in, st.s, st.hold, st.held, st.to, st.fin, st.closed = nil, nil, nil, nil, nil, false, false
	st.Unlock()
	p.streams2.Put(st)
}

// The downstream of an exchange.

func (st *stream2) writeContinue(t *turn.Turn) { st.codec.Continue(t) }
func (st *stream2) writeInformational(t *turn.Turn, r *message.Response) {
	st.codec.Informational(t, r)
}
func (st *stream2) writeHead(t *turn.Turn, r *message.Response, end bool) error {
	return st.codec.WriteHead(t, r, end)
}
func (st *stream2) writeAll(t *turn.Turn, r *message.Response, body []byte) error {
	err := st.writeHead(t, r, false)
	if err == nil {
		c := lendChunk(st.in.p.shelf(t))
		*c = message.Chunk{Data: body, End: true}
		err = st.writeChunk(t, c)
		*c = message.Chunk{} // a view kept here would keep a buffer alive
	}
	return err
}

func (st *stream2) writeChunk(t *turn.Turn, c *message.Chunk) error { return st.codec.WriteChunk(t, c) }
func (st *stream2) buffered() int                                   { return st.s.Buffered() }
func (st *stream2) consume(t *turn.Turn, n int)                     { st.s.Consume(t, n) }
func (st *stream2) serial() bool                                    { return false }

// cut resets the stream in the middle of a message.
func (st *stream2) cut(t *turn.Turn) { st.s.Abort(t, resetCode(st.x)) }

// upgrade hands the stream to h: what comes from now on is another protocol's.
func (st *stream2) upgrade(_ *turn.Turn, h hbone.TunnelHandler) hbone.Detached {
	d := hbone.Detached{Held: st.held, Ended: st.fin}
	st.held = nil
	st.in.upgrade(st) // before the stream has another handler
	d.Tunnel, st.to = hbone.Adopt(st.s, st.in.tun.Peer(), h)
	return d
}

// resetCode is what a client learns of a response that is cut. An endpoint's own
// code passes, for clients of gRPC make a status of it; but not one that would say
// that nothing was processed, or that all is well.
func resetCode(x *exchange) uint32 {
	if x == nil || x.stream.Fault == nil {
		return h2.CodeInternal
	}
	switch x.stream.Fault.Kind {
	case fault.UpstreamTimeout, fault.StreamIdle, fault.DurationExceeded:
		return h2.CodeCancel // it may be long, but all is well with it
	case fault.Revoked:
		return h2.CodeInadequateSecurity // of which clients of gRPC make PERMISSION_DENIED
	}
	if err, ok := errors.AsType[*h2.StreamError](x.stream.Fault); ok && err.Remote {
		switch err.Code {
		case h2.CodeCancel, h2.CodeEnhanceYourCalm, h2.CodeInadequateSecurity, h2.CodeProtocol:
			return err.Code
		}
	}
	return h2.CodeInternal
}

// done is told when the exchange is over. A request that has been answered before
// its end is stopped behind the answer.
func (st *stream2) done(t *turn.Turn, _ bool) {
	st.x = nil
	st.in.end(st.hold)
	if st.to != nil {
		st.in.downgrade(st)
	}
	if st.closed || st.to != nil { // which is over with the exchange
		t.Notify(st)
		return
	}
	if !st.codec.Done() {
		st.s.Abort(t, h2.CodeInternal) // it has been cut already, or there is nobody
		return
	}
	st.s.Stop(t)
}

// rescue is the boundary at which a panic ends: it costs the stream, is counted
// and told, and the connection lives. Runs with the lane held.
func (st *stream2) rescue(t *turn.Turn) {
	if r := recover(); r != nil {
		st.in.p.panicked(r)
		if st.x != nil {
			st.x.abandon(t)
		}
		st.s.Abort(t, h2.CodeInternal)
	}
}
