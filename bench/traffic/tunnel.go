package traffic

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

const (
	// handshakeTime bounds a TLS handshake of either end.
	handshakeTime = 10 * time.Second
	// ahead is how many bytes of a long body wait in its stream's queue.
	ahead = 256 << 10
	// manyStreams is how many streams a connection of the harness takes.
	manyStreams = 4096
)

// endOptions are those of an answering end. It bears what clients give up, as node
// tunnels do: the proxy before it is what is measured.
var endOptions = h2.Options{MaxStreams: manyStreams, Limits: h2.Limits{Resets: 1 << 30, Strays: 1 << 30}}

// ServeTunnels accepts mesh connections on l until l is closed. It is a node
// tunnel and the application behind it in one: requests are answered inside
// the CONNECT streams.
func ServeTunnels(ctx context.Context, l net.Listener, config *tls.Config) error {
	return ServeMesh(ctx, l, config, tunnels{})
}

// ServeMesh accepts mesh connections on l until l is closed, and hands their streams
// to h.
func ServeMesh(ctx context.Context, l net.Listener, config *tls.Config, h h2.ConnHandler) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go serveMesh(ctx, nc, config, h)
	}
}

func serveMesh(ctx context.Context, nc net.Conn, config *tls.Config, h h2.ConnHandler) {
	serveMeshWith(ctx, nc, config, h, endOptions)
}

func serveMeshWith(ctx context.Context, nc net.Conn, config *tls.Config, h h2.ConnHandler, o h2.Options) {
	c := wire.NewTLS(nc, func(nc net.Conn) *tls.Conn { return tls.Server(nc, config) }, wire.Options{})
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	err := c.Handshake(ctx)
	cancel()
	if err != nil {
		return // the proxy's side says why
	}
	engine := h2.NewConn(c, h, o)
	c.Run(engine.Start)
	c.Serve(outspoken{engine})
}

// An outspoken engine says why it ends a connection, before that ends.
type outspoken struct{ *h2.Conn }

func (e outspoken) Feed(t *turn.Turn, p []byte) error {
	err := e.Conn.Feed(t, p)
	if err != nil {
		e.Flush(t)
	}
	return err
}

// tunnels accepts every CONNECT.
type tunnels struct{}

var statusOK = []h2.Field{h2.NewField(":status", "200")}

func (tunnels) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, end bool) {
	s.Handle(&tunnelEnd{})
	s.SendHeaders(t, statusOK, end)
}
func (tunnels) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (tunnels) Idle(*turn.Turn)                             {}

// A tunnelEnd answers the requests in one stream.
type tunnelEnd struct {
	q    question
	body sending
}

func (*tunnelEnd) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}

func (e *tunnelEnd) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	s.Consume(t, len(p))
	for len(p) > 0 {
		n, r, err := e.q.feed(p)
		if err != nil || r != nil && e.body.busy() { // asked before the answer was there
			s.Abort(t, h2.CodeProtocol)
			return
		}
		p = p[n:]
		if r == nil {
			continue
		}
		s.Write(t, r.bytes)
		if !r.whole {
			e.body = sending{size: r.size}
			e.body.pump(t, s)
		}
	}
	if end {
		s.CloseWrite(t)
	}
}

func (e *tunnelEnd) Left(t *turn.Turn, s *h2.Stream)    { e.body.pump(t, s) }
func (*tunnelEnd) Closed(*turn.Turn, *h2.Stream, error) {}

// A sending is a long body on its way into a stream.
type sending struct{ off, size int64 }

func (b *sending) busy() bool { return b.off < b.size }

// pump writes what there is room for.
func (b *sending) pump(t *turn.Turn, s turn.Sink) {
	for b.busy() && s.Buffered() < ahead {
		p := body(b.off, b.size, 16<<10)
		b.off += int64(len(p))
		s.Write(t, p)
	}
}
