//go:build !linux

package account

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

func readCPU(pid int) (Sample, error) {
	out, err := exec.Command("ps", "-o", "time=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return Sample{}, err
	}
	d, err := parsePSTime(strings.TrimSpace(string(out)))
	return Sample{CPU: d, Coarse: d}, err
}

// Resident returns the bytes that a process has in RAM. The pages of its
// program file are in it, so only differences mean anything.
func Resident(pid int) (int64, error) {
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("ps printed no size: %w", err)
	}
	return kb << 10, nil
}
