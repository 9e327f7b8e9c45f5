package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/headers"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/levels"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/accesslog"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/records"
)

const operating = "OPERATING.md"

// TestOperatingPage holds the guide's tables to the program.
func TestOperatingPage(t *testing.T) {
	file := filepath.Join("..", "..", operating)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range map[string]string{
		"metrics": metricsTable(t), "labels": labelsTable(t), "faults": faultsTable(), "pages": pagesTable(t),
	} {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
		head, rest, ok1 := strings.Cut(want, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("%s has no place for %s", operating, name)
		}
		want = head + begin + "\n" + table + "\n" + end + tail
	}
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not what the program says: run go test ./cmd/waypoint -run TestOperatingPage -update", operating)
	}
}

// TestOperatingNames: the guide names every flag of serve and records, every port
// and every metric that the source knows, and none that there is not.
func TestOperatingNames(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", operating))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	flags, ports, source := map[string]bool{}, map[string]bool{"15088": true}, metricsInSource(t)
	for _, c := range []*cobra.Command{serveCommand(), recordsCommand()} {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags["--"+f.Name] = true
			}
			for _, p := range portNumber.FindAllString(f.DefValue, -1) {
				ports[p] = true
			}
		})
	}
	for _, one := range []struct {
		what     string
		is, said map[string]bool
	}{
		{"flag", flags, named(page, regexp.MustCompile(`--[a-z][a-z0-9-]+`))},
		{"port", ports, named(page, portNumber)},
		{"metric", source, named(page, metricName)},
	} {
		for name := range one.is {
			if !one.said[name] {
				t.Errorf("%s does not name the %s %s", operating, one.what, name)
			}
		}
		for name := range one.said {
			if !one.is[name] {
				t.Errorf("%s names the %s %s, which there is not", operating, one.what, name)
			}
		}
		if len(one.is) < 4 {
			t.Errorf("only %d of %s were found", len(one.is), one.what)
		}
	}
}

var (
	portNumber = regexp.MustCompile(`\b15\d{3}\b`)
	metricName = regexp.MustCompile(`\b(?:waypoint|istio|config|go|process)_[a-z0-9_]*[a-z0-9]\b|waypoint_filter_NAME_total`)
	inSource   = regexp.MustCompile(`"((?:waypoint|istio|config|go|process)_[a-z0-9_]+)"`)
)

func named(page string, re *regexp.Regexp) map[string]bool {
	all := map[string]bool{}
	for _, m := range re.FindAllString(page, -1) {
		all[m] = true
	}
	return all
}

// metricsInSource are the names that stand in the program's source.
func metricsInSource(t *testing.T) map[string]bool {
	all := map[string]bool{}
	for _, dir := range []string{"proxy", "hbone", "filters", "internal", "cmd/waypoint"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range inSource.FindAllSubmatch(text, -1) {
				name := string(m[1])
				if name == "waypoint_filter_" { // each filter's own
					name = "waypoint_filter_NAME_total"
				}
				all[name] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// everyMetric is a proxy that has seen a bit of everything, so that all families
// have a series.
func everyMetric(t *testing.T) map[string]metrics.Series {
	reg := new(metrics.Registry)
	l := accesslog.New(accesslog.Options{Writer: io.Discard, Metrics: reg})
	t.Cleanup(func() { l.Close(t.Context()) })
	reg.Collect(metrics.Process{Version: "v"})
	refusals(slog.New(slog.DiscardHandler), reg)
	counts := filters.Kind{Name: "counts", New: func(b *filters.Builder, _ filters.Spec) (filters.Filter, error) {
		b.Counter("NAME")
		return quiet{}, nil
	}}
	p := proxy.New(proxy.Options{
		Metrics: reg, Registry: filters.NewRegistry(counts, headers.RequestKind(), headers.ResponseKind()),
		Guard: func(b *filters.Builder, _ string) error { return b.Add("counts", "x", filters.NewSpec(nil)) },
	})
	t.Cleanup(func() { p.Shutdown(t.Context()) })
	(&serveFlags{stateDir: t.TempDir()}).document(p, new(life), slog.New(slog.DiscardHandler)) // which counts too
	const head = "apiVersion: sandwich-mesh.io/v1alpha1\nkind: Waypoint\nmetadata: {name: waypoint, namespace: shop}\n" +
		"services: [{name: a, addresses: [10.96.0.1], ports: [{port: 80, appProtocol: http}]}]\nhttpRoutes:\n"
	route := func(name, path string) string {
		return fmt.Sprintf("- {name: %s, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{path: {type: RegularExpression, value: %q}}], backendRefs: [{name: a, port: 80}]}]}\n", name, path)
	}
	for _, doc := range []string{head + route("r", "/a"), head + route("r", "(") + route("new", "(")} { // which leaves one stale and one closed
		c, _ := config.Decode(config.File{Name: "x.yaml", Data: []byte(doc)})
		p.Apply(c)
	}
	m := measure.New(new(metrics.Registry), measure.Options{})
	from := m.Source(&peer.Info{}, nil)
	m.Request(&measure.Request{Source: from, Protocol: measure.GRPC, Code: 200, GRPC: 0, Fault: measure.NoFault})
	m.Open(from, nil, nil)
	all := map[string]metrics.Series{}
	keep := func(s *metrics.Series) { all[s.Name] = *s }
	reg.Each(keep)
	m.Collect(keep)
	return all
}

type quiet struct{}

func (quiet) Request(*filters.Stream) *filters.Reply { return nil }

func metricsTable(t *testing.T) string {
	all := everyMetric(t)
	for name := range metricsInSource(t) {
		if _, ok := all[name]; !ok {
			t.Errorf("the metric %s has no series to be described by", name)
		}
	}
	mesh := mesh(all)
	var b strings.Builder
	b.WriteString("| metric | labels | what |\n|---|---|---|\n")
	for _, name := range slices.SortedFunc(mapKeys(all), byOwner) {
		s := all[name]
		labels := labelNames(s)
		if mesh[name] {
			labels = "the mesh's"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, labels, cmp.Or(strings.TrimSuffix(s.Help, "."), "What a filter counts"))
	}
	return b.String()
}

// mesh are the metrics that all dashboards of the mesh know.
func mesh(all map[string]metrics.Series) map[string]bool {
	is := map[string]bool{}
	for name := range all {
		is[name] = strings.HasPrefix(name, "istio_") && name != "istio_build"
	}
	return is
}

func mapKeys(all map[string]metrics.Series) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range all {
			if !yield(name) {
				return
			}
		}
	}
}

// byOwner puts the mesh's first and the runtime's last.
func byOwner(a, b string) int {
	rank := func(name string) int {
		for i, p := range []string{"istio_", "waypoint_", "config_", "process_", "go_"} {
			if strings.HasPrefix(name, p) {
				return i
			}
		}
		return -1
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
}

func labelNames(s metrics.Series) string {
	var names []string
	for _, l := range s.Labels {
		names = append(names, "`"+l.Name+"`")
	}
	return strings.Join(names, ", ")
}

// labelMeanings say what the labels of the mesh's metrics are.
var labelMeanings = map[string]string{
	"reporter":                       "always waypoint",
	"source_workload":                "who called: its deployment, by the document or by what its node tunnel tells",
	"source_canonical_service":       "its canonical service",
	"source_canonical_revision":      "its revision; latest if nobody says",
	"source_workload_namespace":      "its namespace, by its identity",
	"source_principal":               "its SPIFFE ID, as it was proved",
	"source_app":                     "its label app",
	"source_version":                 "its label version",
	"source_cluster":                 "its cluster",
	"destination_workload":           "the endpoint's deployment",
	"destination_workload_namespace": "its namespace",
	"destination_principal":          "its SPIFFE ID, which it had to prove",
	"destination_app":                "its label app",
	"destination_version":            "its label version",
	"destination_service":            "the host of the service that the route chose",
	"destination_canonical_service":  "the endpoint's canonical service",
	"destination_canonical_revision": "its revision",
	"destination_service_name":       "the service's name",
	"destination_service_namespace":  "the service's namespace",
	"destination_cluster":            "the endpoint's cluster",
	"request_protocol":               "http, grpc or tcp",
	"response_code":                  "the status; 0 if none was sent",
	"grpc_response_status":           "grpc-status; empty if there was none",
	"response_flags":                 "what went wrong, as in the access log",
	"connection_security_policy":     "mutual_tls if both ends have proved who they are, else none",
}

func labelsTable(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| label | says |\n|---|---|\n")
	list := everyMetric(t)["istio_requests_total"].Labels
	for _, l := range list {
		if labelMeanings[l.Name] == "" {
			t.Errorf("labelMeanings does not say what %s is", l.Name)
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", l.Name, labelMeanings[l.Name])
	}
	if len(labelMeanings) != len(list) {
		t.Errorf("labelMeanings has %d labels, a request %d", len(labelMeanings), len(list))
	}
	return b.String()
}

func faultsTable() string {
	var b strings.Builder
	b.WriteString("| flags | status | details | means |\n|---|---|---|---|\n")
	for k := range fault.Kinds {
		r := k.Row()
		status := fmt.Sprint(r.Status)
		if r.Status == 0 {
			status = "–"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", r.Flag, status, r.Details, r.Text)
	}
	return b.String()
}

// pagesTable is the index that the admin port shows.
func pagesTable(t *testing.T) string {
	p := proxy.New(proxy.Options{})
	t.Cleanup(func() { p.Shutdown(t.Context()) })
	o := &operator{p: p, levels: levels.New(nil, 0), started: time.Now()}
	w := httptest.NewRecorder()
	q := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:15000/?format=json", nil)
	o.server(new(metrics.Registry), p.Ready, recordsPage(new(records.Ring))).Admin().ServeHTTP(w, q)
	if w.Code != 200 {
		t.Fatalf("the index answers %d", w.Code)
	}
	var b strings.Builder
	b.WriteString("| method | path | what |\n|---|---|---|\n")
	var index struct {
		Rows []struct{ Method, Path, What string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &index); err != nil || len(index.Rows) == 0 {
		t.Fatalf("the index has %d rows: %v", len(index.Rows), err)
	}
	for _, r := range index.Rows {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", r.Method, r.Path, strings.ReplaceAll(r.What, "|", `\|`))
	}
	return b.String()
}
