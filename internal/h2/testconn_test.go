package h2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// testSink takes what a Conn writes. With hold it keeps everything as not yet
// left, as a socket that is full does, until release.
type testSink struct {
	out     bytes.Buffer
	held    int
	hold    bool
	writes  int
	closed  bool
	aborted bool
}

func (s *testSink) Write(_ *turn.Turn, p []byte) {
	s.out.Write(p)
	s.writes++
	if s.hold {
		s.held += len(p)
	}
}
func (s *testSink) Buffered() int            { return s.held }
func (s *testSink) CloseWrite(*turn.Turn)    { s.closed = true }
func (s *testSink) Abort(*turn.Turn, uint32) { s.aborted = true }

// testConn is the peer of a Conn, and its handlers. It speaks through
// http2.Framer, which did not come from this package.
type testConn struct {
	t      *testing.T
	c      *Conn
	sink   *testSink
	turn   turn.Turn
	fr     *http2.Framer // reads what the Conn wrote
	in     bytes.Buffer  // frames for the Conn
	fw     *http2.Framer
	hbuf   bytes.Buffer
	henc   *hpack.Encoder
	events []string

	streams map[uint32]*Stream
	accept  func(s *Stream, fields []Field) // in Request; nil: Handle
	onData  func(s *Stream, p []byte)       // in Data; nil: Consume
}

func newTestConn(t *testing.T, o Options) *testConn {
	t.Helper()
	tc := &testConn{t: t, sink: &testSink{}, streams: map[uint32]*Stream{}}
	tc.c = NewConn(tc.sink, tc, o)
	tc.fr = http2.NewFramer(io.Discard, &tc.sink.out)
	tc.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	tc.fr.SetMaxReadFrameSize(maxFrameSize)
	tc.fw = http2.NewFramer(&tc.in, nil)
	tc.fw.AllowIllegalWrites = true
	tc.henc = hpack.NewEncoder(&tc.hbuf)
	t.Cleanup(func() { tc.do(func(t *turn.Turn) { tc.c.Closed(t, io.EOF) }) })
	return tc
}

// newServer and newClient are greeted connections; nothing is left to read.
func newServer(t *testing.T, o Options) *testConn {
	t.Helper()
	tc := newTestConn(t, o)
	tc.greet()
	return tc
}

func newClient(t *testing.T, o Options, settings ...http2.Setting) *testConn {
	t.Helper()
	o.Client = true
	tc := newTestConn(t, o)
	tc.greet(settings...)
	return tc
}

// do runs f in a turn of its own.
func (tc *testConn) do(f func(t *turn.Turn)) {
	f(&tc.turn)
	tc.turn.End()
}

// greet exchanges prefaces and SETTINGS, and reads the Conn's.
func (tc *testConn) greet(settings ...http2.Setting) {
	tc.t.Helper()
	tc.do(tc.c.Start)
	if tc.c.o.Client {
		got := make([]byte, len(clientPreface))
		io.ReadFull(&tc.sink.out, got)
		if string(got) != clientPreface {
			tc.t.Fatalf("client began with %q, want the preface", got)
		}
	} else {
		tc.in.WriteString(clientPreface)
	}
	tc.fw.WriteSettings(settings...)
	tc.fw.WriteSettingsAck()
	tc.feed()
	want[*http2.SettingsFrame](tc)
	if tc.c.o.ConnWindow > defaultWindow {
		tc.wantWindowUpdate(0, uint32(tc.c.o.ConnWindow)-defaultWindow)
	}
	if f := want[*http2.SettingsFrame](tc); !f.IsAck() {
		tc.t.Fatalf("got %v, want the acknowledgement of SETTINGS", f)
	}
	tc.wantIdle()
}

// feed gives the Conn what has been written for it.
func (tc *testConn) feed() {
	tc.t.Helper()
	if err := tc.feedErr(); err != nil {
		tc.t.Fatalf("Feed: %v", err)
	}
}

func (tc *testConn) feedErr() (err error) {
	tc.do(func(t *turn.Turn) { err = tc.c.Feed(t, tc.in.Bytes()) })
	tc.in.Reset()
	return err
}

// wantConnError feeds and wants the connection to end with code: by Feed's
// error, by GOAWAY, and by closing the sink.
func (tc *testConn) wantConnError(code uint32) {
	tc.t.Helper()
	err := tc.feedErr()
	if ce, ok := errors.AsType[*ConnError](err); !ok || ce.Code != code {
		tc.t.Fatalf("Feed: %v, want a connection error %s", err, CodeName(code))
	}
	for {
		f := tc.read()
		if f == nil {
			tc.t.Fatal("connection error without GOAWAY")
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if uint32(g.ErrCode) != code {
				tc.t.Fatalf("GOAWAY with %v, want %s", g.ErrCode, CodeName(code))
			}
			break
		}
	}
	if !tc.sink.closed {
		tc.t.Fatal("sink is open after a connection error")
	}
}

// wantStreamError feeds and wants a reset, and the connection to go on.
func (tc *testConn) wantStreamError(id, code uint32) {
	tc.t.Helper()
	tc.feed()
	tc.wantReset(id, code)
	tc.wantAlive()
}

// wantAlive wants an answer to a PING, behind those to SETTINGS.
func (tc *testConn) wantAlive() {
	tc.t.Helper()
	tc.fw.WritePing(false, [8]byte{1, 2, 3})
	tc.feed()
	for ack := []byte{0, 0, 0, frameSettings, flagAck}; bytes.HasPrefix(tc.sink.out.Bytes(), ack); {
		tc.read()
	}
	if f := want[*http2.PingFrame](tc); !f.IsAck() || f.Data != [8]byte{1, 2, 3} {
		tc.t.Fatalf("got %v, want the answer to PING", f)
	}
}

func (tc *testConn) writeHeaders(id uint32, end bool, fields ...string) {
	tc.t.Helper()
	tc.writeBlock(id, end, tc.block(fields...))
	tc.feed()
}

// block encodes "name: value" fields.
func (tc *testConn) block(fields ...string) []byte {
	tc.hbuf.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ":") + 1
		tc.henc.WriteField(hpack.HeaderField{Name: f[:i], Value: strings.TrimPrefix(f[i+1:], " ")})
	}
	return bytes.Clone(tc.hbuf.Bytes())
}

func (tc *testConn) writeBlock(id uint32, end bool, block []byte) {
	tc.fw.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: block})
}

func (tc *testConn) writeData(id uint32, data string, end bool) {
	tc.t.Helper()
	tc.fw.WriteData(id, end, []byte(data))
	tc.feed()
}

// raw writes any frame, right or wrong.
func (tc *testConn) raw(typ, flags byte, id uint32, payload ...byte) {
	tc.fw.WriteRawFrame(http2.FrameType(typ), http2.Flags(flags), id, payload)
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// read returns the next frame that the Conn wrote, nil if there is none.
func (tc *testConn) read() http2.Frame {
	tc.t.Helper()
	if tc.sink.out.Len() == 0 {
		return nil
	}
	f, err := tc.fr.ReadFrame()
	if err != nil {
		tc.t.Fatalf("Conn wrote what http2.Framer does not read: %v (%v)", err, tc.fr.ErrorDetail())
	}
	return f
}

func want[F http2.Frame](tc *testConn) F {
	tc.t.Helper()
	f := tc.read()
	got, ok := f.(F)
	if !ok {
		tc.t.Fatalf("got %v, want %T", f, got)
	}
	return got
}

func (tc *testConn) wantIdle() {
	tc.t.Helper()
	if f := tc.read(); f != nil {
		tc.t.Fatalf("got %v, want nothing", f)
	}
}

func (tc *testConn) wantHeaders(id uint32, end bool, fields ...string) {
	tc.t.Helper()
	f := want[*http2.MetaHeadersFrame](tc)
	var got []string
	for _, x := range f.Fields {
		got = append(got, x.Name+": "+x.Value)
	}
	if f.StreamID != id || f.StreamEnded() != end || !slices.Equal(got, fields) {
		tc.t.Fatalf("got head %d %q end %v, want %d %q end %v", f.StreamID, got, f.StreamEnded(), id, fields, end)
	}
}

func (tc *testConn) wantData(id uint32, data string, end bool) {
	tc.t.Helper()
	f := want[*http2.DataFrame](tc)
	if f.StreamID != id || string(f.Data()) != data || f.StreamEnded() != end {
		tc.t.Fatalf("got %v %.40q, want DATA of %d %.40q end %v", f, f.Data(), id, data, end)
	}
}

func (tc *testConn) wantReset(id, code uint32) {
	tc.t.Helper()
	f := want[*http2.RSTStreamFrame](tc)
	if f.StreamID != id || uint32(f.ErrCode) != code {
		tc.t.Fatalf("got %v, want reset of %d with %s", f, id, CodeName(code))
	}
}

func (tc *testConn) wantWindowUpdate(id, n uint32) {
	tc.t.Helper()
	f := want[*http2.WindowUpdateFrame](tc)
	if f.StreamID != id || f.Increment != n {
		tc.t.Fatalf("got %v, want WINDOW_UPDATE of %d by %d", f, id, n)
	}
}

func (tc *testConn) wantGoAway(last, code uint32) {
	tc.t.Helper()
	f := want[*http2.GoAwayFrame](tc)
	if f.LastStreamID != last || uint32(f.ErrCode) != code {
		tc.t.Fatalf("got %v, want GOAWAY %d %s", f, last, CodeName(code))
	}
}

// wantEvents wants exactly these events since it was last asked.
func (tc *testConn) wantEvents(events ...string) {
	tc.t.Helper()
	if !slices.Equal(tc.events, events) {
		tc.t.Fatalf("events:\n got %q\nwant %q", tc.events, events)
	}
	tc.events = nil
}

func (tc *testConn) event(format string, a ...any) {
	tc.events = append(tc.events, fmt.Sprintf(format, a...))
}

func mark(s string, end bool) string {
	if end {
		return s + " end"
	}
	return s
}

func show(fields []Field) string {
	var s []string
	for _, f := range fields {
		s = append(s, string(f.Name)+"="+string(f.Value))
	}
	return strings.Join(s, " ")
}

// testConn is its Conn's ConnHandler and its streams' StreamHandler.
var (
	_ ConnHandler   = (*testConn)(nil)
	_ StreamHandler = (*testConn)(nil)
)

func (tc *testConn) Request(_ *turn.Turn, s *Stream, fields []Field, end bool) {
	tc.event("%s", mark(fmt.Sprintf("request %d %s", s.ID(), show(fields)), end))
	tc.streams[s.ID()] = s
	if tc.accept != nil {
		tc.accept(s, fields)
	} else {
		s.Handle(tc)
	}
}

func (tc *testConn) GoneAway(_ *turn.Turn, last, code uint32, debug string) {
	tc.event("goaway %d %s %q", last, CodeName(code), debug)
}

func (tc *testConn) Idle(*turn.Turn) { tc.event("idle") }

func (tc *testConn) Headers(_ *turn.Turn, s *Stream, fields []Field, end bool) {
	tc.event("%s", mark(fmt.Sprintf("head %d %s", s.ID(), show(fields)), end))
}

func (tc *testConn) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	if len(p) > 100 {
		tc.event("%s", mark(fmt.Sprintf("data %d %d bytes", s.ID(), len(p)), end))
	} else {
		tc.event("%s", mark(fmt.Sprintf("data %d %q", s.ID(), p), end))
	}
	if tc.onData != nil {
		tc.onData(s, p)
	} else {
		s.Consume(t, len(p))
	}
}

func (tc *testConn) Left(_ *turn.Turn, s *Stream) { tc.event("left %d", s.ID()) }

func (tc *testConn) Closed(_ *turn.Turn, s *Stream, err error) {
	if err == nil {
		tc.event("closed %d", s.ID())
	} else {
		tc.event("closed %d: %v", s.ID(), err)
	}
}

// open opens a stream of a client.
func (tc *testConn) open(end bool, fields ...Field) *Stream {
	tc.t.Helper()
	var s *Stream
	var err error
	tc.do(func(t *turn.Turn) { s, err = tc.c.Open(t, tc, fields, end) })
	if err != nil {
		tc.t.Fatalf("Open: %v", err)
	}
	return s
}

func (tc *testConn) write(s *Stream, p string) {
	tc.do(func(t *turn.Turn) { s.Write(t, []byte(p)) })
}

func (tc *testConn) closeWrite(s *Stream)         { tc.do(s.CloseWrite) }
func (tc *testConn) abort(s *Stream, code uint32) { tc.do(func(t *turn.Turn) { s.Abort(t, code) }) }
func (tc *testConn) sendHeaders(s *Stream, end bool, fields ...Field) {
	tc.do(func(t *turn.Turn) { s.SendHeaders(t, fields, end) })
}

// release lets the sink's bytes leave, as far as n, and says so.
func (tc *testConn) release(n int) {
	tc.sink.held -= n
	tc.do(tc.c.Left)
}

var (
	connectFields = []string{":method: CONNECT", ":authority: 10.0.0.1:80"}
	getFields     = []string{":method: GET", ":scheme: http", ":path: /", ":authority: a"}
	connectHead   = []Field{NewField(":method", "CONNECT"), NewField(":authority", "10.0.0.1:80")}
	getHead       = []Field{NewField(":method", "GET"), NewField(":scheme", "http"), NewField(":path", "/"), NewField(":authority", "a")}
	ok200         = []Field{NewField(":status", "200")}
)

// TestTestConn shows how tests read: a tunnel through a server, and one through
// a client, with half-close in both directions.
func TestTestConn(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, false, connectFields...)
		tc.wantEvents("request 1 :method=CONNECT :authority=10.0.0.1:80")

		s := tc.streams[1]
		tc.sendHeaders(s, false, ok200...)
		tc.wantHeaders(1, false, ":status: 200")

		tc.writeData(1, "hello", false)
		tc.wantEvents(`data 1 "hello"`)
		tc.write(s, "world")
		tc.wantData(1, "world", false)

		tc.closeWrite(s)
		tc.wantData(1, "", true)
		tc.writeData(1, "more", true)
		tc.wantEvents(`data 1 "more" end`, "closed 1", "idle")
		tc.wantIdle()
	})
	t.Run("client", func(t *testing.T) {
		tc := newClient(t, Options{})
		s := tc.open(false, connectHead...)
		tc.wantHeaders(1, false, connectFields...)

		tc.writeHeaders(1, false, ":status: 200")
		tc.wantEvents("head 1 :status=200")
		tc.do(func(t *turn.Turn) {
			s.Write(t, []byte("last"))
			s.CloseWrite(t)
		})
		tc.wantData(1, "last", true)
		tc.writeData(1, "answer", true)
		tc.wantEvents(`data 1 "answer" end`, "closed 1", "idle")
		tc.wantIdle()
	})
}
