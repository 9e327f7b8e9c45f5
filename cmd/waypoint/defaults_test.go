package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite DEFAULTS.md and the tables of OPERATING.md")

// A row is what the page says of a default beside its value.
type row struct{ istio, why string }

// none says that Istio has nothing of the kind.
const none = "–"

// TestDefaultsPage holds DEFAULTS.md to the types: values are read from the code,
// and each flag, field and tagged default needs its row.
func TestDefaultsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Defaults

Made from the code by ` + "`go test ./cmd/waypoint -run TestDefaultsPage -update`" + `; a test keeps
both together. "Istio" is its Envoy waypoint, as of August 2026.
`)
	section(&b, "Flags of waypoint serve", flagLines(t))
	section(&b, "The document", tagLines(t))
	section(&b, "Timeouts", fieldLines(t, "proxy", "Timeouts", timeoutRows))
	section(&b, "Limits of HTTP/1", fieldLines(t, "proxy/http1", "Limits", http1Rows))
	section(&b, "Limits of HTTP/2, in tunnels and around them", fieldLines(t, "internal/h2", "Limits", http2Rows))
	section(&b, "Settings of mesh connections", fieldLines(t, "hbone", "h2.Options", meshRows))
	section(&b, "Numbers that nothing sets", constantLines(t))
	b.WriteString("\n## Behaviour\n\n| what | here | Istio | why |\n|---|---|---|---|\n")
	for _, r := range behaviour {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3])
	}
	file := filepath.Join("..", "..", "DEFAULTS.md")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != b.String() {
		t.Errorf("DEFAULTS.md is not what the code says: run go test ./cmd/waypoint -run TestDefaultsPage -update (%v)", err)
	}
}

func section(b *strings.Builder, title string, lines []string) {
	b.WriteString("\n## " + title + "\n\n| what | default | Istio | why |\n|---|---|---|---|\n")
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
}

// line makes a table's line, and asks for a row where there is none.
func line(t *testing.T, rows map[string]row, used map[string]bool, key, value, about string) string {
	t.Helper()
	r, ok := rows[key]
	if !ok {
		t.Errorf("%s has the default %s and no row: say in defaults_rows_test.go what Istio has, and why", key, value)
	}
	used[key] = true
	if about != "" {
		about = ": " + strings.ReplaceAll(about, "|", `\|`)
	}
	return fmt.Sprintf("| `%s`%s | %s | %s | %s |", key, about, value, r.istio, r.why)
}

func allUsed(t *testing.T, rows map[string]row, used map[string]bool) {
	t.Helper()
	for key := range rows {
		if !used[key] {
			t.Errorf("the row %s is about nothing", key)
		}
	}
}

func flagLines(t *testing.T) (out []string) {
	used := map[string]bool{}
	serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		value := strings.Trim(f.DefValue, "[]")
		if d, err := time.ParseDuration(value); err == nil && f.Value.Type() == "duration" {
			value = number{n: int64(d), time: true}.String()
		}
		if value == "" {
			value = "none"
		}
		out = append(out, line(t, flagRows, used, "--"+f.Name, "`"+value+"`", f.Usage))
	})
	allUsed(t, flagRows, used)
	return out
}

// source parses a package of ours without its tests.
func source(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", dir, err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// tagLines finds what the document's types have as default.
func tagLines(t *testing.T) (out []string) {
	used := map[string]bool{}
	for _, f := range source(t, "proxy/config") {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range s.Fields.List {
				if field.Tag == nil {
					continue
				}
				raw, _ := strconv.Unquote(field.Tag.Value)
				tag := reflect.StructTag(raw)
				value, ok := tag.Lookup("default")
				if !ok {
					continue
				}
				name, _, _ := strings.Cut(tag.Get("json"), ",")
				key := spec.Name.Name + "." + name
				if !used[key] {
					out = append(out, line(t, tagRows, used, key, "`"+value+"`", sentence(field)))
				}
			}
			return true
		})
	}
	allUsed(t, tagRows, used)
	slices.Sort(out)
	return out
}

// sentence is what a field's comment says.
func sentence(f *ast.Field) string {
	text := f.Doc.Text()
	if text == "" {
		text = f.Comment.Text()
	}
	text = strings.Join(strings.Fields(text), " ")
	return strings.TrimSuffix(text, ".")
}

// fieldLines finds the fields of a struct type, and in the first literal of it
// what they are by default. A type of another package has no comments here.
func fieldLines(t *testing.T, dir, name string, rows map[string]row) (out []string) {
	files := source(t, dir)
	values, used := map[string]string{}, map[string]bool{}
	var order []string
	about := map[string]string{}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok && n.Name.Name == name {
					for _, field := range s.Fields.List {
						for _, id := range field.Names {
							order = append(order, id.Name)
							about[id.Name] = sentence(field)
						}
					}
				}
			case *ast.CompositeLit:
				if n.Type == nil || exprText(n.Type) != name || len(values) > 0 {
					return true
				}
				for _, e := range n.Elts {
					kv := e.(*ast.KeyValueExpr)
					if v, ok := evaluate(files, kv.Value); ok {
						values[exprText(kv.Key)] = v.String()
						if strings.Contains(name, ".") {
							order = append(order, exprText(kv.Key))
						}
					}
				}
			}
			return true
		})
	}
	for _, field := range order {
		value := values[field]
		if value == "" {
			value = "never"
		}
		text, _ := strings.CutPrefix(about[field], field+" ")
		out = append(out, line(t, rows, used, field, value, text))
	}
	if len(out) == 0 {
		t.Errorf("no %s in %s", name, dir)
	}
	allUsed(t, rows, used)
	return out
}

func constantLines(t *testing.T) (out []string) {
	for _, c := range constantRows {
		files := source(t, c.dir)
		e, doc := constant(files, c.name)
		v, ok := evaluate(files, e)
		if !ok {
			t.Errorf("%s has no constant %s that can be read", c.dir, c.name)
			continue
		}
		if c.about != "" {
			doc = c.about
		}
		out = append(out, fmt.Sprintf("| %s (`%s`) | %s | %s | %s |", doc, c.dir, v, c.istio, c.why))
	}
	return out
}

// constant finds a constant of a package.
func constant(files []*ast.File, name string) (value ast.Expr, doc string) {
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, id := range v.Names {
					if id.Name == name && i < len(v.Values) {
						return v.Values[i], v.Doc.Text()
					}
				}
			}
		}
	}
	return nil, ""
}

// A number is a constant's value.
type number struct {
	n    int64
	time bool
	text string // if it is no number
}

func (v number) String() string {
	switch {
	case v.text != "":
		return v.text
	case v.time:
		s := time.Duration(v.n).String()
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(s, zero) {
				s = s[:len(s)-2]
			}
		}
		return s
	case v.n >= 1<<20 && v.n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", v.n>>20)
	case v.n >= 4<<10 && v.n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", v.n>>10)
	}
	return strconv.FormatInt(v.n, 10)
}

// evaluate computes the constant expressions that defaults are written in.
func evaluate(files []*ast.File, e ast.Expr) (number, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.ParseInt(strings.ReplaceAll(e.Value, "_", ""), 0, 64)
		return number{n: n}, err == nil
	case *ast.ParenExpr:
		return evaluate(files, e.X)
	case *ast.Ident:
		if c, _ := constant(files, e.Name); c != nil {
			return evaluate(files, c)
		}
		return number{text: e.Name}, true
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour, "Millisecond": time.Millisecond}
		unit, ok := units[e.Sel.Name]
		return number{n: int64(unit), time: true}, ok
	case *ast.BinaryExpr:
		x, ok1 := evaluate(files, e.X)
		y, ok2 := evaluate(files, e.Y)
		v := number{time: x.time || y.time}
		switch e.Op {
		case token.MUL:
			v.n = x.n * y.n
		case token.SHL:
			v.n = x.n << y.n
		case token.ADD:
			v.n = x.n + y.n
		default:
			return v, false
		}
		return v, ok1 && ok2
	}
	return number{}, false
}

func exprText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return exprText(e.X) + "." + e.Sel.Name
	}
	return ""
}

func TestEvaluate(t *testing.T) {
	for text, want := range map[string]string{
		"10 * time.Second": "10s", "time.Hour": "1h", "90 * time.Minute": "1h30m", "60 << 10": "60 KiB", "4 << 20": "4 MiB",
		"1_000": "1000", "(1<<10) + 256<<10": "257 KiB", "client": "client",
	} {
		e, err := parser.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := evaluate(nil, e); !ok || got.String() != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if _, ok := evaluate(nil, nil); ok {
		t.Error("nothing has a value")
	}
}
