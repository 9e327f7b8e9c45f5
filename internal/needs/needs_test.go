package needs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A recorder is a test that remembers how it would have ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Name() string              { return "TestSomething" }
func (r *recorder) Logf(string, ...any)       {}
func (r *recorder) Skipf(f string, a ...any)  { r.skipped = fmt.Sprintf(f, a...) }
func (r *recorder) Fatalf(f string, a ...any) { r.failed = fmt.Sprintf(f, a...) }

func TestMissingSkipsAndLeavesALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "missing")
	t.Setenv("CI", "")
	t.Setenv(summary, file)
	for range 2 {
		r := &recorder{TB: t}
		Program(r, "no-such-program-here")
		if got, want := r.skipped, "program no-such-program-here is not here"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := "program no-such-program-here: skips TestSomething\n"
	if got, want := string(text), line+line; got != want {
		t.Errorf("summary: got %q, want %q", got, want)
	}
}

func TestMissingFailsWhereAllIsPromised(t *testing.T) {
	t.Setenv("CI", "true")
	r := &recorder{TB: t}
	Data(r, "no/such/data")
	if r.failed == "" || r.skipped != "" {
		t.Errorf("got failed %q, skipped %q; want a failure", r.failed, r.skipped)
	}
}

func TestWhatIsHereIsFound(t *testing.T) {
	dir := t.TempDir()
	want := filepath.Join(dir, "tool")
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	r := &recorder{TB: t}
	if got := Program(r, "another", "tool"); got != want || r.skipped+r.failed != "" {
		t.Errorf("on PATH: got %q (%s%s), want %q", got, r.skipped, r.failed, want)
	}
	t.Setenv("PATH", "")
	if got, err := find("tool", []string{"/nowhere", dir}); got != want {
		t.Errorf("beside PATH: got %q (%v), want %q", got, err, want)
	}
}

func TestNodeModuleIsFound(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CI", "")
	t.Setenv(summary, "") // of the run that this is part of
	t.Setenv("NODE_PATH", dir)
	r := &recorder{TB: t}
	if NodeModule(r, "x"); r.skipped != "Node module x is not here" {
		t.Errorf("an empty folder: got %q, want it skipped", r.skipped)
	}
	if err := os.WriteFile(filepath.Join(dir, "x", "package.json"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := NodeModule(t, "x"); got != dir {
		t.Errorf("got %q, want %q", got, dir)
	}
}

func TestRootHasTheModule(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "internal", "needs", "needs.go")); err != nil {
		t.Error(err)
	}
}
