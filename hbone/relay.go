package hbone

import (
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A Relay joins two tunnels: bytes, ends and resets of one go to the other.
//
// Credit goes back to a sender when its bytes have left the other side, so a
// slow reader holds its own sender back and nobody else. What comes before the
// far tunnel is open is held, and not credited: the sender's window bounds it.
type Relay struct {
	// Set once.
	lane  *turn.Lane
	owner RelayOwner

	// Guarded by the lane.
	near, far side
	peek      Peeker // while the gate is closed
	moved     time.Time
	done      bool
}

// A RelayOwner hears how a Relay fares, inside a turn and with the lane held.
type RelayOwner interface {
	// FarOpened says whether the far tunnel was opened. After an error the owner
	// brings another one with Join, now or later, or calls Abort.
	FarOpened(t *turn.Turn, err error)
	// RelayDone comes once, when both tunnels are over.
	RelayDone(t *turn.Turn)
}

// A Peeker looks at what a closed gate holds back.
type Peeker interface {
	// Peek is told of bytes that have just come from one side and are held. Both
	// are views that die when it returns.
	Peek(t *turn.Turn, fromFar bool, p []byte, end bool)
}

// A Detached is a connection that its codec has handed over, because it has
// changed its protocol.
type Detached struct {
	Tunnel Tunnel
	Held   []byte // what came already: lent, the receiver's to give back, and not credited
	Ended  bool   // the far end has finished sending
}

// A side is one of a Relay's tunnels, and the handler of its events.
type side struct {
	r     *Relay
	other *side
	tun   Tunnel        // nil before Join
	to    TunnelHandler // who has the tunnel now, if the relay has let go of it
	err   error         // why it ended
	held  []byte        // lent: bytes for here that have to wait
	owed  int           // bytes received here whose credit has not gone back
	bytes int64         // received
	open  bool
	over  bool
	fin   bool // the end has come from here
}

// Init makes r ready to join near, which is open, with what Join brings. Events
// are handled with the lane held; the caller holds it until it has set the
// tunnels' handlers.
func (r *Relay) Init(lane *turn.Lane, near Tunnel, owner RelayOwner) {
	*r = Relay{lane: lane, owner: owner}
	r.near = side{r: r, other: &r.far, tun: near, open: true}
	r.far = side{r: r, other: &r.near}
}

// Near and Far return the handlers of the two tunnels.
func (r *Relay) Near() TunnelHandler { return &r.near }
func (r *Relay) Far() TunnelHandler  { return &r.far }

// Join gives the relay its far tunnel, which is being opened for Far. Like all
// methods below it is called with the lane held.
func (r *Relay) Join(far Tunnel) { r.far.tun, r.far.over = far, false }

// JoinOpen begins with two tunnels that are open, and with what they have
// brought so far.
func (r *Relay) JoinOpen(t *turn.Turn, near, far Detached) {
	r.near.tun, r.far.tun, r.far.open = near.Tunnel, far.Tunnel, true
	r.near.received(t, near.Held, near.Ended)
	r.far.received(t, far.Held, far.Ended)
	buf.Put(near.Held)
	buf.Put(far.Held)
}

// Hold appends what is to be written to the far tunnel before anything else.
func (r *Relay) Hold(p []byte) { r.far.held = buf.Append(r.far.held, p) }

// Gate holds back what comes from either side, for p to look at, until Open.
func (r *Relay) Gate(p Peeker) { r.peek = p }

// Open opens the gate.
func (r *Relay) Open(t *turn.Turn) {
	r.peek = nil
	r.near.release(t)
	r.far.release(t)
}

// LetNear and LetFar let go of a tunnel: h is its handler from now on. What is
// held of it is handed over.
func (r *Relay) LetNear(h TunnelHandler) Detached { return r.near.let(h) }
func (r *Relay) LetFar(h TunnelHandler) Detached  { return r.far.let(h) }

// Far tunnel's state.

// FarOpen reports whether the far tunnel is open, FarJoined whether there is one,
// open or not.
func (r *Relay) FarOpen() bool   { return r.far.tun != nil && r.far.open && !r.far.over }
func (r *Relay) FarJoined() bool { return r.far.tun != nil }

// Errs returns why the tunnels ended out of order; both nil if they did not.
func (r *Relay) Errs() (near, far error) { return r.near.err, r.far.err }

// Bytes returns how many bytes have come from either side.
func (r *Relay) Bytes() (near, far int64) { return r.near.bytes, r.far.bytes }

// Moved returns when a byte last moved, or the zero time.
func (r *Relay) Moved() time.Time { return r.moved }

// Abort resets both tunnels. RelayDone follows.
func (r *Relay) Abort(t *turn.Turn, code uint32) {
	for _, s := range [...]*side{&r.far, &r.near} {
		if s.tun != nil && !s.over && s.to == nil {
			s.tun.Abort(t, code)
		}
	}
}

// lock takes the lane; it reports false, without it, if somebody else has the
// tunnel now: an event that was on its way when the relay let go of it.
func (s *side) lock() bool {
	s.r.lane.Lock()
	if s.to == nil {
		return true
	}
	s.r.lane.Unlock()
	return false
}

func (s *side) Opened(t *turn.Turn) {
	if !s.lock() {
		s.to.Opened(t)
		return
	}
	defer s.r.lane.Unlock()
	s.open = true
	s.r.owner.FarOpened(t, nil)
	if s.r.peek == nil {
		s.release(t)
	}
}

// release writes what waited for this side.
func (s *side) release(t *turn.Turn) {
	if !s.open || s.over || s.to != nil {
		return
	}
	if len(s.held) > 0 {
		s.tun.Write(t, s.held)
		s.drop()
	}
	if s.other.fin {
		s.tun.CloseWrite(t)
	}
	s.other.credit(t)
}

func (s *side) Data(t *turn.Turn, p []byte, end bool) {
	if !s.lock() {
		s.to.Data(t, p, end)
		return
	}
	defer s.r.lane.Unlock()
	s.received(t, p, end)
}

// received passes on what has come from this side.
func (s *side) received(t *turn.Turn, p []byte, end bool) {
	if len(p) == 0 && !end {
		return
	}
	o, r := s.other, s.r
	s.owed += len(p)
	s.bytes += int64(len(p))
	s.fin = s.fin || end
	r.moved = t.Now()
	switch {
	case o.over:
	case r.peek != nil:
		o.held = buf.Append(o.held, p)
		r.peek.Peek(t, s == &r.far, p, end)
		return
	case !o.open:
		o.held = buf.Append(o.held, p)
		return
	default:
		if len(p) > 0 {
			o.tun.Write(t, p)
		}
		if end {
			o.tun.CloseWrite(t)
		}
	}
	s.credit(t)
}

// credit returns credit for the bytes received here that the other side does
// not hold any more.
func (s *side) credit(t *turn.Turn) {
	if s.owed == 0 || s.over || s.to != nil {
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
	if !s.lock() {
		s.to.Left(t)
		return
	}
	defer s.r.lane.Unlock()
	s.r.moved = t.Now()
	s.other.credit(t)
}

// Closed of one side out of order resets the other: nobody may take half a
// stream for the whole. The code is the one for a broken TCP connection (RFC
// 9113, section 8.5); node tunnels take CANCEL for an ordinary end.
func (s *side) Closed(t *turn.Turn, err error) {
	if !s.lock() {
		s.to.Closed(t, err)
		return
	}
	defer s.r.lane.Unlock()
	r, o := s.r, s.other
	if !s.open && !o.over { // never opened: the owner may have another
		s.tun = nil
		r.owner.FarOpened(t, err)
		return
	}
	s.over, s.err = true, err
	s.drop()
	if (err != nil || !o.open) && o.tun != nil && !o.over {
		o.tun.Abort(t, CodeConnect)
	}
	r.end(t)
}

// end tells the owner when neither tunnel is left.
func (r *Relay) end(t *turn.Turn) {
	if r.done || !r.near.over || r.far.tun != nil && !r.far.over {
		return
	}
	r.done = true
	r.near.drop()
	r.far.drop()
	r.owner.RelayDone(t)
}

func (s *side) drop() {
	buf.Put(s.held)
	s.held = nil
}

// let hands the tunnel over, with what was held of its bytes.
func (s *side) let(h TunnelHandler) Detached {
	d := Detached{Tunnel: s.tun, Held: s.other.held, Ended: s.fin}
	s.other.held = nil
	s.to, s.owed = h, 0
	s.tun.Handle(h)
	return d
}
