// Package examples runs what the examples' pages say.
package examples

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

const limit = 30 * time.Second // for one command, on a busy machine

// A command is one line after a $ on a page, and the text that must appear in
// its output.
type command struct {
	line  string
	wants []string
}

// TestPages runs every command of every example's page: `waypoint dev` beside
// the others, on free ports in place of 8080 and those behind it, until the page
// ends.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("*/README.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	needs.Program(t, "curl")
	bin := needs.Command(t, "./cmd/waypoint")
	for _, page := range pages {
		t.Run(filepath.Dir(page), func(t *testing.T) { runPage(t, bin, page) })
	}
}

func runPage(t *testing.T, bin, page string) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(filepath.Dir(page), "config.yaml")); err != nil {
		t.Fatal(err)
	}
	port := freePorts(t)
	dev := 0
	for _, c := range commands(string(text)) {
		line := strings.ReplaceAll(c.line, "go run ./cmd/waypoint", bin)
		for i := range ports {
			line = strings.ReplaceAll(line, fmt.Sprintf("127.0.0.1:%d", 8080+i), fmt.Sprintf("127.0.0.1:%d", port+i))
		}
		if strings.HasPrefix(line, bin+" dev ") {
			dev++
			start(t, strings.Fields(fmt.Sprintf("%s --quiet --port %d", line, port)), fmt.Sprintf("127.0.0.1:%d", port))
			continue
		}
		got := run(t, line)
		for _, want := range c.wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want it to contain %q", c.line, got, want)
			}
		}
		if len(c.wants) == 0 {
			t.Errorf("%s: the page does not say what to expect", c.line)
		}
	}
	if dev != 1 {
		t.Errorf("the page runs dev %d times, want once", dev)
	}
}

func commands(page string) (list []command) {
	for i, part := range strings.Split(page, "\n```") {
		if i%2 == 0 {
			continue
		}
		for line := range strings.Lines(part) {
			line = strings.TrimSpace(line)
			if cmd, ok := strings.CutPrefix(line, "$ "); ok {
				list = append(list, command{line: cmd})
			} else if line != "" && len(list) > 0 {
				last := &list[len(list)-1]
				last.wants = append(last.wants, line)
			}
		}
	}
	return list
}

func TestCommands(t *testing.T) {
	got := commands("# A\n\n```\n$ one\nout\n$ two\n```\n\ntext\n\n```\n$ three\na\nb\n```\n")
	want := []command{{"one", []string{"out"}}, {"two", nil}, {"three", []string{"a", "b"}}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func run(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.WaitDelay = "..", time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// start runs the program until the test ends.
func start(t *testing.T, args []string, addr string) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "..", &out, &out, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(limit, func() { cmd.Process.Kill() })
		defer stop.Stop()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out.String())
		}
	})
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for began := time.Now(); ; <-again.C {
		nc, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			nc.Close()
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("%s does not listen on %s", strings.Join(args, " "), addr)
		}
	}
}

// ports is how many entries a page may ask.
const ports = 4

// freePorts returns the first of some ports that are free side by side. They lie
// below those that the system gives to connections.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, free := 20000+rand.IntN(10000), 0
		for i := range ports {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				break
			}
			defer ln.Close()
			free++
		}
		if free == ports {
			return first
		}
	}
	t.Fatal("no free ports on loopback")
	return 0
}
