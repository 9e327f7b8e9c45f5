package http2

import (
	"bytes"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// An Error says why a head of good form is no message all the same.
type Error struct {
	Status int    // what to answer the sender of a request; 502 in a response
	Reason string // for people: what is wrong, never what was sent
}

func (e *Error) Error() string { return e.Reason }

// A fields is what a head is copied to, and what it said that is no field of a
// message.
type fields struct {
	header *message.Header
	err    *Error

	method, scheme, authority, path, protocol, host message.Span

	length  int64 // of content-length, or message.UnknownLength
	trailer bool  // trailers are announced
	hosts   int
	cookies bool // the cookies are there already
	expect  bool // expect: 100-continue
	te      bool // te: trailers
	status  int
}

func (f *fields) fail(status int, reason string) {
	if f.err == nil {
		f.err = &Error{status, reason}
	}
}

// keep copies a value that is no field.
func (f *fields) keep(v []byte) message.Span {
	at := message.Span{Off: uint32(f.header.Size()), Len: uint32(len(v))}
	f.header.Write(v)
	return at
}

// take copies a head.
func (f *fields) take(all []h2.Field) {
	f.length = message.UnknownLength
	for i := range all {
		one := &all[i]
		if one.Name[0] == ':' {
			f.pseudo(one)
			continue
		}
		switch known := message.Lookup(one.Name); {
		case known.Hop():
			f.special(known, one.Value)
		case known == message.Cookie:
			f.cookie(all[i:])
		default:
			f.header.Line(known, one.Name, one.Value)
		}
	}
}

func (f *fields) pseudo(one *h2.Field) {
	switch string(one.Name) {
	case ":method":
		f.method = f.keep(one.Value)
	case ":scheme":
		f.scheme = f.keep(one.Value)
	case ":authority":
		f.authority = f.keep(one.Value)
	case ":path":
		f.path = f.keep(one.Value)
	case ":protocol":
		f.protocol = f.keep(one.Value)
	case ":status":
		for _, c := range one.Value {
			f.status = f.status*10 + int(c-'0')
		}
	}
}

// special takes in a field that is not kept. The rest of those that speak of one
// connection are forbidden, or mean nothing here (RFC 9113, section 8.2.2).
func (f *fields) special(known message.Known, v []byte) {
	switch known {
	case message.ContentLength:
		n, ok := parseLength(v)
		if !ok {
			f.fail(400, "invalid content-length")
		}
		f.length = n
	case message.Host:
		f.host = f.keep(v)
		f.hosts++
	case message.Expect:
		if !message.EqualFold(v, "100-continue") {
			f.fail(417, "unknown expectation")
		}
		f.expect = true
	case message.TE:
		f.te = true // internal/h2 lets nothing but "trailers" pass
	case message.Trailer:
		f.trailer = true
	}
}

// told is the length that the message tells. HTTP/1 has no trailers behind a body
// whose length is told, so where they are announced it is not: internal/h2 still
// holds the sender to it.
func (f *fields) told() int64 {
	if f.trailer {
		return message.UnknownLength
	}
	return f.length
}

// parseLength reads a content-length as HTTP/1 parsers do that agree with each
// other: digits, without leading zeros.
func parseLength(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 || v[0] == '0' && len(v) > 1 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// cookie joins the crumbs of a cookie (RFC 9113, section 8.2.3), of which rest
// begins with the first.
func (f *fields) cookie(rest []h2.Field) {
	if f.cookies {
		return
	}
	f.cookies = true
	h := f.header
	name := message.Cookie.Bytes()
	off := uint32(h.Size())
	h.Write(name)
	h.Write([]byte(": "))
	at := uint32(h.Size())
	for i := range rest {
		if string(rest[i].Name) != "cookie" {
			continue
		}
		if i > 0 {
			h.Write([]byte("; "))
		}
		h.Write(rest[i].Value)
	}
	value := message.Span{Off: at, Len: uint32(h.Size()) - at}
	h.Write([]byte("\r\n"))
	h.Push(message.Span{Off: off, Len: uint32(len(name))}, value, message.Cookie, true)
}

// ReadHead reads a request's head into q, which is empty. After an error the
// request may be answered, and no more.
func (s *Server) ReadHead(q *message.Request, all []h2.Field, end bool) *Error {
	f := fields{header: &q.Header}
	f.take(all)
	b := q.Header.Bytes()
	q.Proto = message.HTTP2
	q.Method, q.Path, q.Authority = f.method.Of(b), f.path.Of(b), f.authority.Of(b)
	q.TE = f.te
	s.isHead = string(q.Method) == "HEAD"
	switch {
	case end:
		q.Length = message.NoBody
	default:
		q.Length = f.told()
		q.ExpectContinue, s.waits = f.expect, f.expect
	}
	if f.err == nil {
		f.target(q, b)
	}
	if f.err == nil && f.protocol.Len > 0 {
		f.upgrade(q, b, end)
		s.upgrade = true
	}
	return f.err
}

// target judges what a request is for. The Host field must say what the target
// says: readers who look at different ones of the two would see different
// requests (RFC 9113, section 8.3.1).
func (f *fields) target(q *message.Request, b []byte) {
	if !message.ValidMethod(q.Method) {
		f.fail(400, "standard method in the wrong letter case")
	}
	host := f.host.Of(b)
	switch {
	case f.hosts > 1:
		f.fail(400, "more than one host")
	case len(q.Authority) == 0 && f.hosts == 1:
		q.Authority = host
	case f.hosts == 1 && !bytes.EqualFold(host, q.Authority):
		f.fail(400, "host differs from :authority")
	}
	if !message.ValidAuthority(q.Authority) {
		f.fail(400, "invalid :authority")
	}
	if string(q.Method) == "CONNECT" && f.protocol.Len == 0 {
		return
	}
	switch scheme := f.scheme.Of(b); string(scheme) {
	case "http", "https":
		q.Scheme = scheme
	default:
		f.fail(400, "scheme is neither http nor https")
	}
	if !message.ValidPath(q.Path) {
		f.fail(400, "invalid :path")
	}
}

var methodGet = []byte("GET")

// upgrade makes of an extended CONNECT (RFC 8441) the offer that it is: a GET
// with an Upgrade, whose bytes begin behind the answer.
func (f *fields) upgrade(q *message.Request, b []byte, end bool) {
	q.Method, q.Upgrade, q.Length, q.ExpectContinue = methodGet, f.protocol.Of(b), message.NoBody, false
	if end || f.length >= 0 || !message.ValidToken(q.Upgrade) {
		f.fail(400, "malformed extended CONNECT")
	}
}

// ReadTrailer reads trailers into h. What may not stand there is dropped (RFC
// 9110, section 6.5.1).
func ReadTrailer(h *message.Header, all []h2.Field) {
	for i := range all {
		if known := message.Lookup(all[i].Name); known.InTrailer() {
			h.Line(known, all[i].Name, all[i].Value)
		}
	}
}

// ReadHead reads a response's head into r, which is empty: an informational one
// or the final one. body says that content may follow.
func (c *Client) ReadHead(r *message.Response, all []h2.Field, end bool) (body bool, err *Error) {
	f := fields{header: &r.Header}
	f.take(all)
	r.Status, r.Proto = f.status, message.HTTP2
	if f.err != nil {
		f.err.Status = 502
		return false, f.err
	}
	switch {
	case r.Status < 200, r.Bodiless(), c.upgrade && r.Status < 300:
		r.Length = message.NoBody
	case c.isHead:
		r.Length = f.length
	case end:
		r.Length = message.NoBody
		body = false
	default:
		r.Length, body = f.told(), true
	}
	if c.upgrade && r.Status >= 200 && r.Status < 300 { // the answer to an extended CONNECT
		r.Status, r.Upgrade = 101, c.protocol
	}
	return body, nil
}
