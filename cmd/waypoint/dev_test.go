package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// dev runs `waypoint dev` in process and returns what it prints.
func dev(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(append([]string{"dev"}, args...), &out, &errs)
	return out.String() + errs.String(), code
}

func TestDevCheck(t *testing.T) {
	for _, mode := range []string{"hbone", "proxy"} {
		out, code := dev(t, "--check", "--mode", mode)
		if code != 0 || strings.Count(out, "PASS") < 15 || strings.Contains(out, "FAIL") {
			t.Errorf("--mode %s: exit %d\n%s", mode, code, out)
		}
	}
}

func TestDevRefuses(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--mode tcp", "write hbone, proxy or both"},
		{"--check --config x.yaml", "leave --config out"},
		{"--config " + filepath.Join(t.TempDir(), "none.yaml"), "WP1002"},
	} {
		out, code := dev(t, strings.Fields(tc.args)...)
		if code == 0 || !strings.Contains(out, tc.want) {
			t.Errorf("dev %s: exit %d, want %q in\n%s", tc.args, code, tc.want, out)
		}
	}
}

func TestDevPrintsWhatToAsk(t *testing.T) {
	out, code := dev(t, "--port", "0", "--for", "50ms", "--identity", "spiffe://cluster.local/ns/web/sa/web")
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	line := regexp.MustCompile(`(?m)^http://127\.0\.0\.1:\d+  +shop/reviews:80 +spiffe://cluster\.local/ns/web/sa/web +(hbone|proxy)$`)
	if n := len(line.FindAllString(out, -1)); n != 2 {
		t.Errorf("%d lines for reviews, want one for each mode:\n%s", n, out)
	}
}

// TestFirstAnswer holds the promise that a built binary answers within 2 s of
// being started.
func TestFirstAnswer(t *testing.T) {
	bin := needs.Command(t, "./cmd/waypoint")
	cmd := exec.Command(bin, "dev", "--port", "0", "--for", "20s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	url := regexp.MustCompile(`^(http://\S+) +shop/reviews:80`)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		m := url.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		r, err := http.Get(m[1] + "/hello")
		took := time.Since(start)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		io.Copy(io.Discard, r.Body)
		if r.StatusCode != 200 || took > 2*time.Second {
			t.Errorf("status %d after %v, want 200 within 2s", r.StatusCode, took)
		}
		t.Logf("first 200 after %v", took)
		return
	}
	t.Fatal("no URL was printed")
}
