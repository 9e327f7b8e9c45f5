package hbone

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
)

// meshBy makes a mesh connection from an address of loopback, of which Linux has
// many.
func (s *testServer) meshBy(from, to string, certs *Certificates) *testConn {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := tls.DialWithDialer(&d, "tcp", to, certs.ClientConfig([]peer.ID{testID(wayURI)}))
	if err != nil {
		s.t.Fatal(err)
	}
	tc := newTestConn(s.t, nc)
	tc.greet()
	return tc
}

// TestHoldoffReconnecting: over real connections, an attacker that comes again at
// once gets few handshakes, and another address as many as it wants. The control
// is a server that forgets each flood.
func TestHoldoffReconnecting(t *testing.T) {
	const floods = 4
	const least = FirstHoldoff * (1 + 2 + 4)
	s := newServer(t)
	addr, certs := s.mesh(), s.client(curlURI)
	attack := func(from string, forget bool) time.Duration {
		began := time.Now()
		for range floods {
			s.meshBy(from, addr, certs).flood()
			if forget {
				s.held.mu.Lock()
				s.held.by = nil
				s.held.mu.Unlock()
			}
		}
		return time.Since(began)
	}
	quick := time.Hour
	for range 5 { // the machine may be slow, but not always
		if quick = min(quick, attack("127.0.0.65", true)); quick < least {
			break
		}
	}
	if quick >= least {
		t.Errorf("%d floods take %v where they are forgotten: this shows nothing", floods, quick)
	}
	if d := attack("127.0.0.66", false); d < least {
		t.Errorf("%d floods took %v, want the address to wait %v", floods, d, least)
	}
	st := s.Stats()
	before := st.HeldOff.Load()
	if before != floods-1 {
		t.Errorf("%d connections waited, want %d", before, floods-1)
	}
	for range 20 { // while the attacker would have to wait
		s.meshBy("127.0.0.7", addr, certs).wantQuiet()
	}
	if n := st.HeldOff.Load() + st.OverHoldoff.Load(); n != before {
		t.Errorf("of 20 connections from another address %d were held off", n-before)
	}
}
