package http2

import (
	"errors"
	"strconv"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// Errors of writing. After any of them the caller aborts.
var (
	// ErrLength: the body written is not as long as the head said.
	ErrLength = errors.New("body does not match its length")
	// ErrOrder: a head where none is due, or a chunk without a head.
	ErrOrder = errors.New("message written out of order")
	// ErrHead: a method, target, authority or status that no head may have.
	ErrHead = errors.New("head has an invalid start line")
	// ErrSwitch: a response that switches protocols unasked, or that would be
	// taken to.
	ErrSwitch = errors.New("response switches protocols unasked")
)

// A bodyWriter holds what is written to a stream to the length that its head has
// told.
type bodyWriter struct {
	left  int64 // or message.UnknownLength
	begun bool  // the final head has been written
	done  bool
	none  bool // there is no body, whatever is written
}

// write sends a chunk.
func (w *bodyWriter) write(t *turn.Turn, s *h2.Stream, c *message.Chunk) error {
	switch {
	case !w.begun || w.done:
		return ErrOrder
	case w.none:
	case w.left >= 0:
		if w.left -= int64(len(c.Data)); w.left < 0 || c.End && w.left > 0 {
			return ErrLength
		}
		fallthrough
	default:
		if len(c.Data) > 0 {
			s.Write(t, c.Data)
		}
	}
	if !c.End {
		return nil
	}
	w.done = true
	if c.Trailer == nil || w.none || !writeTrailer(t, s, c.Trailer) {
		s.CloseWrite(t)
	}
	return nil
}

// writeTrailer ends a stream with trailers, and reports false if there are none.
func writeTrailer(t *turn.Turn, s *h2.Stream, h *message.Header) bool {
	var room fieldRoom
	b := room.begin()
	for i := range h.Len() {
		if h.Known(i).InTrailer() {
			b.message(h, i)
		}
	}
	if len(b.fields) > 0 {
		s.SendHeaders(t, b.fields, true)
	}
	return len(b.fields) > 0
}

// A fieldRoom is where the fields of a usual head are put together: on the
// writer's stack.
type fieldRoom struct {
	fields  [40]h2.Field
	scratch [256]byte
}

// A builder puts a head together.
type builder struct {
	fields  []h2.Field
	scratch []byte // for what is not in the message as it is to be sent
}

func (r *fieldRoom) begin() builder {
	return builder{fields: r.fields[:0], scratch: r.scratch[:0]}
}

func (b *builder) add(name, value []byte) {
	b.fields = append(b.fields, h2.Field{Name: name, Value: value})
}

// number adds a field with a number.
func (b *builder) number(name []byte, n int64) {
	at := len(b.scratch)
	b.scratch = strconv.AppendInt(b.scratch, n, 10)
	b.add(name, b.scratch[at:len(b.scratch):len(b.scratch)])
}

// headers adds the fields of a message that are not about one connection.
func (b *builder) headers(h *message.Header) {
	for i := range h.Len() {
		if !h.Known(i).Hop() {
			b.message(h, i)
		}
	}
}

// message adds a field of a message. Names are in lower case here. Credentials
// are never indexed: on a connection that several clients share, one could find
// out another's by what his own compress to (RFC 7541, section 7.1).
func (b *builder) message(h *message.Header, i int) {
	name, value := h.Field(i)
	f := h2.Field{Name: name, Value: trim(value)}
	switch known := h.Known(i); known {
	case message.Unknown:
		f.Name = b.lower(name)
	case message.Authorization, message.ProxyAuthorization, message.Cookie, message.SetCookie:
		f.Sensitive = true
		fallthrough
	default:
		f.Name = known.Bytes()
	}
	b.fields = append(b.fields, f)
}

// lower returns a name in lower case.
func (b *builder) lower(name []byte) []byte {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			at := len(b.scratch)
			b.scratch = append(b.scratch, name...)
			own := b.scratch[at:len(b.scratch):len(b.scratch)]
			for ; i < len(own); i++ {
				if 'A' <= own[i] && own[i] <= 'Z' {
					own[i] |= 0x20
				}
			}
			return own
		}
	}
	return name
}

// trim takes away white space around a value that a filter may have put there:
// to an HTTP/2 peer it would be malformed.
func trim(v []byte) []byte {
	for len(v) > 0 && blank(v[0]) {
		v = v[1:]
	}
	for len(v) > 0 && blank(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return v
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// The names of pseudo-header fields, and values that are always the same.
var (
	nameStatus    = []byte(":status")
	nameMethod    = []byte(":method")
	nameScheme    = []byte(":scheme")
	nameAuthority = []byte(":authority")
	namePath      = []byte(":path")
	nameProtocol  = []byte(":protocol")

	schemeHTTP    = []byte("http")
	methodConnect = []byte("CONNECT")
	trailers      = []byte("trailers")

	continueHead = []h2.Field{h2.NewField(":status", "100")}
)

// A Server writes the response on a stream that a client opened.
type Server struct {
	s       *h2.Stream
	out     bodyWriter
	isHead  bool
	waits   bool // the client waits for 100
	upgrade bool // it sent an extended CONNECT
}

// Init makes s ready for a stream.
func (s *Server) Init(st *h2.Stream) { *s = Server{s: st} }

// Upgrade reports whether the request is an extended CONNECT.
func (s *Server) Upgrade() bool { return s.upgrade }

// Done reports whether the response has been written to its end.
func (s *Server) Done() bool { return s.out.done }

// Continue sends 100 if the client waits for it.
func (s *Server) Continue(t *turn.Turn) {
	if s.waits && !s.out.begun {
		s.waits = false
		s.s.SendHeaders(t, continueHead, false)
	}
}

// Informational passes on a 1xx other than 101, which HTTP/2 does not have.
func (s *Server) Informational(t *turn.Turn, r *message.Response) {
	switch {
	case s.out.begun, r.Status < 100, r.Status > 199, r.Status == 101:
	case r.Status == 100:
		s.Continue(t)
	default:
		var room fieldRoom
		b := room.begin()
		b.number(nameStatus, int64(r.Status))
		b.headers(&r.Header)
		s.s.SendHeaders(t, b.fields, false)
	}
}

// WriteHead writes the final head. With end there is no body, and the response is
// complete. A 101 answers an extended CONNECT, as its 200.
func (s *Server) WriteHead(t *turn.Turn, r *message.Response, end bool) error {
	status := r.Status
	switch {
	case s.out.begun:
		return ErrOrder
	case (status == 101) != s.upgrade && (status == 101 || status < 300):
		return ErrSwitch
	case status == 101:
		status, end = 200, false
	case status < 200 || status > 999:
		return ErrHead
	}
	var room fieldRoom
	b := room.begin()
	b.number(nameStatus, int64(status))
	b.headers(&r.Header)
	s.out = bodyWriter{begun: true, done: end, left: r.Length}
	switch {
	case r.Bodiless(), s.upgrade && status < 300:
		s.out.none = r.Bodiless() && r.Status != 101
	case s.isHead:
		s.out.none = true
		if r.Length >= 0 {
			b.number(message.ContentLength.Bytes(), r.Length)
		}
	case end && r.Length > 0:
		return ErrLength
	case r.Length >= 0:
		b.number(message.ContentLength.Bytes(), r.Length)
	}
	s.s.SendHeaders(t, b.fields, end)
	return nil
}

// WriteChunk writes body bytes. An error means that they do not match the length
// the head told: nothing more may be written, the caller aborts.
func (s *Server) WriteChunk(t *turn.Turn, c *message.Chunk) error {
	return s.out.write(t, s.s, c)
}

// A Client writes a request on a stream that it opens, and reads the response.
type Client struct {
	out      bodyWriter
	protocol []byte // of an extended CONNECT
	isHead   bool
	upgrade  bool
}

// A Place is where a request goes: a connection on which a place for its stream
// is reserved, and who hears of the stream.
type Place struct {
	Conn    *h2.Conn
	Handler h2.StreamHandler
}

// WriteHead opens a stream with a request's head. ErrHead and ErrLength say that
// it is none, and then the place is still reserved; other errors are the
// connection's, and the request was not sent.
func (c *Client) WriteHead(t *turn.Turn, at Place, r *message.Request, end bool) (*h2.Stream, error) {
	*c = Client{isHead: string(r.Method) == "HEAD", upgrade: len(r.Upgrade) > 0}
	if end && r.Length > 0 {
		return nil, ErrLength
	}
	if !valid(r) {
		return nil, ErrHead
	}
	var room fieldRoom
	b := room.begin()
	scheme := r.Scheme
	if len(scheme) == 0 {
		scheme = schemeHTTP
	}
	if c.upgrade {
		c.protocol = append([]byte(nil), r.Upgrade...)
		end = false
		b.add(nameMethod, methodConnect)
		b.add(nameProtocol, r.Upgrade)
	} else {
		b.add(nameMethod, r.Method)
	}
	b.add(nameScheme, scheme)
	if len(r.Authority) > 0 {
		b.add(nameAuthority, r.Authority)
	}
	b.add(namePath, r.Path)
	b.headers(&r.Header)
	if r.TE {
		b.add(message.TE.Bytes(), trailers)
	}
	if r.Length > 0 || r.Length == 0 && !end && !c.upgrade {
		b.number(message.ContentLength.Bytes(), r.Length)
	}
	c.out = bodyWriter{begun: true, done: end, left: r.Length}
	return at.Conn.OpenReserved(t, at.Handler, b.fields, end)
}

// valid checks what a filter may have set by assignment.
func valid(r *message.Request) bool {
	return message.ValidMethod(r.Method) && string(r.Method) != "CONNECT" && message.ValidPath(r.Path) &&
		(len(r.Authority) == 0 || message.ValidAuthority(r.Authority)) &&
		(len(r.Upgrade) == 0 || message.ValidToken(r.Upgrade))
}

// WriteChunk writes body bytes on the stream that WriteHead opened, as
// Server.WriteChunk does.
func (c *Client) WriteChunk(t *turn.Turn, s *h2.Stream, k *message.Chunk) error {
	return c.out.write(t, s, k)
}
