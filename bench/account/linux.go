//go:build linux

package account

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is USER_HZ, which Linux has fixed at 100 for all it tells user space.
const tick = 10 * time.Millisecond

func readCPU(pid int) (Sample, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	coarse, err := readStat(dir + "/stat")
	if err != nil {
		return Sample{}, err
	}
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return Sample{}, err
	}
	s := Sample{Coarse: coarse, threads: make(map[int]time.Duration, len(tasks))}
	for _, e := range tasks {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(dir + "/task/" + e.Name() + "/schedstat")
		if err != nil {
			continue // the thread ended: Between notices if it mattered
		}
		ns, err := parseSchedstat(b)
		if err != nil {
			return s, err
		}
		s.threads[tid] = ns
		s.CPU += ns
	}
	if len(s.threads) == 0 {
		return s, fmt.Errorf("no thread of it has scheduler statistics (CONFIG_SCHEDSTATS)")
	}
	return s, nil
}

// parseSchedstat takes the first of three numbers: time on a CPU, in ns.
func parseSchedstat(b []byte) (time.Duration, error) {
	f := bytes.Fields(b)
	if len(f) < 1 {
		return 0, fmt.Errorf("empty schedstat")
	}
	ns, err := strconv.ParseInt(string(f[0]), 10, 64)
	return time.Duration(ns), err
}

func readStat(file string) (time.Duration, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat sums utime and stime, fields 14 and 15 of proc_pid_stat(5). The
// name in field 2 may hold blanks and brackets, so counting starts after the
// last bracket.
func parseStat(b []byte) (time.Duration, error) {
	i := bytes.LastIndexByte(b, ')')
	f := bytes.Fields(b[i+1:])
	if i < 0 || len(f) < 13 {
		return 0, fmt.Errorf("stat line is too short")
	}
	u, err1 := strconv.ParseInt(string(f[11]), 10, 64)
	k, err2 := strconv.ParseInt(string(f[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("stat line has no times")
	}
	return time.Duration(u+k) * tick, nil
}

func readBusy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(b)
}

// parseBusy sums the first line of proc_stat(5) without idle, iowait and guests,
// which user time has in it already. Time that a host took away is busy.
func parseBusy(b []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 9 || string(f[0]) != "cpu" {
		return 0, fmt.Errorf("the first line has no times")
	}
	var sum int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(string(f[i]), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

func readMemory(pid int) (Memory, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return Memory{}, err
	}
	return parseStatus(b)
}

func parseStatus(b []byte) (m Memory, err error) {
	for _, f := range []struct {
		name string
		to   *int64
	}{{"VmRSS:", &m.RSS}, {"RssAnon:", &m.Anon}} {
		_, after, ok := bytes.Cut(b, []byte("\n"+f.name))
		words := bytes.Fields(after)
		if !ok || len(words) == 0 {
			return m, fmt.Errorf("status has no %s line", f.name)
		}
		kb, err := strconv.ParseInt(string(words[0]), 10, 64)
		if err != nil {
			return m, err
		}
		*f.to = kb << 10
	}
	return m, nil
}
