package route

import (
	"bytes"
	"iter"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A head is a request head while a rule is looked for. It remembers the header
// field it saw last, because neighbours in a list tend to ask for the same.
type head struct {
	r     *message.Request
	query []byte

	name  string // of the field remembered; "" is none
	value []byte // the first of that name
	count int    // how many there are
}

// first returns the first candidate that holds.
func (h *head) first(list []candidate) *candidate {
	for i := range list {
		if c := &list[i]; h.holds(c) {
			return c
		}
	}
	return nil
}

// holds looks at everything but the path.
func (h *head) holds(c *candidate) bool {
	if c.method != "" && c.method != string(h.r.Method) {
		return false
	}
	for i := range c.headers {
		if !h.header(&c.headers[i]) {
			return false
		}
	}
	for i := range c.query {
		if !h.parameter(&c.query[i]) {
			return false
		}
	}
	return true
}

func (h *head) header(c *condition) bool {
	switch c.field {
	case authority:
		return c.fits(h.r.Authority)
	case upgrade:
		return len(h.r.Upgrade) > 0 && c.fits(h.r.Upgrade)
	}
	if h.name != c.name {
		h.name = c.name
		h.value, h.count = h.r.Header.First(c.known, c.name)
	}
	switch {
	case h.count == 0:
		return false
	case h.count == 1:
		return c.fits(h.value)
	case c.regex == nil:
		return equalJoined(h.r.Header.Values(c.name), c.value)
	}
	return c.regex.Match(join(h.r.Header.Values(c.name)))
}

func (c *condition) fits(v []byte) bool {
	if c.regex != nil {
		return c.regex.Match(v)
	}
	return string(v) == c.value
}

// equalJoined compares the values, joined with commas, without joining them.
func equalJoined(values iter.Seq[[]byte], want string) bool {
	first := true
	for v := range values {
		if !first {
			if want == "" || want[0] != ',' {
				return false
			}
			want = want[1:]
		}
		first = false
		if len(want) < len(v) || want[:len(v)] != string(v) {
			return false
		}
		want = want[len(v):]
	}
	return want == ""
}

func join(values iter.Seq[[]byte]) []byte {
	var out []byte
	first := true
	for v := range values {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(out, v...)
	}
	return out
}

// parameter looks at the first query parameter of that name.
func (h *head) parameter(c *condition) bool {
	for rest := h.query; len(rest) > 0; {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		name, value, _ := bytes.Cut(pair, equals)
		if len(pair) == 0 || !equalDecoded(name, c.name) {
			continue
		}
		if c.regex == nil {
			return equalDecoded(value, c.value)
		}
		if bytes.ContainsAny(value, "%+") {
			value = decode(value)
		}
		return c.regex.Match(value)
	}
	return false
}

var ampersand, equals = []byte("&"), []byte("=")

// equalDecoded compares raw, decoded, with want.
func equalDecoded(raw []byte, want string) bool {
	for len(raw) > 0 {
		c, n := decodeByte(raw)
		if want == "" || want[0] != c {
			return false
		}
		raw, want = raw[n:], want[1:]
	}
	return want == ""
}

func decode(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		c, n := decodeByte(raw)
		out = append(out, c)
		raw = raw[n:]
	}
	return out
}

// decodeByte returns the first byte of raw, decoded, and how many it took.
func decodeByte(raw []byte) (c byte, n int) {
	switch {
	case raw[0] == '+':
		return ' ', 1
	case raw[0] == '%' && len(raw) >= 3:
		high, low := hex(raw[1]), hex(raw[2])
		if high < 16 && low < 16 {
			return high<<4 | low, 3
		}
	}
	return raw[0], 1
}

// hex returns 16 for what is no digit.
func hex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
