package h2

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// tableSize is the HPACK dynamic table at either end. Ours is what the
// protocol begins with; the encoder never uses more, whatever the peer allows.
const tableSize = 4096

// keepFields is how many decoded fields' room a connection keeps between heads.
const keepFields = 24

// A pseudo is a set of pseudo-header fields.
type pseudo uint8

const (
	pseudoMethod    = pseudo(1) << kindMethod
	pseudoScheme    = pseudo(1) << kindScheme
	pseudoAuthority = pseudo(1) << kindAuthority
	pseudoPath      = pseudo(1) << kindPath
	pseudoProtocol  = pseudo(1) << kindProtocol
	pseudoStatus    = pseudo(1) << kindStatus
)

// A kind is what a field means to a head. Like a field's form it is found out once
// for an entry of the table: BenchmarkCall 1140 → 1010 ns.
type kind uint8

const (
	kindMethod kind = iota
	kindScheme
	kindAuthority
	kindPath
	kindProtocol
	kindStatus
	kindRegular // and of no further interest here
	kindLength
)

// head is one head while it is decoded and judged. We use http2.Framer's checks
// nowhere, and therefore owe those of RFC 9113, sections 8.2 and 8.3.
type head struct {
	dec       decoder
	fields    []Field
	maxSize   uint32
	maxFields int

	// What the fields said.
	seen      pseudo
	status    int
	length    int64  // content-length, or -1
	bad       string // the first objection to the head's form
	tooLarge  bool
	regular   bool // a regular field was seen: no pseudo-header field may follow
	connect   bool // :method is CONNECT
	web       bool // :scheme is http or https
	path      bool // :path begins with "/"…
	star      bool // …or is "*"
	forServer bool // :method is OPTIONS, of which that may be the path
}

func (h *head) init(o *Options) {
	h.maxSize, h.maxFields = o.MaxHeaderList, o.Limits.HeaderFields
	h.dec.max = tableSize
}

// decode decodes a complete block. Its error is the connection's: the
// compression state is lost. Whatever else is wrong stands in h. The fields are
// good until release.
func (h *head) decode(block []byte) error {
	h.fields = h.fields[:0]
	h.seen, h.status, h.length, h.bad = 0, 0, -1, ""
	h.tooLarge, h.regular, h.connect, h.web, h.path, h.star, h.forServer = false, false, false, false, false, false, false
	d := &h.dec
	if err := d.decode(block, h.maxFields, h.maxSize); err != nil {
		return &ConnError{Code: CodeCompression, Reason: "head cannot be decoded: " + err.Error()}
	}
	h.tooLarge = d.quiet
	for i := range d.spans {
		s := &d.spans[i]
		h.fields = append(h.fields, Field{})
		f := &h.fields[i]
		f.Name, f.Value, f.Sensitive = d.name(s), d.value(s), s.sensitive
		if h.bad == "" {
			if h.bad = s.bad; h.bad == "" {
				h.bad = h.check(s.kind, f.Value)
			}
		}
	}
	return nil
}

// release gives the fields' memory back, so that an idle connection holds none.
func (h *head) release() {
	h.dec.release()
	clear(h.fields)
	if cap(h.fields) > keepFields {
		h.fields = nil
	}
}

// judge judges a field by itself (RFC 9113, section 8.2): what it is, and the
// objection to it.
func judge(name, value []byte) (k kind, bad string) {
	switch {
	case !validValue(value):
		return kindRegular, "field with a forbidden value"
	case len(name) > 0 && name[0] == ':':
		return judgePseudo(name, value)
	case !validName(name):
		return kindRegular, "field with a forbidden name"
	}
	switch string(name) {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return kindRegular, "connection-specific field"
	case "te":
		if !strings.EqualFold(string(value), "trailers") {
			return kindRegular, "te other than trailers"
		}
	case "content-length":
		return kindLength, ""
	}
	return kindRegular, ""
}

func judgePseudo(name, value []byte) (k kind, bad string) {
	switch string(name) {
	case ":method":
		if k = kindMethod; !validToken(value) {
			return k, ":method is not a token"
		}
	case ":scheme":
		k = kindScheme
	case ":authority":
		if k = kindAuthority; bytes.IndexByte(value, '@') >= 0 {
			return k, ":authority with user information"
		}
	case ":path":
		k = kindPath
	case ":protocol":
		k = kindProtocol
	case ":status":
		if k = kindStatus; statusOf(value) < 100 {
			return k, ":status is not a status"
		}
	default:
		return kindRegular, "unknown pseudo-header field"
	}
	// An empty :path is told apart in request; none of the others may be empty,
	// and a space in one would let a request be split when it leaves as HTTP/1.1.
	if len(value) == 0 && k != kindPath || bytes.ContainsAny(value, " \t") {
		return k, "pseudo-header field with a forbidden value"
	}
	return k, ""
}

// statusOf reads a status; it is less than 100 if it is none.
func statusOf(value []byte) int {
	if len(value) != 3 {
		return 0
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// check judges one field in its head, and remembers what matters later. It
// returns the objection.
func (h *head) check(k kind, value []byte) string {
	switch {
	case k == kindRegular:
		h.regular = true
		return ""
	case k == kindLength:
		return h.checkLength(value)
	case h.regular:
		return "pseudo-header field after a regular one"
	case h.seen&(1<<k) != 0:
		return "pseudo-header field twice"
	}
	h.seen |= 1 << k
	switch k {
	case kindMethod:
		h.connect, h.forServer = string(value) == "CONNECT", string(value) == "OPTIONS"
	case kindScheme:
		h.web = string(value) == "http" || string(value) == "https"
	case kindPath:
		h.path, h.star = len(value) > 0 && value[0] == '/', string(value) == "*"
	case kindStatus:
		h.status = statusOf(value)
	}
	return ""
}

func (h *head) checkLength(value []byte) string {
	h.regular = true
	if h.length >= 0 {
		return "content-length twice"
	}
	n, err := strconv.ParseUint(string(value), 10, 63)
	if err != nil || value[0] == '+' {
		return "content-length is not a length"
	}
	h.length = int64(n)
	return ""
}

// request judges the head as a request (RFC 9113, sections 8.3.1 and 8.5; RFC
// 8441, section 4).
func (h *head) request(connectProtocol bool) string {
	const get = pseudoMethod | pseudoScheme | pseudoPath
	switch {
	case h.bad != "":
		return h.bad
	case h.seen&pseudoStatus != 0:
		return "request with :status"
	case h.seen&pseudoProtocol != 0 && (!connectProtocol || !h.connect):
		return ":protocol where it is not allowed"
	case h.connect && h.seen&pseudoProtocol == 0:
		if h.seen != pseudoMethod|pseudoAuthority {
			return "CONNECT wants :method and :authority, no more"
		}
		return ""
	case h.seen&get != get:
		return "request lacks a pseudo-header field"
	case h.web && !h.path && !(h.star && h.forServer):
		return ":path does not begin with /"
	}
	return ""
}

// response judges the head as a response (section 8.3.2).
func (h *head) response(end bool) string {
	switch {
	case h.bad != "":
		return h.bad
	case h.seen != pseudoStatus:
		return "response wants :status and no other pseudo-header field"
	case h.status == 101:
		return "status 101, which HTTP/2 does not have"
	case h.status < 200 && end:
		return "informational response that ends the stream"
	}
	return ""
}

// trailers judges the head as trailers (section 8.1).
func (h *head) trailers(end bool) string {
	switch {
	case h.bad != "":
		return h.bad
	case h.seen != 0:
		return "trailers with a pseudo-header field"
	case !end:
		return "second head that does not end the stream"
	}
	return ""
}

// nameChars are the octets a field name may have: tokens (RFC 9110, section
// 5.6.2) without upper case.
var nameChars, tokenChars = charTables()

func charTables() (name, token [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		name[c], token[c] = true, true
	}
	for c := 'A'; c <= 'Z'; c++ {
		token[c] = true
	}
	return name, token
}

func validName(b []byte) bool { return len(b) > 0 && all(b, &nameChars) }

func validToken(b []byte) bool { return len(b) > 0 && all(b, &tokenChars) }

func all(b []byte, of *[256]bool) bool {
	for _, c := range b {
		if !of[c] {
			return false
		}
	}
	return true
}

// validValue refuses control characters, and white space at either end
// (section 8.2.1).
func validValue(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if blank(b[0]) || blank(b[len(b)-1]) {
		return false
	}
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// Status returns a response head's status, 0 if it has none.
func Status(fields []Field) int {
	for i := range fields {
		if string(fields[i].Name) == ":status" {
			return statusOf(fields[i].Value)
		}
	}
	return 0
}

// handleHeaders takes HEADERS: the first fragment of a head, mostly all of it.
func (c *Conn) handleHeaders(t *turn.Turn, f frame, p []byte) error {
	pad := 0
	if f.has(flagPadded) {
		if len(p) < 1 {
			return &ConnError{Code: CodeFrameSize, Reason: "padded HEADERS without pad length"}
		}
		pad, p = int(p[0]), p[1:]
	}
	self := false
	if f.has(flagPriority) {
		if len(p) < 5 {
			return &ConnError{Code: CodeFrameSize, Reason: "HEADERS too short for its priority"}
		}
		self, p = dependsOnItself(f.id, p), p[5:]
	}
	if pad > len(p) {
		return &ConnError{Code: CodeProtocol, Reason: "HEADERS with more padding than payload"}
	}
	p = p[:len(p)-pad]
	r := &c.in
	r.blockEnd = f.has(flagEndStream)
	r.fragments = 0
	r.selfDependent = self
	if f.has(flagEndHeaders) {
		return c.finishHead(t, f.id, p)
	}
	r.blockID = f.id
	r.block = append(buf.Get(max(2*len(p), 1<<10)), p...)
	return nil
}

func (c *Conn) handleContinuation(t *turn.Turn, f frame, p []byte) error {
	r := &c.in
	if r.blockID == 0 {
		return &ConnError{Code: CodeProtocol, Reason: "CONTINUATION that continues nothing"}
	}
	r.fragments++
	switch {
	case r.fragments > c.o.Limits.Continuations:
		return c.beyond(LimitContinuations)
	case len(r.block)+len(p) > c.o.Limits.HeaderBlock:
		return c.beyond(LimitHeaderBlock)
	}
	r.block = grow(r.block, len(p))
	r.block = append(r.block, p...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	err := c.finishHead(t, f.id, r.block)
	buf.Put(r.block)
	r.block, r.blockID = nil, 0
	return err
}

// finishHead decodes a complete block, whosoever it is for (the compression
// state is the connection's), and takes it to its stream.
func (c *Conn) finishHead(t *turn.Turn, id uint32, block []byte) error {
	h := &c.in.head
	err := h.decode(block)
	if err == nil {
		err = c.takeHead(t, id, c.in.blockEnd)
	}
	h.release()
	return err
}

// appendHead appends a head. c.mu is held.
func (c *Conn) appendHead(id uint32, fields []Field, end bool) {
	at := len(c.out)
	flags := byte(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	c.appendFrame(frameHeaders, flags, id, 0)
	if !c.enc.told {
		c.growOut(2 * fieldRoom)
		c.out = c.enc.appendLimit(c.out)
	}
	for i := range fields { // encoded where they are needed, in the out buffer
		f := &fields[i]
		c.growOut(len(f.Name) + len(f.Value) + fieldRoom)
		c.out = c.enc.appendField(c.out, f)
	}
	n := len(c.out) - at - headerLen
	if n <= c.peer.frame {
		putLength(c.out[at:], n)
		return
	}
	block := append(buf.Get(n), c.out[at+headerLen:]...)
	c.out = c.out[:at]
	typ, first, rest := byte(frameHeaders), flags&^flagEndHeaders, block
	for len(rest) > 0 {
		k := min(len(rest), c.peer.frame)
		if k == len(rest) {
			first |= flagEndHeaders
		}
		c.appendFrame(typ, first, id, k)
		c.growOut(k)
		c.out = append(c.out, rest[:k]...)
		typ, first, rest = frameContinuation, 0, rest[k:]
	}
	buf.Put(block)
}
