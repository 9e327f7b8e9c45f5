package testnet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestBytesPassBothWays(t *testing.T) {
	a, b := Pair()
	for _, ends := range []struct {
		name     string
		from, to *Conn
	}{{"up", a, b}, {"down", b, a}} {
		if _, err := ends.from.Write([]byte(ends.name)); err != nil {
			t.Fatal(err)
		}
		if got, want := ends.to.Unread(), len(ends.name); got != want {
			t.Errorf("%s: got %d unread, want %d", ends.name, got, want)
		}
		got := make([]byte, 8)
		n, err := ends.to.Read(got)
		if string(got[:n]) != ends.name || err != nil {
			t.Errorf("%s: got %q, %v", ends.name, got[:n], err)
		}
	}
	if a.LocalAddr().String() != b.RemoteAddr().String() || b.LocalAddr().String() != a.RemoteAddr().String() {
		t.Error("the ends disagree about their addresses")
	}
}

func TestWriteWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pair()
		sent := bytes.Repeat([]byte("sandwich"), Buffer/4) // twice what fits
		done := false
		go func() {
			if n, err := a.Write(sent); n != len(sent) || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
			a.CloseWrite()
			done = true
		}()
		synctest.Wait()
		if done || b.Unread() != Buffer {
			t.Errorf("got done %v with %d bytes held, want a writer that waits at %d", done, b.Unread(), Buffer)
		}
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("got %d bytes, %v; want the %d sent", len(got), err, len(sent))
		}
	})
}

func TestHalfClose(t *testing.T) {
	a, b := Pair()
	a.Write([]byte("question"))
	a.CloseWrite()
	if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseWrite: got %v, want %v", err, net.ErrClosed)
	}
	b.Write([]byte("answer"))
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestClose(t *testing.T) {
	a, b := Pair()
	b.Close()
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a closed end: got %v, want %v", err, syscall.EPIPE)
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read from a closed end: got %v, want EOF", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: got %v, want %v", err, net.ErrClosed)
	}
}

func TestCloseWithUnreadBytesResets(t *testing.T) {
	a, b := Pair()
	a.Write([]byte("never read"))
	b.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want %v", err, syscall.ECONNRESET)
	}
}

func TestReset(t *testing.T) {
	a, b := Pair()
	a.Write([]byte("lost"))
	a.Reset()
	if _, err := b.Read(make([]byte, 8)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: got %v, want %v", err, syscall.ECONNRESET)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write: got %v, want %v", err, syscall.ECONNRESET)
	}
	if _, err := a.Read(make([]byte, 8)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("own read: got %v, want %v", err, net.ErrClosed)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pair()
		defer a.Close()
		defer b.Close()
		start := time.Now()
		a.SetReadDeadline(start.Add(time.Hour))
		_, err := a.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("read: got %v after %v, want a deadline after an hour", err, time.Since(start))
		}
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		b.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := b.Write(make([]byte, Buffer+1))
		if n != Buffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: got %d, %v; want %d and a deadline", n, err, Buffer)
		}
		a.SetDeadline(time.Time{})
		if n, err := a.Read(make([]byte, 8)); n != 8 || err != nil {
			t.Errorf("after the deadline was taken away: got %d, %v", n, err)
		}
	})
}

// TestDeadlineWhileWaiting moves a deadline under a reader that waits.
func TestDeadlineWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pair()
		defer b.Close()
		failed := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		a.SetReadDeadline(time.Now())
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a deadline", err)
		}
		a.Close()
	})
}

func TestLingerMakesCloseAReset(t *testing.T) {
	for _, sec := range []int{-1, 0} {
		a, b := Pair()
		a.Write([]byte("x"))
		a.SetLinger(sec)
		a.Close()
		_, err := io.ReadAll(b)
		if reset := errors.Is(err, syscall.ECONNRESET); reset != (sec == 0) {
			t.Errorf("linger %d: the other end read %v", sec, err)
		}
	}
}
