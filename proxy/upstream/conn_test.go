package upstream

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

// TestCalls: one connection serves call after call.
func TestCalls(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		if x.ask(r.e) {
			t.Fatal("there is an unused connection")
		}
		c := a.accept()
		x.want("ready")
		r.wantCounts(t, 1, 0)
		c.wantHead()
		x.do(func(*turn.Turn) {
			if x.call.Reused() || x.call.Endpoint() != r.e || x.call.Progress() != filters.SentHead {
				t.Errorf("reused %v, progress %v", x.call.Reused(), x.call.Progress())
			}
		})
		c.say("HTTP/1.1 103 Early Hints\r\n\r\n" + hello)
		x.want("informational 103", "head 200", "body hello", "end")
		for range 3 {
			r.wantCounts(t, 0, 1)
			if !x.ask(r.e) {
				t.Fatal("the unused connection was not taken")
			}
			x.do(func(*turn.Turn) {
				if !x.call.Reused() {
					t.Error("it passes for a new one")
				}
			})
			x.want("ready")
			r.wantCounts(t, 1, 0)
			c.wantHead()
			c.say("HTTP/1.1 204 No Content\r\n\r\n")
			x.want("head 204", "end")
		}
		r.wantCounts(t, 0, 1)
		r.b.Close()
		r.wantCounts(t, 0, 0)
	})
}

// TestNotKept: connections that cannot serve again end in order, behind the
// whole response.
func TestNotKept(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		for _, response := range []string{
			"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
			"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
			hello + "and what nobody asked for",
		} {
			x := newCaller(t)
			x.ask(r.e)
			c := a.accept()
			x.want("ready")
			c.wantHead()
			c.say(response)
			x.want("head 200", "body hello", "end")
			c.wantEnd(true)
			c.CloseWrite()
			r.wantCounts(t, 0, 0)
			eventually(t, "the connection is forgotten", func() bool { return r.e.lingering() == 0 })
		}
		x := newCaller(t) // a body that only the end ends
		x.ask(r.e)
		c := a.accept()
		x.want("ready")
		c.wantHead()
		c.say("HTTP/1.1 200 OK\r\n\r\nhello")
		x.want("head 200", "body hello")
		c.CloseWrite()
		x.want("end")
		c.wantEnd(true)
		r.wantCounts(t, 0, 0)
	})
}

// lingering says how many connections wait for the far end to close.
func (e *Endpoint) lingering() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.ends)
}

// TestLinger: a far end that does not close its side is cut by the sweep, and
// not before its time.
func TestLinger(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		x.ask(r.e)
		c := a.accept()
		x.want("ready")
		c.wantHead()
		c.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		x.want("head 200", "end")
		c.wantEnd(true)
		now := turn.TickOf(time.Now())
		x.do(func(tn *turn.Turn) { r.e.sweep(tn, now.Add(-IdleTimeout), now.Add(-lingerTime)) })
		c.say("still talking")
		if n := r.e.lingering(); n != 1 {
			t.Fatalf("%d connections linger, want 1", n)
		}
		x.do(func(tn *turn.Turn) { r.e.sweep(tn, now, now.Add(2*time.Second)) })
		if n := r.e.lingering(); n != 0 {
			t.Errorf("%d connections linger behind the sweep", n)
		}
		eventually(t, "the application hears of it", func() bool {
			_, err := io.WriteString(c.TCPConn, "x")
			return err != nil
		})
	})
}

// TestSweep: what was unused for too long ends, the rest stays.
func TestSweep(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		var apps []*appConn
		var xs []*caller
		for range 2 {
			x := newCaller(t)
			x.ask(r.e)
			apps, xs = append(apps, a.accept()), append(xs, x)
			x.want("ready")
		}
		for i, c := range apps {
			c.wantHead()
			c.say(hello)
			xs[i].want("head 200", "body hello", "end")
			r.wantCounts(t, 1-i, i+1)
		}
		r.e.rest.Lock()
		r.e.idle[0].idleSince = r.e.idle[0].idleSince.Add(-61 * time.Second)
		r.e.rest.Unlock()
		xs[0].do(r.e.Sweep)
		r.wantCounts(t, 0, 1)
		apps[0].wantEnd(true)
		apps[0].Close()
		eventually(t, "it is forgotten", func() bool { return r.e.lingering() == 0 })
		if !xs[1].ask(r.e) {
			t.Error("the one in time has gone too")
		}
		apps[1].wantHead()
	})
}

// TestLeave: when the endpoint leaves, unused connections end, and the call
// under way finishes on its own.
func TestLeave(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		busy, x := newCaller(t), newCaller(t)
		busy.ask(r.e)
		c1 := a.accept()
		busy.want("ready")
		x.ask(r.e)
		c2 := a.accept()
		x.want("ready")
		c2.wantHead()
		c2.say(hello)
		x.want("head 200", "body hello", "end")
		r.wantCounts(t, 1, 1)
		r.b.SetEndpoints(nil)
		r.wantCounts(t, 1, 0)
		c2.r.ReadByte()
		c1.wantHead()
		c1.say(hello)
		busy.want("head 200", "body hello", "end")
		r.wantCounts(t, 0, 0)
		c1.r.ReadByte()
		if n := r.e.lingering(); n != 0 {
			t.Errorf("%d connections linger on an endpoint that nobody sweeps", n)
		}
	})
}

// TestFaults: what becomes of each way in which a call can fail.
func TestFaults(t *testing.T) {
	for _, row := range []struct {
		name   string
		reuse  bool
		answer func(c *appConn)
		events []string
		kind   fault.Kind
	}{
		{"closed before the response", false, func(c *appConn) { c.Close() }, nil, fault.UpstreamClosed},
		{"reset before the response", false, func(c *appConn) { c.SetLinger(0); c.Close() }, nil, fault.UpstreamReset},
		{"stale, closed", true, func(c *appConn) { c.Close() }, nil, fault.StaleConnection},
		{"stale, reset", true, func(c *appConn) { c.SetLinger(0); c.Close() }, nil, fault.StaleConnection},
		{"closed in the head", false, func(c *appConn) { c.say("HTTP/1.1 200 O"); c.Close() }, nil, fault.UpstreamClosedMidResponse},
		{"closed in the head, reused", true, func(c *appConn) { c.say("HTTP/1.1 200 O"); c.Close() }, nil, fault.UpstreamClosedMidResponse},
		{"closed in the body", false, func(c *appConn) { c.say(hello[:len(hello)-1]); c.Close() }, []string{"head 200", "body hell"}, fault.UpstreamClosedMidResponse},
		{"closed in a chunked body", false, func(c *appConn) {
			c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			c.Close()
		}, []string{"head 200", "body hello"}, fault.UpstreamClosedMidResponse},
		{"no HTTP", false, func(c *appConn) { c.say("220 smtp.example\r\n") }, nil, fault.UpstreamProtocol},
		{"malformed head", true, func(c *appConn) { c.say("HTTP/1.1 200 OK\r\nA : b\r\n\r\n") }, nil, fault.UpstreamProtocol},
		{"malformed chunk", false, func(c *appConn) {
			c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
		}, []string{"head 200"}, fault.UpstreamProtocol},
	} {
		t.Run(row.name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig, a *app) {
				x := newCaller(t)
				x.ask(r.e)
				c := a.accept()
				x.want("ready")
				c.wantHead()
				if row.reuse {
					c.say(hello)
					x.want("head 200", "body hello", "end")
					r.wantCounts(t, 0, 1)
					if !x.ask(r.e) {
						t.Fatal("not reused")
					}
					x.want("ready")
					c.wantHead()
				}
				row.answer(c)
				x.want(row.events...)
				x.wantFault(row.kind, a.addr().String())
				r.wantCounts(t, 0, 0)
			})
		})
	}
}

// TestCannotOpen: why there is no connection.
func TestCannotOpen(t *testing.T) {
	down := newApp(t)
	down.l.Close()
	x := newCaller(t)
	r := plainRig(t, down.addr())
	x.ask(r.e)
	x.wantFault(fault.ConnectFailed, down.addr().String())
	r.wantCounts(t, 0, 0)

	r, _ = meshRig(t, down.addr(), podURI)
	x.ask(r.e)
	x.wantFault(fault.ConnectRefused, "503")

	r, _ = meshRig(t, down.addr(), wayURI)
	x.ask(r.e)
	x.wantFault(fault.IdentityMismatch, wayURI, podURI)

	r, s := meshRig(t, down.addr(), podURI)
	s.Certificates.Set(certs(must(devca.New("other")), podURI).Current())
	x.ask(r.e)
	x.wantFault(fault.TLSFailed)
	r.pool.Close()
	x.ask(r.e)
	x.wantFault(fault.ConnectFailed)
	r.wantCounts(t, 0, 0)
}

// TestClassify: every branch, by the error and how far the call had come.
func TestClassify(t *testing.T) {
	lost := errors.New("mesh connection lost")
	opened := func(reused, started bool) *conn { return &conn{state: serving, reused: reused, started: started} }
	for _, row := range []struct {
		name string
		err  error
		c    *conn
		want fault.Kind
	}{
		{"dial", &hbone.DialError{Err: lost}, new(conn), fault.ConnectFailed},
		{"dial timeout", &hbone.DialError{Timeout: true, Err: lost}, new(conn), fault.ConnectTimeout},
		{"TLS", &hbone.HandshakeError{Err: lost}, new(conn), fault.TLSFailed},
		{"identity", &hbone.HandshakeError{Err: &hbone.TLSError{Reason: hbone.TLSWrongIdentity, Err: lost}}, new(conn), fault.IdentityMismatch},
		{"CONNECT 503", &hbone.Refusal{Status: 503}, new(conn), fault.ConnectRefused},
		{"CONNECT 401", &hbone.Refusal{Status: 401}, new(conn), fault.ConnectDenied},
		{"CONNECT 400", &hbone.Refusal{Status: 400}, new(conn), fault.ConnectDenied},
		{"CONNECT reset", &hbone.ResetError{Code: hbone.CodeInternal}, new(conn), fault.ConnectFailed},
		{"CONNECT refused as a stream", &hbone.UnprocessedError{Err: lost}, new(conn), fault.RefusedStream},
		{"CONNECT beyond GOAWAY", &hbone.UnprocessedError{GoneAway: true, Err: lost}, new(conn), fault.GoneAway},
		{"lost while opening", lost, new(conn), fault.ConnectFailed},
		{"pool closed", hbone.ErrClosed, new(conn), fault.ConnectFailed},
		{"lost", lost, opened(false, false), fault.UpstreamClosed},
		{"ended", nil, opened(false, false), fault.UpstreamClosed},
		{"lost, stale", lost, opened(true, false), fault.StaleConnection},
		{"lost in the response", lost, opened(true, true), fault.UpstreamClosedMidResponse},
		{"reset", &hbone.ResetError{Code: hbone.CodeCancel}, opened(false, false), fault.UpstreamReset},
		{"reset, stale", &hbone.ResetError{Code: hbone.CodeCancel}, opened(true, false), fault.StaleConnection},
		{"reset in the response", &hbone.ResetError{Code: hbone.CodeCancel}, opened(true, true), fault.UpstreamResetMidResponse},
		{"RST", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, opened(false, false), fault.UpstreamReset},
	} {
		row.c.ep = &Endpoint{key: endpointKey{addr: addr(1)}}
		if got := row.c.classify(row.err); got.Kind != row.want || got.Side != fault.Upstream {
			t.Errorf("%s: got %v of %v, want %v", row.name, got.Kind, got.Side, row.want)
		}
	}
}

// TestEarlyResponse: a response before the request's end counts; the upload is
// stopped, and the connection serves nobody else.
func TestEarlyResponse(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		x.post = true
		x.ask(r.e)
		c := a.accept()
		x.want("ready")
		c.wantHead()
		c.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		x.want("head 403", "end")
		r.wantCounts(t, 0, 0)
		c.r.ReadByte()
		x.post = false
		if x.ask(r.e) {
			t.Error("the connection was kept")
		}
	})
	each(t, func(t *testing.T, r *rig, a *app) { // control: the request had ended
		x := newCaller(t)
		x.post = true
		x.ask(r.e)
		c := a.accept()
		x.want("ready")
		c.wantHead()
		x.do(func(tn *turn.Turn) {
			if err := x.call.WriteChunk(tn, &message.Chunk{Data: []byte("0123456789"), End: true}); err != nil {
				t.Error(err)
			}
			if x.call.Progress() != filters.SentBody {
				t.Errorf("progress is %v", x.call.Progress())
			}
		})
		c.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		x.want("head 403", "end")
		r.wantCounts(t, 0, 1)
	})
}

// TestSpoiled: bytes or an end on an unused connection take it out.
func TestSpoiled(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(c *appConn)
	}{
		{"closed", func(c *appConn) { c.CloseWrite(); c.wantEnd(true) }},
		{"reset", func(c *appConn) { c.SetLinger(0); c.Close() }},
		{"spoke", func(c *appConn) { c.say("HTTP/1.1 408 Request Timeout\r\n\r\n") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig, a *app) {
				x := newCaller(t)
				x.ask(r.e)
				c := a.accept()
				x.want("ready")
				c.wantHead()
				c.say(hello)
				x.want("head 200", "body hello", "end")
				r.wantCounts(t, 0, 1)
				row.end(c)
				r.wantCounts(t, 0, 0)
				eventually(t, "it is forgotten", func() bool { return r.e.lingering() == 0 })
				if x.ask(r.e) {
					t.Error("it was taken for the next call")
				}
				a.accept().wantHead()
				x.want("ready")
			})
		})
	}
}

// TestCancel: before it is open the connection is kept for the next call; in
// the middle of a message it is cut; inside an event too.
func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		x.ask(r.e)
		x.do(func(tn *turn.Turn) { x.call.Cancel(tn) })
		c := a.accept()
		r.wantCounts(t, 0, 1)
		if !x.ask(r.e) {
			t.Fatal("the connection was not kept")
		}
		x.want("ready")
		c.wantHead()
		x.do(func(tn *turn.Turn) { x.call.Cancel(tn) })
		r.wantCounts(t, 0, 0)
		c.r.ReadByte()

		x.onHead = func(tn *turn.Turn) { x.call.Cancel(tn) }
		x.ask(r.e)
		c = a.accept()
		x.want("ready")
		c.wantHead()
		c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n")
		x.want("head 200")
		r.wantCounts(t, 0, 0)
		x.do(func(*turn.Turn) {
			if x.resp.Trailer.Len() != 0 {
				t.Error("the trailer was read into a message that had been given back")
			}
		})
		select {
		case e := <-x.events:
			t.Errorf("%q behind Cancel", e)
		default:
		}
	})
}

// TestDrainingNode: a node tunnel that says GOAWAY is left as soon as the call
// under way is over, and unused connections on it are passed over.
func TestDrainingNode(t *testing.T) {
	a := newApp(t)
	r, s := meshRig(t, a.addr(), podURI)
	x, unused := newCaller(t), newCaller(t)
	for _, y := range []*caller{x, unused} {
		y.ask(r.e)
	}
	c1, c2 := a.accept(), a.accept()
	x.want("ready")
	unused.want("ready")
	c1.wantHead()
	c2.wantHead()
	c2.say(hello)
	other := x
	if len(unused.events) == 0 { // connections are accepted in any order
		eventually(t, "one response", func() bool { return len(x.events)+len(unused.events) >= 3 })
	}
	if len(x.events) > 0 {
		x, other = unused, x
	} else {
		other = unused
	}
	other.want("head 200", "body hello", "end")
	r.wantCounts(t, 1, 1)
	s.Drain()
	eventually(t, "GOAWAY arrives", func() bool {
		e := r.e
		e.rest.Lock()
		defer e.rest.Unlock()
		return len(e.idle) == 1 && hbone.Draining(e.idle[0].tun)
	})
	c1.say(hello)
	x.want("head 200", "body hello", "end")
	c1.wantEnd(true)
	r.wantCounts(t, 0, 1)
	eventually(t, "the listener closes", func() bool { // a node lets in what waits in its queue
		nc, err := net.Dial("tcp", r.node)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	if other.ask(r.e) {
		t.Error("the unused connection was taken")
	}
	other.wantFault(fault.ConnectFailed) // nobody listens there any more
	c2.wantEnd(true)
	c1.Close()
	c2.Close()
	eventually(t, "the mesh connection ends", func() bool { return s.Stats().Conns.Load() == 0 && r.pool.Stats().Conns.Load() == 0 })
}

// TestHammer: many calls at once while the application closes, resets and talks
// out of turn, callers cancel, and sweeps come by. Each call hears one end, and
// nothing is left.
func TestHammer(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		served := hammered(a.l, func() int { return rand.IntN(12) })
		const callers, calls = 8, 120
		var wg, sweeps sync.WaitGroup
		var whole, failed, reused atomic.Int64
		stop := make(chan struct{})
		sweeps.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				var tn turn.Turn
				later := tn.Tick().Add(time.Duration(n%5) * time.Second) // now and then all are too old
				r.e.sweep(&tn, later, later)
				tn.End()
			}
		})
		for range callers {
			wg.Go(func() {
				x := newCaller(t)
				for range calls {
					x.hammer(r.e, &whole, &failed, &reused)
				}
			})
		}
		wg.Wait()
		close(stop)
		sweeps.Wait()
		t.Logf("%d whole, %d failed, %d on used connections", whole.Load(), failed.Load(), reused.Load())
		if whole.Load() == 0 || failed.Load() == 0 || reused.Load() == 0 {
			t.Error("the hammer did not hit")
		}
		r.b.Close()
		r.wantCounts(t, 0, 0)
		a.l.Close()
		served.Wait()
	})
}

// hammer makes one call and sees to it that it ends as it should.
func (x *caller) hammer(e *Endpoint, whole, failed, reused *atomic.Int64) {
	cancel := rand.IntN(8)
	if x.ask(e) {
		reused.Add(1)
	}
	if cancel == 0 {
		gone := false
		x.do(func(tn *turn.Turn) {
			if gone = !x.over; gone {
				x.call.Cancel(tn)
			}
		})
		if gone {
			for len(x.events) > 0 {
				<-x.events
			}
			return
		}
	}
	body, stray := "", false
	for {
		switch event := x.next(); event {
		case "ready", "head 200":
		case "head 408": // said out of turn, and too late to tell
			stray = true
		case "end":
			if body != "hello" && !stray {
				x.t.Errorf("a response with %q ended", body)
			}
			whole.Add(1)
			return
		case "failed":
			failed.Add(1)
			return
		default:
			body += event[len("body "):]
		}
	}
}

// A relayed is a relay's owner and near end, for tunnels that no call is made on.
type relayed struct {
	turn.Lane
	hbone.Relay
	opened chan error
	done   chan struct{}
}

func newRelayed() *relayed {
	r := &relayed{opened: make(chan error, 1), done: make(chan struct{}, 1)}
	r.Init(&r.Lane, nearEnd{}, r)
	return r
}

func (r *relayed) FarOpened(_ *turn.Turn, err error)             { r.opened <- err }
func (r *relayed) RelayDone(*turn.Turn)                          { r.done <- struct{}{} }
func (r *relayed) Peek(_ *turn.Turn, _ bool, _ []byte, end bool) {}

// A nearEnd takes everything.
type nearEnd struct{ sinkTunnel }

// dial opens a tunnel for r, and waits if it is to be open.
func (r *relayed) dial(t *testing.T, e *Endpoint, wait bool) {
	t.Helper()
	var tn turn.Turn
	r.Lock()
	r.Gate(r)
	r.Join(e.Dial(&tn, r.Far()))
	r.Unlock()
	tn.End()
	if wait {
		if err := <-r.opened; err != nil {
			t.Fatal(err)
		}
	}
}

func (r *relayed) adopt(e *Endpoint) {
	var tn turn.Turn
	r.Lock()
	e.Adopt(&tn, &r.Relay)
	r.Unlock()
	tn.End()
}

// TestAdopt: a tunnel that was dialled for bytes serves the first call, if it is
// open and if it is still being opened; one that was spoken on, or that is one
// too many, ends.
func TestAdopt(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		for _, open := range []bool{true, false} {
			d := newRelayed()
			d.dial(t, r.e, open)
			if n := r.e.Active(); n != 1 {
				t.Errorf("%d in use", n)
			}
			d.adopt(r.e)
			x := newCaller(t)
			if ready := x.ask(r.e); open && !ready {
				t.Error("the open one was not taken")
			}
			c := a.accept()
			x.want("ready")
			c.wantHead()
			c.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
			x.want("head 200", "body hello", "end")
			c.wantEnd(true)
			c.Close()
			r.wantCounts(t, 0, 0)
		}
	})
	each(t, func(t *testing.T, r *rig, a *app) {
		first, second := newRelayed(), newRelayed()
		first.dial(t, r.e, true)
		second.dial(t, r.e, true)
		one, two := a.accept(), a.accept()
		first.adopt(r.e)
		r.wantCounts(t, 1, 1)
		second.adopt(r.e)
		r.wantCounts(t, 0, 1)
		ended := make(chan error, 2)
		for _, c := range []*appConn{one, two} {
			go func() { _, err := c.r.ReadByte(); ended <- err }()
		}
		if err := <-ended; err == nil {
			t.Error("the second was kept")
		}
	})
	each(t, func(t *testing.T, r *rig, a *app) {
		d := newRelayed()
		d.dial(t, r.e, true)
		c := a.accept()
		c.say("220 hello\r\n")
		eventually(t, "the greeting to come", func() bool {
			d.Lock()
			defer d.Unlock()
			_, far := d.Bytes()
			return far > 0
		})
		d.adopt(r.e)
		r.wantCounts(t, 0, 0)
		if _, err := c.r.ReadByte(); err == nil {
			t.Error("one that was spoken on was kept")
		}
	})
}

// TestAdoptWithoutAnswer: one that is given up before it opens, or never opens,
// leaves nothing behind.
func TestAdoptWithoutAnswer(t *testing.T) {
	down := newApp(t)
	down.l.Close()
	r := plainRig(t, down.addr())
	d := newRelayed()
	d.dial(t, r.e, false)
	d.adopt(r.e)
	eventually(t, "it is forgotten", func() bool {
		r.e.mu.Lock()
		defer r.e.mu.Unlock()
		return len(r.e.born) == 0
	})
	r.wantCounts(t, 0, 0)
	if f := r.e.OpenFault(&hbone.Refusal{Status: 503}); f.Kind != fault.ConnectRefused {
		t.Errorf("got %v", f)
	}
	if f := r.e.OpenFault(&hbone.UnprocessedError{GoneAway: true}); f.Kind != fault.GoneAway {
		t.Errorf("got %v", f)
	}
	if f := r.e.CloseFault(&hbone.ResetError{}); f.Kind != fault.UpstreamResetMidResponse {
		t.Errorf("got %v", f)
	}
	if f := r.e.CloseFault(errors.New("lost")); f.Kind != fault.UpstreamClosedMidResponse {
		t.Errorf("got %v", f)
	}
}
