package sniff

const (
	recordHandshake    = 22
	messageClientHello = 1
	maxRecord          = 16 << 10 // of plaintext (RFC 8446, section 5.1)

	extensionServerName = 0
	nameHost            = 0
	maxName             = 255

	// HelloLimit is the longest ClientHello that is read for its name, records'
	// heads included. What clients send is a tenth of it.
	HelloLimit = 16 << 10
)

// A HelloState says how far a Hello has got.
type HelloState uint8

const (
	HelloMore HelloState = iota // more bytes are needed
	HelloDone                   // the name is known, or that there is none
	HelloBad                    // it is no ClientHello, or not one that can be read
)

// A field is a part of a ClientHello, in order (RFC 8446, section 4.1.2).
type field uint8

const (
	inMessage    field = iota // type and length
	inVersion                 // and random
	inSession                 // the length of the session's ID
	inCiphers                 // the length of the cipher suites
	inMethods                 // the length of the compression methods
	inExtensions              // the length of the extensions
	inExtension               // type and length of one
	inNames                   // the length of the list of names
	inName                    // type and length of one
	inNameBytes               // the host's name
	inSkip                    // what nobody asks for; then comes next
)

// widths is how many bytes of each field make one number. It is never written.
var widths = [...]int{inMessage: 4, inVersion: 34, inSession: 1, inCiphers: 2, inMethods: 1, inExtensions: 2, inExtension: 4, inNames: 2, inName: 3}

// A Hello reads the name that a TLS client asks for (RFC 6066, section 3) out of
// its ClientHello, which it may send in several records. Its zero value is ready.
type Hello struct {
	state HelloState
	n     int // bytes so far

	// The record layer.
	head   uint8  // bytes of the record's head that have been
	record uint16 // bytes of the record still to come
	length uint16 // of the record whose head is being read

	// The message.
	at     field
	next   field  // behind inSkip
	got    uint8  // bytes of the present number
	number uint32 // its value so far
	part   int    // bytes still to skip, or of the name
	depth  uint8
	left   [3]int // bytes still to come, of the lengths that have begun
	name   []byte
}

// Lengths nest: the message's, all extensions', one extension's. Each counts what
// is still to come of it, from the moment it is known.
const (
	wholeMessage = iota
	allExtensions
	oneExtension
)

// Name returns the host that the client asks for, as it was sent; empty if for
// none.
func (h *Hello) Name() []byte {
	if h.state != HelloDone {
		return nil
	}
	return h.name
}

// Feed takes the next bytes. What follows the name does not count.
func (h *Hello) Feed(p []byte) HelloState {
	for len(p) > 0 && h.state == HelloMore {
		k := 1
		switch {
		case h.n >= HelloLimit:
			h.state = HelloBad
		case h.record == 0:
			h.feedHead(p[0])
		default:
			k = h.feedMessage(p[:min(len(p), int(h.record), HelloLimit-h.n)])
			h.record -= uint16(k)
		}
		h.n += k
		p = p[k:]
	}
	return h.state
}

// feedHead takes a byte of a record's head.
func (h *Hello) feedHead(c byte) {
	switch h.head {
	case 0:
		h.expect(c == recordHandshake)
	case 1:
		h.expect(c == 3)
	case 3:
		h.length = uint16(c) << 8
	case 4:
		h.record = h.length | uint16(c)
		h.expect(h.record > 0 && h.record <= maxRecord)
	}
	h.head = (h.head + 1) % 5
}

func (h *Hello) expect(ok bool) {
	if !ok {
		h.state = HelloBad
	}
}

// feedMessage takes bytes of the message, and returns how many.
func (h *Hello) feedMessage(p []byte) (k int) {
	switch h.at {
	case inSkip, inNameBytes:
		if k = min(len(p), h.part); h.at == inNameBytes {
			h.name = append(h.name, p[:k]...)
		}
		h.part -= k
	default:
		k = 1
		h.number = h.number<<8 | uint32(p[0])
		h.got++
	}
	for level := range h.left[:h.depth] {
		if h.left[level] -= k; h.left[level] < 0 {
			h.state = HelloBad
			return k
		}
	}
	switch {
	case h.at == inSkip || h.at == inNameBytes:
		if h.part == 0 {
			h.passed()
		}
	case int(h.got) == widths[h.at]:
		n := int(h.number)
		h.number, h.got = 0, 0
		h.take(n)
	}
	return k
}

// take takes a number that is complete.
func (h *Hello) take(n int) {
	switch h.at {
	case inMessage:
		h.expect(n>>24 == messageClientHello)
		h.enter(wholeMessage, n&0xFFFFFF)
		h.at = inVersion
	case inVersion:
		h.at = inSession
	case inSession:
		h.expect(n <= 32)
		h.pass(n, inCiphers)
	case inCiphers:
		h.pass(n, inMethods)
	case inMethods:
		h.pass(n, inExtensions)
	case inExtensions:
		h.expect(n == h.left[wholeMessage])
		h.enter(allExtensions, n)
		h.nextExtension()
	case inExtension:
		h.enter(oneExtension, n&0xFFFF)
		if n>>16 == extensionServerName {
			h.at = inNames
		} else {
			h.pass(n&0xFFFF, inExtension)
		}
	case inNames:
		h.expect(n > 0 && n == h.left[oneExtension])
		h.at = inName
	case inName:
		n, kind := n&0xFFFF, n>>16
		if kind != nameHost {
			h.pass(n, inName)
			return
		}
		h.expect(n > 0 && n <= maxName && n <= h.left[oneExtension])
		h.at, h.part = inNameBytes, n
	}
}

// enter begins a length within the one before.
func (h *Hello) enter(level, n int) {
	h.left[level] = n
	h.depth = uint8(level) + 1
	if level > wholeMessage {
		h.expect(n <= h.left[level-1])
	}
}

// pass skips n bytes, and goes on at next.
func (h *Hello) pass(n int, next field) {
	h.expect(n <= h.left[h.depth-1])
	h.at, h.part, h.next = inSkip, n, next
	if n == 0 {
		h.passed()
	}
}

// passed goes on behind what was skipped, or behind the name: there is one of a
// kind, so nothing more is asked.
func (h *Hello) passed() {
	switch {
	case h.at == inNameBytes:
		h.state = HelloDone
		h.expect(validName(h.name))
	case h.next == inExtension:
		h.nextExtension()
	case h.next == inExtensions && h.left[wholeMessage] == 0: // clients before TLS 1.2 have none
		h.state = HelloDone
	case h.next == inName && h.left[oneExtension] == 0: // names of other kinds only
		h.nextExtension()
	default:
		h.at = h.next
	}
}

// nextExtension goes on at the next extension, or ends behind the last.
func (h *Hello) nextExtension() {
	h.depth, h.at = allExtensions+1, inExtension
	if h.left[allExtensions] == 0 && h.state == HelloMore {
		h.state = HelloDone
	}
}

// validName reports whether a name may be looked up, logged and compared:
// letters, digits, hyphen, underscore, and dots, of which none is the last (RFC
// 6066, section 3).
func validName(name []byte) bool {
	for _, c := range name {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return name[len(name)-1] != '.'
}
