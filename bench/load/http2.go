package load

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// fields2 is a request's head with HTTP/2.
func (k *Kind) fields2(s *Spec) []h2.Field {
	scheme := "http"
	if s.Target.Via == ViaTLS {
		scheme = "https"
	}
	fields := []h2.Field{
		h2.NewField(":method", k.Method),
		h2.NewField(":scheme", scheme),
		h2.NewField(":path", k.Path),
		h2.NewField(":authority", k.Host),
	}
	agent := true
	for _, f := range k.Fields {
		name := strings.ToLower(f.Name)
		fields = append(fields, h2.NewField(name, f.Value))
		agent = agent && name != "user-agent"
	}
	if agent {
		fields = append(fields, h2.NewField("user-agent", "waypoint-load"))
	}
	if s.Target.Protocol == GRPC {
		return append(fields, h2.NewField("content-type", "application/grpc"), h2.NewField("te", "trailers"))
	}
	if k.Size > 0 {
		fields = append(fields, h2.NewField("content-length", strconv.Itoa(k.Size)))
	}
	return fields
}

// A mux speaks HTTP/2, or gRPC over it, with a caller for each slot.
type mux struct {
	on      *attempt
	grpc    bool
	engine  *h2.Conn
	callers []*caller

	// Owned by who reads.
	began bool
}

// A caller makes one request after the other.
type caller struct {
	mux  *mux
	slot *slot

	// Guarded by the slot's lane.
	stream *h2.Stream // of the request on its way; nil is none
	out    *message
	body   sending
	status int
	bytes  int64
	call   callReader

	give giveBack
}

func newMux(a *attempt, grpc bool) *mux {
	m := &mux{on: a, grpc: grpc}
	for _, s := range a.link.slots {
		c := &caller{mux: m, slot: s}
		c.give = c.cancel
		m.callers = append(m.callers, c)
	}
	return m
}

func (m *mux) begin(t *turn.Turn, sink turn.Sink) {
	m.engine = h2.NewConn(sink, m, h2.Options{Client: true, MaxStreams: maxStreams})
	m.engine.Start(t)
}

func (m *mux) feed(t *turn.Turn, p []byte) error {
	if err := m.engine.Feed(t, p); err != nil || m.began || m.engine.Stats().SettingsIn == 0 {
		return err
	}
	m.began = true // the peer has said how many streams there may be
	if n, want := m.engine.Room(), len(m.callers); n < want {
		return fmt.Errorf("the target takes %d streams on a connection, and %d were asked for: write --streams %d, and more connections", n, want, n)
	}
	m.on.ready(t)
	return nil
}

func (m *mux) left(t *turn.Turn) { m.engine.Left(t) }

func (m *mux) closed(t *turn.Turn, err error) {
	for _, c := range m.callers {
		c.slot.Lock()
		c.stream = nil // over fails what is on its way
		c.slot.Unlock()
	}
	if m.engine != nil {
		m.engine.Closed(t, err)
	}
	m.on.over(t, err)
}

// Request, GoneAway and Idle make a mux an h2.ConnHandler.
func (*mux) Request(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (*mux) GoneAway(*turn.Turn, uint32, uint32, string)      {}
func (*mux) Idle(*turn.Turn)                                  {}

func (m *mux) ask(t *turn.Turn, s *slot) {
	c := m.callers[s.at]
	c.out = &s.link.worker.run.messages[s.kind]
	c.status, c.bytes, c.call = 0, 0, callReader{}
	c.body.rest = c.out.bytes
	end := len(c.out.bytes) == 0
	st, err := m.engine.Open(t, c, c.out.fields, end)
	if err != nil { // it was not sent: the connection is going away
		c.stream = nil
		s.link.worker.unsend(s, s.intended)
		return
	}
	c.stream, s.give = st, c.give
	if !end {
		c.send(t)
	}
}

// send writes what there is room for of the request's content.
func (c *caller) send(t *turn.Turn) {
	if len(c.body.rest) == 0 {
		return
	}
	if c.body.pump(t, c.stream); len(c.body.rest) == 0 {
		c.stream.CloseWrite(t)
	}
}

// cancel resets the stream; the slot is as good as before.
func (c *caller) cancel(t *turn.Turn) {
	st := c.stream
	c.stream = nil
	st.Abort(t, h2.CodeCancel)
	c.slot.admit(t)
}

// Headers brings a head, or trailers.
func (c *caller) Headers(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	c.slot.Lock()
	defer c.slot.Unlock()
	if c.stream != s {
		return
	}
	if c.status == 0 {
		n := h2.Status(fields)
		if n < 200 && !end {
			return // an informational one
		}
		c.status = n
	}
	if c.mux.grpc {
		c.call.fields(fields)
	}
	if end {
		c.end(t)
	}
}

// Data brings content.
func (c *caller) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	s.Consume(t, len(p))
	c.slot.Lock()
	defer c.slot.Unlock()
	if c.stream != s {
		return
	}
	c.bytes += int64(len(p))
	if c.mux.grpc {
		c.call.feed(p)
	}
	if end {
		c.end(t)
	}
}

// end judges the answer. A server may answer before it has all of a request: then
// it resets the stream, or gets what is left of it.
func (c *caller) end(t *turn.Turn) {
	st, early := c.stream, len(c.body.rest) > 0
	c.stream, c.body.rest = nil, nil
	if early {
		st.Abort(t, h2.CodeNoError)
	}
	o := c.out.wrong(c.status, c.bytes)
	if c.mux.grpc {
		o = c.call.outcome(c.out, c.status)
	}
	c.slot.done(t, o, true)
}

// Left goes on with the request's content.
func (c *caller) Left(t *turn.Turn, s *h2.Stream) {
	c.slot.Lock()
	defer c.slot.Unlock()
	if c.stream == s {
		c.send(t)
	}
}

// Closed fails the request if it has not ended. One that a target which goes away
// has not begun to process goes out again, as every client would have it (RFC
// 9113, section 8.7), on another connection and with its time still running.
func (c *caller) Closed(t *turn.Turn, s *h2.Stream, err error) {
	c.slot.Lock()
	defer c.slot.Unlock()
	if c.stream != s {
		return
	}
	if err == nil {
		err = malformedf(Malformed, "stream ended without an answer")
	}
	c.stream, c.body.rest = nil, nil
	if gone, ok := errors.AsType[*h2.GoAwayError](err); ok && gone.Unprocessed {
		c.slot.link.worker.unsend(c.slot, c.slot.intended)
		return
	}
	_, only := errors.AsType[*h2.StreamError](err) // else the connection is over
	c.slot.done(t, outcome{failure: failureOf(err), err: err}, only)
}

// A callReader reads the answer to a unary gRPC call: one message, and the status
// behind it.
type callReader struct {
	prefix [5]byte
	have   int   // of the prefix
	left   int64 // of the message
	whole  int   // messages
	status int
	known  bool // there was a status
	bad    bool
	text   string
}

func (r *callReader) feed(p []byte) {
	for len(p) > 0 && !r.bad {
		if r.have < len(r.prefix) {
			n := copy(r.prefix[r.have:], p)
			r.have += n
			p = p[n:]
			if r.have < len(r.prefix) {
				return
			}
			r.left = int64(r.prefix[1])<<24 | int64(r.prefix[2])<<16 | int64(r.prefix[3])<<8 | int64(r.prefix[4])
			r.bad = r.prefix[0] > 1
		}
		n := min(r.left, int64(len(p)))
		r.left -= n
		p = p[n:]
		if r.left == 0 {
			r.whole++
			r.have = 0
		}
	}
}

func (r *callReader) fields(fields []h2.Field) {
	for i := range fields {
		switch string(fields[i].Name) {
		case "grpc-status":
			n, err := strconv.ParseUint(string(fields[i].Value), 10, 16)
			r.status, r.known = int(n), err == nil
		case "grpc-message":
			r.text = string(fields[i].Value)
		}
	}
}

// outcome judges a call that has ended. The expected length is the message's.
func (r *callReader) outcome(m *message, http int) outcome {
	size := int64(r.prefix[1])<<24 | int64(r.prefix[2])<<16 | int64(r.prefix[3])<<8 | int64(r.prefix[4])
	o := outcome{status: r.status, bytes: size}
	switch {
	case http != 200:
		o.status, o.failure = http, Status
		o.err = malformedf(Status, "call was answered with HTTP status %d", http)
	case !r.known:
		o.failure, o.err = Malformed, malformedf(Malformed, "call ended without grpc-status")
	case r.status != m.status:
		o.failure = CallStatus
		o.err = malformedf(CallStatus, "grpc-status %d: %s", r.status, r.text)
	case r.status == 0 && (r.bad || r.whole != 1 || r.have != 0 || r.left != 0):
		o.failure, o.err = Malformed, malformedf(Malformed, "call was answered with %d messages, want one", r.whole)
	case r.status == 0 && m.length >= 0 && size != m.length:
		o.failure, o.err = Content, malformedf(Content, "message has %d bytes, want %d", size, m.length)
	}
	return o
}
