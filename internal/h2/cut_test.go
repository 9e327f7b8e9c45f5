package h2

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// TestCuts: wherever reads cut a peer's bytes, the streams hear the same, and the
// same is counted, owed and answered. What comes whole goes another way than what
// comes in pieces (Conn.data).
func TestCuts(t *testing.T) {
	for _, client := range []bool{false, true} {
		for i, s := range slices.Concat(seeds(client), dataSeeds(client)) {
			in := program(s)
			if !client {
				in = append([]byte(clientPreface), in...)
			}
			want := hear(t, client, in, len(in))
			if got := hear(t, client, in, 1); got != want {
				t.Errorf("client %v, seed %d, byte by byte:\n got %s\nwant %s", client, i, got, want)
			}
			for at := 1; at < len(in); at++ {
				if got := hear(t, client, in, at); got != want {
					t.Fatalf("client %v, seed %d, cut at %d of %d:\n got %s\nwant %s", client, i, at, len(in), got, want)
				}
			}
		}
	}
}

// dataSeeds are DATA in every place and form, whatever seeds leave out.
func dataSeeds(client bool) [][]byte {
	op := func(typ, flags, id byte, payload string) []byte {
		return append([]byte{typ, flags, id, byte(len(payload))}, payload...)
	}
	data := func(flags, id byte, payload string) []byte { return op(frameData, flags, id, payload) }
	settings, ack := op(frameSettings, 0, 0, ""), op(frameSettings, flagAck, 0, "")
	post, connect := "\x83\x87\x84\x5c\x015", "\x42\x07CONNECT\x01\x01a"
	if client {
		post, connect = "\x88\x5c\x015", "\x88"
	}
	begin := slices.Concat(settings, ack, op(frameHeaders, flagEndHeaders, 1, post), op(frameHeaders, flagEndHeaders, 3, connect))
	long := strings.Repeat("x", 60)
	all := [][]byte{
		slices.Concat(data(0, 1, "h"), data(0, 3, "to"), data(0, 1, "e"), data(flagEndStream, 3, ""), data(flagEndStream, 1, "llo")),
		slices.Concat(data(0, 3, long), data(0, 3, long), data(flagPadded, 3, "\x04padded...."), data(0, 3, long+long)),
		slices.Concat(data(0, 3, long+long), data(0, 3, "ignored"), data(0, 1, "hello"), data(flagEndStream, 1, "")),
		slices.Concat(data(flagEndStream, 1, "hell"), data(0, 1, "late"), data(flagEndStream, 3, "end"), data(0, 3, "behind")),
		slices.Concat(data(0, 1, "hello"), data(0, 3, ""), data(0, 3, ""), data(0, 3, "x"), data(0, 3, ""), data(0, 3, ""), data(0, 3, "")),
		slices.Concat(data(0, 3, "x"), data(flagPadded, 3, "\x00\x00\x01\x00\x00\x00\x00\x00\x03y"), data(0, 3, "\x00\x00\x01\x00\x00\x00\x00\x00\x03z")),
		slices.Concat(data(0, 3, "x"), data(0, 9, "idle")),
		slices.Concat(data(0, 3, "x"), data(0, 0, "no stream")),
		slices.Concat(data(0, 3, "x"), op(framePing, 0, 0, "12345678"), data(0, 3, "y"), op(frameRSTStream, 0, 3, "\x00\x00\x00\x08"), data(0, 3, "z")),
		slices.Concat(data(0, 3, "x"), op(frameHeaders, 0, 3, ""), data(0, 3, "inside a head")),
		data(0, 1, "before SETTINGS"),
	}
	for i := range all[:len(all)-1] {
		all[i] = slices.Concat(begin, all[i])
	}
	return all
}

// TestDataWithoutHandler: what comes on a stream that was answered and has no handler
// is counted once.
func TestDataWithoutHandler(t *testing.T) {
	tc := newServer(t, Options{})
	tc.accept = func(s *Stream, _ []Field) {
		s.SendHeaders(&tc.turn, ok200, false)
		s.Write(&tc.turn, make([]byte, 2*defaultWindow))
		s.CloseWrite(&tc.turn)
	}
	post(tc, 1)
	before := tc.streams[1].recvWin
	tc.writeData(1, "hello", false)
	if n, took := tc.c.Stats().DataFramesIn, before-tc.streams[1].recvWin; n != 1 || took != 5 {
		t.Errorf("%d frames counted that took %d bytes of window, want 1 and 5", n, took)
	}
}

// TestPanicInSink: a sink that panics leaves no lock held, wherever Write came to it.
func TestPanicInSink(t *testing.T) {
	long := 3*minFrameSize + 1
	for _, sizes := range [][2]int{{100, 100}, {1000, 2000}, {1 << 14, 1 << 14}, {1, 1 << 17}, {handAt - long - headerLen, long}} {
		sink := &panicking{}
		b := newBench(t, sink, Options{})
		one := b.h.s
		b.connect(3, tunnelHead)
		b.feed(t, b.take())
		b.h.s.SendHeaders(&b.t, ok200, false)
		b.t.End()
		sink.panics = true
		func() {
			defer func() { sink.panics = recover() == nil }()
			for range outCap {
				one.Write(&b.t, make([]byte, sizes[0]))
				b.h.s.Write(&b.t, make([]byte, sizes[1]))
			}
		}()
		if sink.panics {
			t.Errorf("writes of %d bytes did not come to the sink", sizes)
		}
		if !b.c.mu.TryLock() {
			t.Fatalf("writes of %d bytes: the connection is locked", sizes)
		}
		b.c.mu.Unlock()
	}
}

type panicking struct {
	nowhere
	panics bool
}

func (s *panicking) Take(_ *turn.Turn, p []byte) {
	buf.Put(p)
	if s.panics {
		panic("in Take")
	}
}

// hear feeds a Conn in pieces, up to the first cut and from there, or byte by byte if
// that is 1, and returns all that is known of it behind.
func hear(t *testing.T, client bool, in []byte, cut int) string {
	l := &listener{streams: map[uint32]*twinStream{}, t: t}
	limits := wide
	limits.EmptyData = 2
	sink := &testSink{}
	c := NewConn(sink, l, Options{Client: client, FirstWindow: 100, StreamWindow: 100, Limits: limits})
	var tu turn.Turn
	c.Start(&tu)
	for _, method := range []string{"POST", "CONNECT"} {
		if !client {
			break
		}
		s, err := c.Open(&tu, l, []Field{NewField(":method", method)}, false)
		if err != nil {
			t.Fatal(err)
		}
		l.streams[s.ID()] = &twinStream{}
	}
	tu.End()
	var err error
	if cut == 1 {
		err = feedIn(c, in, 1)
	} else if err = feedIn(c, in[:cut], 0); err == nil {
		err = feedIn(c, in[cut:], 0)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "error %v, %d frames, connection's window %d\n", err, c.in.finished, c.recvWin+int64(c.recvOwed))
	for s := range c.streams.all() {
		fmt.Fprintf(&b, "stream %d: window %d, length %d\n", s.id, s.recvWin+s.recvOwed, s.length)
	}
	st := c.stats
	st.Flushes = 0
	fmt.Fprintf(&b, "%+v\n%+v\n", st, c.rate)
	c.Closed(&tu, io.EOF)
	tu.End()
	for _, id := range slices.Sorted(maps.Keys(l.streams)) {
		x := l.streams[id]
		fmt.Fprintf(&b, "stream %d heard %s%q, end %v, %s\n", id, x.log.String(), x.data, x.end, x.gone)
	}
	for p := bytes.TrimPrefix(sink.out.Bytes(), []byte(clientPreface)); len(p) > 0; {
		n := headerLen + int(p[1])<<8 + int(p[2])
		if p[3] != frameWindowUpdate { // which a piece may bring earlier
			fmt.Fprintf(&b, "answer %x\n", p[:n])
		}
		p = p[n:]
	}
	return b.String()
}
