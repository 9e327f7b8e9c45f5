package http2

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/http1"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"golang.org/x/net/http2/hpack"
)

// A plain is a head as a simple reader has it: a list of strings.
type plain struct {
	pseudo map[string]string
	fields []string // "name: value", those of one connection left out
	host   []string
	length string
	te     bool
	expect bool
	trail  bool // trailers are announced
}

func plainHead(block []byte) plain {
	list, _ := hpack.NewDecoder(4096, nil).DecodeFull(block)
	p := plain{pseudo: map[string]string{}}
	var crumbs []string
	at := -1
	for _, f := range list {
		switch f.Name {
		case "host":
			p.host = append(p.host, f.Value)
		case "content-length":
			p.length = f.Value
		case "te":
			p.te = true
		case "expect":
			p.expect = true
		case "trailer":
			p.trail = true
		case "http2-settings":
		case "cookie":
			if crumbs = append(crumbs, f.Value); at < 0 {
				at = len(p.fields)
				p.fields = append(p.fields, "")
			}
		default:
			if strings.HasPrefix(f.Name, ":") {
				p.pseudo[f.Name] = f.Value
			} else {
				p.fields = append(p.fields, f.Name+": "+f.Value)
			}
		}
	}
	if at >= 0 {
		p.fields[at] = "cookie: " + strings.Join(crumbs, "; ")
	}
	return p
}

// FuzzRequest: a request that is taken is what a plain reader makes of it; written
// as HTTP/1.1 net/http reads the same, and written as HTTP/2 x/net does.
func FuzzRequest(f *testing.F) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, fields := range [][]string{
		getHead(), getHead("content-length: 5", "cookie: a=b", "x: y", "cookie: c=d"), getHead("host: a", "te: trailers", "expect: 100-continue"),
		{":method: CONNECT", ":authority: a:1"}, {":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /"},
		{":method: OPTIONS", ":scheme: https", ":path: *", "host: [::1]:80"}, getHead("cookie: ", "cookie: x", "a: \t"),
	} {
		b.Reset()
		for _, x := range fields {
			i := strings.Index(x[1:], ":") + 1
			enc.WriteField(hpack.HeaderField{Name: x[:i], Value: strings.TrimPrefix(x[i+1:], " ")})
		}
		f.Add(bytes.Clone(b.Bytes()), false)
		f.Add(bytes.Clone(b.Bytes()), true)
	}
	f.Fuzz(func(t *testing.T, block []byte, end bool) {
		if len(block) > 16<<10 {
			return
		}
		w := newWire(t, false)
		w.heard = func(st *h2.Stream, fields []h2.Field, end bool) {
			var s Server
			s.Init(st)
			var q message.Request
			if err := s.ReadHead(&q, fields, end); err != nil {
				if err.Status != 400 && err.Status != 417 {
					t.Errorf("status %d", err.Status)
				}
				return
			}
			p := plainHead(block)
			compareRequest(t, &q, p, end)
			if string(q.Method) != "CONNECT" {
				writeHTTP1(t, &q)
				writeHTTP2(t, &q)
			}
		}
		w.block(1, end, block)
	})
}

func compareRequest(t *testing.T, q *message.Request, p plain, end bool) {
	t.Helper()
	authority, method, upgrade := p.pseudo[":authority"], p.pseudo[":method"], ""
	if authority == "" && len(p.host) == 1 {
		authority = p.host[0]
	}
	length := int64(message.UnknownLength)
	if n, err := strconv.ParseInt(p.length, 10, 64); err == nil && !p.trail {
		length = n
	}
	if end {
		length = 0
	}
	expect := p.expect && !end
	if protocol, ok := p.pseudo[":protocol"]; ok {
		method, upgrade, length, expect = "GET", protocol, 0, false
	}
	want := fmt.Sprintf("%s %s %s %s %d %v %v %s\n%s", method, p.pseudo[":scheme"], authority, p.pseudo[":path"], length, p.te, expect, upgrade, strings.Join(p.fields, "\r\n"))
	got := fmt.Sprintf("%s %s %s %s %d %v %v %s\n%s", q.Method, q.Scheme, q.Authority, q.Path, q.Length, q.TE, q.ExpectContinue, q.Upgrade, strings.TrimSuffix(lines(&q.Header), "\r\n"))
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(p.host) > 1 || len(p.host) == 1 && !strings.EqualFold(p.host[0], authority) {
		t.Errorf("taken with hosts %q beside %q", p.host, authority)
	}
}

// writeHTTP1 writes a request as HTTP/1.1, and has net/http read it.
func writeHTTP1(t *testing.T, q *message.Request) {
	t.Helper()
	var sink bufSink
	var c http1.Client
	var tn turn.Turn
	c.Init(&sink, nil, nil)
	if err := c.WriteHead(&tn, q, false); err != nil {
		t.Fatalf("a request that was taken is none for HTTP/1.1: %v", err)
	}
	raw := sink.String()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		// net/http is narrower in a few targets and methods; it must not read
		// something else.
		if !strings.Contains(err.Error(), "invalid") && !strings.Contains(err.Error(), "malformed") && !strings.Contains(err.Error(), "parse") {
			t.Errorf("net/http: %v in %q", err, raw)
		}
		return
	}
	var got, want []string
	for name, values := range r.Header {
		for _, v := range values {
			got = append(got, name+": "+v)
		}
	}
	for i := range q.Header.Len() {
		name, value := q.Header.Field(i)
		want = append(want, http.CanonicalHeaderKey(string(name))+": "+strings.Trim(string(value), " \t"))
	}
	if len(q.Upgrade) > 0 {
		want = append(want, "Connection: upgrade", "Upgrade: "+string(q.Upgrade))
	}
	if q.ExpectContinue {
		want = append(want, "Expect: 100-continue")
	}
	if q.Length > 0 || q.Length == 0 && strings.Contains(raw, "Content-Length: 0\r\n") {
		want = append(want, "Content-Length: "+strconv.FormatInt(q.Length, 10))
	}
	// net/http takes what it understands out of the fields, and drops Host.
	drop := func(s string) bool { return strings.HasPrefix(s, "Content-Length: ") }
	got, want = slices.DeleteFunc(got, drop), slices.DeleteFunc(want, drop)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || r.Method != string(q.Method) || r.RequestURI != string(q.Path) || r.Host != string(q.Authority) || q.Length >= 0 && r.ContentLength != q.Length {
		t.Errorf("net/http read %s %s %s %d %q\nwritten %s %s %s %d %q", r.Method, r.RequestURI, r.Host, r.ContentLength, got, q.Method, q.Path, q.Authority, q.Length, want)
	}
}

// writeHTTP2 writes a request as HTTP/2, and has x/net read it.
func writeHTTP2(t *testing.T, q *message.Request) {
	t.Helper()
	w := newWire(t, true)
	var c Client
	if err := w.open(&c, q, false); err != nil {
		t.Fatalf("a request that was taken is none for HTTP/2: %v", err)
	}
	method, upgrade := string(q.Method), ""
	if len(q.Upgrade) > 0 {
		method, upgrade = "CONNECT", "|:protocol="+string(q.Upgrade)
	}
	want := fmt.Sprintf(":method=%s|:scheme=%s|:authority=%s|:path=%s%s", method, q.Scheme, q.Authority, q.Path, upgrade)
	for i := range q.Header.Len() {
		name, value := q.Header.Field(i)
		want += "|" + strings.ToLower(string(name)) + "=" + strings.Trim(string(value), " \t")
		switch strings.ToLower(string(name)) {
		case "authorization", "proxy-authorization", "cookie", "set-cookie":
			want += " (sensitive)"
		}
	}
	if q.TE {
		want += "|te=trailers"
	}
	if q.Length >= 0 && len(q.Upgrade) == 0 {
		want += "|content-length=" + strconv.FormatInt(q.Length, 10)
	}
	if got := strings.Join(w.frames(), "\n"); got != want {
		t.Errorf("x/net read %q\nwant       %q", got, want)
	}
}

// FuzzResponse: a response that is taken is written as HTTP/1.1 so that net/http
// reads the same of it, with its body and trailers.
func FuzzResponse(f *testing.F) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, fields := range [][]string{
		{":status: 200", "content-length: 5", "x: y"}, {":status: 204"}, {":status: 304", "etag: x"}, {":status: 103", "link: x"}, {":status: 999"}, {":status: 500", "set-cookie: a", "set-cookie: b"},
	} {
		b.Reset()
		for _, x := range fields {
			i := strings.Index(x[1:], ":") + 1
			enc.WriteField(hpack.HeaderField{Name: x[:i], Value: strings.TrimPrefix(x[i+1:], " ")})
		}
		f.Add(bytes.Clone(b.Bytes()), "hello", false)
		f.Add(bytes.Clone(b.Bytes()), "", true)
	}
	f.Fuzz(func(t *testing.T, block []byte, body string, head bool) {
		if len(block) > 16<<10 || len(body) > 1<<10 {
			return
		}
		w := newWire(t, true)
		var c Client
		method := "GET"
		if head {
			method = "HEAD"
		}
		q := request(func(q *message.Request) { q.Method = []byte(method) })
		if err := w.open(&c, q, true); err != nil {
			t.Fatal(err)
		}
		w.heard = func(_ *h2.Stream, fields []h2.Field, end bool) {
			var r message.Response
			hasBody, err := c.ReadHead(&r, fields, end)
			if err != nil || r.Status < 200 {
				return
			}
			p := plainHead(block)
			if fmt.Sprint(r.Status) != p.pseudo[":status"] || strings.TrimSuffix(lines(&r.Header), "\r\n") != strings.Join(p.fields, "\r\n") {
				t.Errorf("got %d %q, want %v", r.Status, lines(&r.Header), p)
			}
			if !hasBody {
				body = ""
			} else if r.Length >= 0 {
				body = strings.Repeat("x", int(min(r.Length, 1<<10)))
				if int64(len(body)) != r.Length {
					return
				}
			}
			answerHTTP1(t, &r, method, body, hasBody)
		}
		w.block(1, false, block)
	})
}

// answerHTTP1 writes a response as HTTP/1.1, and has net/http read it.
func answerHTTP1(t *testing.T, r *message.Response, method, body string, hasBody bool) {
	t.Helper()
	var sink bufSink
	var s http1.Server
	var tn turn.Turn
	h := &asks{}
	s.Init(&sink, h, nil)
	s.Feed(&tn, []byte(method+" / HTTP/1.1\r\nHost: a\r\n\r\n"))
	if err := s.WriteHead(&tn, r, !hasBody); err != nil {
		t.Fatalf("a response that was taken is none for HTTP/1.1: %v", err)
	}
	if hasBody {
		if err := s.WriteChunk(&tn, &message.Chunk{Data: []byte(body), End: true}); err != nil {
			t.Fatal(err)
		}
	}
	defer s.Release()
	raw := sink.String()
	br := bufio.NewReader(strings.NewReader(raw))
	got, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("net/http: %v in %q", err, raw)
	}
	text, err := io.ReadAll(got.Body)
	if err != nil || string(text) != body || got.StatusCode != r.Status {
		t.Errorf("net/http read %d %q (%v), written %d %q: %q", got.StatusCode, text, err, r.Status, body, raw)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Errorf("behind the response: %q", rest)
	}
}

// asks lends a request, and wants nothing.
type asks struct{ q message.Request }

func (a *asks) NewRequest(*turn.Turn) *message.Request           { return &a.q }
func (a *asks) Request(*turn.Turn, *message.Request, bool)       {}
func (a *asks) RequestChunk(*turn.Turn, *message.Chunk)          {}
func (a *asks) RequestError(_ *turn.Turn, err *http1.ParseError) {}
