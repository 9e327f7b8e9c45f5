package hbone

import (
	"cmp"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

var _ RelayOwner = (*forwarded)(nil)

// A Forwarding says how Forward joins a tunnel to the next one.
type Forwarding struct {
	// Open opens the next tunnel for its handler, as Pool.Open does.
	Open func(far TunnelHandler) Tunnel
	// Head goes first into the next tunnel.
	Head []byte
	// Done, if not nil, is called when both tunnels are over; err is why one of
	// them ended out of order.
	Done func(err error)
}

// Forward joins a tunnel that a Server has accepted to the next one, and answers
// when that has answered, as node tunnels do. What it returns is for Accept to
// return.
func Forward(near Tunnel, f Forwarding) (TunnelHandler, error) {
	j := &forwarded{done: f.Done}
	j.Lock()
	defer j.Unlock()
	j.relay.Init(&j.Lane, near, j)
	j.relay.Hold(f.Head)
	j.near = near
	j.relay.Join(f.Open(j.relay.Far()))
	return j.relay.Near(), ErrLater
}

// A forwarded is a tunnel and the next one.
type forwarded struct {
	turn.Lane
	relay Relay
	near  Tunnel
	done  func(error)
	err   error // why there is no next tunnel
}

func (j *forwarded) FarOpened(t *turn.Turn, err error) {
	if err != nil {
		j.err = err
		err = &Refusal{Status: 503, Reason: err.Error()}
	}
	Answer(t, j.near, err)
}

func (j *forwarded) RelayDone(*turn.Turn) {
	if j.done != nil {
		near, far := j.relay.Errs()
		j.done(cmp.Or(j.err, near, far))
	}
}
