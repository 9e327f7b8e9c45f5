package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
)

// However a connection is used and ended, from several goroutines at once, Serve
// returns, Closed comes once and last, and nothing stays behind (TestMain); also
// while its reader sheds its stack over and over.
func TestRandomEnds(t *testing.T) {
	w := wheel.New()
	w.Start()
	defer w.Close()
	rounds := 150
	if raceEnabled || testing.Short() {
		rounds = 40
	}
	each(t, func(t *testing.T, s setting) {
		var k Counters
		for seed := range rounds {
			r := rand.New(rand.NewPCG(uint64(seed), 9))
			o := Options{Linger: 30 * time.Millisecond, Wheel: w, Tick: wheel.Tick, Park: []int{0, 1, 64 << 10}[r.IntN(3)], Counters: &k}
			c, far, raw := s.pair(t, o)
			e := newEngine()
			keep := r.IntN(2) == 0
			e.onFeed = func(tn *turn.Turn, p []byte) error { c.Write(tn, p); c.Consume(tn, len(p)); return nil }
			e.onEOF = func(*turn.Turn) bool { return keep }
			serve(c, e)
			stop := func() {}
			if r.IntN(2) == 0 {
				stop = ticking(c, e)
			}
			var wg sync.WaitGroup
			for range 3 {
				r := rand.New(rand.NewPCG(r.Uint64(), 9))
				wg.Go(func() {
					for range 1 + r.IntN(10) {
						c.Run(func(tn *turn.Turn) { use(c, tn, r) })
					}
				})
			}
			wg.Go(func() { misuse(far, raw.SetLinger, rand.New(rand.NewPCG(uint64(seed), 10))) })
			wg.Wait()
			if r.IntN(2) == 0 {
				raw.Close()
			}
			if keep { // nobody else would end it
				c.Run(func(tn *turn.Turn) { c.Close(tn) })
			}
			raw.Close()
			e.wantServed(t)
			stop()
		}
		if k.Sheds.Load() == 0 && !s.loop {
			t.Error("no reader has shed its stack")
		}
	})
}

func use(c *Conn, tn *turn.Turn, r *rand.Rand) {
	switch n := r.IntN(40); {
	case n == 0:
		c.Abort(tn, 0)
	case n == 1:
		c.Close(tn)
	case n == 2:
		c.CloseWrite(tn)
	case n < 6:
		c.Write(tn, make([]byte, r.IntN(1<<20)))
	default:
		c.Write(tn, make([]byte, r.IntN(1<<10)))
	}
}

func misuse(far peer, setLinger func(int) error, r *rand.Rand) {
	p := make([]byte, 100<<10)
	for range r.IntN(20) {
		switch n := r.IntN(20); {
		case n == 0:
			setLinger(0)
			far.Close()
		case n == 1:
			far.CloseWrite()
		case n < 10:
			io.ReadAtLeast(io.LimitReader(far, 1<<10), p, 1)
			return
		default:
			far.Write(p[:r.IntN(len(p))])
		}
	}
}

// What crypto/tls is given is what came, in order, and never reaches over the
// end of a record that is not whole.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x17\x03\x03\x00\x01x\x17\x03\x03\x00\x02yz"), uint16(5), uint16(600), true)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(3), uint16(5), false)
	f.Add(append([]byte("\x17\x03\x03\x02\x00"), make([]byte, 600)...), uint16(100), uint16(300), true)
	f.Fuzz(func(t *testing.T, in []byte, piece, room uint16, async bool) {
		r := &records{async: async, st: new(stats)}
		p := make([]byte, max(int(room), recordHeader))
		var got []byte
		rest := in
		step := max(int(piece)+1, len(in)/200) // many small pieces take long and show nothing new
		for len(rest) > 0 {
			n := min(step, len(rest))
			r.in = buf.Append(r.in, rest[:n])
			rest = rest[n:]
			for {
				n := r.next(len(p))
				if n == 0 {
					break
				}
				copy(p, r.in[r.off:r.off+n])
				got = append(got, p[:n]...)
				r.off += n
			}
			if r.ready() && r.owed == 0 {
				t.Fatal("ready, but nothing was handed over")
			}
			r.compact()
		}
		if !bytes.HasPrefix(in, got) || !bytes.Equal(in[len(got):], r.in) {
			t.Fatalf("handed over %d bytes and kept %d of %d", len(got), len(r.in), len(in))
		}
		if want := twinHandedOver(in, async); len(got) != want {
			t.Fatalf("handed over %d bytes, want %d", len(got), want)
		}
		r.discard()
	})
}

// twinHandedOver walks the records one by one: whole ones go, and without async
// the last one's beginning too, once its header is there.
func twinHandedOver(in []byte, async bool) int {
	at := 0
	for {
		l := recordLen(in[at:])
		switch {
		case l == 0:
			return at
		case at+l > len(in) && async:
			return at
		case at+l > len(in):
			return len(in)
		}
		at += l
	}
}
