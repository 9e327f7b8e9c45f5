package interop

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// TestServe runs the program as an operator does: flags, PEM files and a
// document on disk, between Envoy's tunnels, and stops it with SIGTERM.
func TestServe(t *testing.T) {
	path := needs.Command(t, "./cmd/waypoint")
	m, app := newMesh(t), nginx(t)
	far := envoyDestination(t, m, app)
	l := m.leaf(t, "waypoint")
	dir, addr, header, ready := folder(t), loopback(t), loopback(t), loopback(t)
	document := writeFile(t, filepath.Join(dir, "waypoint.yaml"), documentOf(virtual, app, far.kind))
	p := start(t, dir, path, []string{
		"serve", "--config", document, "--hbone-listen", addr, "--proxy-listen", header,
		"--admin-listen", "", "--metrics-listen", "", "--ready-listen", ready,
		"--cert", l.cert, "--key", l.key, "--roots", m.root, "--tunnel-port", portOf(far.addr), "--drain", "2s",
	}, addr, header)
	near := envoyClient(t, m, addr, virtual, m.id("waypoint"))
	carry(t, app, near.addr, nil)
	if _, err := curl(t, "http://"+ready+"/healthz/ready"); err != nil {
		t.Errorf("not ready: %v", err)
	}

	// A changed document is taken up while it runs.
	writeFile(t, document, documentOf("10.96.0.11:80", app, far.kind))
	p.until(t, "a document without the service", func() bool {
		_, err := curl(t, "http://"+near.addr+"/")
		return err != nil
	})

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.until(t, "its end", p.ended)
	if p.err != nil {
		t.Errorf("after SIGTERM: %v, want exit 0", p.err)
	}
}
