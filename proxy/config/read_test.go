package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func put(t *testing.T, parts ...string) string {
	t.Helper()
	name := filepath.Join(parts[:len(parts)-1]...)
	if err := os.WriteFile(name, []byte(parts[len(parts)-1]), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a.yml", "c.JSON", "no.txt", "no", ".no.yaml", "no.yaml~", "no.yaml.swp"} {
		put(t, dir, name, name)
	}
	if err := os.MkdirAll(filepath.Join(dir, "no.yaml", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil { // opening it would wait for a writer
			t.Fatal(err)
		}
	}
	files, err := ReadFiles(dir)
	var got []string
	for _, f := range files {
		rel, _ := filepath.Rel(dir, f.Name)
		got = append(got, rel+"="+string(f.Data))
	}
	if want := "a.yml=a.yml b.yaml=b.yaml c.JSON=c.JSON"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
	files, err = ReadFiles(filepath.Join(dir, "no.txt")) // a file that is named is read whatever its name
	if err != nil || len(files) != 1 || string(files[0].Data) != "no.txt" {
		t.Errorf("got %v, %v", files, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if c, problems := Load(dir); c != nil || len(problems) != 1 || problems[0].Code != CodeNoDocument {
		t.Errorf("an empty directory: got %s", lines(problems))
	}
	if c, problems := Load(filepath.Join(dir, "none")); c != nil || len(problems) != 1 || problems[0].Code != CodeUnreadable {
		t.Errorf("no such file: got %s", lines(problems))
	}
	name := put(t, dir, "a.yaml", base)
	for _, path := range []string{dir, name} {
		c, problems := Load(path)
		if c == nil || len(problems) > 0 || c.Services[0].File != name {
			t.Errorf("%s: got %s", path, lines(problems))
		}
	}
	put(t, dir, "b.yaml", "{")
	c, problems := Load(dir)
	if c != nil || len(problems) != 1 || problems[0].File != filepath.Join(dir, "b.yaml") {
		t.Errorf("one file is broken: got %s, want the set refused", lines(problems))
	}
}

// TestSizeOfDirectoryIsBounded fills a directory beyond what is read, and does
// not read it all to find out.
func TestSizeOfDirectoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	half := "#" + strings.Repeat("x", MaxBytes/2)
	for _, name := range []string{"a.yaml", "b.yaml", "c.yaml", "d.yaml"} {
		put(t, dir, name, half)
	}
	files, err := ReadFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, f := range files {
		read += len(f.Data)
	}
	if read <= MaxBytes || read > MaxBytes+len(files) {
		t.Errorf("read %d bytes, want just more than %d", read, MaxBytes)
	}
	if c, problems := Decode(files...); c != nil || problems[0].Code != CodeLimit {
		t.Errorf("got %s", lines(problems))
	}
}
