package filters

import (
	"fmt"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// plainFilter has the two head phases and does nothing.
type plainFilter struct{ _ int } // not of size 0: each has an address of its own

func (f *plainFilter) Request(*Stream) *Reply  { return nil }
func (f *plainFilter) Response(*Stream) *Reply { return nil }

// everyPhase has all but Conn.
type everyPhase struct{ plainFilter }

func (f *everyPhase) RequestBody(*Stream, *message.Chunk) *Reply  { return nil }
func (f *everyPhase) ResponseBody(*Stream, *message.Chunk) *Reply { return nil }
func (f *everyPhase) Done(*Stream)                                {}

func TestChainAllocatesNothing(t *testing.T) {
	slot := NewSlot[plainFilter](NewBuilder(Env{}))
	kept := &plainFilter{}
	c, err := NewChain(RouteLevel, &everyPhase{}, &everyPhase{}, &everyPhase{})
	if err != nil {
		t.Fatal(err)
	}
	c.slots = 1
	slot.level = RouteLevel
	s, e := new(Stream), newEngine()
	chunk := &message.Chunk{Data: []byte("x")}
	got := testing.AllocsPerRun(1000, func() {
		s.Bind(e)
		c.Request(s)
		slot.Set(s, kept)
		c.RequestBody(s, chunk)
		c.Response(s)
		c.ResponseBody(s, chunk)
		c.Done(s)
		s.Reset()
	})
	if got != 0 {
		t.Errorf("%v allocations per stream, want 0", got)
	}
}

func TestWaitingAllocatesNothing(t *testing.T) {
	f := new(suspender)
	c, err := NewChain(RouteLevel, f)
	if err != nil {
		t.Fatal(err)
	}
	s, e := new(Stream), quietEngine{}
	s.tick = sampleEvery
	got := testing.AllocsPerRun(1000, func() {
		s.Bind(e)
		if c.Request(s) != Wait {
			t.Fatal("did not wait")
		}
		gen, _ := s.Waiting()
		f.waker.Resume(nil)
		if _, ok := s.Resumed(gen); !ok {
			t.Fatal("not resumed")
		}
		c.Request(s)
		s.Reset()
	})
	if got != 0 {
		t.Errorf("%v allocations per wait, want 0", got)
	}
}

type quietEngine struct{}

func (quietEngine) Resume(*Stream, uint64) {}

// BenchmarkChain is the cost of a chain whose filters have the two head phases.
func BenchmarkChain(b *testing.B) {
	for _, n := range []int{0, 1, 5, 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var list []Filter
			for range n {
				list = append(list, &plainFilter{})
			}
			c, err := NewChain(RouteLevel, list...)
			if err != nil {
				b.Fatal(err)
			}
			var s Stream
			b.ReportAllocs()
			for b.Loop() {
				s.runs[RouteLevel] = run{} // what Reset would do
				c.Request(&s)
				c.Response(&s)
			}
		})
	}
}

// BenchmarkReset is what making a stream ready again costs.
func BenchmarkReset(b *testing.B) {
	var s Stream
	for b.Loop() {
		s.Reset()
	}
}
