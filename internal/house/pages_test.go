package house

import (
	"fmt"
	"go/ast"
	"go/format"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkComments: every package has one package comment, in doc.go, that says
// what it is, who owns its memory, what may run at once, and where to start.
// Commands and examples have theirs in main.go, and it says what they do.
func checkComments(tr *tree) (bad []string) {
	for _, pkg := range tr.packages() {
		var where []string
		var doc *ast.CommentGroup
		var name string
		for _, f := range tr.gos {
			if f.pkg == pkg && !f.test && f.file.Doc != nil {
				where, doc, name = append(where, path.Base(f.path)), f.file.Doc, f.file.Name.Name
			}
		}
		switch {
		case len(where) == 0:
			bad = append(bad, fmt.Sprintf("%s has no package comment", pkg))
		case len(where) > 1:
			bad = append(bad, fmt.Sprintf("%s has its package comment %d times: in %s", pkg, len(where), strings.Join(where, ", ")))
		case name != "main":
			bad = append(bad, checkDoc(pkg, name, where[0], doc.Text())...)
		}
	}
	return bad
}

func checkDoc(pkg, name, file, text string) (bad []string) {
	if file != "doc.go" {
		bad = append(bad, fmt.Sprintf("%s has its package comment in %s: move it to doc.go", pkg, file))
	}
	for _, want := range []string{"Package " + name + " ", "# Memory\n", "# Concurrency\n", "Start reading at "} {
		if !strings.Contains(text, want) {
			bad = append(bad, fmt.Sprintf("%s: the package comment lacks %q", pkg, strings.TrimSpace(want)))
		}
	}
	return bad
}

// checkFormat: every Go file is as gofmt leaves it.
func checkFormat(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if want, err := format.Source(tr.text[f.path]); err != nil || string(want) != string(tr.text[f.path]) {
			bad = append(bad, f.path+" is not as gofmt leaves it")
		}
	}
	return bad
}

// rootPages are the documents that the root must have.
var rootPages = []string{
	"README.md", "ARCHITECTURE.md", "RATIONALE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "DEFAULTS.md", "OPERATING.md", "Makefile", "Dockerfile",
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// checkPages: the root documents are there, and their links lead somewhere.
func checkPages(tr *tree) (bad []string) {
	for _, page := range rootPages {
		if _, ok := tr.text[page]; !ok {
			bad = append(bad, page+" is missing")
		}
	}
	for file, text := range tr.text {
		if path.Ext(file) != ".md" {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			to := path.Join(path.Dir(file), m[1])
			_, known := tr.text[to]
			if !known && !slices.Contains(tr.dirs, to) && !slices.Contains([]string{"LICENSE"}, to) {
				bad = append(bad, fmt.Sprintf("%s links to %s, which is not there", file, m[1]))
			}
		}
	}
	return bad
}

// filterHeadings are what the page of a filter says, in this order.
var filterHeadings = []string{"What it does", "Configuration", "Example", "Metrics"}

// checkExamples: an example has a configuration and a page whose commands run;
// a filter has a page with its headings.
func checkExamples(tr *tree) (bad []string) {
	for _, dir := range tr.dirs {
		page := string(tr.text[dir+"/README.md"])
		switch {
		case path.Dir(dir) == "examples":
			if _, ok := tr.text[dir+"/config.yaml"]; !ok {
				bad = append(bad, dir+" has no config.yaml")
			}
			if !strings.Contains(page, "\n```") {
				bad = append(bad, dir+" has no README.md with commands to run")
			}
		case path.Dir(dir) == "filters" && dir != "filters/filtertest":
			at := 0
			for _, h := range filterHeadings {
				i := strings.Index(page[at:], "\n## "+h+"\n")
				if i < 0 {
					bad = append(bad, fmt.Sprintf("%s/README.md lacks the heading %q in its place", dir, h))
					break
				}
				at += i
			}
		}
	}
	return bad
}

// A step is one row of the walk.
type step struct {
	n         string
	files     []string
	functions []string
	built     bool
}

var quoted = regexp.MustCompile("`([^`]+)`")

func words(cell string) (list []string) {
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		list = append(list, m[1])
	}
	return list
}

// section returns the lines of page under the heading, up to the next one.
func section(page []byte, heading string) []string {
	_, rest, ok := strings.Cut(string(page), "\n## "+heading+"\n")
	if !ok {
		return nil
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return strings.Split(body, "\n")
}

func walkOf(page []byte) (steps []step) {
	for _, line := range section(page, "The walk") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 5 || len(words(cells[1])) == 0 {
			continue
		}
		steps = append(steps, step{
			n:         strings.TrimSpace(cells[0]),
			files:     words(cells[1]),
			functions: words(cells[2]),
			built:     strings.TrimSpace(cells[4]) == "yes",
		})
	}
	return steps
}

// checkWalk: what the walk names exists where it says, and what it calls not
// built is indeed not there.
func checkWalk(tr *tree) (bad []string) {
	steps := walkOf(tr.text["ARCHITECTURE.md"])
	if len(steps) == 0 {
		return []string{`ARCHITECTURE.md has no table under "The walk"`}
	}
	for _, s := range steps {
		missing := 0
		for _, fn := range s.functions {
			if tr.declares(s.files, fn) {
				continue
			}
			missing++
			if s.built {
				bad = append(bad, fmt.Sprintf("the walk, step %s: no function %s in %s", s.n, fn, strings.Join(s.files, ", ")))
			}
		}
		if !s.built && missing == 0 {
			bad = append(bad, fmt.Sprintf("the walk, step %s: all of it exists, so say that it is built", s.n))
		}
	}
	return bad
}

func (tr *tree) declares(files []string, name string) bool {
	for _, f := range tr.gos {
		if !slices.Contains(files, f.path) {
			continue
		}
		for _, d := range f.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// checkFloorTable: ARCHITECTURE.md names every package that has a floor, so
// that the page and the test cannot part.
func checkFloorTable(tr *tree) (bad []string) {
	table := strings.Join(section(tr.text["ARCHITECTURE.md"], "Floors"), "\n")
	for _, f := range floors {
		for p := range strings.FieldsSeq(f.pkgs) {
			if !strings.Contains(table, "`"+p+"`") {
				bad = append(bad, fmt.Sprintf("ARCHITECTURE.md does not say what %s on floor %d is for", p, f.floor))
			}
		}
	}
	return bad
}
