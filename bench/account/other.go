//go:build !linux

package account

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

func readCPU(pid int) (Sample, error) {
	out, err := exec.Command("ps", "-o", "time=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return Sample{}, err
	}
	d, err := parsePSTime(strings.TrimSpace(string(out)))
	return Sample{CPU: d, Coarse: d}, err
}

func readBusy() (time.Duration, error) { return 0, errors.ErrUnsupported }

// readMemory has one figure for both: ps does not tell program pages apart, so
// only differences of Anon mean anything.
func readMemory(pid int) (Memory, error) {
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return Memory{}, err
	}
	kb, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return Memory{}, fmt.Errorf("ps printed no size: %w", err)
	}
	return Memory{kb << 10, kb << 10}, nil
}
