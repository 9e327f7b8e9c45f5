package metrics

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"time"
)

// A Process collects what dashboards show of any process: its build, runtime,
// CPU time, memory and descriptors. What the system does not tell is left out.
type Process struct{ Version string }

// ticks is how many units of /proc/self/stat make a second: USER_HZ is 100
// wherever Linux runs Go.
const ticks = 100

// Collect reads the system's books.
func (p Process) Collect(f func(*Series)) {
	f(&Series{Name: "istio_build", Help: "Version of this proxy.", Type: GaugeType, Number: 1, Labels: []Label{{"component", "proxy"}, {"tag", p.Version}}})
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	gauge := func(name, help string, v float64) { f(&Series{Name: name, Help: help, Type: GaugeType, Number: v}) }
	gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	gauge("go_gomaxprocs", "Threads that run Go code at once, at most.", float64(runtime.GOMAXPROCS(0)))
	gauge("go_memstats_heap_inuse_bytes", "Heap in use.", float64(m.HeapInuse))
	gauge("go_memstats_heap_alloc_bytes", "Heap that is allocated.", float64(m.HeapAlloc))
	gauge("go_memstats_stack_inuse_bytes", "Stacks in use.", float64(m.StackInuse))
	gauge("go_memstats_sys_bytes", "Memory obtained from the system.", float64(m.Sys))
	f(&Series{Name: "go_memstats_alloc_bytes_total", Help: "Bytes allocated so far.", Type: CounterType, Number: float64(m.TotalAlloc)})
	f(&Series{Name: "go_memstats_mallocs_total", Help: "Objects allocated so far.", Type: CounterType, Number: float64(m.Mallocs)})
	f(&Series{Name: "go_gc_cycles_total", Help: "Garbage collections.", Type: CounterType, Number: float64(m.NumGC)})
	f(&Series{Name: "go_gc_pause_seconds_total", Help: "Time the world stood still.", Type: CounterType, Number: time.Duration(m.PauseTotalNs).Seconds()})
	processOf(f)
}

func processOf(f func(*Series)) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return
	}
	// The name, in parentheses, may hold anything; fields are counted behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return
	}
	number := func(i int) float64 { n, _ := strconv.ParseFloat(string(fields[i]), 64); return n }
	f(&Series{Name: "process_cpu_seconds_total", Help: "CPU time, user and system.", Type: CounterType, Number: (number(11) + number(12)) / ticks})
	f(&Series{Name: "process_resident_memory_bytes", Help: "Resident memory.", Type: GaugeType, Number: number(21) * float64(os.Getpagesize())})
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		f(&Series{Name: "process_open_fds", Help: "Open descriptors.", Type: GaugeType, Number: float64(len(open))})
	}
}
