package metrics

import (
	"runtime"
	"testing"
)

func TestProcess(t *testing.T) {
	got := map[string]float64{}
	Process{"v1"}.Collect(func(s *Series) { got[s.Name] = s.Value() })
	want := []string{"istio_build", "go_goroutines", "go_memstats_heap_inuse_bytes", "go_memstats_mallocs_total"}
	if runtime.GOOS == "linux" {
		want = append(want, "process_resident_memory_bytes", "process_open_fds")
		if _, ok := got["process_cpu_seconds_total"]; !ok {
			t.Error("no CPU time")
		}
	}
	for _, name := range want {
		if got[name] < 1 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	if rss := got["process_resident_memory_bytes"]; runtime.GOOS == "linux" && (rss < 1<<20 || rss > 1<<32) {
		t.Errorf("%v bytes resident", rss)
	}
}
