package house

import (
	"fmt"
	"go/ast"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/sandwich-mesh/sandwich/"

// floors is the building. A package imports packages of lower floors only, so
// nothing knows its neighbours and there is never a cycle to untangle.
//
// ARCHITECTURE.md has the same table with a sentence for each package.
var floors = []struct {
	floor int
	pkgs  string
}{
	{-1, "internal/turn"}, // the ground that floor 0 stands on
	{0, "proxy/config proxy/fault hbone/peer wasm/abi"},
	{0, "internal/buf internal/wheel internal/handover internal/refpool internal/metrics internal/levels internal/memory"},
	{0, "internal/devca internal/testnet internal/needs"},
	{1, "proxy/message proxy/sniff internal/wire internal/h2 hbone/proxyproto wasm/rewrite wasm/fetch"},
	{2, "hbone proxy/http1 proxy/http2"},
	{3, "filters"},
	{4, "filters/* wasm proxy/route proxy/upstream"},
	{4, "bench/account"},
	{5, "proxy/snapshot proxy/measure bench/traffic"},
	{6, "proxy controller/* bench/*"},
	{7, "controller proxy/explain proxy/accesslog proxy/records internal/filesource internal/admin internal/devmesh bench internal/house"},
	{8, "cmd/* examples/* internal/interop"},
}

// sources see the document and nothing else of the proxy.
const sources = "controller controller/* internal/filesource"

// doors says who may import what from outside. Every dependency has one, and
// what only tests may import has an empty one.
var doors = map[string]string{
	"golang.org/x/net/http2":         "internal/h2 bench/stock",
	"golang.org/x/sys":               "internal/wire wasm",
	"github.com/tetratelabs/wazero":  "wasm",
	"oras.land/oras-go":              "wasm/fetch",
	"k8s.io":                         "controller controller/*",
	"sigs.k8s.io":                    "controller controller/*",
	"go.yaml.in/yaml":                "proxy/config bench/load",
	"github.com/spiffe/go-spiffe":    "hbone",
	"google.golang.org/grpc":         "filters/extauth filters/ratelimit controller internal/devmesh bench bench/*",
	"google.golang.org/protobuf":     "filters/extauth filters/ratelimit controller internal/devmesh bench bench/*",
	"github.com/redis/go-redis":      "filters/ratelimit",
	"github.com/HdrHistogram":        "bench bench/*",
	"github.com/fsnotify/fsnotify":   "hbone internal/filesource",
	"github.com/spf13":               "cmd/*",
	"github.com/pires/go-proxyproto": "",
	"crypto/tls":                     "internal/wire hbone proxy/upstream internal/devca internal/devmesh bench bench/* cmd/*",
	"net/http":                       "internal/admin controller controller/* bench bench/* internal/devmesh wasm/fetch filters/jwt filters/extauth",
	"unsafe":                         "internal/buf",
	module + "internal/testnet":      "",
	module + "internal/needs":        "",
	module + "internal/house":        "",
	module + "internal/interop":      "",
	module + "filters/filtertest":    "",
}

// refused are libraries that tests do without as well.
var refused = []string{
	"github.com/stretchr", "github.com/onsi", "github.com/golang/mock", "go.uber.org/mock", "gotest.tools",
}

func floorOf(pkg string) (int, bool) {
	for _, f := range floors {
		if among(f.pkgs, pkg) {
			return f.floor, true
		}
	}
	return 0, false
}

func importsOf(f *ast.File) []string {
	var list []string
	for _, spec := range f.Imports {
		if imp, err := strconv.Unquote(spec.Path.Value); err == nil {
			list = append(list, imp)
		}
	}
	return list
}

// checkFloors: every package has a floor, and its imports go down. Tests are
// exempt.
func checkFloors(tr *tree) (bad []string) {
	for _, pkg := range tr.packages() {
		if _, ok := floorOf(pkg); !ok {
			bad = append(bad, fmt.Sprintf("%s has no floor: give it one in floors and in ARCHITECTURE.md", pkg))
		}
	}
	for _, f := range tr.gos {
		from, ok := floorOf(f.pkg)
		if f.test || !ok {
			continue
		}
		for _, imp := range importsOf(f.file) {
			ours, ok := strings.CutPrefix(imp, module)
			if !ok {
				continue
			}
			if to, ok := floorOf(ours); ok && to >= from {
				bad = append(bad, fmt.Sprintf("%s: floor %d imports %s of floor %d", f.path, from, ours, to))
			}
		}
	}
	return bad
}

// checkSources: whatever yields documents sees floor 0 and its own parts.
func checkSources(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if f.test || !among(sources, f.pkg) {
			continue
		}
		for _, imp := range importsOf(f.file) {
			ours, ok := strings.CutPrefix(imp, module)
			if !ok || among(sources, ours) {
				continue
			}
			if to, ok := floorOf(ours); ok && to > 0 {
				bad = append(bad, fmt.Sprintf("%s imports %s: a source sees floor 0 only", f.path, ours))
			}
		}
	}
	return bad
}

// checkDoors: each outside dependency comes in by its own door, and one
// without a door does not come in.
func checkDoors(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		for _, imp := range importsOf(f.file) {
			if slices.ContainsFunc(refused, func(r string) bool { return strings.HasPrefix(imp, r+"/") }) {
				bad = append(bad, fmt.Sprintf("%s imports %s: the standard library is enough for tests", f.path, imp))
			}
			if f.test {
				continue
			}
			who, door := doorFor(imp)
			switch {
			case door == "" && strings.Contains(firstPart(imp), ".") && !strings.HasPrefix(imp, module):
				bad = append(bad, fmt.Sprintf("%s imports %s, which has no door: give it one in doors and in ARCHITECTURE.md", f.path, imp))
			case door != "" && who == "":
				bad = append(bad, fmt.Sprintf("%s imports %s, which is for tests only", f.path, imp))
			case door != "" && !among(who, f.pkg):
				bad = append(bad, fmt.Sprintf("%s imports %s, which is for %q only", f.path, imp, who))
			}
		}
	}
	return bad
}

// doorFor returns the longest door that imp goes through, and for whom it is.
func doorFor(imp string) (who, door string) {
	for d, w := range doors {
		if (imp == d || strings.HasPrefix(imp, d+"/")) && len(d) > len(door) {
			who, door = w, d
		}
	}
	return who, door
}

func firstPart(imp string) string {
	first, _, _ := strings.Cut(imp, "/")
	return first
}
