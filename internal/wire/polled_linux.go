package wire

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandwich-mesh/sandwich/internal/buf"
)

var _ driver = (*polled)(nil)

// A polled is a descriptor that a loop reads.
type polled struct {
	// Set once.
	fd   int
	loop *loop
	nc   net.Conn // closed; for its addresses
	st   *stats
	slot int32
	uses int32

	// Owned by the loop.
	pastEnd bool

	mu sync.Mutex // a leaf in the lock order

	// Guarded by mu.
	calls    int32 // that use fd just now
	closed   bool
	known    bool // to epoll
	interest uint32
	room     chan struct{} // someone waits for the socket to take more
}

// begin takes the right to use the descriptor, which nobody may close until end.
func (d *polled) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.calls++
	return true
}

func (d *polled) end() {
	d.mu.Lock()
	d.calls--
	last := d.closed && d.calls == 0
	d.mu.Unlock()
	if last {
		unix.Close(d.fd)
	}
}

func (d *polled) close(reset bool) {
	d.loop.remove(d)
	d.mu.Lock()
	if reset {
		_ = unix.SetsockoptLinger(d.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if d.known {
		_ = unix.EpollCtl(d.loop.ep, unix.EPOLL_CTL_DEL, d.fd, nil)
	}
	d.closed = true
	last := d.calls == 0
	d.tellRoom()
	d.mu.Unlock()
	if last {
		unix.Close(d.fd)
	}
}

// listen says whether the loop is to hear of what arrives. If not, it hears
// nothing at all: errors would come again and again.
func (d *polled) listen(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if on {
		d.watch(d.interest | unix.EPOLLIN)
	} else {
		d.watch(d.interest &^ unix.EPOLLIN)
	}
}

// watch sets what the loop hears of. mu is held.
func (d *polled) watch(interest uint32) {
	if d.closed || d.known && interest == d.interest {
		return
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case interest == 0 && !d.known:
		return
	case interest == 0:
		op = unix.EPOLL_CTL_DEL
	case !d.known:
		op = unix.EPOLL_CTL_ADD
	}
	d.interest, d.known = interest, interest != 0
	_ = unix.EpollCtl(d.loop.ep, op, d.fd, &unix.EpollEvent{Events: interest, Fd: d.slot, Pad: d.uses})
}

func (d *polled) read(b []byte, size int, _ bool) ([]byte, error) {
	b = buf.Grow(b, size-len(b))
	for {
		n, err := unix.Read(d.fd, b[len(b):size])
		d.st.reads.Add(1)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == 0 && d.pastEnd:
			// Behind a FIN a read answers 0 even after RST; only the socket's
			// error tells of it.
			if e, err := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && e != 0 {
				return buf.Shrink(b), failure(d.nc, "read", syscall.Errno(e))
			}
			return buf.Shrink(b), errWouldBlock
		case err == unix.EAGAIN:
			return buf.Shrink(b), errWouldBlock
		case err != nil:
			return buf.Shrink(b), failure(d.nc, "read", err)
		case n == 0:
			return buf.Shrink(b), io.EOF
		}
		d.st.bytesIn.Add(int64(n))
		return b[:len(b)+n], nil
	}
}

// ended: from here on only the end of the whole connection is of interest, which
// epoll tells whatever it was asked for, but for nothing.
func (d *polled) ended() bool {
	d.pastEnd = true
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch(d.interest&^unix.EPOLLIN | unix.EPOLLPRI)
	return true
}

func (d *polled) write(p []byte, wait bool) (int, error) {
	if !d.begin() {
		return 0, failure(d.nc, "write", net.ErrClosed)
	}
	defer d.end()
	for {
		n, err := unix.Write(d.fd, p)
		d.st.writes.Add(1)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && !wait:
			return 0, nil
		case err == unix.EAGAIN:
			if !d.waitRoom() {
				return 0, failure(d.nc, "write", net.ErrClosed)
			}
		case err != nil:
			return 0, failure(d.nc, "write", err)
		default:
			d.st.bytesOut.Add(int64(n))
			return n, nil
		}
	}
}

// waitRoom waits until the socket takes more, or is closed: then it reports
// false. Only the drain goroutine waits.
func (d *polled) waitRoom() bool {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return false
	}
	room := make(chan struct{})
	d.room = room
	d.watch(d.interest | unix.EPOLLOUT)
	d.mu.Unlock()
	<-room
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed
}

// happened is told of more than bytes to read: the socket takes some again, or
// it has failed.
func (d *polled) happened(events uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	interest := d.interest &^ unix.EPOLLOUT
	if d.pastEnd && events&unix.EPOLLHUP != 0 {
		interest = 0 // it is over on both sides, and would be told so for ever
	}
	d.watch(interest)
	d.tellRoom()
}

func (d *polled) tellRoom() {
	if d.room != nil {
		close(d.room)
		d.room = nil
	}
}

func (d *polled) readUntil(time.Time)  {} // the loop reads, and never waits
func (d *polled) writeUntil(time.Time) {} // the loop closes what lingers too long

func (d *polled) closeWrite() (ok bool, err error) {
	if !d.begin() {
		return true, net.ErrClosed
	}
	defer d.end()
	return true, unix.Shutdown(d.fd, unix.SHUT_WR)
}
