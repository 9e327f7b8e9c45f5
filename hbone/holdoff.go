package hbone

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// Limits of addresses from which floods came.
const (
	// FirstHoldoff is the least time between the TLS handshakes of an address from
	// which a flood came. Each flood more doubles it.
	FirstHoldoff = 100 * time.Millisecond
	// MaxHoldoff is the most that it grows to, and the longest that a connection
	// waits for its handshake: one that would wait longer is closed at once. It is
	// less than what clients give a connect, so one that has mended its ways gets in.
	MaxHoldoff = 5 * time.Second
	// ForgiveAfter is how long after its last flood an address is forgiven.
	ForgiveAfter = time.Minute
	// MaxHeldOff bounds the addresses that are remembered. Beyond it the least
	// guilty one is forgotten.
	MaxHeldOff = 1024
)

// A holdoff paces the addresses from which floods came. The limits of HTTP/2 end a
// connection within milliseconds, but its client comes again at once, and then what
// it costs us is the TLS handshake, a millisecond of CPU each time.
//
// Only who has completed a handshake can flood, so nobody is held off for what
// another has sent in his name. Node tunnels connect with the address of the pod
// for which they speak, and pool by it and its identity, so an address is one pod.
// That of an east-west gateway is a whole network's, whose new connections then
// share a pace; those that stand notice nothing. An address of IPv6 counts as a
// whole, because the pods of a node share its prefix.
//
// Connections with a PROXY header are not paced: they cost no handshake, and the
// address of all of them is that of one node tunnel.
type holdoff struct {
	known atomic.Int32 // how many there are: while there is none nobody looks further

	// Guarded by mu, a leaf in the lock order.
	mu   sync.Mutex
	by   map[netip.Addr]offender
	last time.Time // the last flood of any of them
}

// An offender is an address from which floods came.
type offender struct {
	gap  time.Duration // between two handshakes
	last time.Time     // its last flood
	next time.Time     // when the next handshake may begin
}

func (o *offender) forgiven(now time.Time) bool { return now.Sub(o.last) >= ForgiveAfter }

// strike notes a flood from a, and returns how long its next handshake waits. lost
// says that another address had to be forgotten for it.
func (h *holdoff) strike(a netip.Addr, now time.Time) (gap time.Duration, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok := h.by[a]
	if !ok && len(h.by) >= MaxHeldOff {
		lost = h.forget(now)
	}
	if o.forgiven(now) {
		o = offender{}
	}
	o.gap = min(max(2*o.gap, FirstHoldoff), MaxHoldoff)
	o.last = now
	if next := now.Add(o.gap); next.After(o.next) {
		o.next = next
	}
	if h.by == nil {
		h.by = map[netip.Addr]offender{}
	}
	h.by[a] = o
	h.last = now
	h.known.Store(int32(len(h.by)))
	return o.gap, lost
}

// forget makes room: the address that has flooded least goes, of several the one
// whose last flood is longest ago. It reports whether that one was not forgiven.
func (h *holdoff) forget(now time.Time) bool {
	guilt := func(o *offender) time.Duration {
		if o.forgiven(now) {
			return 0
		}
		return o.gap
	}
	var least netip.Addr
	var lo offender
	for a, o := range h.by {
		if !least.IsValid() || cmp.Or(cmp.Compare(guilt(&o), guilt(&lo)), o.last.Compare(lo.last)) < 0 {
			least, lo = a, o
		}
	}
	delete(h.by, least)
	return !lo.forgiven(now)
}

// enter takes a's next handshake, which may begin after so long. It takes none if
// that is more than MaxHoldoff.
func (h *holdoff) enter(a netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.last) >= ForgiveAfter { // all of them are forgiven
		h.by = nil
		h.known.Store(0)
		return 0, true
	}
	o, held := h.by[a]
	if !held || o.forgiven(now) {
		return 0, true
	}
	if wait = max(0, o.next.Sub(now)); wait > MaxHoldoff {
		return wait, false
	}
	o.next = now.Add(wait + o.gap)
	h.by[a] = o
	return wait, true
}

// hold says how long an accepted connection has to wait for its handshake, or that
// it is not to have one.
func (s *Server) hold(nc net.Conn) (wait time.Duration, err error) {
	if s.held.known.Load() == 0 {
		return 0, nil
	}
	wait, ok := s.held.enter(addrOf(nc.RemoteAddr()).Addr(), time.Now())
	switch {
	case !ok:
		s.stats.OverHoldoff.Add(1)
		return 0, fmt.Errorf("%w: its next handshake is %v away", ErrHeldOff, wait.Round(time.Millisecond))
	case wait > 0:
		s.stats.HeldOff.Add(1)
	}
	return wait, nil
}

// await lets the time before a handshake pass, unless the server closes meanwhile.
// It holds no place among the handshakes, and no buffer. That a client has gone
// shows in its handshake: what it sent first hides its end.
func (s *Server) await(wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.leaving:
		return fmt.Errorf("%w, and the server closes", ErrHeldOff)
	}
}

// flooded notes that the connection, or one in a tunnel of it, was ended for a flood.
func (c *serverConn) flooded(t *turn.Turn, err error) {
	s := c.server
	s.stats.Floods.Add(1)
	gap, lost := s.held.strike(c.peer.Source.Addr(), t.Now())
	if lost {
		s.stats.Forgotten.Add(1)
	}
	s.fault(c.nc, fmt.Errorf("%w; the next handshake from there waits %v", err, gap))
}

// Flooded says that the connection in a tunnel was ended for a flood, err: the
// address of the mesh connection that carries it is held off. That connection goes
// on, for it may carry others. A tunnel that is a TCP connection of its own is not
// paced: to make another costs no handshake, and its address is the whole node's.
func Flooded(t *turn.Turn, tun Tunnel, err error) {
	if st, ok := tun.(*streamTunnel); ok && st.accepted != nil {
		st.accepted.flooded(t, fmt.Errorf("in a tunnel: %w", err))
	}
}
