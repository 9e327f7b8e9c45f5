package http1

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The slow twin: the grammar of RFC 9112 written down with regular expressions,
// on whole strings. It is plain so that the parser may be fast.

// verdict is what becomes of a run of bytes.
type verdict int

const (
	short    verdict = iota // the end has not been seen
	refused                 // it is no message
	accepted                // a whole message, rest follows
)

const (
	twinToken  = "[-!#$%&'*+.^_`|~0-9A-Za-z]+"
	twinQuoted = `"(?:[\t \x21\x23-\x5b\x5d-\x7e\x{80}-\x{ff}]|\\[\t -~\x{80}-\x{ff}])*"`
)

var (
	twinRequestLine = regexp.MustCompile("^([-!#$%&'*+.^_`|~0-9A-Za-z]+) ([\x21\x22\x24-\x7e]+) HTTP/1\\.([01])$")
	twinStatusLine  = regexp.MustCompile(`^HTTP/1\.([01]) ([1-9][0-9][0-9])( [\t\x20-\x7e\x80-\xff]*)?$`)
	twinField       = regexp.MustCompile("^([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\\x{80}-\\x{ff}]*?)[ \t]*$")
	twinAbsolute    = regexp.MustCompile(`^(?i:(https?))://([^/?]*)(.*)$`)
	twinHost        = regexp.MustCompile(`^(?:[-._~!$&'()*+;=%0-9A-Za-z]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*\])(?::([0-9]+))?$`)
	twinChunkLine   = regexp.MustCompile(`^([0-9A-Fa-f]{1,15})(?:;` + twinToken + `(?:=(?:` + twinToken + `|` + twinQuoted + `))?)*$`)
)

// latin makes each byte one rune, so that the classes above mean bytes.
func latin(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

func bytesOf(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// match matches bytes and returns the groups.
func match(re *regexp.Regexp, s string) []string {
	m := re.FindStringSubmatch(latin(s))
	for i := range m {
		m[i] = bytesOf(m[i])
	}
	return m
}

// cutLine cuts a line off; ok is false for a line that does not end in CRLF.
func cutLine(s string) (line, rest string, v verdict) {
	line, rest, found := strings.Cut(s, "\n")
	switch {
	case !found:
		return "", s, short
	case !strings.HasSuffix(line, "\r"):
		return "", s, refused
	}
	return line[:len(line)-1], rest, accepted
}

type twinHeadResult struct {
	start  []string
	fields [][2]string
	rest   string
}

// twinSection reads a start line (if re is given) and fields.
func twinSection(data string, re *regexp.Regexp, l *Limits) (h twinHeadResult, v verdict) {
	rest, visible := data, data
	if len(data) > l.HeadBytes {
		visible = data[:l.HeadBytes]
	}
	rest = visible
	for first := re != nil; ; first = false {
		line, after, v := cutLine(rest)
		if v == short && len(data) > len(visible) {
			return h, refused // too large
		}
		if v != accepted {
			return h, v
		}
		rest = after
		switch {
		case first:
			if h.start = match(re, line); h.start == nil {
				return h, refused
			}
		case line == "":
			h.rest = data[len(visible)-len(rest):]
			return h, accepted
		default:
			m := match(twinField, line)
			if m == nil || len(h.fields) == l.Fields {
				return h, refused
			}
			h.fields = append(h.fields, [2]string{m[1], m[2]})
		}
	}
}

func (h *twinHeadResult) values(name string) (v []string) {
	for _, f := range h.fields {
		if strings.EqualFold(f[0], name) {
			v = append(v, f[1])
		}
	}
	return v
}

// options are the members of the Connection fields, in lower case.
func (h *twinHeadResult) options() map[string]bool {
	set := map[string]bool{}
	for _, v := range h.values("connection") {
		for o := range strings.SplitSeq(v, ",") {
			if o = strings.Trim(o, " \t"); o != "" {
				set[strings.ToLower(o)] = true
			}
		}
	}
	return set
}

// countOptions counts list members, empty ones between commas too.
func (h *twinHeadResult) countOptions() (n int) {
	for _, c := range h.values("connection") {
		n += strings.Count(strings.TrimSuffix(c, ","), ",")
		if c != "" {
			n++
		}
	}
	return n
}

var twinHop = strings.Fields("connection content-length transfer-encoding keep-alive proxy-connection te trailer upgrade http2-settings expect host")

// kept are the fields that go on, as fields prints them.
func (h *twinHeadResult) kept() string {
	gone := h.options()
	for _, name := range twinHop {
		gone[name] = true
	}
	var b strings.Builder
	for _, f := range h.fields {
		if !gone[strings.ToLower(f[0])] {
			fmt.Fprintf(&b, "[%s=%s]", f[0], f[1])
		}
	}
	return b.String()
}

// framing returns the length the head announces: -1 for chunked, -2 for none.
func (h *twinHeadResult) framing(minor string) (n int64, ok bool) {
	lengths, codings := h.values("content-length"), h.values("transfer-encoding")
	switch {
	case len(codings) > 0:
		return -1, len(codings) == 1 && len(lengths) == 0 && minor == "1" && strings.EqualFold(codings[0], "chunked")
	case len(lengths) > 0:
		n, err := strconv.ParseInt(lengths[0], 10, 64)
		return n, len(lengths) == 1 && err == nil && strconv.FormatInt(n, 10) == lengths[0] && len(lengths[0]) <= 18 && n >= 0
	}
	return -2, true
}

func twinValidHost(s string) bool {
	m := match(twinHost, s)
	if m == nil {
		return false
	}
	port, err := strconv.Atoi(m[1])
	return m[1] == "" || err == nil && port >= 1 && port <= 65535
}

// twinRequest reads one request head as describe prints it.
func twinRequest(data string, l *Limits) (event, rest string, length int64, v verdict) {
	if strings.HasPrefix(data, "\r") {
		if data == "\r" || data == "\r\n" {
			return "", "", 0, short
		}
		if data[1] != '\n' {
			return "", "", 0, refused
		}
		data = data[2:]
	}
	h, v := twinSection(data, twinRequestLine, l)
	if v != accepted {
		return "", "", 0, v
	}
	method, target, minor := h.start[1], h.start[2], h.start[3]
	hosts, options := h.values("host"), h.options()
	length, ok := h.framing(minor)
	chunked := length == -1
	announced := length
	length = max(length, -1)
	if announced == -2 {
		length = 0
	}
	std := strings.Fields("GET HEAD POST PUT DELETE PATCH OPTIONS CONNECT TRACE")
	for _, m := range std {
		ok = ok && (m == method || !strings.EqualFold(m, method))
	}
	ok = ok && len(hosts) <= 1 && (len(hosts) == 1 || minor == "0")
	authority := ""
	if len(hosts) == 1 {
		authority = hosts[0]
		ok = ok && (authority == "" || twinValidHost(authority))
	}
	ok = ok && h.countOptions() <= l.Options

	scheme, path := "http", target
	abs := match(twinAbsolute, target)
	switch {
	case method == "CONNECT":
		ok = ok && twinValidHost(target) && regexp.MustCompile(`:[0-9]+$`).MatchString(target) && !strings.HasSuffix(target, "]") && announced == -2
		authority, path = target, ""
	case target[0] == '/', target == "*" && method == "OPTIONS":
	case abs != nil:
		scheme, authority, path = strings.ToLower(abs[1]), abs[2], abs[3]
		ok = ok && twinValidHost(authority)
		switch {
		case path == "" && method == "OPTIONS":
			path = "*"
		case !strings.HasPrefix(path, "/"):
			path = "/" + path
		}
	default:
		ok = false
	}
	waits := false
	for _, e := range h.values("expect") {
		if minor == "1" {
			ok = ok && strings.EqualFold(e, "100-continue")
			waits = length != 0
		}
	}
	if !ok {
		return "", "", 0, refused
	}
	event = fmt.Sprintf("%s %s://%s %s len=%d HTTP/1.%s", method, scheme, authority, path, length, minor)
	if up := h.values("upgrade"); len(up) == 1 && options["upgrade"] && minor == "1" && announced == -2 && !chunked &&
		up[0] != "" && !strings.Contains(up[0], ",") && !strings.EqualFold(up[0], "h2c") {
		event += " upgrade=" + up[0]
	}
	if waits {
		event += " waits"
	}
	return event + " " + h.kept(), h.rest, length, accepted
}

// twinChunked reads a chunked body and its trailer section.
func twinChunked(data string, l *Limits) (body, trailer, rest string, v verdict) {
	overhead := 0
	for {
		// The size line is judged byte by byte, so a bad beginning is refused
		// before its end is there: try every end the line could still have.
		line, after, v := cutLine(data)
		if v != accepted || len(line) > 15+l.Extension {
			return body, "", "", twinChunkPrefix(data, l)
		}
		m := match(twinChunkLine, line)
		if m == nil {
			return body, "", "", refused
		}
		size, err := strconv.ParseInt(m[1], 16, 64)
		if err != nil {
			return body, "", "", refused
		}
		if overhead = max(0, overhead+len(line)+4-16-int(min(size, 1<<40))); overhead > l.Overhead {
			return body, "", "", refused
		}
		data = after
		if size == 0 {
			break
		}
		n := int(min(int64(len(data)), size))
		body, data = body+data[:n], data[n:]
		if int64(n) < size || data == "" || data == "\r" {
			return body, "", "", short
		}
		if !strings.HasPrefix(data, "\r\n") {
			return body, "", "", refused
		}
		data = data[2:]
	}
	h, v := twinSection(data, nil, l)
	if v != accepted {
		return body, "", "", v
	}
	return body, twinTrailer(h.fields), h.rest, accepted
}

// twinChunkPrefix reports whether an unfinished size line may still become one.
func twinChunkPrefix(data string, l *Limits) verdict {
	if len(data) > 16+l.Extension {
		data = data[:17+l.Extension]
	}
	for _, end := range []string{"", "0", "a", "\"", "a\"", "\\", "\\\"", "\n"} {
		full := data + end
		if strings.HasSuffix(full, "\r\n") {
			full = full[:len(full)-2]
		} else if end == "\n" {
			continue
		}
		if match(twinChunkLine, full) != nil && len(data) <= 16+l.Extension {
			return short
		}
	}
	return refused
}

func twinTrailer(list [][2]string) string {
	var b strings.Builder
	for _, f := range list {
		if !twinNoTrailer[strings.ToLower(f[0])] {
			fmt.Fprintf(&b, "[%s=%s]", f[0], f[1])
		}
	}
	return b.String()
}

// twinNoTrailer is written out, not taken from the table it checks.
var twinNoTrailer = func() map[string]bool {
	set := map[string]bool{}
	for name := range strings.FieldsSeq(`connection content-length transfer-encoding keep-alive proxy-connection te trailer
		upgrade http2-settings expect host accept accept-encoding accept-language access-control-allow-origin
		access-control-request-method age authorization b3 baggage cache-control content-disposition content-encoding
		content-language content-location content-range content-type cookie date expires forwarded from grpc-encoding
		grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since location max-forwards origin
		pragma proxy-authenticate proxy-authorization range referer retry-after sec-fetch-mode sec-websocket-key
		set-cookie strict-transport-security traceparent tracestate upgrade-insecure-requests user-agent vary via warning
		www-authenticate x-b3-spanid x-b3-traceid x-content-type-options x-forwarded-client-cert x-forwarded-for
		x-forwarded-host x-forwarded-proto x-request-id`) {
		set[name] = true
	}
	return set
}()

// twinResponse reads one response head to a GET as testClient prints it. body
// is -2 for one that ends with the connection.
func twinResponse(data string, l *Limits) (event, rest string, body int64, v verdict) {
	h, v := twinSection(data, twinStatusLine, l)
	if v != accepted {
		return "", "", 0, v
	}
	minor, reason := h.start[1], strings.TrimPrefix(h.start[3], " ")
	status, _ := strconv.Atoi(h.start[2])
	length, ok := h.framing(minor)
	if !ok || status == 101 || status < 200 && (length == -1 || length > 0) || h.countOptions() > l.Options {
		return "", "", 0, refused
	}
	if status < 200 {
		return fmt.Sprintf("informational %d %s", status, h.kept()), h.rest, 0, accepted
	}
	body = length
	told := max(length, -1)
	if status == 204 || status == 304 {
		body, told = 0, 0
	}
	return fmt.Sprintf("%d %s len=%d HTTP/1.%s %s", status, reason, told, minor, h.kept()), h.rest, body, accepted
}
