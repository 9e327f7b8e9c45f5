package h2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/testnet"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// TestMain fails on buffers and goroutines that tests leave behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if n := buf.Outstanding(); n != 0 && code == 0 {
		fmt.Printf("%d buffers were not returned\n", n)
		code = 1
	}
	for range 100 { // goroutines of net/http take a moment to end
		if runtime.NumGoroutine() <= 2 {
			break
		}
		runtime.Gosched()
	}
	os.Exit(code)
}

// A driver runs a Conn on a net.Conn as internal/wire does, the plain way: a
// goroutine reads, another writes what the sink was given.
type driver struct {
	nc     net.Conn
	c      *Conn
	mu     sync.Mutex
	more   sync.Cond
	out    []byte
	held   int
	closed bool
	done   sync.WaitGroup
}

func drive(nc net.Conn, h ConnHandler, o Options) *driver {
	d := &driver{nc: nc}
	d.more.L = &d.mu
	d.c = NewConn(d, h, o)
	var t turn.Turn
	d.c.Start(&t)
	t.End()
	d.done.Add(2)
	go d.read()
	go d.write()
	return d
}

func (d *driver) Write(_ *turn.Turn, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out = append(d.out, p...)
	d.held += len(p)
	d.more.Signal()
}

func (d *driver) Buffered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held
}

func (d *driver) CloseWrite(*turn.Turn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.more.Signal()
}

func (d *driver) Abort(*turn.Turn, uint32) { d.nc.Close() }

func (d *driver) read() {
	defer d.done.Done()
	var t turn.Turn
	p := make([]byte, 16<<10)
	var err error
	for err == nil {
		var n int
		if n, err = d.nc.Read(p); n > 0 {
			err = errors.Join(err, d.c.Feed(&t, p[:n]))
			t.End()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	d.c.Closed(&t, err)
	t.End()
	d.CloseWrite(&t)
}

func (d *driver) write() {
	defer d.done.Done()
	defer d.nc.Close()
	var t turn.Turn
	for {
		d.mu.Lock()
		for len(d.out) == 0 && !d.closed {
			d.more.Wait()
		}
		p := d.out
		d.out = nil
		d.mu.Unlock()
		if len(p) == 0 {
			return
		}
		_, err := d.nc.Write(p)
		d.mu.Lock()
		was := d.held
		d.held -= len(p)
		left := was > turn.LowMark && d.held < turn.LowMark
		d.mu.Unlock()
		if err != nil {
			return
		}
		if left {
			d.c.Left(&t)
			t.End()
		}
	}
}

// stop ends the connection in order and waits for it.
func (d *driver) stop() {
	var t turn.Turn
	d.c.GoAway(&t)
	t.End()
	d.done.Wait()
}

// echo answers every request with its own content and gives credit as the
// bytes leave. Its lane is a mutex, as the exchange's is.
type echo struct {
	lane sync.Mutex
	owed int
}

type echoServer struct{ t *testing.T }

func (e *echoServer) Request(t *turn.Turn, s *Stream, fields []Field, end bool) {
	s.Handle(strictly(e.t, &echo{}))
	s.SendHeaders(t, []Field{NewField(":status", "200")}, end)
}
func (e *echoServer) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (e *echoServer) Idle(*turn.Turn)                             {}

func (e *echo) Headers(t *turn.Turn, s *Stream, fields []Field, end bool) {
	s.SendHeaders(t, fields, end)
}

func (e *echo) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	e.lane.Lock()
	defer e.lane.Unlock()
	e.owed += len(p)
	s.Write(t, p)
	if end {
		s.CloseWrite(t)
	}
	e.credit(t, s)
}

func (e *echo) Left(t *turn.Turn, s *Stream) {
	e.lane.Lock()
	defer e.lane.Unlock()
	e.credit(t, s)
}

func (e *echo) credit(t *turn.Turn, s *Stream) {
	if n := e.owed - s.Buffered(); n > 0 {
		e.owed -= n
		s.Consume(t, n)
	}
}

func (e *echo) Closed(*turn.Turn, *Stream, error) {}

// http.Transport, which did not come from here, talks to our server: bodies of
// all sizes at once on one connection come back whole.
func TestServerWithNetHTTP(t *testing.T) {
	client, server := testnet.Pair()
	d := drive(server, &echoServer{t}, Options{MaxStreams: 200, StreamWindow: 128 << 10, ConnWindow: 512 << 10})
	tr := &http.Transport{
		Protocols:   onlyH2C(),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return client, nil },
	}
	cc, err := tr.NewClientConn(t.Context(), "http", "a:80")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			body := make([]byte, 1<<i>>1)
			fill(body, uint64(i))
			req, _ := http.NewRequest("POST", "http://a/", io.NopCloser(bytes.NewReader(body)))
			req.Trailer = http.Header{"X-Sum": nil}
			req.Trailer.Set("X-Sum", "twenty")
			resp, err := cc.RoundTrip(req)
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("request %d: got %d bytes back of %d: %v", i, len(got), len(body), err)
			}
			if got := resp.Trailer.Get("X-Sum"); got != "twenty" {
				t.Errorf("request %d: trailer %q, want twenty", i, got)
			}
		})
	}
	wg.Wait()
	cc.Close()
	d.done.Wait()
}

func onlyH2C() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// one is a listener with one connection.
type one struct {
	nc   chan net.Conn
	addr net.Addr
}

func (l *one) Accept() (net.Conn, error) {
	if nc, ok := <-l.nc; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}
func (l *one) Close() error   { return nil }
func (l *one) Addr() net.Addr { return l.addr }

func fill(p []byte, seed uint64) {
	r := rand.NewPCG(seed, 1)
	for i := range p {
		p[i] = byte(r.Uint64())
	}
}

// strictHandler sees to it that calls for one stream do not overlap, and that
// Closed is the last.
type strictHandler struct {
	StreamHandler
	busy   chan struct{} // one token
	closed bool
	t      *testing.T
}

func strictly(t *testing.T, h StreamHandler) *strictHandler {
	return &strictHandler{StreamHandler: h, busy: make(chan struct{}, 1), t: t}
}

func (h *strictHandler) enter() func() {
	select {
	case h.busy <- struct{}{}:
	default:
		h.t.Error("calls for one stream overlap")
	}
	if h.closed {
		h.t.Error("call after Closed")
	}
	return func() { <-h.busy }
}

func (h *strictHandler) Headers(t *turn.Turn, s *Stream, f []Field, end bool) {
	defer h.enter()()
	h.StreamHandler.Headers(t, s, f, end)
}

func (h *strictHandler) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	defer h.enter()()
	h.StreamHandler.Data(t, s, p, end)
}

func (h *strictHandler) Left(t *turn.Turn, s *Stream) {
	defer h.enter()()
	h.StreamHandler.Left(t, s)
}

func (h *strictHandler) Closed(t *turn.Turn, s *Stream, err error) {
	defer h.enter()()
	h.StreamHandler.Closed(t, s, err)
	h.closed = true
}

// caller is a client's stream: it sends size bytes as they leave, and checks
// what comes back.
type caller struct {
	lane      sync.Mutex
	size      int
	sent, got hash.Hash
	seed      *rand.PCG
	done      func(*caller, error)
	left      int
}

func (x *caller) pump(t *turn.Turn, s *Stream) {
	var p [5000]byte
	for x.left > 0 && s.Buffered() < 64<<10 {
		n := min(x.left, len(p), int(x.seed.Uint64()%5000)+1)
		for i := range n {
			p[i] = byte(x.seed.Uint64())
		}
		x.sent.Write(p[:n])
		s.Write(t, p[:n])
		if x.left -= n; x.left == 0 {
			s.CloseWrite(t)
		}
	}
}

func (x *caller) Headers(t *turn.Turn, s *Stream, fields []Field, end bool) {
	if Status(fields) != 200 {
		s.Abort(t, CodeCancel)
	}
}

func (x *caller) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	x.lane.Lock()
	defer x.lane.Unlock()
	x.got.Write(p)
	s.Consume(t, len(p))
	x.pump(t, s)
}

func (x *caller) Left(t *turn.Turn, s *Stream) {
	x.lane.Lock()
	defer x.lane.Unlock()
	x.pump(t, s)
}

func (x *caller) Closed(_ *turn.Turn, _ *Stream, err error) { x.done(x, err) }

type quiet struct{}

func (quiet) Request(*turn.Turn, *Stream, []Field, bool)  {}
func (quiet) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (quiet) Idle(*turn.Turn)                             {}

// callAll opens n streams at d, each from a goroutine of its own, and waits for
// their ends.
func callAll(t *testing.T, d *driver, n int, head []Field) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		x := &caller{size: 1 << (i % 20), sent: sha256.New(), got: sha256.New(), seed: rand.NewPCG(uint64(i), 2)}
		x.left = x.size
		x.done = func(x *caller, err error) {
			defer wg.Done()
			if err != nil || !bytes.Equal(x.sent.Sum(nil), x.got.Sum(nil)) {
				t.Errorf("stream of %d bytes: ended with %v, and what came back is not what was sent", x.size, err)
			}
		}
		go func() {
			var tu turn.Turn
			for {
				x.lane.Lock()
				s, err := d.c.Open(&tu, strictly(t, x), head, false)
				if err == nil {
					x.pump(&tu, s)
				}
				x.lane.Unlock()
				tu.End()
				if err == nil {
					return
				}
				if err != ErrFull {
					t.Errorf("Open: %v", err)
					wg.Done()
					return
				}
				runtime.Gosched()
			}
		}()
	}
	wg.Wait()
}

// Our client talks to http.Server, many streams on one connection, opened and
// written from many goroutines.
func TestClientWithNetHTTP(t *testing.T) {
	client, server := testnet.Pair()
	d := drive(client, quiet{}, Options{Client: true, StreamWindow: 128 << 10, ConnWindow: 512 << 10})
	l := &one{nc: make(chan net.Conn, 1), addr: server.LocalAddr()}
	l.nc <- server
	srv := &http.Server{Protocols: onlyH2C(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		io.Copy(w, r.Body)
	})}
	var served sync.WaitGroup
	served.Go(func() { srv.Serve(l) })
	callAll(t, d, 60, []Field{NewField(":method", "POST"), getHead[1], getHead[2], getHead[3]})
	d.stop()
	close(l.nc)
	served.Wait()
	srv.Close()
}

// Our client and our server, small windows, with streams that somebody resets
// at any moment: the others lose nothing.
func TestBackToBack(t *testing.T) {
	client, server := testnet.Pair()
	o := Options{MaxStreams: 50, StreamWindow: 40 << 10, ConnWindow: 70 << 10, Limits: Limits{Resets: 1 << 20}}
	sd := drive(server, &echoServer{t}, o)
	o.Client = true
	d := drive(client, quiet{}, o)
	var wg sync.WaitGroup
	wg.Go(func() { // ticks come from another goroutine
		var tu turn.Turn
		for range 500 {
			d.c.Tick(&tu)
			sd.c.Tick(&tu)
			tu.End()
			runtime.Gosched()
		}
	})
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				var tu turn.Turn
				x := &caller{left: 1 << 20, sent: sha256.New(), got: sha256.New(), seed: rand.NewPCG(1, 3), done: func(*caller, error) {}}
				x.lane.Lock()
				s, err := d.c.Open(&tu, strictly(t, x), connectHead, false)
				if err == nil {
					x.pump(&tu, s)
				}
				x.lane.Unlock()
				tu.End()
				for range i {
					runtime.Gosched()
				}
				if err == nil {
					s.Abort(&tu, CodeCancel)
					tu.End()
				}
			}
		})
	}
	callAll(t, d, 60, connectHead)
	wg.Wait()
	d.stop()
	sd.done.Wait()
	for _, c := range []*Conn{d.c, sd.c} {
		if got, want := c.recvWin+int64(c.recvOwed), int64(o.ConnWindow); got != want {
			t.Errorf("window is %d with what is owed, want %d", got, want)
		}
	}
	if st := sd.c.Stats(); st.ResetsIn == 0 {
		t.Error("no stream was reset, so this showed nothing")
	}
}

// Inside a stream runs another connection: the same type, its sink the outer
// stream.
func TestNested(t *testing.T) {
	client, server := testnet.Pair()
	o := Options{MaxStreams: 50, StreamWindow: 128 << 10, ConnWindow: 512 << 10}
	sd := drive(server, &nestServer{o, t}, o)
	o.Client = true
	d := drive(client, quiet{}, o)
	var tu turn.Turn
	n := &nest{ended: make(chan error, 1)}
	n.lane.Lock()
	s, err := d.c.Open(&tu, n, connectHead, false)
	if err != nil {
		t.Fatal(err)
	}
	n.inner = NewConn(s, quiet{}, o)
	n.inner.Start(&tu)
	n.lane.Unlock()
	tu.End()
	callAll(t, &driver{c: n.inner}, 40, connectHead)
	n.inner.GoAway(&tu)
	tu.End()
	if err := <-n.ended; err != nil {
		t.Errorf("outer stream ended with %v, want nil", err)
	}
	d.stop()
	sd.done.Wait()
}

type nestServer struct {
	o Options
	t *testing.T
}

func (n *nestServer) Request(t *turn.Turn, s *Stream, _ []Field, _ bool) {
	s.SendHeaders(t, ok200, false)
	x := &nest{inner: NewConn(s, &echoServer{n.t}, n.o)}
	s.Handle(x)
	x.inner.Start(t)
}
func (n *nestServer) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (n *nestServer) Idle(*turn.Turn)                             {}

// nest carries an outer stream's events to the connection inside.
type nest struct {
	lane  sync.Mutex
	inner *Conn
	ended chan error
}

func (n *nest) conn() *Conn {
	n.lane.Lock()
	defer n.lane.Unlock()
	return n.inner
}

func (n *nest) Headers(*turn.Turn, *Stream, []Field, bool) {}

func (n *nest) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	if len(p) > 0 && n.conn().Feed(t, p) != nil {
		return
	}
	s.Consume(t, len(p)) // the inner connection has windows of its own
	if end && !n.conn().EOF(t) {
		s.CloseWrite(t)
	}
}

func (n *nest) Left(t *turn.Turn, s *Stream) { n.conn().Left(t) }

func (n *nest) Closed(t *turn.Turn, s *Stream, err error) {
	n.conn().Closed(t, err)
	if n.ended != nil {
		n.ended <- err
	}
}

// A peer that goes quiet in the middle of a frame, and one that vanishes.
func TestDriverEnds(t *testing.T) {
	client, server := testnet.Pair()
	d := drive(server, &echoServer{t}, Options{})
	io.WriteString(client, clientPreface+strings.Repeat("\x00", 4))
	client.Close()
	ended := make(chan struct{})
	go func() { d.done.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("connection did not end with its transport")
	}
}
