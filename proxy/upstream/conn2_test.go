package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An app2 is one HTTP/2 connection of an application, played by hand.
type app2 struct {
	t  *testing.T
	nc *net.TCPConn
	fr *http2.Framer
	hb bytes.Buffer
	he *hpack.Encoder
}

// accept2 takes a connection and greets.
func (a *app) accept2(settings ...http2.Setting) *app2 {
	a.t.Helper()
	c := a.accept()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.r, preface); err != nil || string(preface) != http2.ClientPreface {
		a.t.Fatalf("preface %q, %v", preface, err)
	}
	k := newApp2(c.TCPConn, c.r)
	k.t = a.t
	k.fr.WriteSettings(settings...)
	return k
}

func newApp2(nc *net.TCPConn, r io.Reader) *app2 {
	k := &app2{nc: nc, fr: http2.NewFramer(nc, r)}
	k.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	k.he = hpack.NewEncoder(&k.hb)
	return k
}

// next returns the next frame of interest: "head 1 end", "data 1 …", "reset 1 …",
// "goaway", or "closed".
func (k *app2) next() string {
	for {
		f, err := k.fr.ReadFrame()
		if err != nil {
			return "closed"
		}
		end := ""
		if f.Header().Flags&http2.FlagDataEndStream != 0 {
			end = " end"
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				k.fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				k.fr.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			return fmt.Sprintf("head %d%s", f.StreamID, end)
		case *http2.DataFrame:
			return fmt.Sprintf("data %d %q%s", f.StreamID, f.Data(), end)
		case *http2.RSTStreamFrame:
			return fmt.Sprintf("reset %d %v", f.StreamID, f.ErrCode)
		case *http2.GoAwayFrame:
			return "goaway"
		}
	}
}

func (k *app2) want(frames ...string) {
	k.t.Helper()
	for _, want := range frames {
		if got := k.next(); got != want {
			k.t.Fatalf("the application got %q, want %q", got, want)
		}
	}
}

func (k *app2) head(id uint32, end bool, fields ...string) {
	k.hb.Reset()
	for i := 0; i < len(fields); i += 2 {
		k.he.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	k.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: k.hb.Bytes()})
}

// hello answers with a whole response.
func (k *app2) hello(id uint32) {
	k.head(id, false, ":status", "200")
	k.fr.WriteData(id, true, []byte("hello"))
}

// ask2 is ask for a call over HTTP/2.
func (x *caller) ask2(e *Endpoint) (ready bool) {
	x.do(func(tn *turn.Turn) {
		x.resp.Reset()
		x.fault, x.over = nil, false
		x.call, ready = e.OpenHTTP2(tn, &x.Lane, x)
		if ready {
			x.Ready(tn)
		}
	})
	return ready
}

func (x *caller) cancel() { x.do(func(tn *turn.Turn) { x.call.Cancel(tn) }) }

// wantConns wants so many HTTP/2 connections to the endpoint.
func (r *rig) wantConns(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections", n), func() bool { return len(r.e.all2()) == n })
}

// TestCalls2: calls share a connection, end in any order, and leave it for others.
func TestCalls2(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x, y := newCaller(t), newCaller(t)
		if x.ask2(r.e) {
			t.Fatal("there is a connection")
		}
		k := a.accept2()
		x.want("ready")
		k.want("head 1 end")
		if !y.ask2(r.e) {
			t.Fatal("the connection is not shared")
		}
		y.want("ready")
		k.want("head 3 end")
		r.wantCounts(t, 2, 0)
		y.do(func(*turn.Turn) {
			if !y.call.Reused() || x.call.Reused() || y.call.Endpoint() != r.e || y.call.Progress() != filters.SentHead {
				t.Errorf("reused %v and %v, progress %v", y.call.Reused(), x.call.Reused(), y.call.Progress())
			}
		})
		k.head(3, false, ":status", "103")
		k.hello(3)
		y.want("informational 103", "head 200", "body hello", "end")
		k.head(1, true, ":status", "204")
		x.want("head 204", "end")
		r.wantCounts(t, 0, 0)
		r.wantConns(t, 1)
		r.b.Close()
		k.want("closed")
		r.wantConns(t, 0)
	})
}

// TestWaiting2: calls wait together for the connection that is being made, and one
// of them may give up.
func TestWaiting2(t *testing.T) {
	a := newApp(t)
	gate := make(chan struct{})
	r := &rig{pool: hbone.NewPool(hbone.PoolOptions{Wire: driven(t), Dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		<-gate
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr.String())
	}})}
	r.start(t, Address{Addr: a.addr()})
	var xs []*caller
	for range 3 {
		x := newCaller(t)
		x.ask2(r.e)
		xs = append(xs, x)
	}
	xs[1].cancel()
	r.wantConns(t, 1)
	close(gate)
	k := a.accept2()
	k.want("head 1 end", "head 3 end")
	r.wantCounts(t, 2, 0)
	k.hello(1)
	k.hello(3)
	for _, x := range []*caller{xs[0], xs[2]} {
		x.want("ready", "head 200", "body hello", "end")
	}
	r.wantCounts(t, 0, 0)
	r.wantConns(t, 1)
	if n := len(xs[1].events); n != 0 {
		t.Errorf("the cancelled call heard %d things", n)
	}
	eventually(t, "its place is free", r.e.all2()[0].h2.Unused)
}

// TestCannotOpen2: every call that waited hears why there is no connection.
func TestCannotOpen2(t *testing.T) {
	down := newApp(t)
	down.l.Close()
	r, _ := meshRig(t, down.addr(), podURI)
	x, y := newCaller(t), newCaller(t)
	x.ask2(r.e)
	y.ask2(r.e)
	x.wantFault(fault.ConnectRefused, "503")
	y.wantFault(fault.ConnectRefused, "503")
	r.wantCounts(t, 0, 0)
	r.wantConns(t, 0)

	r = plainRig(t, down.addr())
	x.ask2(r.e)
	x.wantFault(fault.ConnectFailed, down.addr().String())
	r.wantConns(t, 0)
}

// TestPlaces: the endpoint says how many calls a connection takes; beyond that
// there are more connections, as far as there may be.
func TestPlaces(t *testing.T) {
	a := newApp(t)
	r := plainRig(t, a.addr())
	one := http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}
	const real = 3
	for range maxConns2 - real { // full ones that nobody has to play
		c := &conn2{ep: r.e, tun: sinkTunnel{}}
		c.h2 = h2.NewConn(c.tun, c, h2.Options{Client: true})
		var tn turn.Turn
		c.h2.Closed(&tn, io.EOF)
		tn.End()
		c.state.Store(uint32(serving))
		r.e.conns2 = append(r.e.conns2, c)
	}
	var xs []*caller
	for i := range real {
		x := newCaller(t)
		x.ask2(r.e)
		k := a.accept2(one)
		k.want("head 1 end")
		x.want("ready")
		xs = append(xs, x)
		c := r.e.all2()[maxConns2-real+i]
		eventually(t, "the connection is full", func() bool { return c.h2.Room() == 0 })
	}
	x := newCaller(t)
	x.ask2(r.e)
	x.wantFault(fault.Overflow, "full")
	r.wantCounts(t, real, 0)
	for _, x := range xs {
		x.cancel()
	}
	r.wantCounts(t, 0, 0)
	if !x.ask2(r.e) {
		t.Error("there is room again")
	}
	x.cancel()
}

// TestLimitFalls: a call that was given a place, and finds it gone when its head is
// written, can be made elsewhere.
func TestLimitFalls(t *testing.T) {
	a := newApp(t)
	r := plainRig(t, a.addr())
	x, y := newCaller(t), newCaller(t)
	x.ask2(r.e)
	k := a.accept2()
	x.want("ready")
	k.want("head 1 end")
	c := r.e.all2()[0]
	y.do(func(tn *turn.Turn) {
		var ready bool
		if y.call, ready = r.e.OpenHTTP2(tn, &y.Lane, y); !ready {
			t.Fatal("no place")
		}
		k.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
		eventually(t, "GOAWAY is heard", c.h2.Draining)
		y.Ready(tn)
		if y.call.Progress() != filters.SentNothing {
			t.Error("something was sent")
		}
	})
	y.want("ready")
	y.wantFault(fault.GoneAway)
	k.hello(1)
	x.want("head 200", "body hello", "end")
	k.want("closed")
	k.nc.Close()
	r.wantConns(t, 0)
	r.wantCounts(t, 0, 0)
}

// TestLeave2: when the endpoint leaves, calls under way finish, and the connection
// ends with the last; nobody waits for the far end to close it.
func TestLeave2(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		x.ask2(r.e)
		k := a.accept2()
		x.want("ready")
		k.want("head 1 end")
		r.b.SetEndpoints(nil)
		k.hello(1)
		x.want("head 200", "body hello", "end")
		k.want("closed")
		r.wantCounts(t, 0, 0)
		r.wantConns(t, 0)
	})
}

// TestSweep2: what has been unused for too long is asked to end, and cut if it does
// not; a far end that answers no PING is given up.
func TestSweep2(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		x.ask2(r.e)
		k := a.accept2()
		x.want("ready")
		k.want("head 1 end")
		k.hello(1)
		x.want("head 200", "body hello", "end")
		c := r.e.all2()[0]
		eventually(t, "it is unused", c.h2.Unused)
		x.do(r.e.Sweep)
		if c.leaving.Load() {
			t.Fatal("it is let go in time")
		}
		c.idleSince.Add(-int64(IdleTimeout2 + 10*time.Second))
		x.do(r.e.Sweep)
		k.want("goaway")
		k.nc.Close()
		r.wantConns(t, 0)
	})
}

// TestDrain2: on a mesh connection that is to go away no call is begun.
func TestDrain2(t *testing.T) {
	a := newApp(t)
	r, s := meshRig(t, a.addr(), podURI)
	x, y := newCaller(t), newCaller(t)
	x.ask2(r.e)
	k := a.accept2()
	x.want("ready")
	k.want("head 1 end")
	c := r.e.all2()[0]
	s.Drain()
	eventually(t, "the mesh connection is going away", func() bool { return hbone.Draining(c.tun) })
	k.hello(1)
	x.want("head 200", "body hello", "end")
	k.want("goaway")
	y.ask2(r.e)
	if y.call.(*call2).c == c {
		t.Error("the call was begun on a connection that holds the mesh connection up")
	}
	y.cancel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Shutdown(ctx)
}

// TestFaults2: what becomes of each way in which a call can fail.
func TestFaults2(t *testing.T) {
	for _, row := range []struct {
		name   string
		reuse  bool
		answer func(k *app2, id uint32)
		events []string
		kind   fault.Kind
	}{
		{"closed before the response", false, func(k *app2, _ uint32) { k.nc.CloseWrite() }, nil, fault.UpstreamClosed},
		{"stale, closed", true, func(k *app2, _ uint32) { k.nc.CloseWrite() }, nil, fault.StaleConnection},
		{"closed in the body", false, func(k *app2, id uint32) {
			k.head(id, false, ":status", "200")
			k.fr.WriteData(id, false, []byte("hell"))
			k.nc.CloseWrite()
		}, []string{"head 200", "body hell"}, fault.UpstreamClosedMidResponse},
		{"reset", true, func(k *app2, id uint32) { k.fr.WriteRSTStream(id, http2.ErrCodeInternal) }, nil, fault.UpstreamReset},
		{"refused", true, func(k *app2, id uint32) { k.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, nil, fault.RefusedStream},
		{"gone away", true, func(k *app2, _ uint32) { k.fr.WriteGoAway(1, http2.ErrCodeNo, nil); k.nc.CloseWrite() }, nil, fault.GoneAway},
		{"no HTTP/2", true, func(k *app2, _ uint32) { io.WriteString(k.nc, "HTTP/1.1 400 Bad Request\r\n\r\n") }, nil, fault.UpstreamProtocol},
		{"malformed head", true, func(k *app2, id uint32) { k.head(id, false, ":status", "2000") }, nil, fault.UpstreamProtocol},
	} {
		t.Run(row.name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig, a *app) {
				x := newCaller(t)
				x.ask2(r.e)
				k := a.accept2()
				x.want("ready")
				k.want("head 1 end")
				id := uint32(1)
				if row.reuse {
					k.hello(1)
					x.want("head 200", "body hello", "end")
					if !x.ask2(r.e) {
						t.Fatal("not reused")
					}
					x.want("ready")
					k.want("head 3 end")
					id = 3
				}
				row.answer(k, id)
				x.want(row.events...)
				x.wantFault(row.kind, a.addr().String())
				r.wantCounts(t, 0, 0)
			})
		})
	}
}

// TestClassify2: what the table above has no easy way to cause.
func TestClassify2(t *testing.T) {
	for _, row := range []struct {
		name    string
		err     error
		started bool
		want    fault.Kind
	}{
		{"a rule of the connection", &h2.ConnError{Code: h2.CodeProtocol}, false, fault.UpstreamProtocol},
		{"no answer to PING", &h2.ConnError{Err: h2.ErrPingTimeout}, false, fault.UpstreamClosed},
		{"no answer to PING, in the response", &h2.ConnError{Err: h2.ErrPingTimeout}, true, fault.UpstreamClosedMidResponse},
		{"a rule of the stream", &h2.StreamError{Reason: "x"}, true, fault.UpstreamProtocol},
		{"refused in the response", &h2.StreamError{Remote: true, Code: h2.CodeRefusedStream}, true, fault.UpstreamResetMidResponse},
		{"went away with an error", &h2.GoAwayError{Code: h2.CodeInternal}, false, fault.UpstreamClosed},
		{"tunnel reset", &hbone.ResetError{Code: hbone.CodeCancel}, false, fault.UpstreamReset},
		{"mesh lost", errors.New("lost"), true, fault.UpstreamClosedMidResponse},
	} {
		k := &call2{ep: &Endpoint{key: endpointKey{addr: addr(1)}}, c: &conn2{}, started: row.started}
		if got := k.classify(row.err); got.Kind != row.want {
			t.Errorf("%s: got %v, want %v", row.name, got.Kind, row.want)
		}
	}
}

// TestEarlyResponse2: a response before the request's end counts, and the upload is
// stopped; the connection serves on.
func TestEarlyResponse2(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		x := newCaller(t)
		x.post = true
		x.ask2(r.e)
		k := a.accept2()
		x.want("ready")
		k.want("head 1")
		k.head(1, true, ":status", "403")
		x.want("head 403", "end")
		k.want("reset 1 CANCEL")
		x.post = false
		if !x.ask2(r.e) {
			t.Error("the connection is lost")
		}
		k.want("head 3 end")
		x.cancel()
		k.want("reset 3 CANCEL")
		r.wantCounts(t, 0, 0)
	})
}

// TestHammer2: many calls at once while the application resets, goes away and
// closes, callers cancel, and sweeps come by. Each call hears one end, and nothing
// is left.
func TestHammer2(t *testing.T) {
	each(t, func(t *testing.T, r *rig, a *app) {
		var apps sync.WaitGroup
		apps.Go(func() {
			for {
				nc, err := a.l.AcceptTCP()
				if err != nil {
					return
				}
				apps.Go(func() { hammered2(nc) })
			}
		})
		var wg, sweeps sync.WaitGroup
		var whole, failed, reused atomic.Int64
		stop := make(chan struct{})
		sweeps.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				var tn turn.Turn
				r.e.Sweep(&tn)
				tn.End()
			}
		})
		for range 8 {
			wg.Go(func() {
				x := newCaller(t)
				for range 150 {
					x.hammer2(r.e, &whole, &failed, &reused)
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
		apps.Wait()
		r.wantConns(t, 0)
	})
}

func hammered2(nc *net.TCPConn) {
	defer nc.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil {
		return
	}
	k := newApp2(nc, nc)
	k.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
	for {
		f := k.next()
		var id uint32
		if n, _ := fmt.Sscanf(f, "head %d", &id); n == 0 {
			if f == "closed" || f == "goaway" {
				return
			}
			continue
		}
		switch rand.IntN(40) {
		case 0:
			return
		case 1:
			nc.SetLinger(0)
			return
		case 2:
			k.head(id, false, ":status", "200", "content-length", "5")
			k.fr.WriteData(id, false, []byte("he"))
			return
		case 3:
			k.fr.WriteGoAway(id, http2.ErrCodeNo, nil)
		case 4:
			k.fr.WriteGoAway(id-1, http2.ErrCodeNo, nil)
		case 5, 6:
			k.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			continue
		case 7, 8:
			k.head(id, false, ":status", "200", "content-length", "5")
			k.fr.WriteRSTStream(id, http2.ErrCodeInternal)
			continue
		case 9: // never
			continue
		}
		k.hello(id)
	}
}

// hammer2 makes one call and sees to it that it ends as it should.
func (x *caller) hammer2(e *Endpoint, whole, failed, reused *atomic.Int64) {
	if x.ask2(e) {
		reused.Add(1)
	}
	patient := rand.IntN(8) != 0
	body := ""
	for {
		var event string
		select {
		case event = <-x.events:
		case <-time.After(50 * time.Millisecond):
			patient = false
		}
		if !patient {
			gone := false
			x.do(func(tn *turn.Turn) {
				if gone = !x.over; gone {
					x.call.Cancel(tn)
				}
			})
			patient = true
			if gone {
				for len(x.events) > 0 {
					<-x.events
				}
				return
			}
		}
		switch event {
		case "", "ready", "head 200":
		case "end":
			if body != "hello" {
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

// TestCall2Allocates: a call takes its stream, and nothing else.
func TestCall2Allocates(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("not in this build")
	}
	b := newBackend(LeastRequest, members(1))
	e := b.Endpoints()[0]
	c := &conn2{ep: e, tun: sinkTunnel{}}
	c.h2 = h2.NewConn(c.tun, c, h2.Options{Client: true, Courteous: true})
	e.conns2 = []*conn2{c}
	var tn turn.Turn
	c.Opened(&tn)
	tn.End()
	var peer bytes.Buffer
	fr := http2.NewFramer(&peer, nil)
	fr.WriteSettings()
	c.Data(&tn, bytes.Clone(peer.Bytes()), false)
	tn.End()
	q := &message.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("h")}
	q.Header.Add("user-agent", "x")
	x := &quietCaller{}
	var answer []byte
	id := uint32(1)
	once := func() {
		x.Lock()
		x.resp.Reset()
		call, ready := e.OpenHTTP2(&tn, &x.Lane, x)
		if !ready {
			t.Fatal("no place")
		}
		_ = call.WriteHead(&tn, q, true)
		x.Unlock()
		answer = append(answer[:0], 0, 0, 1, 1, 4, 0, 0, byte(id>>8), byte(id), 0x88, 0, 0, 5, 0, 1, 0, 0, byte(id>>8), byte(id), 'h', 'e', 'l', 'l', 'o')
		c.Data(&tn, answer, false)
		tn.End()
		id += 2
	}
	for range 10 {
		once()
	}
	if n := testing.AllocsPerRun(1000, once); n != 1 {
		t.Errorf("%v allocations a call, want the stream", n)
	}
	if x.ended < 1000 {
		t.Errorf("%d calls ended", x.ended)
	}
}

// TestOpensJustNow: calls that begin while their connection comes to stand, or
// fails to, all hear how it went.
func TestOpensJustNow(t *testing.T) {
	a := newApp(t)
	var apps sync.WaitGroup
	t.Cleanup(func() { a.l.Close(); apps.Wait() })
	apps.Go(func() {
		for {
			nc, err := a.l.AcceptTCP()
			if err != nil {
				return
			}
			apps.Go(func() { obliging2(nc) })
		}
	})
	down := newApp(t)
	down.l.Close()
	for _, row := range []struct {
		at   netip.AddrPort
		last string
	}{{a.addr(), "end"}, {down.addr(), "failed"}} {
		r := plainRig(t, row.at)
		for range 150 {
			r.b.SetEndpoints(nil)
			r.b.SetEndpoints([]Address{{Addr: row.at}})
			e := must(r.b.Pick(nil))
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					x := newCaller(t)
					x.ask2(e)
					for {
						select {
						case event := <-x.events:
							if event == row.last {
								if row.last == "failed" && x.fault.Kind != fault.ConnectFailed {
									t.Errorf("got %v", x.fault)
								}
								return
							}
						case <-time.After(patience):
							t.Error("a call heard nothing")
							return
						}
					}
				})
			}
			all.Wait()
		}
	}
}

// obliging2 answers every call.
func obliging2(nc *net.TCPConn) {
	defer nc.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil {
		return
	}
	k := newApp2(nc, nc)
	k.fr.WriteSettings()
	for {
		f := k.next()
		var id uint32
		if f == "closed" {
			return
		}
		if n, _ := fmt.Sscanf(f, "head %d", &id); n == 1 {
			k.hello(id)
		}
	}
}

// TestOpenedMeanwhile: a call that finds a connection being opened, and is not
// quick enough to wait for it, has it at once.
func TestOpenedMeanwhile(t *testing.T) {
	b := newBackend(LeastRequest, members(1))
	e := b.Endpoints()[0]
	for range 20 {
		c := &conn2{ep: e, tun: sinkTunnel{}}
		c.h2 = h2.NewConn(c.tun, c, h2.Options{Client: true})
		e.conns2 = []*conn2{c}
		x := &quietCaller{}
		answer := make(chan bool)
		c.mu.Lock()
		go func() {
			var tn turn.Turn
			x.Lock()
			call, ready := e.OpenHTTP2(&tn, &x.Lane, x)
			call.Cancel(&tn)
			x.Unlock()
			tn.End()
			answer <- ready
		}()
		for range 1000 { // until it waits for mu, most probably
			runtime.Gosched()
		}
		var tn turn.Turn
		c.h2.Start(&tn)
		c.state.Store(uint32(serving))
		c.mu.Unlock()
		tn.End()
		if !<-answer {
			t.Fatal("the call waits for a connection that is open")
		}
	}
}
