package house

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A tree is a source tree, read whole.
type tree struct {
	fset *token.FileSet
	dirs []string          // every folder, slash separated, relative to the root
	text map[string][]byte // every file that people read
	gos  []*goFile         // sorted by path

	allowed map[string]string // exceptions that hold here
}

// A goFile is one parsed Go file.
type goFile struct {
	path      string // slash separated, relative to the root
	pkg       string // its folder
	test      bool
	generated bool
	file      *ast.File
	lines     int
}

// readable are the files other than Go that the words are checked in.
var readable = []string{".md", ".yaml", ".yml", ".sh", ".json", ".txt"}

// load reads the tree at root. Nested modules, testdata and hidden folders are
// left out; .ci is read, because people do.
func load(root string) (*tree, error) {
	tr := &tree{fset: token.NewFileSet(), text: map[string][]byte{}}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if skipDir(file, rel, d.Name()) {
				return fs.SkipDir
			}
			tr.dirs = append(tr.dirs, rel)
			return nil
		}
		return tr.add(file, rel)
	})
	slices.SortFunc(tr.gos, func(a, b *goFile) int { return cmp.Compare(a.path, b.path) })
	return tr, err
}

func skipDir(file, rel, name string) bool {
	switch {
	case rel == "." || rel == ".ci":
		return false
	case name == "testdata" || name == "bin" || name == "node_modules" || strings.HasPrefix(name, "."):
		return true
	}
	_, err := os.Stat(filepath.Join(file, "go.mod"))
	return err == nil
}

func (tr *tree) add(file, rel string) error {
	isGo := path.Ext(rel) == ".go"
	named := slices.Contains([]string{"Makefile", "Dockerfile", "run"}, path.Base(rel))
	if !isGo && !named && !slices.Contains(readable, path.Ext(rel)) {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	tr.text[rel] = text
	if !isGo {
		return nil
	}
	f, err := parser.ParseFile(tr.fset, rel, text, parser.ParseComments)
	if err != nil {
		return err
	}
	tr.gos = append(tr.gos, &goFile{
		path:      rel,
		pkg:       path.Dir(rel),
		test:      strings.HasSuffix(rel, "_test.go"),
		generated: ast.IsGenerated(f),
		file:      f,
		lines:     bytes.Count(text, []byte("\n")),
	})
	return nil
}

// code returns the files that are neither tests nor generated.
func (tr *tree) code() []*goFile {
	var list []*goFile
	for _, f := range tr.gos {
		if !f.test && !f.generated {
			list = append(list, f)
		}
	}
	return list
}

// packages returns the folders that hold Go files other than tests.
func (tr *tree) packages() []string {
	var list []string
	for _, f := range tr.gos {
		if !f.test && !slices.Contains(list, f.pkg) {
			list = append(list, f.pkg)
		}
	}
	return list
}

// at says where a node stands.
func (tr *tree) at(n ast.Node) string {
	p := tr.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// among reports whether pkg matches one of the patterns, which are separated
// by spaces.
func among(patterns, pkg string) bool {
	for p := range strings.FieldsSeq(patterns) {
		if ok, _ := path.Match(p, pkg); ok {
			return true
		}
	}
	return false
}
