package http1

import (
	"bytes"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// framing is what the fields said that are not kept: how long the body is, what
// becomes of the connection, and where the request is bound for.
type framing struct {
	length  int64 // of Content-Length, or message.UnknownLength
	host    message.Span
	upgrade message.Span
	options int16 // seen in Connection fields
	hosts   uint8
	coded   coding

	sized      bool // there was a Content-Length
	close      bool // Connection: close
	keepAlive  bool // Connection: keep-alive
	upgrading  bool // Connection: upgrade
	named      bool // Connection named other fields: they go at the end of the head
	upgrades   bool // there was an Upgrade
	upgradeTwo bool // and another
	continues  bool // Expect: 100-continue
	expects    bool // Expect: something else
}

// coding is what Transfer-Encoding said.
type coding uint8

const (
	uncoded coding = iota
	chunked        // exactly "chunked", once
	foreign        // other codings, the last of them chunked
	broken         // anything else: where the body ends cannot be known
)

// special takes in a field that is not kept. In a trailer section it keeps what
// a trailer may have and drops the rest (RFC 9110, section 6.5.1).
func (r *headReader) special(b []byte, known message.Known, name, value message.Span) *ParseError {
	if r.kind == trailerSection {
		if known.InTrailer() {
			r.header.Push(name, value, known, false)
		}
		return nil
	}
	v, off := value.Of(b), int(name.Off)
	switch known {
	case message.ContentLength:
		n, ok := parseLength(v)
		if !ok {
			return r.fail(400, "invalid Content-Length", off)
		}
		if r.sized {
			return r.fail(400, "more than one Content-Length", off)
		}
		r.length, r.sized = n, true
	case message.TransferEncoding:
		r.coded = nextCoding(r.coded, v)
	case message.Connection:
		return r.connection(v, name, value)
	case message.Host:
		r.hosts = min(r.hosts+1, 2)
		r.host = value
	case message.Upgrade:
		r.upgrades, r.upgradeTwo = true, r.upgrades
		r.upgrade = value
	case message.Expect:
		if message.EqualFold(v, "100-continue") {
			r.continues = true
		} else {
			r.expects = true
		}
	}
	return nil
}

// parseLength reads a Content-Length. Leading zeros are refused, because there
// are readers who take them for octal.
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

func nextCoding(was coding, v []byte) coding {
	last := v
	if i := bytes.LastIndexByte(v, ','); i >= 0 {
		last = bytes.Trim(v[i+1:], " \t")
	}
	switch {
	case was != uncoded || !message.EqualFold(last, "chunked"):
		return broken
	case len(last) != len(v):
		return foreign
	}
	return chunked
}

// connection takes in one Connection field. The names in it that are no options
// of ours wait until the head is complete.
func (r *headReader) connection(v []byte, name, value message.Span) *ParseError {
	if string(v) == "keep-alive" { // what nearly every sender of one says
		r.keepAlive = true
		return nil
	}
	named := false
	for option, rest := nextOption(v); option != nil; option, rest = nextOption(rest) {
		if r.options++; int(r.options) > r.limits.Options {
			return r.fail(400, "too many connection options", int(name.Off))
		}
		switch {
		case len(option) == 0:
		case message.EqualFold(option, "close"):
			r.close = true
		case message.EqualFold(option, "keep-alive"):
			r.keepAlive = true
		case message.EqualFold(option, "upgrade"):
			r.upgrading = true
		case !message.Lookup(option).Hop():
			named = true
		}
	}
	if named {
		r.named = true
		r.header.Push(name, value, message.Connection, false)
	}
	return nil
}

// nextOption splits the first member, without the space around it, off a list.
// It is nil at the list's end; between two commas it is empty.
func nextOption(list []byte) (option, rest []byte) {
	if len(list) == 0 {
		return nil, nil
	}
	option = list
	if i := bytes.IndexByte(list, ','); i >= 0 {
		option, rest = list[:i], list[i+1:]
	}
	for len(option) > 0 && (option[0] == ' ' || option[0] == '\t') {
		option = option[1:]
	}
	for n := len(option); n > 0 && (option[n-1] == ' ' || option[n-1] == '\t'); n-- {
		option = option[:n-1]
	}
	return option, rest
}

// strike removes the fields that Connection named. Framing, Host and Expect are
// not among the fields any more, so they cannot be removed this way; credentials
// can, and then no policy sees them either.
func (r *headReader) strike() {
	for {
		v, ok := r.header.ValueOf(message.Connection)
		if !ok {
			return
		}
		for option, rest := nextOption(v); option != nil; option, rest = nextOption(rest) {
			if !message.Lookup(option).Hop() {
				r.header.DelBytes(option)
			}
		}
		r.header.DelFirst(message.Connection)
	}
}

// persistent is the rule of RFC 9112, section 9.3.
func (r *headReader) persistent() bool {
	return !r.close && (r.minor == 1 || r.keepAlive)
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
	rootPath    = []byte("/")
	starPath    = []byte("*")
)

// request makes the request of a complete head.
func (r *headReader) request(q *message.Request) *ParseError {
	if err := r.requestFraming(q); err != nil {
		return err
	}
	if r.named {
		r.strike()
	}
	b := r.header.Bytes()
	q.Method, q.Path, q.Scheme = r.method.Of(b), r.target.Of(b), schemeHTTP
	switch {
	case r.hosts > 1:
		return r.fail(400, "more than one Host", 0)
	case r.hosts == 0 && r.minor == 1:
		return r.fail(400, "no Host", 0)
	case r.hosts == 1:
		// An empty Host says that the target has no authority (RFC 9112, section
		// 3.2); it is what a Client makes of an HTTP/1.0 request without one.
		if q.Authority = r.host.Of(b); len(q.Authority) > 0 && !message.ValidAuthority(q.Authority) {
			return r.fail(400, "invalid Host", 0)
		}
	}
	if err := r.requestTarget(q); err != nil {
		return err
	}
	if r.upgrading && r.offersUpgrade(q, b) {
		q.Upgrade = r.upgrade.Of(b)
	}
	return nil
}

// offersUpgrade reports whether the request's Upgrade is taken up. RFC 9110,
// section 7.8, lets a server ignore it, and this one does where readers could
// disagree about whose the next bytes are: with a body, with several offers, in
// HTTP/1.0, and for h2c, which would carry requests past every filter.
func (r *headReader) offersUpgrade(q *message.Request, b []byte) bool {
	offer := r.upgrade.Of(b)
	return r.upgrades && !r.upgradeTwo && r.minor == 1 && q.Length == message.NoBody && !r.sized &&
		len(offer) > 0 && bytes.IndexByte(offer, ',') < 0 && !message.EqualFold(offer, "h2c")
}

func (r *headReader) requestFraming(q *message.Request) *ParseError {
	q.Length = message.NoBody
	if r.minor == 0 {
		q.Proto = message.HTTP10
	}
	switch {
	case r.coded == uncoded:
		q.Length = max(r.length, message.NoBody)
	case r.minor == 0:
		return r.fail(400, "Transfer-Encoding in HTTP/1.0", 0)
	case r.sized:
		return r.fail(400, "both Content-Length and Transfer-Encoding", 0)
	case r.coded == foreign:
		return r.fail(501, "transfer coding not supported", 0)
	case r.coded == broken:
		return r.fail(400, "Transfer-Encoding is not chunked", 0)
	default:
		q.Length = message.UnknownLength
	}
	if r.minor == 1 && r.expects {
		return r.fail(417, "unknown expectation", 0)
	}
	q.ExpectContinue = r.minor == 1 && r.continues && q.Length != message.NoBody
	return nil
}

// requestTarget gives the four forms of RFC 9112, section 3.2, their meaning.
func (r *headReader) requestTarget(q *message.Request) *ParseError {
	off := int(r.target.Off)
	target := q.Path
	connect := string(q.Method) == "CONNECT"
	switch {
	case connect:
		if !message.ValidAuthority(target) || bytes.IndexByte(target[bytes.LastIndexByte(target, ']')+1:], ':') < 0 {
			return r.fail(400, "CONNECT wants host:port", off)
		}
		if q.Length != message.NoBody || r.sized {
			return r.fail(400, "CONNECT with a body", 0)
		}
		q.Authority, q.Path = target, nil
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*':
		if string(q.Method) != "OPTIONS" {
			return r.fail(400, "target * wants OPTIONS", off)
		}
	default:
		return r.absolute(q, target)
	}
	return nil
}

// absolute reads scheme://authority/path?query. Its authority wins over Host
// (RFC 9112, section 3.2.2).
func (r *headReader) absolute(q *message.Request, target []byte) *ParseError {
	off := int(r.target.Off)
	i := bytes.Index(target, []byte("://"))
	switch {
	case i < 0:
		return r.fail(400, "invalid request target", off)
	case message.EqualFold(target[:i], "http"):
	case message.EqualFold(target[:i], "https"):
		q.Scheme = schemeHTTPS
	default:
		return r.fail(400, "scheme is neither http nor https", off)
	}
	authority, path := target[i+3:], []byte(nil)
	if i = bytes.IndexAny(authority, "/?"); i >= 0 {
		authority, path = authority[:i], authority[i:]
	}
	if !message.ValidAuthority(authority) {
		return r.fail(400, "invalid authority in the target", off)
	}
	q.Authority = authority
	switch {
	case len(path) == 0 && string(q.Method) == "OPTIONS":
		q.Path = starPath
	case len(path) == 0:
		q.Path = rootPath
	case path[0] == '?':
		at := message.Span{Off: uint32(r.header.Size()), Len: uint32(len(path) + 1)}
		r.header.Write(rootPath)
		r.header.Write(path)
		q.Path = at.Of(r.header.Bytes())
	default:
		q.Path = path
	}
	return nil
}

// asked is what a client remembers of the request it wrote, because it decides
// what the response's bytes mean.
type asked struct{ head, connect, upgrade bool }

// response makes the response of a complete head. body says how its body ends;
// sound that nothing in the head speaks against using the connection again.
func (r *headReader) response(q *message.Response, a asked) (body bodyMode, sound bool, err *ParseError) {
	if r.named {
		r.strike()
	}
	b := r.header.Bytes()
	q.Status, q.Reason = int(r.status), r.target.Of(b)
	if r.minor == 0 {
		q.Proto = message.HTTP10
	}
	switch {
	case r.coded != uncoded && r.minor == 0:
		return 0, false, r.fail(502, "Transfer-Encoding in HTTP/1.0", 0)
	case r.coded != uncoded && r.sized:
		return 0, false, r.fail(502, "both Content-Length and Transfer-Encoding", 0)
	case r.coded > chunked:
		return 0, false, r.fail(502, "transfer coding not supported", 0)
	}
	q.Length = r.length
	framed := r.coded != uncoded || r.length > 0
	switch {
	case q.Status == 101:
		if !a.upgrade || !r.upgrades || r.upgradeTwo || framed || r.minor == 0 {
			return 0, false, r.fail(502, "protocol switched unasked", 0)
		}
		q.Length, q.Upgrade = message.NoBody, r.upgrade.Of(b)
		return noBody, false, nil
	case q.Status < 200 && framed:
		return 0, false, r.fail(502, "informational response with a body", 0)
	case a.connect && q.Status < 300:
		q.Length = message.NoBody // framing fields have no meaning here (RFC 9110, section 9.3.6)
		return noBody, false, nil
	case q.Bodiless():
		q.Length = message.NoBody
		// A 204 that announces a body may well send one.
		return noBody, !(framed && q.Status == 204), nil
	case a.head:
		return noBody, true, nil
	case r.coded == chunked:
		return chunkedBody, true, nil
	case r.length > 0:
		return sizedBody, true, nil
	case r.length == 0:
		return noBody, true, nil
	}
	return closeBody, false, nil
}
