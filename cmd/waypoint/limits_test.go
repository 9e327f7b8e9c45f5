package main

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
)

// TestRefusalLines: a flood of refusals fills no log, and none is forgotten.
func TestRefusalLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		reg := new(metrics.Registry)
		refused := refusals(slog.New(slog.NewTextHandler(&out, nil)), reg)
		lines := func(word string) int { return strings.Count(out.String(), word) }
		flood := func(n int) {
			for range n {
				refused(&net.TCPAddr{}, errors.New("no"))
			}
		}
		flood(refusalLines) // the control: as many as there may be have a line each
		if n := lines("connection refused"); n != refusalLines {
			t.Errorf("%d lines, want %d", n, refusalLines)
		}
		flood(1000)
		if n := lines("connection refused"); n != refusalLines {
			t.Errorf("%d lines under a flood, want %d", n, refusalLines)
		}
		time.Sleep(time.Second)
		flood(1)
		if n := lines("connection refused"); n != refusalLines+1 {
			t.Errorf("%d lines a second later, want %d", n, refusalLines+1)
		}
		if lines("connections=1000") != 1 {
			t.Errorf("the log does not tell of the 1000 without a line: %s", out.String())
		}
		if n := reg.Counter("waypoint_refusals_unlogged_total", "").Value(); n != 1000 {
			t.Errorf("%d are counted, want 1000", n)
		}
	})
}

func TestMemoryLimitFlag(t *testing.T) {
	for flag, want := range map[string]uint64{"none": 0, "cgroup": memory.Limit(), "64Mi": 64 << 20} {
		if got, err := memoryLimit(flag); got != want || err != nil {
			t.Errorf("%s: got %d, %v; want %d", flag, got, err, want)
		}
	}
	if _, err := memoryLimit("much"); err == nil || !strings.Contains(err.Error(), "--memory-limit") || !strings.Contains(err.Error(), "512Mi") {
		t.Errorf("got %v, want it to say what to write", err)
	}
}
