package hbone

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

var (
	_ Tunnel           = (*streamTunnel)(nil)
	_ h2.StreamHandler = (*streamTunnel)(nil)
)

// A handled says who hears of a tunnel.
type handled struct {
	first TunnelHandler                 // set before the first event
	later atomic.Pointer[TunnelHandler] // who took its place
}

// begin is set before the first event.
func (h *handled) begin(to TunnelHandler) {
	if h.later.Load() == nil {
		h.first = to
		return
	}
	h.set(to)
}

// set is called in whichever turn decides that a connection changes its protocol,
// beside the goroutine that reads.
func (h *handled) set(to TunnelHandler) { h.later.Store(&to) }

func (h *handled) get() TunnelHandler {
	if p := h.later.Load(); p != nil {
		return *p
	}
	if h.first != nil {
		return h.first
	}
	return deaf{}
}

// A streamTunnel is a Tunnel on one CONNECT stream of a mesh connection, at
// either end of it. What events and writes need comes first, for the same reason
// as in an h2.Stream.
type streamTunnel struct {
	h      handled
	client bool // set once
	opened bool // owned by the events, which never overlap

	// Guarded by mu: a tunnel that we open waits for a mesh connection, and may
	// be aborted meanwhile.
	gone bool        // aborted before it had a stream
	s    *h2.Stream  // nil until there is a connection; never changes after
	conn *clientConn // with s

	// Set once, before the first event.
	accepted *serverConn // of a tunnel that we accept
	peer     *peer.Info

	answered atomic.Bool // the CONNECT of a tunnel that we accept
	mu       sync.Mutex
	at       turn.Tick // since when there is a connection; guarded by mu
	failed   error     // why it never got a stream; delivered by Notified; guarded by mu
	_        [24]byte  // the size of two cache lines, or every other one would begin within one
}

// Adopt makes a tunnel of a stream of another connection: one inside a tunnel,
// that has changed its protocol with an extended CONNECT (RFC 8441). to is for
// the stream's events, which are the tunnel's from now on.
func Adopt(s *h2.Stream, info *peer.Info, h TunnelHandler) (tun Tunnel, to h2.StreamHandler) {
	t := &streamTunnel{peer: info, opened: true, s: s}
	t.h.begin(h)
	s.Handle(t)
	return t, t
}

func (t *streamTunnel) Peer() *peer.Info       { return t.peer }
func (t *streamTunnel) Handle(h TunnelHandler) { t.h.set(h) }

// Write and the other calls down are for tunnels that are open: a handler that
// has not heard Opened may only Abort.
func (t *streamTunnel) Write(tn *turn.Turn, p []byte) { t.s.Write(tn, p) }
func (t *streamTunnel) Buffered() int                 { return t.s.Buffered() }
func (t *streamTunnel) CloseWrite(tn *turn.Turn)      { t.s.CloseWrite(tn) }
func (t *streamTunnel) Consume(tn *turn.Turn, n int)  { t.s.Consume(tn, n) }

// Abort resets the stream, or gives up waiting for one.
func (t *streamTunnel) Abort(tn *turn.Turn, code uint32) {
	t.mu.Lock()
	s := t.s
	if s == nil && !t.gone && t.failed == nil {
		t.gone = true
		t.failed = ErrLocalAbort
		tn.Notify(t)
	}
	t.mu.Unlock()
	if s != nil {
		s.Abort(tn, code)
	}
}

// attach opens the tunnel's stream on c, unless nobody wants it any more.
func (t *streamTunnel) attach(tn *turn.Turn, c *clientConn, fields []h2.Field) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return nil
	}
	s, err := c.Open(tn, t, fields, false)
	if err != nil {
		return err
	}
	t.s, t.conn, t.at = s, c, tn.Tick()
	return nil
}

// Attached says when a mesh connection took a tunnel that we open: zero if none
// has yet, false if it needs none.
func Attached(tun Tunnel) (at turn.Tick, mesh bool) {
	t, ok := tun.(*streamTunnel)
	if !ok {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at, true
}

// Draining reports whether a tunnel that is open lives on a mesh connection
// that is to end: who has a choice takes another, and whose client has one says so.
func Draining(tun Tunnel) bool {
	t, ok := tun.(*streamTunnel)
	switch {
	case !ok:
		return false
	case t.accepted != nil:
		return t.accepted.leaving.Load()
	}
	return t.conn != nil && t.conn.draining.Load()
}

// fail ends a tunnel that never got a stream.
func (t *streamTunnel) fail(tn *turn.Turn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone || t.failed != nil || t.s != nil {
		return
	}
	t.failed = err
	tn.Notify(t)
}

// Notified tells of a tunnel that ended before it had a stream.
func (t *streamTunnel) Notified(tn *turn.Turn) {
	t.mu.Lock()
	err := t.failed
	t.mu.Unlock()
	t.h.get().Closed(tn, err)
}

// Headers brings the answer to our CONNECT. Trailers never come: the engine
// takes nothing but DATA in a tunnel (RFC 9113, section 8.5).
func (t *streamTunnel) Headers(tn *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	if !t.client || t.opened {
		return
	}
	status := statusOf(fields)
	switch {
	case status >= 100 && status < 200:
		return
	case status == 200 && !end:
		t.mu.Lock() // attach may not have returned in its own turn
		t.opened = true
		t.mu.Unlock()
		t.h.get().Opened(tn)
	default:
		t.refused(tn, s, status, end)
	}
}

// refused ends a tunnel whose CONNECT was not answered with 200. A 200 that
// ends the stream at once carries nothing, so it is a refusal too.
func (t *streamTunnel) refused(tn *turn.Turn, s *h2.Stream, status int, end bool) {
	h := t.h.get()
	t.h.set(deaf{})
	r := &Refusal{Status: status}
	if status == 200 && end {
		r.Reason = "the stream ended with its head"
	}
	s.Abort(tn, CodeCancel)
	h.Closed(tn, r)
}

func statusOf(fields []h2.Field) int {
	for _, f := range fields {
		if string(f.Name) == ":status" && len(f.Value) == 3 {
			return int(f.Value[0]-'0')*100 + int(f.Value[1]-'0')*10 + int(f.Value[2]-'0')
		}
	}
	return 0
}

func (t *streamTunnel) Data(tn *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if t.client && !t.opened { // RFC 9113, section 8.1: DATA before the head
		s.Abort(tn, CodeProtocol)
		return
	}
	t.h.get().Data(tn, p, end)
}

func (t *streamTunnel) Left(tn *turn.Turn, _ *h2.Stream) { t.h.get().Left(tn) }

func (t *streamTunnel) Closed(tn *turn.Turn, _ *h2.Stream, err error) {
	t.h.get().Closed(tn, tunnelError(err))
}

// tunnelError turns what the engine below knows into what a tunnel's owner
// asks: was it reset, and by whom, was it never processed, did the connection
// go.
func tunnelError(err error) error {
	if err == nil {
		return nil
	}
	if se, ok := errors.AsType[*h2.StreamError](err); ok {
		switch {
		case se.Remote && se.Code == CodeRefusedStream:
			return &UnprocessedError{Err: err}
		case se.Remote:
			return &ResetError{se.Code}
		case se.Reason == "":
			return ErrLocalAbort
		}
		return err
	}
	if ge, ok := errors.AsType[*h2.GoAwayError](err); ok && ge.Unprocessed {
		return &UnprocessedError{GoneAway: true, Err: err}
	}
	if _, ok := errors.AsType[*HandshakeError](err); ok {
		return err // TLS turned out not to stand after all
	}
	return fmt.Errorf("mesh connection lost: %w", err)
}

// Deaf returns the handler of a tunnel that nobody listens to any more.
func Deaf() TunnelHandler { return deaf{} }

// deaf hears what a tunnel says after its owner has been told it is over.
type deaf struct{}

func (deaf) Opened(*turn.Turn)             {}
func (deaf) Data(*turn.Turn, []byte, bool) {}
func (deaf) Left(*turn.Turn)               {}
func (deaf) Closed(*turn.Turn, error)      {}
