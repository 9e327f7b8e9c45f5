package h2

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// A server that goes away takes what the peer opened in ignorance, then names
// the last stream, and closes when the last has ended.
func TestGoAwayServer(t *testing.T) {
	tc := newServer(t, Options{})
	tc.serve(1)
	tc.do(tc.c.GoAway)
	tc.wantGoAway(maxStreamID, CodeNoError)
	ping := want[*http2.PingFrame](tc)
	tc.do(tc.c.GoAway) // again: nothing
	tc.wantIdle()
	if !tc.c.Draining() || tc.c.Done() {
		t.Errorf("Draining %v, Done %v, want true and false", tc.c.Draining(), tc.c.Done())
	}

	late := tc.serve(3) // was under way
	tc.fw.WritePing(true, ping.Data)
	tc.feed()
	tc.wantGoAway(3, CodeNoError)

	tunnel(tc, 5) // beyond: ignored, but decoded and counted
	tc.writeData(5, "lost", false)
	tc.fw.WriteRSTStream(5, 0)
	tc.feed()
	tc.wantIdle()
	tc.wantEvents()

	tc.do(func(t *turn.Turn) {
		tc.streams[1].CloseWrite(t)
		late.Write(t, []byte("bye"))
		late.CloseWrite(t)
	})
	tc.wantData(1, "", true)
	tc.wantData(3, "bye", true)
	if tc.sink.closed {
		t.Fatal("closed while streams are open")
	}
	tc.writeData(1, "", true)
	tc.writeData(3, "thanks", true)
	tc.wantEvents("data 1 \"\" end", "closed 1", "data 3 \"thanks\" end", "closed 3", "idle")
	if !tc.c.Done() || !tc.sink.closed {
		t.Errorf("Done %v, sink closed %v, want both", tc.c.Done(), tc.sink.closed)
	}
}

func TestGoAwayIdleServer(t *testing.T) {
	tc := newServer(t, Options{})
	tc.do(tc.c.GoAway)
	tc.wantGoAway(maxStreamID, CodeNoError)
	if tc.c.Done() {
		t.Error("done before the peer can have heard")
	}
	tc.fw.WritePing(true, want[*http2.PingFrame](tc).Data)
	tc.feed()
	tc.wantGoAway(0, CodeNoError)
	if !tc.c.Done() || !tc.sink.closed {
		t.Errorf("Done %v, sink closed %v, want both", tc.c.Done(), tc.sink.closed)
	}
}

func TestGoAwayClient(t *testing.T) {
	tc := newClient(t, Options{})
	s := tc.open(true, getHead...)
	want[*http2.MetaHeadersFrame](tc)
	tc.do(tc.c.GoAway)
	tc.wantGoAway(0, CodeNoError)
	tc.do(func(t *turn.Turn) {
		if _, err := tc.c.Open(t, tc, getHead, true); err != ErrGoneAway || !Unprocessed(err) {
			tc.t.Errorf("Open: %v, want ErrGoneAway", err)
		}
	})
	tc.writeHeaders(s.ID(), true, ":status: 200")
	tc.wantEvents("head 1 :status=200 end", "closed 1", "idle")
	if !tc.c.Done() || !tc.sink.closed {
		t.Errorf("Done %v, sink closed %v, want both", tc.c.Done(), tc.sink.closed)
	}
}

// Streams above the last one that the peer names were not processed; the others
// go on.
func TestGoAwayReceived(t *testing.T) {
	tc := newClient(t, Options{})
	a, b := tc.open(false, connectHead...), tc.open(false, connectHead...)
	tc.fw.WriteGoAway(a.ID(), http2.ErrCodeEnhanceYourCalm, []byte("calm"))
	tc.feed()
	tc.wantEvents(`goaway 1 ENHANCE_YOUR_CALM "calm"`,
		`closed 3: peer went away, ENHANCE_YOUR_CALM ("calm"), stream not processed`)
	if tc.c.Room() != 0 || !tc.c.Draining() || tc.c.Done() {
		t.Errorf("Room %d, Draining %v, Done %v, want 0, true, false", tc.c.Room(), tc.c.Draining(), tc.c.Done())
	}
	if !Unprocessed(b.err) {
		t.Error("the stream beyond is not Unprocessed")
	}
	for tc.read() != nil {
	}
	tc.writeHeaders(1, false, ":status: 200")
	tc.write(a, "on")
	tc.wantData(1, "on", false)
	tc.events = nil
	tc.do(func(t *turn.Turn) { tc.c.Closed(t, io.EOF) })
	tc.wantEvents(`closed 1: peer went away, ENHANCE_YOUR_CALM ("calm")`, "idle")
	if Unprocessed(a.err) {
		t.Error("the stream that was answered is Unprocessed")
	}
}

func TestGoAwayReceivedIdle(t *testing.T) {
	tc := newClient(t, Options{})
	tc.fw.WriteGoAway(0, 0, nil)
	tc.feed()
	if !tc.c.Done() || !tc.sink.closed {
		t.Errorf("Done %v, sink closed %v, want both", tc.c.Done(), tc.sink.closed)
	}
	// A client's GOAWAY tells a server only that it may push nothing.
	tc = newServer(t, Options{})
	tc.fw.WriteGoAway(0, 0, nil)
	tc.feed()
	get(tc, 1)
	tc.wantEvents(`goaway 0 NO_ERROR ""`, "request 1 :method=GET :scheme=http :path=/ :authority=a end")
}

func TestTransportLoss(t *testing.T) {
	tc := newServer(t, Options{})
	s := tc.serve(1)
	tc.sink.hold = true
	tc.write(s, strings.Repeat("x", 200<<10))
	lost := errors.New("connection reset by peer")
	tc.do(func(t *turn.Turn) { tc.c.Closed(t, lost) })
	tc.do(func(t *turn.Turn) { tc.c.Closed(t, lost) }) // once
	tc.wantEvents("closed 1: connection reset by peer", "idle")
	n := tc.sink.out.Len()
	tc.do(func(t *turn.Turn) { // all of this comes too late and does nothing
		s.Write(t, []byte("x"))
		s.SendHeaders(t, ok200, false)
		s.Consume(t, 1)
		s.CloseWrite(t)
		s.Abort(t, 0)
		tc.c.GoAway(t)
		tc.c.Fail(t, 0, "")
		tc.c.Left(t)
		tc.c.Tick(t)
	})
	tc.wantEvents()
	if s.Buffered() != 0 || tc.sink.out.Len() != n || tc.c.EOF(nil) {
		t.Error("a stream of a lost connection did something")
	}
	if err := tc.feedErr(); err != lost {
		t.Errorf("Feed: %v, want what ended the connection", err)
	}
}

func TestFail(t *testing.T) {
	tc := newServer(t, Options{})
	tc.serve(1)
	tc.do(func(t *turn.Turn) { tc.c.Fail(t, CodeEnhanceYourCalm, "too much") })
	tc.wantGoAway(1, CodeEnhanceYourCalm)
	tc.wantEvents("closed 1: HTTP/2 connection error ENHANCE_YOUR_CALM: too much", "idle")
	if !tc.sink.closed || !tc.c.Done() {
		t.Error("sink is open after Fail")
	}
	get := tc.block(getFields...)
	tc.writeBlock(3, true, get)
	if err := tc.feedErr(); err == nil {
		t.Error("Feed after Fail takes frames")
	}
	tc.wantEvents()
}

// A stream error is the stream's: what was under way is dropped and credited.
func TestResets(t *testing.T) {
	t.Run("ours", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.write(s, strings.Repeat("x", 100<<10))
		tc.dataOut()
		tc.abort(s, CodeConnect)
		tc.wantReset(1, CodeConnect)
		tc.abort(s, CodeConnect)
		tc.wantIdle()
		tc.wantEvents("closed 1: stream reset, CONNECT_ERROR", "idle")
	})
	t.Run("the peer's", func(t *testing.T) {
		tc := newClient(t, Options{})
		s := tc.open(true, getHead...)
		want[*http2.MetaHeadersFrame](tc)
		tc.fw.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		tc.feed()
		tc.wantIdle() // no answer
		tc.wantEvents("closed 1: stream reset by the peer, REFUSED_STREAM", "idle")
		if !Unprocessed(s.err) {
			t.Error("REFUSED_STREAM is not Unprocessed")
		}
		if se, ok := errors.AsType[*StreamError](s.err); !ok || se.Code != CodeRefusedStream || !se.Remote {
			t.Errorf("error is %#v", s.err)
		}
	})
	t.Run("more than the memory holds", func(t *testing.T) {
		tc := newServer(t, Options{MaxStreams: 1000})
		for i := range uint32(500) {
			tc.serve(2*i + 1)
		}
		for i := range uint32(500) {
			tc.abort(tc.streams[2*i+1], CodeCancel)
			tc.wantReset(2*i+1, CodeCancel)
		}
		for i := range uint32(500) {
			tc.writeData(2*i+1, "under way", false)
		}
		tc.wantAlive() // none was reset again, and none counts against the peer
	})
}

// What Request leaves undone.
func TestUnhandledStreams(t *testing.T) {
	t.Run("nothing at all", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.accept = func(*Stream, []Field) {}
		post(tc, 1)
		tc.wantReset(1, CodeInternal)
		tc.wantEvents("request 1 :method=GET :scheme=http :path=/ :authority=a", "idle")
	})
	t.Run("answered, body to come", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.accept = func(s *Stream, _ []Field) { s.SendHeaders(&tc.turn, []Field{NewField(":status", "400")}, true) }
		post(tc, 1)
		tc.wantHeaders(1, true, ":status: 400")
		tc.wantReset(1, CodeNoError)
		tc.writeData(1, "ignored", true)
		tc.wantIdle()
	})
	t.Run("answered at length, body to come", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.accept = func(s *Stream, _ []Field) {
			s.SendHeaders(&tc.turn, ok200, false)
			s.Write(&tc.turn, []byte(strings.Repeat("x", defaultWindow+1)))
			s.CloseWrite(&tc.turn)
		}
		post(tc, 1)
		want[*http2.MetaHeadersFrame](tc)
		tc.dataOut()
		tc.writeData(1, "ignored", false)
		tc.fw.WriteWindowUpdate(0, 1)
		tc.fw.WriteWindowUpdate(1, 1)
		tc.feed()
		tc.wantData(1, "x", true)
		tc.wantReset(1, CodeNoError)
	})
	t.Run("answered, no body", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.accept = func(s *Stream, _ []Field) { s.SendHeaders(&tc.turn, ok200, true) }
		get(tc, 1)
		tc.wantHeaders(1, true, ":status: 200")
		tc.wantIdle()
		if tc.c.Streams() != 0 {
			t.Error("stream is still open")
		}
	})
	t.Run("aborted", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.accept = func(s *Stream, _ []Field) { s.Abort(&tc.turn, CodeRefusedStream) }
		get(tc, 1)
		tc.wantReset(1, CodeRefusedStream)
		tc.wantIdle()
	})
	for name, send := range map[string]func(*turn.Turn, *Stream){
		"content before the head": func(t *turn.Turn, s *Stream) { s.Write(t, []byte("x")) },
		"end before the head":     func(t *turn.Turn, s *Stream) { s.CloseWrite(t) },
		"content behind an informational head": func(t *turn.Turn, s *Stream) {
			s.SendHeaders(t, []Field{NewField(":status", "103")}, false)
			s.Write(t, []byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc := newServer(t, Options{})
			tunnel(tc, 1)
			tc.do(func(t *turn.Turn) { send(t, tc.streams[1]) })
			if strings.Contains(name, "informational") {
				tc.wantHeaders(1, false, ":status: 103")
			}
			tc.wantReset(1, CodeInternal)
			tc.wantAlive()
		})
	}
	t.Run("a head behind content", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.write(s, strings.Repeat("x", defaultWindow+1))
		tc.dataOut()
		tc.sendHeaders(s, false, ok200...)
		tc.wantReset(1, CodeInternal)
	})
}

func TestMaxStreams(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		tc := newServer(t, Options{MaxStreams: 2})
		tunnel(tc, 1)
		tunnel(tc, 3)
		tc.writeBlock(5, false, tc.block(connectFields...))
		tc.wantStreamError(5, CodeRefusedStream)
		if got := tc.c.Stats().StreamsRefused; got != 1 {
			t.Errorf("StreamsRefused = %d, want 1", got)
		}
		tc.abort(tc.streams[1], CodeCancel)
		tc.events = nil
		tunnel(tc, 7)
		tc.wantEvents("request 7 :method=CONNECT :authority=10.0.0.1:80")
	})
	full := func(tc *testConn) {
		tc.t.Helper()
		tc.do(func(t *turn.Turn) {
			if _, err := tc.c.Open(t, tc, connectHead, false); err != ErrFull || !Unprocessed(err) {
				tc.t.Errorf("Open: %v, want ErrFull", err)
			}
		})
		if got := tc.c.Room(); got != 0 {
			tc.t.Errorf("Room = %d, want 0", got)
		}
	}
	t.Run("client, the peer's", func(t *testing.T) {
		tc := newClient(t, Options{}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		s := tc.open(false, connectHead...)
		tc.open(false, connectHead...)
		full(tc)
		tc.abort(s, CodeCancel)
		if got := tc.c.Room(); got != 1 {
			t.Errorf("Room = %d, want 1", got)
		}
		tc.fw.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		tc.feed()
		full(tc)
	})
	t.Run("client, its own", func(t *testing.T) {
		tc := newClient(t, Options{MaxStreams: 1})
		tc.open(false, connectHead...)
		full(tc)
	})
	t.Run("client, before SETTINGS", func(t *testing.T) {
		tc := newTestConn(t, Options{Client: true, MaxStreams: 1000})
		tc.do(tc.c.Start)
		if got := tc.c.Room(); got != firstStreams {
			t.Errorf("Room = %d, want %d", got, firstStreams)
		}
		tc.fw.WriteSettings()
		tc.feed()
		if got := tc.c.Room(); got != 1000 {
			t.Errorf("Room = %d, want 1000", got)
		}
	})
	t.Run("client, numbers used up", func(t *testing.T) {
		tc := newClient(t, Options{})
		tc.c.nextID = maxStreamID
		tc.open(false, connectHead...)
		tc.do(func(t *turn.Turn) {
			if _, err := tc.c.Open(t, tc, connectHead, false); err != ErrGoneAway {
				tc.t.Errorf("Open: %v, want ErrGoneAway", err)
			}
		})
	})
}

// tick lets a second pass at a time, each with its Tick.
func (tc *testConn) tick(d time.Duration) {
	for range d / time.Second {
		time.Sleep(time.Second)
		tc.do(tc.c.Tick)
	}
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.serve(1)
		tc.tick(time.Second) // sees what greet and serve brought
		tc.tick(9 * time.Second)
		tc.wantIdle()
		tc.tick(time.Second)
		ping := want[*http2.PingFrame](tc)
		tc.fw.WritePing(true, ping.Data)
		tc.feed()

		tc.tick(5 * time.Second)
		tc.wantIdle()
		tc.writeData(1, "x", false) // a sign of life like any other
		tc.events = nil
		tc.tick(10 * time.Second)
		tc.wantIdle()
		tc.tick(time.Second)
		want[*http2.PingFrame](tc)

		tc.tick(19 * time.Second)
		tc.wantIdle()
		tc.tick(time.Second)
		tc.wantGoAway(1, CodeNoError)
		tc.wantEvents("closed 1: HTTP/2 connection error NO_ERROR: "+ErrPingTimeout.Error(), "idle")
		if !errors.Is(tc.streams[1].err, ErrPingTimeout) {
			t.Errorf("error %v is not ErrPingTimeout", tc.streams[1].err)
		}
		if !tc.sink.closed || tc.sink.aborted {
			t.Fatalf("sink closed %v, aborted %v, want true, false", tc.sink.closed, tc.sink.aborted)
		}
		tc.tick(2 * time.Second)
		if tc.sink.aborted {
			t.Fatal("aborted at once")
		}
		tc.tick(time.Second)
		if !tc.sink.aborted {
			t.Error("a dead peer's connection was not aborted")
		}
	})
}

// DATA that comes while a PING waits for its answer is life enough: the answer
// may be queued behind it.
func TestPingBehindData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.serve(1)
		tc.tick(12 * time.Second)
		want[*http2.PingFrame](tc)
		for range 10 {
			tc.tick(9 * time.Second)
			tc.writeData(1, "x", false)
		}
		tc.wantIdle()
	})
}

func TestSettingsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, greet := range map[string]func(tc *testConn){
			"silence":            func(*testConn) {},
			"no acknowledgement": func(tc *testConn) { tc.in.WriteString(clientPreface); tc.fw.WriteSettings(); tc.feed() },
		} {
			tc := newTestConn(t, Options{})
			tc.do(tc.c.Start)
			greet(tc)
			tc.tick(9 * time.Second)
			if tc.sink.closed {
				t.Errorf("%s: closed too early", name)
			}
			tc.tick(time.Second)
			var ce *ConnError
			if !tc.sink.closed || !errors.As(tc.c.end.err, &ce) || ce.Code != CodeSettingsTimeout || !errors.Is(ce, ErrSettingsTimeout) {
				t.Errorf("%s: %v, want ErrSettingsTimeout", name, tc.c.end.err)
			}
		}
	})
}

// A peer that does not answer the PING behind the first GOAWAY cannot hold up
// the second, nor the end.
func TestDrainWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.do(tc.c.GoAway)
		tc.wantGoAway(maxStreamID, CodeNoError)
		want[*http2.PingFrame](tc)
		tc.tick(4 * time.Second)
		tc.wantIdle()
		tc.tick(time.Second)
		tc.wantGoAway(0, CodeNoError)
		if !tc.sink.closed {
			t.Error("sink is open")
		}
	})
}

// A frame or a head that never gets finished costs its connection, however
// slowly it trickles; one that only happens to be in the middle at each Tick
// does not.
func TestUnfinishedFrames(t *testing.T) {
	block := newTestConn(t, Options{}).block(getFields...)
	for name, begin := range map[string]func(tc *testConn){
		"frame header": func(tc *testConn) { tc.in.Write([]byte{0, 0}) },
		"payload":      func(tc *testConn) { tc.raw(framePing, 0, 0, make([]byte, 8)...); tc.in.Truncate(12) },
		"head":         func(tc *testConn) { tc.raw(frameHeaders, 0, 1, block...) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := newServer(t, Options{})
				begin(tc)
				tc.feed()
				tc.tick(10 * time.Second)
				if tc.sink.closed {
					t.Fatal("closed too early")
				}
				tc.tick(time.Second)
				tc.wantGoAway(0, CodeEnhanceYourCalm)
			})
		})
	}
	t.Run("trickle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tc := newServer(t, Options{})
			tc.raw(frameHeaders, 0, 1, block...)
			for range 5 {
				tc.feed()
				tc.tick(2 * time.Second)
				tc.fw.WriteContinuation(1, false, nil)
			}
			tc.tick(time.Second)
			tc.wantGoAway(0, CodeEnhanceYourCalm)
		})
	})
	t.Run("control", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tc := newServer(t, Options{})
			tc.raw(framePing, 0, 0, make([]byte, 8)...)
			ping := append([]byte(nil), tc.in.Bytes()...)
			tc.in.Truncate(12)
			for range 30 {
				tc.feed()
				tc.tick(time.Second)
				tc.in.Write(ping[12:])
				tc.in.Write(ping[:12])
			}
			if tc.sink.closed {
				t.Error("closed, although each frame was finished in a second")
			}
		})
	})
}
