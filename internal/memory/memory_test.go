package memory

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// The ladder is climbed at once and left with a delay.
func TestLadder(t *testing.T) {
	l := Ladder{Limit: 1000}
	for i, tt := range []struct {
		use  uint64
		want Step
	}{
		{0, Calm}, {499, Calm}, {500, Tight}, {410, Tight}, {399, Calm}, {600, Crowded}, {599, Crowded}, {500, Crowded}, {490, Tight},
		{700, Full}, {600, Full}, {599, Crowded}, {800, Cut}, {700, Cut}, {699, Full}, {5000, Cut}, {0, Calm}, {2000, Cut},
	} {
		if got := l.Look(tt.use); got != tt.want {
			t.Errorf("look %d: use of %d is %v, want %v", i, tt.use, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]uint64{"512Mi": 512 << 20, "512MiB": 512 << 20, "1G": 1e9, "1Gi": 1 << 30, "64k": 64000, "1048576": 1 << 20} {
		if got, err := Parse(in); got != want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "Mi", "0", "-1", "1.5Gi", "many", "99999999999Gi", "1 Mi"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

// system writes the files that a system shows.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLimit(t *testing.T) {
	const v1 = "9:name=systemd:/\n4:cpu,memory:/kube/pod\n0::/\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"no control groups", nil, 0},
		{"v2, a container's own", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "134217728\n"}, 128 << 20},
		{"v2, none", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		{"v2, one above", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1000\n"}, 1000},
		{"v2, the least", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2000\n", "sys/fs/cgroup/a/memory.max": "3000\n"}, 2000},
		{"v2, a path of outside", map[string]string{"proc/self/cgroup": "0::/../pod1\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000},
		{"v1", map[string]string{"proc/self/cgroup": v1, "sys/fs/cgroup/memory/kube/pod/memory.limit_in_bytes": "4096\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4096},
		{"v1, a path of outside", map[string]string{"proc/self/cgroup": v1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "8192\n"}, 8192},
		{"v1, none", map[string]string{"proc/self/cgroup": v1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		if got := limit(system(t, tt.files)); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

// What the kernel holds counts, in both versions; but not in a group that has no
// limit, because others may be in it.
func TestKernelMemoryCounts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"none", nil, 0},
		{"v2", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.stat": "anon 5\nkernel 100\nsock 20\nsocks 7\nslab_reclaimable 15\n"}, 105},
		{"v2 without a limit", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.stat": "kernel 100\nsock 20\n"}, 0},
		{"v1", map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n", "sys/fs/cgroup/memory/memory.kmem.usage_in_bytes": "100\n", "sys/fs/cgroup/memory/memory.kmem.tcp.usage_in_bytes": "30\n"}, 130},
	} {
		if got := newGauge(system(t, tt.files), func() int64 { return 0 }).held(); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

var kept [][]byte

// Garbage does not count, what is held does, and what was lent since the last
// collection does at once.
func TestGauge(t *testing.T) {
	var lent int64
	g := newGauge(t.TempDir(), func() int64 { return lent })
	calm := func(uint64) bool { return false }
	fresh := func() uint64 { runtime.GC(); return g.Use(calm) }
	before := fresh()
	const much = 64 << 20
	kept = append(kept, make([]byte, much))
	held := fresh()
	if grown := held - before; grown < much-4<<20 || grown > much+16<<20 {
		t.Errorf("%d MiB more are used with 64 MiB held", grown>>20)
	}
	kept = nil
	if after := fresh(); after > before+8<<20 {
		t.Errorf("%d MiB more are used with none held", (after-before)>>20)
	}
	kept = append(kept, make([]byte, much)) // no collection has seen it
	lent = much
	if now := g.Use(calm); now < before+much-4<<20 {
		t.Errorf("64 MiB lent since the last collection show as %d MiB", (int64(now)-int64(before))>>20)
	}
	lent, kept = 0, nil
}

// When memory is short the collector runs, so that what was let go shows.
func TestGaugeCollectsWhenShort(t *testing.T) {
	g := newGauge(t.TempDir(), func() int64 { return 0 })
	kept = append(kept, make([]byte, 64<<20))
	runtime.GC()
	before := g.Use(func(uint64) bool { return false })
	kept = nil
	g.collected = g.collected.Add(-collectEvery)
	if now := g.Use(func(uint64) bool { return false }); now < before-16<<20 {
		t.Fatalf("somebody else collected: %d MiB less", (before-now)>>20)
	}
	if now := g.Use(func(use uint64) bool { return use > 32<<20 }); now > before-48<<20 {
		t.Errorf("after 64 MiB were let go %d MiB less are used", (int64(before)-int64(now))>>20)
	}
}
