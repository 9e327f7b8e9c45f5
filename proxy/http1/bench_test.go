package http1

import (
	"bytes"
	"sync"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// benchRequest has the seven fields of the measurements that the design rests on.
const benchRequest = "GET /api/v1/items/12345?expand=owner HTTP/1.1\r\n" +
	"Host: items.demo.svc.cluster.local\r\n" +
	"User-Agent: curl/8.5.0\r\n" +
	"Accept: application/json\r\n" +
	"Accept-Encoding: gzip, deflate\r\n" +
	"X-Request-ID: 6f1c7f0a-53b8-4f8e-9d0c-3b0a4f2d9e11\r\n" +
	"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
	"Connection: keep-alive\r\n\r\n"

const benchResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.22.1\r\n" +
	"Date: Fri, 20 Nov 2026 12:00:00 GMT\r\n" +
	"Content-Type: application/json\r\n" +
	"Content-Length: 0\r\n" +
	"ETag: \"65f1a2b3-400\"\r\n" +
	"Cache-Control: no-cache\r\n" +
	"Connection: keep-alive\r\n\r\n"

// A discard is a sink that counts.
type discard struct{ n int }

func (d *discard) Write(_ *turn.Turn, p []byte) { d.n += len(p) }
func (d *discard) Buffered() int                { return 0 }
func (d *discard) CloseWrite(*turn.Turn)        {}
func (d *discard) Abort(*turn.Turn, uint32)     {}

// A relay is the least engine there is: it sends each request on, and each
// response back.
type relay struct {
	down   Server
	up     Client
	req    message.Request
	resp   message.Response
	in     discard // what went to the client
	out    turn.Sink
	failed error
}

func newRelay() *relay {
	r := &relay{out: &discard{}}
	r.down.Init(&r.in, r, nil)
	r.up.Init(r.out, r, nil)
	return r
}

func (r *relay) note(err error) {
	if err != nil && r.failed == nil {
		r.failed = err
	}
}

func (r *relay) NewRequest(*turn.Turn) *message.Request   { r.req.Reset(); return &r.req }
func (r *relay) NewResponse(*turn.Turn) *message.Response { r.resp.Reset(); return &r.resp }
func (r *relay) Request(t *turn.Turn, q *message.Request, end bool) {
	r.note(r.up.WriteHead(t, q, end))
}
func (r *relay) RequestChunk(t *turn.Turn, c *message.Chunk)     { r.note(r.up.WriteChunk(t, c)) }
func (r *relay) RequestError(_ *turn.Turn, err *ParseError)      { r.note(err) }
func (r *relay) Informational(t *turn.Turn, q *message.Response) { r.down.Informational(t, q) }
func (r *relay) ResponseError(_ *turn.Turn, err error)           { r.note(err) }
func (r *relay) ResponseChunk(t *turn.Turn, c *message.Chunk) {
	end := c.End
	r.note(r.down.WriteChunk(t, c))
	if end {
		r.next(t)
	}
}
func (r *relay) WholeResponse(t *turn.Turn, q *message.Response, body []byte) {
	r.note(r.down.WriteAll(t, q, body))
	r.next(t)
}
func (r *relay) Response(t *turn.Turn, q *message.Response, end bool) {
	r.note(r.down.WriteHead(t, q, end))
	if end {
		r.next(t)
	}
}
func (r *relay) next(t *turn.Turn) {
	if r.down.KeepAlive() {
		r.down.Next(t)
	}
}

// TestSteadyStateAllocations holds the relay of both heads to no allocation.
func TestSteadyStateAllocations(t *testing.T) {
	if buf.Check || !pooled {
		t.Skip("this build's buffers allocate")
	}
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
	const post = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
	for _, row := range []struct{ name, request, response string }{
		{"heads", benchRequest, benchResponse},
		{"chunked with trailers", post, chunked},
		{"sized", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 204 No Content\r\n\r\n"},
	} {
		r := newRelay()
		request, response := []byte(row.request), []byte(row.response)
		var tr turn.Turn
		got := testing.AllocsPerRun(200, func() {
			r.down.Feed(&tr, request)
			r.up.Feed(&tr, response)
			tr.End()
		})
		if got != 0 || r.failed != nil {
			t.Errorf("%s: got %v allocations and error %v, want none", row.name, got, r.failed)
		}
		if !r.down.Idle() || !r.up.Reusable() {
			t.Errorf("%s: relay is not idle afterwards", row.name)
		}
	}
}

func BenchmarkRequestHead(b *testing.B) {
	r, limits := newRelay(), DefaultLimits()
	request := []byte(benchRequest)
	var tr turn.Turn
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.req.Reset()
			var head headReader
			head.begin(limits, &r.req.Header, requestHead, 0)
			if _, done, err := head.feed(request); !done || err != nil {
				b.Fatal(err)
			}
			if err := head.request(&r.req); err != nil {
				b.Fatal(err)
			}
		}
	})
	write := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.up.write, r.up.read = writeNone, readIdle
			if err := r.up.WriteHead(&tr, &r.req, true); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("write", write)
	r.req.AsParsed = true
	b.Run("write/as parsed", write)
}

func BenchmarkResponseHead(b *testing.B) {
	r, limits := newRelay(), DefaultLimits()
	response := []byte(benchResponse)
	var tr turn.Turn
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.resp.Reset()
			var head headReader
			head.begin(limits, &r.resp.Header, responseHead, 0)
			if _, done, err := head.feed(response); !done || err != nil {
				b.Fatal(err)
			}
			if _, _, err := head.response(&r.resp, asked{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.down.write = writeNone
			if err := r.down.WriteHead(&tr, &r.resp, true); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRelay is a whole exchange: two heads parsed and two written.
func BenchmarkRelay(b *testing.B) {
	r := newRelay()
	request, response := []byte(benchRequest), []byte(benchResponse)
	var tr turn.Turn
	b.ReportAllocs()
	for b.Loop() {
		r.down.Feed(&tr, request)
		r.up.Feed(&tr, response)
		tr.End()
	}
	if r.failed != nil {
		b.Fatal(r.failed)
	}
}

// A lockedSink costs what a real one does: a lock, and a copy into a buffer that
// many writes share.
type lockedSink struct {
	discard
	mu  sync.Mutex
	out []byte
}

func (s *lockedSink) Write(_ *turn.Turn, p []byte) {
	s.mu.Lock()
	if len(s.out)+len(p) > cap(s.out) {
		s.out = s.out[:0]
	}
	s.out = append(s.out, p...)
	s.mu.Unlock()
}

// BenchmarkWriteChunk writes a chunk as bodyWriter does, and in three writes.
func BenchmarkWriteChunk(b *testing.B) {
	for _, row := range []struct {
		name string
		n    int
	}{{"200B", 200}, {"1KiB", 1 << 10}, {"4000B", 4000}, {"16KiB", 16 << 10}} {
		var to turn.Sink = &lockedSink{out: make([]byte, 0, 64<<10)}
		c := &message.Chunk{Data: bytes.Repeat([]byte("x"), row.n)}
		w := bodyWriter{mode: chunkedBody}
		var tr turn.Turn
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				w.write(&tr, to, c)
			}
		})
		b.Run(row.name+"/apart", func(b *testing.B) {
			for b.Loop() {
				p := buf.Get(32)
				p = appendSize(p, len(c.Data))
				to.Write(&tr, p)
				to.Write(&tr, c.Data)
				to.Write(&tr, append(p[:0], "\r\n"...))
				buf.Put(p)
			}
		})
	}
}
