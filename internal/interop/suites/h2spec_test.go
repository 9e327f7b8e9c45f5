package suites

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy"
)

// cases is how many h2spec has, the strict ones included.
const cases = 146

// h2spec runs every case against addr, but expects those excused to fail. A case
// that skips itself has not passed.
func h2spec(t *testing.T, addr string, c config.Config, excused map[string]string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Host, c.Path, c.Strict = host, "/", true
	if c.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		n += h2specGroup(t, &c, g, excused)
	}
	if n != cases {
		t.Errorf("got %d cases, want %d", n, cases)
	}
}

func h2specGroup(t *testing.T, c *config.Config, g *spec.TestGroup, excused map[string]string) (n int) {
	for i, tc := range append(g.Tests, g.StrictTests...) {
		n++
		id := fmt.Sprintf("%s/%d", g.ID(), i+1)
		t.Run(id, func(t *testing.T) {
			c := *c
			why, known := excused[id]
			c.Timeout = 2 * time.Second
			if known {
				c.Timeout = 300 * time.Millisecond // it is what most of them fail by
			}
			conn, err := spec.Dial(&c)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			switch err = tc.Run(&c, conn); {
			case known && err == nil:
				t.Errorf("%s: it passes, and need not be excused: %s", tc.Desc, why)
			case !known && err != nil:
				t.Errorf("%s\n%s\n%v", tc.Desc, tc.Requirement, err)
			}
		})
	}
	for _, sub := range g.Groups {
		n += h2specGroup(t, c, sub, excused)
	}
	return n
}

// TestH2specInside: what clients speak inside tunnels, to an application that
// speaks it as well and to one of HTTP/1.
func TestH2specInside(t *testing.T) {
	for _, app := range []string{"http2", "http"} {
		m := startMesh(t, devmesh.Options{Config: document(t, strings.Replace(routed, "APP", app, 1))})
		for _, mode := range []devmesh.Mode{devmesh.HBONE, devmesh.Sandwich} {
			t.Run(app+" over "+string(mode), func(t *testing.T) {
				h2spec(t, entry(t, m, mode), config.Config{MaxHeaderLen: 4000}, nil)
			})
		}
	}
}

// What h2spec asks for by GET a tunnel's end refuses, whole and at once.
const (
	answered = "it is about a stream that is not over, and a refused one is"
	bodiless = "it wants a response with a body, and a refusal has none"
)

// TestH2specOutside: the mesh's own connections, mutual TLS and nothing but
// CONNECT. h2spec cannot CONNECT, so what needs an open stream is excused.
func TestH2specOutside(t *testing.T) {
	m := startMesh(t, devmesh.Options{Modes: []devmesh.Mode{devmesh.HBONE}, Config: document(t, oneService)})
	leaf, err := m.CA().Issue([]string{devmesh.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config{TLS: true, Insecure: true}
	c.CertFile = write(t, "cert.pem", leaf.Chain)
	c.CertKeyFile = write(t, "key.pem", leaf.Key)
	c.MaxHeaderLen = 20_000 // five of them are more than the 64 KiB that a frame may have
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go m.Waypoint(devmesh.HBONE).Serve(t.Context(), proxy.Listeners{HBONE: []net.Listener{l}})
	h2spec(t, l.Addr().String(), c, map[string]string{
		"generic/2/2":     bodiless,
		"generic/2/3":     bodiless,
		"http2/5.1/8":     answered,
		"http2/5.1/9":     answered,
		"http2/5.1.2/1":   answered,
		"http2/6.5.3/1":   bodiless,
		"http2/6.9/2":     answered,
		"http2/6.9.1/1":   bodiless,
		"http2/6.9.1/3":   answered,
		"http2/6.9.2/1":   bodiless,
		"http2/6.9.2/2":   bodiless,
		"http2/8.1/1":     answered,
		"http2/8.1.2.1/3": answered,
		"http2/8.1.2.6/1": answered,
		"http2/8.1.2.6/2": answered,
	})
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
