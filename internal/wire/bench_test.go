package wire

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// cpu reports the processor time of the process per operation: wall time of a
// loopback tells more about how its two ends are scheduled.
func cpu(b *testing.B) func() {
	now := func() int64 {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := now()
	return func() { b.ReportMetric(float64(now()-start)/float64(b.N), "cpu-ns/op") }
}

// A waiter blocks a writer as a full socket would, where the other side of a
// comparison does.
type waiter struct {
	testEngine
	left sync.Cond
}

func newWaiter(c *Conn) *waiter {
	w := new(waiter)
	w.left.L = new(sync.Mutex)
	c.mu.Lock()
	c.engine = w
	c.mu.Unlock()
	return w
}

func (w *waiter) Left(*turn.Turn) {
	w.left.L.Lock()
	w.left.Broadcast()
	w.left.L.Unlock()
}

func (w *waiter) wait(c *Conn, limit int) {
	if c.Buffered() <= limit {
		return
	}
	w.left.L.Lock()
	for c.Buffered() > limit {
		w.left.Wait()
	}
	w.left.L.Unlock()
}

// One round trip through a connection whose engine echoes.
func BenchmarkTurn(b *testing.B) {
	for _, s := range settings {
		for _, n := range []int{100, 1000, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				c, far, _ := s.pair(b, Options{})
				e := newEngine()
				e.onFeed = func(tn *turn.Turn, p []byte) error { c.Write(tn, p); return nil }
				serve(c, e)
				p := make([]byte, n)
				b.ReportAllocs()
				b.SetBytes(int64(n))
				done := cpu(b)
				for b.Loop() {
					far.Write(p)
					if _, err := io.ReadFull(far, p); err != nil {
						b.Fatal(err)
					}
				}
				done()
				b.StopTimer()
				far.Close()
				<-e.served
			})
		}
	}
}

// What a turn writes leaves in one write; the obvious way writes each piece.
func BenchmarkFlush(b *testing.B) {
	const pieces, size = 10, 200
	for _, s := range settings {
		for _, each := range []bool{false, true} {
			b.Run(s.name+map[bool]string{false: "/turn", true: "/write"}[each], func(b *testing.B) {
				c, far, raw := s.pair(b, Options{})
				go io.Copy(io.Discard, raw) // decrypting is not what is measured
				p := make([]byte, size)
				var tn turn.Turn
				b.SetBytes(pieces * size)
				done := cpu(b)
				for b.Loop() {
					for range pieces {
						c.Write(&tn, p)
						if each {
							tn.End()
						}
					}
					tn.End()
				}
				done()
				b.ReportMetric(float64(c.Stats().Writes)/float64(b.N), "writes/op")
				b.StopTimer()
				c.drains.Wait()
				c.drv.close(true)
				_ = far
			})
		}
	}
}

// What an engine hands on at the end of a turn, given away and copied.
func BenchmarkTake(b *testing.B) {
	for _, n := range []int{4 << 10, 32 << 10} {
		for _, give := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/%s", n, map[bool]string{true: "take", false: "write"}[give]), func(b *testing.B) {
				c, far, _ := settings[0].pair(b, Options{})
				defer far.Close()
				var tn turn.Turn
				for b.Loop() {
					p := buf.Get(n)[:n]
					if give {
						c.Take(&tn, p)
					} else {
						c.Write(&tn, p)
						buf.Put(p)
					}
					buf.Put(c.out) // in the place of a flush
					c.out = nil
					c.buffered.Store(0)
				}
				c.drv.close(true)
			})
		}
	}
}

// Records of one flush leave in one write; tls.Conn by itself makes one each.
func BenchmarkRecords(b *testing.B) {
	const size = 64 << 10
	p := make([]byte, size)
	b.Run("together", func(b *testing.B) {
		c, _, raw := tlsPair(b, Options{})
		w := newWaiter(c)
		go io.Copy(io.Discard, raw)
		var tn turn.Turn
		b.SetBytes(size)
		done := cpu(b)
		for b.Loop() {
			c.Write(&tn, p)
			tn.End()
			w.wait(c, 4*size)
		}
		done()
		b.ReportMetric(float64(c.Stats().Writes)/float64(b.N), "writes/op")
		b.StopTimer()
		c.drains.Wait()
		c.drv.close(true)
	})
	b.Run("each", func(b *testing.B) {
		c, _, raw := tlsPair(b, Options{})
		c.rec.async = false // as any transport
		go io.Copy(io.Discard, raw)
		b.SetBytes(size)
		done := cpu(b)
		for b.Loop() {
			out := buf.Append(nil, p) // an out buffer all the same
			c.tc.Write(out)
			buf.Put(out)
		}
		done()
		b.ReportMetric(float64(c.Stats().Writes)/float64(b.N), "writes/op")
		b.StopTimer()
		c.drv.close(true)
	})
}

// A locked connection is the obvious way to share one: encrypt and write under
// the mutex that guards the out buffer.
type locked struct {
	mu  sync.Mutex
	out []byte
	tc  *tls.Conn
	nc  net.Conn
}

func (l *locked) write(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, p...)
}

func (l *locked) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.out) == 0 {
		return
	}
	if l.tc != nil {
		l.tc.Write(l.out)
	} else {
		l.nc.Write(l.out)
	}
	l.out = l.out[:0]
}

// Several turns at a time write to one connection, as those of downstream
// connections do to a shared upstream one.
func BenchmarkSharedFlush(b *testing.B) {
	p := make([]byte, 1280)
	for _, s := range settings {
		b.Run(s.name+"/combined", func(b *testing.B) {
			c, _, raw := s.pair(b, Options{})
			w := newWaiter(c)
			go io.Copy(io.Discard, raw)
			b.SetBytes(int64(len(p)))
			b.SetParallelism(8)
			done := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				var tn turn.Turn
				for pb.Next() {
					c.Write(&tn, p)
					tn.End()
					w.wait(c, 1<<20)
				}
			})
			done()
			b.ReportMetric(float64(c.Stats().Writes)/float64(b.N), "writes/op")
			b.StopTimer()
			c.drains.Wait()
			c.drv.close(true)
		})
		b.Run(s.name+"/locked", func(b *testing.B) {
			c, _, raw := s.pair(b, Options{})
			if c.rec != nil {
				c.rec.async = false
			}
			l := &locked{tc: c.tc, nc: c.nc}
			go io.Copy(io.Discard, raw)
			b.SetBytes(int64(len(p)))
			b.SetParallelism(8)
			done := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.write(p)
					l.flush()
				}
			})
			done()
			b.StopTimer()
			c.drv.close(true)
		})
	}
}
