package h2

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// dataOut reads DATA frames until something else comes or nothing is left, and
// returns how many bytes each stream sent.
func (tc *testConn) dataOut() map[uint32]int {
	tc.t.Helper()
	got := map[uint32]int{}
	for f := tc.read(); f != nil; f = tc.read() {
		d, ok := f.(*http2.DataFrame)
		if !ok {
			tc.t.Fatalf("got %v, want DATA", f)
		}
		got[d.StreamID] += len(d.Data())
	}
	return got
}

// serve opens a stream at a server and answers 200.
func (tc *testConn) serve(id uint32) *Stream {
	tc.t.Helper()
	tunnel(tc, id)
	s := tc.streams[id]
	tc.sendHeaders(s, false, ok200...)
	want[*http2.MetaHeadersFrame](tc)
	tc.events = nil
	return s
}

func TestSendWindows(t *testing.T) {
	tc := newServer(t, Options{})
	s := tc.serve(1)
	tc.write(s, strings.Repeat("x", 100<<10))
	if got := tc.dataOut()[1]; got != defaultWindow {
		t.Fatalf("sent %d, want the window, %d", got, defaultWindow)
	}
	if got, want := s.Buffered(), 100<<10-defaultWindow; got != want {
		t.Errorf("Buffered = %d, want %d", got, want)
	}
	tc.fw.WriteWindowUpdate(1, 10) // the connection's is used up as well
	tc.feed()
	tc.wantIdle()
	tc.fw.WriteWindowUpdate(0, 1<<20)
	tc.feed()
	tc.wantData(1, strings.Repeat("x", 10), false)
	tc.closeWrite(s)
	tc.wantIdle() // the end waits for the rest
	tc.fw.WriteWindowUpdate(1, 1<<20)
	tc.feed()
	if got, want := tc.dataOut()[1], 100<<10-defaultWindow-10; got != want {
		t.Errorf("sent %d at last, want %d", got, want)
	}
	tc.wantEvents("left 1")
	if !s.sendClosed {
		t.Error("END_STREAM was not sent")
	}
}

func TestWindowChangesBySettings(t *testing.T) {
	tc := newServer(t, Options{})
	s := tc.serve(1)
	tc.write(s, strings.Repeat("x", 60000))
	tc.dataOut()
	window := func(v uint32) {
		tc.fw.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: v})
		tc.feed()
		want[*http2.SettingsFrame](tc)
	}
	window(1000) // now -59000
	tc.write(s, "held")
	tc.fw.WriteWindowUpdate(1, 59000)
	tc.feed()
	tc.wantIdle()
	tc.fw.WriteWindowUpdate(1, 2)
	tc.feed()
	tc.wantData(1, "he", false)
	window(1005)
	tc.wantData(1, "ld", false)
	if got := s.sendWin; got != 3 {
		t.Errorf("window is %d, want 3", got)
	}
}

// What is received is credited to the connection at once and to the stream when
// it is consumed, both at half a window.
func TestCredit(t *testing.T) {
	tc := newServer(t, Options{StreamWindow: 64 << 10, FirstWindow: 64 << 10, ConnWindow: 128 << 10})
	tc.onData = func(*Stream, []byte) {}
	s := tc.serve(1)
	half := strings.Repeat("x", 16<<10)
	tc.writeData(1, half, false)
	tc.writeData(1, half, false)
	tc.wantIdle()
	tc.writeData(1, half, false)
	tc.writeData(1, half, false)
	tc.wantWindowUpdate(0, 64<<10)
	tc.do(func(t *turn.Turn) { s.Consume(t, 32<<10-1) })
	tc.wantIdle()
	tc.do(func(t *turn.Turn) { s.Consume(t, 1) })
	tc.wantWindowUpdate(1, 32<<10)

	// Consuming twice what came must not open the window further.
	tc.do(func(t *turn.Turn) { s.Consume(t, 1<<20) })
	tc.wantWindowUpdate(1, 32<<10)
	if s.recvWin != 64<<10 {
		t.Errorf("window is %d, want %d", s.recvWin, 64<<10)
	}
}

func TestReceiveWindows(t *testing.T) {
	full := strings.Repeat("x", 16<<10)
	t.Run("stream", func(t *testing.T) {
		tc := newServer(t, Options{StreamWindow: 64 << 10, FirstWindow: 64 << 10})
		tc.onData = func(*Stream, []byte) {}
		tc.serve(1)
		for range 4 {
			tc.writeData(1, full, false)
		}
		tc.wantAlive() // just full
		tc.fw.WriteData(1, false, []byte("x"))
		tc.wantStreamError(1, CodeFlowControl)
	})
	t.Run("stream, padding counts", func(t *testing.T) {
		tc := newServer(t, Options{StreamWindow: 64 << 10, FirstWindow: 64 << 10})
		tc.onData = func(*Stream, []byte) {}
		tc.serve(1)
		for range 3 {
			tc.writeData(1, full, false)
		}
		tc.writeData(1, full[:len(full)-200], false)
		tc.fw.WriteDataPadded(1, false, []byte("x"), make([]byte, 199)) // with its length 201 bytes
		tc.wantStreamError(1, CodeFlowControl)
	})
	t.Run("padding is consumed by nobody", func(t *testing.T) {
		tc := newServer(t, Options{StreamWindow: 64 << 10, FirstWindow: 64 << 10})
		tc.serve(1)
		for range 1000 {
			tc.fw.WriteDataPadded(1, false, []byte("x"), make([]byte, 255))
			tc.feed()
		}
		updates := 0
		for f := tc.read(); f != nil; f = tc.read() {
			updates += int(f.(*http2.WindowUpdateFrame).Increment)
		}
		if got := tc.streams[1].recvWin; updates < 250_000-32<<10 || got < 32<<10 {
			t.Errorf("returned %d of 257000 bytes, window %d", updates, got)
		}
	})
	t.Run("connection", func(t *testing.T) {
		// Credit is returned on receipt, so only a peer that sends beyond what it
		// can know of is caught: within one read.
		tc := newServer(t, Options{StreamWindow: 256 << 10, ConnWindow: defaultWindow})
		tc.serve(1)
		tc.c.recvWin = 10
		tc.fw.WriteData(1, false, []byte("0123456789"))
		tc.feed()
		tc.c.recvWin = 10
		tc.fw.WriteData(1, false, []byte("0123456789x"))
		tc.wantConnError(CodeFlowControl)
	})
	t.Run("smaller than the default", func(t *testing.T) {
		tc := newTestConn(t, Options{StreamWindow: 1000})
		tc.do(tc.c.Start)
		tc.in.WriteString(clientPreface)
		tc.fw.WriteSettings()
		tc.writeHeaders(1, false, connectFields...)
		tc.onData = func(*Stream, []byte) {}
		tc.writeData(1, full, false) // the peer has not acknowledged the smaller window
		tc.fw.WriteSettingsAck()
		tc.writeHeaders(3, false, connectFields...)
		tc.wantStart()
		want[*http2.SettingsFrame](tc)
		tc.writeData(3, full[:1000], false)
		tc.wantAlive()
		tc.fw.WriteData(3, false, []byte("x"))
		tc.wantStreamError(3, CodeFlowControl)
		tc.fw.WriteData(1, false, []byte("x"))
		tc.wantStreamError(1, CodeFlowControl)
	})
}

// A stream's window begins small, and grows as its bytes go somewhere; when memory
// is short it goes back to what it began with.
func TestWindowGrows(t *testing.T) {
	var tight atomic.Bool
	tc := newServer(t, Options{FirstWindow: 64 << 10, StreamWindow: 256 << 10, Tight: &tight})
	tunnel(tc, 1)
	s := tc.streams[1]
	held := 0
	tc.onData = func(_ *Stream, p []byte) { held += len(p) }
	// fill has the peer send what it may, and returns how much that is.
	fill := func() int {
		t.Helper()
		before := held
		for n := int(s.recvWin); n > 0; n = int(s.recvWin) {
			tc.writeData(1, strings.Repeat("x", min(n, 16<<10)), false)
		}
		for tc.read() != nil {
		}
		return held - before
	}
	consume := func() {
		tc.do(func(t *turn.Turn) { s.Consume(t, held) })
		held = 0
	}
	if fill(); held != 64<<10 {
		t.Errorf("who does not read is sent %d bytes, want 64 KiB", held)
	}
	for _, want := range []int{128 << 10, 256 << 10, 256 << 10} {
		consume()
		if got := fill(); got != want {
			t.Errorf("behind one that reads come %d bytes, want %d", got, want)
		}
	}
	tight.Store(true)
	for range 2 {
		consume()
		if got := fill(); got != 64<<10 {
			t.Errorf("when memory is short come %d bytes, want 64 KiB", got)
		}
	}
	tight.Store(false)
	consume()
	if got := fill(); got < 192<<10 {
		t.Errorf("when it is not any more come %d bytes, want 256 KiB again", got)
	}
	for range 2 { // and who counts twice gains nothing
		tc.do(func(t *turn.Turn) { s.Consume(t, held) })
	}
	if got := int(s.recvWin); got > 256<<10 {
		t.Errorf("the window is %d, want no more than 256 KiB", got)
	}
}

// Resets in the middle of bodies must not cost the connection any window:
// neither what was under way nor what nobody consumed.
func TestResetsLeaveTheWindowWhole(t *testing.T) {
	const rounds = 10_000
	body := strings.Repeat("x", 1000)
	check := func(t *testing.T, tc *testConn) {
		t.Helper()
		for tc.read() != nil {
		}
		if got, want := tc.c.recvWin+int64(tc.c.recvOwed), int64(tc.c.o.ConnWindow); got != want {
			t.Errorf("receive window is %d with what is owed, want %d", got, want)
		}
		if n := tc.c.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	}
	o := Options{ConnWindow: 128 << 10, StreamWindow: 96 << 10, Limits: Limits{Resets: 1 << 20}}
	t.Run("we reset a server's streams", func(t *testing.T) {
		tc := newServer(t, o)
		tc.onData = func(*Stream, []byte) {}
		for i := range uint32(rounds) {
			id := 2*i + 1
			tunnel(tc, id)
			tc.sendHeaders(tc.streams[id], false, ok200...)
			tc.writeData(id, body, false)
			tc.abort(tc.streams[id], CodeCancel)
			tc.writeData(id, body, false) // was under way
			delete(tc.streams, id)
			tc.events = nil
		}
		check(t, tc)
		if got, want := tc.c.Stats().DataIgnored, uint64(rounds*len(body)); got != want {
			t.Errorf("DataIgnored = %d, want %d", got, want)
		}
	})
	t.Run("the peer resets a server's streams", func(t *testing.T) {
		tc := newServer(t, o)
		tc.onData = func(*Stream, []byte) {}
		for i := range uint32(rounds) {
			id := 2*i + 1
			tunnel(tc, id)
			tc.sendHeaders(tc.streams[id], false, ok200...)
			tc.writeData(id, body, false)
			tc.fw.WriteRSTStream(id, http2.ErrCodeCancel)
			tc.feed()
			delete(tc.streams, id)
			tc.events = nil
		}
		check(t, tc)
	})
	t.Run("we reset a client's streams", func(t *testing.T) {
		tc := newClient(t, o)
		tc.onData = func(*Stream, []byte) {}
		for range rounds {
			s := tc.open(false, connectHead...)
			tc.writeHeaders(s.ID(), false, ":status: 200")
			tc.writeData(s.ID(), body, false)
			tc.abort(s, CodeCancel)
			tc.writeData(s.ID(), body, false)
			tc.events = nil
		}
		check(t, tc)
	})
	t.Run("what a stream had queued", func(t *testing.T) { // towards the peer
		tc := newServer(t, o)
		tc.fw.WriteWindowUpdate(0, maxWindow-defaultWindow)
		tc.feed()
		for i := range uint32(100) {
			s := tc.serve(2*i + 1)
			tc.write(s, strings.Repeat("x", 100<<10))
			tc.abort(s, CodeCancel)
			sent := 0
			for f := tc.read(); f != nil; f = tc.read() {
				if d, ok := f.(*http2.DataFrame); ok {
					sent += len(d.Data())
				}
			}
			if sent != defaultWindow {
				t.Fatalf("stream sent %d, want %d", sent, defaultWindow)
			}
		}
		if got, want := tc.c.sendWin, int64(maxWindow-100*defaultWindow); got != want {
			t.Errorf("send window is %d, want %d: bytes were counted that never left", got, want)
		}
	})
}

// Writes of one turn make one frame and one write to the sink.
func TestMerge(t *testing.T) {
	tc := newServer(t, Options{})
	a, b := tc.serve(1), tc.serve(3)
	writes := tc.sink.writes
	tc.do(func(t *turn.Turn) {
		a.Write(t, []byte("he"))
		a.Write(t, []byte("ll"))
		a.Write(t, []byte("o"))
		b.Write(t, []byte("x"))
		a.Write(t, []byte("again"))
		a.CloseWrite(t)
	})
	if got := tc.sink.writes - writes; got != 1 {
		t.Errorf("%d writes to the sink, want 1", got)
	}
	tc.wantData(1, "hello", false)
	tc.wantData(3, "x", false)
	tc.wantData(1, "again", true)
	tc.wantIdle()

	full := strings.Repeat("x", minFrameSize-1)
	tc.do(func(t *turn.Turn) {
		b.Write(t, []byte(full))
		b.Write(t, []byte("12"))
	})
	tc.wantData(3, full+"1", false)
	tc.wantData(3, "2", false)
	tc.wantIdle()

	// Another frame between, or a flush, and it is too late.
	tc.do(func(t *turn.Turn) {
		b.Write(t, []byte("a"))
		b.SendHeaders(t, []Field{NewField("x", "y")}, true)
	})
	tc.wantData(3, "a", false)
	tc.wantHeaders(3, true, "x: y")
	tc.wantIdle()
}

func TestSendFrameSize(t *testing.T) {
	for _, tt := range []struct{ peer, cap, want int }{
		{0, 0, 16 << 10},
		{1 << 20, 0, 16 << 10},
		{1 << 20, 64 << 10, 64 << 10},
		{1 << 20, 1 << 20, 64 << 10},
		{20 << 10, 64 << 10, 20 << 10},
		{0, 64 << 10, 16 << 10},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			tc := newTestConn(t, Options{MaxSendFrame: uint32(tt.cap)})
			set := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}
			if tt.peer > 0 {
				set = append(set, http2.Setting{ID: http2.SettingMaxFrameSize, Val: uint32(tt.peer)})
			}
			tc.greet(set...)
			s := tc.serve(1)
			tc.write(s, strings.Repeat("x", 65000))
			if f := want[*http2.DataFrame](tc); len(f.Data()) != min(tt.want, 65000) {
				t.Errorf("first frame has %d bytes, want %d", len(f.Data()), tt.want)
			}
		})
	}
}

// One bulk stream and many small ones on a full socket: when it takes bytes
// again, each small stream's leave within one round.
func TestRoundRobin(t *testing.T) {
	const small = 50
	tc := newServer(t, Options{})
	tc.fw.WriteWindowUpdate(0, 1<<30)
	tc.fw.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	tc.feed()
	want[*http2.SettingsFrame](tc)
	bulk := tc.serve(1)
	var others []*Stream
	for i := range uint32(small) {
		others = append(others, tc.serve(2*i+3))
	}
	tc.sink.hold = true
	tc.write(bulk, strings.Repeat("x", 1<<20))
	if got := tc.dataOut()[1]; got > outCap || got < outCap-2*minFrameSize {
		t.Fatalf("bulk stream put %d into the out buffer, want about %d", got, outCap)
	}
	for _, s := range others {
		tc.write(s, "small")
	}
	tc.wantIdle() // it is full
	tc.fw.WritePing(false, [8]byte{})
	tc.feed()
	want[*http2.PingFrame](tc) // which does not hold back control frames

	tc.release(tc.sink.held)
	var order []uint32
	for f := tc.read(); f != nil; f = tc.read() {
		d := f.(*http2.DataFrame)
		if len(d.Data()) > minFrameSize {
			t.Fatalf("frame of %d bytes, want at most %d", len(d.Data()), minFrameSize)
		}
		order = append(order, d.StreamID)
	}
	for i, s := range others {
		at := slices.Index(order, s.ID())
		if at < 0 || at > small {
			t.Fatalf("small stream %d left at place %d of %d, want within the first round of %d", i, at, len(order), small+1)
		}
	}
	if n := tc.sink.held; n > outCap+2000 {
		t.Errorf("sink holds %d, want at most %d of DATA", n, outCap)
	}
	// Two bulk streams share what leaves.
	second := others[0]
	tc.write(second, strings.Repeat("y", 1<<20))
	sent := map[uint32]int{}
	for range 8 {
		tc.release(tc.sink.held)
		for id, n := range tc.dataOut() {
			sent[id] += n
		}
	}
	if a, b := sent[1], sent[second.ID()]; a < b-minFrameSize || b < a-minFrameSize || a+b < 8*(outCap-minFrameSize) {
		t.Errorf("two bulk streams sent %d and %d, want the same, and %d together", a, b, 8*outCap)
	}
}

// Left is told once to a stream that held more than the low mark, whatever it
// was that held it up.
func TestLeft(t *testing.T) {
	t.Run("small writes hear nothing", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		for range 10 {
			tc.write(s, strings.Repeat("x", 4000))
		}
		tc.wantEvents()
	})
	t.Run("the sink", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.sink.hold = true
		tc.write(s, strings.Repeat("x", 40_000))
		tc.wantEvents()
		if got := s.Buffered(); got != 40_000 {
			t.Errorf("Buffered = %d, want 40000", got)
		}
		tc.release(20_000)
		tc.wantEvents()
		tc.release(tc.sink.held - 10_000)
		tc.wantEvents("left 1")
		tc.release(10_000)
		tc.wantEvents()
		if got := s.Buffered(); got != 0 {
			t.Errorf("Buffered = %d, want 0", got)
		}
	})
	t.Run("a share of the sink", func(t *testing.T) {
		tc := newServer(t, Options{})
		a, b := tc.serve(1), tc.serve(3)
		tc.sink.hold = true
		tc.write(a, strings.Repeat("x", 1000))
		tc.write(b, strings.Repeat("y", 50_000))
		if got := a.Buffered(); got != 1000 {
			t.Errorf("Buffered = %d, want its own 1000", got)
		}
		tc.release(tc.sink.held)
		tc.wantEvents("left 3")
	})
	t.Run("the window", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.write(s, strings.Repeat("x", defaultWindow+20_000))
		tc.dataOut()
		tc.wantEvents()
		tc.fw.WriteWindowUpdate(0, 1<<20)
		tc.fw.WriteWindowUpdate(1, 1000)
		tc.feed()
		tc.wantEvents()
		tc.fw.WriteWindowUpdate(1, 5000)
		tc.feed()
		tc.wantEvents("left 1")
	})
	t.Run("not after the end", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.sink.hold = true
		tc.write(s, strings.Repeat("x", 40_000))
		tc.abort(s, CodeCancel)
		tc.release(tc.sink.held)
		tc.wantEvents("closed 1: stream reset, CANCEL", "idle")
	})
}

// Trailers and the end wait for what is queued before them.
func TestTrailersBehindQueue(t *testing.T) {
	tc := newServer(t, Options{})
	post(tc, 1)
	s := tc.streams[1]
	tc.do(func(t *turn.Turn) {
		s.SendHeaders(t, ok200, false)
		s.Write(t, []byte(strings.Repeat("x", defaultWindow+5)))
		s.SendHeaders(t, []Field{NewField("grpc-status", "0")}, true)
		s.Write(t, []byte("nobody should see this"))
	})
	tc.wantHeaders(1, false, ":status: 200")
	tc.dataOut()
	tc.fw.WriteWindowUpdate(0, 100)
	tc.fw.WriteWindowUpdate(1, 100)
	tc.feed()
	tc.wantData(1, "xxxxx", false)
	tc.wantHeaders(1, true, "grpc-status: 0")
	tc.writeData(1, "", true)
	tc.wantIdle()
	if got := tc.events[len(tc.events)-2:]; !slices.Equal(got, []string{"closed 1", "idle"}) {
		t.Errorf("events end with %q, want closed and idle", got)
	}
}

// TestCreditBeforeAcknowledgement: what a stream has consumed before our window
// holds for it may be due when it does, and nothing else may come to say so.
func TestCreditBeforeAcknowledgement(t *testing.T) {
	const first, sent = 40 << 10, 24 << 10
	tc := newTestConn(t, Options{FirstWindow: first, StreamWindow: first})
	tc.do(tc.c.Start)
	tc.in.WriteString(clientPreface)
	tc.fw.WriteSettings()
	tc.writeHeaders(1, false, connectFields...)
	tc.writeData(1, strings.Repeat("x", sent/2), false)
	tc.writeData(1, strings.Repeat("x", sent/2), false)
	tc.sink.out.Reset()
	tc.fw.WriteSettingsAck()
	tc.feed()
	tc.wantWindowUpdate(1, sent)
	tc.wantIdle()
	tc.writeData(1, strings.Repeat("x", 16<<10), false) // all of what is open to it
	tc.wantAlive()
}
