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
	"regexp"
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

// beside is what some pages need beside the program, or are asked besides what they
// say themselves.
var beside = map[string]func(*page){"spire": (*page).besideSPIRE, "sandwich": (*page).besideSandwich}

// A page is one that runs.
type page struct {
	t       *testing.T
	bin     string
	name    string
	dev     int               // the first port of dev's entries
	addrs   map[string]string // by what the page says: where it really is
	replace []string          // what else the page says, and what is meant here
	flags   string            // of serve, besides those of the page
	after   []func()          // what is asked when the page has been through
}

// TestPages runs every command of every example's page: `waypoint dev` and
// `waypoint serve` beside the others, on free ports in place of those that the page
// names, until it ends.
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

func runPage(t *testing.T, bin, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Dir(file)
	if _, err := os.ReadFile(filepath.Join(name, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	p := &page{t: t, bin: bin, name: name, dev: freePorts(t), addrs: map[string]string{}}
	if f := beside[name]; f != nil {
		f(p)
	}
	running := 0
	for _, c := range commands(string(text)) {
		line := p.meant(c.line)
		switch {
		case strings.HasPrefix(line, bin+" dev "):
			running++
			start(t, fmt.Sprintf("%s --quiet --port %d", line, p.dev), fmt.Sprintf("127.0.0.1:%d", p.dev))
			continue
		case strings.HasPrefix(line, bin+" serve "):
			running++
			start(t, line+" --lame-duck 0"+p.flags, p.addrs["127.0.0.1:15000"])
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
	if running == 0 {
		t.Error("the page runs nothing")
	}
	for _, ask := range p.after {
		ask()
	}
}

var ports15 = regexp.MustCompile(`127\.0\.0\.1:15\d\d\d`)

// meant is what a line of the page means on this machine.
func (p *page) meant(line string) string {
	line = strings.NewReplacer(append(p.replace, "go run ./cmd/waypoint", p.bin)...).Replace(line)
	for i := range ports {
		line = strings.ReplaceAll(line, fmt.Sprintf("127.0.0.1:%d", 8080+i), fmt.Sprintf("127.0.0.1:%d", p.dev+i))
	}
	return ports15.ReplaceAllStringFunc(line, p.addr)
}

// addr returns where something is that the page says is at said.
func (p *page) addr(said string) string {
	if p.addrs[said] == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		defer l.Close()
		p.addrs[said] = l.Addr().String()
	}
	return p.addrs[said]
}

// document makes the page serve a document in which something is somewhere else.
func (p *page) document(edits ...string) {
	text, err := os.ReadFile(filepath.Join(p.name, "config.yaml"))
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer(edits...).Replace(string(text))), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.replace = append(p.replace, "serve --config examples/"+p.name+"/config.yaml", "serve --config "+file)
}

func commands(page string) (list []command) {
	for i, part := range strings.Split(page, "\n```") {
		if i%2 == 0 || !strings.HasPrefix(part, "\n") { // or it is in some language, and not for a shell
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
	got := commands("# A\n\n```\n$ one\nout\n$ two\n```\n\ntext\n\n```\n$ three\na\nb\n```\n\n```yaml\n$ four: five\n```\n")
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
func start(t *testing.T, line, addr string) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "..", &out, &out, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(limit, func() { cmd.Process.Kill() })
		defer stop.Stop()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("%s: %v\n%s", line, err, out.String())
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
			t.Fatalf("%s does not listen on %s", line, addr)
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
