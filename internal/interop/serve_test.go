package interop

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// TestServe runs the program as an operator does: flags, PEM files and a
// document on disk, between Envoy's tunnels, and stops it with SIGTERM.
func TestServe(t *testing.T) {
	path := buildWaypoint(t)
	m, app := newMesh(t), nginx(t)
	far := envoyDestination(t, m, app)
	l := m.leaf(t, "waypoint")
	dir, addr, header := folder(t), loopback(t), loopback(t)
	document := writeFile(t, filepath.Join(dir, "waypoint.yaml"), documentOf(virtual, app, far.kind))
	p := start(t, dir, path, []string{
		"serve", "--config", document, "--hbone-listen", addr, "--proxy-listen", header,
		"--cert", l.cert, "--key", l.key, "--roots", m.root, "--tunnel-port", portOf(far.addr), "--drain", "2s",
	}, addr, header)
	near := envoyClient(t, m, addr, virtual, m.id("waypoint"))
	carry(t, app, near.addr, notYet)

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

// buildWaypoint builds the program. It looks at every source file, so that the
// test cache knows what this test depends on.
func buildWaypoint(t *testing.T) string {
	t.Helper()
	root, err := needs.Root()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != root {
			return fs.SkipDir
		}
		if strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go") {
			_, err = os.Stat(file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder(t), "waypoint")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/waypoint")
	cmd.Dir, cmd.WaitDelay = root, time.Second
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	return path
}
