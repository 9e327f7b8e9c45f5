package http1

import (
	"bytes"
	"sync"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// section is what a headReader is reading.
type section uint8

const (
	requestHead section = iota
	responseHead
	trailerSection
)

// headStep is how much of a read is copied into the arena at first. It doubles
// while the head goes on, so a body behind a head is hardly copied with it.
const headStep = 512

// A headReader reads a start line and fields, or only fields, in the arena of a
// message. It decides line by line and only about whole lines, so that it does
// not matter how the bytes were cut; and it remembers how far it has looked for
// a line's end, so that bytes that come singly cost the same together.
type headReader struct {
	header  *message.Header
	limits  *Limits
	base    int64 // bytes of the message before this section
	pos     int32 // start of the line to read next
	scanned int32 // there is no LF in [pos, scanned)
	fields  int32
	kind    section
	started bool // the start line has been read

	method, target message.Span // of a request; target is a response's reason
	status         int16
	minor          uint8
	framing
}

// begin makes a zero reader ready for a section, whose header must be empty; base
// counts the message's bytes before it.
func (r *headReader) begin(l *Limits, h *message.Header, kind section, base int64) {
	if h.Size() > 0 {
		h.Reset()
	}
	r.header, r.limits, r.kind, r.base, r.started = h, l, kind, base, kind == trailerSection
	r.framing.length = message.UnknownLength
}

// A partial is what a codec knows of a section that has come in part. Most come
// whole: their reader lives on the stack, where it is in the processor's caches,
// and no idle connection holds one.
type partial struct {
	limits *Limits
	reader *headReader // nil: none has begun
}

// open returns the reader that goes on with the section: fresh, if it begins.
func (s *partial) open(fresh *headReader, h *message.Header, kind section, base int64) *headReader {
	if s.reader != nil {
		return s.reader
	}
	fresh.begin(s.limits, h, kind, base)
	return fresh
}

// keep puts r by until more comes.
func (s *partial) keep(r *headReader) {
	if s.reader == nil {
		s.reader = readers.Get().(*headReader)
		*s.reader = *r
	}
}

// drop ends the section. The reader must not be used any more.
func (s *partial) drop() {
	if s.reader != nil {
		*s.reader = headReader{}
		readers.Put(s.reader)
		s.reader = nil
	}
}

var readers = sync.Pool{New: func() any { return new(headReader) }}

// feed copies into the arena what belongs to the section and reads it. n is how
// much of p that was; done says that the section is complete.
func (r *headReader) feed(p []byte) (n int, done bool, err *ParseError) {
	for step := headStep; n < len(p); step *= 2 {
		had := r.header.Size()
		take := min(step, len(p)-n, r.limits.HeadBytes-had)
		if take <= 0 {
			return n, false, r.tooLong()
		}
		r.header.Write(p[n : n+take])
		if done, err = r.lines(); err != nil {
			return n, false, err
		}
		if done {
			r.header.Cut(int(r.pos))
			return n + int(r.pos) - had, true, nil
		}
		n += take
	}
	return n, false, nil
}

func (r *headReader) tooLong() *ParseError {
	if r.kind == requestHead && !r.started {
		return r.fail(414, "request line too long", 0)
	}
	return r.fail(431, "header section too large", int(r.pos))
}

func (r *headReader) fail(status int, reason string, off int) *ParseError {
	return &ParseError{Status: status, Reason: reason, Offset: r.base + int64(off)}
}

// lines reads every whole line the arena holds.
func (r *headReader) lines() (done bool, err *ParseError) {
	b := r.header.Bytes()
	if r.scanned > r.pos && bytes.IndexByte(b[r.scanned:], '\n') < 0 { // a line was short before
		r.scanned = int32(len(b))
		return false, nil
	}
	if !r.started {
		err = r.startLine(b)
	}
	if r.started {
		done, err = r.fieldLines(r.header.Padded(), len(b))
	}
	if done {
		return true, nil
	}
	// Short, or wrong. Only a whole line is wrong: the rest may be yet to come.
	if bytes.IndexByte(b[r.pos:], '\n') < 0 {
		r.scanned = int32(len(b))
		return false, nil
	}
	return false, err
}

// fieldLines reads the field lines from pos on, and moves pos on behind them, up
// to one that is none or that the n bytes of b end before. done: that was the
// empty line.
func (r *headReader) fieldLines(b []byte, n int) (done bool, err *ParseError) {
	pos, left := int(r.pos), r.limits.Fields-int(r.fields)
	var hops message.Hops
	for {
		if r.kind != trailerSection {
			pos, left = r.header.Lines(b, pos, left, &hops)
			for i := range hops.Met() {
				hop := &hops.Met()[i]
				if err = r.special(b, hop.Known, hop.Name, hop.Value); err != nil {
					return false, err
				}
			}
			if b[pos] == '\r' && b[pos+1] == '\n' {
				r.pos, r.fields = int32(pos+2), int32(r.limits.Fields-left)
				return true, nil
			}
		}
		colon, end, known := message.FieldLine(b, pos)
		if end == pos || b[end] != '\r' || b[end+1] != '\n' ||
			known == message.Unknown && !validName(b, pos, colon, end) { // a known name needs no look
			break
		}
		if left--; left < 0 {
			err = r.fail(431, "too many fields", pos)
			break
		}
		from, to, line := colon+2, end, true
		if b[colon+1] != ' ' || b[from] <= ' ' || b[end-1] <= ' ' {
			from, to, line = trim(b, colon, end)
		}
		name := message.Span{Off: uint32(pos), Len: uint32(colon - pos)}
		value := message.Span{Off: uint32(from), Len: uint32(to - from)}
		if !known.Hop() && r.kind != trailerSection {
			r.header.Push(name, value, known, line)
		} else if err = r.special(b, known, name, value); err != nil {
			break
		}
		pos = end + 2
	}
	r.pos, r.fields = int32(pos), int32(r.limits.Fields-left)
	if err != nil {
		return false, err
	}
	return r.lastLine(b, n)
}

// lastLine reads the line at pos that is no field's: the empty one, one that the n
// bytes of b end before, or one that is wrong.
func (r *headReader) lastLine(b []byte, n int) (done bool, err *ParseError) {
	pos := int(r.pos)
	if b[pos] == '\r' && b[pos+1] == '\n' {
		r.pos += 2
		return true, nil
	}
	colon, end, _ := message.FieldLine(b, pos)
	switch {
	case end == n, end+1 == n && b[end] == '\r':
		return false, nil
	case !validName(b, pos, colon, end):
		return false, r.fail(400, "invalid field name", pos)
	}
	return false, r.fail(400, "invalid byte in a field value", pos)
}

func validName(b []byte, pos, colon, end int) bool {
	return pos <= colon && colon <= end && message.ValidToken(b[pos:colon])
}

// trim takes the white space off what stands between colon and end. line says that
// it was one space before the value and none behind.
func trim(b []byte, colon, end int) (from, to int, line bool) {
	from, to = colon+1, end
	for from < to && (b[from] == ' ' || b[from] == '\t') {
		from++
	}
	for to > from && (b[to-1] == ' ' || b[to-1] == '\t') {
		to--
	}
	return from, to, from == colon+2 && b[colon+1] == ' ' && to == end
}

// startLine reads the line at pos and moves pos on behind it; pos stays where it is
// if b ends before the line does.
func (r *headReader) startLine(b []byte) *ParseError {
	line := b[r.pos:]
	if r.kind == responseHead {
		return r.statusLine(line)
	}
	return r.requestLine(line)
}

func (r *headReader) requestLine(line []byte) *ParseError {
	pos := int(r.pos)
	m := len("GET")
	if len(line) <= m || string(line[:m+1]) != "GET " { // which most are
		m = message.TokenEnd(line)
		if m == 0 || m == len(line) || line[m] != ' ' {
			return r.fail(400, "invalid method", pos)
		}
		if !message.ValidMethod(line[:m]) {
			return r.fail(400, "standard method in the wrong letter case", pos)
		}
	}
	n := message.TargetEnd(line[m+1:])
	if n == 0 || m+1+n == len(line) || line[m+1+n] != ' ' {
		return r.fail(400, "invalid request target", pos)
	}
	version := line[m+n+2:]
	minor := uint8(1)
	switch {
	case len(version) < 10:
		return r.badVersion(version, pos)
	case string(version[:10]) == "HTTP/1.1\r\n":
	case string(version[:10]) == "HTTP/1.0\r\n":
		minor = 0
	default:
		return r.badVersion(version, pos)
	}
	r.method = message.Span{Off: uint32(pos), Len: uint32(m)}
	r.target = message.Span{Off: uint32(pos + m + 1), Len: uint32(n)}
	r.minor, r.started = minor, true
	r.pos += int32(m + n + 12)
	return nil
}

// minorVersion reads "HTTP/1.0" and "HTTP/1.1".
func minorVersion(b []byte) (minor uint8, ok bool) {
	if len(b) < 8 || string(b[:7]) != "HTTP/1." || b[7] > '1' || b[7] < '0' {
		return 0, false
	}
	return b[7] - '0', true
}

// badVersion tells a version we do not speak from what is no version at all.
func (r *headReader) badVersion(b []byte, pos int) *ParseError {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	if _, ours := minorVersion(b); !ours && len(b) >= 10 && string(b[:5]) == "HTTP/" && digit(b[5]) && b[6] == '.' &&
		digit(b[7]) && b[8] == '\r' && b[9] == '\n' {
		return r.fail(505, "HTTP version not supported", pos)
	}
	return r.fail(400, "invalid HTTP version", pos)
}

// statusLine reads "HTTP/1.1 200 OK". The space after the code may be missing
// with the phrase: too many servers leave it out, and no reader can take the
// line for another.
func (r *headReader) statusLine(line []byte) *ParseError {
	pos := int(r.pos)
	const usual = "HTTP/1.1 200 OK\r\n"
	if len(line) >= len(usual) && string(line[:len(usual)]) == usual {
		r.target = message.Span{Off: uint32(pos) + 13, Len: 2}
		r.status, r.minor, r.started = 200, 1, true
		r.pos += int32(len(usual))
		return nil
	}
	minor, ok := minorVersion(line)
	if !ok || len(line) < 13 || line[8] != ' ' || line[9] == '0' {
		return r.fail(502, "invalid status line", pos)
	}
	code := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return r.fail(502, "invalid status line", pos)
		}
		code = code*10 + int(c-'0')
	}
	from := 12
	if line[from] == ' ' {
		from++
	}
	end := from + message.ValueEnd(line[from:])
	if end+1 >= len(line) && (end == len(line) || line[end] == '\r') {
		return nil // b ends before the line does
	}
	if line[end] != '\r' || line[end+1] != '\n' || from == 12 && end > 12 {
		return r.fail(502, "invalid byte in a reason phrase", pos)
	}
	r.target = message.Span{Off: uint32(pos + from), Len: uint32(end - from)}
	r.status, r.minor, r.started = int16(code), minor, true
	r.pos += int32(end + 2)
	return nil
}
