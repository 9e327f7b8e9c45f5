package h2

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// flood feeds n turns of a frame and returns at which the connection ended, 0
// if it did not.
func (tc *testConn) flood(n int, frame func(i int)) (at int, err error) {
	for i := range n {
		frame(i)
		if err := tc.feedErr(); err != nil {
			return i + 1, err
		}
		tc.sink.out.Reset() // the peer reads
		tc.events = nil
	}
	return 0, nil
}

// Each kind of frame that costs us and gains the peer nothing has a rate; the
// control is as many of it with the work that justifies them.
func TestFloods(t *testing.T) {
	limits := Limits{Resets: 20, Settings: 20, Pings: 20, Unknown: 20, Priority: 20, Windows: 20, Strays: 20, EmptyData: 4}
	open := func(tc *testConn, i int) uint32 {
		id := uint32(2*i + 1)
		tc.writeBlock(id, false, tc.block(getFields...))
		return id
	}
	for _, tt := range []struct {
		name    string
		frame   func(tc *testConn, i int)
		at      int // frames until the end
		lawful  func(tc *testConn, i int)
		prepare func(tc *testConn)
	}{
		{
			name:  "SETTINGS",
			frame: func(tc *testConn, _ int) { tc.fw.WriteSettings() },
			at:    20, // with the one of the greeting
		},
		{
			name:  "PING",
			frame: func(tc *testConn, _ int) { tc.fw.WritePing(false, [8]byte{}) },
			at:    21,
			lawful: func(tc *testConn, i int) {
				if i == 0 {
					open(tc, 0)
				}
				tc.fw.WriteData(1, false, []byte("x"))
				tc.fw.WritePing(false, [8]byte{})
			},
		},
		{
			name:  "PING answers",
			frame: func(tc *testConn, _ int) { tc.fw.WritePing(true, [8]byte{}) },
			at:    21,
		},
		{
			name:   "unknown frames",
			frame:  func(tc *testConn, _ int) { tc.raw(0x42, 0, 0) },
			at:     21,
			lawful: func(tc *testConn, i int) { open(tc, i); tc.raw(0x10, 0, 0, 0, 0, 0, 1) },
		},
		{
			name:  "PRIORITY",
			frame: func(tc *testConn, _ int) { tc.raw(framePriority, 0, 1, 0, 0, 0, 3, 0) },
			at:    21,
			lawful: func(tc *testConn, i int) {
				if i < 10 {
					open(tc, i)
				}
				tc.raw(framePriority, 0, 1, 0, 0, 0, 3, 0)
			},
		},
		{
			name:  "WINDOW_UPDATE",
			frame: func(tc *testConn, _ int) { tc.fw.WriteWindowUpdate(0, 1) },
			at:    21,
			lawful: func(tc *testConn, i int) {
				if i == 0 {
					open(tc, 0)
					tc.feed()
					tc.sendHeaders(tc.streams[1], false, ok200...)
				}
				tc.write(tc.streams[1], "x")
				for range 10 {
					tc.fw.WriteWindowUpdate(1, 1)
				}
			},
		},
		{
			name:    "empty DATA",
			prepare: func(tc *testConn) { post(tc, 1) },
			frame:   func(tc *testConn, _ int) { tc.fw.WriteData(1, false, nil) },
			at:      5,
			lawful: func(tc *testConn, i int) {
				if i == 0 {
					open(tc, 0)
				}
				tc.fw.WriteData(1, false, nil)
				tc.fw.WriteData(1, false, []byte("x"))
			},
		},
		{
			name:  "rapid reset",
			frame: func(tc *testConn, i int) { tc.fw.WriteRSTStream(open(tc, i), http2.ErrCodeCancel) },
			at:    21,
			lawful: func(tc *testConn, i int) {
				id := open(tc, i)
				tc.feed()
				tc.sendHeaders(tc.streams[id], false, ok200...)
				tc.fw.WriteRSTStream(id, http2.ErrCodeCancel)
			},
		},
		{
			name: "rapid reset of tunnels, which are answered at once",
			frame: func(tc *testConn, i int) {
				id := tc.tunnel(i)
				tc.feed()
				tc.sendHeaders(tc.streams[id], false, ok200...)
				tc.fw.WriteRSTStream(id, http2.ErrCodeCancel)
			},
			at: 21,
			lawful: func(tc *testConn, i int) {
				id := tc.tunnel(i)
				tc.feed()
				tc.sendHeaders(tc.streams[id], false, ok200...)
				tc.write(tc.streams[id], "x")
				tc.fw.WriteRSTStream(id, http2.ErrCodeCancel)
			},
		},
		{
			name: "made you reset: a tunnel, which is answered at once",
			frame: func(tc *testConn, i int) {
				id := tc.tunnel(i)
				tc.feed()
				tc.sendHeaders(tc.streams[id], false, ok200...)
				tc.raw(frameWindowUpdate, 0, id, u32(0)...)
			},
			at: 21,
		},
		{
			name:    "RST_STREAM for streams that are gone",
			prepare: func(tc *testConn) { tc.fw.WriteRSTStream(open(tc, 0), http2.ErrCodeCancel); tc.feed() },
			frame:   func(tc *testConn, _ int) { tc.fw.WriteRSTStream(1, http2.ErrCodeCancel) },
			at:      22, // one for the stream opened
			lawful: func(tc *testConn, i int) {
				id := uint32(2*i + 1)
				tc.writeBlock(id, true, tc.block(getFields...))
				tc.feed()
				tc.sendHeaders(tc.streams[id], true, ok200...)
				tc.fw.WriteRSTStream(id, http2.ErrCodeCancel) // crossed the answer
			},
		},
		{
			name:    "DATA for streams that were reset",
			prepare: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, open(tc, 0), u32(0)...); tc.feed() },
			frame:   func(tc *testConn, _ int) { tc.fw.WriteData(1, true, nil) },
			at:      22,
			lawful: func(tc *testConn, i int) {
				if i == 0 {
					tc.raw(frameWindowUpdate, 0, open(tc, 0), u32(0)...)
					open(tc, 1)
				}
				tc.fw.WriteData(1, false, []byte("x")) // was under way
				tc.fw.WriteData(3, false, []byte("x"))
			},
		},
		{
			name:    "heads for streams that were reset",
			prepare: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, open(tc, 0), u32(0)...); tc.feed() },
			frame:   func(tc *testConn, _ int) { tc.writeBlock(1, true, tc.block("x: y")) },
			at:      22,
		},
		{
			name: "heads behind the last GOAWAY",
			prepare: func(tc *testConn) {
				open(tc, 0)
				tc.feed()
				tc.do(func(t *turn.Turn) { tc.c.GoAway(t); tc.c.finalGoAway(t) })
			},
			frame: func(tc *testConn, i int) { open(tc, i+1) },
			at:    22,
		},
		{
			name:  "reset without a wait for the answer",
			frame: func(tc *testConn, i int) { tc.fw.WriteRSTStream(open(tc, i), http2.ErrCodeCancel) },
			at:    21,
			lawful: func(tc *testConn, i int) {
				id := open(tc, i)
				tc.feed()
				tc.do(tc.c.Tick)
				tc.do(tc.c.Tick)
				tc.fw.WriteRSTStream(id, http2.ErrCodeCancel)
			},
		},
		{
			name:  "made you reset: malformed",
			frame: func(tc *testConn, i int) { tc.writeBlock(uint32(2*i+1), true, tc.block("x: y")) },
			at:    21,
		},
		{
			name:  "made you reset: WINDOW_UPDATE of 0",
			frame: func(tc *testConn, i int) { tc.raw(frameWindowUpdate, 0, open(tc, i), u32(0)...) },
			at:    21,
		},
		{
			name: "made you reset: DATA after END_STREAM",
			frame: func(tc *testConn, i int) {
				tc.writeBlock(uint32(2*i+1), true, tc.block(getFields...))
				tc.fw.WriteData(uint32(2*i+1), true, nil)
			},
			at: 21,
		},
		{
			name:    "refused streams",
			prepare: func(tc *testConn) { tc.c.o.MaxStreams = 0 },
			frame:   func(tc *testConn, i int) { open(tc, i) },
			at:      21,
		},
		{
			name:    "heads too large",
			prepare: func(tc *testConn) { tc.c.in.head.maxSize = 10 },
			frame:   func(tc *testConn, i int) { open(tc, i) },
			at:      20/largeHead + 1,
		},
		{
			name:    "trailers too large",
			prepare: func(tc *testConn) { tc.c.in.head.maxSize = 1000 },
			frame: func(tc *testConn, i int) {
				id := open(tc, i)
				tc.writeBlock(id, true, tc.block("x-long: "+strings.Repeat("x", 1000)))
			},
			at: 20/largeHead + 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var counts Counters
			tc := newServer(t, Options{Limits: limits, MaxStreams: 1000, Counters: &counts})
			if tt.prepare != nil {
				tt.prepare(tc)
			}
			at, err := tc.flood(100, func(i int) { tt.frame(tc, i) })
			if ce, ok := err.(*ConnError); !ok || ce.Code != CodeEnhanceYourCalm || at != tt.at {
				t.Errorf("ended after %d with %v, want ENHANCE_YOUR_CALM after %d", at, err, tt.at)
			} else if n := counts[limitOf(ce)].Load(); n != 1 {
				t.Errorf("counted %d times, want once", n)
			}
			if tt.lawful == nil {
				return
			}
			tc = newServer(t, Options{Limits: limits, MaxStreams: 1000})
			if at, err := tc.flood(100, func(i int) { tt.lawful(tc, i) }); err != nil {
				t.Errorf("with its work done it ended after %d with %v, want it to go on", at, err)
			}
		})
	}
}

// limitOf is the limit that an error speaks of.
func limitOf(err *ConnError) Limit {
	for l := range LimitCount {
		if limits[l].reason == err.Reason {
			return l
		}
	}
	return LimitCount // which panics
}

// Each limit that can be set is counted under its name, and each that is counted
// has one.
func TestLimitsHaveNames(t *testing.T) {
	names := map[string]bool{}
	for l := range LimitCount {
		if limits[l].reason == "" || names[l.String()] {
			t.Errorf("limit %d is called %q, its reason is %q", l, l, limits[l].reason)
		}
		names[l.String()] = true
	}
	snake := regexp.MustCompile("(.)([A-Z])")
	for f := range reflect.TypeFor[Limits]().Fields() {
		if name := strings.ToLower(snake.ReplaceAllString(f.Name, "${1}_$2")); !names[name] {
			t.Errorf("nothing counts who meets %s: want a limit called %q", f.Name, name)
		}
	}
}

// tunnel opens the i-th stream with CONNECT.
func (tc *testConn) tunnel(i int) uint32 {
	id := uint32(2*i + 1)
	tc.writeBlock(id, false, tc.block(connectFields...))
	return id
}

// Costs fade with time, so an old connection is not near its limits.
func TestRatesFade(t *testing.T) {
	r := rates{opened: 8, answered: 6, dataIn: 4, dataOut: 2, empty: 3}
	r.spent[LimitPings] = 10
	r.fade()
	want := rates{opened: 4, answered: 3, dataIn: 2, dataOut: 1, empty: 3}
	want.spent[LimitPings] = 5
	if r != want {
		t.Errorf("faded to %+v, want %+v", r, want)
	}
}

// A peer that asks and does not read makes nothing pile up.
func TestUnreadAnswers(t *testing.T) {
	tc := newServer(t, Options{Limits: Limits{Pings: 1 << 30}})
	tc.sink.hold = true
	for range 100_000 {
		tc.fw.WritePing(false, [8]byte{})
		if err := tc.feedErr(); err != nil {
			if ce, ok := err.(*ConnError); !ok || ce.Code != CodeEnhanceYourCalm {
				t.Fatalf("ended with %v, want ENHANCE_YOUR_CALM", err)
			}
			if limit := tc.c.o.Limits.Unread; tc.sink.held < limit || tc.sink.held > limit+1000 {
				t.Errorf("ended with %d held, want about %d", tc.sink.held, limit)
			}
			return
		}
	}
	t.Error("answers piled up without end")
}

func TestHeadLimits(t *testing.T) {
	fields := func(n int, value string) []string {
		f := slices.Clone(getFields)
		for i := range n {
			f = append(f, fmt.Sprintf("x-%d: %s", i, value))
		}
		return f
	}
	t.Run("server", func(t *testing.T) {
		const room = 64<<10 - len(":methodGET:schemehttp:path/:authorityax-0") - 5*32
		for _, tt := range []struct {
			name   string
			fields []string
			ok     bool
		}{
			{"100 fields", fields(96, "v"), true},
			{"101 fields", fields(97, "v"), false},
			{"64 KiB", fields(1, strings.Repeat("v", room)), true},
			{"64 KiB and one", fields(1, strings.Repeat("v", room+1)), false},
			{"crumbs", append(slices.Clone(getFields), slices.Repeat([]string{"cookie: a=b"}, 100)...), false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				tc := newServer(t, Options{MaxFrameSize: 1 << 20})
				block := tc.block(tt.fields...)
				tc.writeBlock(1, false, block)
				tc.feed()
				if tt.ok {
					if len(tc.events) != 1 {
						t.Fatalf("%d events, want the request", len(tc.events))
					}
					return
				}
				tc.wantHeaders(1, true, ":status: 431")
				tc.wantReset(1, CodeNoError)
				tc.wantEvents()
				// The compression state is still the peer's.
				tc.writeHeaders(3, true, append(slices.Clone(getFields), "x-0: v")...)
				tc.wantEvents("request 3 :method=GET :scheme=http :path=/ :authority=a x-0=v end")
			})
		}
	})
	t.Run("server, no body", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, true, fields(97, "v")...)
		tc.wantHeaders(1, true, ":status: 431")
		tc.wantAlive()
	})
	t.Run("client", func(t *testing.T) {
		tc := newClient(t, Options{Limits: Limits{HeaderFields: 3}})
		tc.open(true, getHead...)
		want[*http2.MetaHeadersFrame](tc)
		tc.writeBlock(1, true, tc.block(":status: 200", "a: 1", "b: 2", "c: 3"))
		tc.wantStreamError(1, CodeEnhanceYourCalm)
	})
	t.Run("continuations", func(t *testing.T) {
		for n, ok := range map[int]bool{8: true, 9: false} {
			tc := newServer(t, Options{})
			block := tc.block(getFields...)
			tc.raw(frameHeaders, flagEndStream, 1)
			for range n - 1 {
				tc.fw.WriteContinuation(1, false, nil)
			}
			tc.fw.WriteContinuation(1, true, block)
			if ok {
				tc.feed()
				tc.wantAlive()
			} else {
				tc.wantConnError(CodeEnhanceYourCalm)
			}
		}
	})
	t.Run("compressed size", func(t *testing.T) {
		for n, ok := range map[int]bool{4: true, 5: false} {
			tc := newServer(t, Options{})
			tc.raw(frameHeaders, flagEndStream, 1)
			piece := make([]byte, 16<<10)
			for i := range piece {
				piece[i] = 0x20 // a table size update each: no field at all
			}
			for i := range n {
				tc.fw.WriteContinuation(1, i == n-1, piece)
			}
			if ok {
				tc.wantStreamError(1, CodeProtocol) // a head without fields
			} else {
				tc.wantConnError(CodeEnhanceYourCalm)
			}
		}
	})
	t.Run("one long frame", func(t *testing.T) {
		tc := newServer(t, Options{MaxFrameSize: 1 << 20})
		tc.raw(frameHeaders, flagEndStream|flagEndHeaders, 1, make([]byte, 64<<10+1)...)
		tc.wantConnError(CodeEnhanceYourCalm)
	})
	t.Run("bomb", func(t *testing.T) {
		// A field of 4,000 bytes in the table, then named 16,000 times.
		tc := newServer(t, Options{})
		block := tc.block(append(slices.Clone(getFields), "x: "+strings.Repeat("v", 4000))...)
		tc.writeBlock(1, true, append(block, strings.Repeat("\xbe", 16_000-len(block))...))
		tc.feed()
		tc.wantHeaders(1, true, ":status: 431")
		if got := len(tc.c.in.head.fields); got > 20 {
			t.Errorf("%d fields were taken, want no more than 64 KiB of them", got)
		}
		// What is passed over is looked at all the same.
		for _, bad := range []string{"\x80", "\xc0", "\xfe", "\xff\x7f"} {
			tc := newServer(t, Options{})
			tc.writeBlock(1, true, append(tc.block(append(slices.Clone(getFields), "x: "+strings.Repeat("v", 4000))...), strings.Repeat("\xbe", 1000)+bad...))
			tc.wantConnError(CodeCompression)
		}
		// And the table stays in step.
		tc = newServer(t, Options{})
		block = tc.block(append(slices.Clone(getFields), "x: "+strings.Repeat("v", 3000))...)
		block = append(block, strings.Repeat("\xbe", 1000)...)
		tc.writeBlock(1, true, append(block, tc.block("y: z")...))
		tc.feed()
		tc.wantHeaders(1, true, ":status: 431")
		tc.writeHeaders(3, true, append(slices.Clone(getFields), "y: z")...)
		tc.wantEvents("request 3 :method=GET :scheme=http :path=/ :authority=a y=z end")
	})
	t.Run("rubbish", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeBlock(1, true, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
		tc.wantConnError(CodeCompression)
	})
	t.Run("cut short", func(t *testing.T) {
		tc := newServer(t, Options{})
		block := tc.block(getFields...)
		tc.writeBlock(1, true, block[:len(block)-1])
		tc.wantConnError(CodeCompression)
	})
}

// A long head of ours leaves in pieces that the peer takes.
func TestLongHeadOut(t *testing.T) {
	for _, n := range []int{16 << 10, 16<<10 + 1, 50_000} {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		value := strings.Repeat("\x7e", n) // 13 bits in Huffman's code, so left as it is
		tc.do(func(t *turn.Turn) {
			s.Write(t, []byte("before"))
			s.SendHeaders(t, []Field{{Name: []byte("x"), Value: []byte(value), Sensitive: true}}, true)
		})
		tc.wantData(1, "before", false)
		tc.wantHeaders(1, true, "x: "+value)
		tc.wantIdle()
	}
}

// 1 MiB frames are taken if we said so, passed on as they come, and not held.
func TestLongFramesIn(t *testing.T) {
	tc := newServer(t, Options{MaxFrameSize: 1 << 20, StreamWindow: 4 << 20, FirstWindow: 4 << 20, ConnWindow: 16 << 20})
	tunnel(tc, 1)
	tc.fw.WriteData(1, true, make([]byte, 1<<20))
	got := 0
	tc.onData = func(_ *Stream, p []byte) { got += len(p) }
	for tc.in.Len() > 0 {
		p := tc.in.Next(16 << 10)
		tc.events = nil
		tc.do(func(t *turn.Turn) {
			if err := tc.c.Feed(t, p); err != nil {
				tc.t.Fatal(err)
			}
		})
		if len(tc.events) != 1 {
			t.Fatalf("%d events for 16 KiB, want one", len(tc.events))
		}
		if tc.c.in.part != nil {
			t.Fatal("content of DATA is held")
		}
	}
	if last := tc.events[0]; got != 1<<20 || !strings.HasSuffix(last, "end") {
		t.Errorf("got %d bytes, last event %q, want all and the end", got, last)
	}
}
