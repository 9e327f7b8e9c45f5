package http1

import (
	"errors"
	"strings"
	"testing"
	"unsafe"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func TestNothingFollowsAnError(t *testing.T) {
	s := newTestServer(nil)
	s.feed("GET / HTTP/3.0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	wantEvents(t, s.events, "error 505 HTTP version not supported @0")
	if err := s.WriteHead(&s.t, &message.Response{Status: 505}, true); err != nil {
		t.Fatal(err)
	}
	wantWritten(t, s.take(), "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

func TestTargets(t *testing.T) {
	for _, row := range []struct{ line, host, want string }{
		{"GET /a?b HTTP/1.1", "h:8080", "GET http://h:8080 /a?b len=0 HTTP/1.1 "},
		{"GET http://a.b:1/p?q HTTP/1.1", "h", "GET http://a.b:1 /p?q len=0 HTTP/1.1 "},
		{"GET HTTPS://a.b HTTP/1.1", "h", "GET https://a.b / len=0 HTTP/1.1 "},
		{"GET http://a.b?q HTTP/1.1", "h", "GET http://a.b /?q len=0 HTTP/1.1 "},
		{"OPTIONS http://a.b HTTP/1.1", "h", "OPTIONS http://a.b * len=0 HTTP/1.1 "},
		{"OPTIONS * HTTP/1.1", "h", "OPTIONS http://h * len=0 HTTP/1.1 "},
		{"GET //x/../y HTTP/1.1", "h", "GET http://h //x/../y len=0 HTTP/1.1 "},
		{"CONNECT [::1]:443 HTTP/1.1", "h", "CONNECT http://[::1]:443  len=0 HTTP/1.1 "},
		{"GET / HTTP/1.1", "", "GET http:// / len=0 HTTP/1.1 "},
		{"FOO /x HTTP/1.0", "h", "FOO http://h /x len=0 HTTP/1.0 "},
	} {
		s := newTestServer(nil)
		s.hold = true
		s.feed(row.line + "\r\nHost: " + row.host + "\r\n\r\n")
		wantEvents(t, s.events, row.want)
	}
}

// TestHopByHop: what speaks of the connection goes, and what Connection names,
// but never framing or routing.
func TestHopByHop(t *testing.T) {
	s := newTestServer(nil)
	s.feed("POST / HTTP/1.1\r\nHost: h\r\nKeep-Alive: 5\r\nX-Gone: 1\r\nx-gone: 2\r\nX-Stays: 3\r\nAuthorization: b\r\n" +
		"Connection: x-gone,, Content-Length , host\r\nConnection: Authorization, transfer-encoding\r\nProxy-Connection: close\r\n" +
		"TE: trailers\r\nTrailer: X\r\nUpgrade: websocket\r\nHTTP2-Settings: AAAA\r\nContent-Length: 1\r\n\r\na")
	wantEvents(t, s.events, "POST http://h / len=1 HTTP/1.1 [X-Stays=3]", `body "a"`)

	control := newTestServer(nil)
	control.feed("GET / HTTP/1.1\r\nHost: h\r\nX-Gone: 1\r\nAuthorization: b\r\n\r\n")
	wantEvents(t, control.events, "GET http://h / len=0 HTTP/1.1 [X-Gone=1][Authorization=b]")
}

func TestKeepAlive(t *testing.T) {
	for _, row := range []struct {
		name, head string
		status     int
		length     int64
		body       string
		keep       bool
		want       string
	}{
		{"1.1", "GET / HTTP/1.1\r\nHost: h\r\n", 200, 2, "ok", true, "Content-Length: 2\r\n\r\nok"},
		{"1.1 close", "GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n", 200, 2, "ok", false, "Content-Length: 2\r\nConnection: close\r\n\r\nok"},
		{"1.0", "GET / HTTP/1.0\r\n", 200, 2, "ok", false, "Content-Length: 2\r\nConnection: close\r\n\r\nok"},
		{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", 200, 2, "ok", true, "Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok"},
		{"1.0 keep-alive and close", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", 200, 2, "ok", false, "Content-Length: 2\r\nConnection: close\r\n\r\nok"},
		{"1.1 unknown length", "GET / HTTP/1.1\r\nHost: h\r\n", 200, -1, "ok", true, "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{"1.0 unknown length", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n", 200, -1, "ok", false, "Connection: close\r\n\r\nok"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: h\r\n", 200, 2, "ok", true, "Content-Length: 2\r\n\r\n"},
		{"HEAD of unknown length", "HEAD / HTTP/1.1\r\nHost: h\r\n", 200, -1, "", true, "\r\n"},
		{"204", "GET / HTTP/1.1\r\nHost: h\r\n", 204, 0, "", true, "\r\n"},
		{"304", "GET / HTTP/1.1\r\nHost: h\r\n", 304, 10, "", true, "\r\n"},
		{"refused CONNECT", "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n", 405, 0, "", false, "Content-Length: 0\r\nConnection: close\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newTestServer(nil)
			s.hold = true
			s.feed(row.head + "\r\n")
			if s.err != nil {
				t.Fatal(s.err)
			}
			if err := s.WriteHead(&s.t, &message.Response{Status: row.status, Length: row.length}, false); err != nil {
				t.Fatal(err)
			}
			if err := s.WriteChunk(&s.t, &message.Chunk{Data: []byte(row.body), End: true}); err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(s.take(), "\r\n")
			wantWritten(t, after, row.want)
			if got := s.KeepAlive(); got != row.keep {
				t.Errorf("KeepAlive is %v, want %v", got, row.keep)
			}
		})
	}
}

func TestCloseAskedByTheEngine(t *testing.T) {
	s := newTestServer(nil)
	s.hold = true
	s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if err := s.WriteHead(&s.t, &message.Response{Status: 200, Close: true}, true); err != nil {
		t.Fatal(err)
	}
	wantWritten(t, s.take(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	if s.KeepAlive() {
		t.Error("KeepAlive after Response.Close")
	}
}

// TestLengthMismatch: bytes that do not match the length are an error, on both
// sides of it; the same bytes in the right number are none.
func TestLengthMismatch(t *testing.T) {
	for _, row := range []struct {
		length int64
		chunks []string
		want   error
	}{
		{5, []string{"hello"}, nil},
		{5, []string{"he", "llo"}, nil},
		{5, []string{"hell"}, ErrLength},
		{5, []string{"hello!"}, ErrLength},
		{5, []string{"hello", "!"}, ErrLength},
		{0, []string{"x"}, ErrLength},
		{-1, []string{"any"}, nil},
	} {
		s, c := newTestServer(nil), newTestClient(nil)
		s.hold = true
		s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		s.WriteHead(&s.t, &message.Response{Status: 200, Length: row.length}, false)
		q := get()
		q.Length = row.length
		c.WriteHead(&c.t, q, false)
		var down, up error
		for i, data := range row.chunks {
			k := message.Chunk{Data: []byte(data), End: i == len(row.chunks)-1}
			if down == nil {
				down = s.WriteChunk(&s.t, &k)
			}
			if up == nil {
				up = c.WriteChunk(&c.t, &k)
			}
		}
		if down != row.want || up != row.want {
			t.Errorf("length %d, chunks %q: got %v and %v, want %v", row.length, row.chunks, down, up, row.want)
		}
	}
	s := newTestServer(nil)
	s.hold = true
	s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if err := s.WriteHead(&s.t, &message.Response{Status: 200, Length: 5}, true); err != ErrLength || s.take() != "" {
		t.Errorf("head that promises 5 bytes and ends: got %v, want %v and nothing written", err, ErrLength)
	}
}

func TestOrder(t *testing.T) {
	s := newTestServer(nil)
	s.hold = true
	s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if err := s.WriteChunk(&s.t, &message.Chunk{End: true}); err != ErrOrder {
		t.Errorf("chunk without a head: got %v, want %v", err, ErrOrder)
	}
	if err := s.WriteHead(&s.t, &message.Response{Status: 100}, true); err != ErrHead {
		t.Errorf("100 as the final head: got %v, want %v", err, ErrHead)
	}
	if err := s.WriteHead(&s.t, &message.Response{Status: 200, Reason: []byte("a\r\nb")}, true); err != ErrHead {
		t.Errorf("reason with CRLF: got %v, want %v", err, ErrHead)
	}
	if err := s.WriteHead(&s.t, &message.Response{Status: 200}, true); err != nil {
		t.Errorf("head: got %v", err)
	}
	if err := s.WriteHead(&s.t, &message.Response{Status: 200}, true); err != ErrOrder {
		t.Errorf("second head: got %v, want %v", err, ErrOrder)
	}
}

// TestPipelining: requests that come early are kept and answered in order.
func TestPipelining(t *testing.T) {
	noBuffersLent(t)
	s := newTestServer(nil)
	s.hold = true
	s.feed("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nh")
	s.feed("iGET /3 HTTP/1.1\r\nHost: h\r\n")
	if got, want := s.Kept(), len("POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: h\r\n"); got != want {
		t.Errorf("Kept is %d, want %d", got, want)
	}
	wantEvents(t, s.events, "GET http://h /1 len=0 HTTP/1.1 ")
	for i := range 2 {
		if err := s.WriteHead(&s.t, &message.Response{Status: 201 + i}, true); err != nil || !s.KeepAlive() {
			t.Fatalf("response %d: %v, KeepAlive %v", i, err, s.KeepAlive())
		}
		s.Next(&s.t)
	}
	wantEvents(t, s.events, "GET http://h /1 len=0 HTTP/1.1 ", "POST http://h /2 len=2 HTTP/1.1 ", `body "hi"`)
	if s.Kept() != 0 || s.Idle() {
		t.Errorf("Kept %d, Idle %v; want the third head begun", s.Kept(), s.Idle())
	}
	s.feed("\r\n")
	wantEvents(t, s.events[3:], "GET http://h /3 len=0 HTTP/1.1 ")
}

// TestPipelineWithoutRecursion: a thousand requests answered at once, from the
// handler, with the stack no deeper for it.
func TestPipelineWithoutRecursion(t *testing.T) {
	noBuffersLent(t)
	s := newTestServer(nil)
	s.feed(strings.Repeat("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 1000))
	if len(s.events) != 1000 || s.err != nil || !s.Idle() {
		t.Errorf("got %d events, error %v, Idle %v; want 1000, none, true", len(s.events), s.err, s.Idle())
	}
}

func TestKeptLimit(t *testing.T) {
	noBuffersLent(t)
	l := DefaultLimits()
	l.Kept = 100
	s := newTestServer(l)
	s.hold = true
	s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n").feed(strings.Repeat("x", 100))
	if s.err != nil {
		t.Fatalf("at the limit: %v", s.err)
	}
	s.feed("x")
	if s.err == nil || s.Kept() != 0 {
		t.Errorf("over the limit: error %v, Kept %d", s.err, s.Kept())
	}
}

func TestLimits(t *testing.T) {
	l := DefaultLimits()
	long := strings.Repeat("x", l.HeadBytes)
	for _, row := range []struct {
		name, bad, control string
		status             int
	}{
		{"target", "GET /" + long + " HTTP/1.1\r\nHost: h\r\n\r\n", "GET /" + long[:l.HeadBytes-100] + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
		{"head", "GET / HTTP/1.1\r\nHost: h\r\nA: " + long + "\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: " + long[:l.HeadBytes-100] + "\r\n\r\n", 431},
		{"fields", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("A: b\r\n", 100) + "\r\n", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("A: b\r\n", 99) + "\r\n", 431},
		{"options", "GET / HTTP/1.1\r\nHost: h\r\nConnection: " + strings.Repeat("a,", 33) + "\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nConnection: " + strings.Repeat("a,", 32) + "\r\n\r\n", 400},
		{"extension", chunkedPost("1;" + long[:l.Extension+20] + "\r\na\r\n0\r\n\r\n"), chunkedPost("1;" + long[:l.Extension-2] + "\r\na\r\n0\r\n\r\n"), 400},
		{"overhead", chunkedPost(strings.Repeat("1;"+long[:200]+"\r\na\r\n", 100) + "0\r\n\r\n"), chunkedPost(strings.Repeat("1;"+long[:200]+"\r\na\r\n", 80) + "0\r\n\r\n"), 400},
		{"trailer bytes", chunkedPost("0\r\nA: " + long + "\r\n\r\n"), chunkedPost("0\r\nA: " + long[:l.HeadBytes-100] + "\r\n\r\n"), 431},
		{"trailer fields", chunkedPost("0\r\n" + strings.Repeat("A: b\r\n", 101) + "\r\n"), chunkedPost("0\r\n" + strings.Repeat("A: b\r\n", 100) + "\r\n"), 431},
	} {
		if s := newTestServer(nil).feed(row.bad); s.err == nil || s.err.Status != row.status {
			t.Errorf("%s: got error %v, want %d", row.name, s.err, row.status)
		}
		if s := newTestServer(nil).feed(row.control); s.err != nil {
			t.Errorf("%s within the limit: got error %v", row.name, s.err)
		}
	}
}

// TestManySmallChunks: chunks of one byte are dear and legal; they are not what
// the overhead limit is for.
func TestManySmallChunks(t *testing.T) {
	s := newTestServer(nil)
	s.feed(chunkedPost(strings.Repeat("1\r\na\r\n", 100_000) + "0\r\n\r\n"))
	if s.err != nil {
		t.Error(s.err)
	}
}

func TestExpectContinue(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n"
	t.Run("continued once", func(t *testing.T) {
		s := newTestServer(nil)
		s.feed(head)
		wantEvents(t, s.events, "POST http://h / len=2 HTTP/1.1 waits ")
		s.Continue(&s.t)
		s.Continue(&s.t)
		s.Informational(&s.t, &message.Response{Status: 100})
		wantWritten(t, s.take(), "HTTP/1.1 100 Continue\r\n\r\n")
		s.feed("hi")
		wantWritten(t, s.take(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if !s.Idle() {
			t.Error("connection is not kept after a continued request")
		}
	})
	t.Run("refused", func(t *testing.T) {
		s := newTestServer(nil)
		s.feed(head)
		s.WriteHead(&s.t, &message.Response{Status: 403}, true)
		wantWritten(t, s.take(), "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if s.feed("hi"); s.KeepAlive() {
			t.Error("KeepAlive though the client may not have sent what it announced")
		}
	})
	t.Run("client did not wait", func(t *testing.T) {
		s := newTestServer(nil)
		s.hold = true
		s.feed(head + "h")
		s.Continue(&s.t)
		wantWritten(t, s.take(), "")
	})
	t.Run("not for no body", func(t *testing.T) {
		s := newTestServer(nil)
		s.feed("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n")
		wantEvents(t, s.events, "GET http://h / len=0 HTTP/1.1 ")
	})
	t.Run("not for HTTP/1.0", func(t *testing.T) {
		s := newTestServer(nil)
		s.hold = true
		s.feed("POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
		wantEvents(t, s.events, "POST http:// / len=2 HTTP/1.0 ")
		s.Continue(&s.t)
		s.Informational(&s.t, &message.Response{Status: 103})
		wantWritten(t, s.take(), "")
	})
}

func TestInformational(t *testing.T) {
	s := newTestServer(nil)
	s.hold = true
	s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	r := &message.Response{Status: 103}
	r.Header.Add("Link", "</a>; rel=preload")
	s.Informational(&s.t, r)
	s.Informational(&s.t, &message.Response{Status: 101})
	s.Informational(&s.t, &message.Response{Status: 200})
	wantWritten(t, s.take(), "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
	s.WriteHead(&s.t, &message.Response{Status: 200}, true)
	s.take()
	s.Informational(&s.t, r)
	wantWritten(t, s.take(), "")
}

func TestUpgrade(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
	t.Run("switched", func(t *testing.T) {
		noBuffersLent(t)
		s := newTestServer(nil)
		s.hold = true
		s.feed(head + "\x81\x00")
		wantEvents(t, s.events, "GET http://h / len=0 HTTP/1.1 upgrade=websocket ")
		if _, ok := s.Detach(); ok {
			t.Error("detached before a 101")
		}
		r := &message.Response{Status: 101, Upgrade: []byte("websocket")}
		if err := s.WriteHead(&s.t, r, true); err != nil {
			t.Fatal(err)
		}
		wantWritten(t, s.take(), "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		if s.KeepAlive() {
			s.Next(&s.t)
		}
		s.feed("\x82")
		rest, ok := s.Detach()
		if string(rest) != "\x81\x00\x82" || !ok {
			t.Errorf("Detach: got %q %v, want what came behind the request", rest, ok)
		}
		(&kept{bytes: rest}).drop()
	})
	t.Run("not switched", func(t *testing.T) {
		noBuffersLent(t)
		s := newTestServer(nil)
		s.feed(head + "GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
		wantEvents(t, s.events, "GET http://h / len=0 HTTP/1.1 upgrade=websocket ", "GET http://h /next len=0 HTTP/1.1 ")
	})
	t.Run("unasked", func(t *testing.T) {
		s := newTestServer(nil)
		s.hold = true
		s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if err := s.WriteHead(&s.t, &message.Response{Status: 101, Upgrade: []byte("websocket")}, true); err != ErrSwitch {
			t.Errorf("got %v, want %v", err, ErrSwitch)
		}
	})
	for name, ignored := range map[string]string{
		"no option":   "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
		"h2c":         "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
		"list":        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
		"two":         "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n\r\n",
		"with a body": "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
		"HTTP/1.0":    "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		t.Run("ignored "+name, func(t *testing.T) {
			s := newTestServer(nil).feed(ignored)
			if len(s.events) == 0 || strings.Contains(s.events[0], "upgrade=") {
				t.Errorf("got %q, want no upgrade", s.events)
			}
		})
	}
}

func TestConnect(t *testing.T) {
	noBuffersLent(t)
	s := newTestServer(nil)
	s.hold = true
	s.feed("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nearly")
	if err := s.WriteHead(&s.t, &message.Response{Status: 200}, true); err != nil {
		t.Fatal(err)
	}
	wantWritten(t, s.take(), "HTTP/1.1 200 OK\r\n\r\n")
	rest, ok := s.Detach()
	if string(rest) != "early" || !ok {
		t.Errorf("Detach: got %q %v", rest, ok)
	}
	(&kept{bytes: rest}).drop()

	// What follows a refused CONNECT is never read as a request.
	s = newTestServer(nil)
	s.hold = true
	s.feed("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
	s.WriteHead(&s.t, &message.Response{Status: 403}, true)
	if s.KeepAlive() {
		t.Error("KeepAlive after a refused CONNECT")
	}
	if _, ok := s.Detach(); ok {
		t.Error("detached after a refused CONNECT")
	}
	s.Release()
}

func TestTrailers(t *testing.T) {
	s := newTestServer(nil)
	s.hold = true
	s.feed(chunkedPost("3;a=\"b\"\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: evil\r\nAuthorization: x\r\ngrpc-status: 0\r\n\r\n"))
	wantEvents(t, s.events, "POST http://h / len=-1 HTTP/1.1 ", `body "abc"`, "trailer [X-Sum=1][grpc-status=0]")

	var trailer message.Header
	trailer.Add("X-Sum", "1")
	trailer.Add("Transfer-Encoding", "chunked")
	for _, row := range []struct {
		length int64
		want   string
	}{
		{-1, "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{3, "Content-Length: 3\r\n\r\nabc"},
	} {
		s := newTestServer(nil)
		s.hold = true
		s.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		s.WriteHead(&s.t, &message.Response{Status: 200, Length: row.length}, false)
		s.WriteChunk(&s.t, &message.Chunk{Data: []byte("abc"), End: true, Trailer: &trailer})
		wantWritten(t, s.take(), "HTTP/1.1 200 OK\r\n"+row.want)
	}
}

func TestClientEOF(t *testing.T) {
	for _, row := range []struct {
		name, sent string
		wantErr    bool
	}{
		{"between requests", "", false},
		{"in the empty line", "\r", true},
		{"in a head", "GET / HT", true},
		{"in a sized body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na", true},
		{"before the last chunk", chunkedPost("1\r\na\r\n"), true},
		{"in the trailer section", chunkedPost("0\r\nA: b\r\n"), true},
		{"behind a request", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", false},
		{"in a second request", "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET", true},
	} {
		s := newTestServer(nil)
		s.feed(row.sent).EOF(&s.t)
		if got := s.err != nil; got != row.wantErr || !s.Ended() {
			t.Errorf("%s: error %v, want one: %v", row.name, s.err, row.wantErr)
		}
	}
}

// TestHalfClose: a client that has sent everything and closed its side is still
// answered, each request of it, and then no more.
func TestHalfClose(t *testing.T) {
	for _, row := range []struct {
		name, behind string
		want         []string
	}{
		{"whole", "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n", []string{"GET http://h /1 len=0 HTTP/1.1 ", "GET http://h /2 len=0 HTTP/1.1 "}},
		{"part", "GET /2 HT", []string{"GET http://h /1 len=0 HTTP/1.1 ", "error 400 request cut short @9"}},
		{"empty line", "\r\n", []string{"GET http://h /1 len=0 HTTP/1.1 ", "error 400 request cut short @0"}},
		{"nothing", "", []string{"GET http://h /1 len=0 HTTP/1.1 "}},
	} {
		s := newTestServer(nil)
		s.hold = true
		s.feed("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" + row.behind).EOF(&s.t)
		for s.err == nil {
			s.WriteHead(&s.t, &message.Response{Status: 200}, true)
			if !s.KeepAlive() {
				break
			}
			s.Next(&s.t)
		}
		wantEvents(t, s.events, row.want...)
	}
}

// TestOvertaken: a response may end before its request does. The message that
// was lent may be gone by then, so what is still read does not touch it.
func TestOvertaken(t *testing.T) {
	for _, row := range []struct{ name, first, second string }{
		{"in the body", "5\r\nab", "cde\r\n0\r\nX-T: 1\r\n\r\n"},
		{"in the trailers", "0\r\nX-T: 1\r\n", "X-U: 2\r\n\r\n"},
	} {
		s := newTestServer(nil)
		s.hold = true
		s.feed(chunkedPost(row.first))
		s.WriteHead(&s.t, &message.Response{Status: 403}, true)
		s.req.Reset()
		s.feed(row.second)
		if s.req.Trailer.Len() != 0 || s.req.Trailer.Size() != 0 {
			t.Errorf("%s: the released message was written to", row.name)
		}
	}
}

// TestSingleBytes: bytes that come singly are looked at once when they come, and
// once more when their line is whole. After each of them the search for a line's
// end goes on behind it.
func TestSingleBytes(t *testing.T) {
	s := newTestServer(nil)
	s.hold = true
	head := "GET / HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("x", 50_000) + "\r\n\r\n"
	for i := range len(head) - 1 {
		s.feed(head[i : i+1])
		if got, want := max(s.head.reader.scanned, s.head.reader.pos), int32(i+1); got != want {
			t.Fatalf("after %d bytes the search goes on at %d", want, got)
		}
	}
	s.feed("\n")
	if len(s.events) != 1 || s.err != nil {
		t.Errorf("got %d events, error %v", len(s.events), s.err)
	}
}

// TestSizes keeps what an idle connection costs in view.
func TestSizes(t *testing.T) {
	for _, row := range []struct {
		name      string
		got, want uintptr
	}{
		{"Server", unsafe.Sizeof(Server{}), 192},
		{"Client", unsafe.Sizeof(Client{}), 184},
		{"headReader", unsafe.Sizeof(headReader{}), 104},
		{"bodyReader", unsafe.Sizeof(bodyReader{}), 32},
	} {
		if row.got != row.want {
			t.Errorf("%s is %d bytes, want %d: adjust the budget, or the struct", row.name, row.got, row.want)
		}
	}
}

var _ turn.Sink = (*sink)(nil)

// TestWriteAll: a head and its body are what WriteHead and WriteChunk write, in one
// write; and what they refuse is refused, with nothing written.
func TestWriteAll(t *testing.T) {
	long := strings.Repeat("x", 5<<10)
	for _, row := range []struct {
		name, request string
		resp          message.Response
		body          string
	}{
		{"GET", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 200, Length: 4}, "body"},
		{"empty", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 404}, ""},
		{"long", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 200, Length: int64(len(long))}, long},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", message.Response{Status: 200, Length: 4}, "body"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 200, Length: 4}, "body"},
		{"no content", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 204, Length: 4}, "body"},
		{"close", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 200, Length: 4, Close: true}, "body"},
		{"shorter than its length", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 200, Length: 5}, "body"},
		{"of no known length", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 200, Length: message.UnknownLength}, "body"},
		{"invalid", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", message.Response{Status: 99, Length: 4}, "body"},
	} {
		t.Run(row.name, func(t *testing.T) {
			all, apart := newTestServer(nil), newTestServer(nil)
			all.hold, apart.hold = true, true
			all.t.Last()
			all.feed(row.request)
			apart.feed(row.request)
			err := all.WriteAll(&all.t, &row.resp, []byte(row.body))
			want := ErrLength
			if int64(len(row.body)) == row.resp.Length {
				if want = apart.WriteHead(&apart.t, &row.resp, false); want == nil {
					want = apart.WriteChunk(&apart.t, &message.Chunk{Data: []byte(row.body), End: true})
				}
			}
			if !errors.Is(err, want) {
				t.Fatalf("%v, want %v", err, want)
			}
			writes := 1
			if want != nil {
				writes = 0
			}
			if got := all.take(); got != apart.take() || all.writes != writes {
				t.Errorf("%q in %d writes", got, all.writes)
			}
			if all.write != apart.write || all.KeepAlive() != apart.KeepAlive() {
				t.Errorf("state %d, keep %v; want %d, %v", all.write, all.KeepAlive(), apart.write, apart.KeepAlive())
			}
		})
	}
}
