package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
)

// A driver moves bytes between a transport and buffers. One goroutine reads and
// one writes at a time. Sockets have two: Go's netpoller, and where a Loops reads
// a descriptor of its own.
type driver interface {
	// read appends to b, which is nil or holds the start of something, until it
	// has size bytes at most, taking room from internal/buf only once there is
	// something to read. With wait it waits; else it answers errWouldBlock.
	// The result replaces b, whatever the error.
	read(b []byte, size int, wait bool) ([]byte, error)
	// ended says that EOF was read. It reports whether further reads can wait
	// for the transport to fail.
	ended() bool
	// write sends what the transport takes. With wait it waits until it takes
	// something; else it may take nothing.
	write(p []byte, wait bool) (int, error)
	// readUntil and writeUntil bound what waits, from any goroutine; a zero time
	// does not.
	readUntil(t time.Time)
	writeUntil(t time.Time)
	// closeWrite sends FIN. It reports false if the transport has none.
	closeWrite() (ok bool, err error)
	// close ends every wait and gives the transport up, with RST if reset says so.
	close(reset bool)
}

// longAgo ends a wait.
var longAgo = time.Unix(1, 0)

// errWouldBlock has the properties that crypto/tls asks for to try again later:
// a net.Error that is Temporary is not kept as the connection's error.
var errWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read now" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

func newDriver(nc net.Conn, st *stats) driver {
	if sc, ok := nc.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			s := &socket{transport: transport{nc}, rc: rc, st: st}
			s.onRead, s.onWrite = s.tryRead, s.tryWrite
			return s
		}
	}
	return &pipe{transport: transport{nc}, st: st}
}

// A transport is what both drivers of a net.Conn have in common.
type transport struct{ nc net.Conn }

func (d transport) readUntil(t time.Time)  { d.nc.SetReadDeadline(t) }
func (d transport) writeUntil(t time.Time) { d.nc.SetWriteDeadline(t) }

func (d transport) closeWrite() (ok bool, err error) {
	hc, ok := d.nc.(interface{ CloseWrite() error })
	if ok {
		err = hc.CloseWrite()
	}
	return ok, err
}

func (d transport) close(reset bool) {
	if tc, ok := d.nc.(interface{ SetLinger(sec int) error }); ok && reset {
		tc.SetLinger(0)
	}
	d.nc.Close()
}

// A socket is driven through its descriptor and Go's netpoller.
type socket struct {
	transport

	// Set once. Callbacks are made once: one per read would be an allocation.
	rc              syscall.RawConn
	st              *stats
	onRead, onWrite func(fd uintptr) bool

	// Owned by the reader.
	in      []byte
	size    int
	wait    bool
	pastEnd bool
	readErr error

	// Owned by the writer.
	out      []byte
	sent     int
	block    bool
	writeErr error
}

func (s *socket) read(b []byte, size int, wait bool) ([]byte, error) {
	s.in, s.size, s.wait, s.readErr = b, size, wait, nil
	err := s.rc.Read(s.onRead)
	b, s.in = s.in, nil
	if err == nil {
		err = s.readErr
	}
	return b, err
}

// tryRead is called when the socket may be readable. RawConn.Read has reset the
// edge-triggered readiness before, so not to try would lose a wake-up.
func (s *socket) tryRead(fd uintptr) bool {
	b := buf.Grow(s.in, s.size-len(s.in))
	for {
		n, err := syscall.Read(int(fd), b[len(b):s.size])
		s.st.reads.Add(1)
		switch {
		case err == syscall.EINTR:
			continue
		case err == nil && n == 0 && s.pastEnd:
			// Behind a FIN a read answers 0 even after RST; only the socket's
			// error tells of it.
			if e, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR); err == nil && e != 0 {
				s.in, s.readErr = buf.Shrink(b), failure(s.nc, "read", syscall.Errno(e))
				return true
			}
			fallthrough
		case err == syscall.EAGAIN:
			s.in = buf.Shrink(b) // wait holding nothing but the start of a record
			s.readErr = errWouldBlock
			return !s.wait
		case err != nil:
			s.in, s.readErr = buf.Shrink(b), failure(s.nc, "read", err)
		case n == 0:
			s.in, s.readErr = buf.Shrink(b), io.EOF
		default:
			s.st.bytesIn.Add(int64(n))
			s.in, s.readErr = b[:len(b)+n], nil
		}
		return true
	}
}

func (s *socket) ended() bool {
	s.pastEnd = true
	return true
}

func (s *socket) write(p []byte, wait bool) (int, error) {
	s.out, s.sent, s.block, s.writeErr = p, 0, wait, nil
	err := s.rc.Write(s.onWrite)
	s.out = nil
	if err == nil {
		err = s.writeErr
	}
	return s.sent, err
}

func (s *socket) tryWrite(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), s.out)
		s.st.writes.Add(1)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return !s.block
		case err != nil:
			s.writeErr = failure(s.nc, "write", err)
		default:
			s.sent = n
			s.st.bytesOut.Add(int64(n))
		}
		return true
	}
}

func failure(nc net.Conn, op string, err error) error {
	return &net.OpError{Op: op, Net: nc.RemoteAddr().Network(), Source: nc.LocalAddr(), Addr: nc.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// A pipe is any other net.Conn, such as one in memory that works in fake time:
// reads wait with a buffer in hand, and only the drain goroutine writes.
type pipe struct {
	transport
	st *stats
}

func (d *pipe) read(b []byte, size int, wait bool) ([]byte, error) {
	if !wait {
		return b, errWouldBlock
	}
	b = buf.Grow(b, size-len(b))
	n, err := d.nc.Read(b[len(b):size])
	d.st.reads.Add(1)
	d.st.bytesIn.Add(int64(n))
	if n > 0 { // an error comes again
		return b[:len(b)+n], nil
	}
	return buf.Shrink(b), err
}

func (d *pipe) ended() bool { return false }

func (d *pipe) write(p []byte, wait bool) (int, error) {
	if !wait {
		return 0, nil
	}
	n, err := d.nc.Write(p)
	d.st.writes.Add(1)
	d.st.bytesOut.Add(int64(n))
	return n, err
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
