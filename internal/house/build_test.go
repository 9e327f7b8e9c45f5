package house

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// buildFlags are what the Makefile builds with; the Dockerfile has the same.
var buildFlags = []string{"-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.version=test"}

func readRoot(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestBuildFlagsAgree keeps the Makefile, the Dockerfile and the test below at
// the same flags.
func TestBuildFlagsAgree(t *testing.T) {
	want := strings.Join(buildFlags[:3], " ") + " -s -w -buildid= -X main.version="
	plain := strings.NewReplacer(`"`, "", "'", "", "\\\n", "", "    ", "")
	for _, name := range []string{"Makefile", "Dockerfile"} {
		if text := plain.Replace(readRoot(t, name)); !strings.Contains(text, want) {
			t.Errorf("%s does not build with %q", name, want)
		}
	}
}

// TestImageIsEmpty reads the Dockerfile: nothing but the binary, no root, both
// architectures, and nothing that would ask for a capability.
func TestImageIsEmpty(t *testing.T) {
	text := readRoot(t, "Dockerfile")
	_, last, _ := strings.Cut(text, "\nFROM scratch\n")
	for _, want := range []string{"COPY --from=build /out/waypoint /waypoint\n", "USER 65532:65532\n", `ENTRYPOINT ["/waypoint"]`} {
		if !strings.Contains(last, want) {
			t.Errorf("the last stage lacks %q", want)
		}
	}
	if n := strings.Count(last, "COPY "); n != 1 {
		t.Errorf("the last stage copies %d times, want once", n)
	}
	for _, want := range []string{"--platform=$BUILDPLATFORM", "GOARCH=$TARGETARCH", "CGO_ENABLED=0"} {
		if !strings.Contains(text, want) {
			t.Errorf("the build lacks %q", want)
		}
	}
	if regexp.MustCompile(`setcap|--cap|RUN apt|RUN apk`).MatchString(text) {
		t.Error("the image wants more than the binary")
	}
}

// TestBuildIsReproducible builds one source twice, in two folders and with two
// build caches, so that everything is compiled again. It takes a minute or two,
// so it runs when asked: make reproducible.
func TestBuildIsReproducible(t *testing.T) {
	if os.Getenv("SANDWICH_REPRODUCIBLE") == "" {
		t.Skip("builds everything twice: make reproducible asks for it")
	}
	tmp := t.TempDir()
	here, away := filepath.Join(tmp, "here"), filepath.Join(tmp, "a", "long", "way", "off")
	copySource(t, filepath.Join("..", ".."), here)
	copySource(t, here, away)
	one := build(t, here, filepath.Join(tmp, "one"), buildFlags)
	two := build(t, away, filepath.Join(tmp, "two"), buildFlags, "GOCACHE="+filepath.Join(tmp, "cache"))
	if one != two {
		t.Errorf("two builds differ: %s and %s", one, two)
	}
	// The control: without -trimpath the folder shows in the binary.
	three := build(t, away, filepath.Join(tmp, "three"), buildFlags[1:], "GOCACHE="+filepath.Join(tmp, "cache"))
	if three == one {
		t.Error("a build without -trimpath is the same as well: this test cannot tell builds apart")
	}
}

// copySource copies what a build may read, and not what builds leave behind.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	list, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		switch {
		case e.Name() == "bin" || strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			err = os.CopyFS(filepath.Join(to, e.Name()), os.DirFS(filepath.Join(from, e.Name())))
		case strings.HasPrefix(e.Name(), "go."):
			err = os.MkdirAll(to, 0o777)
			if text, e2 := os.ReadFile(filepath.Join(from, e.Name())); err == nil && e2 == nil {
				err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o666)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func build(t *testing.T, dir, out string, flags []string, env ...string) string {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), "./cmd/waypoint")...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build in %s: %v\n%s", dir, err, text)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}
