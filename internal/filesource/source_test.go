package filesource

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/proxy/config"
)

const head = "apiVersion: sandwich-mesh.io/v1alpha1\nkind: Waypoint\n"

// doc is a document with services of the names given.
func doc(names ...string) string {
	var b strings.Builder
	b.WriteString(head + "services:\n")
	for _, n := range names {
		fmt.Fprintf(&b, "- {name: %s, ports: [{port: 80}]}\n", n)
	}
	return b.String()
}

// change is what a source did about one document: applied is empty if it was
// not taken.
type change struct {
	applied  string // the services' names
	problems []config.Problem
}

// watching runs a source on path and returns its changes in order.
func watching(t *testing.T, path string, poll time.Duration) <-chan change {
	t.Helper()
	out := make(chan change, 100)
	applied := ""
	s := New(path, func(c *config.Config) []config.Problem {
		var names []string
		for _, x := range c.Services {
			names = append(names, x.Name)
		}
		applied = strings.Join(names, " ")
		return nil
	}, func(problems []config.Problem) {
		out <- change{applied, problems}
		applied = ""
	})
	if poll > 0 {
		s.poll = poll
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return out
}

func next(t *testing.T, changes <-chan change) change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(20 * time.Second):
		t.Fatal("no change was seen")
		panic("unreachable")
	}
}

// wantApplied waits for the next change, which must be the services named and
// without a problem.
func wantApplied(t *testing.T, changes <-chan change, want string) {
	t.Helper()
	got := next(t, changes)
	if got.applied != want || len(got.problems) > 0 {
		t.Fatalf("got %q with problems %v, want %q", got.applied, got.problems, want)
	}
}

func wantCode(t *testing.T, changes <-chan change, want config.Code) {
	t.Helper()
	got := next(t, changes)
	if got.applied != "" || len(got.problems) != 1 || got.problems[0].Code != want {
		t.Fatalf("got %q with problems %v, want only %s", got.applied, got.problems, want)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsWatched(t *testing.T) {
	name := filepath.Join(t.TempDir(), "waypoint.yaml")
	write(t, name, doc("one"))
	changes := watching(t, name, time.Hour)
	wantApplied(t, changes, "one")
	write(t, name, doc("one", "two")) // in place
	wantApplied(t, changes, "one two")
	write(t, name+"~new", doc("three")) // an editor's way
	rename(t, name+"~new", name)
	wantApplied(t, changes, "three")
	write(t, name+"~new", doc("four")) // again: the first rename took the watched inode away
	rename(t, name+"~new", name)
	wantApplied(t, changes, "four")
}

func TestDirectoryIsOneSet(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), doc("a"))
	write(t, filepath.Join(dir, "b.json"), `{"apiVersion":"sandwich-mesh.io/v1alpha1","kind":"Waypoint","services":[{"name":"b","ports":[{"port":80}]}]}`)
	write(t, filepath.Join(dir, ".hidden.yaml"), "{")
	write(t, filepath.Join(dir, "notes.txt"), "{")
	changes := watching(t, dir, time.Hour)
	wantApplied(t, changes, "a b")
	write(t, filepath.Join(dir, "c.yml"), doc("c"))
	wantApplied(t, changes, "a b c")
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	wantApplied(t, changes, "b c")
}

// volume lays out a directory as a kubelet does: names are links through
// ..data, which is swapped in one step.
func volume(t *testing.T, dir, version string, files map[string]string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, filepath.Join(dir, version, name), text)
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
}

func TestVolumeSwapIsOneChange(t *testing.T) {
	dir := t.TempDir()
	volume(t, dir, "..v1", map[string]string{"a.yaml": doc("a1"), "b.yaml": doc("b1")})
	changes := watching(t, dir, time.Hour)
	wantApplied(t, changes, "a1 b1")
	volume(t, dir, "..v2", map[string]string{"a.yaml": doc("a2"), "b.yaml": doc("b2")})
	if err := os.RemoveAll(filepath.Join(dir, "..v1")); err != nil {
		t.Fatal(err)
	}
	wantApplied(t, changes, "a2 b2")
}

func TestVolumeSwapBehindFile(t *testing.T) {
	dir := t.TempDir()
	volume(t, dir, "..v1", map[string]string{"a.yaml": doc("a1")})
	changes := watching(t, filepath.Join(dir, "a.yaml"), time.Hour)
	wantApplied(t, changes, "a1")
	volume(t, dir, "..v2", map[string]string{"a.yaml": doc("a2")})
	wantApplied(t, changes, "a2")
}

// TestSwapsNeverMix swaps two sets as fast as it can while they are read: what
// is applied is always one of them.
func TestSwapsNeverMix(t *testing.T) {
	dir := t.TempDir()
	set := func(v string) map[string]string {
		return map[string]string{"a.yaml": doc("a" + v), "b.yaml": doc("b" + v), "c.yaml": doc("c" + v)}
	}
	volume(t, dir, "..v0", set("0"))
	volume(t, dir, "..v1", set("1"))
	changes := watching(t, dir, 10*time.Millisecond)
	var stop atomic.Bool
	swapped := make(chan struct{})
	go func() {
		defer close(swapped)
		for i := 0; !stop.Load(); i++ {
			temp := filepath.Join(dir, "..data_tmp")
			_ = os.Symlink(fmt.Sprintf("..v%d", i%2), temp)
			_ = os.Rename(temp, filepath.Join(dir, "..data"))
		}
	}()
	deadline := time.After(time.Second)
	for done := false; !done; {
		select {
		case c := <-changes:
			if c.applied != "a0 b0 c0" && c.applied != "a1 b1 c1" {
				t.Fatalf("got %q with problems %v, want one set", c.applied, c.problems)
			}
		case <-deadline:
			done = true
		}
	}
	stop.Store(true)
	<-swapped
	volume(t, dir, "..v2", set("2"))
	for next(t, changes).applied != "a2 b2 c2" {
		continue
	}
}

func TestRejectedDocumentIsReportedOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "waypoint.yaml")
	write(t, name, doc("one"))
	changes := watching(t, name, 10*time.Millisecond)
	wantApplied(t, changes, "one")
	write(t, name, "{")
	wantCode(t, changes, config.CodeSyntax)
	write(t, name, "") // an editor that truncates first, and crashes
	wantCode(t, changes, config.CodeNoDocument)
	write(t, name, doc("two"))
	wantApplied(t, changes, "two")
}

func TestLostFileIsReportedOnceAndComesBack(t *testing.T) {
	name := filepath.Join(t.TempDir(), "waypoint.yaml")
	write(t, name, doc("one"))
	changes := watching(t, name, 10*time.Millisecond)
	wantApplied(t, changes, "one")
	rename(t, name, name+"~")
	wantCode(t, changes, config.CodeUnreadable)
	rename(t, name+"~", name)
	wantApplied(t, changes, "one") // so that the report is cleared
}

func TestDirectoryMadeLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf.d")
	changes := watching(t, dir, time.Hour)
	wantCode(t, changes, config.CodeUnreadable)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wantCode(t, changes, config.CodeNoDocument)
	write(t, filepath.Join(dir, "a.yaml"), doc("a"))
	wantApplied(t, changes, "a")
}

// TestPollingSeesWhatNoNotificationTells changes a file behind a link that
// leads out of the watched directory.
func TestPollingSeesWhatNoNotificationTells(t *testing.T) {
	far, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(far, "x"), doc("one"))
	if err := os.Symlink(filepath.Join(far, "x"), filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	changes := watching(t, dir, 20*time.Millisecond)
	wantApplied(t, changes, "one")
	write(t, filepath.Join(far, "y"), doc("two"))
	rename(t, filepath.Join(far, "y"), filepath.Join(far, "x"))
	wantApplied(t, changes, "two")
}

func TestOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "waypoint.yaml")
	var applied, reported int
	s := New(name, func(*config.Config) []config.Problem { applied++; return nil },
		func([]config.Problem) { reported++ })
	if s.Once() || applied != 0 || reported != 1 {
		t.Errorf("without a file: applied %d times, reported %d times, want 0 and 1", applied, reported)
	}
	write(t, name, doc("one"))
	for range 3 {
		if !s.Once() {
			t.Error("the document was not taken")
		}
	}
	if applied != 1 || reported != 2 {
		t.Errorf("applied %d times, reported %d times, want 1 and 2", applied, reported)
	}
}

func TestProblemsOfApplyAreReported(t *testing.T) {
	name := filepath.Join(t.TempDir(), "waypoint.yaml")
	write(t, name, doc("one")+"- {name: two}\n")
	var got []config.Problem
	New(name, func(*config.Config) []config.Problem { return []config.Problem{{Code: "WP1601"}} },
		func(p []config.Problem) { got = p }).Once()
	if len(got) != 2 || got[0].Code != config.CodeMissing || got[1].Code != "WP1601" {
		t.Errorf("got %v, want one problem of decoding and one of applying", got)
	}
}
