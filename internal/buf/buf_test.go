package buf

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

func TestGet(t *testing.T) {
	for _, tc := range []struct{ n, cap int }{
		{0, 1 * KiB}, {1, 1 * KiB}, {1 * KiB, 1 * KiB},
		{1*KiB + 1, 4 * KiB}, {4*KiB + 1, 16 * KiB}, {16*KiB + 1, 32 * KiB}, {32*KiB + 1, 64 * KiB},
		{64 * KiB, 64 * KiB}, {64*KiB + 1, 128 * KiB}, {128*KiB + 1, 256 * KiB}, {1 << 20, 1 << 20},
	} {
		b := Get(tc.n)
		if len(b) != 0 || cap(b) != tc.cap {
			t.Errorf("Get(%d): len %d cap %d, want 0 and %d", tc.n, len(b), cap(b), tc.cap)
		}
		Put(b)
	}
}

func TestOutstanding(t *testing.T) {
	base := Outstanding()
	var bs [][]byte
	for i := range 100 {
		bs = append(bs, Get(i*1000))
	}
	if got := Outstanding() - base; got != 100 {
		t.Errorf("outstanding %d, want 100", got)
	}
	for _, b := range bs {
		Put(b)
	}
	Put(nil)
	if got := Outstanding() - base; got != 0 {
		t.Errorf("outstanding %d, want 0", got)
	}
}

// Lent counts what is really in hand, of every class and beyond.
func TestLent(t *testing.T) {
	base, count := Lent(), Outstanding()
	var all [][]byte
	want := int64(0)
	for _, n := range []int{1, 1 * KiB, 3 * KiB, 16 * KiB, 20 * KiB, 64 * KiB, 128 * KiB, 1000 * KiB} {
		for range 100 {
			b := Get(n)
			want += int64(cap(b))
			all = append(all, b)
		}
	}
	if got := Lent() - base; got != want || Outstanding()-count != int64(len(all)) {
		t.Errorf("%d bytes are lent in %d buffers, want %d in %d", got, Outstanding()-count, want, len(all))
	}
	for _, b := range all {
		Put(b)
	}
	if Lent() != base || Outstanding() != count {
		t.Errorf("%d bytes are lent in %d buffers, want none", Lent()-base, Outstanding()-count)
	}
}

func TestOutstandingAcrossGoroutines(t *testing.T) {
	base := Outstanding()
	ch := make(chan []byte)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				ch <- Get(rand.IntN(100 * KiB))
			}
		})
	}
	go func() { wg.Wait(); close(ch) }()
	for b := range ch {
		Put(b)
	}
	if got := Outstanding() - base; got != 0 {
		t.Errorf("outstanding %d, want 0", got)
	}
}

// What was not lent must not enter a pool: somebody else owns it.
func TestPutForeign(t *testing.T) {
	if Check {
		t.Skip("panics in this build; see check_test.go")
	}
	base := Outstanding()
	Put(make([]byte, 100))
	b := Get(4 * KiB)
	b = b[:10]
	Put(b[1:]) // its capacity is no class
	if got := Outstanding() - base; got != 1 {
		t.Errorf("outstanding %d, want 1: a part of a buffer is not the buffer", got)
	}
	Put(b)
}

func TestAppendAgainstTwin(t *testing.T) {
	base := Outstanding()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var got, want []byte
		for len(want) < 300*KiB {
			p := make([]byte, r.IntN(20*KiB))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			got, want = Append(got, p), append(want, p...)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("Append lost or changed bytes")
		}
		Put(got)
	}
	if got := Outstanding() - base; got != 0 {
		t.Errorf("outstanding %d, want 0", got)
	}
}

func TestShrink(t *testing.T) {
	base := Outstanding()
	if got := Shrink(Get(64 * KiB)); got != nil {
		t.Errorf("an empty buffer shrinks to %v, want nil", got)
	}
	for _, tc := range []struct{ held, cap int }{{1, 1 * KiB}, {1 * KiB, 1 * KiB}, {20 * KiB, 32 * KiB}, {40 * KiB, 64 * KiB}} {
		b := Shrink(append(Get(64*KiB), bytes.Repeat([]byte{7}, tc.held)...))
		if len(b) != tc.held || cap(b) != tc.cap {
			t.Errorf("%d bytes in 64 KiB: len %d cap %d, want cap %d", tc.held, len(b), cap(b), tc.cap)
		}
		Put(b)
	}
	if got := Outstanding() - base; got != 0 {
		t.Errorf("outstanding %d, want 0", got)
	}
}

func TestAllocs(t *testing.T) {
	if Check || raceEnabled {
		t.Skip("this build allocates for its checks")
	}
	for _, n := range []int{1 * KiB, 4 * KiB, 16 * KiB, 32 * KiB, 64 * KiB, 128 * KiB} {
		if got := testing.AllocsPerRun(1000, func() { Put(Get(n)) }); got != 0 {
			t.Errorf("Get and Put of %d: %v allocations, want 0", n, got)
		}
	}
}

func BenchmarkPool(b *testing.B) {
	b.Run("array", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Put(Get(16 * KiB))
		}
	})
	b.Run("boxed", func(b *testing.B) { // the obvious way
		b.ReportAllocs()
		pool := sync.Pool{New: func() any { return make([]byte, 16*KiB) }}
		for b.Loop() {
			p := pool.Get().([]byte)
			pool.Put(p) //lint:ignore SA6002 the allocation is what is measured
		}
	})
}

func BenchmarkCount(b *testing.B) {
	b.Run("sharded", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			p := Get(KiB)
			defer Put(p)
			n := shardOf(p)
			for pb.Next() {
				n.Add(1)
				n.Add(-1)
			}
		})
	})
	b.Run("one", func(b *testing.B) {
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				n.Add(1)
				n.Add(-1)
			}
		})
	})
}
