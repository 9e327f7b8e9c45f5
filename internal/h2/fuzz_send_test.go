package h2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// sendTwin is what a peer knows of a server's stream, and what the stream's
// writer does.
type sendTwin struct {
	s       *Stream
	wrote   int   // by the writer; byte i is byte(i)
	got     int   // by the peer
	window  int64 // that the peer has given
	ends    []int // behind how many bytes of the connection each frame ended
	sizes   []int
	ended   bool // the writer has
	gotEnd  bool
	aborted bool
	high    bool // it has held more than the low mark, as it said itself
}

// held is how many of the stream's bytes have not left, exactly.
func (x *sendTwin) held(left int) int {
	n := x.wrote - x.got
	for i, end := range x.ends {
		n += min(x.sizes[i], max(0, end-left))
	}
	return n
}

type sendFuzz struct {
	*testConn
	streams []*sendTwin
	window  int64
	total   int // bytes that the Conn wrote
}

// FuzzSend lets streams write, end, abort, and the peer and the socket take at
// any pace. The peer sees whole streams in order, within its windows, and
// Buffered and Left keep their promises.
func FuzzSend(f *testing.F) {
	f.Add([]byte("\x00\xff\x01\xff\x02\x10\x10\xff\x11\xff\x20\x30\x40\xff\x50\xff\x00\xff"))
	f.Add([]byte("\x00\xff\x00\xff\x00\xff\x00\xff\x60\x01\x02\x40\xff\x41\xff\x50\x80\x50\xff\x20\x50\xff"))
	f.Add([]byte("\x70\x00\x40\xff\x00\xff\x00\x80\x50\x20\x50\x20\x50\xff\x01\x05\x30\x00\x31\x00"))
	f.Add([]byte(strings.Repeat("\x40\xff\x41\xff\x42\xff\x00\xff\x01\x80\x02\x10\x50\xff", 20)))
	f.Fuzz(func(t *testing.T, ops []byte) {
		x := &sendFuzz{testConn: newServer(t, Options{MaxSendFrame: 20 << 10, Limits: wide})}
		x.fr.SetReuseFrames()
		x.window = defaultWindow
		for i := range uint32(4) {
			s := x.serve(2*i + 1)
			x.streams = append(x.streams, &sendTwin{s: s, window: defaultWindow})
		}
		x.sink.hold, x.sink.held = true, 0
		for ; len(ops) >= 2; ops = ops[2:] {
			x.op(ops[0], int(ops[1]))
			x.check()
		}
		// At last the peer and the socket take everything.
		x.fw.WriteWindowUpdate(0, 1<<24)
		x.window += 1 << 24
		for _, s := range x.streams {
			if s.s.closed {
				continue
			}
			x.fw.WriteWindowUpdate(s.s.ID(), 1<<24)
			s.window += 1 << 24
		}
		x.feed()
		for range 1000 {
			x.check()
			if x.sink.held == 0 {
				break
			}
			x.release(x.sink.held)
		}
		x.check()
		for _, s := range x.streams {
			if !s.aborted && (s.got != s.wrote || s.gotEnd != s.ended || s.s.Buffered() != 0) {
				t.Errorf("stream %d: %d bytes written, %d came, end %v and %v, Buffered %d",
					s.s.ID(), s.wrote, s.got, s.ended, s.gotEnd, s.s.Buffered())
			}
		}
	})
}

func (x *sendFuzz) op(code byte, n int) {
	s := x.streams[code%4]
	switch code >> 4 {
	case 0, 1: // write; up to 128 KiB
		p := make([]byte, n*n*2)
		for i := range p {
			p[i] = byte(s.wrote + i)
		}
		if !s.ended && !s.aborted {
			s.wrote += len(p)
		}
		x.do(func(t *turn.Turn) {
			if k := len(p) / 3; code&4 != 0 { // in one turn, in two pieces
				s.s.Write(t, p[:k])
				p = p[k:]
			}
			s.s.Write(t, p)
		})
	case 2:
		s.ended = s.ended || !s.aborted
		x.closeWrite(s.s)
	case 3:
		s.aborted = s.aborted || !(s.ended && s.s.closed)
		x.abort(s.s, CodeCancel)
	case 4: // window; up to 255 KiB
		if n > 0 {
			x.fw.WriteWindowUpdate(s.s.ID(), uint32(n)<<10)
			s.window += int64(n) << 10
			x.feed()
		}
	case 5: // the socket takes bytes
		x.release(min(x.sink.held, n*n*2))
	case 6: // connection's window
		if n > 0 {
			x.fw.WriteWindowUpdate(0, uint32(n)<<10)
			x.window += int64(n) << 10
			x.feed()
		}
	case 7: // initial window
		v := int64(n) << 9
		d := v - x.c.peer.window
		x.fw.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(v)})
		for _, s := range x.streams {
			s.window += d
		}
		x.feed()
	}
}

// check reads what the Conn wrote and holds everything to its promises.
func (x *sendFuzz) check() {
	x.t.Helper()
	for x.sink.out.Len() > 0 {
		before := x.sink.out.Len()
		f, err := x.fr.ReadFrame()
		if err != nil {
			x.t.Fatal(err)
		}
		x.total += before - x.sink.out.Len()
		if d, ok := f.(*http2.DataFrame); ok {
			x.data(d)
		}
	}
	left := x.total - x.sink.held
	lefts := map[string]bool{}
	for _, e := range x.events {
		lefts[e] = true
	}
	x.events = nil
	for _, s := range x.streams {
		if s.aborted || s.s.closed {
			continue
		}
		exact, said := s.held(left), s.s.Buffered()
		if said < exact {
			x.t.Fatalf("stream %d: Buffered %d, but %d bytes have not left", s.s.ID(), said, exact)
		}
		if exact == 0 && said != 0 {
			x.t.Fatalf("stream %d: Buffered %d, but all has left", s.s.ID(), said)
		}
		told := lefts[fmt.Sprintf("left %d", s.s.ID())]
		if told && said > turn.LowMark {
			x.t.Fatalf("stream %d heard Left with %d bytes held", s.s.ID(), said)
		}
		if s.high && !told && said < turn.LowMark && x.sink.held < turn.LowMark && s.s.queued == 0 {
			x.t.Fatalf("stream %d held more than the low mark, now %d, and was not told", s.s.ID(), said)
		}
		if told {
			s.high = false
		}
		s.high = s.high || said > turn.LowMark
	}
}

func (x *sendFuzz) data(d *http2.DataFrame) {
	s := x.streams[d.StreamID/2]
	for _, b := range d.Data() {
		if b != byte(s.got) {
			x.t.Fatalf("stream %d: byte %d is %d", d.StreamID, s.got, b)
		}
		s.got++
	}
	n := int64(len(d.Data()))
	s.window -= n
	x.window -= n
	if s.gotEnd || n > 0 && (s.window < 0 || x.window < 0) || len(d.Data()) > minFrameSize {
		x.t.Fatalf("stream %d: %d bytes with windows %d and %d left, end %v", d.StreamID, n, s.window, x.window, s.gotEnd)
	}
	s.gotEnd = s.gotEnd || d.StreamEnded()
	s.ends = append(s.ends, x.total)
	s.sizes = append(s.sizes, len(d.Data()))
}
