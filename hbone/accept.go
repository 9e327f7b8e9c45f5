package hbone

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

var (
	_ wire.Engine    = (*serverConn)(nil)
	_ Answerer       = (*streamTunnel)(nil)
	_ Answerer       = (*tcpTunnel)(nil)
	_ h2.ConnHandler = (*serverConn)(nil)
)

// meshOptions are the HTTP/2 settings of both ends of a mesh connection.
//
// Node tunnels open at most 100 streams and do not wait for SETTINGS, so fewer
// than 100 would leave requests stuck. The connection window differs from the
// stream window: equal ones can deadlock.
func meshOptions(client bool) h2.Options {
	return h2.Options{
		Client:        client,
		MaxStreams:    1000,
		StreamWindow:  256 << 10,
		FirstWindow:   48 << 10,
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

	// Set once.
	nc      net.Conn
	peer    peer.Info        // what every tunnel of the connection shares
	cert    *PeerCertificate // with which the connection ends
	trusted *Credentials     // the set that cert was checked against, or an older one
	leaveAt time.Time        // …and with which it takes no new tunnels

	// Atomic.
	started atomic.Bool // SETTINGS have been sent
	ended   atomic.Bool // with its peer's certificate
	leaving atomic.Bool // it soon will
}

func newServerConn(s *Server, w *wire.Conn, nc net.Conn) (*serverConn, error) {
	p, err := PeerOf(w.ConnectionState())
	if err != nil {
		return nil, err
	}
	c := &serverConn{w: w, server: s, nc: nc, cert: p}
	c.peer = peer.Info{How: peer.HBONE, ID: p.ID, Source: addrOf(nc.RemoteAddr()), Local: addrOf(nc.LocalAddr())}
	o := meshOptions(false)
	o.Counters, o.Tight = &s.stats.HTTP2, s.Tight
	c.Conn = h2.NewConn(w, c, o)
	return c, nil
}

// serve runs the connection until it is over.
func (c *serverConn) serve() {
	if c.server.Certificates.Current() != c.trusted { // changed while this one was not yet known
		c.recheck()
	}
	c.w.Run(c.Start)
	c.started.Store(true)
	if c.server.draining() {
		c.goAway()
	}
	c.w.Serve(c)
}

// goAway asks the client to go elsewhere. One that has not started yet will be
// asked as soon as it has: SETTINGS come first.
func (c *serverConn) goAway() {
	if c.started.Load() {
		c.w.Run(c.GoAway)
	}
}

// recheck ends the connection if its peer would not be accepted any more.
func (c *serverConn) recheck() {
	if err := c.server.Certificates.Recheck(c.cert); err != nil {
		c.w.Run(func(t *turn.Turn) { c.distrust(t, err) })
	}
}

// distrust ends the connection with its peer's certificate: GOAWAY, and its
// streams end at once.
func (c *serverConn) distrust(t *turn.Turn, err error) {
	if c.ended.Swap(true) {
		return
	}
	c.server.stats.Distrusted.Add(1)
	c.server.fault(c.nc, err)
	c.Fail(t, CodeNoError, err.Error())
	closeDone(t, c.Conn, c.w)
}

// Feed hands on what the engine still has to say before its error ends the
// connection.
func (c *serverConn) Feed(t *turn.Turn, p []byte) error {
	err := c.Conn.Feed(t, p)
	if err != nil {
		if h2.Flooded(err) {
			c.flooded(t, err)
		}
		c.Flush(t)
	}
	return err
}

// closeDone ends a connection that has nothing left to do. What the engine has
// still to say goes first: closing takes nothing more.
func closeDone(t *turn.Turn, c *h2.Conn, w *wire.Conn) {
	if c.Done() {
		c.Flush(t)
		w.Close(t)
	}
}

// EOF: a mesh connection is over when either side ends it.
func (c *serverConn) EOF(*turn.Turn) bool { return false }

// Tick watches over the connection: a while before its certificates end the client
// is asked for another, and with its peer's it ends.
func (c *serverConn) Tick(t *turn.Turn) {
	switch {
	case t.Now().After(c.cert.NotAfter):
		c.distrust(t, c.cert.expired())
	case t.Now().After(c.leaveAt):
		c.leaving.Store(true)
		c.GoAway(t) // which says so once
	}
	c.Conn.Tick(t)
}

func (c *serverConn) Closed(t *turn.Turn, err error) {
	if err != nil && c.silent() && ReasonOf(err) == TLSRefusedByPeer {
		c.server.stats.BadHandshakes.Add(1)
		c.server.fault(c.nc, &HandshakeError{c.peer.Source.String(), c.server.stats.TLS.Explain(err)})
	}
	c.Conn.Closed(t, err)
	c.server.gone(c.nc)
}

// silent reports whether the peer has said nothing yet.
func (c *serverConn) silent() bool { return c.Stats().SettingsIn == 0 }

// GoneAway needs no answer: the client finishes its streams and leaves.
func (c *serverConn) GoneAway(*turn.Turn, uint32, uint32, string) {}

// Idle ends a connection that was told to go away and has nothing left to do.
func (c *serverConn) Idle(t *turn.Turn) { closeDone(t, c.Conn, c.w) }

// Request answers one CONNECT: 200 when the owner of the server takes the
// tunnel, and otherwise the status that node tunnels know (contract of Istio's
// node tunnel: 400 malformed or not ours, 401 denied, 503 not now).
func (c *serverConn) Request(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	tun, err := c.tunnel(s, fields, end)
	if err != nil {
		c.server.stats.BadConnects.Add(1)
		c.refuse(t, s, ignore{}, err)
		return
	}
	s.Handle(tun) // which hears nothing before Request has returned
	h, err := c.server.Accept(t, tun)
	if err != nil && err != ErrLater {
		c.server.stats.Refused.Add(1)
		c.refuse(t, s, ignore{}, err)
		return
	}
	tun.h.begin(h)
	if err == nil {
		Answer(t, tun, nil)
	}
}

// Answer tells the client of an accepted tunnel what became of it: nil opens
// it, and with an error the handler hears Closed. Node tunnels answer 200 only
// when the application is connected. Only the first answer counts.
func Answer(t *turn.Turn, tun Tunnel, err error) {
	if a, ok := tun.(Answerer); ok {
		a.Respond(t, err)
	}
}

// An Answerer is a tunnel that a Server accepted.
type Answerer interface {
	// Respond is what Answer does.
	Respond(t *turn.Turn, err error)
}

// Respond answers the CONNECT.
func (st *streamTunnel) Respond(t *turn.Turn, err error) {
	if st.accepted == nil || st.answered.Swap(true) {
		return
	}
	stats := &st.accepted.server.stats
	if err != nil {
		stats.Refused.Add(1)
		st.accepted.refuse(t, st.s, refused{st, err}, err)
		return
	}
	stats.Tunnels.Add(1)
	st.s.SendHeaders(t, accepted200, false)
}

var accepted200 = []h2.Field{h2.NewField(":status", "200")}

// tunnel reads a CONNECT head (RFC 9113, section 8.5): the method and the
// authority, and what node tunnels add.
func (c *serverConn) tunnel(s *h2.Stream, fields []h2.Field, end bool) (*streamTunnel, error) {
	info := c.peer
	var method, authority []byte
	for _, f := range fields {
		switch string(f.Name) {
		case ":method":
			method = f.Value
		case ":authority":
			authority = f.Value
		default:
			c.describe(&info, f)
		}
	}
	if string(method) != "CONNECT" {
		return nil, &Refusal{Status: 400, Reason: fmt.Sprintf("method is %q, want CONNECT", method)}
	}
	if end {
		return nil, &Refusal{Status: 400, Reason: "CONNECT ended with its head"}
	}
	var err error
	if info.Destination, info.Host, err = peer.ParseAuthority(string(authority)); err != nil {
		return nil, &Refusal{Status: 400, Reason: err.Error()}
	}
	return &streamTunnel{accepted: c, s: s, peer: &info, opened: true}, nil
}

// describe keeps what the client's node tunnel tells about the client. What does
// not parse is left out and counted: node tunnels treat it so too.
func (c *serverConn) describe(info *peer.Info, f h2.Field) {
	var err error
	switch string(f.Name) {
	case "forwarded":
		info.Forwarded, err = peer.ParseForwarded(string(f.Value))
	case "baggage":
		info.Baggage, err = peer.ParseBaggage(string(f.Value))
	case "traceparent":
		info.Traceparent, err = peer.ParseTraceparent(string(f.Value))
	case "x-forwarded-network":
		info.Network = string(f.Value)
	}
	if err != nil {
		c.server.stats.BadMetadata.Add(1)
	}
}

// refuse answers with a status and no body, and leaves the stream to h.
func (c *serverConn) refuse(t *turn.Turn, s *h2.Stream, h h2.StreamHandler, err error) {
	status := 503
	if r, ok := errors.AsType[*Refusal](err); ok {
		status = r.Status
	}
	c.server.fault(c.nc, err)
	s.Handle(h)
	s.SendHeaders(t, []h2.Field{h2.NewField(":status", strconv.Itoa(status))}, true)
	s.Abort(t, CodeNoError) // RFC 9113, section 8.1: the rest of the request is not wanted
}

// ignore handles a stream that was refused before anybody had it.
type ignore struct{}

func (ignore) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (ignore) Data(*turn.Turn, *h2.Stream, []byte, bool)        {}
func (ignore) Left(*turn.Turn, *h2.Stream)                      {}
func (ignore) Closed(*turn.Turn, *h2.Stream, error)             {}

// refused handles a stream that was refused later: its handler hears the end.
type refused struct {
	tun *streamTunnel
	err error
}

func (refused) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (refused) Data(*turn.Turn, *h2.Stream, []byte, bool)        {}
func (refused) Left(*turn.Turn, *h2.Stream)                      {}
func (r refused) Closed(t *turn.Turn, _ *h2.Stream, _ error)     { r.tun.h.get().Closed(t, r.err) }

// parseProxy reads a PROXY header; n is 0 while more is needed.
func (s *Server) parseProxy(p []byte) (h proxyproto.Header, n int, err error) {
	return proxyproto.Parse(p, proxyproto.Options{V1: s.ProxyV1})
}

// proxyPeer turns a PROXY header into who is at the other end. A header without
// addresses has lost the destination, so nothing can be done with it.
func (s *Server) proxyPeer(nc net.Conn, h proxyproto.Header) (*peer.Info, error) {
	info := &peer.Info{How: peer.PROXY, Source: unmap(h.Source), Destination: unmap(h.Destination), Local: addrOf(nc.LocalAddr())}
	switch {
	case h.Local:
		return nil, errors.New("its sender speaks for itself (LOCAL), as in a health check: there is no destination")
	case !h.Destination.IsValid():
		return nil, errors.New("it has no addresses (UNSPEC), so the destination is lost: the pod's and the service's address family must be the same")
	}
	if strings.IndexFunc(h.Service, notInName) < 0 {
		info.Forwarded.Host = strings.ToLower(h.Service)
	}
	if h.Identity == "" {
		return info, nil
	}
	id, err := peer.ParseID(h.Identity)
	if err != nil {
		return nil, fmt.Errorf("TLV 0xD0: %w", err)
	}
	info.ID = id
	return info, nil
}

// notInName reports whether a service's name cannot have c: what is no name is
// dropped, because the TLV 0xD1 is a hint.
func notInName(c rune) bool {
	return !(c == '.' || c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
}

// plainPeer is what is known of a connection that has no header.
func plainPeer(nc net.Conn) *peer.Info {
	local := addrOf(nc.LocalAddr())
	return &peer.Info{How: peer.NONE, Source: addrOf(nc.RemoteAddr()), Destination: local, Local: local}
}

// badHeader counts and reports a PROXY header that is no use.
func (s *Server) badHeader(nc net.Conn, err error) {
	s.stats.BadHeaders.Add(1)
	s.fault(nc, fmt.Errorf("PROXY header: %w", err))
}
