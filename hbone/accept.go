package hbone

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

var (
	_ wire.Engine    = (*serverConn)(nil)
	_ h2.ConnHandler = (*serverConn)(nil)
)

// MeshOptions are the HTTP/2 settings of both ends of a mesh connection.
//
// Node tunnels open at most 100 streams and do not wait for SETTINGS, so fewer
// than 100 would leave requests stuck. The connection window differs from the
// stream window: equal ones can deadlock.
func meshOptions(client bool) h2.Options {
	return h2.Options{
		Client:        client,
		MaxStreams:    1000,
		StreamWindow:  256 << 10,
		ConnWindow:    4 << 20,
		MaxFrameSize:  64 << 10,
		MaxHeaderList: 64 << 10,
	}
}

// A serverConn is a mesh connection that a client's node tunnel opened.
type serverConn struct {
	*h2.Conn
	w      *wire.Conn
	server *Server

	// Set once: what every tunnel of the connection shares.
	peer   peer.Info
	expiry time.Time // of the peer's certificate
}

func newServerConn(s *Server, w *wire.Conn, nc net.Conn) (*serverConn, error) {
	p, err := PeerOf(w.ConnectionState())
	if err != nil {
		return nil, err
	}
	c := &serverConn{w: w, server: s, expiry: p.NotAfter}
	c.peer = peer.Info{How: peer.HBONE, ID: p.ID, Source: addrOf(nc.RemoteAddr()), Local: addrOf(nc.LocalAddr())}
	c.Conn = h2.NewConn(w, c, meshOptions(false))
	return c, nil
}

// serve runs the connection until it is over.
func (c *serverConn) serve() {
	c.w.Run(func(t *turn.Turn) { c.Start(t) })
	c.w.Serve(c)
}

func (c *serverConn) goAway() { c.w.Run(func(t *turn.Turn) { c.GoAway(t); c.Idle(t) }) }

// EOF: a mesh connection is over when either side ends it.
func (c *serverConn) EOF(*turn.Turn) bool { return false }

// Tick watches over the connection, and ends it with its peer's certificate.
func (c *serverConn) Tick(t *turn.Turn) {
	if t.Now().After(c.expiry) {
		c.Fail(t, CodeNoError, "the peer's certificate has expired")
		c.w.Close(t)
		return
	}
	c.Conn.Tick(t)
}

func (c *serverConn) Closed(t *turn.Turn, err error) {
	c.Conn.Closed(t, err)
	c.server.gone(c.w)
}

// GoneAway needs no answer: the client finishes its streams and leaves.
func (c *serverConn) GoneAway(*turn.Turn, uint32, uint32, string) {}

// Idle ends a connection that was told to go away and has nothing left to do.
func (c *serverConn) Idle(t *turn.Turn) {
	if c.Done() {
		c.w.Close(t)
	}
}

// Request answers one CONNECT: 200 when the owner of the server takes the
// tunnel, and otherwise the status that node tunnels know (contract of Istio's
// node tunnel: 400 malformed or not ours, 401 denied, 503 not now).
func (c *serverConn) Request(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	tun, err := c.tunnel(s, fields, end)
	if err != nil {
		c.server.stats.BadConnects.Add(1)
		c.refuse(t, s, err)
		return
	}
	tun.answer = c
	h, err := c.server.Accept(t, tun)
	if err != nil && err != ErrLater {
		c.server.stats.Refused.Add(1)
		c.refuse(t, s, err)
		return
	}
	tun.h = h
	s.Handle(tun)
	if err == nil {
		Answer(t, tun, nil)
	}
}

// Answer tells the client of an accepted tunnel what became of it: nil opens
// it. Node tunnels answer 200 only when the application is connected.
func Answer(t *turn.Turn, tun Tunnel, err error) {
	st, ok := tun.(*streamTunnel)
	switch {
	case !ok && err != nil:
		tun.Abort(t, CodeRefusedStream)
	case !ok:
	case err != nil:
		st.h = deaf{}
		st.answer.server.stats.Refused.Add(1)
		st.answer.refuse(t, st.s, err)
	default:
		st.answer.server.stats.Tunnels.Add(1)
		st.s.SendHeaders(t, accepted200, false)
	}
}

var accepted200 = []h2.Field{{Name: ":status", Value: "200"}}

// tunnel reads a CONNECT head (RFC 9113, section 8.5): the method and the
// authority, and what node tunnels add.
func (c *serverConn) tunnel(s *h2.Stream, fields []h2.Field, end bool) (*streamTunnel, error) {
	info := c.peer
	var method, authority string
	for _, f := range fields {
		switch f.Name {
		case ":method":
			method = f.Value
		case ":authority":
			authority = f.Value
		default:
			c.describe(&info, f)
		}
	}
	if method != "CONNECT" {
		return nil, &Refusal{Status: 400, Reason: fmt.Sprintf("method is %q, want CONNECT", method)}
	}
	if end {
		return nil, &Refusal{Status: 400, Reason: "CONNECT ended with its head"}
	}
	var err error
	if info.Destination, info.Host, err = peer.ParseAuthority(authority); err != nil {
		return nil, &Refusal{Status: 400, Reason: err.Error()}
	}
	return &streamTunnel{s: s, peer: &info, opened: true}, nil
}

// describe keeps what the client's node tunnel tells about the client. What does
// not parse is left out and counted: node tunnels treat it so too.
func (c *serverConn) describe(info *peer.Info, f h2.Field) {
	var err error
	switch f.Name {
	case "forwarded":
		info.Forwarded, err = peer.ParseForwarded(f.Value)
	case "baggage":
		info.Baggage, err = peer.ParseBaggage(f.Value)
	case "traceparent":
		info.Traceparent, err = peer.ParseTraceparent(f.Value)
	case "x-forwarded-network":
		info.Network = f.Value
	}
	if err != nil {
		c.server.stats.BadMetadata.Add(1)
	}
}

// refuse answers with a status and no body, and leaves the stream.
func (c *serverConn) refuse(t *turn.Turn, s *h2.Stream, err error) {
	status := 503
	if r, ok := err.(*Refusal); ok {
		status = r.Status
	}
	if c.server.OnFault != nil {
		c.server.OnFault(net.TCPAddrFromAddrPort(c.peer.Source), err)
	}
	s.Handle(ignore{})
	s.SendHeaders(t, []h2.Field{{Name: ":status", Value: strconv.Itoa(status)}}, true)
	s.Abort(t, CodeNoError) // RFC 9113, section 8.1: the rest of the request is not wanted
}

// ignore handles a stream that was refused.
type ignore struct{}

func (ignore) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (ignore) Data(*turn.Turn, *h2.Stream, []byte, bool)        {}
func (ignore) Left(*turn.Turn, *h2.Stream)                      {}
func (ignore) Closed(*turn.Turn, *h2.Stream, error)             {}

// parseProxy reads a PROXY header; n is 0 while more is needed.
func (s *Server) parseProxy(p []byte) (h proxyproto.Header, n int, err error) {
	return proxyproto.Parse(p, proxyproto.Options{V1: s.ProxyV1})
}

// proxyPeer turns a PROXY header into who is at the other end. A header without
// addresses has lost the destination, so nothing can be done with it.
func (s *Server) proxyPeer(nc net.Conn, h proxyproto.Header) (*peer.Info, error) {
	info := &peer.Info{How: peer.PROXY, Source: h.Source, Destination: h.Destination, Local: addrOf(nc.LocalAddr())}
	if !h.Destination.IsValid() {
		return nil, fmt.Errorf("PROXY header has no addresses, so the destination is lost: the pod's and the service's address family must be the same")
	}
	if h.Identity == "" {
		return info, nil
	}
	id, err := peer.ParseID(h.Identity)
	if err != nil {
		return nil, fmt.Errorf("PROXY header, TLV 0xD0: %w", err)
	}
	info.ID = id
	return info, nil
}

// plainPeer is what is known of a connection that has no header.
func plainPeer(nc net.Conn) *peer.Info {
	local := addrOf(nc.LocalAddr())
	return &peer.Info{How: peer.NONE, Source: addrOf(nc.RemoteAddr()), Destination: local, Local: local}
}

// badHeader counts and reports a PROXY header that is no use.
func (s *Server) badHeader(nc net.Conn, err error) error {
	s.stats.BadHeaders.Add(1)
	s.fault(nc, fmt.Errorf("PROXY header: %w", err))
	return err
}
