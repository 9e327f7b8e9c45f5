package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func saved(t *testing.T) (dir string, text []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	if err := NewState(dir).Save(document(t, "services:\n"+goodA+goodB+goodR)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	return dir, text
}

// TestStateSurvivesRestart breaks an object while the process is down: with the
// state it keeps its last good version, without it is closed.
func TestStateSurvivesRestart(t *testing.T) {
	dir, _ := saved(t)
	next := document(t, "services:\n"+badA+goodB+badR)
	prev, problems := NewState(dir).Load()
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	if got, want := Settle(prev, next).state(), "1/3 a:80, b:90, r→a, stale Service shop/a, stale shop/r"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := Settle(nil, next).state(), "1/3 b:90, closed Service shop/a, closed shop/r, route by r: []"; got != want {
		t.Errorf("without state: got  %s\nwant %s", got, want)
	}
}

// TestStateKeepsWhatIsClosed restarts with a document that cannot be read at
// all: what policies and routes had closed stays closed.
func TestStateKeepsWhatIsClosed(t *testing.T) {
	for _, text := range []string{
		"services:\n" + goodA + goodB + policy,
		"services:\n" + goodA + goodB + badR,
		"services:\n" + goodA + "- {name: c, namespace: far, ports: [{port: 1}]}\n" + farR,
		"services:\n" + goodA + "authorizationPolicies:\n- {name: p, selector: {}}\n",
		"services:\n" + goodA + goodB + "authorizationPolicies: {}\n",
		"services:\n" + goodA + goodB + "authorizationPolicies: [{}]\n",
	} {
		dir := t.TempDir()
		before := Settle(nil, document(t, text))
		if len(before.Config.Closed) == 0 {
			t.Fatalf("nothing is closed by %s", text)
		}
		if err := NewState(dir).Save(before.Config); err != nil {
			t.Fatal(err)
		}
		last, problems := NewState(dir).Load()
		if len(problems) > 0 {
			t.Fatal(lines(problems))
		}
		if got, want := Settle(nil, last).state(), before.state(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	// What kept its last good version is not closed by having been broken.
	dir := t.TempDir()
	good := Settle(nil, document(t, "services:\n"+goodA+goodR))
	if err := NewState(dir).Save(Settle(good.Config, document(t, "services:\n"+goodA+badR)).Config); err != nil {
		t.Fatal(err)
	}
	last, _ := NewState(dir).Load()
	if got, want := Settle(nil, last).state(), "2/2 a:80, r→a"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNoStateIsNoProblem(t *testing.T) {
	c, problems := NewState(filepath.Join(t.TempDir(), "none")).Load()
	if c != nil || len(problems) > 0 {
		t.Errorf("got %v, %s, want nothing", c, lines(problems))
	}
}

// TestTornStateIsIgnored cuts the file at every length and flips every bit of
// some bytes. The control is the file as it is.
func TestTornStateIsIgnored(t *testing.T) {
	dir, text := saved(t)
	load := func(data []byte) (*Config, []Problem) {
		if err := os.WriteFile(filepath.Join(dir, stateFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return NewState(dir).Load()
	}
	if c, problems := load(text); c == nil || len(problems) > 0 {
		t.Fatalf("the whole file is not taken: %s", lines(problems))
	}
	for n := range text {
		c, problems := load(text[:n])
		if c != nil || len(problems) != 1 || problems[0].Code != CodeState {
			t.Fatalf("cut at %d: got %s", n, lines(problems))
		}
	}
	for i := 0; i < len(text); i += 7 {
		for bit := range 8 {
			flipped := bytes.Clone(text)
			flipped[i] ^= 1 << bit
			if c, _ := load(flipped); c != nil {
				t.Fatalf("bit %d of byte %d flipped, and the file was taken", bit, i)
			}
		}
	}
}

// TestStateOfAnotherVersion has an object that this version does not
// understand: the others are kept.
func TestStateOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	body := []byte(`{"document":{"apiVersion":"sandwich-mesh.io/v1alpha1","kind":"Waypoint","services":[{"name":"a","ports":[{"port":80}]},{"name":"b","later":1,"ports":[{"port":80}]}]}}`)
	if err := os.WriteFile(filepath.Join(dir, stateFile), append([]byte(stateHead(body)), body...), 0o600); err != nil {
		t.Fatal(err)
	}
	c, problems := NewState(dir).Load()
	if c == nil || len(c.Services) != 1 || len(c.Broken) != 1 || len(problems) != 1 || problems[0].Code != CodeState {
		t.Errorf("got %s, want service a and one warning", lines(problems))
	}
}

func TestStateIsWrittenOnlyWhenItChanges(t *testing.T) {
	dir, _ := saved(t)
	name := filepath.Join(dir, stateFile)
	s := NewState(dir)
	c, _ := s.Load()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("the same document was written again")
	}
	if err := s.Save(document(t, "services:\n"+newA)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("another document: got %v, %v, want a file only its owner can read", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestCrashWhileSaving leaves a half-written new file beside the good one.
func TestCrashWhileSaving(t *testing.T) {
	dir, text := saved(t)
	if err := os.WriteFile(filepath.Join(dir, stateFile+".new"), text[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewState(dir)
	if c, problems := s.Load(); c == nil || len(problems) > 0 {
		t.Errorf("the good file is not taken: %s", lines(problems))
	}
	if err := s.Save(document(t, "services:\n"+newA)); err != nil {
		t.Errorf("what was left stops saving: %v", err)
	}
}

func TestSaveSaysWhatFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewState(file).Save(document(t, "")); err == nil {
		t.Error("saved into a file as if it were a directory")
	}
}
