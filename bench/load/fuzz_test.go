package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// fixed is the result that conditions are tried on.
func fixed() *Result {
	h := newHistogram()
	for i := range 1000 {
		add(h, int64(i+1)*int64(time.Millisecond))
	}
	s, err := summarize(h)
	if err != nil {
		panic(err)
	}
	return &Result{Schema: schema, Sent: 1000, Done: 990, Failed: 10, Waited: 50, Lost: 1, Rate: 99.5, Offered: 100, Latency: s, Service: s, Lag: Summary{},
		Kinds:  []KindResult{{Name: "get", Done: 600, Failed: 0, Latency: s}, {Name: "put it", Done: 390, Failed: 10, Latency: s}},
		Target: &Usage{Cores: 0.5, PerRequest: 100 * time.Microsecond, Memory: 64 << 20}}
}

func TestCondition(t *testing.T) {
	for text, want := range map[string]bool{
		"p99>5ms": true, "p99>990.5ms": false, "p50<=501ms": true, "p99.9 > 998ms": true, "max=1001ms": false,
		"errors>0": true, "errors=10": true, "errors>1%": false, "errors>=1%": true, "errors<1%": false,
		"rate<100/s": true, "rate>99.4": true, "offered=100/s": true, "waited>4%": true, "lost=1": true,
		"cpu<1": true, "cpu-per-request>99us": true, "memory<=64MiB": true, "memory<1KiB": false,
		"p99>2s or errors>0": true, "p99>2s, errors>0": true, "p99>2s and errors>0": false,
		"errors=0 or p50>1ms and p50>2s": false, "(errors=0 or p50>1ms) and p50<2s": true,
		"service.p99>5ms": true, "lag.p99>0": false, "lag.max=0": true, "get:errors=0": true, `"put it":errors=10`: true,
		`"put it":errors>2.4%`: true, "get:p50>100ms": true, "min<2ms": true, "stddev>1s": false, "mean>400ms": true,
	} {
		c, err := ParseCondition(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, said, err := c.Holds(fixed())
		if err != nil || got != want || said == "" {
			t.Errorf("%s: %v (%s), %v, want %v", text, got, said, err, want)
		}
	}
}

func TestConditionErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":               `at 1: "" is no figure`,
		"p99":            "want <, <=, >, >=, = or !=",
		"p99>5":          "a duration, such as 5ms",
		"p99>5%":         "a duration, such as 5ms",
		"rate>5ms":       "a rate, such as 1000/s",
		"errors>5ms":     "a number, such as 10, or a share, such as 0.1%",
		"memory>5MB":     "such as 64MiB",
		"p101>5ms":       "is no figure: write p99",
		"p>5ms":          "is no figure",
		"latency>5ms":    "is no figure",
		"p99=>5ms":       `not "=>"`,
		"p99>5ms p50>1s": `unexpected "p50"`,
		"(p99>5ms":       "want )",
		"p99>5ms)":       `unexpected ")"`,
		"p99>5ms and":    "is no figure",
		"get:rate>1/s":   "not kept for each kind",
		"lag.errors>1":   "is no figure",
		"p99>1e3s":       "a duration",
		"p99>.s":         "a duration",
		`"":errors=1`:    "empty name",
	} {
		c, err := ParseCondition(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want an error with %q", text, c, err, want)
		}
	}
	if _, err := ParseCondition(strings.Repeat("(", maxCondition)); err == nil {
		t.Error("a thousand open brackets were taken")
	}
	if _, err := ParseCondition(strings.Repeat("(", maxCondition/2-4) + "max>0" + strings.Repeat(")", maxCondition/2-4)); err != nil {
		t.Errorf("half of that many, all closed: %v", err)
	}
	// What a run will not have is said before it runs.
	for text, want := range map[string]string{"cpu>1": "write --pid", "other:p99>1s": `no request called "other"`} {
		c, err := ParseCondition(text)
		if err == nil {
			err = c.Check(Spec{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// slowCondition is ParseCondition's and Holds's slow twin: it cuts the text at
// its connectives, weakest first, and matches comparisons with one expression.
func slowCondition(text string, r *Result) (holds, valid bool) {
	depth, quoted, last := 0, false, 0
	var ors, ands []string
	words := func(cut func(word string) bool) (parts []string) {
		last, depth, quoted = 0, 0, false
		for i := 0; i < len(text); i++ {
			switch text[i] {
			case '"':
				quoted = !quoted
			case '(':
				if !quoted {
					depth++
				}
			case ')':
				if !quoted {
					depth--
				}
			}
			if quoted || depth != 0 {
				continue
			}
			if text[i] == ',' && cut(",") {
				parts, last = append(parts, text[last:i]), i+1
				continue
			}
			if i > 0 && isWord(text[i-1]) {
				continue
			}
			n := i
			for n < len(text) && isWord(text[n]) {
				n++
			}
			if n > i && cut(text[i:n]) && depth == 0 {
				parts, last = append(parts, text[last:i]), n
				i = n - 1
			}
		}
		return append(parts, text[last:])
	}
	ors = words(func(w string) bool { return w == "or" || w == "," })
	if len(ors) > 1 {
		valid = true
		for _, part := range ors {
			is, ok := slowCondition(part, r)
			holds, valid = holds || is, valid && ok
		}
		return holds, valid
	}
	ands = words(func(w string) bool { return w == "and" })
	if len(ands) > 1 {
		holds, valid = true, true
		for _, part := range ands {
			is, ok := slowCondition(part, r)
			holds, valid = holds && is, valid && ok
		}
		return holds, valid
	}
	text = strings.Trim(text, " \t")
	if strings.HasPrefix(text, "(") && strings.HasSuffix(text, ")") {
		return slowCondition(text[1:len(text)-1], r)
	}
	return slowComparison(text, r)
}

// isWord are the bytes that end no word.
func isWord(c byte) bool { return strings.IndexByte(" \t(),:\"<>=!", c) < 0 }

var comparisonForm = regexp.MustCompile(`^(?:("[^"]*"|[^ \t(),:"<>=!]+)[ \t]*:[ \t]*)?((?:service\.|lag\.)?[a-z-]+?)((?:[0-9]+\.?[0-9]*|\.[0-9]+)?)[ \t]*(<|<=|>|>=|=|==|!=)[ \t]*([0-9]+\.?[0-9]*|\.[0-9]+)([^ \t(),:"<>=!]*)$`)

func slowComparison(text string, r *Result) (holds, valid bool) {
	m := comparisonForm.FindStringSubmatch(text)
	if m == nil {
		return false, false
	}
	kind, name, nines, op, unit := strings.Trim(m[1], `"`), m[2], m[3], m[4], m[6]
	value, err := strconv.ParseFloat(m[5], 64)
	if err != nil {
		return false, false
	}
	durations := map[string]float64{"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60}
	if m[5] == "0" {
		durations[""] = 1
	}
	counts, shares := map[string]float64{"": 1}, map[string]float64{"": 1, "%": 0.01}
	s, done, failed, sent := &r.Latency, r.Done, r.Failed, r.Sent
	if m[1] != "" {
		s = nil
		for i := range r.Kinds {
			if k := &r.Kinds[i]; k.Name == kind {
				s, done, failed, sent = &k.Latency, k.Done, k.Failed, k.Done+k.Failed
			}
		}
	}
	base := name
	for prefix, of := range map[string]*Summary{"service.": &r.Service, "lag.": &r.Lag} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if s, base = of, rest; m[1] != "" {
				return false, false
			}
		}
	}
	type row struct {
		v     float64
		units map[string]float64
	}
	if s == nil {
		return false, false
	}
	rows := map[string]row{"min": {s.Min.Seconds(), durations}, "mean": {s.Mean.Seconds(), durations}, "stddev": {s.StdDev.Seconds(), durations}, "max": {s.Max.Seconds(), durations}}
	if nines != "" {
		p, err := strconv.ParseFloat(nines, 64)
		if err != nil || base != "p" || p <= 0 || p > 100 {
			return false, false
		}
		rows["p"] = row{s.At(p).Seconds(), durations}
	}
	if base == name {
		rows["errors"], rows["done"], rows["sent"] = row{float64(failed), shares}, row{float64(done), counts}, row{float64(sent), counts}
		if m[1] == "" {
			rows["waited"], rows["lost"], rows["rate"], rows["offered"] = row{float64(r.Waited), shares}, row{float64(r.Lost), counts}, row{r.Rate, map[string]float64{"": 1, "/s": 1}}, row{r.Offered, map[string]float64{"": 1, "/s": 1}}
			rows["cpu"], rows["memory"] = row{r.Target.Cores, counts}, row{float64(r.Target.Memory), map[string]float64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}}
			rows["cpu-per-request"] = row{r.Target.PerRequest.Seconds(), durations}
		}
	}
	found, known := rows[base]
	factor, fits := found.units[unit]
	if !known || !fits || nines != "" && base != "p" {
		return false, false
	}
	if unit == "%" {
		found.v /= float64(sent)
	}
	value *= factor
	return map[string]bool{"<": found.v < value, "<=": found.v <= value, ">": found.v > value, ">=": found.v >= value, "=": found.v == value, "==": found.v == value, "!=": found.v != value}[op], true
}

// FuzzCondition compares the parser with its slow twin.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{"p99>5ms", "p99.9 >= 5ms or errors>0.1% and rate<10/s", "(get:p50<1s, lag.max=0) and memory<64MiB", `"put it":errors!=10`, "p>1", "p99>5", "((max>0))", "or", "errors>0 or", "cpu-per-request>=100us", "p1.>0", "a(b)"} {
		f.Add(s)
	}
	r := fixed()
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 200 {
			return
		}
		c, err := ParseCondition(text)
		var holds bool
		if err == nil {
			holds, _, err = c.Holds(r)
		}
		slow, valid := slowCondition(text, r)
		if (err == nil) != valid || valid && holds != slow {
			t.Fatalf("%q: %v, %v; the twin says %v, valid %v", text, holds, err, slow, valid)
		}
	})
}

// FuzzMix: a mix that is taken says the same when it is written out again.
func FuzzMix(f *testing.F) {
	f.Add("requests:\n- {name: a, weight: 3, path: /x?y=1, headers: {accept: a/b}, expect: {status: 200, bytes: 10}}\n- {name: b, method: POST, path: /, size: 5}\n")
	f.Add("requests: [{path: /, body: hello, host: h}]")
	f.Add("requests: 7")
	f.Add("requests:\n- &a {path: /a}\n- *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		kinds, err := ParseMix("m", []byte(text))
		if err != nil {
			return
		}
		again, err := ParseMix("again", written(t, kinds))
		if err != nil {
			t.Fatalf("%q was taken, and what it says was not: %v", text, err)
		}
		if !reflect.DeepEqual(kinds, again) {
			t.Fatalf("%q: %+v, then %+v", text, kinds, again)
		}
	})
}

// written is a mix as its file would have it.
func written(t *testing.T, kinds []Kind) []byte {
	var list []any
	for _, k := range kinds {
		headers := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range k.Fields {
			for _, s := range []string{f.Name, f.Value} {
				headers.Content = append(headers.Content, &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: s})
			}
		}
		size := k.Size
		list = append(list, map[string]any{"name": k.Name, "weight": k.Weight, "method": k.Method, "path": k.Path, "host": k.Host, "size": size,
			"body": string(k.Body), "headers": headers, "expect": map[string]any{"status": k.Status, "bytes": k.Bytes}})
	}
	b, err := yaml.Marshal(map[string]any{"requests": list})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMixErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "it has 0 requests",
		"requests: []":                           "it has 0 requests",
		"requests: [{paht: /}]":                  "field paht not found",
		"requests: [{path: a}]":                  `path "a": it must begin with /`,
		"requests: [{name: x}, {name: x}]":       "two of that name",
		"requests: [{weight: 0}]":                "weight is 0",
		"requests: [{size: -1}]":                 "size is -1",
		"requests: [{size: 1, body: x}]":         "both a body and a size",
		"requests: [{headers: {host: x}}]":       "written by the tool itself",
		"requests: [{headers: [a]}]":             "headers are a mapping",
		"requests: [{headers: {a: [1]}}]":        "is no text",
		"requests: [{expect: {status: 99}}]":     "status is 99",
		"requests: [{path: /}]\n---\nrequests: ": "more than one document",
		"requests: [{method: 'G T'}]":            "is no method",
	} {
		kinds, err := ParseMix("mix.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "mix mix.yaml: ") {
			t.Errorf("%q: %v, %v, want %q", text, kinds, err, want)
		}
	}
}

// feedAll gives bytes to a response in pieces of the size given.
func feedAll(p []byte, size int, head bool) (r response, n int, done bool, err error) {
	r.expect(head)
	for at := 0; at < len(p) && !done && err == nil; at += size {
		var m int
		m, done, err = r.feed(p[at:min(at+size, len(p))])
		n += m
	}
	return r, n, done, err
}

// FuzzResponse: how the bytes are cut makes no difference, and what is taken for
// a response is the same to net/http.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\na: b\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
	} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, p []byte, head bool) {
		r, n, done, err := feedAll(p, len(p)+1, head)
		for _, size := range []int{1, 2, 7} {
			r2, n2, done2, err2 := feedAll(p, size, head)
			// A piece more may be needed to see that a line is too long, and
			// nothing counts behind an error.
			if done != done2 || (err == nil) != (err2 == nil) || err == nil && (n != n2 || r.status != r2.status || r.bytes != r2.bytes || r.close != r2.close) {
				t.Fatalf("in pieces of %d: %d %v %v %+v, at once %d %v %v %+v", size, n2, done2, err2, r2, n, done, err, r)
			}
		}
		if !done || err != nil {
			return
		}
		// A head that was seen before says the same as when it was read.
		r2 := r
		r2.expect(head)
		n2, done2, err2 := r2.feed(p)
		if n2 != n || !done2 || err2 != nil || r2.status != r.status || r2.bytes != r.bytes || r2.close != r.close {
			t.Fatalf("again: %d %v %v %+v, the first time %d %+v", n2, done2, err2, r2, n, r)
		}
		method := "GET"
		if head {
			method = "HEAD"
		}
		b := bufio.NewReader(bytes.NewReader(p[:n]))
		for {
			res, err := http.ReadResponse(b, &http.Request{Method: method})
			if err != nil {
				if knownStrictness(err) {
					return
				}
				t.Fatalf("%q was taken, and net/http says %v", p[:n], err)
			}
			if res.StatusCode < 200 {
				continue
			}
			size, err := io.Copy(io.Discard, res.Body)
			if knownStrictness(err) {
				return
			}
			if err != nil || res.StatusCode != r.status || size != r.bytes {
				t.Fatalf("%q: status %d and %d bytes, net/http says %d and %d, %v", p[:n], r.status, r.bytes, res.StatusCode, size, err)
			}
			return
		}
	})
}

// knownStrictness are what net/http refuses and a load tool need not care about:
// it looks at fields that are about framing alone.
func knownStrictness(err error) bool {
	return err != nil && slices.ContainsFunc([]string{"malformed MIME header", "invalid header", "header line too long", "malformed HTTP", "malformed chunked", "chunked line ends with", "invalid byte in chunk length", "http chunk length too large", "chunked encoding contains too much", "suspiciously long trailer", "bad Content-Length", "unsupported transfer encoding"}, func(s string) bool {
		return strings.Contains(err.Error(), s)
	})
}

// FuzzFrames: how the bytes are cut makes no difference to WebSocket frames, and
// what a client writes is read back by a reader that takes the mask off first.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x82\x03abc\x89\x00\x01\x01x\x80\x01y"), []byte("hello"))
	f.Add([]byte("\x82\x7e\x00\x03abc"), bytes.Repeat([]byte("z"), 70_000))
	f.Fuzz(func(t *testing.T, p, message []byte) {
		read := func(size int) (out string) {
			var r frameReader
			var data []byte
			for at := 0; at < len(p); at += size {
				for piece := p[at:min(at+size, len(p))]; len(piece) > 0; {
					n, d, err := r.feed(piece)
					if err != nil {
						return out + " error"
					}
					piece = piece[n:]
					if data = append(data, d...); r.ended {
						out += fmt.Sprintf("%x %v %x %x;", r.op, r.fin, data, r.control)
						data = nil
					}
				}
			}
			return out
		}
		want := read(len(p) + 1)
		for _, size := range []int{1, 3} {
			if got := read(size); got != want {
				t.Fatalf("in pieces of %d: %s, at once %s", size, got, want)
			}
		}
		mask := [4]byte{1, 2, 3, 4}
		b := appendFrame(nil, opBinary, message, mask)
		head := len(b) - len(message) - 4
		for i := range message {
			b[head+4+i] ^= mask[i&3]
		}
		b = append(b[:head], b[head+4:]...)
		b[1] &^= 0x80
		var r frameReader
		n, d, err := r.feed(b)
		if err != nil || n != len(b) || !r.ended || !bytes.Equal(d, message) {
			t.Fatalf("a frame of %d bytes: %d of %d taken, %d bytes, %v", len(message), n, len(b), len(d), err)
		}
	})
}
