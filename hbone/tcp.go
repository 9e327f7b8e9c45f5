package hbone

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
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
	since  time.Time
	cancel context.CancelFunc // ends the dial of a tunnel that we open

	// Owned by the read loop until opened is true, then set.
	peer *peer.Info
	head []byte // lent: the beginning of a PROXY header that has not arrived whole

	// Atomic.
	h        handled
	opened   atomic.Bool // the owner has accepted, or the dial has succeeded
	answered atomic.Bool // it is known what becomes of an accepted tunnel

	// Guarded by mu while a tunnel that we open has no connection yet.
	mu     sync.Mutex
	w      *wire.Conn
	gone   bool
	failed error
}

func (t *tcpTunnel) Peer() *peer.Info              { return t.peer }
func (t *tcpTunnel) Handle(h TunnelHandler)        { t.h.set(h) }
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
		t.cancel()
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
	t.h.get().Closed(tn, err)
}

// Feed takes what was read: first a PROXY header where one is due, then the
// application's bytes.
func (t *tcpTunnel) Feed(tn *turn.Turn, p []byte) error {
	if t.opened.Load() {
		t.h.get().Data(tn, p, false)
	} else {
		t.readHeader(tn, p)
	}
	return nil
}

func (t *tcpTunnel) readHeader(tn *turn.Turn, p []byte) {
	whole := p
	if len(t.head) > 0 {
		t.head = buf.Append(t.head, p)
		whole = t.head
	}
	hdr, n, err := t.server.parseProxy(whole)
	if err == nil && n == 0 {
		if t.head == nil {
			t.head = buf.Append(nil, p)
		}
		t.w.Consume(tn, len(p))
		return
	}
	var info *peer.Info
	if err == nil {
		info, err = t.server.proxyPeer(t.nc, hdr)
	}
	if err != nil {
		t.server.badHeader(t.nc, err)
		t.w.Abort(tn, CodeProtocol)
		return
	}
	t.peer = info
	t.w.Consume(tn, len(p)-(len(whole)-n))
	if t.accept(tn) && n < len(whole) {
		t.h.get().Data(tn, whole[n:], false)
	}
	t.dropHead()
}

func (t *tcpTunnel) dropHead() {
	buf.Put(t.head)
	t.head = nil
}

// accept asks the owner of the server for a handler. A TCP connection is open
// before that is known, so a refusal can only be an RST.
func (t *tcpTunnel) accept(tn *turn.Turn) bool {
	h, err := t.server.Accept(tn, t)
	if err != nil && err != ErrLater {
		t.Respond(tn, err)
		return false
	}
	t.h.begin(h)
	t.opened.Store(true)
	if err == nil {
		t.Respond(tn, nil)
	}
	return true
}

// servePlain serves a connection of the NONE binding, which is a tunnel at once.
func (t *tcpTunnel) servePlain() {
	t.w.Run(func(tn *turn.Turn) { t.accept(tn) })
	t.w.Serve(t)
}

// Respond notes what becomes of an accepted tunnel.
func (t *tcpTunnel) Respond(tn *turn.Turn, err error) {
	switch {
	case t.server == nil || t.answered.Swap(true):
	case err == nil:
		t.server.stats.Tunnels.Add(1)
	default:
		t.server.stats.Refused.Add(1)
		t.server.fault(t.nc, fmt.Errorf("tunnel to %s: %w", t.peer.Dest(), err))
		t.w.Abort(tn, CodeRefusedStream)
	}
}

func (t *tcpTunnel) Left(tn *turn.Turn) {
	if t.opened.Load() {
		t.h.get().Left(tn)
	}
}

// Tick ends a connection whose PROXY header does not come.
func (t *tcpTunnel) Tick(tn *turn.Turn) {
	if t.server == nil || t.opened.Load() || tn.Now().Sub(t.since) < HeaderTimeout {
		return
	}
	t.server.badHeader(t.nc, fmt.Errorf("not received within %v", HeaderTimeout))
	t.w.Abort(tn, CodeCancel)
}

// EOF passes a FIN on. The writing side stays open: TCP half-closes.
func (t *tcpTunnel) EOF(tn *turn.Turn) bool {
	if !t.opened.Load() {
		if len(t.head) > 0 {
			t.server.badHeader(t.nc, io.ErrUnexpectedEOF)
		}
		return false
	}
	t.h.get().Data(tn, nil, true)
	return true
}

func (t *tcpTunnel) Closed(tn *turn.Turn, err error) {
	t.dropHead()
	if t.server != nil {
		t.server.gone(t.nc)
	}
	if !t.opened.Load() {
		return
	}
	if err == wire.ErrAborted {
		err = ErrLocalAbort
	}
	t.h.get().Closed(tn, err)
}

// unmap turns ::ffff:a.b.c.d into a.b.c.d, so that addresses compare.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
