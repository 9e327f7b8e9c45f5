package http2

import (
	"bytes"
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
	scratch       // for the trailers too
	left    int64 // or message.UnknownLength
	begun   bool  // the final head has been written
	done    bool
	none    bool // there is no body, whatever is written
}

// start is called with the final head.
func (w *bodyWriter) start(length int64, done bool) {
	w.left, w.begun, w.done, w.none = length, true, done, false
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
	if c.Trailer == nil || w.none || !w.trailer(t, s, c.Trailer) {
		s.CloseWrite(t)
	}
	return nil
}

// trailer ends a stream with trailers, and reports false if there are none.
func (w *bodyWriter) trailer(t *turn.Turn, s *h2.Stream, h *message.Header) bool {
	var room fieldRoom
	fields := room[:0]
	w.scratch.begin()
	for i := range h.Len() {
		if h.Known(i).InTrailer() {
			fields = append(fields, w.field(h, i))
		}
	}
	if len(fields) > 0 {
		s.SendHeaders(t, fields, true)
	}
	return len(fields) > 0
}

// A fieldRoom is where the fields of a usual head are put together: on the
// writer's stack. They are passed and returned, and not kept in a struct together
// with what they refer to, or all of it would escape.
type fieldRoom [24]h2.Field

// A scratch is memory for what is not in a message as it is to be sent. It is kept
// from head to head.
type scratch struct{ bytes []byte }

// keepScratch is how much of it is kept.
const keepScratch = 512

// begin makes the scratch ready for a head.
func (s *scratch) begin() {
	if s.bytes = s.bytes[:0]; cap(s.bytes) > keepScratch {
		s.bytes = nil
	}
}

// from returns what has been appended since it was at.
func (s *scratch) from(at int) []byte { return s.bytes[at:len(s.bytes):len(s.bytes)] }

// number returns a number's digits.
func (s *scratch) number(n int64) []byte {
	at := len(s.bytes)
	s.bytes = strconv.AppendInt(s.bytes, n, 10)
	return s.from(at)
}

// lower returns a name in lower case.
func (s *scratch) lower(name []byte) []byte {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			at := len(s.bytes)
			s.bytes = append(s.bytes, name...)
			own := s.from(at)
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

// field returns a field of a message as it is sent. Credentials are never indexed:
// on a connection that several clients share, one could find out another's by what
// his own compress to (RFC 7541, section 7.1).
func (s *scratch) field(h *message.Header, i int) h2.Field {
	name, value := h.Field(i)
	f := h2.Field{Name: name, Value: trim(value)}
	switch known := h.Known(i); known {
	case message.Unknown:
		f.Name = s.lower(name)
	case message.Authorization, message.ProxyAuthorization, message.Cookie, message.SetCookie:
		f.Sensitive = true
		fallthrough
	default:
		f.Name = known.Bytes()
	}
	return f
}

// headers appends the fields of a message that are not about one connection.
func (s *scratch) headers(to []h2.Field, h *message.Header) []h2.Field {
	for i := range h.Len() {
		if !h.Known(i).Hop() {
			to = append(to, s.field(h, i))
		}
	}
	return to
}

func add(to []h2.Field, name, value []byte) []h2.Field {
	return append(to, h2.Field{Name: name, Value: value})
}

// length appends content-length.
func (s *scratch) length(to []h2.Field, n int64) []h2.Field {
	return add(to, message.ContentLength.Bytes(), s.number(n))
}

// status appends :status.
func status(to []h2.Field, n int) []h2.Field { return add(to, nameStatus, statuses[n][:]) }

// statuses is never written.
var statuses = func() (all [1000][3]byte) {
	for n := range all {
		all[n] = [3]byte{'0' + byte(n/100), '0' + byte(n/10%10), '0' + byte(n%10)}
	}
	return all
}()

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

// Init makes s ready for a stream; nil forgets one.
func (s *Server) Init(st *h2.Stream) { *s = Server{s: st, out: bodyWriter{scratch: s.out.scratch}} }

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
		s.out.scratch.begin()
		s.s.SendHeaders(t, s.out.headers(status(room[:0], r.Status), &r.Header), false)
	}
}

// WriteHead writes the final head. With end there is no body, and the response is
// complete. A 101 answers an extended CONNECT, as its 200.
func (s *Server) WriteHead(t *turn.Turn, r *message.Response, end bool) error {
	code := r.Status
	switch {
	case s.out.begun:
		return ErrOrder
	case (code == 101) != s.upgrade && (code == 101 || code < 300):
		return ErrSwitch
	case code == 101:
		code, end = 200, false
	case code < 200 || code > 999:
		return ErrHead
	}
	var room fieldRoom
	s.out.scratch.begin()
	fields := s.out.headers(status(room[:0], code), &r.Header)
	s.out.start(r.Length, end)
	switch {
	case r.Bodiless(), s.upgrade && code < 300:
		s.out.none = r.Bodiless() && r.Status != 101
	case s.isHead:
		s.out.none = true
		if r.Length >= 0 {
			fields = s.out.length(fields, r.Length)
		}
	case end && r.Length > 0:
		return ErrLength
	case r.Length >= 0:
		fields = s.out.length(fields, r.Length)
	}
	s.s.SendHeaders(t, fields, end)
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

// Reset makes c ready for another stream.
func (c *Client) Reset() { *c = Client{out: bodyWriter{scratch: c.out.scratch}} }

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
	c.isHead, c.upgrade, c.protocol = string(r.Method) == "HEAD", len(r.Upgrade) > 0, nil
	if end && r.Length > 0 {
		return nil, ErrLength
	}
	if !valid(r) {
		return nil, ErrHead
	}
	var room fieldRoom
	c.out.scratch.begin()
	scheme := r.Scheme
	if len(scheme) == 0 {
		scheme = schemeHTTP
	}
	method, fields := r.Method, room[:0]
	if c.upgrade {
		c.protocol, method, end = bytes.Clone(r.Upgrade), methodConnect, false
	}
	fields = add(fields, nameMethod, method)
	fields = add(fields, nameScheme, scheme)
	if len(r.Authority) > 0 {
		fields = add(fields, nameAuthority, r.Authority)
	}
	fields = add(fields, namePath, r.Path)
	if c.upgrade {
		fields = add(fields, nameProtocol, c.protocol)
	}
	fields = c.out.headers(fields, &r.Header)
	if r.TE {
		fields = add(fields, message.TE.Bytes(), trailers)
	}
	if r.Length > 0 || r.Length == 0 && !end && !c.upgrade {
		fields = c.out.length(fields, r.Length)
	}
	c.out.start(r.Length, end)
	return at.Conn.OpenReserved(t, at.Handler, fields, end)
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
