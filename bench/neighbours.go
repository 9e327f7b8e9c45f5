package bench

import (
	"os"
	"runtime"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
)

// A watch measures what others than the rig use of the machine.
type watch struct {
	rig   *Rig
	began time.Time
	busy  time.Duration // of the machine
	own   time.Duration // of this process
	past  time.Duration // of the rig's processes that had ended
	err   error
}

// watch begins. It must be before the rig's processes start.
func (r *Rig) watch() *watch {
	r.mu.Lock()
	w := &watch{rig: r, began: time.Now(), own: cpuOf(os.Getpid()), past: r.past}
	r.mu.Unlock()
	w.busy, w.err = account.Busy()
	return w
}

// usage is what others have used since the watch began; nothing where the system
// does not tell.
func (w *watch) usage() usage {
	busy, err := account.Busy()
	if w.err != nil || err != nil {
		return usage{}
	}
	others := busy - w.busy - (cpuOf(os.Getpid()) - w.own)
	w.rig.mu.Lock()
	defer w.rig.mu.Unlock()
	others -= w.rig.past - w.past
	for _, p := range w.rig.started {
		others -= p.used()
	}
	return usage{others, time.Since(w.began) * time.Duration(runtime.NumCPU())}
}

// A usage is CPU time that others used, of what the machine had.
type usage struct{ others, all time.Duration }

func (u *usage) add(v usage) {
	u.others += v.others
	u.all += v.all
}

// share is the part that others used, 0 of nothing.
func (u usage) share() float64 {
	if u.all == 0 {
		return 0
	}
	return max(0, float64(u.others)/float64(u.all))
}

// used is the CPU time of a process, that has ended or not.
func (p *Process) used() time.Duration {
	select {
	case <-p.done:
		if s := p.cmd.ProcessState; s != nil {
			return s.UserTime() + s.SystemTime()
		}
		return 0
	default:
		return cpuOf(p.PID())
	}
}

// cpuOf is the CPU time of a process by the kernel's coarse count, which is the
// machine's too; 0 if it has just ended.
func cpuOf(pid int) time.Duration {
	s, err := account.Meter{PID: pid}.Read()
	if err != nil {
		return 0
	}
	return s.Coarse
}
