package load

import (
	"runtime"
	"syscall"
	"time"
)

// prSetTimerSlack is PR_SET_TIMERSLACK of prctl(2): how late a thread's sleeps may
// end, in ns. Linux gives 50 µs, and 0 means what was given at first.
const prSetTimerSlack = 29

// preciseSleep returns a sleep that ends within some µs of its time, for the
// calling goroutine until it calls end. A timer of Go's runtime may be late by a
// millisecond, because its poller waits in whole ones.
func preciseSleep() (sleep func(time.Duration), end func()) {
	runtime.LockOSThread()
	slack := func(ns uintptr) { _, _, _ = syscall.Syscall(syscall.SYS_PRCTL, prSetTimerSlack, ns, 0) } // without it sleeps are later, and lag says so
	slack(1)
	return func(d time.Duration) {
			ts := syscall.NsecToTimespec(int64(d))
			_ = syscall.Nanosleep(&ts, nil) // a signal ends it early: the caller looks at the clock
		}, func() {
			slack(0)
			runtime.UnlockOSThread()
		}
}
