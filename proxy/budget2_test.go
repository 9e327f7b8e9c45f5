package proxy_test

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy"
)

// A framer takes the frames of an HTTP/2 connection apart, and keeps what is not
// whole yet.
type framer struct{ part []byte }

func (f *framer) feed(p []byte, each func(typ, flags byte, id uint32, payload []byte)) {
	if len(f.part) > 0 {
		f.part = append(f.part, p...)
		p = f.part
	}
	for len(p) >= 9 {
		n := 9 + int(p[0])<<16 + int(p[1])<<8 + int(p[2])
		if len(p) < n {
			break
		}
		each(p[3], p[4], binary.BigEndian.Uint32(p[5:]), p[9:n])
		p = p[n:]
	}
	f.part = append(f.part[:0], p...)
}

// frames of a call, whose stream's number is put in where they are sent.
func callFrames(frames ...[]byte) (all []byte, ids []int) {
	for _, f := range frames {
		ids = append(ids, len(all)+5)
		all = append(all, f...)
	}
	return all, ids
}

// literal is a header block without compression.
func literal(fields ...string) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		b = append(b, 0, byte(len(fields[i])))
		b = append(b, fields[i]...)
		b = append(b, byte(len(fields[i+1])))
		b = append(b, fields[i+1]...)
	}
	return b
}

var (
	callRequest, callRequestIDs = callFrames(
		appendFrame(nil, frameHeaders, endHeaders, 0, literal(":method", "POST", ":scheme", "http", ":path", "/shop.v1.Reviews/List", ":authority", "reviews.shop:80",
			"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers", "grpc-timeout", "999987u", "x-tenant", "blue")),
		appendFrame(nil, frameData, 1, 0, []byte("\x00\x00\x00\x00\x05hello")))
	callResponse, callResponseIDs = callFrames(
		appendFrame(nil, frameHeaders, endHeaders, 0, literal(":status", "200", "content-type", "application/grpc")),
		appendFrame(nil, frameData, 0, 0, []byte("\x00\x00\x00\x04\x00"+strings.Repeat("x", 1024))),
		appendFrame(nil, frameHeaders, endHeaders|1, 0, literal("grpc-status", "0", "grpc-message", "")))
	greetingFrames = appendFrame(appendFrame(nil, frameSettings, 0, 0, []byte{0, 4, 0x7f, 0xff, 0xff, 0xff}), frameWindow, 0, 0, []byte{0x7f, 0, 0, 0})
	settingsAck    = appendFrame(nil, frameSettings, ack, 0, nil)
)

func number(frames []byte, ids []int, id uint32) []byte {
	for _, at := range ids {
		binary.BigEndian.PutUint32(frames[at:], id)
	}
	return frames
}

// A callEnd is either end of an inner HTTP/2 connection.
type callEnd struct {
	tun    hbone.Tunnel
	framer framer
	owed   uint32
	each   func(t *turn.Turn, e *callEnd, typ, flags byte, id uint32)
	t      *turn.Turn
	hello  int // bytes of a client's preface to come
	on     func(typ, flags byte, id uint32, payload []byte)
}

func newCallEnd(each func(t *turn.Turn, e *callEnd, typ, flags byte, id uint32)) *callEnd {
	e := &callEnd{each: each}
	e.on = e.frame
	return e
}

func (e *callEnd) Left(*turn.Turn) {}
func (e *callEnd) Data(t *turn.Turn, p []byte, end bool) {
	e.tun.Consume(t, len(p))
	n := min(e.hello, len(p))
	if e.hello == len(greeting) {
		e.tun.Write(t, greetingFrames)
	}
	e.hello -= n
	e.t = t
	e.framer.feed(p[n:], e.on)
}

func (e *callEnd) frame(typ, flags byte, id uint32, payload []byte) {
	switch {
	case typ == frameSettings && flags&ack == 0:
		e.tun.Write(e.t, settingsAck)
	case typ == frameData:
		if e.owed += uint32(len(payload)); e.owed > 1<<20 {
			var f [13]byte
			copy(f[:], []byte{0, 0, 4, frameWindow, 0, 0, 0, 0, 0})
			binary.BigEndian.PutUint32(f[9:], e.owed)
			e.tun.Write(e.t, f[:])
			e.owed = 0
		}
	}
	if id != 0 {
		e.each(e.t, e, typ, flags, id)
	}
}

// A callAnswerer is an endpoint that answers calls in the turn that brings them.
type callAnswerer struct{ *callEnd }

// answersCalls makes a course's endpoint one.
func answersCalls(so *hbone.ServerOptions, _ *proxy.Options) {
	so.Accept = func(_ *turn.Turn, tun hbone.Tunnel) (hbone.TunnelHandler, error) { return newCallAnswerer(tun), nil }
}

func newCallAnswerer(tun hbone.Tunnel) *callAnswerer {
	response := append([]byte(nil), callResponse...)
	a := &callAnswerer{newCallEnd(func(t *turn.Turn, e *callEnd, typ, flags byte, id uint32) {
		if typ == frameData && flags&1 != 0 {
			e.tun.Write(t, number(response, callResponseIDs, id))
		}
	})}
	a.tun, a.hello = tun, len(greeting)
	return a
}

func (a *callAnswerer) Opened(*turn.Turn)        {}
func (a *callAnswerer) Closed(*turn.Turn, error) {}

// A callAsker makes so many calls, each in the turn that brings the answer to the
// one before.
type callAsker struct {
	*callEnd
	id      uint32
	got     int // DATA frames, less one for each call
	left    int // answers to come
	atOnce  int // calls under way
	request []byte
	done    chan struct{}
	failed  error
}

func (a *callAsker) Opened(t *turn.Turn) {
	a.tun.Write(t, []byte(greeting))
	a.tun.Write(t, greetingFrames)
	a.done <- struct{}{}
}

func (a *callAsker) Closed(_ *turn.Turn, err error) { a.failed = err; close(a.done) }

func (a *callAsker) ask(t *turn.Turn) {
	a.tun.Write(t, number(a.request, callRequestIDs, a.id))
	a.id += 2
}

func (c *course) openCalls() *callAsker {
	c.t.Helper()
	return c.openCallsFrom(c.pool, hbone.NewDest(c.mesh, netip.MustParseAddrPort("10.96.0.1:80"), c.expect))
}

func (c *course) openCallsFrom(pool *hbone.Pool, dest *hbone.Dest) *callAsker {
	c.t.Helper()
	a := &callAsker{id: 1, atOnce: 1, request: append([]byte(nil), callRequest...), done: make(chan struct{}, 1)}
	a.callEnd = newCallEnd(func(t *turn.Turn, e *callEnd, typ, flags byte, id uint32) {
		switch {
		case typ == frameData:
			a.got++
		case typ == 3 || typ == frameHeaders && flags&1 != 0:
			if a.got--; typ == 3 || a.got < 0 {
				c.t.Error("a call was not answered")
			}
			a.left--
			switch {
			case a.left >= a.atOnce:
				a.ask(t)
			case a.left == 0:
				a.done <- struct{}{}
			}
		}
	})
	var t turn.Turn
	a.tun = pool.Open(&t, dest, a)
	t.End()
	if _, ok := <-a.done; !ok {
		c.t.Fatal("no tunnel: ", a.failed)
	}
	return a
}

func (a *callAsker) call(t *testing.T, n int) {
	t.Helper()
	a.left = n
	var tn turn.Turn
	a.ask(&tn)
	tn.End()
	select {
	case _, ok := <-a.done:
		if !ok {
			t.Fatal("closed: ", a.failed)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
}

// TestAllocsPerCall: a unary gRPC call, HBONE to HBONE: two streams, and what
// crypto/tls allocates for each record that is read.
func TestAllocsPerCall(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build allocates for its checks")
	}
	c := newCourseOf(t, false, grpcDoc(once), answersCalls)
	a := c.openCalls()
	a.call(t, 1000)
	const n = 4000
	old := debug.SetGCPercent(-1) // a collection empties the pools
	defer debug.SetGCPercent(old)
	goroutines := runtime.NumGoroutine()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a.call(t, n)
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / n
	t.Logf("%.3f allocations a call in the whole process, 4 of them crypto/tls's; %.1f bytes", per, float64(after.TotalAlloc-before.TotalAlloc)/n)
	if per > 4.05+2 {
		t.Errorf("%.3f allocations a call, want the 4 of crypto/tls and 2", per)
	}
	if got := c.proxy.Stats().Requests.Load(); got != 1000+n {
		t.Errorf("%d calls counted", got)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 0 {
		t.Errorf("%d goroutines more", more)
	}
}

// TestIdleHTTP2: a thousand HTTP/2 connections that have made a call and are idle:
// no goroutine for any of them, and at most 8 KiB each, with what the client's end
// of them takes in this process. Half of it is the engine's, a fifth the tables
// of compressed heads.
func TestIdleHTTP2(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build takes memory for its checks")
	}
	c := newCourseOf(t, false, grpcDoc(once), answersCalls)
	const n = 1000
	c.openCalls().call(t, 10)
	goroutines, before := runtime.NumGoroutine(), inUse()
	all := make([]*callAsker, n)
	for i := range all {
		all[i] = c.openCalls()
		all[i].call(t, 3)
	}
	per := (inUse() - before) / n
	more := runtime.NumGoroutine() - goroutines
	t.Logf("%d bytes and %d goroutines in all for %d idle connections", per, more, n)
	if per > 8<<10 {
		t.Errorf("an idle connection takes %d bytes, want at most 8 KiB", per)
	}
	if more > 64 {
		t.Errorf("%d goroutines more for %d connections", more, n)
	}
	runtime.KeepAlive(all)
}
