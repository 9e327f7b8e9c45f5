package http1

import "github.com/sandwich-mesh/sandwich/proxy/message"

// chunkState is the place in the grammar of RFC 9112, section 7.1:
//
//	chunk     = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//	chunk-ext = *( ";" token [ "=" ( token / quoted-string ) ] )
//
// White space in extensions, which the RFC calls bad and lets recipients parse,
// is refused: it is a known way to make two parsers differ.
type chunkState uint8

const (
	chunkSize  chunkState = iota // at a digit, ";" or CR
	chunkExt                     // behind ";": at an extension's name
	chunkName                    // in it
	chunkEqual                   // behind "=": at a value
	chunkValue                   // in a token
	chunkQuote                   // in a quoted string
	chunkSlash                   // behind a backslash in it
	chunkQuEnd                   // behind a quoted string
	chunkLF                      // behind the CR of the size line
	chunkData                    // in the data
	chunkCR                      // behind the data: at CR
	chunkCRLF                    // at LF
	chunkTail                    // in the trailer section
)

// A chunkReader reads the chunked coding byte by byte, but for the data.
type chunkReader struct {
	overhead int32 // framing bytes beyond a fair share of the data
	line     int16 // length of the size line so far
	digits   int8
	state    chunkState
}

// maxDigits allows chunks of 2^60 bytes, so that sizes never overflow.
const maxDigits = 15

func (b *bodyReader) readChunked(p []byte, c *message.Chunk, s *partial, h *message.Header) (n int, ready bool, err *ParseError) {
	for n < len(p) && b.state != chunkTail {
		if b.state == chunkData {
			k := int(min(int64(len(p)-n), b.left))
			if b.left -= int64(k); b.left == 0 {
				b.state = chunkCR
			}
			*c = message.Chunk{Data: p[n : n+k : n+k]}
			return n + k, true, nil
		}
		if reason := b.chunkByte(p[n], s.limits); reason != "" {
			return n, false, &ParseError{Status: 400, Reason: reason, Offset: b.raw + int64(n)}
		}
		n++
	}
	if b.state != chunkTail {
		return n, false, nil
	}
	var fresh headReader
	r := s.open(&fresh, h, trailerSection, b.raw+int64(n))
	k, done, err := r.feed(p[n:])
	switch {
	case done:
		*c = message.Chunk{End: true}
		if r.header.Len() > 0 {
			c.Trailer = r.header
		}
		s.drop()
	case err == nil:
		s.keep(r)
	}
	return n + k, done, err
}

// chunkByte takes one byte of framing; reason says what is wrong with it.
func (b *bodyReader) chunkByte(c byte, l *Limits) (reason string) {
	switch b.state {
	case chunkCR:
		if c != '\r' {
			return "chunk is longer than its size"
		}
		b.state = chunkCRLF
		return ""
	case chunkCRLF:
		if c != '\n' {
			return "chunk does not end in CRLF"
		}
		b.state = chunkSize
		return ""
	}
	if b.line++; int(b.line) > maxDigits+1+l.Extension {
		return "chunk extension too long"
	}
	switch b.state {
	case chunkSize:
		return b.sizeByte(c)
	case chunkLF:
		if c != '\n' {
			return "chunk size does not end in CRLF"
		}
		return b.sizeDone(l)
	}
	if !b.extByte(c) {
		return "invalid chunk extension"
	}
	return ""
}

func (b *bodyReader) sizeByte(c byte) (reason string) {
	digit := int64(-1)
	switch {
	case '0' <= c && c <= '9':
		digit = int64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		digit = int64(c|0x20-'a') + 10
	case b.digits > 0 && c == ';':
		b.state = chunkExt
		return ""
	case b.digits > 0 && c == '\r':
		b.state = chunkLF
		return ""
	}
	if digit < 0 || b.digits == maxDigits {
		return "invalid chunk size"
	}
	b.digits++
	b.left = b.left<<4 | digit
	return ""
}

// sizeDone begins the data, or the trailer section behind the last chunk. Each
// chunk may cost 16 bytes of framing and 1 for each of its own; who spends more
// makes us work for nothing (as CVE-2023-39326 did).
func (b *bodyReader) sizeDone(l *Limits) (reason string) {
	spent := int64(b.overhead) + int64(b.line) + 2 - 16 - b.left
	if spent > int64(l.Overhead) {
		return "too much chunk framing"
	}
	b.overhead = int32(max(spent, 0))
	b.line, b.digits = 0, 0
	b.state = chunkData
	if b.left == 0 {
		b.state = chunkTail
	}
	return ""
}

// extByte checks one byte of an extension, which is then dropped.
func (b *bodyReader) extByte(c byte) (ok bool) {
	token := message.TokenByte(c)
	switch b.state {
	case chunkExt:
		b.state, ok = chunkName, token
	case chunkEqual:
		b.state, ok = chunkValue, token
		if c == '"' {
			b.state, ok = chunkQuote, true
		}
	case chunkName, chunkValue, chunkQuEnd:
		switch {
		case c == '\r':
			b.state, ok = chunkLF, true
		case c == ';':
			b.state, ok = chunkExt, true
		case c == '=' && b.state == chunkName:
			b.state, ok = chunkEqual, true
		default:
			ok = token && b.state != chunkQuEnd
		}
	case chunkQuote:
		switch c {
		case '"':
			b.state = chunkQuEnd
		case '\\':
			b.state = chunkSlash
		}
		ok = c >= ' ' && c != 0x7f || c == '\t'
	case chunkSlash:
		b.state, ok = chunkQuote, c >= ' ' && c != 0x7f || c == '\t'
	}
	return ok
}

// appendSize appends a chunk's size line.
func appendSize(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return append(b, '\r', '\n')
}
