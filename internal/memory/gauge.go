package memory

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"time"
)

// collectEvery is how often at most a Gauge has the collector run, so that it knows
// what is in use and what is garbage.
const collectEvery = 250 * time.Millisecond

// A Gauge measures what this process needs: the memory that would be left behind a
// collection, and what the kernel holds for its sockets.
//
// Resident memory does not say that: Go lets garbage pile up to the limit that it is
// told, so a ladder of resident memory would be climbed by a process that is well.
type Gauge struct {
	// Lent says how many bytes of buffers are in use now: what is known at once of
	// what has changed since the last collection.
	Lent func() int64

	samples   []metrics.Sample
	cycles    uint64
	lentThen  int64 // when the last collection was noticed
	collected time.Time
	kernel    []kernelFile
}

// A kernelFile is where a control group says what the kernel holds: a number, or
// lines of which some count, less one that it gives up when memory is short.
type kernelFile struct {
	name string
	keys []string
	less string
}

// What is read, in the order of names.
var names = []string{
	"/gc/cycles/total:gc-cycles", "/gc/heap/live:bytes", "/memory/classes/heap/free:bytes", "/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/released:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/total:bytes",
}

const (
	cycles = iota
	live
	free
	objects
	released
	unused
	total
)

// NewGauge returns a gauge.
func NewGauge(lent func() int64) *Gauge { return newGauge("/", lent) }

func newGauge(root string, lent func() int64) *Gauge {
	g := &Gauge{Lent: lent, samples: make([]metrics.Sample, len(names))}
	for i, n := range names {
		g.samples[i].Name = n
	}
	own := groupOf(root)
	if own.limitOf(own.dirs[0]) == 0 {
		return g // who else is in the group, and what the kernel holds for them, nobody says
	}
	files := []kernelFile{{"memory.stat", []string{"sock", "kernel"}, "slab_reclaimable"}}
	if own.v1 {
		files = []kernelFile{{name: "memory.kmem.usage_in_bytes"}, {name: "memory.kmem.tcp.usage_in_bytes"}}
	}
	for _, f := range files {
		f.name = filepath.Join(own.dirs[0], f.name)
		if _, err := os.ReadFile(f.name); err == nil {
			g.kernel = append(g.kernel, f)
		}
	}
	return g
}

// Use measures. short says that memory is short, or how much garbage there is
// matters: then what is known is to be fresh.
func (g *Gauge) Use(short func(use uint64) bool) uint64 {
	use, all := g.read()
	if (short(use) || short(all)) && time.Since(g.collected) >= collectEvery {
		runtime.GC()
		use, _ = g.read()
	}
	return use
}

// read returns what is in use, and that with the garbage.
func (g *Gauge) read() (use, all uint64) {
	metrics.Read(g.samples)
	v := func(i int) uint64 { return g.samples[i].Value.Uint64() }
	lent := g.Lent()
	if v(cycles) != g.cycles {
		g.cycles, g.lentThen, g.collected = v(cycles), lent, time.Now()
	}
	heap := max(int64(v(live))+lent-g.lentThen, 0)
	rest := v(total) - v(released) - v(free) - v(objects) - v(unused) + g.held()
	return min(uint64(heap), v(objects)) + rest, v(objects) + rest
}

// held is what the kernel holds for this process, as far as it says.
func (g *Gauge) held() uint64 {
	n, less := uint64(0), uint64(0)
	for _, f := range g.kernel {
		b, err := os.ReadFile(f.name)
		if err != nil {
			continue
		}
		if f.keys == nil {
			n += number(b)
			continue
		}
		for line := range bytes.Lines(b) {
			key, value, _ := bytes.Cut(line, []byte(" "))
			for _, k := range f.keys {
				if string(key) == k {
					n += number(value)
				}
			}
			if string(key) == f.less {
				less += number(value)
			}
		}
	}
	return n - min(n, less)
}

func number(b []byte) uint64 {
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n
}
