package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

const (
	// connectTime bounds making one connection, with all that it is nested in.
	connectTime = 10 * time.Second
	// againFirst and againMost bound the wait before a connection is made anew; it
	// doubles each time in vain.
	againFirst = 10 * time.Millisecond
	againMost  = time.Second
	// ahead is how many bytes of a long body wait in a connection's buffers.
	ahead = 256 << 10
)

// An app is the client's side of an application protocol on one connection. Its
// methods lock slots as they need; none is called with one locked but ask.
type app interface {
	// begin says that bytes may be written to sink. The app calls attempt.ready
	// when it takes requests.
	begin(t *turn.Turn, sink turn.Sink)
	// feed brings bytes; an error ends the connection.
	feed(t *turn.Turn, p []byte) error
	// left says that what was written has left, so that there is room for more.
	left(t *turn.Turn)
	// ask sends the next request of a slot, which is locked.
	ask(t *turn.Turn, s *slot)
	// closed says that the connection is over, whoever ended it.
	closed(t *turn.Turn, err error)
}

// A link is one connection of the application's, made anew when it ends.
type link struct {
	worker *worker
	id     int
	mesh   *mesh // that carries it, with HBONE
	slots  []*slot
}

// What has become of an attempt.
const (
	opening int32 = iota
	begun         // it takes requests
	ended
)

// An attempt is a link's connection at hand, from its dial to its end.
type attempt struct {
	link   *link
	app    app
	state  atomic.Int32
	result chan error // tells connect that the app takes requests, or why not
}

// ready says that the connection takes requests.
func (a *attempt) ready(t *turn.Turn) {
	if !a.state.CompareAndSwap(opening, begun) {
		return // connect has given up, and ends the connection
	}
	a.result <- nil
	for _, s := range a.link.slots {
		s.Lock()
		s.app = a.app
		s.admit(t)
		s.Unlock()
	}
}

// over says that the connection has ended.
func (a *attempt) over(t *turn.Turn, err error) {
	if err == nil {
		err = errors.New("ended by the target")
	}
	if a.state.CompareAndSwap(opening, ended) {
		a.result <- err
		return
	}
	if !a.state.CompareAndSwap(begun, ended) {
		return
	}
	l := a.link
	for _, s := range l.slots {
		s.Lock()
		s.dismiss(t, err)
		s.Unlock()
	}
	r := l.worker.run
	if r.ctx.Err() != nil {
		return
	}
	if r.working.Load() && !errors.Is(err, errLast) {
		l.worker.tell(true, err)
	}
	r.tasks.Go(l.again)
}

// again makes the connection anew, until it stands or the run is over.
func (l *link) again() {
	r := l.worker.run
	for wait := againFirst; ; wait = min(2*wait, againMost) {
		if sleep(r.ctx, wait) != nil {
			return
		}
		err := l.connect(r.ctx)
		if err == nil || r.ctx.Err() != nil {
			return
		}
		l.worker.tell(false, err)
	}
}

// connect makes the connection and returns when it takes requests.
func (l *link) connect(ctx context.Context) error {
	t := &l.worker.run.spec.Target
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	a := &attempt{link: l, result: make(chan error, 1)}
	a.app = newApp(a)
	end, err := a.carry(ctx)
	if err != nil {
		return err
	}
	select {
	case err = <-a.result:
	case <-ctx.Done():
		if a.state.CompareAndSwap(opening, ended) {
			end()
			err = context.Cause(ctx)
		} else {
			err = <-a.result
		}
	}
	if err != nil {
		return fmt.Errorf("%s with %s: %w", t.Protocol, t.Addr, err)
	}
	return nil
}

func newApp(a *attempt) app {
	switch a.link.worker.run.spec.Target.Protocol {
	case HTTP2:
		return newMux(a, false)
	case GRPC:
		return newMux(a, true)
	case WebSocket:
		return newChat(a)
	case Echo:
		return newEchoing(a)
	}
	return newOneByOne(a)
}

// carry makes what the application's bytes go into. end gives it up.
func (a *attempt) carry(ctx context.Context) (end func(), err error) {
	l := a.link
	r := l.worker.run
	if l.mesh != nil {
		return l.mesh.tunnel(ctx, a)
	}
	c, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	r.serve(c, &direct{a.app, c}, func(t *turn.Turn) {
		if r.spec.Target.Via == ViaProxy {
			c.Write(t, r.proxyHeader(l.id))
		}
		a.app.begin(t, c)
	})
	return func() { c.Abort(nil, 0) }, nil
}

// serve runs an engine on a connection until it is over.
func (r *Run) serve(c *wire.Conn, e wire.Engine, begin func(t *turn.Turn)) {
	r.tasks.Go(func() {
		stop := context.AfterFunc(r.ctx, func() { c.Abort(nil, 0) })
		c.Run(begin)
		c.Serve(e)
		c.Wait()
		stop()
	})
}

// dial makes a transport connection, with TLS if that is the way.
func (r *Run) dial(ctx context.Context) (*wire.Conn, error) {
	t := &r.spec.Target
	nc, err := r.dialer(ctx, t.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if err := t.local(remote(nc)); err != nil {
		nc.Close()
		return nil, err
	}
	o := wire.Options{Loops: r.loops}
	if r.tls == nil {
		return wire.New(nc, o), nil
	}
	c := wire.NewTLS(nc, func(nc net.Conn) *tls.Conn { return tls.Client(nc, r.tls) }, o)
	if err := c.Handshake(ctx); err != nil {
		return nil, fmt.Errorf("TLS with %s: %w", t.Addr, err)
	}
	if want := r.tls.NextProtos[0]; want == "h2" && c.ConnectionState().NegotiatedProtocol != want {
		c.Discard()
		return nil, fmt.Errorf("TLS with %s: the target does not offer %s", t.Addr, want)
	}
	return c, nil
}

// remote is the address that a connection leads to, none if it is not a socket.
func remote(nc net.Conn) []netip.Addr {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	return []netip.Addr{a.AddrPort().Addr()}
}

// clientTLS is what the target's way needs; nil if that is nothing.
func (t *Target) clientTLS() (*tls.Config, error) {
	if t.Via == ViaHBONE {
		_, client, err := t.Certs.TLS()
		return client, err
	}
	if t.Via != ViaTLS {
		return nil, nil
	}
	name := t.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(t.Addr)
	}
	c := &tls.Config{ServerName: name, InsecureSkipVerify: t.Insecure, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true}
	switch t.Protocol {
	case HTTP2, GRPC:
		c.NextProtos = []string{"h2"}
	case Echo:
		c.NextProtos = nil
	}
	if t.Certs.Roots != "" {
		roots, err := t.Certs.Pool()
		if err != nil {
			return nil, err
		}
		c.RootCAs = roots
	}
	if t.Certs.Cert != "" {
		cert, err := tls.LoadX509KeyPair(t.Certs.Cert, t.Certs.Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// proxyHeader is what the connection of that number begins with.
func (r *Run) proxyHeader(id int) []byte {
	t := &r.spec.Target
	identity := ""
	if n := len(t.Identities); n > 0 {
		identity = t.Identities[id%n]
	}
	return traffic.ProxyHeader(netip.MustParseAddrPort(t.Source), netip.MustParseAddrPort(t.To), identity)
}

// direct is an app on a transport connection: a wire.Engine.
type direct struct {
	app
	conn *wire.Conn
}

func (d *direct) Feed(t *turn.Turn, p []byte) error { return d.feed(t, p) }
func (d *direct) Left(t *turn.Turn)                 { d.left(t) }
func (*direct) EOF(*turn.Turn) bool                 { return false }
func (*direct) Tick(*turn.Turn)                     {}
func (d *direct) Closed(t *turn.Turn, err error)    { d.closed(t, err) }

// inTunnel is an app in a CONNECT stream: an h2.StreamHandler.
type inTunnel struct {
	app
	on   *attempt
	open bool
	gone bool
}

// Headers brings the answer to CONNECT.
func (x *inTunnel) Headers(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	if status := h2.Status(fields); x.open || status != 200 || end {
		x.refuse(t, s, fmt.Errorf("CONNECT was answered with %d", status))
		return
	}
	x.open = true
	x.begin(t, s)
}

func (x *inTunnel) refuse(t *turn.Turn, s *h2.Stream, err error) {
	x.end(t, err)
	s.Abort(t, h2.CodeCancel)
}

func (x *inTunnel) end(t *turn.Turn, err error) {
	switch {
	case x.gone:
	case x.open:
		x.closed(t, err)
	default:
		x.on.over(t, err)
	}
	x.gone = true
}

func (x *inTunnel) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if x.gone {
		return
	}
	err := x.feed(t, p)
	s.Consume(t, len(p))
	if err == nil && end {
		err = errors.New("the target ended the tunnel")
	}
	if err != nil {
		x.refuse(t, s, err)
	}
}

func (x *inTunnel) Left(t *turn.Turn, _ *h2.Stream) { x.left(t) }

func (x *inTunnel) Closed(t *turn.Turn, _ *h2.Stream, err error) { x.end(t, err) }
