package bench

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// Options say how to measure.
type Options struct {
	Self     []string      // argv that starts a part; its name and options follow
	Waypoint string        // the proxy's binary
	Rounds   int           // of each comparison
	For      time.Duration // length of a round's measured time
	Log      io.Writer     // progress
}

// A Rig starts what a scenario needs and ends it.
type Rig struct {
	Options
	dir     string // temporary
	self    []string
	taskset string // program that pins; "" if there is none or one CPU only
	mu      sync.Mutex
	started []*Process
}

// NewRig makes a rig with a temporary directory.
func NewRig(o Options) (*Rig, error) {
	dir, err := os.MkdirTemp("", "bars-")
	if err != nil {
		return nil, err
	}
	r := &Rig{Options: o, dir: dir, self: o.Self}
	if runtime.NumCPU() > 1 {
		r.taskset, _ = exec.LookPath("taskset")
	}
	return r, nil
}

// Pinned reports whether processes have CPUs of their own.
func (r *Rig) Pinned() bool { return r.taskset != "" }

// Clear ends every process that was started since the last Clear.
func (r *Rig) Clear() {
	r.mu.Lock()
	started := r.started
	r.started = nil
	r.mu.Unlock()
	for _, p := range started {
		p.Stop()
	}
}

// Close ends everything and removes the rig's files.
func (r *Rig) Close() {
	r.Clear()
	os.RemoveAll(r.dir)
}

func (r *Rig) logf(format string, args ...any) {
	if r.Log != nil {
		fmt.Fprintf(r.Log, format+"\n", args...)
	}
}
