package suites

import (
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// oneService is a service that speaks HTTP/2 and so does its endpoint.
const oneService = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {namespace: demo}
services:
- {name: app, addresses: [10.96.0.1], ports: [{port: 80, appProtocol: http2}], endpoints: [{workload: app}]}
workloads:
- {name: app, address: 10.1.0.1}
`

// routed is a service that speaks HTTP/2, before an application that speaks APP.
const routed = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {namespace: demo}
services:
- {name: app, addresses: [10.96.0.1], ports: [{port: 80, appProtocol: http2}]}
- {name: behind, ports: [{port: 80, appProtocol: APP}], endpoints: [{workload: app}]}
workloads:
- {name: app, address: 10.1.0.1}
httpRoutes:
- {name: app, parentRefs: [{kind: Service, name: app}], rules: [{backendRefs: [{name: behind, port: 80}]}]}
`

func document(t *testing.T, text string) *config.Config {
	t.Helper()
	c, problems := config.Decode(config.File{Name: "suites.yaml", Data: []byte(text)})
	if c == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	return c
}

func startMesh(t *testing.T, o devmesh.Options) *devmesh.Mesh {
	t.Helper()
	m, err := devmesh.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}
