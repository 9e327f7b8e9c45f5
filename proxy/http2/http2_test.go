package http2

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func getHead(more ...string) []string {
	return append([]string{":method: GET", ":scheme: http", ":authority: a", ":path: /x?y"}, more...)
}

// TestReadRequest: what becomes of the fields of a request, and what is no request.
func TestReadRequest(t *testing.T) {
	connect := func(more ...string) []string {
		return append([]string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /x"}, more...)
	}
	for _, row := range []struct {
		name   string
		fields []string
		open   bool // the request has content
		want   string
		bad    string
	}{
		{name: "plain", fields: getHead("accept: */*", "x-own: 1"), want: "GET http a /x?y 0\naccept: */*\r\nx-own: 1\r\n"},
		{name: "a length", fields: getHead("content-length: 12"), open: true, want: "GET http a /x?y 12\n"},
		{name: "no length", fields: getHead(), open: true, want: "GET http a /x?y -1\n"},
		{name: "a length of none", fields: getHead("content-length: 0"), open: true, want: "GET http a /x?y 0\n"},
		{name: "crumbs", fields: getHead("cookie: a=b", "x: y", "cookie: c=d", "cookie: e=f"), want: "GET http a /x?y 0\ncookie: a=b; c=d; e=f\r\nx: y\r\n"},
		{name: "host", fields: getHead("host: A"), want: "GET http a /x?y 0\n"},
		{name: "host alone", fields: []string{":method: GET", ":scheme: https", ":path: /", "host: b:8080"}, want: "GET https b:8080 / 0\n"},
		{name: "te", fields: getHead("te: trailers"), want: "GET http a /x?y 0 te\n"},
		{name: "expect", fields: getHead("expect: 100-continue"), open: true, want: "GET http a /x?y -1 expect\n"},
		{name: "expect nothing", fields: getHead("expect: 100-continue"), want: "GET http a /x?y 0\n"},
		{name: "trailer", fields: getHead("trailer: x", "http2-settings: y"), want: "GET http a /x?y 0\n"},
		{name: "trailer and a length", fields: getHead("trailer: x", "content-length: 5"), open: true, want: "GET http a /x?y -1\n"},
		{name: "connect", fields: []string{":method: CONNECT", ":authority: a:1"}, open: true, want: "CONNECT  a:1  -1\n"},
		{name: "extended connect", fields: connect("sec-websocket-version: 13"), open: true, want: "GET http a /x 0 websocket\nsec-websocket-version: 13\r\n"},

		{name: "two hosts", fields: getHead("host: a", "host: a"), bad: "400 more than one host"},
		{name: "another host", fields: getHead("host: b"), bad: "400 host differs from :authority"},
		{name: "no host", fields: []string{":method: GET", ":scheme: http", ":path: /"}, bad: "400 invalid :authority"},
		{name: "user", fields: []string{":method: GET", ":scheme: http", ":path: /", "host: u@a"}, bad: "400 invalid :authority"},
		{name: "fragment", fields: []string{":method: GET", ":scheme: http", ":authority: a", ":path: /#x"}, bad: "400 invalid :path"},
		{name: "scheme", fields: []string{":method: GET", ":scheme: HTTP", ":authority: a", ":path: /"}, bad: "400 scheme is neither http nor https"},
		{name: "method", fields: []string{":method: Get", ":scheme: http", ":authority: a", ":path: /"}, bad: "400 standard method in the wrong letter case"},
		{name: "expect more", fields: getHead("expect: tea"), bad: "417 unknown expectation"},
		{name: "zeros", fields: getHead("content-length: 00"), open: true, bad: "400 invalid content-length"},
		{name: "extended connect that ends", fields: connect(), bad: "400 malformed extended CONNECT"},
		{name: "extended connect with a length", fields: connect("content-length: 1"), open: true, bad: "400 malformed extended CONNECT"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWire(t, false)
			var s Server
			var q message.Request
			called := false
			w.heard = func(_ *h2.Stream, fields []h2.Field, end bool) {
				called = true
				err := s.ReadHead(&q, fields, end)
				if row.bad != "" {
					if err == nil || fmt.Sprint(err.Status, " ", err.Reason) != row.bad {
						t.Errorf("got %v, want %s", err, row.bad)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				got := fmt.Sprintf("%s %s %s %s %d", q.Method, q.Scheme, q.Authority, q.Path, q.Length)
				if q.TE {
					got += " te"
				}
				if q.ExpectContinue {
					got += " expect"
				}
				if len(q.Upgrade) > 0 {
					got += " " + string(q.Upgrade)
				}
				if got += "\n" + lines(&q.Header); got != row.want || q.Proto != message.HTTP2 {
					t.Errorf("got %q, want %q", got, row.want)
				}
			}
			w.head(1, !row.open, row.fields...)
			if !called {
				t.Fatal("the engine refused it")
			}
		})
	}
}

// TestWriteResponse: what is written of a response, its framing, and bodies that
// do not keep to it.
func TestWriteResponse(t *testing.T) {
	for _, row := range []struct {
		name   string
		method string
		write  func(tn *turn.Turn, s *Server, r *message.Response) error
		want   []string
		err    error
	}{
		{name: "whole", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Header.Add("X-Upper-Case", " padded ")
			r.Header.Add("Set-Cookie", "a=b")
			r.Header.Add("Connection", "close")
			r.Length = 5
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{Data: []byte("hello"), End: true}))
		}, want: []string{":status=200|x-upper-case=padded|set-cookie=a=b (sensitive)|content-length=5", "data hello end"}},
		{name: "no body", write: func(tn *turn.Turn, s *Server, r *message.Response) error { return s.WriteHead(tn, r, true) }, want: []string{":status=200|content-length=0 end"}},
		{name: "unknown length", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = message.UnknownLength
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{Data: []byte("a")}), s.WriteChunk(tn, &message.Chunk{End: true}))
		}, want: []string{":status=200", "data a end"}},
		{name: "trailers", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = message.UnknownLength
			r.Trailer.Add("Grpc-Status", "0")
			r.Trailer.Add("Content-Length", "7")
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{Data: []byte("a"), End: true, Trailer: &r.Trailer}))
		}, want: []string{":status=200", "data a", "grpc-status=0 end"}},
		{name: "trailers that may not be", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = message.UnknownLength
			r.Trailer.Add("Host", "x")
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{End: true, Trailer: &r.Trailer}))
		}, want: []string{":status=200", "data  end"}},
		{name: "interim", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			s.Informational(tn, &message.Response{Status: 103})
			s.Informational(tn, &message.Response{Status: 101})
			s.Informational(tn, &message.Response{Status: 100}) // nobody waits
			err := s.WriteHead(tn, r, true)
			s.Informational(tn, &message.Response{Status: 103}) // too late
			return err
		}, want: []string{":status=103", ":status=200|content-length=0 end"}},
		{name: "HEAD", method: "HEAD", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = 1000
			return s.WriteHead(tn, r, true)
		}, want: []string{":status=200|content-length=1000 end"}},
		{name: "HEAD with a body", method: "HEAD", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = 3
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{Data: []byte("abc"), End: true}))
		}, want: []string{":status=200|content-length=3", "data  end"}},
		{name: "204", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Status = 204
			return s.WriteHead(tn, r, true)
		}, want: []string{":status=204 end"}},
		{name: "too long", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = 2
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{Data: []byte("abc")}))
		}, err: ErrLength, want: []string{":status=200|content-length=2"}},
		{name: "too short", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = 2
			return errors.Join(s.WriteHead(tn, r, false), s.WriteChunk(tn, &message.Chunk{Data: []byte("a"), End: true}))
		}, err: ErrLength, want: []string{":status=200|content-length=2"}},
		{name: "length without body", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Length = 2
			return s.WriteHead(tn, r, true)
		}, err: ErrLength},
		{name: "twice", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			return errors.Join(s.WriteHead(tn, r, true), s.WriteHead(tn, r, true))
		}, err: ErrOrder, want: []string{":status=200|content-length=0 end"}},
		{name: "a body first", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			return s.WriteChunk(tn, &message.Chunk{Data: []byte("a")})
		}, err: ErrOrder},
		{name: "a body behind", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			return errors.Join(s.WriteHead(tn, r, true), s.WriteChunk(tn, &message.Chunk{End: true}))
		}, err: ErrOrder, want: []string{":status=200|content-length=0 end"}},
		{name: "101", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Status = 101
			return s.WriteHead(tn, r, false)
		}, err: ErrSwitch},
		{name: "a bad status", write: func(tn *turn.Turn, s *Server, r *message.Response) error {
			r.Status = 1000
			return s.WriteHead(tn, r, true)
		}, err: ErrHead},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWire(t, false)
			var s Server
			var q message.Request
			w.heard = func(st *h2.Stream, fields []h2.Field, end bool) {
				s.Init(st)
				if err := s.ReadHead(&q, fields, end); err != nil {
					t.Fatal(err)
				}
			}
			head := getHead()
			if row.method != "" {
				head[0] = ":method: " + row.method
			}
			w.head(1, true, head...)
			w.frames()
			w.do(func(tn *turn.Turn) {
				if err := row.write(tn, &s, &message.Response{Status: 200}); !errors.Is(err, row.err) {
					t.Errorf("got %v, want %v", err, row.err)
				}
			})
			w.want(row.want...)
		})
	}
}

// TestContinue: 100 is sent to who waits for it, once, and not behind the answer.
func TestContinue(t *testing.T) {
	w := newWire(t, false)
	var s Server
	var q message.Request
	w.heard = func(st *h2.Stream, fields []h2.Field, end bool) {
		s.Init(st)
		s.ReadHead(&q, fields, end)
	}
	w.head(1, false, getHead("expect: 100-continue")...)
	w.do(func(tn *turn.Turn) { s.Continue(tn); s.Continue(tn) })
	w.want(":status=100")
	q.Reset()
	w.head(3, false, getHead("expect: 100-continue")...)
	w.do(func(tn *turn.Turn) {
		s.WriteHead(tn, &message.Response{Status: 417}, true)
		s.Continue(tn)
	})
	w.want(":status=417|content-length=0 end")
}

// open opens a stream with a request.
func (w *wire) open(c *Client, q *message.Request, end bool) (err error) {
	w.do(func(tn *turn.Turn) {
		w.c.Reserve(100)
		w.s, err = c.WriteHead(tn, Place{Conn: w.c, Handler: w}, q, end)
		if err == ErrHead || err == ErrLength {
			w.c.Unreserve()
		}
	})
	return err
}

func request(set func(q *message.Request)) *message.Request {
	q := &message.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/x")}
	if set != nil {
		set(q)
	}
	return q
}

// TestWriteRequest: what is written of a request, and what is none.
func TestWriteRequest(t *testing.T) {
	for _, row := range []struct {
		name string
		set  func(q *message.Request)
		end  bool
		want string
		err  error
	}{
		{name: "plain", end: true, want: ":method=GET|:scheme=http|:authority=a|:path=/x end"},
		{name: "fields", end: true, set: func(q *message.Request) {
			q.Scheme, q.TE = []byte("https"), true
			q.Header.Add("User-Agent", "x")
			q.Header.Add("Authorization", "secret")
			q.Header.Add("Cookie", "a=b; c=d")
			q.Header.Add("Keep-Alive", "no")
			q.Header.Add("X-OWN", "Value")
		}, want: ":method=GET|:scheme=https|:authority=a|:path=/x|user-agent=x|authorization=secret (sensitive)|cookie=a=b; c=d (sensitive)|x-own=Value|te=trailers end"},
		{name: "a length", set: func(q *message.Request) { q.Length = 7 }, want: ":method=GET|:scheme=http|:authority=a|:path=/x|content-length=7"},
		{name: "unknown length", set: func(q *message.Request) { q.Length = message.UnknownLength }, want: ":method=GET|:scheme=http|:authority=a|:path=/x"},
		{name: "no authority", end: true, set: func(q *message.Request) { q.Authority = nil }, want: ":method=GET|:scheme=http|:path=/x end"},
		{name: "many fields", end: true, set: func(q *message.Request) {
			for i := range 60 {
				q.Header.Add(fmt.Sprintf("X-%d", i), "v")
			}
		}, want: ":method=GET|:scheme=http|:authority=a|:path=/x" + func() (s string) {
			for i := range 60 {
				s += fmt.Sprintf("|x-%d=v", i)
			}
			return s
		}() + " end"},
		{name: "an offer", end: true, set: func(q *message.Request) { q.Upgrade = []byte("websocket") }, want: ":method=CONNECT|:scheme=http|:authority=a|:path=/x|:protocol=websocket"},

		{name: "a bad path", end: true, set: func(q *message.Request) { q.Path = []byte("/x y") }, err: ErrHead},
		{name: "a bad method", end: true, set: func(q *message.Request) { q.Method = []byte("G T") }, err: ErrHead},
		{name: "CONNECT", end: true, set: func(q *message.Request) { q.Method = []byte("CONNECT") }, err: ErrHead},
		{name: "a bad authority", end: true, set: func(q *message.Request) { q.Authority = []byte("a/b") }, err: ErrHead},
		{name: "a bad offer", end: true, set: func(q *message.Request) { q.Upgrade = []byte("a b") }, err: ErrHead},
		{name: "a length without body", end: true, set: func(q *message.Request) { q.Length = 1 }, err: ErrLength},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWire(t, true)
			var c Client
			if err := w.open(&c, request(row.set), row.end); err != row.err {
				t.Fatalf("got %v, want %v", err, row.err)
			}
			if row.err == nil {
				w.want(row.want)
			} else {
				w.want()
			}
			if !w.c.Unused() == (row.err != nil) {
				t.Error("a place is left")
			}
		})
	}
}

// TestReadResponse: what becomes of responses, by what was asked.
func TestReadResponse(t *testing.T) {
	for _, row := range []struct {
		name   string
		set    func(q *message.Request)
		fields []string
		end    bool
		want   string
	}{
		{name: "a body", fields: []string{":status: 200", "content-length: 5", "x: y"}, want: "200 5 body\nx: y\r\n"},
		{name: "unknown length", fields: []string{":status: 404"}, want: "404 -1 body\n"},
		{name: "trailers announced", fields: []string{":status: 200", "content-length: 5", "trailer: x"}, want: "200 -1 body\n"},
		{name: "no body", fields: []string{":status: 200"}, end: true, want: "200 0\n"},
		{name: "204", fields: []string{":status: 204", "content-length: 5"}, want: "204 0\n"},
		{name: "304", fields: []string{":status: 304", "content-length: 5"}, end: true, want: "304 0\n"},
		{name: "103", fields: []string{":status: 103", "link: x"}, want: "103 0\nlink: x\r\n"},
		{name: "HEAD", set: func(q *message.Request) { q.Method = []byte("HEAD") }, fields: []string{":status: 200", "content-length: 5"}, end: true, want: "200 5\n"},
		{name: "HEAD, unknown length", set: func(q *message.Request) { q.Method = []byte("HEAD") }, fields: []string{":status: 200"}, end: true, want: "200 -1\n"},
		{name: "switched", set: func(q *message.Request) { q.Upgrade = []byte("websocket") }, fields: []string{":status: 200", "x: y"}, want: "101 0 websocket\nx: y\r\n"},
		{name: "not switched", set: func(q *message.Request) { q.Upgrade = []byte("websocket") }, fields: []string{":status: 403"}, want: "403 -1 body\n"},
		{name: "zeros", fields: []string{":status: 200", "content-length: 05"}, want: "502 invalid content-length"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWire(t, true)
			var c Client
			if err := w.open(&c, request(row.set), row.set == nil); err != nil {
				t.Fatal(err)
			}
			got := ""
			w.heard = func(_ *h2.Stream, fields []h2.Field, end bool) {
				var r message.Response
				body, err := c.ReadHead(&r, fields, end)
				if err != nil {
					got = fmt.Sprint(err.Status, " ", err.Reason)
					return
				}
				got = fmt.Sprint(r.Status, " ", r.Length)
				if body {
					got += " body"
				}
				if len(r.Upgrade) > 0 {
					got += " " + string(r.Upgrade)
				}
				got += "\n" + lines(&r.Header)
			}
			w.head(1, row.end, row.fields...)
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// TestReadTrailer: what may not stand in trailers does not.
func TestReadTrailer(t *testing.T) {
	var h message.Header
	var fields []h2.Field
	for _, f := range []string{"grpc-status: 0", "content-length: 5", "host: x", "authorization: y", "te: trailers", "x-own: 1", "content-type: z"} {
		name, value, _ := strings.Cut(f, ": ")
		fields = append(fields, h2.NewField(name, value))
	}
	ReadTrailer(&h, fields)
	if got := string(h.AppendTrailers(nil)); got != "grpc-status: 0\r\nx-own: 1\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestAllocs: reading a head into a message that has memory, and writing one, take
// none besides the stream's.
func TestAllocs(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("not in this build")
	}
	fields := func(list ...string) (out []h2.Field) {
		for _, f := range list {
			i := strings.Index(f[1:], ":") + 1
			out = append(out, h2.NewField(f[:i], f[i+2:]))
		}
		return out
	}
	head := fields(getHead("content-type: application/grpc", "te: trailers", "cookie: a=b", "cookie: c=d", "x-own: 1")...)
	answer := fields(":status: 200", "content-type: application/grpc", "x-own: 1")
	var s Server
	var c Client
	var q message.Request
	var r message.Response
	read := func() {
		q.Reset()
		r.Reset()
		if err := s.ReadHead(&q, head, false); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadHead(&r, answer, false); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if n := testing.AllocsPerRun(100, read); n != 0 {
		t.Errorf("%v allocations to read two heads", n)
	}
	w := newWire(t, true)
	write := func() {
		w.c.Reserve(100)
		st, err := c.WriteHead(&w.tn, Place{Conn: w.c, Handler: w}, &q, true)
		if err != nil {
			t.Fatal(err)
		}
		st.Abort(&w.tn, 8)
		w.tn.End()
		w.sink.Reset()
	}
	q.Length = 0
	for range 10 {
		write()
	}
	if n := testing.AllocsPerRun(100, write); n > 2 { // the stream, and why it ended
		t.Errorf("%v allocations to write a head", n)
	}
}
