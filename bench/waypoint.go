package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// documentText is what the proxy runs: one service behind the clients' address,
// one route with the conditions that peers check as well, no filters.
const documentText = `apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: bars, namespace: demo}
services:
- name: svc
  addresses: [VIP]
  ports: [{port: 80, targetPort: TARGET, appProtocol: http}]
  endpoints: [{workload: svc-1}]
workloads:
- {name: svc-1, address: ADDRESS, serviceAccount: echo, protocol: PROTOCOL}
- {name: curl, address: 10.1.0.5, serviceAccount: curl}
httpRoutes:
- name: svc
  parentRefs: [{kind: Service, name: svc, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}, headers: [{name: x-canary, value: "1"}]}]
    backendRefs: [{name: svc, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: svc, port: 80}]
`

// grpcText is the same for calls.
const grpcText = `apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: bars, namespace: demo}
services:
- name: svc
  addresses: [VIP]
  ports: [{port: 80, targetPort: TARGET, appProtocol: grpc}]
  endpoints: [{workload: svc-1}]
workloads:
- {name: svc-1, address: ADDRESS, serviceAccount: echo, protocol: PROTOCOL}
- {name: curl, address: 10.1.0.5, serviceAccount: curl}
grpcRoutes:
- name: svc
  parentRefs: [{kind: Service, name: svc, port: 80}]
  rules:
  - matches: [{method: {service: bench.v1.Echo}, headers: [{name: x-canary, value: "1"}]}]
    backendRefs: [{name: svc, port: 80}]
  - matches: [{method: {service: bench.v1.Echo}}]
    backendRefs: [{name: svc, port: 80}]
`

// application is where the document says that the application listens, if it
// lies behind a tunnel; the tunnel's end answers in its place.
const application = "127.0.0.1:9080"

// An upstream is where the proxy of a scenario sends requests.
type upstream struct {
	Plain  string // IP:port of the application; or:
	Tunnel string // IP:port of the node tunnel before it
	GRPC   bool   // it answers calls
}

func (u upstream) document() (string, error) {
	endpoint, protocol := u.Plain, "TCP"
	if u.Tunnel != "" {
		endpoint, protocol = application, "HBONE"
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return "", fmt.Errorf("endpoint of the document: %w", err)
	}
	text := documentText
	if u.GRPC {
		text = grpcText
	}
	service, _, _ := net.SplitHostPort(vip)
	return strings.NewReplacer("VIP", service, "TARGET", port, "ADDRESS", host, "PROTOCOL", protocol).Replace(text), nil
}

// writeDocument writes the document for an upstream, in a directory of its own,
// and returns the port of the tunnel, if there is one.
func (r *Rig) writeDocument(u upstream) (file string, port uint16, err error) {
	text, err := u.document()
	if err != nil {
		return "", 0, err
	}
	dir, err := os.MkdirTemp(r.dir, "waypoint-")
	if err != nil {
		return "", 0, err
	}
	if u.Tunnel != "" {
		a, err := netip.ParseAddrPort(u.Tunnel)
		if err != nil {
			return "", 0, err
		}
		port = a.Port()
	}
	file = filepath.Join(dir, "waypoint.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", 0, fmt.Errorf("write configuration of the waypoint: %w", err)
	}
	return file, port, nil
}

var errNoWaypoint = errors.New("there is no waypoint binary to measure")

// A waypoint is the proxy under test with its two ways in.
type waypoint struct {
	hbone, proxy *Process
	document     string // its file
}

// waypoint starts the built binary before an upstream, with flags besides those
// that it needs.
func (r *Rig) waypoint(ctx context.Context, cpu int, u upstream, flags ...string) (*waypoint, error) {
	if r.Waypoint == "" {
		return nil, errNoWaypoint
	}
	file, port, err := r.writeDocument(u)
	if err != nil {
		return nil, err
	}
	hbone, err := r.freeAddr()
	if err != nil {
		return nil, err
	}
	proxy, err := r.freeAddr()
	if err != nil {
		return nil, err
	}
	certs := r.certs["waypoint"]
	argv := []string{r.Waypoint, "serve", "--config", file, "--hbone-listen", hbone, "--proxy-listen", proxy,
		"--admin-listen", "", "--metrics-listen", "", "--ready-listen", "",
		"--cert", certs.Cert, "--key", certs.Key, "--roots", certs.Roots}
	if port != 0 {
		argv = append(argv, "--tunnel-port", strconv.Itoa(int(port)))
	}
	argv = append(argv, flags...)
	p, err := r.Program(ctx, "waypoint", cpu, proxy, argv...)
	if err != nil {
		return nil, err
	}
	tunnels := *p
	tunnels.Addr = hbone
	return &waypoint{hbone: &tunnels, proxy: p, document: file}, nil
}
