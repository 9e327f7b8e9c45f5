package hbone

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// TestRelieve: the connection that holds most is found, its client asked to go, and
// at last it is cut; others, and who holds little, are left alone.
func TestRelieve(t *testing.T) {
	s := newServer(t)
	addr := s.mesh()
	connect := func(held int) *testConn {
		tc := dialMesh(t, addr, s.client(curlURI))
		tc.connect(1, "10.0.0.7:8080")
		tc.wantStatus(1, 200, false)
		if h := s.tunnel(); held > 0 {
			h.write(strings.Repeat("x", held))
			for got := 0; got < 65535; { // its window, which it does not open again
				f := wanted[*http2.DataFrame](tc)
				got += len(f.Data())
			}
		}
		return tc
	}
	idle, little, much := connect(0), connect(65535+LeastRelief/2), connect(65535+LeastRelief+1)
	if n := s.SendAway(5); n != 1 {
		t.Errorf("%d connections were asked to go, want the one that holds enough to help", n)
	}
	much.wantGoAway(1<<31-1, http2.ErrCodeNo, "")
	much.wantPing(false)
	if n := s.SendAway(5); n != 0 {
		t.Errorf("%d connections were asked to go twice", n)
	}
	for _, tc := range []*testConn{idle, little} {
		tc.wantQuiet()
	}
	if n := s.CutHeaviest(0); n != 0 {
		t.Errorf("%d connections were cut for nothing", n)
	}
	if n := s.CutHeaviest(10 * LeastRelief); n != 1 {
		t.Errorf("%d connections were cut, want the one that holds enough to help", n)
	}
	if f, err := much.fr.ReadFrame(); err == nil {
		t.Errorf("what was cut says %v", f)
	}
	s.wantFault("memory is short", "KiB")
	for _, tc := range []*testConn{idle, little} {
		tc.wantQuiet()
	}
	wantCount(t, "SentAway", s.Stats().SentAway.Load, 1)
	wantCount(t, "CutForMemory", s.Stats().CutForMemory.Load, 1)
}

// TestOverMemory: nobody new comes in while memory is short, and afterwards they do.
func TestOverMemory(t *testing.T) {
	var full atomic.Bool
	s := newServer(t, func(o *ServerOptions) { o.Full = &full })
	addr := s.mesh()
	before := dialMesh(t, addr, s.client(curlURI))
	full.Store(true)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is served while memory is short")
	}
	s.wantFault("memory is short")
	wantCount(t, "OverMemory", s.Stats().OverMemory.Load, 1)
	before.wantQuiet()
	full.Store(false)
	dialMesh(t, addr, s.client(curlURI)).wantQuiet()
}
