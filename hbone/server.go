package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// Limits of the accepting side.
const (
	// HandshakeTimeout bounds a TLS handshake, as Envoy's waypoint does.
	HandshakeTimeout = 10 * time.Second
	// HeaderTimeout bounds the wait for a PROXY header.
	HeaderTimeout = 10 * time.Second
	// MaxHandshakes bounds the TLS handshakes under way at once: each costs
	// half a millisecond of CPU and 70 KB. Others wait.
	MaxHandshakes = 256
	// slowHandshake is when a handshake has to make room for one that waits. A
	// healthy one takes milliseconds; clients that stall must not keep everybody
	// else out.
	slowHandshake = time.Second
)

// A Server accepts tunnels on any number of listeners.
type Server struct {
	ServerOptions
	stats ServerStats

	tls        *tls.Config   // nil without certificates
	handshakes chan struct{} // one token for each handshake under way
	held       holdoff
	watch      sync.Once

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]*accepted
	shaking   []net.Conn // handshakes under way, the oldest first
	closing   bool
	leaving   chan struct{} // closed when closing
	cutting   bool          // nobody is let in any more, and who is in has to go
	over      bool          // idle is closed
	idle      chan struct{} // closed when closing, and the last listener and connection have gone
}

// ServerOptions say what a Server needs to know. Accept is required.
type ServerOptions struct {
	// Accept is asked for each tunnel, inside a turn, and must not block. It
	// returns who handles the tunnel; with ErrLater, it calls Answer when it
	// knows. Any other error refuses, a *Refusal with its status.
	Accept func(t *turn.Turn, tun Tunnel) (TunnelHandler, error)
	// Certificates prove who we are, and whom we trust, on HBONE listeners.
	Certificates *Certificates
	// TrustProxyFrom lists who may send PROXY headers besides loopback.
	TrustProxyFrom []netip.Prefix
	// ProxyV1 admits version 1 headers, which carry no identity.
	ProxyV1 bool
	// MaxConns is the cap on connections, those that still shake hands
	// included; 0 means none.
	MaxConns int
	// Tight says that memory is short and windows are to be small, Full that nobody
	// new is to come in. Both may be nil.
	Tight, Full *atomic.Bool
	// Wire says how connections are driven; ticks are needed.
	Wire wire.Options
	// OnFault hears of each connection that was refused or broke a rule.
	OnFault func(remote net.Addr, err error)
}

// ServerStats count what a Server did. They only grow, but for Conns.
type ServerStats struct {
	Accepted      atomic.Int64 // connections
	Conns         atomic.Int64 // connections now
	Tunnels       atomic.Int64 // tunnels opened
	Refused       atomic.Int64 // tunnels refused
	OverCap       atomic.Int64 // connections closed at the cap
	OverMemory    atomic.Int64 // connections refused because memory is short
	SentAway      atomic.Int64 // …asked to go elsewhere because they held most of it
	CutForMemory  atomic.Int64 // …and cut
	Floods        atomic.Int64 // mesh connections, and connections in their tunnels, ended for a flood
	HeldOff       atomic.Int64 // connections that waited for their handshake after one
	OverHoldoff   atomic.Int64 // …and that were refused, for they would have waited too long
	Forgotten     atomic.Int64 // addresses that floods came from and for which there was no room
	Untrusted     atomic.Int64 // PROXY connections from where none may come
	BadHeaders    atomic.Int64 // PROXY headers malformed, cut short or late
	BadHandshakes atomic.Int64 // TLS handshakes that failed
	TLS           TLSFaults    // …and why
	Distrusted    atomic.Int64 // mesh connections ended with their peer's certificate
	BadConnects   atomic.Int64 // CONNECT requests malformed
	BadMetadata   atomic.Int64 // forwarded, baggage or traceparent that did not parse
	AcceptErrors  atomic.Int64 // errors of accept itself, such as no descriptors

	// HTTP2 counts the limits that clients' mesh connections met.
	HTTP2 h2.Counters
	// Wire counts what is rare in driving connections, unless ServerOptions.Wire
	// brings counters of its own.
	Wire wire.Counters
}

// accepted is what the server remembers of a connection. It is guarded by the
// server's mu.
type accepted struct {
	w     *wire.Conn  // nil until a handshake has succeeded
	mesh  *serverConn // nil for a TCP tunnel
	began time.Time   // its handshake
	slow  bool        // and made room for another
}

// NewServer returns a server without listeners.
func NewServer(o ServerOptions) *Server {
	s := &Server{
		ServerOptions: o,
		handshakes:    make(chan struct{}, MaxHandshakes),
		listeners:     map[net.Listener]struct{}{},
		conns:         map[net.Conn]*accepted{},
		leaving:       make(chan struct{}),
		idle:          make(chan struct{}),
	}
	if o.Wire.Counters == nil {
		s.Wire.Counters = &s.stats.Wire
	}
	if o.Certificates != nil {
		s.tls = o.Certificates.ServerConfig()
	}
	return s
}

// Stats returns the server's counters.
func (s *Server) Stats() *ServerStats { return &s.stats }

// ServeHBONE accepts mutual TLS carrying HTTP/2 CONNECT on l until l or the
// server closes.
func (s *Server) ServeHBONE(l net.Listener) error {
	if s.tls == nil {
		l.Close()
		return errors.New("HBONE cannot be served without certificates")
	}
	s.watch.Do(func() { go s.Certificates.watch(s.idle, s.recheck) })
	return s.serve(l, s.startHandshake)
}

// ServeProxy accepts TCP connections that begin with a PROXY header.
func (s *Server) ServeProxy(l net.Listener) error { return s.serve(l, s.serveProxyConn) }

// ServePlain accepts TCP connections without any header (the NONE binding):
// their destination is the address they were dialled at.
func (s *Server) ServePlain(l net.Listener) error { return s.serve(l, s.servePlainConn) }

func (s *Server) serve(l net.Listener, start func(net.Conn)) error {
	if !s.addListener(l) {
		return net.ErrClosed
	}
	defer s.dropListener(l)
	var wait time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if s.draining() {
				s.empty(l, start)
				return nil
			}
			s.stats.AcceptErrors.Add(1)
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			time.Sleep(wait) // no descriptors, most likely: let some go before trying again
			continue
		}
		wait = 0
		s.let(nc, start)
	}
}

// let starts an accepted connection, unless there are too many.
func (s *Server) let(nc net.Conn, start func(net.Conn)) {
	s.stats.Accepted.Add(1)
	if err := s.admit(nc); err != nil {
		s.fault(nc, err)
		nc.Close()
		return
	}
	start(nc)
}

// admit remembers a connection until gone is called for it, unless there are
// too many.
func (s *Server) admit(nc net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cutting:
		return net.ErrClosed
	case s.MaxConns > 0 && len(s.conns) >= s.MaxConns:
		s.stats.OverCap.Add(1)
		return fmt.Errorf("%w: %d connections", ErrOverCap, s.MaxConns)
	case s.Full != nil && s.Full.Load():
		s.stats.OverMemory.Add(1)
		return ErrOverMemory
	}
	s.conns[nc] = new(accepted)
	s.stats.Conns.Add(1)
	return nil
}

func (s *Server) fault(nc net.Conn, err error) {
	if s.OnFault != nil {
		s.OnFault(nc.RemoteAddr(), err)
	}
}

// startHandshake gives an accepted connection its handshake, unless its address is
// held off.
func (s *Server) startHandshake(nc net.Conn) {
	wait, err := s.hold(nc)
	if err != nil {
		s.refuse(nc, err)
		return
	}
	go s.handshake(nc, wait)
}

// refuse closes an accepted connection before its handshake.
func (s *Server) refuse(nc net.Conn, err error) {
	s.fault(nc, err)
	nc.Close()
	s.gone(nc)
}

// handshake makes an accepted connection a mesh connection. It runs on a
// goroutine of its own, so that the reader's stack stays small.
func (s *Server) handshake(nc net.Conn, wait time.Duration) {
	if err := s.await(wait); err != nil {
		s.refuse(nc, err)
		return
	}
	c, err := s.shake(nc)
	if err != nil {
		if s.wasSlow(nc) {
			err = fmt.Errorf("not finished within %v while others waited", slowHandshake)
		}
		s.stats.BadHandshakes.Add(1)
		s.fault(nc, &HandshakeError{nc.RemoteAddr().String(), s.stats.TLS.Explain(err)})
		s.gone(nc)
		return
	}
	if !s.begin(nc, c.w, c) {
		c.w.Discard()
		s.gone(nc)
		return
	}
	go c.serve()
}

// shake waits for its turn and makes the handshake. With an error the
// connection is being closed.
func (s *Server) shake(nc net.Conn) (*serverConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), HandshakeTimeout)
	defer cancel()
	if !s.beginHandshake(ctx, nc) {
		nc.Close()
		return nil, fmt.Errorf("%d other handshakes are under way", MaxHandshakes)
	}
	defer s.endHandshake(nc)
	trusted := s.Certificates.Current()
	w := wire.NewTLS(nc, func(c net.Conn) *tls.Conn { return tls.Server(c, s.tls) }, s.Wire)
	if err := w.Handshake(ctx); err != nil {
		return nil, err
	}
	c, err := newServerConn(s, w, nc)
	if err != nil {
		w.Discard()
		return nil, err
	}
	c.trusted, c.leaveAt = trusted, leaveAt(c.cert, trusted, time.Now())
	return c, nil
}

// beginHandshake waits for a place among the handshakes under way.
func (s *Server) beginHandshake(ctx context.Context, nc net.Conn) bool {
	for {
		again := time.NewTimer(s.hurry())
		select {
		case s.handshakes <- struct{}{}:
			again.Stop()
			s.mu.Lock()
			s.shaking = append(s.shaking, nc)
			if a := s.conns[nc]; a != nil {
				a.began = time.Now()
			}
			s.mu.Unlock()
			return true
		case <-ctx.Done():
			again.Stop()
			return false
		case <-again.C:
		}
	}
}

func (s *Server) endHandshake(nc net.Conn) {
	s.mu.Lock()
	if i := slices.Index(s.shaking, nc); i >= 0 {
		s.shaking = slices.Delete(s.shaking, i, i+1)
	}
	s.mu.Unlock()
	<-s.handshakes
}

// hurry ends the oldest handshake if there is no place and it is slow. It
// returns when to look again.
func (s *Server) hurry() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.shaking) < MaxHandshakes {
		return slowHandshake
	}
	a := s.conns[s.shaking[0]]
	if wait := slowHandshake - time.Since(a.began); wait > 0 {
		return wait
	}
	a.slow = true
	s.shaking[0].Close() // which ends it
	s.shaking = slices.Delete(s.shaking, 0, 1)
	return slowHandshake
}

func (s *Server) wasSlow(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.conns[nc]
	return a != nil && a.slow
}

// serveProxyConn serves a connection that must begin with a PROXY header.
func (s *Server) serveProxyConn(nc net.Conn) {
	if !s.trusted(addrOf(nc.RemoteAddr()).Addr()) {
		s.stats.Untrusted.Add(1)
		s.refuse(nc, errors.New("PROXY header refused: it may come only from loopback and the prefixes configured"))
		return
	}
	if t := s.tcpTunnel(nc); t != nil {
		go t.w.Serve(t)
	}
}

// servePlainConn serves a connection of the NONE binding.
func (s *Server) servePlainConn(nc net.Conn) {
	if t := s.tcpTunnel(nc); t != nil {
		t.peer = plainPeer(nc)
		go t.servePlain()
	}
}

// tcpTunnel returns the tunnel of an accepted TCP connection, nil if the server
// is closing.
func (s *Server) tcpTunnel(nc net.Conn) *tcpTunnel {
	o := s.Wire
	o.Park = parkAt
	t := &tcpTunnel{server: s, nc: nc, w: wire.New(nc, o), since: time.Now()}
	if !s.begin(nc, t.w, nil) {
		t.w.Discard()
		s.gone(nc)
		return nil
	}
	return t
}

func (s *Server) trusted(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsLoopback() {
		return true
	}
	for _, p := range s.TrustProxyFrom {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrOf returns a TCP address as a comparable value.
func addrOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return unmap(t.AddrPort())
	}
	return netip.AddrPort{}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		l.Close()
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) dropListener(l net.Listener) {
	s.mu.Lock()
	delete(s.listeners, l)
	s.maybeIdle()
	s.mu.Unlock()
	l.Close()
}

// begin notes how an admitted connection is driven, and reports whether it may
// go on.
func (s *Server) begin(nc net.Conn, w *wire.Conn, c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.conns[nc]
	if a == nil || s.cutting {
		return false
	}
	a.w, a.mesh = w, c
	return true
}

// gone forgets a connection.
func (s *Server) gone(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[nc]; !ok {
		return
	}
	delete(s.conns, nc)
	s.stats.Conns.Add(-1)
	s.maybeIdle()
}

// recheck ends the mesh connections whose peers are not trusted any more.
func (s *Server) recheck() {
	for _, c := range s.meshConns() {
		c.recheck()
	}
}

func (s *Server) meshConns() []*serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*serverConn
	for _, a := range s.conns {
		if a.mesh != nil {
			all = append(all, a.mesh)
		}
	}
	return all
}
