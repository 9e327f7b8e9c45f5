package hbone

import (
	"bytes"
	"crypto/sha256"
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
			rl, near, far := NewRelay(tun, func(tn *turn.Turn, err error) {
				if err != nil {
					err = &Refusal{503, err.Error()}
				}
				Answer(tn, tun, err)
			})
			rl.Lock()
			defer rl.Unlock()
			if done != nil {
				rl.Done = func(err error) { done <- err }
			}
			rl.Join((*p).Open(tn, d(), far))
			return near, ErrLater
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
	app.SetReadBuffer(16 << 10)
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

// A fakeTunnel remembers what is done to it.
type fakeTunnel struct {
	Tunnel
	wrote    bytes.Buffer
	buffered int
	consumed int
	ended    bool
	aborted  uint32
}

func (f *fakeTunnel) Peer() *peer.Info                { return &peer.Info{} }
func (f *fakeTunnel) Write(_ *turn.Turn, p []byte)    { f.wrote.Write(p) }
func (f *fakeTunnel) Buffered() int                   { return f.buffered }
func (f *fakeTunnel) Consume(_ *turn.Turn, n int)     { f.consumed += n }
func (f *fakeTunnel) CloseWrite(*turn.Turn)           { f.ended = true }
func (f *fakeTunnel) Abort(_ *turn.Turn, code uint32) { f.aborted = code }

// TestRelayCredit: credit returns for what the other side does not hold, and
// what comes before it is open is kept.
func TestRelayCredit(t *testing.T) {
	near, far := &fakeTunnel{}, &fakeTunnel{}
	var tn turn.Turn
	r, nh, fh := NewRelay(near, nil)
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
	if near.aborted != CodeCancel {
		t.Errorf("near was aborted with %d", near.aborted)
	}
}
