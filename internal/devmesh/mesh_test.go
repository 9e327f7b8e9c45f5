package devmesh

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/headers"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

const document = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: shop}
services:
- {name: reviews, addresses: [10.96.0.10], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: v1-a}]}
workloads:
- {name: v1-a, address: 10.1.0.11, serviceAccount: reviews, labels: {app: reviews, version: v1}}
`

func start(t *testing.T, text string) *Mesh {
	t.Helper()
	c, problems := config.Decode(config.File{Name: "test.yaml", Data: []byte(text)})
	for _, p := range problems {
		t.Log(p.String())
	}
	if c == nil {
		t.Fatal("no document")
	}
	m, err := Start(Options{
		Config:   c,
		Registry: filters.NewRegistry(headers.RequestKind(), headers.ResponseKind()),
		OnFault:  func(where string, err error) { t.Logf("%s: %v", where, err) },
		Observe: func(mode Mode, o *proxy.Outcome) {
			t.Logf("%s: %s %s %d %v %v", mode, o.Stream.Request.Method, o.Stream.Request.Path, o.Status, o.Stream.Fault, o.Duration)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestPath(t *testing.T) {
	m := start(t, document)
	for _, mode := range []Mode{HBONE, Sandwich} {
		e, ok := m.Find("reviews", mode)
		if !ok {
			t.Fatal("no entry")
		}
		for i := range 3 {
			r, err := http.Post(e.URL+fmt.Sprintf("/hello?n=%d", i), "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode != 200 || !strings.Contains(string(b), "body: 4 bytes") {
				t.Errorf("%s: %d\n%s", mode, r.StatusCode, b)
			}
		}
	}
}

// TestEchoAnswersCalls: a gRPC call gets its messages back and a status.
func TestEchoAnswersCalls(t *testing.T) {
	m := start(t, strings.Replace(document, "appProtocol: http", "appProtocol: grpc", 1))
	client := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	for _, mode := range []Mode{HBONE, Sandwich} {
		e, _ := m.Find("reviews", mode)
		r, err := client.Post(e.URL+"/shop.v1.Reviews/List", "application/grpc", strings.NewReader("\x00\x00\x00\x00\x05hello"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		if err != nil || string(text) != "\x00\x00\x00\x00\x05hello" || r.Header.Get("x-workload") != "shop/v1-a" || r.Trailer.Get("grpc-status") != "0" {
			t.Errorf("%s: got %q, %v with %v and %v", mode, text, err, r.Header, r.Trailer)
		}
	}
}
