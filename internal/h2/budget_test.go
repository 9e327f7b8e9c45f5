package h2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// nowhere is a sink that takes everything at once.
type nowhere struct{ n int }

func (s *nowhere) Write(_ *turn.Turn, p []byte) { s.n += len(p) }
func (s *nowhere) Buffered() int                { return 0 }
func (s *nowhere) CloseWrite(*turn.Turn)        {}
func (s *nowhere) Abort(*turn.Turn, uint32)     {}

// idle is a handler that takes everything and gives credit at once.
type idle struct{ s *Stream }

func (h *idle) Request(_ *turn.Turn, s *Stream, _ []Field, _ bool) { h.s = s; s.Handle(h) }
func (h *idle) GoneAway(*turn.Turn, uint32, uint32, string)        {}
func (h *idle) Idle(*turn.Turn)                                    {}
func (h *idle) Headers(*turn.Turn, *Stream, []Field, bool)         {}
func (h *idle) Data(t *turn.Turn, s *Stream, p []byte, _ bool)     { s.Consume(t, len(p)) }
func (h *idle) Left(*turn.Turn, *Stream)                           {}
func (h *idle) Closed(*turn.Turn, *Stream, error)                  {}

// A bench is a server connection with one tunnel, and a peer that only writes.
type bench struct {
	c  *Conn
	h  idle
	t  turn.Turn
	b  bytes.Buffer
	fr *http2.Framer
	hb bytes.Buffer
	he *hpack.Encoder
}

func newBench(tb testing.TB, sink turn.Sink, o Options) *bench {
	b := &bench{}
	b.fr = http2.NewFramer(&b.b, nil)
	b.he = hpack.NewEncoder(&b.hb)
	b.c = NewConn(sink, &b.h, o)
	b.c.Start(&b.t)
	b.b.WriteString(clientPreface)
	b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	b.fr.WriteSettingsAck()
	b.fr.WriteWindowUpdate(0, 1<<30)
	b.connect(1, tunnelHead)
	b.feed(tb, b.take())
	b.h.s.SendHeaders(&b.t, ok200, false)
	b.t.End()
	tb.Cleanup(func() { b.c.Closed(&b.t, io.EOF); b.t.End() })
	return b
}

func (b *bench) connect(id uint32, fields []Field) {
	b.hb.Reset()
	for _, f := range fields {
		b.he.WriteField(hpack.HeaderField{Name: string(f.Name), Value: string(f.Value)})
	}
	b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: b.hb.Bytes()})
}

// tunnelHead is what ztunnel sends.
var tunnelHead = []Field{
	NewField(":method", "CONNECT"),
	NewField(":authority", "10.96.11.7:8080"),
	NewField("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=curl,service.name=curl,service.version=v1"),
	NewField("forwarded", `for="10.244.0.17:41234"`),
	NewField("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
}

func (b *bench) take() []byte {
	p := bytes.Clone(b.b.Bytes())
	b.b.Reset()
	return p
}

func (b *bench) feed(tb testing.TB, p []byte) {
	if err := b.c.Feed(&b.t, p); err != nil {
		tb.Fatal(err)
	}
	b.t.End()
}

// reopen gives the Conn's window towards the peer back without frames.
func (b *bench) reopen() {
	b.c.sendWin, b.h.s.sendWin = 1<<30, 1<<30
	b.c.rate = rates{}
}

// Sizes are budgets: 1,000 idle tunnels cost one of these each, and their maps'
// entries.
func TestSizes(t *testing.T) {
	if got, most := unsafe.Sizeof(Stream{}), uintptr(192); got != most {
		t.Errorf("a Stream has %d bytes, the budget is %d: keep to it, or tighten it", got, most)
	}
	const line = 64
	var s Stream
	if unsafe.Offsetof(s.sendWin) > line || unsafe.Offsetof(s.prev) > 2*line {
		t.Errorf("what DATA needs ends at %d and %d: it has a cache line for receiving, and one for sending",
			unsafe.Offsetof(s.sendWin), unsafe.Offsetof(s.prev))
	}
	if got, most := unsafe.Sizeof(Conn{}), uintptr(1760); got > most || got <= most-256 {
		t.Errorf("a Conn has %d bytes, the budget is %d: keep to it, or tighten it", got, most)
	}
}

// exact skips a test where pools or ledgers do otherwise than in the program.
func exact(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("this build allocates for its checks")
	}
}

func TestAllocs(t *testing.T) {
	exact(t)
	b := newBench(t, &nowhere{}, Options{Limits: wide})
	data := func(n int, flags byte) []byte {
		b.fr.WriteRawFrame(http2.FrameData, http2.Flags(flags), 1, make([]byte, n))
		return b.take()
	}
	small, large, padded := data(1280, 0), data(16<<10, 0), data(300, flagPadded)
	b.fr.WritePing(false, [8]byte{})
	ping := b.take()
	b.fr.WriteWindowUpdate(1, 1)
	b.fr.WriteWindowUpdate(0, 1)
	window := b.take()
	p := make([]byte, 40<<10)
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"DATA in", func() { b.feed(t, small) }},
		{"large DATA in, in pieces", func() { b.feed(t, large[:100]); b.feed(t, large[100:]) }},
		{"padded DATA in", func() { b.feed(t, padded) }},
		{"PING", func() { b.feed(t, ping[:5]); b.feed(t, ping[5:]) }},
		{"WINDOW_UPDATE", func() { b.feed(t, window) }},
		{"DATA out", func() { b.h.s.Write(&b.t, p[:1280]); b.t.End() }},
		{"large DATA out", func() { b.h.s.Write(&b.t, p); b.t.End() }},
		{"DATA through the queue", func() {
			b.c.sendWin = 0
			b.h.s.Write(&b.t, p)
			b.c.sendWin = 1 << 30
			b.t.End()
		}},
		{"Tick", func() { b.c.Tick(&b.t); b.t.End() }},
	} {
		tt.f()
		if got := testing.AllocsPerRun(200, func() { b.reopen(); tt.f() }); got != 0 {
			t.Errorf("%s: %v allocations, want 0", tt.name, got)
		}
	}
	if st := b.c.Stats(); st.DataFramesOut < 1000 || b.h.s.queued != 0 {
		t.Errorf("stats %+v, queue %d: the writes did not leave", st, b.h.s.queued)
	}
}

// What a tunnel costs to open and to reset: the Stream and the StreamError; in,
// one string for each field whose value has not come before; out, the handler.
// Fields that the HPACK tables take cost no more once those are full.
func TestAllocsPerTunnel(t *testing.T) {
	exact(t)
	const runs = 250
	for _, tt := range []struct {
		name  string
		fresh int // the first fields of tunnelHead with a value of their own
		most  float64
	}{
		{"in, known fields", 0, 2},
		{"in, four fresh values", 5, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, &nowhere{}, Options{Limits: wide})
			var heads [][]byte
			for i := range uint32(2 * runs) {
				id := 2*i + 3
				fields := slices.Clone(tunnelHead)
				for j := 1; j < tt.fresh; j++ {
					fields[j].Value = fmt.Appendf(nil, "%s%04d", fields[j].Value, i)
				}
				b.connect(id, fields)
				b.fr.WriteRSTStream(id, http2.ErrCodeCancel)
				heads = append(heads, b.take())
			}
			for range runs - 10 {
				b.feed(t, heads[0])
				heads = heads[1:]
			}
			got := testing.AllocsPerRun(runs, func() { b.feed(t, heads[0]); heads = heads[1:] })
			if got != tt.most {
				t.Errorf("%v allocations for a tunnel, the budget is %v: keep to it, or tighten it", got, tt.most)
			}
		})
	}
	t.Run("out", func(t *testing.T) {
		c := NewConn(&nowhere{}, &idle{}, Options{Client: true})
		var tu turn.Turn
		c.Start(&tu)
		tu.End()
		fields := append([]Field(nil), tunnelHead...)
		for i := 2; i < len(fields); i++ {
			fields[i].Sensitive = true
		}
		open := func() {
			s, err := c.Open(&tu, &idle{}, fields, false)
			if err != nil {
				t.Fatal(err)
			}
			s.Abort(&tu, CodeCancel)
			tu.End()
		}
		open()
		if got, most := testing.AllocsPerRun(200, open), 3.0; got != most { // handler, Stream, StreamError
			t.Errorf("%v allocations to open a tunnel, the budget is %v: keep to it, or tighten it", got, most)
		}
	})
}

// An idle connection, and idle tunnels on it, hold no buffers and little else.
func TestIdleMemory(t *testing.T) {
	exact(t)
	measure := func(n int, f func(i int)) uint64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n {
			f(i)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		return (max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc) / uint64(n)
	}
	out := buf.Outstanding()
	conns := make([]*bench, 100)
	perConn := measure(len(conns), func(i int) {
		conns[i] = newBench(t, &nowhere{}, Options{MaxStreams: 1001})
		conns[i].b, conns[i].hb, conns[i].fr, conns[i].he = bytes.Buffer{}, bytes.Buffer{}, nil, nil
	})
	b := newBench(t, &nowhere{}, Options{MaxStreams: 1001})
	perStream := measure(1000, func(i int) {
		b.connect(uint32(2*i+3), tunnelHead)
		b.feed(t, b.take())
	})
	t.Logf("idle connection with one tunnel %d bytes, another tunnel %d bytes", perConn, perStream)
	if perConn > 8<<10 || perStream > 512 {
		t.Errorf("idle connection %d bytes, tunnel %d bytes; want at most 8192 and 512", perConn, perStream)
	}
	if n := buf.Outstanding() - out; n != 0 {
		t.Errorf("idle connections hold %d buffers", n)
	}
	runtime.KeepAlive(conns)
}

func BenchmarkDataIn(b *testing.B) {
	for name, n := range map[string]int{"1280": 1280, "16K": 16 << 10} {
		b.Run(name, func(b *testing.B) {
			x := newBench(b, &nowhere{}, Options{})
			x.fr.WriteData(1, false, make([]byte, n))
			p := x.take()
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				x.feed(b, p)
			}
		})
	}
}

func BenchmarkDataOut(b *testing.B) {
	for name, n := range map[string]int{"1280": 1280, "16K": 16 << 10, "64K": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			x := newBench(b, &nowhere{}, Options{})
			p := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				x.h.s.Write(&x.t, p)
				x.t.End()
				x.reopen()
			}
		})
	}
}

func BenchmarkTunnelIn(b *testing.B) {
	x := newBench(b, &nowhere{}, Options{Limits: wide})
	x.connect(3, tunnelHead)
	p := x.take()
	b.ReportAllocs()
	id := uint32(3)
	for b.Loop() {
		p[5], p[6], p[7], p[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		x.feed(b, p)
		x.h.s.Abort(&x.t, CodeCancel)
		id += 2
	}
}

// BenchmarkBatch is what one turn does on a mesh connection with 32 tunnels: a
// DATA frame in and one out for each. Per frame pair.
func BenchmarkBatch(b *testing.B) {
	x := newBench(b, &nowhere{}, Options{})
	in := make([]byte, 300)
	x.fr.WriteData(1, false, in)
	streams := []*Stream{x.h.s}
	batch := x.take()
	for id := uint32(3); len(streams) < 32; id += 2 {
		x.connect(id, tunnelHead)
		x.feed(b, x.take())
		x.h.s.SendHeaders(&x.t, ok200, false)
		streams = append(streams, x.h.s)
		x.fr.WriteData(id, false, in)
		batch = append(batch, x.take()...)
	}
	out := make([]byte, 1100)
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range streams {
			s.Write(&x.t, out)
		}
		x.feed(b, batch)
		for _, s := range streams {
			x.h.s = s
			x.reopen()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(streams)), "ns/pair")
}

// BenchmarkMerge: sixteen small writes of a turn in one DATA frame, and apart
// (another stream's between them). The peer reads the frames with http2.Framer.
func BenchmarkMerge(b *testing.B) {
	for _, name := range []string{"merged", "apart"} {
		b.Run(name, func(b *testing.B) {
			sink := &testSink{}
			x := newBench(b, sink, Options{})
			one := x.h.s
			x.connect(3, tunnelHead)
			x.feed(b, x.take())
			other := x.h.s
			other.SendHeaders(&x.t, ok200, false)
			x.t.End()
			fr := http2.NewFramer(io.Discard, &sink.out)
			fr.SetReuseFrames()
			sink.out.Reset()
			p := make([]byte, 200)
			frames := 0
			for b.Loop() {
				for range 8 {
					one.Write(&x.t, p)
					if name == "apart" {
						other.Write(&x.t, p)
					}
				}
				if name == "merged" {
					for range 8 {
						other.Write(&x.t, p)
					}
				}
				x.t.End()
				for sink.out.Len() > 0 {
					if _, err := fr.ReadFrame(); err != nil {
						b.Fatal(err)
					}
					frames++
				}
				x.reopen()
				one.sendWin = 1 << 30
			}
			b.ReportMetric(float64(frames)/float64(b.N), "frames/op")
		})
	}
}

// socket writes to a real one as soon as it is written to.
type socket struct {
	nowhere
	nc net.Conn
}

func (s *socket) Write(_ *turn.Turn, p []byte) { s.nc.Write(p) }

// BenchmarkFlush: sixteen streams write in a turn, which is flushed once at its
// end, and after each write.
func BenchmarkFlush(b *testing.B) {
	for _, name := range []string{"once", "each"} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Skip(err)
			}
			defer l.Close()
			go func() {
				if nc, err := l.Accept(); err == nil {
					io.Copy(io.Discard, nc)
				}
			}()
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			x := newBench(b, &socket{nc: nc}, Options{})
			streams := []*Stream{x.h.s}
			for id := uint32(3); len(streams) < 16; id += 2 {
				x.connect(id, tunnelHead)
				x.feed(b, x.take())
				x.h.s.SendHeaders(&x.t, ok200, false)
				streams = append(streams, x.h.s)
			}
			p := []byte(strings.Repeat("x", 300))
			for b.Loop() {
				for _, s := range streams {
					s.Write(&x.t, p)
					if name == "each" {
						x.t.End()
					}
					s.sendWin = 1 << 30
				}
				x.t.End()
				x.reopen()
			}
		})
	}
}
