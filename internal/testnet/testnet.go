package testnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var _ net.Conn = (*Conn)(nil)

// Buffer is how many bytes one direction holds before Write blocks.
const Buffer = 64 << 10

// A Conn is one end of a connection.
type Conn struct {
	in, out       *half
	local, remote net.Addr
	rst           atomic.Bool // Close is Reset
}

// Pair returns the two ends of a new connection: the dialling one first.
func Pair() (client, server *Conn) {
	up, down := newHalf(), newHalf()
	a := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:40000"))
	b := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.2:15008"))
	return &Conn{in: down, out: up, local: a, remote: b}, &Conn{in: up, out: down, local: b, remote: a}
}

// A half is one direction.
type half struct {
	mu       sync.Mutex
	moved    sync.Cond // anything below changed
	data     []byte
	wclosed  bool // the writer has sent FIN
	rclosed  bool // the reader has gone
	reset    bool
	rdl, wdl deadline
}

func newHalf() *half {
	h := &half{}
	h.moved.L = &h.mu
	return h
}

// A deadline wakes whoever waits when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set is called with the half's lock held.
func (d *deadline) set(h *half, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), h.wake)
	}
	h.moved.Broadcast()
}

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.rclosed:
			return 0, net.ErrClosed
		case h.reset:
			return 0, syscall.ECONNRESET
		case h.rdl.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.data) > 0:
			n := copy(p, h.data)
			h.data = append(h.data[:0], h.data[n:]...)
			h.moved.Broadcast()
			return n, nil
		case h.wclosed:
			return 0, io.EOF
		}
		h.moved.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.wclosed:
			return n, net.ErrClosed
		case h.reset:
			return n, syscall.ECONNRESET
		case h.rclosed:
			return n, syscall.EPIPE
		case h.wdl.passed():
			return n, os.ErrDeadlineExceeded
		}
		room := min(Buffer-len(h.data), len(p)-n)
		if room > 0 {
			h.data = append(h.data, p[n:n+room]...)
			n += room
			h.moved.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		h.moved.Wait()
	}
}

// change applies f under the lock and wakes everybody.
func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.moved.Broadcast()
}

// Read copies what has arrived, and waits if nothing has. What was sent before
// the other end closed is still read.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write copies p, and waits while Buffer bytes have not been read.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// CloseWrite sends FIN: the other end reads EOF, and may go on writing.
func (c *Conn) CloseWrite() error {
	c.out.change(func() { c.out.wclosed = true })
	return nil
}

// SetLinger makes Close a Reset if sec is 0, as in TCP.
func (c *Conn) SetLinger(sec int) error {
	c.rst.Store(sec == 0)
	return nil
}

// Close ends both directions. As in TCP, bytes that were never read turn the
// FIN into a reset.
func (c *Conn) Close() error {
	if c.rst.Load() {
		c.Reset()
		return nil
	}
	unread := false
	c.in.change(func() { unread = len(c.in.data) > 0; c.in.rclosed = true })
	c.out.change(func() {
		c.out.wclosed = true
		c.out.reset = c.out.reset || unread
	})
	c.clearDeadlines()
	return nil
}

// Reset ends both directions with RST: the other end's bytes in flight are
// lost, and its next call fails.
func (c *Conn) Reset() {
	c.in.change(func() { c.in.rclosed, c.in.reset = true, true })
	c.out.change(func() { c.out.wclosed, c.out.reset = true, true })
	c.clearDeadlines()
}

// clearDeadlines stops the timers, so that none outlives its test.
func (c *Conn) clearDeadlines() {
	c.in.change(func() { c.in.rdl.set(c.in, time.Time{}) })
	c.out.change(func() { c.out.wdl.set(c.out, time.Time{}) })
}

// Unread returns how many bytes have arrived and were not read.
func (c *Conn) Unread() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return len(c.in.data)
}

func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(at time.Time) error {
	c.SetReadDeadline(at)
	c.SetWriteDeadline(at)
	return nil
}

// SetReadDeadline makes reads fail from then on; zero means never.
func (c *Conn) SetReadDeadline(at time.Time) error {
	c.in.change(func() { c.in.rdl.set(c.in, at) })
	return nil
}

// SetWriteDeadline makes writes fail from then on; zero means never.
func (c *Conn) SetWriteDeadline(at time.Time) error {
	c.out.change(func() { c.out.wdl.set(c.out, at) })
	return nil
}
