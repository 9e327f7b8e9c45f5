package load

import (
	"errors"
	"io"
	"strconv"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A message is one kind's bytes, made once: what goes out for each request.
type message struct {
	bytes  []byte     // with HTTP/1.1 the head and the body, else what is sent as content
	fields []h2.Field // of HTTP/2
	head   bool       // the answer has no body
	status int        // that the answer must have; 0 is any of 200 to 299
	length int64      // of its body; -1 is any
}

// newMessages builds what the kinds of a run send.
func newMessages(s *Spec) []message {
	var all []message
	for i := range s.Mix {
		k := &s.Mix[i]
		m := message{head: k.Method == "HEAD", status: k.Status, length: k.Bytes}
		switch s.Target.Protocol {
		case HTTP1:
			m.bytes = append(k.head(), k.content()...)
		case HTTP2:
			m.bytes, m.fields = k.content(), k.fields2(s)
		case GRPC:
			n := k.Size
			m.bytes = append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, k.content()...)
			m.fields = k.fields2(s)
		default:
			m.bytes = k.content()
		}
		all = append(all, m)
	}
	return all
}

// head is a request's head with HTTP/1.1.
func (k *Kind) head() []byte {
	b := append([]byte(k.Method), ' ')
	b = append(append(b, k.Path...), " HTTP/1.1\r\nhost: "...)
	b = append(append(b, k.Host...), "\r\n"...)
	agent := true
	for _, f := range k.Fields {
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
		agent = agent && !fold([]byte(f.Name), "user-agent")
	}
	if agent {
		b = append(b, "user-agent: waypoint-load\r\n"...)
	}
	if k.Size > 0 || k.Method == "POST" || k.Method == "PUT" || k.Method == "PATCH" {
		b = append(append(b, "content-length: "...), strconv.Itoa(k.Size)...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// content is a request's body: printable, and of a period that no power of two
// divides, so that bytes lost, doubled or moved are seen where they come back.
func (k *Kind) content() []byte {
	if len(k.Body) > 0 {
		return k.Body
	}
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_."
	b := make([]byte, k.Size)
	for i := range b {
		b[i] = letters[(i+i/len(letters))%len(letters)]
	}
	return b
}

// wrong returns what about an answer is not as expected.
func (m *message) wrong(status int, bytes int64) outcome {
	o := outcome{status: status, bytes: bytes}
	switch {
	case m.status != 0 && status != m.status, m.status == 0 && (status < 200 || status > 299):
		o.failure = Status
		o.err = malformedf(Status, "answered with %d", status)
	case m.length >= 0 && bytes != m.length:
		o.failure = Content
		o.err = malformedf(Content, "answer has %d bytes, want %d", bytes, m.length)
	}
	return o
}

// A sending is what remains of a message on its way into a sink.
type sending struct{ rest []byte }

// pump writes what there is room for.
func (b *sending) pump(t *turn.Turn, s turn.Sink) {
	for len(b.rest) > 0 && s.Buffered() < ahead {
		n := min(len(b.rest), 64<<10)
		s.Write(t, b.rest[:n])
		b.rest = b.rest[n:]
	}
}

// oneByOne speaks HTTP/1.1, one request at a time.
type oneByOne struct {
	on   *attempt
	slot *slot
	sink turn.Sink

	// Guarded by the slot's lane.
	res  response
	body sending
	out  *message // asked for

	give giveBack // made once: each time would be an allocation
}

func newOneByOne(a *attempt) *oneByOne {
	x := &oneByOne{on: a, slot: a.link.slots[0]}
	x.give = x.drop
	return x
}

func (x *oneByOne) begin(t *turn.Turn, sink turn.Sink) {
	x.sink = sink
	x.on.ready(t)
}

func (x *oneByOne) ask(t *turn.Turn, s *slot) {
	x.out = &s.link.worker.run.messages[s.kind]
	x.res.expect(x.out.head)
	s.give = x.give
	x.body.rest = x.out.bytes
	x.body.pump(t, x.sink)
}

// drop ends the connection: there is no other way to be rid of a request.
func (x *oneByOne) drop(t *turn.Turn) {
	x.out = nil
	x.sink.Abort(t, h2.CodeCancel)
}

var (
	errUnasked = malformedf(Malformed, "bytes came that nobody asked for")
	// errLast ends a connection whose server has announced that it will close it.
	errLast = errors.New("the target closes after this answer")
)

func (x *oneByOne) feed(t *turn.Turn, p []byte) error {
	x.slot.Lock()
	defer x.slot.Unlock()
	if x.out == nil {
		return errUnasked
	}
	n, done, err := x.res.feed(p)
	if err != nil {
		return err
	}
	if done && n < len(p) {
		return errUnasked
	}
	if done {
		x.answered(t)
	}
	if done && x.res.close {
		return errLast
	}
	return nil
}

// answered ends the request. A server may answer before it has all of a body:
// then the connection is of no more use.
func (x *oneByOne) answered(t *turn.Turn) {
	early := len(x.body.rest) > 0
	o := x.out.wrong(x.res.status, x.res.bytes)
	x.out, x.body.rest = nil, nil
	x.slot.done(t, o, !x.res.close && !early)
	if early {
		x.sink.Abort(t, h2.CodeCancel)
	}
}

func (x *oneByOne) left(t *turn.Turn) {
	x.slot.Lock()
	defer x.slot.Unlock()
	x.body.pump(t, x.sink)
}

func (x *oneByOne) closed(t *turn.Turn, err error) {
	x.slot.Lock()
	if x.out != nil && x.res.at == untilClose && (err == nil || errors.Is(err, io.EOF)) {
		x.answered(t) // its end is the end of the connection
		err = errLast
	}
	x.slot.Unlock()
	x.on.over(t, err)
}
