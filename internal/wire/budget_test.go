package wire

import (
	"io"
	"runtime"
	"testing"
	"unsafe"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
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
		if s.name == "tls" {
			mallocs -= trips // the peer's own
		}
		// A collection empties the pools, so a few are allowed.
		if ours := mallocs - tlsReads; ours > trips/100 {
			t.Errorf("%d allocations of ours in %d turns, want 0", ours, trips)
		}
		if s.name == "tls" && tlsReads != trips {
			t.Errorf("crypto/tls read its transport %d times in %d turns of one record, want once each", tlsReads, trips)
		}
		if got := now.Writes - reads.Writes; got < trips-1 || got > trips+1 { // one may not have been counted yet
			t.Errorf("%d writes in %d turns, want one each", got, trips)
		}
		far.Close()
		e.wantServed(t)
	})
}

// Memory of an idle connection: Conn, net.Conn, goroutine with its stack.
func TestIdleMemory(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build is larger")
	}
	t.Logf("a Conn is %d bytes", unsafe.Sizeof(Conn{}))
	const n = 500
	for _, tc := range []struct {
		setting
		want uint64 // bytes a connection; crypto/tls's share is not ours to bound
	}{{settings[0], 6 << 10}, {settings[1], 24 << 10}} {
		t.Run(tc.name, func(t *testing.T) {
			conns, fars, engines := make([]*Conn, n), make([]peer, n), make([]*testEngine, n)
			for i := range conns {
				conns[i], fars[i], _ = tc.pair(t, Options{})
				engines[i] = newEngine()
			}
			p := make([]byte, 1000)
			for i, c := range conns {
				engines[i].onFeed = func(tn *turn.Turn, p []byte) error { c.Write(tn, p); return nil }
				serve(c, engines[i])
				fars[i].Write(p)
				io.ReadFull(fars[i], p)
			}
			heap, stack := measure()
			for i, c := range conns {
				c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
				engines[i].wantServed(t)
				conns[i] = nil
				engines[i] = nil
			}
			restHeap, restStack := measure() // with the far ends still there
			heap, stack = (heap-restHeap)/n, (stack-restStack)/n
			t.Logf("an idle %s connection takes %d bytes: %d of heap, %d of stack", tc.name, heap+stack, heap, stack)
			if heap+stack > tc.want {
				t.Errorf("an idle connection takes %d bytes, want at most %d", heap+stack, tc.want)
			}
			runtime.KeepAlive(fars)
		})
	}
}

func measure() (heap, stack uint64) {
	for range 4 { // stacks shrink by half each time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, m.StackInuse
}
