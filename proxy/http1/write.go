package http1

import (
	"strconv"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// writeState is where a codec stands in what it writes.
type writeState uint8

const (
	writeNone writeState = iota // no head yet
	writeBody
	writeDone
	writeTunnel // the connection has switched protocols
)

// headRoom is more than a start line's fixed parts and the framing fields take.
const headRoom = 160

// coalesce is the largest run of body bytes that is copied to stand in one write
// with its chunk framing: a small chunk then takes the sink's lock once, not
// three times. BenchmarkWriteChunk/200B: 35 → 32 ns; over an internal/h2 stream,
// whose Write does more than lock and copy, 85 → 54 ns. From 2 KB on the copy
// costs what it saves.
const coalesce = 1<<10 - 32

// A bodyWriter holds a body to the length its head has told.
type bodyWriter struct {
	left int64 // of a sized body
	mode bodyMode
}

// start decides the framing of a body and appends the field that tells it. quiet
// is for messages whose length is nowhere written.
func (w *bodyWriter) start(b []byte, length int64, quiet bool) []byte {
	switch {
	case length >= 0:
		w.mode, w.left = sizedBody, length
		if quiet {
			return b
		}
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		return append(b, "\r\n"...)
	case w.mode == closeBody:
		return b
	}
	w.mode = chunkedBody
	return append(b, "Transfer-Encoding: chunked\r\n"...)
}

// write sends a chunk. done says that the body is complete.
func (w *bodyWriter) write(t *turn.Turn, sink turn.Sink, c *message.Chunk) (done bool, err error) {
	switch w.mode {
	case noBody: // an answer to HEAD, a 304: the bytes are known to be unwanted
		return c.End, nil
	case sizedBody:
		w.left -= int64(len(c.Data))
		if w.left < 0 || c.End && w.left > 0 {
			return false, ErrLength
		}
		fallthrough
	case closeBody:
		if len(c.Data) > 0 {
			sink.Write(t, c.Data)
		}
		return c.End, nil
	}
	w.writeChunked(t, sink, c)
	return c.End, nil
}

func (w *bodyWriter) writeChunked(t *turn.Turn, sink turn.Sink, c *message.Chunk) {
	n, size := len(c.Data), 32
	if n <= coalesce {
		size += n
	}
	if c.Trailer != nil {
		size += c.Trailer.LinesLen()
	}
	b := buf.Get(size)
	if n > 0 {
		b = appendSize(b, n)
		if n <= coalesce {
			b = append(b, c.Data...)
		} else {
			sink.Write(t, b)
			sink.Write(t, c.Data)
			b = b[:0]
		}
		b = append(b, "\r\n"...)
	}
	if c.End {
		b = append(b, "0\r\n"...)
		if c.Trailer != nil {
			b = c.Trailer.AppendTrailers(b)
		}
		b = append(b, "\r\n"...)
	}
	if len(b) > 0 {
		sink.Write(t, b)
	}
	buf.Put(b)
}

// Continue writes 100 Continue if the client waits for it.
func (s *Server) Continue(t *turn.Turn) {
	if s.waits && s.write == writeNone {
		s.waits = false
		s.sink.Write(t, continueLine)
	}
}

var continueLine = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// Informational passes on a 1xx other than 101. HTTP/1.0 has none, and 100 goes
// only to a client that still waits for it.
func (s *Server) Informational(t *turn.Turn, r *message.Response) {
	switch {
	case s.http10, s.write != writeNone, r.Status < 100, r.Status > 199, r.Status == 101:
	case r.Status == 100:
		s.Continue(t)
	default:
		b := appendStatus(buf.Get(headRoom+len(r.Reason)+r.Header.LinesLen()), r)
		b = r.Header.AppendLines(b)
		b = append(b, "\r\n"...)
		s.sink.Write(t, b)
		buf.Put(b)
	}
}

// WriteHead writes the final head, framing made from r.Length. With end there is
// no body, and the response is complete.
func (s *Server) WriteHead(t *turn.Turn, r *message.Response, end bool) error {
	b, lent, err := s.appendHead(t, r, end, 0)
	if err != nil {
		return err
	}
	s.sink.Write(t, b)
	if lent {
		buf.Put(b)
	}
	return nil
}

// WriteAll is WriteHead, and WriteChunk of a body that is whole and has r.Length bytes:
// in one write. What that saves depends on the sink: RATIONALE.md has it.
func (s *Server) WriteAll(t *turn.Turn, r *message.Response, body []byte) error {
	if r.Length != int64(len(body)) {
		return ErrLength
	}
	b, lent, err := s.appendHead(t, r, false, len(body))
	if err != nil {
		return err
	}
	if s.write == writeBody {
		if s.out.mode == sizedBody {
			b = append(b, body...)
		}
		s.written()
	}
	s.sink.Write(t, b)
	if lent {
		buf.Put(b)
	}
	return nil
}

// appendHead puts a head together, and leaves room for more bytes behind it. lent
// says that the buffer is to be given back.
func (s *Server) appendHead(t *turn.Turn, r *message.Response, end bool, more int) (b []byte, lent bool, err error) {
	switch {
	case s.write != writeNone:
		return nil, false, ErrOrder
	case r.Status == 101 && (!s.upgrade || len(r.Upgrade) == 0):
		return nil, false, ErrSwitch
	case r.Status < 200 && r.Status != 101, r.Status > 999, !ordinary(r) && !message.ValidValue(r.Reason), !message.ValidValue(r.Upgrade):
		return nil, false, ErrHead
	}
	b, lent = headBuffer(t, &r.Header, headRoom+len(r.Reason)+len(r.Upgrade)+more)
	b = appendStatus(b, r)
	b = r.Header.AppendLines(b)
	switch {
	case r.Status == 101:
		b = appendUpgrade(b, r.Upgrade)
		s.write = writeTunnel
	case s.isConnect && r.Status < 300:
		s.write = writeTunnel
	default:
		if b, err = s.appendFraming(b, r, end); err != nil {
			if lent {
				buf.Put(b)
			}
			return nil, false, err
		}
	}
	return append(b, "\r\n"...), lent, nil
}

// headBuffer returns a buffer for a head of h's fields and other bytes: the turn's, the
// room behind the arena, or for a long head a lent one. Not to borrow is worth 13 % of
// BenchmarkRelay; to leave the arena, which is one of hundreds, alone is 1.4 % of a
// request at 256 streams.
func headBuffer(t *turn.Turn, h *message.Header, others int) (b []byte, lent bool) {
	n := others + h.LinesLen()
	if b = t.Scratch(n); b != nil {
		return b, false
	}
	if b = h.Room(n); b == nil {
		return buf.Get(n), true
	}
	return b, false
}

// appendFraming tells how the body ends and whether the connection goes on.
func (s *Server) appendFraming(b []byte, r *message.Response, end bool) ([]byte, error) {
	length := r.Length
	switch {
	case r.Bodiless():
		s.out = bodyWriter{mode: noBody}
	case s.isHead:
		if length >= 0 {
			b = s.out.start(b, length, false)
		}
		s.out = bodyWriter{mode: noBody}
	default:
		if end && length > 0 {
			return b, ErrLength
		}
		if end {
			length = 0
		}
		s.out = bodyWriter{}
		if length < 0 && s.http10 { // it knows no chunks: the end is the end of the connection
			s.out.mode, s.persist = closeBody, false
		}
		b = s.out.start(b, length, false)
	}
	// A client that still waits may send its body or not: what comes next
	// could be either (RFC 9110, section 10.1.1).
	if r.Close || s.waits || s.read == readFailed {
		s.persist = false
	}
	switch {
	case !s.persist:
		b = append(b, "Connection: close\r\n"...)
	case s.http10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	s.write = writeBody
	if end {
		s.written()
	}
	return b, nil
}

// WriteChunk writes body bytes. An error means that they do not match the
// length the head told: nothing more may be written, the caller aborts.
func (s *Server) WriteChunk(t *turn.Turn, c *message.Chunk) error {
	if s.write != writeBody {
		return ErrOrder
	}
	done, err := s.out.write(t, s.sink, c)
	if done {
		s.written()
	}
	return err
}

// WriteHead writes a request, framing made from r.Length, and begins an
// exchange. With end there is no body.
func (c *Client) WriteHead(t *turn.Turn, r *message.Request, end bool) error {
	if c.write != writeNone || c.read != readIdle || !c.sound {
		return ErrOrder
	}
	if end && r.Length > 0 {
		return ErrLength
	}
	c.asked = asked{head: string(r.Method) == "HEAD", connect: string(r.Method) == "CONNECT", upgrade: len(r.Upgrade) > 0}
	if !c.validHead(r) {
		return ErrHead
	}
	length := r.Length
	if end {
		length = 0
	}
	b, lent := headBuffer(t, &r.Header, headRoom+len(r.Method)+len(r.Path)+2*len(r.Authority)+len(r.Upgrade))
	b = append(b, r.Method...)
	b = append(b, ' ')
	if c.asked.connect {
		b = append(b, r.Authority...)
	} else {
		b = append(b, r.Path...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Authority...)
	b = append(b, "\r\n"...)
	b = r.Header.AppendLines(b)
	c.out = bodyWriter{}
	if !c.asked.connect {
		b = c.out.start(b, length, length == 0 && meansNoBody(r.Method))
	}
	if r.ExpectContinue && length != 0 {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	switch {
	case c.asked.upgrade:
		b = appendUpgrade(b, r.Upgrade)
	case r.Close:
		c.sound = false
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "\r\n"...)
	c.sink.Write(t, b)
	if lent {
		buf.Put(b)
	}
	c.interim, c.started, c.write = 0, false, writeBody
	if end || c.asked.connect {
		c.write = writeDone
	}
	return nil
}

// validHead checks what a filter may have set by assignment. It is what keeps a
// computed path from ending the line.
func (c *Client) validHead(r *message.Request) bool {
	if r.AsParsed && len(r.Upgrade) == 0 { // a parser has checked the same; 1 % of a request
		return true
	}
	if !message.ValidMethod(r.Method) || !message.ValidValue(r.Upgrade) {
		return false
	}
	if c.asked.connect {
		return message.ValidAuthority(r.Authority)
	}
	return message.ValidPath(r.Path) && (len(r.Authority) == 0 || message.ValidAuthority(r.Authority))
}

// meansNoBody names the methods whose requests need not say that they have none
// (RFC 9110, section 8.6).
func meansNoBody(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// WriteChunk writes body bytes, as Server.WriteChunk does.
func (c *Client) WriteChunk(t *turn.Turn, k *message.Chunk) error {
	if c.write != writeBody {
		return ErrOrder
	}
	done, err := c.out.write(t, c.sink, k)
	if done {
		c.write = writeDone
	}
	return err
}

func appendUpgrade(b, upgrade []byte) []byte {
	b = append(b, "Connection: upgrade\r\nUpgrade: "...)
	b = append(b, upgrade...)
	return append(b, "\r\n"...)
}

// ordinary reports whether the response's status line is the one that nearly all
// have.
func ordinary(r *message.Response) bool {
	return r.Status == 200 && (len(r.Reason) == 0 || string(r.Reason) == "OK")
}

// appendStatus appends a status line. Its version is ours, whatever the
// client's (RFC 9110, section 6.2).
func appendStatus(b []byte, r *message.Response) []byte {
	if ordinary(r) {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	if len(r.Reason) > 0 {
		b = append(b, r.Reason...)
	} else {
		b = append(b, message.StatusText(r.Status)...)
	}
	return append(b, "\r\n"...)
}
