package needs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// summary names the environment variable that holds the file to which what is
// missing is appended. It is read only when something is missing, and `make
// test` gives it a new value each time, so the test cache keeps the results of
// tests that had what they needed and of no others.
const summary = "SANDWICH_MISSING"

// sbin is where systems keep servers, which an ordinary user's PATH leaves out.
// Debian keeps a folder for each version of PostgreSQL.
var sbin = []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/usr/lib/postgresql/*/bin"}

// Program returns the path of the first of names that is installed.
func Program(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := find(name, sbin); err == nil {
			return path
		}
	}
	Missing(t, "program "+names[0])
	return ""
}

func find(name string, also []string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range also {
		found, _ := filepath.Glob(filepath.Join(dir, name))
		for i := len(found) - 1; err != nil && i >= 0; i-- { // the latest first
			path, err = exec.LookPath(found[i])
		}
	}
	return path, err
}

// NodeModule returns the folder in which Node finds a module, for NODE_PATH:
// one that NODE_PATH names, or bin/tools/node/node_modules.
func NodeModule(t testing.TB, name string) string {
	t.Helper()
	dirs := filepath.SplitList(os.Getenv("NODE_PATH"))
	if root, err := Root(); err == nil {
		dirs = append(dirs, filepath.Join(root, "bin", "tools", "node", "node_modules"))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, name, "package.json")); err == nil {
			return dir
		}
	}
	Missing(t, "Node module "+name)
	return ""
}

// Data returns the path of a file or folder in ../shared/testdata, which lies
// beside the repository and not in it.
func Data(t testing.TB, name string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatalf("look for test data: %v", err)
	}
	path := filepath.Join(root, "..", "shared", "testdata", filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		Missing(t, "data ../shared/testdata/"+name)
	}
	return path
}

// Root returns the module's folder: the nearest above the test's own that has
// a go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}

// Command builds one of the module's programs, such as ./cmd/waypoint, and
// returns the binary's path.
func Command(t testing.TB, program string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatalf("build %s: %v", program, err)
	}
	// Looking at every source file tells the test cache what the test depends
	// on; of what go build reads it sees nothing.
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go"):
			_, err = os.Stat(file)
		}
		return err
	})
	if err != nil {
		t.Fatalf("build %s: %v", program, err)
	}
	bin := filepath.Join(t.TempDir(), filepath.Base(program))
	cmd := exec.Command("go", "build", "-o", bin, program)
	cmd.Dir, cmd.WaitDelay = root, time.Second
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, text)
	}
	return bin
}

// Missing ends a test that cannot run here: it skips it and says so in the
// summary, or fails it where everything is promised to be present.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not here, and CI promises that it is", what)
		return
	}
	if err := note(os.Getenv(summary), what, t.Name()); err != nil {
		t.Logf("note what is missing: %v", err)
	}
	t.Skipf("%s is not here", what)
}

func note(file, what, test string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s: skips %s\n", what, test)
	return errors.Join(err, f.Close())
}
