package upstream

import (
	"testing"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A sinkTunnel takes everything.
type sinkTunnel struct{ hbone.Tunnel }

func (sinkTunnel) Write(*turn.Turn, []byte)   {}
func (sinkTunnel) Consume(*turn.Turn, int)    {}
func (sinkTunnel) Buffered() int              { return 0 }
func (sinkTunnel) CloseWrite(*turn.Turn)      {}
func (sinkTunnel) Abort(*turn.Turn, uint32)   {}
func (sinkTunnel) Handle(hbone.TunnelHandler) {}

// A quietCaller wants nothing but the end.
type quietCaller struct {
	turn.Lane
	resp  message.Response
	ended int
}

func (x *quietCaller) Ready(*turn.Turn)                               {}
func (x *quietCaller) NewResponse(*turn.Turn) *message.Response       { return &x.resp }
func (x *quietCaller) Informational(*turn.Turn, *message.Response)    {}
func (x *quietCaller) Head(_ *turn.Turn, _ *message.Response, _ bool) {}
func (x *quietCaller) Left(*turn.Turn)                                {}
func (x *quietCaller) Failed(*turn.Turn, *fault.Fault)                {}
func (x *quietCaller) Whole(*turn.Turn, *message.Response, []byte)    { x.ended++ }
func (x *quietCaller) Chunk(_ *turn.Turn, c *message.Chunk) {
	if c.End {
		x.ended++
	}
}

// quietCalls returns what makes one call on an unused connection, from the pick to
// its being unused again.
func quietCalls(t testing.TB) (once func(), x *quietCaller) {
	b := newBackend(LeastRequest, members(1))
	e := b.Endpoints()[0]
	c := &conn{ep: e, tun: sinkTunnel{}, state: opening}
	c.lane.Store(&e.rest)
	c.codec.Init(c.tun, c, nil)
	var tn turn.Turn
	c.Opened(&tn)
	x = &quietCaller{}
	q := &message.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("h")}
	response := []byte(hello)
	return func() {
		e, _ := b.Pick(nil)
		x.Lock()
		x.resp.Reset()
		call, ready := e.Open(&tn, &x.Lane, x)
		if !ready {
			t.Fatal("the unused connection was not taken")
		}
		_ = call.WriteHead(&tn, q, true)
		x.Unlock()
		c.Data(&tn, response, false)
	}, x
}

func TestCallAllocatesNothing(t *testing.T) {
	if raceEnabled || buf.Check {
		t.Skip("not in this build")
	}
	once, x := quietCalls(t)
	once()
	if n := testing.AllocsPerRun(1000, once); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
	if x.ended < 1000 {
		t.Errorf("%d calls ended", x.ended)
	}
}

func BenchmarkReuse(b *testing.B) {
	once, _ := quietCalls(b)
	for b.Loop() {
		once()
	}
}
