package bench

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// Options say how to measure.
type Options struct {
	Self     []string      // argv that starts a part; its name and options follow
	Waypoint string        // the proxy's binary
	Root     string        // directory of the module, for what is built of it
	Rounds   int           // of each comparison
	For      time.Duration // length of a round's measured time
	Soak     time.Duration // how long a soak lasts
	Log      io.Writer     // progress
}

// A Rig starts what a scenario needs and ends it.
type Rig struct {
	Options
	dir     string // temporary
	ca      *devca.CA
	certs   map[string]traffic.Certs
	self    []string
	taskset string // program that pins; "" if there is none or one CPU only
	nice    string // program that has a process stand back; "" if there is none
	ahead   bool   // what is pinned goes before others' work
	swapped bool   // what goes to the proxy's CPU goes to the load's, and the other way round
	mu      sync.Mutex
	started []*Process
	port    int           // the last that freeAddr has picked
	past    time.Duration // CPU time of the processes that Clear has ended
}

// NewRig makes a rig with a temporary directory.
func NewRig(o Options) (*Rig, error) {
	dir, err := os.MkdirTemp("", "bars-")
	if err != nil {
		return nil, err
	}
	r := &Rig{Options: o, dir: dir, self: o.Self}
	if err := r.issue("curl", "waypoint", "echo"); err != nil {
		r.Close()
		return nil, err
	}
	r.nice, _ = exec.LookPath("nice")
	if runtime.NumCPU() > 1 {
		r.taskset, _ = exec.LookPath("taskset")
	}
	return r, nil
}

// issue makes certificates for service accounts in namespace demo, under one
// root.
func (r *Rig) issue(accounts ...string) error {
	ca, err := devca.New("bars")
	if err != nil {
		return err
	}
	r.ca = ca
	r.certs = make(map[string]traffic.Certs)
	roots := filepath.Join(r.dir, "roots.pem")
	files := map[string][]byte{roots: ca.PEM()}
	for _, a := range accounts {
		leaf, err := ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/" + a})
		if err != nil {
			return fmt.Errorf("issue certificate of %s: %w", a, err)
		}
		c := traffic.Certs{Cert: filepath.Join(r.dir, a+".pem"), Key: filepath.Join(r.dir, a+"-key.pem"), Roots: roots}
		files[c.Cert], files[c.Key] = leaf.Chain, leaf.Key
		r.certs[a] = c
	}
	for file, b := range files {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Pinned reports whether processes have CPUs of their own.
func (r *Rig) Pinned() bool { return r.taskset != "" }

// place is the CPU that a process gets which is to have cpu.
func (r *Rig) place(cpu int) int {
	if r.swapped {
		return proxyCPU + loadCPU - cpu
	}
	return cpu
}

// Clear ends every process that was started since the last Clear.
func (r *Rig) Clear() {
	r.mu.Lock()
	started := r.started
	r.started = nil
	r.mu.Unlock()
	var used time.Duration
	for _, p := range started {
		p.Stop()
		used += p.used()
	}
	r.mu.Lock()
	r.past += used
	r.mu.Unlock()
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
