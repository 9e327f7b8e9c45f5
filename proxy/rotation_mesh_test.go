package proxy_test

import (
	"crypto/tls"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// serial asks the waypoint for its certificate, as a new connection sees it.
func (m *mesh) serial() string {
	m.t.Helper()
	nc, err := tls.Dial("tcp", m.HBONEAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		m.t.Fatal(err)
	}
	defer nc.Close()
	return nc.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

// TestRotationUnderLoad: everybody's certificates are renewed again and again, and
// are so short that mesh connections have to be made anew while requests run on
// them: none fails, no connection outlives its certificates, and new ones show the
// new one at once. (In the other shape the certificates are the node tunnel's.)
func TestRotationUnderLoad(t *testing.T) {
	const lifetime = 6 * time.Second
	var waypoint *proxy.Options
	m := start(t, plainDoc(once), devmesh.Options{Lifetime: lifetime, Modes: []devmesh.Mode{devmesh.HBONE}, Tune: func(_ devmesh.Mode, o *proxy.Options) { waypoint = o }})
	certs := waypoint.Certificates
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var done atomic.Int64
	for _, mode := range m.Modes {
		for range 4 {
			clients.Go(func() {
				c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
				defer c.CloseIdleConnections()
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := postAll(c, m.url("a", mode)); err != nil {
						t.Errorf("%s: %v", mode, err)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	w := m.Waypoint(devmesh.HBONE)
	began := time.Now()
	for n := 0; time.Since(began) < 3*lifetime/2 && !t.Failed(); n++ {
		before := m.serial()
		if err := m.Rotate(); err != nil {
			t.Fatal(err)
		}
		if got, want := m.serial(), certs.Current().Serial; got != want || got == before {
			t.Errorf("a new connection is shown certificate %s, want %s in place of %s", got, want, before)
		}
		next := time.Now().Add(lifetime / 8)
		want := done.Load() + 5
		eventually(t, "requests to go on", func() bool { return time.Now().After(next) && done.Load() > want || t.Failed() })
	}
	close(stop)
	clients.Wait()
	stats := w.ServerStats()
	t.Logf("%d requests under %d certificates of the waypoint, %d connections, %d ended with their certificate",
		done.Load(), certs.Stats().Swaps.Load(), stats.Accepted.Load(), stats.Distrusted.Load())
	for _, mode := range m.Modes {
		for k := range fault.Kinds {
			if n := m.Waypoint(mode).Stats().Faults[k].Load(); n > 0 && k != fault.ClientGone {
				t.Errorf("%s: %d times %s", mode, n, k)
			}
		}
	}
	if n := stats.Tunnels.Load(); n < 2 {
		t.Errorf("%d tunnels: the test did not hit", n)
	}
}
