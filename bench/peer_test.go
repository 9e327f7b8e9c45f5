package bench

import (
	"errors"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/peers"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// each sends a handful of requests, checked to the byte, one after the other and
// then at once.
func each(t *testing.T, r *Rig, p *Process, plan traffic.Plan) {
	t.Helper()
	s, err := r.Load(t.Context(), p, plan)
	if err != nil {
		t.Fatalf("%v: %s", err, p.log)
	}
	defer s.End()
	if _, err := s.Measure(t.Context(), traffic.Measure{Each: true}); err != nil {
		t.Fatalf("%v: %s", err, p.log)
	}
	res, err := s.Measure(t.Context(), traffic.Measure{For: 50 * time.Millisecond})
	if err != nil {
		t.Fatalf("%v: %s", err, p.log)
	}
	if res.Requests() == 0 {
		t.Error("no request was answered")
	}
}

// TestPeersRun: every peer does the work that it is compared for.
func TestPeersRun(t *testing.T) {
	for _, p := range peers.All() {
		t.Run(p.Name, func(t *testing.T) {
			r := newRig(t)
			if !p.Mesh {
				echo := startPart(t, r, "echo", PartOptions{})
				each(t, r, startPeer(t, r, p, peers.Place{Application: echo.Addr}), proxyPlan(small(4)))
				return
			}
			end := startPart(t, r, "tunnel", PartOptions{Certs: r.certs["echo"]})
			each(t, r, startPeer(t, r, p, peers.Place{Application: application, Tunnel: end.Addr}), r.meshPlan(2, small(4)))
			calls := startPart(t, r, "tunnel-grpc", PartOptions{Certs: r.certs["echo"]})
			each(t, r, startPeer(t, r, p, peers.Place{Application: application, Tunnel: calls.Addr, Calls: true}), r.callsPlan(2, 4))
		})
	}
}

func startPeer(t *testing.T, r *Rig, p peers.Peer, at peers.Place) *Process {
	t.Helper()
	proc, err := r.Peer(t.Context(), p, at)
	if errors.Is(err, peers.ErrMissing) {
		needs.Missing(t, "program of "+p.Name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return proc
}

// TestStockRuns: so does the twin that Go's libraries make.
func TestStockRuns(t *testing.T) {
	r := newRig(t)
	echo := startPart(t, r, "echo", PartOptions{})
	each(t, r, startPart(t, r, "stock-proxy", PartOptions{To: echo.Addr}), proxyPlan(small(4)))
	end := startPart(t, r, "tunnel", PartOptions{Certs: r.certs["echo"]})
	each(t, r, startPart(t, r, "stock-hbone", PartOptions{To: end.Addr, Certs: r.certs["waypoint"]}), r.meshPlan(2, small(4)))
	calls := startPart(t, r, "tunnel-grpc", PartOptions{Certs: r.certs["echo"]})
	each(t, r, startPart(t, r, "stock-hbone", PartOptions{To: calls.Addr, Certs: r.certs["waypoint"], Calls: true}), r.callsPlan(2, 4))
}
