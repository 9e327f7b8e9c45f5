package h2

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// TestCourteous: with no stream open there is no PING, and with one it is a
// single one in five minutes. The answer that does not come ends the connection
// all the same.
func TestCourteous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newClient(t, Options{Courteous: true})
		tc.tick(time.Minute)
		tc.wantIdle()
		tc.open(false, getHead...)
		want[*http2.MetaHeadersFrame](tc)
		tc.tick(time.Second)
		ping := want[*http2.PingFrame](tc)
		asked := time.Now()
		tc.fw.WritePing(true, ping.Data)
		tc.feed()
		for tc.sink.out.Len() == 0 {
			tc.tick(time.Second)
		}
		want[*http2.PingFrame](tc)
		if d := time.Since(asked); d < 5*time.Minute || d > 5*time.Minute+2*time.Second {
			t.Errorf("asked again after %v", d)
		}
		tc.tick(21 * time.Second)
		tc.wantGoAway(0, CodeNoError)
	})
}

// TestStop: who has answered in full and wants no more says so behind the answer,
// whether it had all left before or not; and not if there is no more anyway.
func TestStop(t *testing.T) {
	post := []string{":method: POST", ":scheme: http", ":path: /", ":authority: a"}
	stop := func(tc *testConn, s *Stream) { tc.do(s.Stop) }
	t.Run("behind the end", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, false, post...)
		tc.sendHeaders(tc.streams[1], true, ok200...)
		tc.wantHeaders(1, true, ":status: 200")
		tc.events = nil
		stop(tc, tc.streams[1])
		tc.wantReset(1, CodeNoError)
		tc.wantEvents("closed 1: stream reset, NO_ERROR", "idle")
	})
	t.Run("before the end", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, false, post...)
		s := tc.streams[1]
		tc.sendHeaders(s, false, ok200...)
		tc.wantHeaders(1, false, ":status: 200")
		stop(tc, s)
		tc.writeData(1, "late", false)
		tc.write(s, "answer")
		tc.wantData(1, "answer", false)
		tc.closeWrite(s)
		tc.wantData(1, "", true)
		tc.wantReset(1, CodeNoError)
		tc.writeData(1, "too late", true) // under way
		tc.wantAlive()
	})
	t.Run("of a request that has ended", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, true, post...)
		tc.sendHeaders(tc.streams[1], true, ok200...)
		tc.wantHeaders(1, true, ":status: 200")
		stop(tc, tc.streams[1])
		tc.wantIdle()
	})
}

// TestReserve: a place that is kept is nobody else's, and is used or given back.
func TestReserve(t *testing.T) {
	tc := newClient(t, Options{MaxStreams: 2})
	if !tc.c.Unused() || !tc.c.Reserve(1) || tc.c.Reserve(1) || tc.c.Unused() || !tc.c.Reserve(9) || tc.c.Reserve(9) {
		t.Fatal("there are two places")
	}
	tc.do(func(tu *turn.Turn) {
		if _, err := tc.c.Open(tu, tc, getHead, true); err != ErrFull {
			t.Errorf("Open of a kept place: %v", err)
		}
		if _, err := tc.c.OpenReserved(tu, tc, getHead, true); err != nil {
			t.Error(err)
		}
	})
	if n := tc.c.Room(); n != 0 {
		t.Errorf("room for %d", n)
	}
	tc.c.Unreserve()
	if n := tc.c.Room(); n != 1 {
		t.Errorf("room for %d after one was given back", n)
	}
	tc.writeHeaders(1, true, ":status: 200")
	if n := tc.c.Room(); n != 2 {
		t.Errorf("room for %d after the stream's end", n)
	}
	tc.fw.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	if !tc.c.Reserve(9) {
		t.Fatal("no place")
	}
	tc.feed()
	tc.do(func(tu *turn.Turn) {
		if _, err := tc.c.OpenReserved(tu, tc, getHead, true); err != ErrFull {
			t.Errorf("beyond a limit that was lowered meanwhile: %v", err)
		}
	})
}
