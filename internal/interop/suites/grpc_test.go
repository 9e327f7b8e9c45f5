package suites

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
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
	return strings.TrimPrefix(e.URL, "http://")
}
