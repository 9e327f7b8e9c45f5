package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

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
	// half a millisecond of CPU and 70 KB.
	MaxHandshakes = 256
)

// A Server accepts tunnels on any number of listeners.
type Server struct {
	ServerOptions
	stats ServerStats

	handshakes chan struct{} // one token for each handshake under way

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*wire.Conn]*accepted
	closing   bool
	idle      chan struct{} // closed when closing and the last connection has gone
}

// ServerOptions say what a Server needs to know. Accept is required.
type ServerOptions struct {
	// Accept is asked for each tunnel, inside a turn, and must not block. It
	// returns who handles the tunnel; with ErrLater, it calls Answer when it
	// knows. Any other error refuses, a *Refusal with its status.
	Accept func(t *turn.Turn, tun Tunnel) (TunnelHandler, error)
	// TLS serves HBONE listeners; see Identity.ServerConfig.
	TLS *tls.Config
	// TrustProxyFrom lists who may send PROXY headers besides loopback.
	TrustProxyFrom []netip.Prefix
	// ProxyV1 admits version 1 headers, which carry no identity.
	ProxyV1 bool
	// MaxConns is the cap on connections; 0 means none.
	MaxConns int
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
	Untrusted     atomic.Int64 // PROXY connections from where none may come
	BadHeaders    atomic.Int64 // PROXY headers malformed, cut short or late
	BadHandshakes atomic.Int64 // TLS handshakes that failed
	TLS           TLSFaults    // …and why
	BadConnects   atomic.Int64 // CONNECT requests malformed
	BadMetadata   atomic.Int64 // forwarded, baggage or traceparent that did not parse
	AcceptErrors  atomic.Int64 // errors of accept itself, such as no descriptors
}

// accepted is what the server remembers of a connection.
type accepted struct {
	since time.Time
	mesh  *serverConn // nil for a TCP tunnel
}

// NewServer returns a server without listeners.
func NewServer(o ServerOptions) *Server {
	return &Server{
		ServerOptions: o,
		handshakes:    make(chan struct{}, MaxHandshakes),
		listeners:     map[net.Listener]struct{}{},
		conns:         map[*wire.Conn]*accepted{},
		idle:          make(chan struct{}),
	}
}

// Stats returns the server's counters.
func (s *Server) Stats() *ServerStats { return &s.stats }

// ServeHBONE accepts mutual TLS carrying HTTP/2 CONNECT on l until l or the
// server closes.
func (s *Server) ServeHBONE(l net.Listener) error {
	return s.serve(l, func(nc net.Conn) { go s.handshake(nc) })
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
			s.stats.AcceptErrors.Add(1)
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			time.Sleep(wait) // no descriptors, most likely: let some go before trying again
			continue
		}
		wait = 0
		s.stats.Accepted.Add(1)
		if s.MaxConns > 0 && s.stats.Conns.Load() >= int64(s.MaxConns) {
			s.stats.OverCap.Add(1)
			s.fault(nc, fmt.Errorf("%w: %d connections", ErrOverCap, s.MaxConns))
			nc.Close()
			continue
		}
		start(nc)
	}
}

func (s *Server) fault(nc net.Conn, err error) {
	if s.OnFault != nil {
		s.OnFault(nc.RemoteAddr(), err)
	}
}

// handshake makes an accepted connection a mesh connection. It runs on a
// goroutine of its own, so that the reader's stack stays small.
func (s *Server) handshake(nc net.Conn) {
	select {
	case s.handshakes <- struct{}{}:
		defer func() { <-s.handshakes }()
	default:
		s.stats.BadHandshakes.Add(1)
		s.fault(nc, fmt.Errorf("%d handshakes under way", MaxHandshakes))
		nc.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), HandshakeTimeout)
	defer cancel()
	w := wire.NewTLS(nc, func(c net.Conn) *tls.Conn { return tls.Server(c, s.TLS) }, s.Wire)
	if err := w.Handshake(ctx); err != nil {
		s.stats.BadHandshakes.Add(1)
		s.fault(nc, &HandshakeError{nc.RemoteAddr().String(), s.stats.TLS.Explain(err)})
		nc.Close()
		return
	}
	c, err := newServerConn(s, w, nc)
	if err != nil {
		s.stats.BadHandshakes.Add(1)
		s.fault(nc, &HandshakeError{nc.RemoteAddr().String(), s.stats.TLS.Explain(err)})
		nc.Close()
		return
	}
	if !s.track(w, c) {
		nc.Close()
		return
	}
	go c.serve()
}

// serveProxyConn serves a connection that must begin with a PROXY header.
func (s *Server) serveProxyConn(nc net.Conn) {
	if !s.trusted(addrOf(nc.RemoteAddr()).Addr()) {
		s.stats.Untrusted.Add(1)
		s.fault(nc, errors.New("PROXY header refused: it may come only from loopback and the prefixes configured"))
		nc.Close()
		return
	}
	o := s.Wire
	o.Park = parkAt
	t := &tcpTunnel{server: s, nc: nc, w: wire.New(nc, o)}
	if !s.track(t.w, nil) {
		nc.Close()
		return
	}
	go t.w.Serve(t)
}

// servePlainConn serves a connection of the NONE binding.
func (s *Server) servePlainConn(nc net.Conn) {
	o := s.Wire
	o.Park = parkAt
	t := &tcpTunnel{server: s, nc: nc, w: wire.New(nc, o), peer: plainPeer(nc)}
	if !s.track(t.w, nil) {
		nc.Close()
		return
	}
	go t.servePlain()
}

func (t *tcpTunnel) servePlain() {
	t.w.Run(func(tn *turn.Turn) {
		if err := t.accept(tn); err != nil {
			t.server.fault(t.nc, err)
			t.w.Abort(tn, CodeRefusedStream)
		}
	})
	t.w.Serve(t)
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
	s.mu.Unlock()
	l.Close()
}

// track remembers a connection until gone is called for it.
func (s *Server) track(w *wire.Conn, c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.conns[w] = &accepted{since: time.Now(), mesh: c}
	s.stats.Conns.Add(1)
	return true
}

// gone forgets a connection.
func (s *Server) gone(w *wire.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[w]; !ok {
		return
	}
	delete(s.conns, w)
	s.stats.Conns.Add(-1)
	if s.closing && len(s.conns) == 0 {
		close(s.idle)
	}
}

// checkHeaderDeadline ends a connection whose PROXY header is late.
func (s *Server) checkHeaderDeadline(tn *turn.Turn, tun *tcpTunnel) {
	s.mu.Lock()
	a := s.conns[tun.w]
	s.mu.Unlock()
	if a == nil || tn.Now().Sub(a.since) < HeaderTimeout {
		return
	}
	s.stats.BadHeaders.Add(1)
	s.fault(tun.nc, fmt.Errorf("PROXY header not received within %v", HeaderTimeout))
	tun.w.Abort(tn, CodeCancel)
}

// Drain stops accepting and tells every mesh connection to finish: GOAWAY, and
// the streams under way go on.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing = true
		if len(s.conns) == 0 {
			close(s.idle)
		}
	}
	for l := range s.listeners {
		l.Close()
	}
	for _, a := range s.conns {
		if a.mesh != nil {
			go a.mesh.goAway()
		}
	}
}

// Shutdown drains, waits until the last connection has gone or ctx ends, and
// cuts what is left then. It returns how many it cut.
func (s *Server) Shutdown(ctx context.Context) int {
	s.Drain()
	select {
	case <-s.idle:
		return 0
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := make([]*wire.Conn, 0, len(s.conns))
	for w := range s.conns {
		left = append(left, w)
	}
	s.mu.Unlock()
	for _, w := range left {
		w.Run(func(tn *turn.Turn) { w.Abort(tn, CodeCancel) })
	}
	return len(left)
}
