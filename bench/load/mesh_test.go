package load

import (
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
)

// TestThroughTheMesh goes the whole way: a client's node tunnel, a waypoint of
// each mode, a server's node tunnel, and an echo that answers.
func TestThroughTheMesh(t *testing.T) {
	doc, problems := devmesh.DevDocument()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	m, err := devmesh.Start(devmesh.Options{Config: doc})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, mode := range []devmesh.Mode{devmesh.HBONE, devmesh.Sandwich} {
		for _, c := range []struct {
			service, protocol string
			kind              Kind
		}{
			{"shop/stock:8000", HTTP1, Kind{Path: "/bytes/1000", Bytes: 1000}},
			{"shop/stock:8000", HTTP2, Kind{Path: "/body", Size: 500, Bytes: 500}},
			{"shop/cart:50051", GRPC, Kind{Path: "/shop.v1.Cart/Get", Size: 100, Bytes: 100}},
			{"shop/cache:6379", Echo, Kind{Size: 1000}},
		} {
			e, ok := m.Find(c.service, mode)
			if !ok {
				t.Fatalf("no entry for %s", c.service)
			}
			s := short(Target{Addr: e.Addr(), Protocol: c.protocol}, c.kind)
			s.Requests = 100
			t.Run(string(mode)+" "+c.protocol, func(t *testing.T) { bothLoops(t, s) })
		}
	}
}
