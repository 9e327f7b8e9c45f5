package filesource

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSwapIsSwift: a file, or a volume's link, that is replaced in one step is in
// force well before one that is written in place could be.
func TestSwapIsSwift(t *testing.T) {
	dir := t.TempDir()
	file, volumes := filepath.Join(dir, "waypoint.yaml"), filepath.Join(dir, "conf.d")
	for name, row := range map[string]struct {
		path string
		put  func(v string)
	}{
		"file": {file, func(v string) {
			write(t, file+".new", doc(v))
			rename(t, file+".new", file)
		}},
		"volume": {volumes, func(v string) {
			if err := os.MkdirAll(volumes, 0o700); err != nil {
				t.Fatal(err)
			}
			volume(t, volumes, "..v"+v, map[string]string{"a.yaml": doc(v)})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			row.put("v0")
			changes := watching(t, row.path, time.Hour)
			wantApplied(t, changes, "v0")
			best := time.Hour
			for _, v := range []string{"v1", "v2", "v3", "v4", "v5"} {
				begun := time.Now()
				row.put(v)
				wantApplied(t, changes, v)
				best = min(best, time.Since(begun))
			}
			t.Logf("the best of five took %v", best)
			if best >= quiet {
				t.Errorf("%v, as if it had been written in place", best)
			}
		})
	}
}

// TestHalfIsNotBelieved: who writes in place, and rests in the middle, is waited
// for, although what is there would be a document. The control is the same half put
// there in one step.
func TestHalfIsNotBelieved(t *testing.T) {
	for name, open := range map[string]int{"over the old one": os.O_TRUNC, "anew": os.O_CREATE | os.O_EXCL} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "waypoint.yaml")
			write(t, path, doc("old"))
			changes := watching(t, path, time.Hour)
			wantApplied(t, changes, "old")
			half, rest := doc("a"), "- {name: b, ports: [{port: 80}]}\n"
			if open&os.O_EXCL != 0 {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			f, err := os.OpenFile(path, os.O_WRONLY|open, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, part := range []string{half, rest} {
				if _, err := f.WriteString(part); err != nil {
					t.Fatal(err)
				}
				<-time.After(3 * swift)
			}
			wantApplied(t, changes, "a b")
			write(t, path+".new", half)
			rename(t, path+".new", path)
			wantApplied(t, changes, "a")
		})
	}
}
