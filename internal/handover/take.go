package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// An Inheritance is what a predecessor gave: its listening sockets, until they
// are claimed. A nil one is that of a process that had none.
type Inheritance struct {
	PID     int // of the predecessor
	c       *net.UnixConn
	sockets []Socket
	once    sync.Once
}

// ErrBusy says that another successor has come first.
var ErrBusy = errors.New("another process is taking over")

// Take asks the process whose door is at path for its sockets. It returns nil if
// there is none.
func Take(path string) (*Inheritance, error) {
	nc, err := net.DialTimeout("unix", path, messageTime)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	i := &Inheritance{c: nc.(*net.UnixConn)}
	if err := i.receive(); err != nil {
		i.Close()
		return nil, fmt.Errorf("take over from the process at %s: %w", path, err)
	}
	return i, nil
}

// Lives reports whether a process has its door at path.
func Lives(path string) bool {
	nc, err := net.DialTimeout("unix", path, messageTime)
	if err == nil {
		nc.Close()
	}
	return err == nil
}

func (i *Inheritance) receive() error {
	if err := i.c.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	line, rights := make([]byte, 64<<10), make([]byte, syscall.CmsgSpace(4*maxSockets))
	n, nr, _, _, err := i.c.ReadMsgUnix(line, rights)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.ErrUnexpectedEOF
	}
	files, err := filesOf(rights[:nr])
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return err
	}
	var m message
	if err := decode(json.NewDecoder(io.MultiReader(bytes.NewReader(line[:n]), i.c)), &m); err != nil {
		return err
	}
	i.PID = m.PID
	switch {
	case m.Busy:
		return ErrBusy
	case len(m.Sockets) != len(files):
		return fmt.Errorf("it names %d sockets and sends %d", len(m.Sockets), len(files))
	}
	for k, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			return err
		}
		i.sockets = append(i.sockets, Socket{m.Sockets[k], l})
	}
	return nil
}

func filesOf(rights []byte) (files []*os.File, err error) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for k := range messages {
		fds, err := syscall.ParseUnixRights(&messages[k])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "inherited"))
		}
	}
	return files, nil
}

// Listen returns the socket that the predecessor had at addr, written the same
// way, or opens one.
func (i *Inheritance) Listen(addr string) (net.Listener, error) {
	if i != nil {
		for k, s := range i.sockets {
			if s.Listener != nil && s.Addr == addr {
				i.sockets[k].Listener = nil
				return s.Listener, nil
			}
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil && i != nil && errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w (to take it over, write the address as the running process has it)", err)
	}
	return l, err
}

// Ready tells the predecessor that we serve, and returns when it has stopped
// accepting, or is gone, or ctx ends. Close follows when we have a door of our own.
func (i *Inheritance) Ready(ctx context.Context) error {
	if err := say(i.c, message{Version: version, PID: os.Getpid(), Ready: true}); err != nil {
		return err
	}
	until, _ := ctx.Deadline()
	m, err := hear(i.c, until)
	if err == nil && !m.Yours {
		err = errors.New("it does not say that it has stopped")
	}
	return err
}

// Close gives up what was not claimed. Before Ready it says that we do not take
// over.
func (i *Inheritance) Close() {
	if i != nil {
		i.once.Do(i.close)
	}
}

func (i *Inheritance) close() {
	i.c.Close()
	for _, s := range i.sockets {
		if s.Listener != nil {
			s.Listener.Close()
		}
	}
}
