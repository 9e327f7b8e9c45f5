package suites

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// portable are the cases of gRPC's interoperability tests that need no
// credentials and no special servers.
var portable = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

// interop is gRPC's own client and server.
type interop struct{ client, server string }

func buildInterop(t *testing.T) interop {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "google.golang.org/grpc/interop/client", "google.golang.org/grpc/interop/server")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	return interop{filepath.Join(dir, "client"), filepath.Join(dir, "server")}
}

// serve starts the server and returns its address.
func (i interop) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	server := exec.Command(i.server, "-port", port)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// ask runs one case against addr, as a process: the client ends itself where it
// is not content.
func (i interop) ask(t *testing.T, addr, name string, more ...string) error {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, i.client, append([]string{"-server_host", host, "-server_port", port, "-test_case", name}, more...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// TestGRPCAgrees: the client and the server agree without anything on the way,
// and the client notices when they do not.
func TestGRPCAgrees(t *testing.T) {
	i := buildInterop(t)
	addr := i.serve(t)
	for _, name := range portable {
		if err := i.ask(t, addr, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := i.ask(t, addr, "no_such_case"); err == nil {
		t.Error("a case that does not exist passes")
	}
	other := &http.Server{Protocols: new(http.Protocols), Handler: http.NotFoundHandler()}
	other.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go other.Serve(l)
	defer other.Close()
	if err := i.ask(t, l.Addr().String(), "empty_unary"); err == nil {
		t.Error("a server that knows no gRPC passes")
	}
}

// entry returns where a client of the mesh finds the service app.
func entry(t *testing.T, m *devmesh.Mesh, mode devmesh.Mode) string {
	t.Helper()
	e, ok := m.Find("app", mode)
	if !ok {
		t.Fatalf("no entry for app over %s", mode)
	}
	return e.Addr()
}

// services is the server behind a GRPCRoute that knows its service alone.
const services = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {namespace: demo}
services:
- {name: app, addresses: [10.96.0.1], ports: [{port: 80, appProtocol: grpc}], endpoints: [{workload: app}]}
workloads:
- {name: app, address: 10.1.0.1, protocol: OUT}
grpcRoutes:
- name: app
  parentRefs: [{kind: Service, name: app}]
  rules:
  - matches: [{method: {service: grpc.testing.TestService}}]
    backendRefs: [{name: app, port: 80}]
`

// startServices starts the mesh of services, with the server at addr and a way
// out.
func startServices(t *testing.T, addr, out string, observe func(devmesh.Mode, *proxy.Outcome)) *devmesh.Mesh {
	t.Helper()
	return startMesh(t, devmesh.Options{
		Config:  document(t, strings.Replace(services, "OUT", out, 1)),
		App:     func(string) string { return addr },
		Observe: observe,
	})
}

// TestGRPC: the client and the server with the waypoint between them. What no
// rule takes the waypoint answers itself, which unimplemented_service hears.
func TestGRPC(t *testing.T) {
	i := buildInterop(t)
	addr := i.serve(t)
	for _, out := range []string{"HBONE", "TCP"} {
		m := startServices(t, addr, out, nil)
		for _, mode := range []devmesh.Mode{devmesh.HBONE, devmesh.Sandwich} {
			for _, name := range portable {
				t.Run(fmt.Sprintf("in %s/out %s/%s", mode, out, name), func(t *testing.T) {
					if err := i.ask(t, entry(t, m, mode), name); err != nil {
						t.Error(err)
					}
				})
			}
			if n := m.Waypoint(mode).Stats().Faults[fault.NoRoute].Load(); n != 1 {
				t.Errorf("in %s, out %s: %d calls had no route, want that of unimplemented_service", mode, out, n)
			}
		}
	}
}

// calls is how many a soak makes.
const calls = 100_000

// TestGRPCSoak makes many calls on one connection of the client's. None may
// fail, nor be tried twice.
func TestGRPCSoak(t *testing.T) {
	i := buildInterop(t)
	addr := i.serve(t)
	var good, bad, again atomic.Int64
	m := startServices(t, addr, "HBONE", func(_ devmesh.Mode, o *proxy.Outcome) {
		if o.Stream.Fault == nil {
			good.Add(1)
		} else {
			bad.Add(1)
		}
		again.Add(int64(len(o.Stream.Attempts) - 1))
	})
	for _, mode := range []devmesh.Mode{devmesh.HBONE, devmesh.Sandwich} {
		t.Run(string(mode), func(t *testing.T) {
			good.Store(0)
			err := i.ask(t, entry(t, m, mode), "rpc_soak", "-soak_iterations", strconv.Itoa(calls), "-soak_num_threads", "16",
				"-soak_request_size", "300", "-soak_response_size", "1000",
				"-soak_overall_timeout_seconds", "170", "-soak_per_iteration_max_acceptable_latency_ms", "60000") // times are for make bars
			if err != nil {
				t.Error(err)
			}
			if good.Load() != calls || bad.Load() != 0 || again.Load() != 0 {
				t.Errorf("%d calls went well, %d did not, %d were tried again; want %d, none, none", good.Load(), bad.Load(), again.Load(), calls)
			}
		})
	}
}
