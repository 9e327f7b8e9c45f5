package upstream

import (
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Call is one request on one upstream connection. It is used with the lane
// held that it was opened with, and not at all after its end was told.
type Call interface {
	// WriteHead sends the request head. Framing is built from r.Length. An error
	// says that it is no head; the call must be cancelled.
	WriteHead(t *turn.Turn, r *message.Request, end bool) error
	// WriteChunk sends body bytes. An error says that they do not fit the
	// head's length; the call must be cancelled.
	WriteChunk(t *turn.Turn, c *message.Chunk) error
	// Buffered returns how many written bytes have not left yet.
	Buffered() int
	// Consume returns credit for n response body bytes.
	Consume(t *turn.Turn, n int)
	// Progress says how far the request got, for the retry decision.
	Progress() filters.Progress
	// Attached says when a mesh connection took the call: zero if none has yet,
	// false if it needs none.
	Attached() (at turn.Tick, mesh bool)
	// Reused reports whether the connection had served another call before.
	Reused() bool
	// Cancel gives the call up; no event follows.
	Cancel(t *turn.Turn)
	// Upgrade hands the connection's tunnel to h, once, after a head of status
	// 101; the call is over, and no event of it follows. The endpoint counts it
	// as in use until Endpoint.Release.
	Upgrade(t *turn.Turn, h hbone.TunnelHandler) hbone.Detached
	// Endpoint says whom the call is made to.
	Endpoint() *Endpoint
}

// A CallHandler hears of a call, always inside a turn and with its lane held.
type CallHandler interface {
	// Ready says that the connection stands; the request may be written.
	Ready(t *turn.Turn)
	// NewResponse lends the message into which the next head is parsed.
	NewResponse(t *turn.Turn) *message.Response
	// Informational brings a 1xx head.
	Informational(t *turn.Turn, r *message.Response)
	// Head brings the final head; end says that no body follows. Status 101 is
	// final too: Upgrade or Cancel has to follow.
	Head(t *turn.Turn, r *message.Response, end bool)
	// Whole is Head, and Chunk of all the body, a view. The call is over.
	Whole(t *turn.Turn, r *message.Response, body []byte)
	// Chunk brings body bytes, a view. With End the call is over.
	Chunk(t *turn.Turn, c *message.Chunk)
	// Left says that written bytes have left.
	Left(t *turn.Turn)
	// Failed is the last event of a call that did not end in order.
	Failed(t *turn.Turn, f *fault.Fault)
}
