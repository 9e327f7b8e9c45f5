package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
)

// tick does by hand what the wheel does, which stands still.
func tick(c *Conn) {
	var tn turn.Turn
	c.Expired(&tn, &c.timer)
	tn.End()
}

// byHand are options of a connection whose ticks a test makes.
func byHand(k *Counters) Options {
	return Options{Park: 64 << 10, Linger: 30 * time.Millisecond, Wheel: wheel.New(), Tick: time.Hour, Counters: k}
}

// echoes returns an engine that sends back what comes.
func echoes(c *Conn) *testEngine {
	e := newEngine()
	e.onFeed = func(tn *turn.Turn, p []byte) error {
		c.Write(tn, p)
		c.Consume(tn, len(p))
		return nil
	}
	return e
}

func echo(t *testing.T, far peer, p []byte) {
	t.Helper()
	got := make([]byte, len(p))
	go far.Write(p)
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, p) {
		t.Fatalf("%d bytes did not come back whole: %v", len(p), err)
	}
}

// A reader goes on in a fresh goroutine when it has received nothing for a whole
// tick, once until it receives again, and instead of the one before.
func TestShed(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		if s.loop {
			return // it has no stack
		}
		var k Counters
		c, far, _ := s.pair(t, byHand(&k))
		e := echoes(c)
		go c.Serve(e)
		for range 3 { // busy: something came before every tick
			echo(t, far, []byte("hello"))
			tick(c)
		}
		if got := k.Sheds.Load(); got != 0 {
			t.Fatalf("shed %d times between requests, want none", got)
		}
		before := runtime.NumGoroutine()
		for want := int64(1); want < 4; want++ {
			for range 3 {
				tick(c)
			}
			until(t, "the reader sheds its stack", func() bool { return k.Sheds.Load() == want })
			until(t, "one goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
			echo(t, far, []byte("again"))
			tick(c)
			if got := k.Sheds.Load(); got != want {
				t.Fatalf("shed %d times, want %d", got, want)
			}
		}
		far.CloseWrite()
		if err := e.wantClosed(t); err != nil {
			t.Errorf("closed with %v, want nil", err)
		}
		far.Close()
		c.Wait()
	})
}

// Nothing that comes while a reader sheds its stack is lost, late or out of
// order.
func TestShedUnderTraffic(t *testing.T) {
	trips := 5000
	if raceEnabled || testing.Short() {
		trips = 1000
	}
	each(t, func(t *testing.T, s setting) {
		var k Counters
		c, far, _ := s.pair(t, byHand(&k))
		e := echoes(c)
		serve(c, e)
		r := rand.New(rand.NewPCG(1, 2))
		p := make([]byte, 100<<10)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		for i := range trips {
			n := 1 + r.IntN(100)
			if i%50 == 0 {
				n = 1 + r.IntN(len(p))
			}
			tick(c)
			if r.IntN(2) == 0 {
				tick(c) // the bytes come behind it, else beside it
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				tick(c)
			}()
			echo(t, far, p[:n])
			<-done
		}
		far.CloseWrite()
		if err := e.wantClosed(t); err != nil {
			t.Errorf("closed with %v, want nil", err)
		}
		far.Close()
		e.wantServed(t)
		if got := int(k.Sheds.Load()); got < trips/4 && !s.loop {
			t.Errorf("shed %d times in %d round trips, want a quarter as often at least", got, trips)
		}
		t.Logf("shed %d times in %d round trips", k.Sheds.Load(), trips)
	})
}

// ticking makes a tick each millisecond until the engine is told of the end.
func ticking(c *Conn, e *testEngine) (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		each := time.NewTicker(time.Millisecond)
		defer each.Stop()
		for {
			select {
			case <-e.closed:
				return
			case <-each.C:
				tick(c)
			}
		}
	})
	return wg.Wait
}
