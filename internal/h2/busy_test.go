package h2

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// TestCreditInData: what is consumed while Data lasts is credited behind it, in
// one piece, and for another stream at once.
func TestCreditInData(t *testing.T) {
	tc := newServer(t, Options{FirstWindow: 8, StreamWindow: 8})
	tc.writeHeaders(1, false, connectFields...)
	tc.writeHeaders(3, false, connectFields...)
	one, three := tc.streams[1], tc.streams[3]
	tc.onData = func(*Stream, []byte) {}
	tc.writeData(3, "12345678", false)
	tc.wantIdle()
	tc.onData = func(s *Stream, p []byte) {
		s.Consume(&tc.turn, 2)
		if three.Consume(&tc.turn, 8); three.recvWin != 8 {
			t.Errorf("the other stream's window is %d while Data lasts", three.recvWin)
		}
		if s.Consume(&tc.turn, 3); s.recvWin != 3 {
			t.Errorf("the window is %d while Data lasts", s.recvWin)
		}
	}
	tc.writeData(1, "12345", false)
	tc.wantWindowUpdate(3, 8)
	tc.wantWindowUpdate(1, 5)
	tc.wantIdle()

	tc.onData = func(s *Stream, p []byte) { // nothing is owed to a stream that is over
		s.Consume(&tc.turn, 5)
		s.Abort(&tc.turn, CodeCancel)
	}
	tc.writeData(1, "12345", false)
	tc.wantReset(1, CodeCancel)
	tc.wantIdle()
	one.Consume(&tc.turn, 5)
	tc.wantIdle()
}

// TestPanicInData: a stream whose handler has panicked hears the connection's end
// all the same.
func TestPanicInData(t *testing.T) {
	tc := newServer(t, Options{})
	tc.writeHeaders(1, false, connectFields...)
	tc.onData = func(*Stream, []byte) { panic("in Data") }
	func() {
		defer func() { _ = recover() }()
		tc.writeData(1, "hello", false)
	}()
	tc.in.Reset()
	tc.events = nil
	tc.do(func(tu *turn.Turn) { tc.c.Closed(tu, errors.New("gone")) })
	tc.wantEvents("closed 1: gone", "idle")
}

// TestTurnsMeet: two turns have something to say to one stream's handler. Who
// comes while Data lasts leaves it to the reader, who waits while Left does.
func TestTurnsMeet(t *testing.T) {
	meet := func() (*testConn, *Stream, *meeting) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, false, connectFields...)
		m := &meeting{t: t, step: make(chan string, 1), goOn: make(chan bool)}
		tc.streams[1].Handle(m)
		return tc, tc.streams[1], m
	}
	feed := func(tc *testConn) (fed chan bool) {
		fed = make(chan bool)
		tc.fw.WriteData(1, false, []byte("hello"))
		go func() { tc.feed(); close(fed) }()
		return fed
	}
	t.Run("in Data", func(t *testing.T) {
		tc, _, m := meet()
		fed := feed(tc)
		m.want("data")
		var tu turn.Turn
		tc.c.Fail(&tu, CodeNoError, "gone")
		tu.End()
		m.goOn <- true
		m.want("closed")
		m.goOn <- true
		<-fed
	})
	t.Run("in Left", func(t *testing.T) {
		tc, s, m := meet()
		told := make(chan bool)
		go func() {
			var tu turn.Turn
			tc.c.mu.Lock()
			s.dueLeft = true
			s.notify(&tu)
			tc.c.mu.Unlock()
			tu.End()
			close(told)
		}()
		m.want("left")
		fed := feed(tc)
		for tc.c.Stats().DataFramesIn == 0 {
			runtime.Gosched()
		}
		for range 100 { // until the reader waits, or m has complained
			runtime.Gosched()
		}
		m.goOn <- true
		<-told
		m.want("data")
		close(m.goOn)
		<-fed
	})
}

// A meeting is a handler that stays in each call until it is told to go on.
type meeting struct {
	idle
	t    *testing.T
	mu   sync.Mutex
	step chan string
	goOn chan bool
}

func (m *meeting) stay(what string) {
	if !m.mu.TryLock() {
		m.t.Errorf("%s overlaps with another call", what)
		return
	}
	defer m.mu.Unlock()
	m.step <- what
	<-m.goOn
}

func (m *meeting) want(what string) {
	m.t.Helper()
	if got := <-m.step; got != what {
		m.t.Errorf("%s comes first, want %s", got, what)
	}
}

func (m *meeting) Data(*turn.Turn, *Stream, []byte, bool)  { m.stay("data") }
func (m *meeting) Left(*turn.Turn, *Stream)                { m.stay("left") }
func (m *meeting) Closed(_ *turn.Turn, _ *Stream, _ error) { m.stay("closed") }

// A waiter is a step that counts how many wait with it.
type waiter struct{ waits, most, done *int }

func (w waiter) Late(*turn.Turn) {
	*w.most = max(*w.most, *w.waits)
	*w.waits--
	*w.done++
}
func (waiter) Broke(*turn.Turn, any) {}

// TestFeedBoundsSteps: what a read's frames put off is done before it is more than a
// turn should do at once, and in a feed of another engine when that lets it.
func TestFeedBoundsSteps(t *testing.T) {
	for _, nested := range []bool{false, true} {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, false, connectFields...)
		var waits, most, done int
		tc.onData = func(*Stream, []byte) {
			waits++
			tc.turn.Later(waiter{&waits, &most, &done})
		}
		const frames = 2*turn.MaxEvents + 10
		for range frames {
			tc.fw.WriteData(1, false, []byte("x"))
		}
		var outer turn.Feed
		if nested {
			tc.turn.Enter(&outer)
		}
		tc.feed()
		want := turn.MaxEvents
		if nested {
			tc.turn.Leave(&outer)
			want = frames
		}
		if most != want || done != frames {
			t.Errorf("nested %v: %d steps waited at once, want %d; %d done", nested, most, want, done)
		}
	}
}
