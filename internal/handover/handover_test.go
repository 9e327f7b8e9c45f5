package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const patience = 10 * time.Second

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A predecessor waits for who succeeds it.
type predecessor struct {
	path string
	door *Door
	came chan *Successor
	told chan error
}

func precede(t *testing.T, path string, sockets ...Socket) *predecessor {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &predecessor{path, d, make(chan *Successor, 1), make(chan error, 10)}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		p.came <- d.Successor(ctx, sockets, func(err error) { p.told <- err })
	}()
	t.Cleanup(func() {
		cancel()
		<-over
		d.Close()
	})
	return p
}

// greets has what listens at an address say a word, and returns the address.
func serveWord(l net.Listener, word string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, word)
		c.Close()
	}
}

func ask(t *testing.T, addr string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestHandOver: sockets go by the address as it was written; what nobody claims is
// closed; both accept until the predecessor has stopped.
func TestHandOver(t *testing.T) {
	one, two := listen(t), listen(t)
	path := filepath.Join(t.TempDir(), "state", "door")
	p := precede(t, path, Socket{":1", one}, Socket{":2", two})
	go serveWord(one, "old")
	if !Lives(path) {
		t.Fatal("nobody lives there")
	}
	if err := <-p.told; err == nil {
		t.Error("who looks in and goes is not told of")
	}
	i, err := Take(path)
	if err != nil || i == nil || i.PID != os.Getpid() {
		t.Fatal(i, err)
	}
	l, err := i.Listen(":1")
	if err != nil || l.Addr().String() != one.Addr().String() {
		t.Fatalf("got %v, %v, want %v", l, err, one.Addr())
	}
	defer l.Close()
	if _, err := i.Listen(two.Addr().String()); err == nil || !strings.Contains(err.Error(), "as the running process has it") {
		t.Errorf("the same address written otherwise: %v", err)
	}
	other, err := i.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if got := ask(t, one.Addr().String()); got != "old" {
		t.Errorf("before: %q", got)
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := i.Ready(ctx)
		i.Close()
		done <- err
	}()
	s := <-p.came
	if s == nil || s.PID != os.Getpid() {
		t.Fatal(s)
	}
	one.Close()
	two.Close()
	if err := s.Yours(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	go serveWord(l, "new")
	if got := ask(t, one.Addr().String()); got != "new" {
		t.Errorf("after: %q", got)
	}
	if got := ask(t, two.Addr().String()); !strings.Contains(got, "refused") {
		t.Errorf("what nobody claimed: %q", got)
	}
}

// TestClosedIsNotGiven: a socket that is closed already, as by a drain that somebody
// asked for, is the successor's to open.
func TestClosedIsNotGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	open, closed := listen(t), listen(t)
	closed.Close()
	precede(t, path, Socket{closed.Addr().String(), closed}, Socket{":1", open})
	i, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, addr := range []string{closed.Addr().String(), ":1"} {
		l, err := i.Listen(addr)
		if err != nil {
			t.Error(err)
			continue
		}
		l.Close()
	}
}

// TestOneAtATime: who comes second is told so, and has the place when the first
// has gone without taking it.
func TestOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	p := precede(t, path, Socket{":1", listen(t)})
	first, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := Take(path); !errors.Is(err, ErrBusy) {
		t.Errorf("second: %v, %v", i, err)
	}
	first.Close()
	if err := <-p.told; err == nil || !strings.Contains(err.Error(), "did not take over") {
		t.Error(err)
	}
	third, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
}

// TestNobody: no door, a door of a process that died, and a successor that has no
// predecessor.
func TestNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	if i, err := Take(path); i != nil || err != nil {
		t.Errorf("no door: %v, %v", i, err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal("the door is not left behind as a crash leaves it")
	}
	if i, err := Take(path); i != nil || err != nil {
		t.Errorf("a dead door: %v, %v", i, err)
	}
	if Lives(path) {
		t.Error("a dead door lives")
	}
	if err := os.WriteFile(path+".new", []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	var none *Inheritance
	l, err := none.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	none.Close()
}

// TestPredecessorDies: the successor goes on alone.
func TestPredecessorDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l := listen(t)
	go func() {
		c, err := d.l.AcceptUnix()
		if err != nil {
			return
		}
		give(c, []Socket{{":1", l}})
		c.Close()
	}()
	i, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := i.Listen(":1")
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := i.Ready(ctx); err == nil {
		t.Error("a predecessor that has gone says nothing, and Ready says all is well")
	}
	go serveWord(mine, "new")
	if got := ask(t, mine.Addr().String()); got != "new" {
		t.Errorf("got %q", got)
	}
}

// TestStrangers: who speaks otherwise, or not at all, gets nothing but descriptors
// and takes nothing.
func TestStrangers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	p := precede(t, path, Socket{":1", listen(t)})
	for _, text := range []string{"", "GET / HTTP/1.1\r\n\r\n", `{"version":2,"ready":true}` + "\n", `{"version":1}` + "\n"} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		c.(*net.UnixConn).CloseWrite()
		if err := <-p.told; err == nil {
			t.Errorf("%q: taken for a successor", text)
		}
		c.Close()
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may come: %v, %v", info, err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), strings.Repeat("x", maxPath))); err == nil || !strings.Contains(err.Error(), "bytes at most") {
		t.Errorf("a path that is too long: %v", err)
	}
}
