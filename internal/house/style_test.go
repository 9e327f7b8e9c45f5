package house

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The good end of what admired code bases measure: a 95th percentile of 55
// lines a function and files under 600.
const (
	maxFile       = 600
	maxFunction   = 70
	maxParameters = 5
)

// exceptions are the places that may break a rule, each with its reason. The
// key is "what path:name". One that is not needed any more fails.
var exceptions = map[string]string{
	"variable internal/buf/check_on.go:lent": "housecheck builds only: the ledger of buffers that are out, under its own lock",
}

// A waiver remembers which of a tree's exceptions a rule made use of.
type waiver struct {
	allowed map[string]string
	used    map[string]bool
}

func (tr *tree) waiver() waiver { return waiver{tr.allowed, map[string]bool{}} }

// excepted reports whether what may stand at the place, and notes its use.
func (w waiver) excepted(what, place string) bool {
	key := what + " " + place
	w.used[key] = true
	return w.allowed[key] != ""
}

// unused finds exceptions of these kinds that the rule did not need.
func (w waiver) unused(kinds ...string) (bad []string) {
	for key := range w.allowed {
		what, _, _ := strings.Cut(key, " ")
		if slices.Contains(kinds, what) && !w.used[key] {
			bad = append(bad, fmt.Sprintf("the exception %q is not needed: take it out", key))
		}
	}
	return bad
}

// checkSizes looks at code only: a test's table may be as long as its story.
func checkSizes(tr *tree) (bad []string) {
	w := tr.waiver()
	for _, f := range tr.code() {
		if f.lines > maxFile && !w.excepted("file", f.path) {
			bad = append(bad, fmt.Sprintf("%s has %d lines, the limit is %d", f.path, f.lines, maxFile))
		}
		for _, d := range f.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			key := f.path + ":" + fn.Name.Name
			lines := tr.fset.Position(fn.End()).Line - tr.fset.Position(fn.Pos()).Line + 1
			if lines > maxFunction && !w.excepted("function", key) {
				bad = append(bad, fmt.Sprintf("%s: %s has %d lines, the limit is %d", tr.at(fn), fn.Name.Name, lines, maxFunction))
			}
			if n := fn.Type.Params.NumFields(); n > maxParameters && !w.excepted("parameters", key) {
				bad = append(bad, fmt.Sprintf("%s: %s has %d parameters, the limit is %d: make a struct", tr.at(fn), fn.Name.Name, n, maxParameters))
			}
		}
	}
	return append(bad, w.unused("file", "function", "parameters")...)
}

// checkGlobals: no init, no package variable that is assigned to, no logger
// that is reached through a package.
func checkGlobals(tr *tree) (bad []string) {
	w := tr.waiver()
	vars := map[string]map[string]bool{} // package, name
	for _, f := range tr.code() {
		for _, name := range packageVars(f.file) {
			if vars[f.pkg] == nil {
				vars[f.pkg] = map[string]bool{}
			}
			vars[f.pkg][name] = true
		}
	}
	for _, f := range tr.gos {
		for _, d := range f.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if fn.Recv == nil && fn.Name.Name == "init" {
				bad = append(bad, fmt.Sprintf("%s: init: main says what the binary contains", tr.at(fn)))
			}
			if !f.test && !f.generated {
				bad = append(bad, tr.writes(fn, vars[f.pkg], w)...)
			}
		}
		if !f.test && !among("cmd/* examples/*", f.pkg) {
			bad = append(bad, tr.loggers(f.file)...)
		}
	}
	return append(bad, w.unused("variable")...)
}

func packageVars(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			for _, n := range spec.(*ast.ValueSpec).Names {
				if n.Name != "_" {
					names = append(names, n.Name)
				}
			}
		}
	}
	return names
}

// writes finds assignments in fn to the package's variables. It is light: what
// a method changes inside a variable it does not see.
func (tr *tree) writes(fn *ast.FuncDecl, vars map[string]bool, w waiver) (bad []string) {
	look := func(e ast.Expr) {
		id := rootOf(e)
		if id == nil || !vars[id.Name] {
			return
		}
		// An identifier that resolves inside the function hides the variable.
		if id.Obj != nil && fn.Pos() <= id.Obj.Pos() && id.Obj.Pos() < fn.End() {
			return
		}
		if w.excepted("variable", tr.fset.Position(fn.Pos()).Filename+":"+id.Name) {
			return
		}
		bad = append(bad, fmt.Sprintf("%s: package variable %s changes: give it an owner", tr.at(e), id.Name))
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					look(e)
				}
			}
		case *ast.IncDecStmt:
			look(n.X)
		}
		return true
	})
	return bad
}

// rootOf returns the identifier that an assignment changes: a in a[i].b.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// loggers finds calls to the package-level functions of log/slog and log.
func (tr *tree) loggers(f *ast.File) (bad []string) {
	banned := regexp.MustCompile(`^slog\.(Debug|Info|Warn|Error|Log|LogAttrs|Default|SetDefault)(Context)?$|^log\.(Print|Fatal|Panic)`)
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Obj == nil && banned.MatchString(x.Name+"."+sel.Sel.Name) {
			bad = append(bad, fmt.Sprintf("%s: %s.%s: a logger is passed in as a value", tr.at(sel), x.Name, sel.Sel.Name))
		}
		return true
	})
	return bad
}

// checkGoroutines: a goroutine of the proxy starts a named function, so that a
// stack says what it is for. What measures and shows the proxy is free.
func checkGoroutines(tr *tree) (bad []string) {
	for _, f := range tr.code() {
		if among("bench bench/* internal/devmesh cmd/* examples/*", f.pkg) {
			continue
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				if _, literal := g.Call.Fun.(*ast.FuncLit); literal {
					bad = append(bad, tr.at(g)+": go starts a function without a name")
				}
			}
			return true
		})
	}
	return bad
}

var (
	badFolder = regexp.MustCompile(`^(pkg|api|hack|utils?|common|helpers?|base|misc|shared)$`)
	badType   = regexp.MustCompile(`(Manager|Helper|Utils?|Impl|Base)$`)
	// The glossary's right column, where it is a word that nothing else needs.
	badWord = regexp.MustCompile(`(?i)(middleware|interceptor|decapsulat|encapsulat|frontend|vhost|hboneconn(ection)?$|h2session)`)
	getter  = regexp.MustCompile(`^Get[A-Z]`)
	todo    = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	goodTo  = regexp.MustCompile(`TODO (when|once|until|after|if) `)
	// A page speaks of the project, not of the place or the way it was written.
	badPage = regexp.MustCompile(`(?i)(^|[^.\w])/work/|/tmp/build|\bas (requested|instructed)\b|\bthe brief\b`)
)

// checkNames: folders, types and methods are called as the glossary has it.
func checkNames(tr *tree) (bad []string) {
	for _, dir := range tr.dirs {
		name, parent := path.Base(dir), strings.TrimSuffix(path.Base(path.Dir(dir)), "s")
		if badFolder.MatchString(name) {
			bad = append(bad, dir+": a folder's name says what is in it")
		}
		if len(parent) > 2 && strings.Contains(name, parent) && !strings.HasSuffix(name, "test") {
			bad = append(bad, dir+": a package's name does not repeat its parent's")
		}
	}
	for _, f := range tr.code() {
		for _, d := range f.file.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok {
						bad = append(bad, tr.typeName(ts)...)
					}
				}
			case *ast.FuncDecl:
				if d.Recv != nil && getter.MatchString(d.Name.Name) {
					bad = append(bad, fmt.Sprintf("%s: %s: a getter does not say Get", tr.at(d), d.Name.Name))
				}
				if badWord.MatchString(d.Name.Name) {
					bad = append(bad, fmt.Sprintf("%s: %s: the glossary has another word", tr.at(d), d.Name.Name))
				}
			}
		}
	}
	return bad
}

func (tr *tree) typeName(ts *ast.TypeSpec) []string {
	switch name := ts.Name.Name; {
	case badType.MatchString(name):
		return []string{fmt.Sprintf("%s: %s: a type's name says what it is", tr.at(ts), name)}
	case badWord.MatchString(name):
		return []string{fmt.Sprintf("%s: %s: the glossary has another word", tr.at(ts), name)}
	}
	return nil
}

// checkWords looks at every line that people read. These tests are left out,
// for they hold the words that they look for.
func checkWords(tr *tree) (bad []string) {
	for file, text := range tr.text {
		if path.Dir(file) == "internal/house" {
			continue
		}
		n := 0
		for line := range bytes.Lines(text) {
			n++
			if badPage.Match(line) {
				bad = append(bad, fmt.Sprintf("%s:%d speaks of how it was made: %s", file, n, bytes.TrimSpace(line)))
			}
			if todo.Match(line) && !goodTo.Match(line) {
				bad = append(bad, fmt.Sprintf("%s:%d: a to-do names its condition: TODO when …", file, n))
			}
		}
	}
	return bad
}

// glossary are the terms that ARCHITECTURE.md must explain.
const glossary = "downstream,mesh connection,tunnel,inner connection,terminate,peer,destination,document,snapshot,apply,source,service,rule,backend,pick,attempt,committed,exchange,stream,filter,reply,fault,head,view,relay,turn,lane,wait,pin,drain"

// checkGlossary: every term has its row.
func checkGlossary(tr *tree) (bad []string) {
	table := strings.Join(section(tr.text["ARCHITECTURE.md"], "Glossary"), "\n")
	for term := range strings.SplitSeq(glossary, ",") {
		if !regexp.MustCompile(`(?m)^\| [^|]*\b` + term + `\b[^|]* \|`).MatchString(table) {
			bad = append(bad, "ARCHITECTURE.md's glossary does not explain "+term)
		}
	}
	return bad
}
