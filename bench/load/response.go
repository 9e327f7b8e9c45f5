package load

import (
	"bytes"
	"strconv"
)

const (
	// maxHead bounds the head of an answer, and its trailers.
	maxHead = 64 << 10
	// maxLine bounds the line that says how long a chunk is.
	maxLine = 256
)

// Where a response is being read.
type place uint8

const (
	inHead place = iota
	inBody       // of known length
	inSize       // the line before a chunk
	inChunk
	afterChunk
	inTrailer
	untilClose
)

// A response reads one HTTP/1.1 response (RFC 9112) that comes in pieces. It
// keeps what is needed to count, and nothing of the body.
type response struct {
	at      place
	noBody  bool // the request was HEAD
	status  int
	left    int64 // of the body or the chunk
	bytes   int64 // of the body, so far
	close   bool  // the connection ends with it
	upgrade bool  // it is a 101 that was asked for
	accept  []byte
	part    []byte // of a head or a line that is not whole yet
	last    seen
}

// seen is the last head that was read, and what it said: heads of one server are
// often the same, and then need no reading. BenchmarkResponse: 609 → 22 ns on a
// busy machine.
type seen struct {
	head   []byte
	noBody bool
	at     place
	left   int64
	status int
	close  bool
	done   bool
}

// maxSeen is the longest head that is remembered.
const maxSeen = 1 << 10

// expect makes r ready for the next response.
func (r *response) expect(head bool) {
	r.at, r.noBody, r.left, r.bytes, r.close, r.upgrade = inHead, head, 0, 0, false, false
	r.part, r.accept = r.part[:0], r.accept[:0]
}

// again reads a head that is the same as the last one.
func (r *response) again(p []byte) bool {
	l := &r.last
	if len(l.head) == 0 || len(r.part) > 0 || l.noBody != r.noBody || !bytes.HasPrefix(p, l.head) {
		return false
	}
	r.at, r.left, r.status, r.close = l.at, l.left, l.status, l.close
	return true
}

// remember keeps a head that has been read.
func (r *response) remember(head []byte, done bool) {
	if len(head) <= maxSeen && r.status >= 200 {
		r.last = seen{append(r.last.head[:0], head...), r.noBody, r.at, r.left, r.status, r.close, done}
	}
}

var (
	endOfHead = []byte("\r\n\r\n")
	endOfLine = []byte("\r\n")
)

// feed takes bytes up to the end of the response, and says how many those were.
func (r *response) feed(p []byte) (n int, done bool, err error) {
	for {
		m, again, fin, err := r.step(p[n:])
		n += m
		if err != nil || fin {
			return n, fin, err
		}
		if !again {
			return n, false, nil
		}
	}
}

// step does what one place allows. again says that the next place may go on
// without more bytes.
func (r *response) step(p []byte) (n int, again, done bool, err error) {
	switch r.at {
	case inHead:
		if r.again(p) {
			return len(r.last.head), true, r.last.done, nil
		}
		head, n, err := r.until(p, endOfHead, maxHead)
		if head == nil || err != nil {
			return n, false, false, err
		}
		if done, err = r.head(head[:len(head)-2]); err == nil {
			r.remember(head, done)
		}
		return n, true, done, err
	case inBody, inChunk:
		n := min(int64(len(p)), r.left)
		r.left -= n
		r.bytes += n
		if r.left > 0 {
			return int(n), false, false, nil
		}
		if r.at == inBody {
			return int(n), false, true, nil
		}
		r.at = afterChunk
		return int(n), true, false, nil
	case untilClose:
		r.bytes += int64(len(p))
		return len(p), false, false, nil
	case inTrailer:
		n, done, err := r.trailer(p)
		return n, !done && n > 0, done, err
	}
	line, n, err := r.until(p, endOfLine, maxLine)
	if line == nil || err != nil {
		return n, false, false, err
	}
	return n, true, false, r.chunkLine(line[:len(line)-2])
}

// until returns what stands before and including an end mark, once that is here:
// a view into p or r.
func (r *response) until(p, mark []byte, most int) (whole []byte, n int, err error) {
	if len(r.part) == 0 {
		if i := bytes.Index(p, mark); i >= 0 {
			if i > most {
				return nil, 0, malformedf(Malformed, "head or line of more than %d bytes", most)
			}
			return p[:i+len(mark)], i + len(mark), nil
		}
	}
	had := len(r.part)
	r.part = append(r.part, p...)
	i := bytes.Index(r.part, mark)
	switch {
	case i > most || i < 0 && len(r.part) > most+len(mark):
		return nil, 0, malformedf(Malformed, "head or line of more than %d bytes", most)
	case i < 0:
		return nil, len(p), nil
	}
	whole = r.part[:i+len(mark)]
	r.part = r.part[:0]
	return whole, len(whole) - had, nil
}

// head reads a head; each of its lines ends with CRLF.
func (r *response) head(head []byte) (done bool, err error) {
	line, rest, _ := bytes.Cut(head, endOfLine)
	if bytes.Count(head, endOfLine) != bytes.Count(head, endOfLine[1:]) {
		return false, malformedf(Malformed, "a line of the head ends without CR")
	}
	if r.status, err = statusOf(line); err != nil {
		return false, err
	}
	f := framed{length: -1, close: line[7] == '0'}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, endOfLine)
		if err := f.field(r, line); err != nil {
			return false, err
		}
	}
	r.close = f.close
	switch {
	case r.status == 101 && r.upgrade:
		return true, nil
	case r.status == 101:
		return false, malformedf(Malformed, "101, and nobody asked for another protocol")
	case r.status < 200:
		r.accept = r.accept[:0]
		return false, nil // the final one follows
	case r.noBody || r.status == 204 || r.status == 304:
		return true, nil
	case f.chunked && f.length >= 0:
		return false, malformedf(Malformed, "both Content-Length and Transfer-Encoding")
	case f.chunked:
		r.at = inSize
		return false, nil
	case f.length < 0:
		r.at, r.close = untilClose, true
		return false, nil
	}
	r.at, r.left = inBody, f.length
	return f.length == 0, nil
}

// statusOf reads a status line.
func statusOf(line []byte) (int, error) {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return 0, malformedf(Malformed, "answer begins with %.40q", line)
	}
	n := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, malformedf(Malformed, "answer begins with %.40q", line)
		}
		n = n*10 + int(c-'0')
	}
	if n < 100 {
		return 0, malformedf(Malformed, "status %03d", n)
	}
	return n, nil
}

// framed is what fields say about where a response ends.
type framed struct {
	length  int64
	chunked bool
	close   bool
}

// field reads one field if it is about framing.
func (f *framed) field(r *response, line []byte) error {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || line[0] == ' ' || line[0] == '\t' || line[i-1] == ' ' || line[i-1] == '\t' {
		return malformedf(Malformed, "field %.40q", line)
	}
	if c := line[0] | 0x20; c != 'c' && c != 't' && c != 's' {
		return nil
	}
	switch i {
	case len("connection"):
		if fold(line[:i], "connection") {
			f.connection(line[i+1:])
		}
	case len("content-length"):
		if fold(line[:i], "content-length") {
			n, known := lengthOf(trimmed(line[i+1:]))
			if !known || f.length >= 0 && f.length != n {
				return malformedf(Malformed, "%.60q", line)
			}
			f.length = n
		}
	case len("transfer-encoding"):
		if fold(line[:i], "transfer-encoding") {
			if f.chunked || !fold(trimmed(line[i+1:]), "chunked") {
				return malformedf(Malformed, "%.60q: only chunked is known", line)
			}
			f.chunked = true
		}
	case len("sec-websocket-accept"):
		if fold(line[:i], "sec-websocket-accept") {
			r.accept = append(r.accept[:0], trimmed(line[i+1:])...)
		}
	}
	return nil
}

// trimmed is v without the blanks around it.
func trimmed(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// lengthOf reads a Content-Length, of 15 digits at most.
func lengthOf(v []byte) (n int64, known bool) {
	if len(v) == 0 || len(v) > 15 {
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

func (f *framed) connection(v []byte) {
	for o := range bytes.SplitSeq(v, []byte{','}) {
		switch o = trimmed(o); {
		case fold(o, "close"):
			f.close = true
		case fold(o, "keep-alive"):
			f.close = false
		}
	}
}

// fold reports whether b is s, which is in lower case, but for case.
func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c != s[i] && (c < 'A' || c > 'Z' || c|0x20 != s[i]) {
			return false
		}
	}
	return true
}

// chunkLine reads the line before a chunk, or the empty one behind it.
func (r *response) chunkLine(line []byte) error {
	if r.at == afterChunk {
		if len(line) != 0 {
			return malformedf(Malformed, "chunk is longer than it says")
		}
		r.at = inSize
		return nil
	}
	size, _, _ := bytes.Cut(line, []byte{';'})
	size = bytes.TrimRight(size, " \t")
	n, err := strconv.ParseUint(string(size), 16, 50)
	if err != nil || size[0] == '+' {
		return malformedf(Malformed, "chunk of size %.40q", line)
	}
	r.at, r.left = inChunk, int64(n)
	if n == 0 {
		r.at = inTrailer
	}
	return nil
}

// trailer reads the lines behind the last chunk.
func (r *response) trailer(p []byte) (n int, done bool, err error) {
	line, n, err := r.until(p, endOfLine, maxHead)
	if line == nil || err != nil {
		return n, false, err
	}
	return n, len(line) == 2, nil
}
