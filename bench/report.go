package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Machine is where figures come from.
type Machine struct {
	OS     string `json:"os"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
	Pinned bool   `json:"pinned"` // the proxy had a CPU to itself
}

// Machine describes the machine that the rig runs on.
func (r *Rig) Machine() Machine {
	m := Machine{OS: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(), Pinned: r.Pinned()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = string(bytes.TrimSpace(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(b), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.TrimLeft(line, "\t :")
	}
	return m
}

// Results are the last figures, as they lie in a file.
type Results struct {
	Machine Machine   `json:"machine"`
	Bars    []Outcome `json:"bars"`
}

// Save writes outcomes to a file in dir. What other runs on the same machine
// found for other bars stays.
func (r *Results) Save(dir string) error {
	file := filepath.Join(dir, "bars.json")
	var old Results
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &old); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
	all := slices.Clone(r.Bars)
	if old.Machine == r.Machine {
		for _, o := range old.Bars {
			if !slices.ContainsFunc(all, func(n Outcome) bool { return n.Name == o.Name }) {
				all = append(all, o)
			}
		}
	}
	slices.SortFunc(all, func(a, b Outcome) int { return strings.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(Results{r.Machine, all}); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
