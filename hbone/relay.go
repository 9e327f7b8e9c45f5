package hbone

import (
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A Relay joins two tunnels: bytes, ends and resets of one go to the other.
//
// Credit goes back to a sender when its bytes have left the other side, so a
// slow reader holds its own sender back and nobody else. What comes before the
// far tunnel is open is held, and not credited.
type Relay struct {
	turn.Lane
	near, far side
	// Done is called once, with the lane held, when both tunnels are over; err
	// is the first that ended out of order.
	Done  func(err error)
	err   error
	ended int
}

// A side is one of a Relay's tunnels, and the handler of its events.
type side struct {
	r      *Relay
	other  *side
	tun    Tunnel
	open   bool
	over   bool
	owed   int    // bytes received here whose credit has not gone back
	held   []byte // bytes for here that came before it was open
	finish bool   // …and an end
	onOpen func(t *turn.Turn, err error)
}

// NewRelay returns the handler of near, a tunnel that is open, and of the far
// one, which Join brings. onOpen is told, with the lane held, whether the far
// tunnel was opened.
func NewRelay(near Tunnel, onOpen func(t *turn.Turn, err error)) (r *Relay, nearHandler, farHandler TunnelHandler) {
	r = &Relay{}
	r.near = side{r: r, other: &r.far, tun: near, open: true}
	r.far = side{r: r, other: &r.near, onOpen: onOpen}
	return r, &r.near, &r.far
}

// Join gives the relay its far tunnel. The lane is held.
func (r *Relay) Join(far Tunnel) { r.far.tun = far }

// Hold appends what is to be written to the far tunnel before anything else.
// The lane is held.
func (r *Relay) Hold(p []byte) { r.far.held = append(r.far.held, p...) }

func (s *side) Opened(t *turn.Turn) {
	s.r.Lock()
	defer s.r.Unlock()
	s.open = true
	if s.onOpen != nil {
		s.onOpen(t, nil)
	}
	if len(s.held) > 0 {
		s.tun.Write(t, s.held)
		s.held = nil
	}
	if s.finish {
		s.tun.CloseWrite(t)
	}
	s.other.credit(t)
}

func (s *side) Data(t *turn.Turn, p []byte, end bool) {
	s.r.Lock()
	defer s.r.Unlock()
	o := s.other
	s.owed += len(p)
	switch {
	case o.over:
		s.credit(t)
		return
	case !o.open:
		o.held = append(o.held, p...)
		o.finish = end
		return
	}
	if len(p) > 0 {
		o.tun.Write(t, p)
	}
	if end {
		o.tun.CloseWrite(t)
	}
	s.credit(t)
}

// credit returns credit for the bytes received here that the other side does
// not hold any more.
func (s *side) credit(t *turn.Turn) {
	if s.owed == 0 || s.over {
		return
	}
	held := len(s.other.held)
	if s.other.open && !s.other.over {
		held += s.other.tun.Buffered()
	}
	if n := s.owed - held; n > 0 {
		s.owed -= n
		s.tun.Consume(t, n)
	}
}

func (s *side) Left(t *turn.Turn) {
	s.r.Lock()
	defer s.r.Unlock()
	s.other.credit(t)
}

// Closed of one side out of order resets the other: nobody may take half a
// stream for the whole.
func (s *side) Closed(t *turn.Turn, err error) {
	s.r.Lock()
	defer s.r.Unlock()
	s.over = true
	s.held = nil
	r := s.r
	if err != nil && r.err == nil {
		r.err = err
	}
	if !s.open && s.onOpen != nil {
		s.onOpen(t, err)
	}
	if o := s.other; (err != nil || !s.open) && !o.over && o.tun != nil {
		o.tun.Abort(t, CodeCancel)
	}
	if r.ended++; r.ended == 2 && r.Done != nil {
		r.Done(r.err)
	}
}
