package upstream

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/http1"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var (
	_ Call                = (*conn)(nil)
	_ hbone.TunnelHandler = (*conn)(nil)
	_ http1.ClientHandler = (*conn)(nil)
)

// A connState is where an inner connection is in its life.
type connState uint8

const (
	opening  connState = iota // no answer to CONNECT yet
	unused                    // open, kept for the next call
	serving                   // open, with a call
	switched                  // open, and answered with 101: it waits for Upgrade
	moved                     // somebody else has the tunnel
	over                      // nothing may be sent any more
)

// A conn is an inner HTTP/1 connection to an endpoint, and the call it serves.
//
// While it serves, or is opened for a call, the lane is that call's; otherwise the
// one of its endpoint's connections at rest. Whoever has loaded the lane's pointer
// locks it and looks again.
type conn struct {
	// Set once.
	ep  *Endpoint
	tun hbone.Tunnel

	lane atomic.Pointer[turn.Lane]

	// Guarded by the lane.
	h        CallHandler // nil while unused
	state    connState
	reused   bool
	started  bool // a byte of the response has arrived
	progress filters.Progress
	sentEnd  bool // the request has been written to its end
	ended    bool // the response has ended; the handler has let go
	fin      bool // the far end has finished sending behind its 101
	feeding  int  // response body bytes found in the bytes now being fed
	codec    http1.Client
	owed     int // response body bytes whose credit has not gone back

	idleSince turn.Tick           // or closed since
	to        hbone.TunnelHandler // who has the tunnel, if it was moved
}

// lock takes whatever lane the connection is in.
func (c *conn) lock() *turn.Lane {
	for {
		l := c.lane.Load()
		l.Lock()
		if c.lane.Load() == l {
			return l
		}
		l.Unlock() // the connection changed hands meanwhile
	}
}

// adopt takes an unused connection into the lane of its next call. Both lanes are
// held.
func (c *conn) adopt(lane *turn.Lane, h CallHandler) {
	c.state, c.h = serving, h
	c.reused, c.started, c.sentEnd, c.ended = true, false, false, false
	c.progress = filters.SentNothing
	c.lane.Store(lane)
}

// await takes a connection that is being opened for nobody into the lane of a
// call, as adopt does.
func (c *conn) await(lane *turn.Lane, h CallHandler) bool {
	c.ep.rest.Lock()
	defer c.ep.rest.Unlock()
	if c.state != opening || c.h != nil {
		return false
	}
	c.h = h
	c.lane.Store(lane)
	return true
}

func (c *conn) Endpoint() *Endpoint { return c.ep }

// Attached: a connection that was kept has taken its call at once.
func (c *conn) Attached() (turn.Tick, bool) {
	if c.reused {
		return 0, false
	}
	return hbone.Attached(c.tun)
}

func (c *conn) Reused() bool               { return c.reused }
func (c *conn) Progress() filters.Progress { return c.progress }
func (c *conn) Buffered() int              { return c.tun.Buffered() }

// WriteHead sends the request head.
func (c *conn) WriteHead(t *turn.Turn, r *message.Request, end bool) error {
	c.progress = filters.SentHead
	c.sentEnd = end
	return c.codec.WriteHead(t, r, end)
}

// WriteChunk sends request body bytes.
func (c *conn) WriteChunk(t *turn.Turn, k *message.Chunk) error {
	if len(k.Data) > 0 {
		c.progress = filters.SentBody
	}
	c.sentEnd = k.End
	return c.codec.WriteChunk(t, k)
}

// Consume returns credit for response body bytes.
func (c *conn) Consume(t *turn.Turn, n int) {
	c.owed -= n
	c.tun.Consume(t, n)
}

// Cancel gives the call up. A connection that is still being opened is kept for
// the next call; one in the middle of a message is of no use to anybody.
func (c *conn) Cancel(t *turn.Turn) {
	c.h = nil
	c.ep.active.Add(-1)
	if c.state == opening {
		c.lane.Store(&c.ep.rest)
		return
	}
	c.state = over
	c.codec.Release() // it may be in the middle of Feed, with the caller's message in hand
	c.lane.Store(&c.ep.rest)
	c.tun.Abort(t, hbone.CodeCancel)
}

// close ends a connection in order: what was written leaves, and the far end
// has until the next sweep to close its side.
func (c *conn) close(t *turn.Turn) {
	c.state, c.h = over, nil
	c.codec.Release()
	c.idleSince = t.Tick()
	c.lane.Store(&c.ep.rest)
	if c.ep.linger(c) {
		c.tun.CloseWrite(t)
	} else {
		c.tun.Abort(t, hbone.CodeCancel)
	}
}

// cut ends a connection that did not end its own side in time.
func (c *conn) cut(t *turn.Turn) { c.tun.Abort(t, hbone.CodeCancel) }

// Opened: the far end took the tunnel.
func (c *conn) Opened(t *turn.Turn) {
	l := c.lock()
	defer l.Unlock()
	switch {
	case c.state != opening:
	case c.h == nil: // it is in the lane of those at rest
		c.ep.dropBorn(c)
		c.ep.putIdle(t, c)
	default:
		c.state = serving
		c.h.Ready(t)
	}
}

// keep makes the connection available to the next call. It is the last thing
// done with the connection in the call's lane: another may have it at once.
func (c *conn) keep(t *turn.Turn) {
	l := &c.ep.rest
	l.Lock()
	c.ep.putIdle(t, c)
	l.Unlock()
}

// Data feeds the codec. Bytes that are not body (heads, chunk sizes) are done
// with at once; the handler says when body bytes are.
func (c *conn) Data(t *turn.Turn, p []byte, end bool) {
	if to, rest := c.take(t, p, end); to != nil {
		to.Data(t, rest, end)
	}
}

// take returns who has the tunnel if that is somebody else by now, and what is
// his: an event may have been on its way when the tunnel was moved.
func (c *conn) take(t *turn.Turn, p []byte, end bool) (to hbone.TunnelHandler, rest []byte) {
	l := c.lock()
	defer l.Unlock()
	switch c.state {
	case moved:
		return c.to, p
	case serving, switched:
		c.feed(t, p)
		if c.state == moved && end { // the 101 and the end came in one read
			return c.to, nil
		}
		c.settle(t, end)
	case unused:
		c.spoiled(t, len(p) == 0)
	default:
		c.tun.Consume(t, len(p))
	}
	return nil, nil
}

func (c *conn) feed(t *turn.Turn, p []byte) {
	if len(p) == 0 {
		return
	}
	c.started = true
	c.feeding = 0
	kept := c.codec.Kept()
	c.codec.Feed(t, p)
	n := len(p) - c.feeding - (c.codec.Kept() - kept)
	switch {
	case n <= 0:
	case c.state == serving && c.ended: // release gives it back with the rest
		c.owed += n
	default:
		c.tun.Consume(t, n)
	}
}

// settle decides what becomes of the connection after it was fed.
func (c *conn) settle(t *turn.Turn, end bool) {
	if end && c.state == serving && !c.ended {
		c.codec.EOF(t) // ends a body that has no other end
	}
	switch {
	case c.state == switched:
		c.fin = c.fin || end
	case c.state != serving:
	case !c.ended && !end:
	case !c.ended:
		c.fail(t, fault.Wrap(c.endKind(), fault.Upstream, fmt.Errorf("endpoint %s: %w", c.ep.key.addr, errFIN)))
	default:
		c.release(t, end)
	}
}

var errFIN = errors.New("the endpoint closed the connection")

// release ends the call and keeps the connection if it can serve another.
func (c *conn) release(t *turn.Turn, end bool) {
	c.ep.active.Add(-1)
	if c.owed > 0 {
		c.tun.Consume(t, c.owed)
		c.owed = 0
	}
	switch {
	case !c.sentEnd: // the response came before the request's end: stop the upload
		c.state = over
		c.codec.Release()
		c.lane.Store(&c.ep.rest)
		c.tun.Abort(t, hbone.CodeCancel)
	case end || !c.codec.Reusable() || hbone.Draining(c.tun):
		c.close(t)
	default:
		c.keep(t)
	}
}

// spoiled ends an unused connection on which the far end closed, or spoke out
// of turn.
func (c *conn) spoiled(t *turn.Turn, inOrder bool) {
	c.ep.dropIdle(c)
	if inOrder {
		c.close(t)
		return
	}
	c.state = over
	c.codec.Release()
	c.tun.Abort(t, hbone.CodeCancel)
}

// fail ends the call with a fault.
func (c *conn) fail(t *turn.Turn, f *fault.Fault) {
	h, was := c.h, c.state
	c.state, c.h = over, nil
	c.codec.Release()
	c.lane.Store(&c.ep.rest)
	if was == serving || was == switched {
		c.tun.Abort(t, hbone.CodeCancel)
	}
	if h != nil || c.ended {
		c.ep.active.Add(-1)
	}
	if h == nil && was == opening {
		c.ep.dropBorn(c)
	}
	if h != nil {
		h.Failed(t, f)
	}
}

// endKind says what an end of the connection means now: a connection that was
// kept and closed before it answered was closed before it was asked.
func (c *conn) endKind() fault.Kind {
	switch {
	case c.started:
		return fault.UpstreamClosedMidResponse
	case c.reused:
		return fault.StaleConnection
	}
	return fault.UpstreamClosed
}

func (c *conn) Left(t *turn.Turn) {
	if to := c.left(t); to != nil {
		to.Left(t)
	}
}

func (c *conn) left(t *turn.Turn) (to hbone.TunnelHandler) {
	l := c.lock()
	defer l.Unlock()
	if c.state == serving && c.h != nil {
		c.h.Left(t)
	}
	return c.to
}

func (c *conn) Closed(t *turn.Turn, err error) {
	if to := c.closed(t, err); to != nil {
		to.Closed(t, err)
	}
}

func (c *conn) closed(t *turn.Turn, err error) (to hbone.TunnelHandler) {
	l := c.lock()
	defer l.Unlock()
	switch c.state {
	case unused:
		c.state = over
		c.ep.dropIdle(c)
	case opening, serving, switched:
		c.fail(t, c.classify(err))
	case over:
		c.ep.forget(c)
	}
	return c.to
}

// Upgrade hands the tunnel to h after a 101.
func (c *conn) Upgrade(_ *turn.Turn, h hbone.TunnelHandler) hbone.Detached {
	held, _ := c.codec.Detach()
	c.feeding += len(held) // if it is being fed: they are not done with
	c.state, c.h, c.to = moved, nil, h
	c.codec.Release()
	c.tun.Handle(h)
	return hbone.Detached{Tunnel: c.tun, Held: held, Ended: c.fin}
}

// classify names why the tunnel ended under a call.
func (c *conn) classify(err error) *fault.Fault {
	if err == nil {
		err = errFIN
	}
	kind := c.endKind()
	unprocessed, ok := errors.AsType[*hbone.UnprocessedError](err)
	if ok {
		kind = unprocessedKind(unprocessed)
	} else if wasReset(err) && kind != fault.StaleConnection {
		kind = fault.UpstreamReset
		if c.started {
			kind = fault.UpstreamResetMidResponse
		}
	}
	if c.state == opening && !ok {
		kind = openKind(err)
	}
	return fault.Wrap(kind, fault.Upstream, fmt.Errorf("endpoint %s: %w", c.ep.key.addr, err))
}

func unprocessedKind(err *hbone.UnprocessedError) fault.Kind {
	if err.GoneAway {
		return fault.GoneAway
	}
	return fault.RefusedStream
}

// wasReset reports whether the far end reset a tunnel: its stream, or its TCP
// connection.
func wasReset(err error) bool {
	_, ok := errors.AsType[*hbone.ResetError](err)
	return ok || errors.Is(err, syscall.ECONNRESET)
}

// openKind names why a tunnel was not opened.
func openKind(err error) fault.Kind {
	if r, ok := errors.AsType[*hbone.Refusal](err); ok {
		if r.Status == 503 {
			return fault.ConnectRefused
		}
		return fault.ConnectDenied
	}
	if d, ok := errors.AsType[*hbone.DialError](err); ok && d.Timeout {
		return fault.ConnectTimeout
	}
	if h, ok := errors.AsType[*hbone.HandshakeError](err); ok {
		if h.WrongIdentity() {
			return fault.IdentityMismatch
		}
		return fault.TLSFailed
	}
	return fault.ConnectFailed
}

// NewResponse, Informational, Response, WholeResponse, ResponseChunk and
// ResponseError pass on what the codec finds.
func (c *conn) NewResponse(t *turn.Turn) *message.Response { return c.h.NewResponse(t) }

func (c *conn) Informational(t *turn.Turn, r *message.Response) { c.h.Informational(t, r) }

func (c *conn) Response(t *turn.Turn, r *message.Response, end bool) {
	h := c.h
	switch {
	case c.codec.Switched() && !c.sentEnd:
		c.fail(t, fault.Wrap(fault.UpstreamProtocol, fault.Upstream, fmt.Errorf("endpoint %s: protocol switched before the request's end", c.ep.key.addr)))
		return
	case c.codec.Switched():
		c.state = switched
	case end:
		c.ended, c.h = true, nil
	}
	h.Head(t, r, end)
}

func (c *conn) WholeResponse(t *turn.Turn, r *message.Response, body []byte) {
	c.feeding += len(body)
	c.owed += len(body)
	h := c.h
	c.ended, c.h = true, nil
	h.Whole(t, r, body)
}

func (c *conn) ResponseChunk(t *turn.Turn, k *message.Chunk) {
	c.feeding += len(k.Data)
	c.owed += len(k.Data)
	h := c.h
	if k.End {
		c.ended, c.h = true, nil
	}
	if h != nil {
		h.Chunk(t, k)
	}
}

func (c *conn) ResponseError(t *turn.Turn, err error) {
	kind := fault.UpstreamProtocol
	if errors.Is(err, http1.ErrTruncated) { // what came was sound, as far as it went
		kind = c.endKind()
	}
	c.fail(t, fault.Wrap(kind, fault.Upstream, fmt.Errorf("endpoint %s: %w", c.ep.key.addr, err)))
}
