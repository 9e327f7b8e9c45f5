package memory

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// unlimited is where version 1 of control groups begins to mean no limit: the
// largest multiple of a page.
const unlimited = 1 << 60

// A group is this process's control group, as a file system shows it.
type group struct {
	dirs []string // from the process's own up to the root
	v1   bool
}

// Limit returns how much memory the system lets this process have: the least limit
// of its control group and those above it. 0 is no limit.
func Limit() uint64 { return limit("/") }

func limit(root string) (least uint64) {
	g := groupOf(root)
	for _, dir := range g.dirs {
		if n := g.limitOf(dir); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// limitOf returns a group's own limit, or 0.
func (g *group) limitOf(dir string) uint64 {
	name := "memory.max"
	if g.v1 {
		name = "memory.limit_in_bytes"
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n >= unlimited { // "max"
		return 0
	}
	return n
}

// groupOf finds the control group that counts memory. In a container the root that
// it is shown is usually its own group, whatever its path is called outside.
func groupOf(root string) (g group) {
	b, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	mounted, own := "sys/fs/cgroup", "/"
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		switch {
		case part[0] == "0" && part[1] == "" && !g.v1:
			own = part[2]
		case has(part[1], "memory"):
			g.v1, own, mounted = true, part[2], "sys/fs/cgroup/memory"
		}
	}
	for dir := path.Clean("/" + own); ; dir = path.Dir(dir) {
		g.dirs = append(g.dirs, filepath.Join(root, mounted, dir))
		if dir == "/" {
			return g
		}
	}
}

func has(list, one string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if s == one {
			return true
		}
	}
	return false
}

// units are the suffixes of Parse, longer ones first. It is never written.
var units = []struct {
	suffix string
	bytes  uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"", 1},
}

// Parse reads a size as Kubernetes and people write it: 512Mi, 512MiB, 1G, 1000000.
func Parse(s string) (uint64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n == 0 || n > unlimited/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("%q is no size: write 512Mi", s)
}
