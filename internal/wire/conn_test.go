package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// What a turn wrote leaves at its end, and what came is fed.
func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		c, far, _ := s.pair(t, Options{})
		e := newEngine()
		e.onFeed = func(tn *turn.Turn, p []byte) error { c.Write(tn, p); return nil }
		serve(c, e)
		for _, n := range []int{1, 100, 16 << 10, 100 << 10} {
			want := bytes.Repeat([]byte{byte(n)}, n)
			go far.Write(want)
			got := make([]byte, n)
			if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes did not come back whole: %v", n, err)
			}
		}
		until(t, "nothing is buffered", func() bool { return c.Buffered() == 0 })
		far.CloseWrite()
		if err := e.wantClosed(t); err != nil {
			t.Errorf("closed with %v, want nil", err)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer reads %v, want EOF", err)
		}
		far.Close()
		e.wantServed(t)
	})
}

// Buffers given away and copies leave in the order in which they came, and what
// comes too late goes back.
func TestTake(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		c, far, _ := s.pair(t, Options{})
		lend := func(text string) []byte { return append(buf.Get(len(text)), text...) }
		e := newEngine()
		e.onFeed = func(tn *turn.Turn, p []byte) error {
			c.Take(tn, lend("one "))
			c.Write(tn, []byte("two "))
			c.Take(tn, lend("three "))
			c.Take(tn, buf.Get(0))
			c.Take(tn, lend("four"))
			c.CloseWrite(tn)
			c.Take(tn, lend("five"))
			return nil
		}
		serve(c, e)
		far.Write([]byte("?"))
		if got, err := io.ReadAll(far); string(got) != "one two three four" || err != nil {
			t.Errorf("got %q and %v", got, err)
		}
		if n := c.Buffered(); n != 0 {
			t.Errorf("%d bytes are buffered, want none", n)
		}
		far.Close()
		e.wantServed(t)
	})
}

// Bytes keep their order across 64 MiB each way, in random sizes, through full
// sockets and the drain goroutine.
func TestOrder(t *testing.T) {
	total := 64 << 20
	if testing.Short() || raceEnabled {
		total = 8 << 20
	}
	each(t, func(t *testing.T, s setting) {
		var k Counters
		c, far, _ := s.pair(t, Options{Counters: &k})
		setWriteBuffer(c, 64<<10) // full often
		e := newEngine()
		in := sha256.New()
		r := rand.New(rand.NewPCG(3, 4))
		out, sent, received := sha256.New(), 0, 0
		chunk := make([]byte, 200<<10)
		var mu sync.Mutex // pump comes from Feed and from Left
		pump := func(tn *turn.Turn) {
			mu.Lock()
			defer mu.Unlock()
			for sent < total && c.Buffered() <= 256<<10 {
				p := chunk[:min(1+r.IntN(len(chunk)), total-sent)]
				binary.LittleEndian.PutUint64(chunk, r.Uint64())
				out.Write(p)
				c.Write(tn, p)
				sent += len(p)
			}
			if sent == total {
				c.CloseWrite(tn)
			}
		}
		e.onFeed = func(tn *turn.Turn, p []byte) error {
			in.Write(p)
			received += len(p)
			pump(tn)
			return nil
		}
		e.onEOF = func(tn *turn.Turn) bool { return true }
		e.onLeft = pump
		serve(c, e)
		farOut, farIn := sha256.New(), sha256.New()
		go func() {
			r := rand.New(rand.NewPCG(5, 6))
			p := make([]byte, 100<<10)
			for n := 0; n < total; {
				q := p[:min(1+r.IntN(len(p)), total-n)]
				binary.LittleEndian.PutUint64(p, r.Uint64())
				farOut.Write(q)
				if _, err := far.Write(q); err != nil {
					return
				}
				n += len(q)
			}
			far.CloseWrite()
		}()
		n, err := io.Copy(farIn, far)
		if err != nil || n != int64(total) {
			t.Fatalf("the peer read %d bytes, %v; want %d", n, err, total)
		}
		if err := e.wantClosed(t); err != nil || received != total {
			t.Fatalf("received %d bytes, closed with %v; want %d, nil", received, err, total)
		}
		if !bytes.Equal(in.Sum(nil), farOut.Sum(nil)) || !bytes.Equal(farIn.Sum(nil), out.Sum(nil)) {
			t.Error("bytes changed their order or value")
		}
		if k.Drains.Load() == 0 {
			t.Error("the socket was never full: the test does not reach what it is for")
		}
		e.wantServed(t)
	})
}

// A peer that does not read blocks nobody: what it does not take waits, one
// drain goroutine comes and goes, and Left is told.
func TestFullSocket(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		var k Counters
		c, far, _ := s.pair(t, Options{Counters: &k})
		e := newEngine()
		var lefts atomic.Int64
		e.onLeft = func(*turn.Turn) { lefts.Add(1) }
		serve(c, e)
		const total = 32 << 20
		chunk := make([]byte, 64<<10)
		done := make(chan struct{})
		go func() {
			for n := 0; n < total; n += len(chunk) {
				c.Run(func(tn *turn.Turn) { c.Write(tn, chunk) })
			}
			close(done)
		}()
		await(t, "end of writes to a full socket", done)
		if k.Drains.Load() != 1 || c.Buffered() < total/2 {
			t.Errorf("%d drain goroutines and %d buffered, want 1 and more than %d", k.Drains.Load(), c.Buffered(), total/2)
		}
		before := lefts.Load() // from the writes that the socket still took
		if _, err := io.CopyN(io.Discard, far, total); err != nil {
			t.Fatal(err)
		}
		until(t, "Left comes and the drain goroutine ends", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return lefts.Load() == before+1 && !c.flushing
		})
		if got := c.Buffered(); got != 0 {
			t.Errorf("buffered %d, want 0", got)
		}
		c.Run(func(tn *turn.Turn) { c.Write(tn, chunk[:10]); c.Close(tn) })
		rest, err := io.ReadAll(far)
		if err != nil || len(rest) != 10 {
			t.Errorf("then the peer reads %d bytes and %v, want 10 and nil", len(rest), err)
		}
		far.Close()
		e.wantServed(t)
	})
}

// Many goroutines write to one connection, as streams of other connections do
// to a shared upstream one. Each one's records stay whole and in order.
func TestManyWriters(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		const writers, records = 8, 2000
		c, far, _ := s.pair(t, Options{})
		e := newEngine()
		serve(c, e)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), 1))
				p := make([]byte, 3000)
				for i := 0; i < records; {
					c.Run(func(tn *turn.Turn) {
						for range 1 + r.IntN(4) {
							n := 12 + r.IntN(1000)
							binary.BigEndian.PutUint32(p, uint32(n))
							binary.BigEndian.PutUint32(p[4:], uint32(w))
							binary.BigEndian.PutUint32(p[8:], uint32(i))
							if i < records {
								c.Write(tn, p[:n])
							}
							i++
						}
					})
				}
			})
		}
		var next [writers]uint32
		head, body := make([]byte, 12), make([]byte, 3000)
		for range writers * records {
			if _, err := io.ReadFull(far, head); err != nil {
				t.Fatal(err)
			}
			n, w, i := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
			if w >= writers || i != next[w] || n > 1012 {
				t.Fatalf("record %d of writer %d with %d bytes, want record %d", i, w, n, next[w])
			}
			next[w]++
			if _, err := io.ReadFull(far, body[:n-12]); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
		if err := e.wantClosed(t); !errors.Is(err, ErrAborted) {
			t.Errorf("closed with %v, want ErrAborted", err)
		}
		e.wantServed(t)
	})
}

// A reader with Park holds what the engine has not consumed to about Park, and
// goes on when it has.
func TestPark(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		const park = 64 << 10
		var k Counters
		c, far, _ := s.pair(t, Options{Park: park, Counters: &k})
		e := newEngine()
		got := make(chan int, 10000)
		e.onFeed = func(_ *turn.Turn, p []byte) error { got <- len(p); return nil }
		serve(c, e)
		const total = 16 << 20
		go far.Write(make([]byte, total))
		received, held := 0, 0
		for received < total {
			until(t, "the reader parks or all has come", func() bool {
				for len(got) > 0 {
					n := <-got
					received, held = received+n, held+n
				}
				return c.parked.Load() || received == total
			})
			for len(got) > 0 {
				n := <-got
				received, held = received+n, held+n
			}
			if held > park+plainSize {
				t.Fatalf("%d bytes unconsumed, want at most %d and one read", held, park)
			}
			c.Consume(nil, held)
			held = 0
		}
		if k.Parks.Load() == 0 {
			t.Error("the reader never parked")
		}
		c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
		e.wantServed(t)
	})
}

// A reader that goes on before anything more has come hears of what comes then.
func TestParkAndRest(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		c, far, _ := s.pair(t, Options{Park: 1})
		e := newEngine()
		got := make(chan struct{}, 1)
		e.onFeed = func(*turn.Turn, []byte) error { got <- struct{}{}; return nil }
		serve(c, e)
		for range 3 {
			far.Write([]byte("a"))
			await(t, "byte", got)
			until(t, "the reader parks", c.parked.Load)
			c.Consume(nil, 1)
			until(t, "the reader goes on", func() bool { return !c.parked.Load() })
		}
		c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
		e.wantServed(t)
	})
}

// A parked reader is woken by what ends the connection.
func TestParkedEnds(t *testing.T) {
	for name, end := range map[string]func(c *Conn, tn *turn.Turn){
		"close": func(c *Conn, tn *turn.Turn) { c.Close(tn) },
		"abort": func(c *Conn, tn *turn.Turn) { c.Abort(tn, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s setting) {
				c, far, _ := s.pair(t, Options{Park: 1})
				e := newEngine()
				serve(c, e)
				far.Write([]byte("hello"))
				until(t, "the reader parks", c.parked.Load)
				c.Run(func(tn *turn.Turn) { end(c, tn) })
				e.wantClosed(t)
				far.Close()
				e.wantServed(t)
			})
		})
	}
}
