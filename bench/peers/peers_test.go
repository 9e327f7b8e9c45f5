package peers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var somewhere = Place{
	Listen: "127.0.0.1:1001", Service: "10.96.0.10:80", Application: "127.0.0.1:1002", Tunnel: "127.0.0.1:1003",
	Cert: "/c.pem", Key: "/k.pem", Roots: "/r.pem",
}

// Every configuration names what it was given, and does what ours does: routes
// by path and field, keeps upstream connections, writes no access log.
func TestConfig(t *testing.T) {
	for _, p := range All() {
		for _, calls := range []bool{false, true} {
			at := somewhere
			at.Calls = calls
			text, err := p.Config(at)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"1001", "1002", "canary", "items"}
			if p.Mesh {
				want = append(want, "1003", "/c.pem", "/k.pem", "/r.pem", "10.96.0.10", "connect_originate")
			}
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%s lacks %q", p.Name, w)
				}
			}
			low := strings.ToLower(strings.ReplaceAll(text, "access_log off", ""))
			for _, bad := range []string{"access_log", "accesslog", "<no value>", "{{"} {
				if strings.Contains(low, bad) {
					t.Errorf("%s has %q", p.Name, bad)
				}
			}
		}
	}
	bad := somewhere
	bad.Application = "nowhere"
	if _, err := Envoy().Config(bad); err == nil {
		t.Error("an address without a port made a configuration")
	}
}

// TestRows: what a table says of a peer is there, and names are told apart.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All() {
		if p.Name == "" || p.Note == "" || p.install == "" || strings.ContainsAny(p.Name+p.Note, "|\n") || seen[p.Name] {
			t.Errorf("%+v", p)
		}
		seen[p.Name] = true
	}
}

// TestMissing: what is not installed is said, and what brings it; a program on
// PATH is found.
func TestMissing(t *testing.T) {
	p := Peer{Name: "X", program: "no-such-proxy", install: "apt-get install x"}
	if _, err := p.Command(t.TempDir(), somewhere); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install x") {
		t.Errorf("got %v", err)
	}
	if v := p.Version(); v != "" {
		t.Errorf("version %q", v)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "no-such-proxy"), []byte("#!/bin/sh\necho x version 1.2.3-4 2026\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if v := p.Version(); v != "1.2.3" {
		t.Errorf("got version %q, want 1.2.3", v)
	}
}

// TestEnvoyOfPython: Envoy is found where continuous integration puts the
// package, from any folder below.
func TestEnvoyOfPython(t *testing.T) {
	root := t.TempDir()
	bin := filepath.Join(root, Tools, "envoy-1.2.3", "envoy", "_bin", "envoy")
	below := filepath.Join(root, "a", "b")
	for _, d := range []string{filepath.Dir(bin), below} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(below)
	got, err := filepath.EvalSymlinks(envoyOfPython())
	want, _ := filepath.EvalSymlinks(bin)
	if got != want || err != nil {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVersionIn(t *testing.T) {
	for text, want := range map[string]string{
		"nginx version: nginx/1.22.1\n":                                              "1.22.1",
		"HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nx":      "2.6.12",
		"/a/b/envoy  version: 9e5580933739775e8bce/1.40.0/Clean/RELEASE/BoringSSL\n": "1.40.0",
		"nothing 1.2 here": "",
	} {
		if got := versionIn(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestEnvoyIsTheOneThatIsInstalled: continuous integration brings the release
// that the configurations were written for.
func TestEnvoyIsTheOneThatIsInstalled(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "envoy=" + EnvoyVersion + "\n"; !strings.Contains(string(text), want) {
		t.Errorf(".ci/run lacks %q", want)
	}
}
