package wire

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
)

// The peer finishes first, we go on writing, then finish.
func TestHalfCloseByPeer(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		c, far, _ := s.pair(t, Options{})
		e := newEngine()
		e.onEOF = func(*turn.Turn) bool { return true }
		serve(c, e)
		far.CloseWrite()
		await(t, "EOF", e.eof)
		for range 3 {
			c.Run(func(tn *turn.Turn) { c.Write(tn, []byte("more")) })
			got := make([]byte, 4)
			if _, err := io.ReadFull(far, got); err != nil || string(got) != "more" {
				t.Fatalf("after its FIN the peer reads %q, %v; want more", got, err)
			}
		}
		c.Run(func(tn *turn.Turn) { c.CloseWrite(tn) })
		if rest, err := io.ReadAll(far); len(rest) > 0 || err != nil {
			t.Errorf("after our FIN the peer reads %q, %v; want the end", rest, err)
		}
		if err := e.wantClosed(t); err != nil {
			t.Errorf("closed with %v, want nil", err)
		}
		e.wantServed(t)
	})
}

// We finish first, the peer goes on writing, then finishes.
func TestHalfCloseByUs(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		c, far, _ := s.pair(t, Options{})
		e := newEngine()
		var got atomic.Int64
		e.onFeed = func(_ *turn.Turn, p []byte) error { got.Add(int64(len(p))); return nil }
		serve(c, e)
		c.Run(func(tn *turn.Turn) {
			c.Write(tn, []byte("last"))
			c.CloseWrite(tn)
			c.Write(tn, []byte("not sent"))
		})
		if all, err := io.ReadAll(far); string(all) != "last" || err != nil {
			t.Fatalf("the peer reads %q, %v; want last and the end", all, err)
		}
		for range 3 {
			want := got.Load() + 4
			far.Write([]byte("more"))
			until(t, "bytes after our FIN arrive", func() bool { return got.Load() == want })
		}
		far.CloseWrite()
		if err := e.wantClosed(t); err != nil {
			t.Errorf("closed with %v, want nil", err)
		}
		e.wantServed(t)
	})
}

// A peer's RST is told, also while we wait behind its FIN.
func TestReset(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(map[bool]string{false: "open", true: "after FIN"}[half], func(t *testing.T) {
			each(t, func(t *testing.T, s setting) {
				c, far, raw := s.pair(t, Options{})
				e := newEngine()
				e.onEOF = func(*turn.Turn) bool { return true }
				serve(c, e)
				if half {
					far.CloseWrite()
					await(t, "EOF", e.eof)
				}
				raw.SetLinger(0)
				raw.Close()
				if err := e.wantClosed(t); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Errorf("closed with %v, want a reset", err)
				}
				e.wantServed(t)
			})
		})
	}
}

// Abort drops what was written and the peer hears RST, not FIN.
func TestAbort(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		c, far, raw := s.pair(t, Options{})
		e := newEngine()
		serve(c, e)
		c.Run(func(tn *turn.Turn) {
			for range 64 { // more than the socket takes
				c.Write(tn, make([]byte, 256<<10))
			}
			c.Abort(tn, 8)
			c.Write(tn, []byte("not sent"))
		})
		if err := e.wantClosed(t); !errors.Is(err, ErrAborted) {
			t.Errorf("closed with %v, want ErrAborted", err)
		}
		e.wantServed(t)
		if got := c.Buffered(); got != 0 {
			t.Errorf("buffered %d, want 0", got)
		}
		if _, err := io.Copy(io.Discard, raw); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer reads %v, want a reset", err)
		}
		_ = far
	})
}

// The ways to close in order: the engine hears it at once, all that was written
// arrives, and the peer hears FIN (and close_notify) though it is still sending.
func TestClose(t *testing.T) {
	bad := errors.New("bad frame")
	for _, tc := range []struct {
		name string
		want error
		feed func(c *Conn, tn *turn.Turn) error
	}{
		{"close", nil, func(c *Conn, tn *turn.Turn) error { c.Close(tn); return nil }},
		{"error", bad, func(*Conn, *turn.Turn) error { return bad }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			each(t, func(t *testing.T, s setting) {
				c, far, _ := s.pair(t, Options{})
				e := newEngine()
				const answer = 8 << 20
				feeds := 0
				e.onFeed = func(tn *turn.Turn, _ []byte) error {
					feeds++
					c.Write(tn, make([]byte, answer))
					return tc.feed(c, tn)
				}
				serve(c, e)
				far.Write([]byte("x"))
				if err := e.wantClosed(t); err != tc.want {
					t.Errorf("closed with %v, want %v", err, tc.want)
				}
				far.Write(make([]byte, 1<<20)) // unread bytes would make the close an RST
				n, err := io.Copy(io.Discard, far)
				if n != answer || err != nil {
					t.Errorf("the peer read %d bytes, %v; want %d, nil", n, err, answer)
				}
				far.Close()
				e.wantServed(t)
				if feeds != 1 {
					t.Errorf("%d feeds, want 1: what comes after closing is dropped", feeds)
				}
			})
		})
	}
}

// A peer that never reads cannot hold a closing connection beyond Linger, and
// must not take a part for the whole.
func TestLingerEnds(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		var k Counters
		c, _, raw := s.pair(t, Options{Linger: 50 * time.Millisecond, Counters: &k})
		e := newEngine()
		serve(c, e)
		start := time.Now()
		c.Run(func(tn *turn.Turn) {
			c.Write(tn, make([]byte, 32<<20))
			c.Close(tn)
		})
		if err := e.wantClosed(t); err != nil {
			t.Errorf("closed with %v, want nil", err)
		}
		e.wantServed(t)
		if d := time.Since(start); d < 50*time.Millisecond {
			t.Errorf("gave up after %v, want 50ms", d)
		}
		if got := k.Unread.Load(); got != 1 {
			t.Errorf("%d connections counted as unread, want 1", got)
		}
		if _, err := io.Copy(io.Discard, raw); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer reads %v, want a reset", err)
		}
	})
}

// A peer that reads all but never sends FIN is not waited for beyond Linger;
// nothing is lost, so nothing is counted.
func TestLingerForFIN(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		var k Counters
		c, far, _ := s.pair(t, Options{Linger: 50 * time.Millisecond, Counters: &k})
		e := newEngine()
		serve(c, e)
		c.Run(func(tn *turn.Turn) { c.Write(tn, []byte("bye")); c.Close(tn) })
		if all, err := io.ReadAll(far); string(all) != "bye" || err != nil {
			t.Errorf("the peer reads %q, %v; want bye", all, err)
		}
		e.wantServed(t)
		if got := k.Unread.Load(); got != 0 {
			t.Errorf("%d connections counted as unread, want 0", got)
		}
	})
}

// A server may answer early and close while we still send: its answer is read
// although our writes fail.
func TestAnswerBeforeBrokenWrite(t *testing.T) {
	c, _, raw := plainPair(t, Options{})
	e := newEngine()
	var got []byte
	e.onFeed = func(_ *turn.Turn, p []byte) error { got = append(got, p...); return nil }
	raw.Write([]byte("413"))
	broken := make(chan struct{})
	go func() { // writes fail before the reader has begun
		defer close(broken)
		for end := time.Now().Add(patience); time.Now().Before(end); {
			c.Run(func(tn *turn.Turn) { c.Write(tn, make([]byte, 1000)) })
			c.mu.Lock()
			b := c.broken
			c.mu.Unlock()
			if b {
				return
			}
		}
	}()
	raw.CloseWrite()
	raw.SetReadDeadline(time.Now().Add(patience))
	io.ReadFull(raw, make([]byte, 1000))
	raw.Close() // with bytes unread: RST
	await(t, "a failed write", broken)
	serve(c, e)
	err := e.wantClosed(t)
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("closed with %v, want a broken write", err)
	}
	e.wantServed(t)
	if string(got) != "413" {
		t.Skipf("received %q: this system drops what came before the RST", got)
	}
}

// A panic in the engine ends its connection, with RST, and is told.
func TestPanic(t *testing.T) {
	boom := func(*turn.Turn) { panic("boom") }
	for _, tc := range []struct {
		name string
		o    Options
		set  func(e *testEngine)
		do   func(c *Conn)
	}{
		{"feed", Options{}, func(e *testEngine) { e.onFeed = func(*turn.Turn, []byte) error { panic("boom") } }, nil},
		{"eof", Options{}, func(e *testEngine) { e.onEOF = func(*turn.Turn) bool { panic("boom") } }, nil},
		{"left", Options{}, func(e *testEngine) { e.onLeft = boom }, func(c *Conn) {
			c.Run(func(tn *turn.Turn) { c.Write(tn, make([]byte, 64<<10)) })
		}},
		{"tick", Options{Tick: time.Millisecond}, func(e *testEngine) { e.onTick = boom }, nil},
		{"run", Options{}, func(*testEngine) {}, func(c *Conn) { c.Run(boom) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := wheel.New()
			w.Start()
			defer w.Close()
			var k Counters
			tc.o.Counters, tc.o.Wheel = &k, w
			c, far, _ := plainPair(t, tc.o)
			e := newEngine()
			tc.set(e)
			serve(c, e)
			if tc.do != nil {
				until(t, "Serve has begun", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.engine != nil })
				tc.do(c)
			} else if tc.name != "tick" {
				far.Write([]byte("x"))
				far.CloseWrite()
			}
			err := e.wantClosed(t)
			pe, ok := errors.AsType[*PanicError](err)
			if !ok || pe.Value != "boom" || len(pe.Stack) == 0 || !contains(err, "panic") {
				t.Errorf("closed with %v, want a PanicError with its stack", err)
			}
			e.wantServed(t)
			if got := k.Panics.Load(); got != 1 {
				t.Errorf("%d panics counted, want 1", got)
			}
		})
	}
}

// A panic in one connection's engine leaves the one whose turn it was in alone.
func TestPanicInAnothersTurn(t *testing.T) {
	a, farA, _ := plainPair(t, Options{})
	b, farB, _ := plainPair(t, Options{})
	ea, eb := newEngine(), newEngine()
	eb.onLeft = func(*turn.Turn) { panic("boom") }
	ea.onFeed = func(tn *turn.Turn, p []byte) error {
		a.Write(tn, p)
		b.Write(tn, make([]byte, 20<<10))
		return nil
	}
	serve(b, eb)
	until(t, "Serve has begun", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.engine != nil })
	serve(a, ea)
	got := make([]byte, 1)
	for range 2 {
		farA.Write([]byte("x"))
		if _, err := io.ReadFull(farA, got); err != nil {
			t.Fatalf("the innocent connection: %v", err)
		}
		if _, ok := errors.AsType[*PanicError](eb.wantClosed(t)); !ok {
			t.Errorf("closed with %v, want a PanicError", eb.err)
		}
	}
	eb.wantServed(t)
	farA.Close()
	farB.Close()
	ea.wantServed(t)
}

// flushFunc is a Flusher.
type flushFunc func(t *turn.Turn)

func (f flushFunc) Flush(t *turn.Turn) { f(t) }

// A panic while the turn ends closes the connection whose turn it was; what it
// does after, in Closed, is flushed all the same.
func TestPanicInFlush(t *testing.T) {
	c, far, _ := plainPair(t, Options{})
	e := newEngine()
	flushed := make(chan struct{})
	e.onFeed = func(tn *turn.Turn, _ []byte) error {
		tn.Mark(flushFunc(func(*turn.Turn) { panic("boom") }))
		return nil
	}
	e.onClosed = func(tn *turn.Turn) { tn.Mark(flushFunc(func(*turn.Turn) { close(flushed) })) }
	serve(c, e)
	far.Write([]byte("x"))
	if _, ok := errors.AsType[*PanicError](e.wantClosed(t)); !ok {
		t.Errorf("closed with %v, want a PanicError", e.err)
	}
	await(t, "a flush after the panic", flushed)
	e.wantServed(t)
}

// What was written before Serve is told by Left once Serve has begun.
func TestLeftBeforeServe(t *testing.T) {
	c, far, _ := plainPair(t, Options{})
	e := newEngine()
	left := make(chan struct{})
	e.onLeft = func(*turn.Turn) { close(left) }
	c.Run(func(tn *turn.Turn) { c.Write(tn, make([]byte, 20<<10)) })
	serve(c, e)
	await(t, "Left", left)
	far.Close()
	e.wantServed(t)
}

// Close and Abort before Serve are heard by the engine too.
func TestEndBeforeServe(t *testing.T) {
	c, far, _ := plainPair(t, Options{})
	e := newEngine()
	c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
	serve(c, e)
	if err := e.wantClosed(t); err != ErrAborted {
		t.Errorf("closed with %v, want ErrAborted", err)
	}
	e.wantServed(t)
	far.Close()
}

// A connection in memory works in fake time: ticks come every second, Closed
// ends them, and Linger passes without waiting for it.
func TestPipeInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wheel.New()
		w.Start()
		defer w.Close()
		near, far := net.Pipe()
		c := New(near, Options{Wheel: w, Tick: time.Second, Park: 4 << 10})
		e := newEngine()
		e.onFeed = func(tn *turn.Turn, p []byte) error {
			c.Write(tn, p)
			c.Consume(tn, len(p))
			return nil
		}
		serve(c, e)
		got := make([]byte, 5)
		for range 3 {
			far.Write([]byte("hello"))
			if _, err := io.ReadFull(far, got); err != nil || string(got) != "hello" {
				t.Fatalf("read %q, %v; want hello", got, err)
			}
		}
		time.Sleep(10*time.Second + wheel.Tick)
		synctest.Wait()
		e.mu.Lock()
		if e.ticks < 9 || e.ticks > 10 {
			t.Errorf("%d ticks in 10 s, want one a second", e.ticks)
		}
		e.mu.Unlock()
		start := time.Now()
		c.Run(func(tn *turn.Turn) { c.Write(tn, []byte("unread")); c.Close(tn) })
		<-e.served
		if d := time.Since(start); d != MaxLinger {
			t.Errorf("lingered %v, want %v", d, MaxLinger)
		}
		ticks := e.ticks
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if e.ticks != ticks || e.late != 0 {
			t.Errorf("%d ticks and %d calls after Closed, want none", e.ticks-ticks, e.late)
		}
		far.Close()
	})
}

// What bytes made possible leaves before what the FIN behind them makes of it, even
// if both are there at once.
func TestEndBehindBytes(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		if s.tls {
			return // there both may come in one record's read, hence in one turn
		}
		c, far, _ := s.pair(t, Options{})
		e := newEngine()
		e.onFeed = func(tn *turn.Turn, p []byte) error { c.Write(tn, p); return nil }
		e.onEOF = func(tn *turn.Turn) bool { c.Abort(tn, 0); return true }
		far.Write([]byte("hello"))
		far.CloseWrite()
		serve(c, e)
		got := make([]byte, 10)
		if n, err := io.ReadFull(far, got); string(got[:n]) != "hello" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer reads %q, %v, want hello and a reset", got[:n], err)
		}
		e.wantServed(t)
	})
}
