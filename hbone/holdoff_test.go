package hbone

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/testnet"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// A plainHoldoff is the obvious one: it remembers everything that ever was.
type plainHoldoff map[netip.Addr]*history

type history struct {
	floods []time.Time
	due    []time.Time // what each flood and each handshake has put the next one off to
}

// gap counts the floods up to now that no pause has forgiven.
func (h *history) gap(now time.Time) time.Duration {
	n := 0
	for i, at := range h.floods {
		if i > 0 && at.Sub(h.floods[i-1]) >= ForgiveAfter {
			n = 0
		}
		n++
	}
	if n == 0 || now.Sub(h.floods[len(h.floods)-1]) >= ForgiveAfter {
		return 0
	}
	gap := FirstHoldoff
	for range n - 1 {
		gap = min(2*gap, MaxHoldoff)
	}
	return gap
}

func (p plainHoldoff) of(a netip.Addr) *history {
	if p[a] == nil {
		p[a] = new(history)
	}
	return p[a]
}

func (p plainHoldoff) strike(a netip.Addr, now time.Time) time.Duration {
	h := p.of(a)
	if h.gap(now) == 0 {
		*h = history{}
	}
	h.floods = append(h.floods, now)
	h.due = append(h.due, now.Add(h.gap(now)))
	return h.gap(now)
}

func (p plainHoldoff) enter(a netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	h := p.of(a)
	if h.gap(now) == 0 {
		return 0, true
	}
	for _, due := range h.due {
		wait = max(wait, due.Sub(now))
	}
	if wait > MaxHoldoff {
		return wait, false
	}
	h.due = append(h.due, now.Add(wait+h.gap(now)))
	return wait, true
}

func host(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }

// TestHoldoffTwin: both agree on who waits how long, whatever comes when.
func TestHoldoffTwin(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var h holdoff
		twin := plainHoldoff{}
		now := time.Now()
		waited, refused, forgiven := 0, 0, 0
		for step := range 3000 {
			switch r.IntN(50) {
			case 0:
				now = now.Add(time.Duration(r.Int64N(int64(2 * ForgiveAfter))))
			default:
				now = now.Add(time.Duration(r.Int64N(int64(time.Second))))
			}
			a := host(r.IntN(3))
			if r.IntN(4) == 0 {
				got, lost := h.strike(a, now)
				if want := twin.strike(a, now); got != want || lost {
					t.Fatalf("seed %d, step %d: a flood makes a gap of %v, want %v (lost: %v)", seed, step, got, want, lost)
				}
				continue
			}
			got, ok := h.enter(a, now)
			want, wantOK := twin.enter(a, now)
			if got != want || ok != wantOK {
				t.Fatalf("seed %d, step %d: a handshake waits %v, %v; want %v, %v", seed, step, got, ok, want, wantOK)
			}
			switch {
			case !ok:
				refused++
			case got > 0:
				waited++
			case len(twin[a].floods) > 0:
				forgiven++
			}
		}
		if waited == 0 || refused == 0 || forgiven == 0 {
			t.Errorf("seed %d: %d waited, %d were refused, %d did not wait; this shows nothing", seed, waited, refused, forgiven)
		}
	}
}

// TestHoldoffRoom: of too many addresses the least guilty is forgotten, and when
// all are forgiven nothing is kept.
func TestHoldoffRoom(t *testing.T) {
	var h holdoff
	now := time.Now()
	strike := func(n int) (lost bool) {
		now = now.Add(time.Millisecond)
		_, lost = h.strike(host(n), now)
		return lost
	}
	held := func(n int) bool { _, ok := h.by[host(n)]; return ok }
	strike(0) // the oldest, and forgiven when room is needed
	now = now.Add(ForgiveAfter)
	strike(1)
	strike(1) // as long ago, but twice
	for n := 2; n < MaxHeldOff; n++ {
		if strike(n) {
			t.Fatalf("the table is full with %d addresses, want %d", n, MaxHeldOff)
		}
	}
	if strike(MaxHeldOff) || held(0) || len(h.by) != MaxHeldOff {
		t.Errorf("with %d addresses one that is forgiven is held off", len(h.by))
	}
	for n := MaxHeldOff + 1; n < MaxHeldOff+10; n++ {
		if !strike(n) || len(h.by) != MaxHeldOff || !held(n) || !held(1) || held(n+1-MaxHeldOff) {
			t.Fatalf("%d: %d addresses; want the oldest of those that have flooded once to go, and no other", n, len(h.by))
		}
	}
	if _, ok := h.enter(host(5000), now.Add(ForgiveAfter-1)); !ok || h.known.Load() != MaxHeldOff {
		t.Error("addresses are forgotten too early")
	}
	if wait, ok := h.enter(host(1), now.Add(ForgiveAfter)); wait != 0 || !ok || h.by != nil || h.known.Load() != 0 {
		t.Errorf("%d addresses are known when all are forgiven", len(h.by))
	}
}

// A caller is a connection in memory from an address of its own.
type caller struct {
	*testnet.Conn
	from net.Addr
}

func (c caller) RemoteAddr() net.Addr { return c.from }

func (h *hub) call(from string) net.Conn {
	client, server := testnet.Pair()
	h.conns <- caller{server, &net.TCPAddr{IP: net.ParseIP(from), Port: 40000}}
	return client
}

// meshFrom makes a mesh connection from an address, and says how long that took.
func (s *testServer) meshFrom(h *hub, from string) (*testConn, time.Duration) {
	began := time.Now()
	tc := newTestConn(s.t, tls.Client(h.call(from), s.client(curlURI).ClientConfig(dest("192.0.2.2:15008", wayURI).expect)))
	tc.nc.SetDeadline(time.Time{})
	tc.greet()
	return tc, time.Since(began)
}

// flood goes beyond a limit.
func (tc *testConn) flood() {
	tc.t.Helper()
	for range 201 {
		tc.fr.WriteSettings()
	}
	tc.wantGoAway(0, http2.ErrCodeEnhanceYourCalm, "too many SETTINGS")
	tc.nc.Close()
}

// TestHoldoff: an address from which a flood came waits before its next handshake,
// longer each time, and is forgiven. Others, and PROXY connections, do not wait.
func TestHoldoff(t *testing.T) {
	const bad, good = "192.0.2.66", "192.0.2.7"
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		proxy := newHub()
		go s.ServeProxy(proxy)
		want := func(from string, least time.Duration) *testConn {
			t.Helper()
			tc, took := s.meshFrom(l, from)
			if took < least || took > least+10*time.Millisecond {
				t.Errorf("a mesh connection of %s took %v, want %v", from, took, least)
			}
			return tc
		}
		for _, wait := range []time.Duration{0, 100, 200, 400, 800, 1600, 3200, 5000, 5000} {
			tc := want(bad, wait*time.Millisecond)
			tc.flood()
			s.wantFault("ENHANCE_YOUR_CALM", "too many SETTINGS", "the next handshake from there waits")
			want(good, 0).nc.Close()
			nc := proxy.call(bad)
			nc.Write(header())
			s.tunnel()
			nc.Close()
		}
		st := s.Stats()
		if st.Floods.Load() != 9 || st.HeldOff.Load() != 8 || st.OverHoldoff.Load() != 0 || st.BadHandshakes.Load() != 0 {
			t.Errorf("%d floods, %d held off, %d refused, %d bad handshakes; want 9, 8, 0, 0", st.Floods.Load(), st.HeldOff.Load(), st.OverHoldoff.Load(), st.BadHandshakes.Load())
		}
		time.Sleep(ForgiveAfter)
		want(bad, 0).flood()
		want(bad, FirstHoldoff) // from the beginning
		s.wantFault()
		s.wantNoFault()
	})
}

// TestNoHoldoff: who breaks the protocol, is refused by TLS or just leaves is not
// held off.
func TestNoHoldoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		began := time.Now()
		for range 20 {
			tc, _ := s.meshFrom(l, "192.0.2.66")
			tc.fr.WriteWindowUpdate(0, 0)
			tc.wantGoAway(0, http2.ErrCodeProtocol, "")
			tc.nc.Close()
			tc, _ = s.meshFrom(l, "192.0.2.66")
			tc.nc.Close()
			nc := l.call("192.0.2.66")
			nc.Write(make([]byte, 100)) // no hello
			io.Copy(io.Discard, nc)
			nc.Close()
		}
		if d := time.Since(began); d > FirstHoldoff || s.held.known.Load() != 0 {
			t.Errorf("60 connections took %v, %d addresses are held off", d, s.held.known.Load())
		}
	})
}

// TestHoldoffQueue: connections of one address wait one behind the other, without a
// place among the handshakes; those that would wait too long are closed at once.
func TestHoldoffQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		tc, _ := s.meshFrom(l, "192.0.2.66")
		tc.flood()
		s.wantFault("too many SETTINGS")
		began := time.Now()
		const room, more = int(MaxHoldoff / FirstHoldoff), 7
		config := s.client(curlURI).ClientConfig(dest("192.0.2.2:15008", wayURI).expect)
		closed := make(chan time.Duration, room+more)
		shaken := make(chan time.Duration, room+more)
		for range room + more {
			nc := l.call("192.0.2.66")
			go func() {
				defer nc.Close()
				if err := tls.Client(nc, config).Handshake(); err != nil {
					closed <- time.Since(began)
				} else {
					shaken <- time.Since(began)
				}
			}()
		}
		synctest.Wait()
		if len(closed) != more || len(shaken) != 0 || len(s.handshakes) != 0 || s.Stats().OverHoldoff.Load() != more {
			t.Errorf("%d are closed and %d let in at once, %d have a place, %d are counted; want %d, 0, 0, %d", len(closed), len(shaken), len(s.handshakes), s.Stats().OverHoldoff.Load(), more, more)
		}
		for range more {
			s.wantFault("held off after a flood", "away")
		}
		if n := s.Stats().Conns.Load(); n != int64(room) {
			t.Errorf("%d connections count, want the %d that wait", n, room)
		}
		for n := range room {
			if at := (<-shaken).Round(10 * time.Millisecond); at != time.Duration(n+1)*FirstHoldoff {
				t.Errorf("handshake %d after %v, want one after each %v", n, at, FirstHoldoff)
			}
		}
	})
}

// TestHoldoffEnds: who waits for his handshake does not hold up the server's end.
func TestHoldoffEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		tc, _ := s.meshFrom(l, "192.0.2.66")
		tc.flood()
		s.wantFault("too many SETTINGS")
		for range 10 {
			defer l.call("192.0.2.66").Close()
		}
		synctest.Wait()
		if n := s.Stats().Conns.Load(); n != 10 {
			t.Fatalf("%d connections, want the 10 that wait", n)
		}
		began := time.Now()
		s.Drain()
		<-s.idle
		if d := time.Since(began); d > 2*queueTime {
			t.Errorf("the server has ended after %v, want it not to wait", d)
		}
		for range 10 {
			s.wantFault("held off after a flood", "closes")
		}
	})
}

// TestHoldoffTunnel: a flood inside a tunnel counts against the address of the mesh
// connection that carries it, which goes on. A PROXY connection has none.
func TestHoldoffTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := slowServer(t)
		go s.ServeHBONE(l)
		proxy := newHub()
		go s.ServeProxy(proxy)
		nc := proxy.call("192.0.2.66")
		defer nc.Close()
		nc.Write(header())
		do(func(tn *turn.Turn) { Flooded(tn, s.tunnel().tun, errors.New("too many")) })
		s.wantNoFault()
		tc, _ := s.meshFrom(l, "192.0.2.66") // the control: nothing is held off
		tc.connect(1, "10.0.0.7:8080")
		tc.wantStatus(1, 200, false)
		do(func(tn *turn.Turn) { Flooded(tn, s.tunnel().tun, errors.New("too many")) })
		s.wantFault("in a tunnel: too many")
		tc.wantQuiet()
		if _, took := s.meshFrom(l, "192.0.2.66"); took < FirstHoldoff {
			t.Errorf("the next mesh connection took %v, want %v", took, FirstHoldoff)
		}
		if n := s.Stats().Floods.Load(); n != 1 {
			t.Errorf("%d floods, want 1", n)
		}
	})
}
