package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
)

// refusalLines is how many lines a second the log has about connections that were
// refused. Whoever floods us must not fill the disk, nor make turns wait for it.
const refusalLines = 10

// refusals logs connections that were refused, and counts those that find no line.
func refusals(log *slog.Logger, r *metrics.Registry) func(net.Addr, error) {
	unlogged := r.Counter("waypoint_refusals_unlogged_total", "Refused connections that found no line in the log.")
	var mu sync.Mutex
	var began time.Time
	var lines, more int
	return func(remote net.Addr, err error) {
		mu.Lock()
		now := time.Now()
		if now.Sub(began) >= time.Second {
			began, lines = now, 0
		}
		if lines++; lines > refusalLines {
			more++
			unlogged.Add(1)
			mu.Unlock()
			return
		}
		left := more
		more = 0
		mu.Unlock()
		if left > 0 {
			log.Warn("connections refused without a line each", "connections", left)
		}
		log.Warn("connection refused", "from", remote, "error", err)
	}
}

// memoryLimit is what a flag, or the system, lets this process have: 0 for no limit.
func memoryLimit(flag string) (uint64, error) {
	switch flag {
	case "cgroup":
		return memory.Limit(), nil
	case "none":
		return 0, nil
	}
	n, err := memory.Parse(flag)
	if err != nil {
		return 0, fmt.Errorf("--memory-limit %w, or cgroup, or none", err)
	}
	return n, nil
}

// tellCollector has Go's collector work harder the nearer the limit is, unless
// somebody has told it otherwise.
func tellCollector(limit uint64) {
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(limit / 100 * memory.GoLimitAt))
	}
}

// steps logs how short memory is.
func steps(log *slog.Logger, limit uint64) func(memory.Step, uint64) {
	said := [memory.Steps]string{
		memory.Calm:    "memory is not short any more",
		memory.Tight:   "memory is short: windows shrink",
		memory.Crowded: "memory is short: clients that hold most are asked to go elsewhere",
		memory.Full:    "memory is short: connections, tunnels and requests are refused",
		memory.Cut:     "memory is short: clients that hold most are cut",
	}
	return func(step memory.Step, use uint64) {
		log.Warn(cmp.Or(said[step], step.String()), "step", step.String(), "use", use, "limit", limit)
	}
}
