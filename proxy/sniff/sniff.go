package sniff

// Limit is how many bytes may leave it open what is spoken.
const Limit = 8 << 10

// A Protocol is what a connection speaks.
type Protocol uint8

// The protocols.
const (
	Unknown Protocol = iota // more bytes are needed
	HTTP1
	HTTP2
	TLS
	Opaque // none of them
)

func (p Protocol) String() string {
	return [...]string{"unknown", "http/1", "http/2", "tls", "tcp"}[p]
}

// A Reason is what settled it.
type Reason uint8

// The reasons.
const (
	Unsettled   Reason = iota
	Declared           // the service's port says so
	Preface            // the client sent the HTTP/2 preface
	RequestLine        // the client sent METHOD SP target SP HTTP/1.
	ClientHello        // the client sent the beginning of a ClientHello
	NotHTTP            // the client sent what neither of them can be
	ServerFirst        // the server spoke, and the client had not
	ClientEnd          // the client ended before it was settled
	TimeUp             // it could have been either for too long
	LimitHit           // it could have been either after Limit bytes

	// Reasons is how many there are.
	Reasons
)

func (r Reason) String() string {
	return [Reasons]string{
		"unsettled", "declared", "preface", "request line", "client hello", "not http",
		"server spoke first", "client ended", "timeout", "limit",
	}[r]
}

// A Verdict is what is spoken, and what settled it.
type Verdict struct {
	Protocol Protocol
	Reason   Reason
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// version is what follows the target of an HTTP/1 request.
const version = "HTTP/1."

// A lineState is where a Detector stands in what may be a request line.
type lineState uint8

const (
	lineStart   lineState = iota
	lineBlank             // behind the CR of the one empty line that is forgiven (RFC 9112, section 2.2)
	lineMethod            // in the method, which has a byte at least
	lineTarget            // behind the space
	linePath              // in the target, which has a byte at least
	lineVersion           // in HTTP/1.
	lineNone              // it is no request line
)

// A Detector settles what is spoken. Its zero value is ready.
type Detector struct {
	n       int // bytes so far
	line    lineState
	blank   bool // the empty line has been
	version uint8
	preface uint8 // bytes of it that have been; noMatch: it is not the preface
	hello   uint8 // the same for what a ClientHello begins with
	high    uint8 // the high byte of the record's length
}

const noMatch = 0xFF

// Feed takes the next bytes, and says what is spoken as soon as that is settled;
// what follows does not count.
func (d *Detector) Feed(p []byte) Verdict {
	for _, c := range p {
		d.n++
		if d.preface != noMatch && d.feedPreface(c) {
			return Verdict{HTTP2, Preface}
		}
		if d.hello != noMatch && d.feedHello(c) {
			return Verdict{TLS, ClientHello}
		}
		if d.line != lineNone && d.feedLine(c) {
			return Verdict{HTTP1, RequestLine}
		}
		if d.line == lineNone && d.preface == noMatch && d.hello == noMatch {
			return Verdict{Opaque, NotHTTP}
		}
		if d.n >= Limit {
			return Verdict{Opaque, LimitHit}
		}
	}
	return Verdict{}
}

// Started reports whether a byte has been fed.
func (d *Detector) Started() bool { return d.n > 0 }

func (d *Detector) feedPreface(c byte) bool {
	if c != preface[d.preface] {
		d.preface = noMatch
		return false
	}
	d.preface++
	return int(d.preface) == len(preface)
}

// feedHello knows a ClientHello by its record's head, of a sane length, and the
// first byte of its message (RFC 8446, sections 4 and 5.1).
func (d *Detector) feedHello(c byte) bool {
	ok := false
	switch d.hello {
	case 0:
		ok = c == recordHandshake
	case 1:
		ok = c == 3
	case 2:
		ok = c <= 4
	case 3:
		ok = c <= maxRecord>>8
		d.high = c
	case 4:
		n := int(d.high)<<8 | int(c)
		ok = n > 0 && n <= maxRecord
	case 5:
		if c == messageClientHello {
			return true
		}
	}
	d.hello++
	if !ok {
		d.hello = noMatch
	}
	return false
}

func (d *Detector) feedLine(c byte) bool {
	switch d.line {
	case lineStart:
		switch {
		case token[c]:
			d.line = lineMethod
		case c == '\r' && !d.blank:
			d.line = lineBlank
		default:
			d.line = lineNone
		}
	case lineBlank:
		d.blank, d.line = true, lineStart
		if c != '\n' {
			d.line = lineNone
		}
	case lineMethod:
		switch {
		case token[c]:
		case c == ' ':
			d.line = lineTarget
		default:
			d.line = lineNone
		}
	case lineTarget, linePath:
		switch {
		case c == ' ' && d.line == linePath:
			d.line = lineVersion
		case c <= ' ' || c == 0x7F:
			d.line = lineNone
		default:
			d.line = linePath
		}
	case lineVersion:
		if c != version[d.version] {
			d.line = lineNone
			return false
		}
		d.version++
		return int(d.version) == len(version)
	}
	return false
}

// token says which bytes a method may have (RFC 9110, section 5.6.2). It is
// never written.
var token = func() (t [256]bool) {
	for c := range t {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
