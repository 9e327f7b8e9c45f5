package traffic

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
)

// victimOf serves tunnels with limits, and returns a plan to attack it.
func victimOf(t *testing.T, l h2.Limits) *FloodPlan {
	t.Helper()
	certs := certs(t)
	server, _, err := certs.TLS()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go serveMeshWith(context.Background(), nc, server, tunnels{}, h2.Options{MaxStreams: manyStreams, Limits: l})
		}
	}()
	return &FloodPlan{Addr: ln.Addr().String(), To: "10.96.0.10:80", Certs: certs, PID: os.Getpid()}
}

// Each attack is ended by the limit that it is about, and goes on against a server
// that has none.
func TestAttacks(t *testing.T) {
	limited, free := victimOf(t, h2.Limits{}), victimOf(t, h2.Limits{HeaderFields: 1 << 20, HeaderBlock: 1 << 30, Continuations: 1 << 30, EmptyData: 1 << 30,
		Resets: 1 << 30, Settings: 1 << 30, Pings: 1 << 30, Unknown: 1 << 30, Priority: 1 << 30, Windows: 1 << 30, Strays: 1 << 30, Unread: 1 << 30})
	for _, a := range Attacks() {
		t.Run(a.Name, func(t *testing.T) {
			if a.Limit == 0 {
				return // held, which the bars measure
			}
			r, err := limited.Run(t.Context(), Flood{Attack: a.Name})
			if err != nil {
				t.Fatal(err)
			}
			if r.Conns != 1 || r.Ended != 1 || len(r.Why) < 10 || r.Why[:7] != "GOAWAY:" {
				t.Errorf("%d of %d connections ended, %q; want a GOAWAY", r.Ended, r.Conns, r.Why)
			}
			v, err := free.open(t.Context(), clientOf(t, free), way{})
			if err != nil {
				t.Fatal(err)
			}
			defer v.nc.Close()
			few := a
			few.most, few.Limit = 2*a.Limit, 0
			v.flood(&few, time.Now(), 0)
			select {
			case <-v.ended:
				t.Errorf("without limits the connection ended after twice as many: %s", v.why)
			case <-time.After(50 * time.Millisecond):
			}
		})
	}
}

func clientOf(t *testing.T, p *FloodPlan) *tls.Config {
	t.Helper()
	_, client, err := p.Certs.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return client
}
