package hbone

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// An echoed answers each message with 1 KiB; an asker sends the next when it has
// the answer.
type echoed struct{ tun Tunnel }

var answer1K = make([]byte, 1<<10)

func (e *echoed) Opened(*turn.Turn)        {}
func (e *echoed) Left(*turn.Turn)          {}
func (e *echoed) Closed(*turn.Turn, error) {}
func (e *echoed) Data(t *turn.Turn, p []byte, end bool) {
	e.tun.Consume(t, len(p))
	if len(p) > 0 {
		e.tun.Write(t, answer1K)
	}
}

type asker struct {
	mu    sync.Mutex
	tun   Tunnel
	got   int
	again func() bool // false: that was the last
	over  *sync.WaitGroup
}

func (a *asker) Opened(t *turn.Turn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ask(t)
}

func (a *asker) ask(t *turn.Turn) {
	if a.again() {
		a.tun.Write(t, answer1K[:150])
	} else {
		a.tun.Abort(t, CodeCancel)
	}
}
func (a *asker) Left(*turn.Turn)          {}
func (a *asker) Closed(*turn.Turn, error) { a.over.Done() }
func (a *asker) Data(t *turn.Turn, p []byte, end bool) {
	a.tun.Consume(t, len(p))
	t.Event()
	if a.got += len(p); a.got >= len(answer1K) {
		a.got = 0
		a.ask(t)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSpread is the receipt for spreadAt: the same streams on one mesh
// connection or more, between a pool and a server. CPU is of both.
func BenchmarkSpread(b *testing.B) {
	for _, streams := range []int{32, 128, 256, 512, 1000} {
		for _, conns := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("%d-on-%d", streams, conns), func(b *testing.B) { benchSpread(b, streams, conns) })
		}
	}
}

func benchSpread(b *testing.B, streams, conns int) {
	w := wheel.New()
	w.Start()
	defer w.Close()
	ca := must(devca.New("root"))
	o := wire.Options{Wheel: w, Tick: time.Second}
	s := NewServer(ServerOptions{Certificates: holding(issued(ca, wayURI), CertificatesOptions{}), Wire: o,
		Accept: func(_ *turn.Turn, tun Tunnel) (TunnelHandler, error) { return &echoed{tun}, nil }})
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go s.ServeHBONE(l)
	p := NewPool(PoolOptions{Certificates: holding(issued(ca, curlURI), CertificatesOptions{}), Wire: o})
	var mu sync.Mutex
	left := b.N
	again := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return left >= 0
	}
	var over sync.WaitGroup
	before := cpuTime()
	b.ResetTimer()
	for i := range streams {
		// Another expected identity makes another group, and so a connection.
		d := dest(l.Addr().String(), wayURI, fmt.Sprintf("spiffe://cluster.local/ns/demo/sa/n%d", i%conns))
		a := &asker{again: again, over: &over}
		over.Add(1)
		a.mu.Lock()
		do(func(t *turn.Turn) { a.tun = p.Open(t, d, a) })
		a.mu.Unlock()
	}
	over.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.Shutdown(ctx)
}
