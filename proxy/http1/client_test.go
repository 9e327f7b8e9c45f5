package http1

import (
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func request(method string) *message.Request {
	q := get()
	q.Method = []byte(method)
	if method == "CONNECT" {
		q.Authority, q.Path = []byte("h:443"), nil
	}
	return q
}

// badResponses are wrong in one place, each with a control.
var badResponses = []struct{ name, bad, control string }{
	{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"bare CR in the reason", "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 O K\r\nContent-Length: 0\r\n\r\n"},
	{"no reason, no space", "HTTP/1.1 200X\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"},
	{"two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"},
	{"letters", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200  OK\r\nContent-Length: 0\r\n\r\n"},
	{"empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"folded value", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b c\r\n\r\n"},
	{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"two Content-Lengths", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"other coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"informational with a body", "HTTP/1.1 103 Early Hints\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"too many informational", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 11), strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"},
	{"too many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 101) + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + strings.Repeat("A: b\r\n", 99) + "\r\n"},
	{"head too large", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 60<<10) + "\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: " + strings.Repeat("b", 59<<10) + "\r\n\r\n"},
}

func TestBadResponses(t *testing.T) {
	for _, row := range badResponses {
		bad := newTestClient(nil).ask(t, get()).feed(row.bad)
		if e, ok := bad.err.(*ParseError); !ok || e.Status != 502 || bad.Reusable() {
			t.Errorf("%s: got error %v, Reusable %v; want a 502, false", row.name, bad.err, bad.Reusable())
		}
		control := newTestClient(nil).ask(t, get()).feed(row.control)
		if control.err != nil || len(control.events) == 0 || control.events[len(control.events)-1] != "end" {
			t.Errorf("%s, control: got %q", row.name, control.events)
		}
	}
}

// TestResponseBodies: where a response ends depends on the request, the status
// and the framing, in this order (RFC 9112, section 6.3).
func TestResponseBodies(t *testing.T) {
	for _, row := range []struct {
		name, method, response string
		want                   []string
		reusable               bool
	}{
		{"sized", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", []string{"200 OK len=2 HTTP/1.1 ", `body "hi"`, "end"}, true},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nA: b\r\nAge: 1\r\n\r\n", []string{"200 OK len=-1 HTTP/1.1 ", `body "hi"`, "trailer [A=b]", "end"}, true},
		{"empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", []string{"200 OK len=0 HTTP/1.1 ", "end"}, true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", []string{"200 OK len=2 HTTP/1.1 ", "end"}, true},
		{"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", []string{"200 OK len=-1 HTTP/1.1 ", "end"}, true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", []string{"204 No Content len=0 HTTP/1.1 ", "end"}, true},
		{"204 with a zero length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", []string{"204 No Content len=0 HTTP/1.1 ", "end"}, true},
		{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", []string{"204 No Content len=0 HTTP/1.1 ", "end"}, false},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", []string{"304 Not Modified len=0 HTTP/1.1 ", "end"}, true},
		{"close asked", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", []string{"200 OK len=0 HTTP/1.1 ", "end"}, false},
		{"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", []string{"200 OK len=0 HTTP/1.0 ", "end"}, false},
		{"1.0 keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", []string{"200 OK len=0 HTTP/1.0 ", "end"}, true},
		{"hop by hop", "GET", "HTTP/1.1 200\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: 1\r\nContent-Length: 0\r\n\r\n", []string{"200  len=0 HTTP/1.1 [X-B=2]", "end"}, true},
		{"informational", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			[]string{"informational 100 ", "informational 103 [Link=a]", "200 OK len=0 HTTP/1.1 ", "end"}, true},
		{"more than was asked", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", []string{"200 OK len=0 HTTP/1.1 ", "end"}, false},
		{"body behind HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", []string{"200 OK len=2 HTTP/1.1 ", "end"}, false},
		{"body behind 204", "GET", "HTTP/1.1 204 No Content\r\n\r\nhi", []string{"204 No Content len=0 HTTP/1.1 ", "end"}, false},
		{"refused CONNECT", "CONNECT", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", []string{"403 Forbidden len=0 HTTP/1.1 ", "end"}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newTestClient(nil).ask(t, request(row.method))
			reusable := false
			c.after = func() { reusable = c.Reusable() }
			c.feed(row.response)
			wantEvents(t, c.events, row.want...)
			if reusable != row.reusable || c.Reusable() != row.reusable {
				t.Errorf("Reusable is %v at the end and %v later, want %v", reusable, c.Reusable(), row.reusable)
			}
		})
	}
}

func TestCloseDelimited(t *testing.T) {
	c := newTestClient(nil).ask(t, get()).feed("HTTP/1.1 200 OK\r\n\r\nhi").feed(" there")
	c.EOF(&c.t)
	wantEvents(t, c.events, "200 OK len=-1 HTTP/1.1 ", `body "hi there"`, "end")
	if c.Reusable() {
		t.Error("Reusable after EOF")
	}
}

func TestServerEOF(t *testing.T) {
	for _, sent := range []string{"", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"} {
		c := newTestClient(nil).ask(t, get()).feed(sent)
		if c.EOF(&c.t); c.err != ErrTruncated || c.Reusable() {
			t.Errorf("EOF behind %q: got %v, Reusable %v", sent, c.err, c.Reusable())
		}
		if c.Started() != (sent != "") {
			t.Errorf("EOF behind %q: Started is %v", sent, c.Started())
		}
	}
	c := newTestClient(nil)
	if c.EOF(&c.t); c.err != nil || c.Reusable() {
		t.Errorf("EOF between exchanges: got %v, Reusable %v; want no error, false", c.err, c.Reusable())
	}
}

// TestUnsolicited: a byte nobody asked for (a server's 408, or the rest of a
// response that was smuggled) makes the connection unusable, silently.
func TestUnsolicited(t *testing.T) {
	c := newTestClient(nil)
	c.feed("HTTP/1.1 408 Request Timeout\r\n")
	if c.Reusable() || len(c.events) > 0 {
		t.Errorf("Reusable %v, events %q; want false and none", c.Reusable(), c.events)
	}
	if err := c.WriteHead(&c.t, get(), true); err != ErrOrder {
		t.Errorf("WriteHead: got %v, want %v", err, ErrOrder)
	}
}

// TestResponseBeforeRequestEnds: the response counts, the connection does not.
func TestResponseBeforeRequestEnds(t *testing.T) {
	q := request("POST")
	q.Length = 2
	c := newTestClient(nil).ask(t, q).feed("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	wantEvents(t, c.events, "403 Forbidden len=0 HTTP/1.1 ", "end")
	if err := c.WriteChunk(&c.t, &message.Chunk{Data: []byte("hi"), End: true}); err != nil || c.Reusable() {
		t.Errorf("rest of the request: %v, Reusable %v; want nil, false", err, c.Reusable())
	}
}

func TestReuse(t *testing.T) {
	noBuffersLent(t)
	c := newTestClient(nil)
	for range 3 {
		c.ask(t, get()).feed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	}
	wantEvents(t, c.events[6:], "200 OK len=2 HTTP/1.1 ", `body "hi"`, "end")
	if !c.Reusable() {
		t.Error("not Reusable")
	}
}

func TestClientSwitch(t *testing.T) {
	noBuffersLent(t)
	q := get()
	q.Upgrade = []byte("websocket")
	c := newTestClient(nil).ask(t, q)
	wantWritten(t, c.take(), "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	var rest []byte
	var ok bool
	c.after = func() { rest, ok = c.Detach() }
	c.feed("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00")
	if string(c.resp.Upgrade) != "websocket" || string(rest) != "\x81\x00" || !ok || c.Reusable() {
		t.Errorf("upgrade %q, rest %q, ok %v, Reusable %v", c.resp.Upgrade, rest, ok, c.Reusable())
	}
	(&kept{bytes: rest}).drop()

	c = newTestClient(nil).ask(t, request("CONNECT"))
	wantWritten(t, c.take(), "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n")
	c.feed("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").feed("early")
	wantEvents(t, c.events, "200 OK len=0 HTTP/1.1 ", "end")
	if rest, ok = c.Detach(); string(rest) != "early" || !ok {
		t.Errorf("Detach: got %q %v", rest, ok)
	}
	(&kept{bytes: rest}).drop()
}

func TestWriteRequests(t *testing.T) {
	for _, row := range []struct {
		name string
		q    message.Request
		end  bool
		want string
	}{
		{"POST without a body", message.Request{Method: []byte("POST"), Path: []byte("/")}, true, "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"},
		{"unknown length that is none", message.Request{Method: []byte("PUT"), Path: []byte("/"), Length: -1}, true, "PUT / HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"},
		{"unknown length", message.Request{Method: []byte("GET"), Path: []byte("/"), Length: -1}, false, "GET / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"waits", message.Request{Method: []byte("PUT"), Path: []byte("/"), Length: 3, ExpectContinue: true}, false, "PUT / HTTP/1.1\r\nHost: \r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"},
		{"close", message.Request{Method: []byte("GET"), Path: []byte("/"), Close: true}, true, "GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n"},
		{"asterisk", message.Request{Method: []byte("OPTIONS"), Path: []byte("*")}, true, "OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n"},
	} {
		c := newTestClient(nil)
		if err := c.WriteHead(&c.t, &row.q, row.end); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		wantWritten(t, c.take(), row.want)
	}
}

// TestInvalidHeadsAreNotWritten: what a filter assigned without the Set methods
// cannot end a line either.
func TestInvalidHeadsAreNotWritten(t *testing.T) {
	for name, spoil := range map[string]func(q *message.Request){
		"path with a space":     func(q *message.Request) { q.Path = []byte("/ HTTP/1.1\r\nA: b") },
		"path without a slash":  func(q *message.Request) { q.Path = []byte("x") },
		"no path":               func(q *message.Request) { q.Path = nil },
		"method with CRLF":      func(q *message.Request) { q.Method = []byte("GET /\r\n") },
		"no method":             func(q *message.Request) { q.Method = nil },
		"authority with CRLF":   func(q *message.Request) { q.Authority = []byte("h\r\nA: b") },
		"upgrade with CRLF":     func(q *message.Request) { q.Upgrade = []byte("a\r\nA: b") },
		"CONNECT with no place": func(q *message.Request) { q.Method, q.Authority = []byte("CONNECT"), nil },
	} {
		q, c := get(), newTestClient(nil)
		spoil(q)
		if err := c.WriteHead(&c.t, q, true); err != ErrHead || c.take() != "" {
			t.Errorf("%s: got %v, want %v and nothing written", name, err, ErrHead)
		}
	}
	c := newTestClient(nil)
	if err := c.WriteHead(&c.t, get(), true); err != nil {
		t.Errorf("control: %v", err)
	}
}

// TestRelease: whatever state a codec is in, it gives back what it holds and
// hears nothing more.
func TestRelease(t *testing.T) {
	noBuffersLent(t)
	s := newTestServer(nil)
	s.hold = true
	s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n")
	s.Release()
	s.feed("Host: h\r\n\r\n").EOF(&s.t)
	if len(s.events) != 1 || s.Kept() != 0 {
		t.Errorf("events %q, Kept %d", s.events, s.Kept())
	}
	c := newTestClient(nil).ask(t, get()).feed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
	c.Release()
	c.feed("there").EOF(&c.t)
	if len(c.events) != 1 {
		t.Errorf("events %q", c.events)
	}
}
