package traffic

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// callPrefix is how long the prefix of a gRPC message is: compressed or not,
// and its length.
const callPrefix = 5

// sizeLen is the size of the answer that is asked for, in hex.
const sizeLen = 8

// Method is what calls are for, as their path.
const Method = "/bench.v1.Echo/Call"

// newCall builds the message that asks for an answer of so many bytes: its own
// number, then the size.
func newCall(answer int64) request {
	b := appendPrefix(nil, tokenLen+sizeLen)
	at := len(b)
	return request{fmt.Appendf(b, "%0*d%0*x", tokenLen, 0, sizeLen, answer), at}
}

func appendPrefix(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(n))
}

// checkCall looks at what stands before the body of an answer: the prefix and
// the call's number.
func (a *answer) checkCall() error {
	if a.prefix[0] != 0 || int64(binary.BigEndian.Uint32(a.prefix[1:])) != tokenLen+a.size {
		return fmt.Errorf("message begins with % x, want %d bytes", a.prefix[:callPrefix], tokenLen+a.size)
	}
	if got := a.prefix[callPrefix:]; string(got) != string(a.number[:]) {
		return fmt.Errorf("answer to call %q came for %q", got, a.number[:])
	}
	return nil
}

// callHead is what gRPC clients send, with as many fields of their users' as the
// request over HTTP/1.1 has.
var callHead = []h2.Field{
	h2.NewField(":method", "POST"),
	h2.NewField(":scheme", "http"),
	h2.NewField(":path", Method),
	h2.NewField(":authority", "svc.bench"),
	h2.NewField("content-type", "application/grpc"),
	h2.NewField("user-agent", "bars/1.0"),
	h2.NewField("te", "trailers"),
	h2.NewField("x-canary", "0"),
	h2.NewField("authorization", "Bearer abcdefghijklmnopqrstuvwxyz0123456789"),
	h2.NewField("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
}

// A channel is an HTTP/2 connection in a CONNECT stream, and those who call on it.
type channel struct {
	mesh    *mesh
	engine  *h2.Conn // nil until the CONNECT is answered
	callers []*caller
}

// A caller makes one call after the other.
type caller struct {
	*client
	on *channel

	turn.Lane // what follows: one that is woken works on another goroutine than the reader's
	gotHead   bool
	whole     bool // of the message
}

func newChannel(m *mesh, clients []*client) *channel {
	ch := &channel{mesh: m}
	for _, c := range clients {
		x := &caller{client: c, on: ch}
		c.once = func() { m.askOnce(x) }
		ch.callers = append(ch.callers, x)
	}
	return ch
}

// Headers brings the answer to CONNECT.
func (ch *channel) Headers(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	if status := h2.Status(fields); ch.engine != nil || status != 200 || end {
		ch.mesh.run.fail("CONNECT was answered with %d", status)
		s.Abort(t, h2.CodeCancel)
		return
	}
	ch.engine = h2.NewConn(s, ch, h2.Options{Client: true, MaxStreams: manyStreams})
	ch.engine.Start(t)
	var all []sleeper
	for _, x := range ch.callers {
		all = append(all, x)
	}
	ch.mesh.isOpen(all...)
}

// Data brings bytes of the connection inside.
func (ch *channel) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if ch.engine == nil {
		return // fail has been called
	}
	err := ch.engine.Feed(t, p)
	s.Consume(t, len(p))
	if err == nil && end {
		err = errors.New("it was ended")
	}
	if err != nil {
		ch.mesh.run.fail("connection inside a tunnel: %v", err)
		s.Abort(t, h2.CodeCancel)
	}
}

func (ch *channel) Left(t *turn.Turn, _ *h2.Stream) { ch.engine.Left(t) }

// Closed is an error while the run lasts.
func (ch *channel) Closed(_ *turn.Turn, _ *h2.Stream, err error) {
	ch.mesh.run.fail("tunnel of a channel closed: %v", err)
}

// Request, GoneAway and Idle make a channel an h2.ConnHandler.
func (ch *channel) Request(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (ch *channel) GoneAway(_ *turn.Turn, _, code uint32, debug string) {
	ch.mesh.run.fail("server says GOAWAY, %s %s", h2.CodeName(code), debug)
}
func (ch *channel) Idle(*turn.Turn) {}

func (x *caller) wake(t *turn.Turn, now time.Time) {
	x.run.active.Add(1)
	x.Lock()
	x.send(t, now)
	x.Unlock()
}

// send makes the next call. x is locked.
func (x *caller) send(t *turn.Turn, now time.Time) {
	x.gotHead, x.whole = false, false
	message := x.ask(now)
	s, err := x.on.engine.Open(t, x, callHead, false)
	if err != nil {
		x.run.fail("caller %d (%s): %v", x.id, x.group.Name, err)
		return
	}
	s.Write(t, message)
	s.CloseWrite(t)
}

// Headers brings the head of a response, then its trailers, with which the call
// is over.
func (x *caller) Headers(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	x.Lock()
	defer x.Unlock()
	var err error
	switch {
	case !x.gotHead && h2.Status(fields) != 200:
		err = fmt.Errorf("answered with %d", h2.Status(fields))
	case !x.gotHead && end:
		err = fmt.Errorf("nothing but a status: %s", grpcStatus(fields))
	case !x.gotHead:
		x.gotHead = true
		return
	case grpcStatus(fields) != "0" || !x.whole:
		err = fmt.Errorf("status %s, message whole: %v", grpcStatus(fields), x.whole)
	}
	if err != nil {
		x.wrong(t, s, err)
		return
	}
	now := time.Now()
	x.complete(now)
	if !x.on.mesh.park(x) {
		x.send(t, now)
	}
}

func grpcStatus(fields []h2.Field) string {
	for i := range fields {
		if string(fields[i].Name) == "grpc-status" {
			return string(fields[i].Value)
		}
	}
	return "missing"
}

// Data brings bytes of the message.
func (x *caller) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	x.Lock()
	defer x.Unlock()
	s.Consume(t, len(p))
	done, err := x.got(p)
	if err == nil && end {
		err = errors.New("response without a status")
	}
	if err != nil {
		x.wrong(t, s, err)
		return
	}
	x.whole = x.whole || done
}

func (x *caller) wrong(t *turn.Turn, s *h2.Stream, err error) {
	x.run.fail("call %d (%s): %v", x.id, x.group.Name, err)
	s.Abort(t, h2.CodeCancel)
}

func (x *caller) Left(*turn.Turn, *h2.Stream) {}

// Closed without a reason is the end of every call.
func (x *caller) Closed(_ *turn.Turn, _ *h2.Stream, err error) {
	if err != nil {
		x.run.fail("call %d (%s): %v", x.id, x.group.Name, err)
	}
}

// ServeCalls is ServeTunnels for gRPC: calls are answered on the HTTP/2
// connections inside the CONNECT streams.
func ServeCalls(ctx context.Context, l net.Listener, config *tls.Config) error {
	return ServeMesh(ctx, l, config, callTunnels{})
}

// callTunnels accepts every CONNECT.
type callTunnels struct{}

func (callTunnels) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, end bool) {
	e := &callTunnel{}
	s.Handle(e)
	s.SendHeaders(t, statusOK, end)
	e.engine = h2.NewConn(s, calls{}, endOptions)
	e.engine.Start(t)
}
func (callTunnels) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (callTunnels) Idle(*turn.Turn)                             {}

// A callTunnel is one CONNECT stream at the answering end.
type callTunnel struct{ engine *h2.Conn }

func (*callTunnel) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}

func (e *callTunnel) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	if err := e.engine.Feed(t, p); err != nil {
		s.Abort(t, h2.CodeProtocol)
		return
	}
	s.Consume(t, len(p))
	if end {
		s.CloseWrite(t)
	}
}

func (e *callTunnel) Left(t *turn.Turn, _ *h2.Stream)              { e.engine.Left(t) }
func (e *callTunnel) Closed(t *turn.Turn, _ *h2.Stream, err error) { e.engine.Closed(t, err) }

// calls answers calls.
type calls struct{}

var (
	callOK  = []h2.Field{h2.NewField(":status", "200"), h2.NewField("content-type", "application/grpc")}
	callEnd = []h2.Field{h2.NewField("grpc-status", "0"), h2.NewField("grpc-message", "")}
)

func (calls) Request(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	if end || !isCall(fields) {
		s.Abort(t, h2.CodeProtocol)
		return
	}
	s.Handle(&answering{})
}
func (calls) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (calls) Idle(*turn.Turn)                             {}

func isCall(fields []h2.Field) bool {
	for i := range fields {
		if string(fields[i].Name) == ":path" {
			return string(fields[i].Value) == Method
		}
	}
	return false
}

// An answering is one call at the answering end.
type answering struct{ asked []byte }

func (*answering) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}

func (a *answering) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	const want = callPrefix + tokenLen + sizeLen
	s.Consume(t, len(p))
	a.asked = append(a.asked, p...)
	if !end && len(a.asked) <= want {
		return
	}
	size, err := int64(0), error(nil)
	if len(a.asked) == want {
		size, err = strconv.ParseInt(string(a.asked[callPrefix+tokenLen:]), 16, 32)
	}
	if err != nil || len(a.asked) != want {
		s.Abort(t, h2.CodeProtocol)
		return
	}
	out := appendPrefix(make([]byte, 0, want+int(size)), tokenLen+size)
	out = append(out, a.asked[callPrefix:callPrefix+tokenLen]...)
	for off := int64(0); off < size; {
		b := body(off, size, 64<<10)
		out = append(out, b...)
		off += int64(len(b))
	}
	s.SendHeaders(t, callOK, false)
	s.Write(t, out)
	s.SendHeaders(t, callEnd, true)
}

func (*answering) Left(*turn.Turn, *h2.Stream)          {}
func (*answering) Closed(*turn.Turn, *h2.Stream, error) {}
