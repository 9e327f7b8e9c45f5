package wire

import (
	"io"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
)

// A turn that reads, feeds, writes and flushes allocates nothing; under TLS
// crypto/tls allocates one object per read of its transport, which Stats counts.
func TestAllocsPerTurn(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build allocates for its checks")
	}
	each(t, func(t *testing.T, s setting) {
		c, far, _ := s.pair(t, Options{Park: 64 << 10})
		e := newEngine()
		e.onFeed = func(tn *turn.Turn, p []byte) error {
			c.Write(tn, p)
			c.Consume(tn, len(p))
			return nil
		}
		serve(c, e)
		p := make([]byte, 1000)
		trip := func() {
			if _, err := far.Write(p); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(far, p); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			trip()
		}
		const trips = 5000
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		reads := c.Stats()
		for range trips {
			trip()
		}
		runtime.ReadMemStats(&after)
		now := c.Stats()
		mallocs := int64(after.Mallocs - before.Mallocs)
		tlsReads := now.TLSReads - reads.TLSReads
		if s.tls {
			mallocs -= trips // the peer's own
		}
		// A collection empties the pools, so a few are allowed.
		if ours := mallocs - tlsReads; ours > trips/100 {
			t.Errorf("%d allocations of ours in %d turns, want 0", ours, trips)
		}
		if s.tls && tlsReads != trips {
			t.Errorf("crypto/tls read its transport %d times in %d turns of one record, want once each", tlsReads, trips)
		}
		if got := now.Writes - reads.Writes; got < trips-1 || got > trips+1 { // one may not have been counted yet
			t.Errorf("%d writes in %d turns, want one each", got, trips)
		}
		far.Close()
		e.wantServed(t)
	})
}

// Memory of an idle connection: Conn, net.Conn, goroutine with its stack. Ticks
// have it shed what its request made of the stack; without, it keeps that.
func TestIdleMemory(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build is larger")
	}
	const class = 640 - 8 // a size class of the allocator, and its own header
	if got := unsafe.Sizeof(Conn{}); got > class {
		t.Errorf("a Conn is %d bytes, want at most %d", got, class)
	}
	for _, tc := range []struct {
		name        string
		pair        setting
		ticks       int
		heap        uint64 // bytes at most; crypto/tls's share is not ours to bound
		stack, more uint64 // at most, and more than
	}{
		{"plain", settings[0], 2, 2 << 10, 2500, 0},
		{"tls", settings[1], 2, 16 << 10, 2500, 0},
		{"plain without ticks", settings[0], 0, 2 << 10, 1 << 20, 3500},
		{"plain loop", setting{pair: looped(plainPair), loop: true}, 2, 2 << 10, 100, 0},
		{"tls loop", setting{pair: looped(tlsPair), loop: true}, 2, 16 << 10, 100, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			heap, stack := idleMemory(t, tc.pair, tc.ticks)
			t.Logf("an idle connection takes %d bytes: %d of heap, %d of stack", heap+stack, heap, stack)
			if heap > tc.heap {
				t.Errorf("%d bytes of heap, want at most %d", heap, tc.heap)
			}
			if int64(stack) > int64(tc.stack) || stack < tc.more {
				t.Errorf("%d bytes of stack, want at most %d and more than %d", stack, tc.stack, tc.more)
			}
		})
	}
}

// idleMemory is what one of many connections holds that have served a request
// and then seen some ticks.
func idleMemory(t *testing.T, s setting, ticks int) (heap, stack uint64) {
	const n = 500
	conns, fars, engines := make([]*Conn, n), make([]peer, n), make([]*testEngine, n)
	w, k := wheel.New(), new(Counters)
	for i := range conns {
		conns[i], fars[i], _ = s.pair(t, Options{Wheel: w, Tick: time.Hour, Counters: k})
		engines[i] = newEngine()
	}
	p := make([]byte, 1000)
	for i, c := range conns {
		engines[i].onFeed = func(tn *turn.Turn, p []byte) error {
			c.Write(tn, p)
			dig(2 << 10)
			return nil
		}
		go c.Serve(engines[i])
		fars[i].Write(p)
		io.ReadFull(fars[i], p)
	}
	runtime.GC() // the runtime makes new stacks as large as those it has seen in use
	for range ticks {
		for _, c := range conns {
			tick(c)
		}
	}
	if ticks > 0 && !s.loop {
		until(t, "all have shed", func() bool { return k.Sheds.Load() == n })
	}
	heap, stack = measure()
	for i, c := range conns {
		c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
		c.Wait()
		conns[i], engines[i] = nil, nil
	}
	restHeap, restStack := measure() // with the far ends still there
	runtime.KeepAlive(fars)
	return (heap - restHeap) / n, (stack - restStack) / n
}

// dig takes some bytes of stack.
func dig(n int) byte {
	var b [256]byte
	if n > len(b) {
		b[n%len(b)] = dig(n - len(b))
	}
	return b[n%7]
}

func measure() (heap, stack uint64) {
	for range 4 { // stacks shrink by half each time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, m.StackInuse
}
