package house

import (
	"go/ast"
	"slices"
	"strings"
)

// checkSleeps: tests do not sleep but in fake time: inside the function that
// they hand to synctest.Test, or in one that is called from nowhere else.
func checkSleeps(tr *tree) (bad []string) {
	byPackage := map[string][]*goFile{}
	for _, f := range tr.gos {
		if f.test {
			byPackage[f.pkg] = append(byPackage[f.pkg], f)
		}
	}
	for _, files := range byPackage {
		uses := usesOf(files)
		fake := fakeTime(uses)
		for _, u := range uses["time.Sleep"] {
			if !u.bubble && !fake[u.in] {
				bad = append(bad, tr.at(u.at)+": time.Sleep in a test outside synctest.Test")
			}
		}
	}
	return bad
}

// A use is one place in a test that names a function.
type use struct {
	at     ast.Node
	in     string // the function around it, "" for none
	bubble bool   // it stands inside what is handed to synctest.Test
}

// usesOf finds the uses of every name. It goes by name alone: a method and a
// function that share one share their uses.
func usesOf(files []*goFile) map[string][]use {
	uses := map[string][]use{}
	makers := bubbleMakers(files)
	for _, f := range files {
		bubble := map[ast.Node]bool{}
		ast.Inspect(f.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && makesBubble(call, makers) {
				for _, arg := range call.Args {
					ast.Inspect(arg, func(n ast.Node) bool { bubble[n] = true; return true })
				}
			}
			return true
		})
		for _, d := range f.file.Decls {
			in, self := "", (*ast.Ident)(nil)
			if fn, ok := d.(*ast.FuncDecl); ok {
				in, self = fn.Name.Name, fn.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Ident:
					if n != self {
						uses[n.Name] = append(uses[n.Name], use{n, in, bubble[n]})
					}
				case *ast.CallExpr:
					if isCall(n, "time", "Sleep") {
						uses["time.Sleep"] = append(uses["time.Sleep"], use{n, in, bubble[n]})
					}
				}
				return true
			})
		}
	}
	return uses
}

// bubbleMakers returns the functions that hand what they are given to
// synctest.Test, with something around it: they call it, and take a function.
func bubbleMakers(files []*goFile) map[string]bool {
	makers := map[string]bool{}
	for _, f := range files {
		for _, d := range f.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !slices.ContainsFunc(fn.Type.Params.List, func(p *ast.Field) bool { _, is := p.Type.(*ast.FuncType); return is }) {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && isCall(call, "synctest", "Test") {
					makers[fn.Name.Name] = true
				}
				return true
			})
		}
	}
	return makers
}

func makesBubble(call *ast.CallExpr, makers map[string]bool) bool {
	id, ok := call.Fun.(*ast.Ident)
	return ok && makers[id.Name] || isCall(call, "synctest", "Test")
}

// fakeTime returns the functions that run in fake time only, because each of
// their uses does.
func fakeTime(uses map[string][]use) map[string]bool {
	fake := map[string]bool{}
	for name := range uses {
		fake[name] = true
	}
	for changed := true; changed; {
		changed = false
		for name, list := range uses {
			real := slices.ContainsFunc(list, func(u use) bool { return !u.bubble && !fake[u.in] })
			if fake[name] && real {
				fake[name], changed = false, true
			}
		}
	}
	return fake
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg && x.Obj == nil
}

// checkMissing: a test asks internal/needs for programs and for data from
// beside the repository, so that what is missing fails CI and is named elsewhere.
func checkMissing(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if !f.test || among("internal/needs internal/house", f.pkg) {
			continue
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if isCall(n, "exec", "LookPath") {
					bad = append(bad, tr.at(n)+": exec.LookPath in a test: ask needs.Program")
				}
			case *ast.BasicLit:
				if strings.Contains(n.Value, "shared/testdata") {
					bad = append(bad, tr.at(n)+": a path beside the repository in a test: ask needs.Data")
				}
			}
			return true
		})
	}
	return bad
}
