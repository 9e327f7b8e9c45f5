package hbone

import (
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A Tunnel is one TCP stream carried by the mesh: a CONNECT stream, or a TCP
// connection that began with a PROXY header. From here up nobody can tell them
// apart.
type Tunnel interface {
	turn.Sink
	// Peer says who opened the tunnel and what it is bound for. It is immutable
	// and may be kept.
	Peer() *peer.Info
	// Consume says that n received bytes are done with, so that their credit
	// may go back to the sender.
	Consume(t *turn.Turn, n int)
	// Handle sets who is told of what happens. It is called before the first
	// event, and again when a connection changes its protocol.
	Handle(h TunnelHandler)
}

// A TunnelHandler is told what happens on a tunnel, always inside a turn and
// with no lock held.
//
// Opened and Data come from one goroutine, in order. Left comes in whichever
// turn made the bytes leave, so it may overlap with Data: handlers take their
// lane first.
type TunnelHandler interface {
	// Opened comes once, for a tunnel that we opened: the far end accepted it.
	Opened(t *turn.Turn)
	// Data brings received bytes, a view that dies when Data returns. With end
	// the sender has finished; writing towards it goes on.
	Data(t *turn.Turn, p []byte, end bool)
	// Left says that the tunnel held more than turn.LowMark and now holds less.
	Left(t *turn.Turn)
	// Closed is the last call, and comes once. err is nil when both directions
	// ended in order.
	Closed(t *turn.Turn, err error)
}
