package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	// version of what both sides say.
	version = 1
	// maxSockets is how many descriptors the system carries in one message.
	maxSockets = 200
	// maxPath is how long the path of a socket may be; systems differ around it.
	maxPath = 100
	// messageTime bounds each message, but for the successor's Ready.
	messageTime = 5 * time.Second
)

// A message is what is said, one a line.
type message struct {
	Version int      `json:"version"`
	PID     int      `json:"pid,omitempty"`
	Sockets []string `json:"sockets,omitempty"` // as their addresses were written; descriptors come along
	Busy    bool     `json:"busy,omitempty"`    // another successor has come first
	Ready   bool     `json:"ready,omitempty"`   // the successor serves
	Yours   bool     `json:"yours,omitempty"`   // the predecessor has stopped accepting
}

// A Socket is a listener and its address as it was written.
type Socket struct {
	Addr     string
	Listener net.Listener
}

// A Door is where successors come.
type Door struct {
	l *net.UnixListener
}

// Open makes the door at path, in place of one that may have been there. Only our
// user may come.
func Open(path string) (*Door, error) {
	temp := path + ".new"
	if len(temp) > maxPath {
		return nil, fmt.Errorf("open %s: the path of a socket may have %d bytes at most", path, maxPath-len(".new"))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then it may be our successor's
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		l.Close()
		return nil, err
	}
	return &Door{l}, nil
}

// Close lets nobody in any more.
func (d *Door) Close() { d.l.Close() }

// Successor gives the sockets to each process that comes, one at a time, and
// returns when one of them serves. It returns nil when ctx ends or the door is
// closed.
func (d *Door) Successor(ctx context.Context, sockets []Socket, tell func(error)) *Successor {
	stop := context.AfterFunc(ctx, d.Close)
	defer stop()
	served := make(chan *Successor)
	busy := false
	arrived := make(chan *net.UnixConn)
	go d.accept(arrived)
	for {
		select {
		case c, ok := <-arrived:
			switch {
			case !ok && !busy:
				return nil
			case !ok:
				arrived = nil
			case busy:
				_ = say(c, message{Version: version, PID: os.Getpid(), Busy: true})
				c.Close()
			default:
				busy = true
				go attend(ctx, c, sockets, served, tell)
			}
		case s := <-served:
			busy = false
			if s != nil || arrived == nil {
				go refuse(arrived)
				return s
			}
		}
	}
}

func (d *Door) accept(to chan<- *net.UnixConn) {
	defer close(to)
	for {
		c, err := d.l.AcceptUnix()
		if err != nil {
			return
		}
		to <- c
	}
}

// refuse lets go of who comes too late.
func refuse(arrived <-chan *net.UnixConn) {
	if arrived == nil {
		return
	}
	for c := range arrived {
		_ = say(c, message{Version: version, PID: os.Getpid(), Busy: true})
		c.Close()
	}
}

// attend gives the sockets to one process, and says whether it serves: nil if it
// went away before, or ctx ended.
func attend(ctx context.Context, c *net.UnixConn, sockets []Socket, served chan<- *Successor, tell func(error)) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err := give(c, sockets)
	var m message
	if err == nil {
		m, err = hear(c, time.Time{})
	}
	if err == nil && !m.Ready {
		err = errors.New("it says something else than that it serves")
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		served <- nil // first: who hears of it may send the next at once
		tell(fmt.Errorf("a successor came and did not take over: %w", err))
		return
	}
	served <- &Successor{c: c, PID: m.PID}
}

// give sends the sockets' descriptors.
func give(c *net.UnixConn, sockets []Socket) error {
	m := message{Version: version, PID: os.Getpid()}
	var fds []int
	for _, s := range sockets {
		tcp, ok := s.Listener.(*net.TCPListener)
		if !ok || len(fds) == maxSockets {
			continue
		}
		f, err := tcp.File()
		if errors.Is(err, net.ErrClosed) { // we have stopped accepting: the successor opens its own
			continue
		}
		if err != nil {
			return err
		}
		defer f.Close()
		raw, err := f.SyscallConn() // f.Fd might make the socket block, ours as well
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
		defer runtime.KeepAlive(f)
		m.Sockets = append(m.Sockets, s.Addr)
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix(append(line, '\n'), syscall.UnixRights(fds...), nil)
	return err
}

// A Successor is a process that serves what we do.
type Successor struct {
	PID int
	c   *net.UnixConn
}

// Yours tells it that we have stopped accepting, and waits until it has a door of its
// own: then ours may close, and whoever comes finds one or the other.
func (s *Successor) Yours() error {
	defer s.c.Close()
	if err := say(s.c, message{Version: version, PID: os.Getpid(), Yours: true}); err != nil {
		return err
	}
	if _, err := hear(s.c, time.Now().Add(messageTime)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("it does not hang up: %w", err)
	}
	return nil
}

func say(c *net.UnixConn, m message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	_, err = c.Write(append(line, '\n'))
	return err
}

// hear reads a message that brings no descriptors.
func hear(c *net.UnixConn, until time.Time) (m message, err error) {
	if err := c.SetReadDeadline(until); err != nil {
		return m, err
	}
	return m, decode(json.NewDecoder(c), &m)
}

func decode(d *json.Decoder, m *message) error {
	if err := d.Decode(m); err != nil {
		return err
	}
	if m.Version != version {
		return fmt.Errorf("it speaks version %d of the hand-over, and this program %d", m.Version, version)
	}
	return nil
}
