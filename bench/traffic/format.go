package traffic

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// tokenLen is the length of a request's number: 8 hex digits for its stream
// and 8 for its place on it.
const tokenLen = 16

// maxHead bounds a head on both sides.
const maxHead = 8 << 10

// period is the length of the body's pattern: a prime, so that bytes lost,
// doubled or moved by any power of two are seen.
const period = 251

// pattern holds enough periods to compare or send 64 KiB from any place in one.
var pattern = func() []byte {
	b := make([]byte, 64<<10+period)
	for i := range b {
		b[i] = byte(i % period)
	}
	return b
}()

// body returns up to max bytes of a body of the given size from offset off on.
func body(off, size int64, max int) []byte {
	at := int(off % period)
	return pattern[at : at+int(min(size-off, int64(max), 64<<10))]
}

// A request is a request's bytes with a place for its number.
type request struct {
	bytes  []byte
	number int // where the number stands
}

// newRequest builds the request for an answer of so many bytes, itself with a
// body of upload bytes, which is not in it.
func newRequest(answer, upload int64) request {
	method, length := "GET", ""
	if upload > 0 {
		method, length = "POST", "content-length: "+strconv.FormatInt(upload, 10)+"\r\n"
	}
	head := method + " /api/items?bytes=" + strconv.FormatInt(answer, 10) + " HTTP/1.1\r\n" +
		"host: svc.bench\r\n" +
		"user-agent: bars/1.0\r\n" +
		"accept: */*\r\n" +
		"x-canary: 0\r\n" +
		"authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789\r\n" +
		"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
		length + "x-echo: "
	return request{append([]byte(head), "0000000000000000\r\n\r\n"...), len(head)}
}

// next gives the request its number and returns it.
func (r *request) next(stream, seq uint32) (number [tokenLen]byte) {
	raw := [8]byte{byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream), byte(seq >> 24), byte(seq >> 16), byte(seq >> 8), byte(seq)}
	hex.Encode(number[:], raw[:])
	copy(r.bytes[r.number:], number[:])
	return number
}

// A response is a response's head with a place for the request's number, and
// the body behind it if that is short.
type response struct {
	bytes  []byte
	number int
	size   int64
	whole  bool // bytes holds the body too
}

func newResponse(size int64) *response {
	head := "HTTP/1.1 200 OK\r\n" +
		"date: Thu, 01 Jan 2026 00:00:00 GMT\r\n" +
		"content-type: application/json\r\n" +
		"content-length: " + strconv.FormatInt(size, 10) + "\r\n" +
		"x-echo: "
	r := &response{append([]byte(head), "0000000000000000\r\n\r\n"...), len(head), size, size <= 16<<10}
	if r.whole {
		r.bytes = append(r.bytes, body(0, size, int(size))...)
	}
	return r
}

var (
	endOfHead  = []byte("\r\n\r\n")
	errBigHead = fmt.Errorf("head is longer than %d bytes", maxHead)
)

// A headReader collects a head that comes in pieces.
type headReader struct{ part []byte }

// take returns the head once it is whole, and how many bytes of p belong to
// it. The head is a view into p or the reader.
func (h *headReader) take(p []byte) (head []byte, n int, err error) {
	if len(h.part) == 0 {
		if i := bytes.Index(p, endOfHead); i >= 0 {
			return p[:i+2], i + 4, nil
		}
		if len(p) > maxHead {
			return nil, 0, errBigHead
		}
		h.part = append(h.part, p...)
		return nil, len(p), nil
	}
	had := len(h.part)
	h.part = append(h.part, p...)
	i := bytes.Index(h.part, endOfHead)
	if i < 0 {
		if len(h.part) > maxHead {
			return nil, 0, errBigHead
		}
		return nil, len(p), nil
	}
	head = h.part[:i+2]
	h.part = h.part[:0]
	return head, i + 4 - had, nil
}

// field returns the value of the first field of that name; name is lower case.
// Each of head's lines ends with CRLF, the first is no field.
func field(head []byte, name string) []byte {
	for {
		i := bytes.IndexByte(head, '\n')
		if i < 0 || i+1 == len(head) {
			return nil
		}
		head = head[i+1:]
		if len(head) > len(name) && head[len(name)] == ':' && equalFold(head[:len(name)], name) {
			v := head[len(name)+1:]
			return bytes.Trim(v[:max(bytes.IndexByte(v, '\r'), 0)], " \t")
		}
	}
}

// equalFold knows letters and '-' only, which is all that our names have.
func equalFold(b []byte, lower string) bool {
	for i := range b {
		if c := b[i]; c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) {
			return false
		}
	}
	return true
}

func parseSize(b []byte) (int64, error) {
	if len(b) == 0 || len(b) > 15 {
		return 0, errors.New("no size")
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("size %q is no number", b)
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}
