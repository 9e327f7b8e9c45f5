package proxy_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
)

// TestGRPCIsCounted: calls are counted by their gRPC status, and so are their
// messages.
func TestGRPCIsCounted(t *testing.T) {
	r := new(metrics.Registry)
	a := newGRPCApp(t)
	m := start(t, grpcDoc(once), devmesh.Options{
		Modes: []devmesh.Mode{devmesh.HBONE}, App: func(string) string { return a.addr },
		Tune: func(_ devmesh.Mode, o *proxy.Options) { o.Metrics = r },
	})
	c := dialGRPC(t, m, devmesh.HBONE)
	in, out := []byte("hello"), []byte(nil)
	if err := c.Invoke(within(t), "/test/Echo", &in, &out); err != nil {
		t.Fatal(err)
	}
	if err := c.Invoke(within(t), "/test/Fail", &in, &out); err == nil {
		t.Fatal("a call that fails did not")
	}
	var b bytes.Buffer
	if err := r.Expose(&b, metrics.Prometheus); err != nil {
		t.Fatal(err)
	}
	for metric, want := range map[string]map[string]string{
		"istio_requests_total{":          {"0": "1", "9": "1"},
		"istio_request_messages_total{":  {"0": "1", "9": "1"},
		"istio_response_messages_total{": {"0": "1", "9": "0"},
	} {
		for status, n := range want {
			found := 0
			for line := range strings.Lines(b.String()) {
				if strings.HasPrefix(line, metric) && strings.Contains(line, `request_protocol="grpc",response_code="200",grpc_response_status="`+status+`"`) {
					if found++; !strings.HasSuffix(line, "} "+n+"\n") {
						t.Errorf("want %s: %s", n, line)
					}
				}
			}
			if found != 1 {
				t.Errorf("%s status %s: %d series", metric, status, found)
			}
		}
	}
}
