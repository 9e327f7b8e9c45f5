package account

import (
	"fmt"
	"time"
)

// Busy returns the CPU time that all of the machine has used since it started,
// where the system tells: errors.ErrUnsupported elsewhere.
func Busy() (time.Duration, error) {
	d, err := readBusy()
	if err != nil {
		return 0, fmt.Errorf("read CPU time of the machine: %w", err)
	}
	return d, nil
}

// Memory is what a process has in RAM, in bytes.
type Memory struct {
	RSS  int64 `json:"rss"`  // all of it
	Anon int64 `json:"anon"` // what it allocated, without the pages of its program file
}

// Held returns what a process has in RAM.
func Held(pid int) (Memory, error) {
	m, err := readMemory(pid)
	if err != nil {
		return m, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return m, nil
}

// Resident returns the bytes of anonymous memory that a process has in RAM.
func Resident(pid int) (int64, error) {
	m, err := Held(pid)
	return m.Anon, err
}
