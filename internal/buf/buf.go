package buf

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// Sizes of the classes. Class sizes are chosen for what is read and written:
// a head, a small response, one TLS record's plaintext, one record's
// ciphertext, a bulk read, a bulk flush.
const (
	KiB   = 1 << 10
	large = 128 * KiB // the largest class, and the unit of what lies beyond
)

// A pool holds *[N]byte, which fits an interface without an allocation; a
// []byte would be boxed on every Put. BenchmarkPool/boxed: 1 alloc, /array: 0.
var pool1, pool4, pool16, pool32, pool64, pool128 sync.Pool

// shards count what is lent, how many buffers and above sizeShift how many KiB. A buffer is counted in the shard its address
// chooses, on Get and on Put alike, so the sum is exact and a goroutine that
// borrows the same buffer again meets no other. BenchmarkCount.
var shards [16]struct {
	n atomic.Int64
	_ [56]byte
}

// Get lends an empty buffer with room for at least n bytes.
func Get(n int) []byte {
	b := get(n)
	shardOf(b).Add(counted(b))
	if Check {
		lend(b)
	}
	return b
}

func get(n int) []byte {
	switch {
	case n <= 1*KiB:
		if a, ok := pool1.Get().(*[1 * KiB]byte); ok {
			return a[:0]
		}
		return make([]byte, 0, 1*KiB)
	case n <= 4*KiB:
		if a, ok := pool4.Get().(*[4 * KiB]byte); ok {
			return a[:0]
		}
		return make([]byte, 0, 4*KiB)
	case n <= 16*KiB:
		if a, ok := pool16.Get().(*[16 * KiB]byte); ok {
			return a[:0]
		}
		return make([]byte, 0, 16*KiB)
	case n <= 32*KiB:
		if a, ok := pool32.Get().(*[32 * KiB]byte); ok {
			return a[:0]
		}
		return make([]byte, 0, 32*KiB)
	case n <= 64*KiB:
		if a, ok := pool64.Get().(*[64 * KiB]byte); ok {
			return a[:0]
		}
		return make([]byte, 0, 64*KiB)
	case n <= large:
		if a, ok := pool128.Get().(*[large]byte); ok {
			return a[:0]
		}
		return make([]byte, 0, large)
	}
	return make([]byte, 0, (n+large-1)/large*large)
}

// Put takes back a buffer that Get lent. A nil buffer is allowed; one that was
// not lent, or is not whole, is left to the collector.
func Put(b []byte) {
	if cap(b) == 0 || !lendable(cap(b)) {
		if Check && cap(b) > 0 {
			panic("buf: returned buffer is not whole or was not lent")
		}
		return
	}
	b = b[:cap(b)]
	if Check {
		takeBack(b)
	}
	shardOf(b).Add(-counted(b))
	switch cap(b) {
	case 1 * KiB:
		pool1.Put((*[1 * KiB]byte)(b))
	case 4 * KiB:
		pool4.Put((*[4 * KiB]byte)(b))
	case 16 * KiB:
		pool16.Put((*[16 * KiB]byte)(b))
	case 32 * KiB:
		pool32.Put((*[32 * KiB]byte)(b))
	case 64 * KiB:
		pool64.Put((*[64 * KiB]byte)(b))
	case large:
		pool128.Put((*[large]byte)(b))
	}
}

// lendable reports whether a capacity is one that Get gives.
func lendable(c int) bool {
	switch c {
	case 1 * KiB, 4 * KiB, 16 * KiB, 32 * KiB, 64 * KiB:
		return true
	}
	return c > 0 && c%large == 0
}

// Append appends p to b, which was lent or is nil. When b is full its bytes
// move to a larger buffer and b goes back; so the result replaces b.
func Append(b, p []byte) []byte {
	if len(p) <= cap(b)-len(b) {
		return append(b, p...)
	}
	return append(Grow(b, len(p)), p...)
}

// Grow makes room for n more bytes after b, which was lent or is nil; b goes
// back if its bytes had to move.
func Grow(b []byte, n int) []byte {
	if n <= cap(b)-len(b) {
		return b
	}
	need := len(b) + n
	if double := 2 * cap(b); double > need && cap(b) >= large {
		need = double // beyond the classes: copies stay linear in what is appended
	}
	nb := append(Get(need), b...)
	Put(b)
	return nb
}

// Shrink moves b's bytes to a smaller buffer where that saves memory: for what
// has to be kept while nothing happens. An empty b goes back and nil returns.
func Shrink(b []byte) []byte {
	if len(b) == 0 {
		Put(b)
		return nil
	}
	if 2*len(b) > cap(b) || cap(b) == 1*KiB {
		return b
	}
	nb := append(Get(len(b)), b...)
	Put(b)
	return nb
}

// Outstanding returns how many buffers are lent and have not come back.
func Outstanding() int64 { return outstanding() & (1<<sizeShift - 1) }

// Lent returns how many bytes those buffers have.
func Lent() int64 { return outstanding() >> sizeShift * KiB }

const sizeShift = 24

// counted is what a buffer adds to its shard.
func counted(b []byte) int64 { return int64(cap(b))/KiB<<sizeShift + 1 }

func outstanding() int64 {
	var n int64
	for i := range shards {
		n += shards[i].n.Load()
	}
	return n
}

func shardOf(b []byte) *atomic.Int64 {
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return &shards[(p>>10^p>>16)%uintptr(len(shards))].n
}
