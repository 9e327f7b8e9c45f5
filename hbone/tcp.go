package hbone

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

var (
	_ Tunnel      = (*tcpTunnel)(nil)
	_ wire.Engine = (*tcpTunnel)(nil)
)

// parkAt is how many unconsumed bytes a TCP tunnel takes before its reader
// stops reading: TCP has no window of ours to close.
const parkAt = 64 << 10

// A tcpTunnel is a Tunnel that has a TCP connection to itself: one that began
// with a PROXY header, one of the NONE binding, or one that we dialled to an
// endpoint that speaks no HBONE.
type tcpTunnel struct {
	// Set once, before the first event.
	server *Server  // of a tunnel that we accept
	nc     net.Conn // its transport, for its addresses

	// Owned by the read loop until opened is true, then set.
	peer *peer.Info
	h    TunnelHandler
	head []byte // the beginning of a PROXY header that has not arrived whole

	// Atomic.
	opened atomic.Bool // the owner has accepted, or the dial has succeeded

	// Guarded by mu while a tunnel that we open has no connection yet.
	mu     sync.Mutex
	w      *wire.Conn
	gone   bool
	failed error
}

func (t *tcpTunnel) Peer() *peer.Info              { return t.peer }
func (t *tcpTunnel) Handle(h TunnelHandler)        { t.h = h }
func (t *tcpTunnel) Write(tn *turn.Turn, p []byte) { t.w.Write(tn, p) }
func (t *tcpTunnel) Buffered() int                 { return t.w.Buffered() }
func (t *tcpTunnel) CloseWrite(tn *turn.Turn)      { t.w.CloseWrite(tn) }
func (t *tcpTunnel) Consume(tn *turn.Turn, n int)  { t.w.Consume(tn, n) }

// Abort sends RST, or gives up a dial. After an ordinary end (CodeNoError) it
// closes, for RST would take what the kernel still holds of our last bytes.
func (t *tcpTunnel) Abort(tn *turn.Turn, code uint32) {
	t.mu.Lock()
	w := t.w
	if w == nil && !t.gone && t.failed == nil {
		t.gone = true
		t.failed = ErrLocalAbort
		tn.Notify(t)
	}
	t.mu.Unlock()
	switch {
	case w == nil:
	case code == CodeNoError:
		w.Close(tn)
	default:
		w.Abort(tn, code)
	}
}

// attach gives a dialled tunnel its connection, and reports whether it is
// still wanted.
func (t *tcpTunnel) attach(w *wire.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return false
	}
	t.w = w
	return true
}

func (t *tcpTunnel) fail(tn *turn.Turn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone || t.failed != nil {
		return
	}
	t.failed = err
	tn.Notify(t)
}

// Notified tells of a tunnel that ended before it had a connection.
func (t *tcpTunnel) Notified(tn *turn.Turn) {
	t.mu.Lock()
	err := t.failed
	t.mu.Unlock()
	t.h.Closed(tn, err)
}

// Feed takes what was read: first a PROXY header where one is due, then the
// application's bytes.
func (t *tcpTunnel) Feed(tn *turn.Turn, p []byte) error {
	if t.opened.Load() {
		t.h.Data(tn, p, false)
		return nil
	}
	return t.readHeader(tn, p)
}

func (t *tcpTunnel) readHeader(tn *turn.Turn, p []byte) error {
	whole := p
	if len(t.head) > 0 {
		t.head = append(t.head, p...)
		whole = t.head
	}
	hdr, n, err := t.server.parseProxy(whole)
	switch {
	case err != nil:
		return t.server.badHeader(t.nc, err)
	case n == 0:
		if t.head == nil {
			t.head = append(buf.Get(len(p)), p...)
		}
		t.w.Consume(tn, len(p))
		return nil
	}
	t.w.Consume(tn, len(p)-(len(whole)-n))
	err = t.open(tn, hdr)
	if err == nil && n < len(whole) {
		t.h.Data(tn, whole[n:], false)
	}
	t.dropHead()
	return err
}

func (t *tcpTunnel) dropHead() {
	buf.Put(t.head)
	t.head = nil
}

// open learns from the header who is at the other end, and asks the owner.
func (t *tcpTunnel) open(tn *turn.Turn, hdr proxyproto.Header) error {
	info, err := t.server.proxyPeer(t.nc, hdr)
	if err != nil {
		return t.server.badHeader(t.nc, err)
	}
	t.peer = info
	return t.accept(tn)
}

// accept asks the owner of the server for a handler.
func (t *tcpTunnel) accept(tn *turn.Turn) error {
	h, err := t.server.Accept(tn, t)
	if err != nil && err != ErrLater { // a TCP connection is open before it is answered
		t.server.stats.Refused.Add(1)
		return fmt.Errorf("tunnel to %s: %w", t.peer.Dest(), err)
	}
	t.h = h
	t.opened.Store(true)
	t.server.stats.Tunnels.Add(1)
	return nil
}

func (t *tcpTunnel) Left(tn *turn.Turn) {
	if t.opened.Load() {
		t.h.Left(tn)
	}
}

// Tick ends a connection whose PROXY header does not come.
func (t *tcpTunnel) Tick(tn *turn.Turn) {
	if t.server != nil && !t.opened.Load() {
		t.server.checkHeaderDeadline(tn, t)
	}
}

// EOF passes a FIN on. The writing side stays open: TCP half-closes.
func (t *tcpTunnel) EOF(tn *turn.Turn) bool {
	if !t.opened.Load() {
		if len(t.head) > 0 {
			_ = t.server.badHeader(t.nc, io.ErrUnexpectedEOF)
		}
		return false
	}
	t.h.Data(tn, nil, true)
	return true
}

func (t *tcpTunnel) Closed(tn *turn.Turn, err error) {
	t.dropHead()
	if t.server != nil {
		t.server.gone(t.w)
	}
	if t.opened.Load() {
		t.h.Closed(tn, err)
	}
}

// unmap turns ::ffff:a.b.c.d into a.b.c.d, so that addresses compare.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
