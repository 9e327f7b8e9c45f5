package http1

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// fuzzLimits are small, so that small inputs reach them.
func fuzzLimits() *Limits {
	l := DefaultLimits()
	l.HeadBytes, l.Fields, l.Options, l.Extension, l.Overhead = 400, 8, 4, 16, 64
	return l
}

func addSeeds(f *testing.F) {
	for _, row := range refusals {
		f.Add(row.bad)
		f.Add(row.control)
	}
	// The payload collection is only a better start: TestPayloads is where its
	// absence is told.
	root, err := needs.Root()
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(root, "..", "shared", "testdata", "http1", "payloads.json")
	if _, err := os.Stat(path); err == nil {
		for _, p := range payloads(f, path) {
			f.Add(string(p.raw))
		}
	}
}

func FuzzRequestHead(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data string) {
		l := fuzzLimits()
		s := newTestServer(l)
		s.hold = true
		s.feed(data)
		event, _, _, v := twinRequest(data, l)
		again := func(more string) verdict { _, _, _, v := twinRequest(data+more, l); return v }
		got := short
		switch {
		case len(s.events) > 0 && !strings.HasPrefix(s.events[0], "error "):
			got = accepted
		case s.err != nil:
			got = refused
		}
		v = hopeless(got, v, again)
		if got != v || v == accepted && s.events[0] != event {
			t.Fatalf("got %d %q\nwant %d %q", got, s.events, v, event)
		}
		if v == accepted {
			agreeWithNetHTTP(t, s, strings.TrimPrefix(data, "\r\n"))
		}
	})
}

// hopeless allows the parser to refuse what the twin, who judges whole heads,
// still waits for: nothing that makes the head whole may make it good.
func hopeless(got, want verdict, again func(more string) verdict) verdict {
	if got == refused && want == short {
		for _, more := range []string{"\r\n\r\n", "\n\r\n", "\r\n", "\n"} {
			if again(more) == accepted {
				return want
			}
		}
		return refused
	}
	return want
}

// agreeWithNetHTTP fails if Go's parser sees another request than ours, or none
// where it has no reason of its own.
func agreeWithNetHTTP(t *testing.T, s *testServer, data string) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(data)))
	if err != nil {
		// It also parses the URL, and knows fewer hosts and header fields.
		for _, reason := range []string{"parse ", "malformed Host", "invalid URI"} {
			if strings.Contains(err.Error(), reason) {
				return
			}
		}
		t.Fatalf("net/http refuses what we accept: %v\n%q", err, data)
	}
	q := &s.req
	if r.Method != string(q.Method) || r.ContentLength != q.Length {
		t.Errorf("net/http: method %q length %d, ours %q %d", r.Method, r.ContentLength, q.Method, q.Length)
	}
	if r.Host != string(q.Authority) {
		t.Errorf("net/http: host %q, ours %q", r.Host, q.Authority)
	}
	if strings.HasPrefix(r.RequestURI, "/") && r.RequestURI != string(q.Path) {
		t.Errorf("net/http: path %q, ours %q", r.RequestURI, q.Path)
	}
	for name, value := range q.Header.All() {
		if got := r.Header[http.CanonicalHeaderKey(string(name))]; !slices.Contains(got, string(value)) {
			t.Errorf("net/http has %q for %s, ours %q", got, name, value)
		}
	}
}

func FuzzChunked(f *testing.F) {
	for _, row := range refusals {
		for _, s := range []string{row.bad, row.control} {
			if head, body, ok := strings.Cut(s, "\r\n\r\n"); ok && strings.Contains(head, "chunked") {
				f.Add(body)
			}
		}
	}
	f.Add("5;a=\"b\\\"c\";d\r\nhello\r\n6\r\n world\r\n0;x\r\nA: b\r\nHost: c\r\n\r\nrest")
	f.Fuzz(func(t *testing.T, data string) {
		l := fuzzLimits()
		s := newTestServer(l)
		s.hold = true
		s.feed(chunkedPost(data))
		got, body, trailer := short, s.body.String(), ""
		for _, e := range s.events[1:] {
			switch {
			case strings.HasPrefix(e, "body "):
				got, body = accepted, e[len("body "):]
			case strings.HasPrefix(e, "trailer "):
				trailer = e[len("trailer "):]
			case strings.HasPrefix(e, "error "):
				got = refused
			}
		}
		wantBody, wantTrailer, rest, v := twinChunked(data, l)
		if v == accepted {
			wantBody = quote(wantBody)
		}
		if got != v || v != refused && body != wantBody || v == accepted && (trailer != wantTrailer || s.Kept() != len(rest)) {
			t.Fatalf("got %d %s %s kept %d\nwant %d %s %s %d", got, body, trailer, s.Kept(), v, wantBody, wantTrailer, len(rest))
		}
		if v != accepted {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(chunkedPost(data))))
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(r.Body)
		if err != nil && !strings.Contains(err.Error(), "too much overhead") && !strings.Contains(err.Error(), "malformed") {
			t.Fatalf("net/http refuses what we accept: %v", err)
		}
		if err == nil && quote(string(all)) != body {
			t.Errorf("net/http: body %q, ours %s", all, body)
		}
	})
}

func FuzzResponseHead(f *testing.F) {
	for _, row := range badResponses {
		f.Add(row.bad)
		f.Add(row.control)
	}
	f.Fuzz(func(t *testing.T, data string) {
		l := fuzzLimits()
		c := newTestClient(l)
		if err := c.WriteHead(&c.t, get(), true); err != nil {
			t.Fatal(err)
		}
		c.feed(data)
		event, _, body, v := twinResponse(data, l)
		again := func(more string) verdict { _, _, _, v := twinResponse(data+more, l); return v }
		got := short
		switch {
		case len(c.events) > 0 && !strings.HasPrefix(c.events[0], "error "):
			got = accepted
		case c.err != nil:
			got = refused
		}
		v = hopeless(got, v, again)
		if got != v || v == accepted && c.events[0] != event {
			t.Fatalf("got %d %q\nwant %d %q", got, c.events, v, event)
		}
		if v != accepted || strings.HasPrefix(event, "informational") {
			return
		}
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(data)), nil)
		if err != nil {
			t.Fatalf("net/http refuses what we accept: %v", err)
		}
		if r.StatusCode != c.headStatus() || body == -1 && r.ContentLength != -1 || body > 0 && r.ContentLength != body {
			t.Errorf("net/http: status %d length %d, ours %q", r.StatusCode, r.ContentLength, event)
		}
	})
}

// FuzzSegmentation: however the same bytes are cut, the events are the same.
func FuzzSegmentation(f *testing.F) {
	for _, row := range refusals {
		f.Add(row.bad, "\x01")
		f.Add(row.control+row.control, "\x05\x01\x03")
	}
	for _, row := range badResponses {
		f.Add(row.bad, "\x01")
		f.Add(row.control, "\x07\x02")
	}
	f.Fuzz(func(t *testing.T, data, cuts string) {
		whole, parts := newTestServer(fuzzLimits()), newTestServer(fuzzLimits())
		whole.feed(data).EOF(&whole.t)
		cut(data, cuts, func(p string) { parts.feed(p) })
		parts.EOF(&parts.t)
		same(t, "server", whole.events, parts.events)
		wantWritten(t, parts.take(), whole.take())

		one, many := newTestClient(fuzzLimits()), newTestClient(fuzzLimits())
		one.ask(t, get()).feed(data).EOF(&one.t)
		many.ask(t, get())
		cut(data, cuts, func(p string) { many.feed(p) })
		many.EOF(&many.t)
		same(t, "client", one.events, many.events)
	})
}

// cut hands on data in pieces whose sizes cuts names, over and over.
func cut(data, cuts string, feed func(string)) {
	for i := 0; data != ""; i++ {
		n := 1
		if cuts != "" {
			n = max(1, int(cuts[i%len(cuts)]))
		}
		n = min(n, len(data))
		feed(data[:n])
		data = data[n:]
	}
}

func same(t *testing.T, who string, a, b []string) {
	t.Helper()
	if !slices.Equal(a, b) {
		t.Errorf("%s: events differ\nwhole  %q\nin parts %q", who, a, b)
	}
}

// FuzzForward: what is written for any bytes reads back as the same messages,
// to this parser and to Go's; a message cut off by an error never reads as whole.
func FuzzForward(f *testing.F) {
	addSeeds(f)
	f.Add(refusals[0].control + chunkedPost("3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n") + "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
	f.Fuzz(func(t *testing.T, data string) {
		first := forward([]byte(data))
		stream := first.out.out.String()
		again := forward([]byte(stream))
		if again.err != nil && first.err == nil {
			t.Errorf("what we wrote is refused: %v\n%q", again.err, stream)
		}
		sameMessages(t, "our own parser", again.messages, first.messages)
		if got, policy := goSees(stream); policy == "" {
			sameMessages(t, "net/http", got, first.messages)
		}
	})
}
