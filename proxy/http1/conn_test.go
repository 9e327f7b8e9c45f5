package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A sink remembers what was written to it.
type sink struct {
	out    bytes.Buffer
	writes int
}

func (s *sink) Write(_ *turn.Turn, p []byte) { s.out.Write(p); s.writes++ }
func (s *sink) Buffered() int                { return 0 }
func (s *sink) CloseWrite(*turn.Turn)        {}
func (s *sink) Abort(_ *turn.Turn, _ uint32) {}
func (s *sink) take() (written string)       { written = s.out.String(); s.out.Reset(); return written }

// A testServer is a Server, and writes down what it is told. Events read as one
// line each; body bytes are joined, because it must not matter how they came.
type testServer struct {
	Server
	sink
	t      turn.Turn
	req    message.Request
	events []string
	body   strings.Builder
	err    *ParseError
	hold   bool // the test answers; otherwise each request gets 200 at its end
}

func newTestServer(l *Limits) *testServer {
	s := &testServer{}
	s.Server.Init(&s.sink, s, l)
	return s
}

func (s *testServer) feed(p string) *testServer { s.Server.Feed(&s.t, []byte(p)); return s }

func (s *testServer) log(format string, a ...any) {
	s.events = append(s.events, fmt.Sprintf(format, a...))
}

func (s *testServer) NewRequest(*turn.Turn) *message.Request {
	s.req.Reset()
	return &s.req
}

func (s *testServer) Request(_ *turn.Turn, r *message.Request, end bool) {
	if c := (Client{asked: asked{connect: string(r.Method) == "CONNECT"}}); !c.validHead(r) { // or AsParsed would say too much
		s.log("what was parsed may not be written")
	}
	s.log("%s", describe(r))
	if end {
		s.answer()
	}
}

func (s *testServer) RequestChunk(_ *turn.Turn, c *message.Chunk) {
	s.body.Write(c.Data)
	if c.End {
		s.log("body %q", s.body.String())
		s.body.Reset()
		if c.Trailer != nil {
			s.log("trailer %s", fields(c.Trailer))
		}
		s.answer()
	}
}

func (s *testServer) RequestError(_ *turn.Turn, err *ParseError) {
	if s.body.Len() > 0 {
		s.log("part %q", s.body.String())
		s.body.Reset()
	}
	s.err = err
	s.log("error %d %s @%d", err.Status, err.Reason, err.Offset)
}

func (s *testServer) answer() {
	if s.hold {
		return
	}
	if err := s.WriteHead(&s.t, &message.Response{Status: 200}, true); err != nil {
		s.log("answer: %v", err)
	}
	if s.KeepAlive() {
		s.Next(&s.t)
	}
}

func describe(r *message.Request) string {
	s := fmt.Sprintf("%s %s://%s %s len=%d %v", r.Method, r.Scheme, r.Authority, r.Path, r.Length, r.Proto)
	if len(r.Upgrade) > 0 {
		s += fmt.Sprintf(" upgrade=%s", r.Upgrade)
	}
	if r.ExpectContinue {
		s += " waits"
	}
	return s + " " + fields(&r.Header)
}

func fields(h *message.Header) string {
	var b strings.Builder
	for name, value := range h.All() {
		fmt.Fprintf(&b, "[%s=%s]", name, value)
	}
	return b.String()
}

// A testClient is a Client, and writes down what it is told.
type testClient struct {
	Client
	sink
	t      turn.Turn
	resp   message.Response
	events []string
	body   strings.Builder
	err    error
	after  func() // called at the response's end
}

func newTestClient(l *Limits) *testClient {
	c := &testClient{}
	c.Client.Init(&c.sink, c, l)
	return c
}

func (c *testClient) ask(t *testing.T, q *message.Request) *testClient {
	t.Helper()
	if q.Authority == nil {
		q.Authority = []byte("h")
	}
	if err := c.WriteHead(&c.t, q, q.Length == 0); err != nil {
		t.Fatalf("WriteHead: %v", err)
	}
	return c
}

func (c *testClient) feed(p string) *testClient { c.Client.Feed(&c.t, []byte(p)); return c }

func (c *testClient) log(format string, a ...any) {
	c.events = append(c.events, fmt.Sprintf(format, a...))
}

func (c *testClient) NewResponse(*turn.Turn) *message.Response {
	c.resp.Reset()
	return &c.resp
}

func (c *testClient) Informational(_ *turn.Turn, r *message.Response) {
	c.log("informational %d %s", r.Status, fields(&r.Header))
}

func (c *testClient) Response(_ *turn.Turn, r *message.Response, end bool) {
	c.log("%d %s len=%d %v %s", r.Status, r.Reason, r.Length, r.Proto, fields(&r.Header))
	if end {
		c.done()
	}
}

func (c *testClient) WholeResponse(t *turn.Turn, r *message.Response, body []byte) {
	c.Response(t, r, false)
	c.ResponseChunk(t, &message.Chunk{Data: body, End: true})
}
func (c *testClient) ResponseChunk(_ *turn.Turn, k *message.Chunk) {
	c.body.Write(k.Data)
	if k.End {
		c.log("body %q", c.body.String())
		c.body.Reset()
		if k.Trailer != nil {
			c.log("trailer %s", fields(k.Trailer))
		}
		c.done()
	}
}

func (c *testClient) ResponseError(_ *turn.Turn, err error) {
	if c.body.Len() > 0 {
		c.log("part %q", c.body.String())
		c.body.Reset()
	}
	c.err = err
	c.log("error %v", err)
}

func (c *testClient) done() {
	c.log("end")
	if c.after != nil {
		c.after()
	}
}

func get() *message.Request {
	return &message.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("h")}
}

func wantEvents(t *testing.T, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got events\n%s\nwant\n%s", g, w)
	}
}

func wantWritten(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("written\n%q\nwant\n%q", got, want)
	}
}

// noBuffersLent fails if the test ends with more lent buffers than it began with.
func noBuffersLent(t *testing.T) {
	t.Helper()
	before := buf.Outstanding()
	t.Cleanup(func() {
		if got := buf.Outstanding(); got != before {
			t.Errorf("%d buffers lent at the end, %d at the start", got, before)
		}
	})
}

// TestTestServer shows how the tests of the server side read.
func TestTestServer(t *testing.T) {
	s := newTestServer(nil)
	s.feed("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello")
	wantEvents(t, s.events, "POST http://h /a len=5 HTTP/1.1 [X-A=1]", `body "hello"`)
	wantWritten(t, s.take(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

// TestTestClient shows how the tests of the client side read.
func TestTestClient(t *testing.T) {
	c := newTestClient(nil).ask(t, get())
	wantWritten(t, c.take(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-B: 2\r\n\r\nhello")
	wantEvents(t, c.events, "200 OK len=5 HTTP/1.1 [X-B=2]", `body "hello"`, "end")
	if !c.Reusable() {
		t.Error("Reusable is false after a plain exchange")
	}
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

// headStatus is the status of the first final response the client was told of.
func (c *testClient) headStatus() (status int) {
	for _, e := range c.events {
		if _, err := fmt.Sscanf(e, "%d ", &status); err == nil {
			return status
		}
	}
	return 0
}
