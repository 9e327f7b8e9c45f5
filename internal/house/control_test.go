package house

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const goodDoc = `// Package %s is one thing.
//
// It does nothing else.
//
// # Memory
//
// None.
//
// # Concurrency
//
// Safe.
//
// Start reading at the end.
package %s
`

func docOf(name string) string { return strings.ReplaceAll(goodDoc, "%s", name) }

// goodTree is a small tree that keeps every rule. The rows of controls change
// one thing each.
func goodTree() map[string]string {
	page := "# A\n\n## The walk\n\n| # | file | function | what happens | built |\n|---|---|---|---|---|\n" +
		"| 1 | `proxy/proxy.go`, `hbone/hbone.go` | `Serve`, `accept` | it begins | yes |\n" +
		"| 2 | `proxy/relay.go` | `relay` | it goes on | no |\n\n## Floors\n\n"
	for _, f := range floors {
		for p := range strings.FieldsSeq(f.pkgs) {
			page += "`" + p + "` is for something.\n"
		}
	}
	page += "\n## Glossary\n\n| term | means | not |\n|---|---|---|\n"
	for term := range strings.SplitSeq(glossary, ",") {
		page += "| " + term + " | something | other |\n"
	}
	tree := map[string]string{
		"ARCHITECTURE.md":              page,
		"LICENSE":                      "Apache\n",
		"cmd/waypoint/main.go":         "// Waypoint is the proxy.\npackage main\n\nimport _ \"github.com/sandwich-mesh/sandwich/proxy\"\n\nfunc main() {}\n",
		"proxy/doc.go":                 docOf("proxy"),
		"proxy/proxy.go":               "package proxy\n\nimport (\n\t_ \"errors\"\n\n\t_ \"github.com/sandwich-mesh/sandwich/hbone\"\n)\n\nvar table = []int{1}\n\nfunc Serve() {\n\ttable := table\n\ttable[0] = 2\n\tgo loop()\n}\n\nfunc loop() {}\n",
		"proxy/proxy_test.go":          "package proxy\n\nimport (\n\t\"testing\"\n\t\"testing/synctest\"\n\t\"time\"\n\n\t_ \"github.com/sandwich-mesh/sandwich/internal/testnet\"\n)\n\nfunc TestA(t *testing.T) {\n\tsynctest.Test(t, func(t *testing.T) { time.Sleep(1) })\n\tsynctest.Test(t, bubble)\n\tmaker(t, func() { time.Sleep(1) })\n}\n\nfunc maker(t *testing.T, f func()) {\n\tsynctest.Test(t, func(t *testing.T) { f() })\n}\n\nfunc bubble(t *testing.T) { time.Sleep(1); pass() }\n\nfunc pass() { time.Sleep(1) }\n",
		"hbone/doc.go":                 docOf("hbone"),
		"hbone/hbone.go":               "package hbone\n\nfunc accept() {}\n",
		"internal/testnet/doc.go":      docOf("testnet"),
		"internal/turn/doc.go":         docOf("turn"),
		"proxy/config/doc.go":          docOf("config"),
		"internal/filesource/doc.go":   docOf("filesource"),
		"internal/filesource/file.go":  "package filesource\n\nimport _ \"github.com/sandwich-mesh/sandwich/proxy/config\"\n",
		"filters/doc.go":               docOf("filters"),
		"filters/headers/doc.go":       docOf("headers"),
		"filters/headers/README.md":    "# headers\n\n## What it does\n\n## Configuration\n\n## Example\n\n## Metrics\n",
		"examples/minimal/config.yaml": "kind: Waypoint\n",
		"examples/minimal/README.md":   "# Minimal\n\n```\nwaypoint serve\n```\n",
		"bench/nested/go.mod":          "module elsewhere\n",
		"bench/nested/main.go":         "package nofloor\n",
	}
	for _, p := range rootPages {
		if _, ok := tree[p]; !ok {
			tree[p] = "# " + p + "\n\n[the license](LICENSE), [the proxy](proxy)\n"
		}
	}
	return tree
}

func write(t *testing.T, files map[string]string) *tree {
	t.Helper()
	root := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(files[name]), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestGoodTreeKeepsEveryRule(t *testing.T) {
	tr := write(t, goodTree())
	for _, r := range rules {
		for _, sentence := range r.check(tr) {
			t.Errorf("%s: %s", r.name, sentence)
		}
	}
}

const ours = "github.com/sandwich-mesh/sandwich/"

// controls break one rule each. Without them a rule that looks at nothing
// would pass for ever.
var controls = []struct {
	name string
	rule string
	file string
	text string // replaces the file; empty takes it out
	want string // part of the sentence
}{
	{"up", "floors", "hbone/up.go", "package hbone\n\nimport _ \"" + ours + "proxy\"\n", "floor 2 imports proxy of floor 6"},
	{"neighbour", "floors", "filters/headers/x.go", "package headers\n\nimport _ \"" + ours + "filters/jwt\"\n", "floor 4 imports filters/jwt of floor 4"},
	{"no floor", "floors", "gadget/doc.go", docOf("gadget"), "gadget has no floor"},
	{"root code", "floors", "x.go", docOf("x"), ". has no floor"},
	{"source sees the engine", "sources", "internal/filesource/x.go", "package filesource\n\nimport _ \"" + ours + "hbone\"\n", "a source sees floor 0 only"},
	{"wrong door", "doors", "proxy/x.go", "package proxy\n\nimport _ \"net/http\"\n", "net/http, which is for"},
	{"door of a door", "doors", "proxy/x.go", "package proxy\n\nimport _ \"golang.org/x/net/http2/hpack\"\n", "which is for \"internal/h2 bench/stock\" only"},
	{"no door", "doors", "proxy/x.go", "package proxy\n\nimport _ \"example.org/x\"\n", "has no door"},
	{"unsafe", "doors", "proxy/x.go", "package proxy\n\nimport _ \"unsafe\"\n", "unsafe, which is for"},
	{"test support in code", "doors", "proxy/x.go", "package proxy\n\nimport _ \"" + ours + "internal/testnet\"\n", "for tests only"},
	{"assertions", "doors", "proxy/x_test.go", "package proxy\n\nimport _ \"github.com/stretchr/testify/assert\"\n", "standard library is enough"},
	{"no comment", "package comments", "hbone/doc.go", "package hbone\n", "hbone has no package comment"},
	{"two comments", "package comments", "hbone/hbone.go", "// Package hbone again.\npackage hbone\n", "2 times"},
	{"comment elsewhere", "package comments", "internal/turn/doc.go", "package turn\n", "internal/turn has no package comment"},
	{"comment lacks memory", "package comments", "hbone/doc.go", strings.Replace(docOf("hbone"), "# Memory", "Memory", 1), `lacks "# Memory"`},
	{"comment lacks concurrency", "package comments", "hbone/doc.go", strings.Replace(docOf("hbone"), "# Concurrency", "", 1), `lacks "# Concurrency"`},
	{"comment lacks a start", "package comments", "hbone/doc.go", strings.Replace(docOf("hbone"), "Start reading at", "See", 1), `lacks "Start reading at"`},
	{"not formatted", "format", "hbone/hbone.go", "package hbone\n\nfunc accept()  {}\n", "as gofmt leaves it"},
	{"long file", "sizes", "hbone/x.go", "package hbone\n" + strings.Repeat("\n", maxFile), "601 lines, the limit is 600"},
	{"long function", "sizes", "hbone/x.go", "package hbone\n\nfunc long() {" + strings.Repeat("\n", maxFunction) + "}\n", "long has 71 lines, the limit is 70"},
	{"many parameters", "sizes", "hbone/x.go", "package hbone\n\nfunc many(a, b, c, d int, e, f string) {}\n", "6 parameters, the limit is 5"},
	{"wall clock", "clocks", "hbone/x.go", "package hbone\n\nimport \"time\"\n\nfunc since(t time.Time) int64 { return time.Now().Unix() - t.Unix() }\n", "loses the monotonic clock"},
	{"init", "globals", "hbone/x.go", "package hbone\n\nfunc init() {}\n", "init: main says"},
	{"variable assigned", "globals", "proxy/x.go", "package proxy\n\nfunc set() { table = nil }\n", "package variable table changes"},
	{"variable indexed", "globals", "proxy/x.go", "package proxy\n\nfunc set() { table[0]++ }\n", "package variable table changes"},
	{"global logger", "globals", "proxy/x.go", "package proxy\n\nimport \"log/slog\"\n\nfunc say() { slog.Info(\"x\") }\n", "a logger is passed in"},
	{"nameless goroutine", "goroutines", "proxy/x.go", "package proxy\n\nfunc run() { go func() {}() }\n", "without a name"},
	{"sleep", "sleeps", "proxy/x_test.go", "package proxy\n\nimport \"time\"\n\nfunc nap() { time.Sleep(1) }\n", "time.Sleep in a test"},
	{"sleep by another's hand", "sleeps", "proxy/x_test.go", "package proxy\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) { pass() }\n", "proxy_test.go:23: time.Sleep in a test"},
	{"program", "missing", "proxy/x_test.go", "package proxy\n\nimport \"os/exec\"\n\nfunc find() { exec.LookPath(\"node\") }\n", "ask needs.Program"},
	{"data", "missing", "proxy/x_test.go", "package proxy\n\nconst data = \"../../shared/testdata/x\"\n", "ask needs.Data"},
	{"folder", "names", "internal/util/doc.go", docOf("util"), "a folder's name says"},
	{"repeats its parent", "names", "filters/jwtfilter/doc.go", docOf("jwtfilter"), "does not repeat"},
	{"type", "names", "proxy/x.go", "package proxy\n\ntype ConnManager struct{}\n", "a type's name says"},
	{"glossary's other word, type", "names", "proxy/x.go", "package proxy\n\ntype Middleware struct{}\n", "the glossary has another word"},
	{"glossary's other word, function", "names", "proxy/x.go", "package proxy\n\nfunc Encapsulate() {}\n", "the glossary has another word"},
	{"getter", "names", "proxy/x.go", "package proxy\n\ntype x struct{}\n\nfunc (x) GetName() string { return \"\" }\n", "does not say Get"},
	{"to-do", "words", "proxy/x.go", "package proxy\n\n// TODO(me): later.\n", "names its condition"},
	{"how it was made", "words", "README.md", "# A\n\nBuilt as requested.\n", "how it was made"},
	{"where it was made", "words", "Makefile", "x:\n\tls /work/main\n", "how it was made"},
	{"missing page", "pages", "SECURITY.md", "", "SECURITY.md is missing"},
	{"dead link", "pages", "README.md", "[x](docs/none.md)\n", "docs/none.md, which is not there"},
	{"example without configuration", "examples", "examples/minimal/config.yaml", "", "has no config.yaml"},
	{"example without commands", "examples", "examples/minimal/README.md", "# Minimal\n", "no README.md with commands"},
	{"filter without headings", "examples", "filters/headers/README.md", "# headers\n", "lacks the heading"},
	{"walk names what is not there", "walk", "hbone/hbone.go", "package hbone\n", "step 1: no function accept"},
	{"walk does not know what is there", "walk", "proxy/relay.go", "package proxy\n\nfunc relay() {}\n", "say that it is built"},
	{"no walk", "walk", "ARCHITECTURE.md", "# A\n", "no table"},
	{"no floor table", "floor table", "ARCHITECTURE.md", "# A\n\n## Floors\n", "does not say what hbone on floor 2"},
	{"no glossary", "glossary", "ARCHITECTURE.md", "# A\n", "does not explain tunnel"},
}

func TestEveryRuleCanFail(t *testing.T) {
	controlled := map[string]bool{}
	for _, c := range controls {
		controlled[c.rule] = true
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			files := goodTree()
			files[c.file] = c.text
			if c.text == "" {
				delete(files, c.file)
			}
			tr := write(t, files)
			for _, r := range rules {
				if r.name != c.rule {
					continue
				}
				got := strings.Join(r.check(tr), "\n")
				if !strings.Contains(got, c.want) {
					t.Errorf("got %q, want it to contain %q", got, c.want)
				}
			}
		})
	}
	for _, r := range rules {
		if !controlled[r.name] {
			t.Errorf("the rule %q has no control", r.name)
		}
	}
}

// TestExceptions shows that one with a reason holds, and that one which nothing
// needs fails.
func TestExceptions(t *testing.T) {
	files := goodTree()
	files["hbone/x.go"] = "package hbone\n\nvar n int\n\nfunc many(a, b, c, d, e, f int) { n = a }\n"
	tr := write(t, files)
	tr.allowed = map[string]string{
		"parameters hbone/x.go:many": "it mirrors a system call",
		"variable hbone/x.go:n":      "it counts",
	}
	if got := append(checkSizes(tr), checkGlobals(tr)...); len(got) != 0 {
		t.Errorf("got %q, want none", got)
	}
	tr.allowed["function hbone/x.go:many"] = "it was long once"
	tr.allowed["variable hbone/x.go:m"] = "it was there once"
	for _, rule := range []func(*tree) []string{checkSizes, checkGlobals} {
		if got := strings.Join(rule(tr), "\n"); !strings.Contains(got, "not needed") {
			t.Errorf("got %q, want a sentence about the exception", got)
		}
	}
}
