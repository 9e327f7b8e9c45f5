//go:build !linux

package load

import "time"

// preciseSleep is as precise as the runtime's timers.
func preciseSleep() (sleep func(time.Duration), end func()) { return time.Sleep, func() {} }
