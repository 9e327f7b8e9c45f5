package hbone

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// relayed is a path of three transports: a TCP connection, a mesh connection,
// a TCP connection; joined by two relays as node tunnels do.
type relayed struct {
	near   *net.TCPConn
	app    *net.TCPListener
	server *testServer
	done   chan error // of the relay at the server
}

func newRelayed(t *testing.T) *relayed {
	t.Helper()
	r := &relayed{app: must(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener), done: make(chan error, 1)}
	t.Cleanup(func() { r.app.Close() })
	var mesh, plain *testPool
	join := func(p **testPool, d func() *Dest, done chan error) func(tn *turn.Turn, tun Tunnel) (TunnelHandler, error) {
		return func(tn *turn.Turn, tun Tunnel) (TunnelHandler, error) {
			f := Forwarding{Open: func(far TunnelHandler) Tunnel { return (*p).Open(tn, d(), far) }}
			if done != nil {
				f.Done = func(err error) { done <- err }
			}
			return Forward(tun, f)
		}
	}
	app := NewPlainDest(netip.MustParseAddrPort(r.app.Addr().String()))
	r.server = newServer(t, func(o *ServerOptions) { o.Accept = join(&plain, func() *Dest { return app }, r.done) })
	plain = newPool(t, nil)
	mesh = newPool(t, r.server.client(curlURI))
	d := dest(r.server.mesh(), wayURI)
	entry := newServer(t, func(o *ServerOptions) { o.Accept = join(&mesh, func() *Dest { return d }, nil) })
	r.near = dialTunnel(t, entry.listen("127.0.0.1:0", entry.ServePlain))
	r.near.SetDeadline(time.Now().Add(time.Minute))
	return r
}

func (r *relayed) accept(t *testing.T) *net.TCPConn {
	t.Helper()
	r.app.SetDeadline(time.Now().Add(patience))
	nc, err := r.app.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	return nc.(*net.TCPConn)
}

func (r *relayed) wantDone(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("the relay is not done")
		return nil
	}
}

// pump sends n random bytes and the end, and returns their hash.
func pump(to *net.TCPConn, n int) <-chan []byte {
	out := make(chan []byte, 1)
	go func() {
		r := io.LimitReader(rand.NewChaCha8([32]byte{1}), int64(n))
		h := sha256.New()
		_, _ = io.Copy(io.MultiWriter(onlyWriter{to}, h), r)
		to.CloseWrite()
		out <- h.Sum(nil)
	}()
	return out
}

// onlyWriter hides ReadFrom, which would hide the hash.
type onlyWriter struct{ io.Writer }

// TestRelayBytes: 64 MiB each way at once, unchanged.
func TestRelayBytes(t *testing.T) {
	const size = 64 << 20
	r := newRelayed(t)
	up := pump(r.near, size)
	app := r.accept(t)
	down := pump(app, size)
	sum := func(from net.Conn) <-chan []byte {
		out := make(chan []byte, 1)
		go func() {
			h := sha256.New()
			if n, err := io.Copy(h, from); n != size || err != nil {
				t.Errorf("got %d bytes, %v", n, err)
			}
			out <- h.Sum(nil)
		}()
		return out
	}
	gotUp, gotDown := sum(app), sum(r.near)
	if !bytes.Equal(<-up, <-gotUp) || !bytes.Equal(<-down, <-gotDown) {
		t.Error("the bytes have changed")
	}
	if err := r.wantDone(t); err != nil {
		t.Errorf("the relay ended with %v", err)
	}
}

// TestRelaySlowReader: what a reader does not take stays with the sender; the
// whole path holds no more than its windows.
func TestRelaySlowReader(t *testing.T) {
	const size = 64 << 20
	r := newRelayed(t)
	sent := pump(r.near, size)
	app := r.accept(t)
	app.SetReadBuffer(128 << 10) // one below loopback's segments has the kernel send by a timer
	var before, m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	lent := buf.Outstanding()
	h := sha256.New()
	var most uint64
	for i := range 64 { // the sender is far ahead of the first of these
		if _, err := io.CopyN(h, app, 64<<10); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse-min(before.HeapInuse, m.HeapInuse))
		if n := buf.Outstanding() - lent; n > 100 {
			t.Fatalf("%d buffers are lent after %d pieces", n, i)
		}
	}
	if most > 4<<20 {
		t.Errorf("the heap grew by %d bytes", most)
	}
	t.Logf("heap +%d KiB at most", most>>10)
	n, err := io.Copy(h, app)
	if err != nil || n != size-64*64<<10 {
		t.Errorf("then %d bytes, %v", n, err)
	}
	app.Close()
	if !bytes.Equal(h.Sum(nil), <-sent) {
		t.Error("the bytes have changed")
	}
}

// TestRelayHalfClose: an end passes, and the other direction goes on.
func TestRelayHalfClose(t *testing.T) {
	r := newRelayed(t)
	io.WriteString(r.near, "question")
	r.near.CloseWrite()
	app := r.accept(t)
	if got, err := io.ReadAll(app); string(got) != "question" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	io.WriteString(app, "answer")
	app.CloseWrite()
	if got, err := io.ReadAll(r.near); string(got) != "answer" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := r.wantDone(t); err != nil {
		t.Errorf("the relay ended with %v", err)
	}
}

// TestRelayReset: half a stream never passes for the whole.
func TestRelayReset(t *testing.T) {
	r := newRelayed(t)
	app := r.accept(t)
	io.WriteString(app, "half")
	b := make([]byte, 4)
	if _, err := io.ReadFull(r.near, b); err != nil {
		t.Fatal(err)
	}
	app.SetLinger(0)
	app.Close()
	wantReset(t, r.near)
	if err := r.wantDone(t); err == nil {
		t.Error("the relay ended in order")
	}
	r = newRelayed(t)
	app = r.accept(t)
	io.WriteString(r.near, "half") // and so the path is open: a dial that is given up ends as it likes
	if _, err := io.ReadFull(app, b); err != nil {
		t.Fatal(err)
	}
	r.near.SetLinger(0)
	r.near.Close()
	wantReset(t, app)
}

// TestRelayRefused: the far end cannot be reached. A CONNECT is answered with
// 503, a TCP connection reset, and the relay is done.
func TestRelayRefused(t *testing.T) {
	r := newRelayed(t)
	r.accept(t)
	r.app.Close()
	tc := dialMesh(t, r.server.mesh(), r.server.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 503, true)
	if err := r.wantDone(t); err == nil {
		t.Error("the relay ended in order")
	}
}

// An ownedRelay is a relay and what it told its owner.
type ownedRelay struct {
	turn.Lane
	Relay
	opened []error
	done   int
	peeked []string
}

func (o *ownedRelay) FarOpened(_ *turn.Turn, err error) { o.opened = append(o.opened, err) }
func (o *ownedRelay) RelayDone(*turn.Turn)              { o.done++ }
func (o *ownedRelay) Peek(_ *turn.Turn, fromFar bool, p []byte, end bool) {
	o.peeked = append(o.peeked, fmt.Sprintf("%v %s %v", fromFar, p, end))
}

// A fakeTunnel remembers what is done to it.
type fakeTunnel struct {
	Tunnel
	wrote    bytes.Buffer
	buffered int
	consumed int
	ended    bool
	aborted  uint32
	h        TunnelHandler
}

func (f *fakeTunnel) Peer() *peer.Info                { return &peer.Info{} }
func (f *fakeTunnel) Write(_ *turn.Turn, p []byte)    { f.wrote.Write(p) }
func (f *fakeTunnel) Buffered() int                   { return f.buffered }
func (f *fakeTunnel) Consume(_ *turn.Turn, n int)     { f.consumed += n }
func (f *fakeTunnel) CloseWrite(*turn.Turn)           { f.ended = true }
func (f *fakeTunnel) Abort(_ *turn.Turn, code uint32) { f.aborted = code }
func (f *fakeTunnel) Handle(h TunnelHandler)          { f.h = h }

// TestRelayCredit: credit returns for what the other side does not hold, and
// what comes before it is open is kept.
func TestRelayCredit(t *testing.T) {
	near, far := &fakeTunnel{}, &fakeTunnel{}
	var tn turn.Turn
	var o ownedRelay
	r := &o.Relay
	r.Init(&o.Lane, near, &o)
	nh, fh := r.Near(), r.Far()
	r.Join(far)
	r.Hold([]byte("head "))
	nh.Data(&tn, []byte("early"), true)
	if near.consumed != 0 || far.wrote.Len() != 0 {
		t.Errorf("before it is open: consumed %d, wrote %q", near.consumed, far.wrote.String())
	}
	fh.Opened(&tn)
	if far.wrote.String() != "head early" || !far.ended || near.consumed != 5 {
		t.Errorf("got %q, ended %v, consumed %d", far.wrote.String(), far.ended, near.consumed)
	}
	near.buffered = 7
	fh.Data(&tn, make([]byte, 10), false)
	if far.consumed != 3 {
		t.Errorf("consumed %d, want the 3 that have left", far.consumed)
	}
	near.buffered = 0
	nh.Left(&tn)
	if far.consumed != 10 {
		t.Errorf("consumed %d, want 10", far.consumed)
	}
	fh.Closed(&tn, &ResetError{CodeCancel})
	if near.aborted != CodeConnect {
		t.Errorf("near was aborted with %d", near.aborted)
	}
	nh.Closed(&tn, ErrLocalAbort)
	if n, f := r.Bytes(); o.done != 1 || n != 5 || f != 10 {
		t.Errorf("done %d times, %d and %d bytes", o.done, n, f)
	}
}

// TestRelayGate: what comes is held and looked at; then it goes on, or to
// somebody else with the tunnel.
func TestRelayGate(t *testing.T) {
	for _, let := range []bool{false, true} {
		near, far := &fakeTunnel{}, &fakeTunnel{}
		var tn turn.Turn
		var o, next ownedRelay
		r := &o.Relay
		r.Init(&o.Lane, near, &o)
		r.Gate(&o)
		r.Join(far)
		r.Near().Data(&tn, []byte("ab"), false)
		r.Far().Opened(&tn)
		r.Near().Data(&tn, []byte("c"), true)
		r.Far().Data(&tn, []byte("xyz"), false)
		if got := fmt.Sprint(o.peeked); got != "[false ab false false c true true xyz false]" {
			t.Errorf("peeked %s", got)
		}
		if near.consumed+far.consumed+near.wrote.Len()+far.wrote.Len() != 0 || far.ended {
			t.Error("the gate is open")
		}
		if !let {
			r.Open(&tn)
			if near.wrote.String() != "xyz" || far.wrote.String() != "abc" || !far.ended || near.consumed != 3 || far.consumed != 3 {
				t.Errorf("wrote %q and %q, ended %v, consumed %d and %d", near.wrote.String(), far.wrote.String(), far.ended, near.consumed, far.consumed)
			}
			continue
		}
		next.Relay.Init(&next.Lane, near, &next)
		third := &fakeTunnel{}
		next.Relay.JoinOpen(&tn, r.LetNear(next.Relay.Near()), Detached{Tunnel: third})
		if third.wrote.String() != "abc" || !third.ended || near.h != next.Relay.Near() {
			t.Errorf("handed over %q, ended %v", third.wrote.String(), third.ended)
		}
		stale := r.Near() // an event that was on its way
		stale.Left(&tn)
		stale.Closed(&tn, ErrLocalAbort)
		if third.aborted != CodeConnect {
			t.Error("a stale event was lost")
		}
		d := r.LetFar(&ownHandler{})
		if string(d.Held) != "xyz" || d.Ended {
			t.Errorf("handed over %q, ended %v", d.Held, d.Ended)
		}
		buf.Put(d.Held)
	}
}

// An ownHandler handles a tunnel that a relay let go of.
type ownHandler struct{ deaf }

// TestRelayAgain: a far tunnel that cannot be opened makes room for another.
func TestRelayAgain(t *testing.T) {
	near, first, second := &fakeTunnel{}, &fakeTunnel{}, &fakeTunnel{}
	var tn turn.Turn
	var o ownedRelay
	r := &o.Relay
	r.Init(&o.Lane, near, &o)
	r.Join(first)
	r.Near().Data(&tn, []byte("early"), false)
	broken := errors.New("no way")
	r.Far().Closed(&tn, broken)
	if len(o.opened) != 1 || o.opened[0] != broken || r.FarJoined() || near.aborted != 0 {
		t.Fatalf("told %v, joined %v", o.opened, r.FarJoined())
	}
	r.Join(second)
	r.Far().Opened(&tn)
	if second.wrote.String() != "early" || near.consumed != 5 || !r.FarOpen() {
		t.Errorf("wrote %q, consumed %d", second.wrote.String(), near.consumed)
	}
	r.Near().Closed(&tn, &ResetError{CodeCancel})
	r.Far().Closed(&tn, ErrLocalAbort)
	if n, f := r.Errs(); o.done != 1 || n == nil || f != ErrLocalAbort || second.aborted != CodeConnect {
		t.Errorf("done %d times, %v and %v", o.done, n, f)
	}
}
