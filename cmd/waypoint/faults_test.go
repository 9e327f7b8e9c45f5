package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startCounted starts a process with a port for metrics, and returns who reads one.
func (h *house) startCounted(args ...string) (*tenant, func(name string) string) {
	h.t.Helper()
	at := freePort(h.t)
	p := h.start(append(h.first[:len(h.first):len(h.first)], append([]string{"--metrics-listen", at}, args...)...))
	return p, func(name string) string {
		r, err := http.Get("http://" + at + "/metrics")
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				return strings.TrimSpace(value)
			}
		}
		return "none"
	}
}

func (h *house) wantAnswer(path string) {
	h.t.Helper()
	g, err := h.visit()
	if err != nil {
		h.t.Error(err)
		return
	}
	defer g.nc.Close()
	if _, err := g.ask(path); err != nil {
		h.t.Error(err)
	}
}

func (p *tenant) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// coldStart: a process that was killed serves the last good document again when
// its source is away or cannot be read, and an object that is bad by then keeps its
// last good version. The control is a start without a state directory.
func coldStart(t *testing.T, bin string) {
	h := newHouse(t, bin)
	good, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	p := h.start(h.first)
	h.until("ready", h.isReady)
	h.wantAnswer("/first")
	for name, text := range map[string]string{
		"away":           "",
		"no YAML":        "{",
		"a bad service":  strings.Replace(string(good), "appProtocol: http", "appProtocol: 7", 1),
		"a bad workload": strings.Replace(string(good), "protocol: TCP", "protocol: UDP", 1),
	} {
		p.kill()
		if text == "" {
			if err := os.Remove(h.config); err != nil {
				t.Fatal(err)
			}
		} else {
			h.write(h.config, text)
		}
		p = h.start(h.first)
		h.until("ready, "+name, h.isReady)
		h.wantAnswer("/" + strings.ReplaceAll(name, " ", "-"))
		p.says("last good document is in force")
	}
	p.kill()
	h.write(h.config, "{")
	p = h.start(append(h.first[:len(h.first):len(h.first)], "--state-dir", ""))
	p.says("serving")
	h.until("an answer about readiness", func() bool {
		r, err := http.Get("http://" + h.ready + "/healthz/ready")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		why, _ := io.ReadAll(r.Body)
		return r.StatusCode == 503 && strings.Contains(string(why), "the first document")
	})
}

// fullDisk: a state that cannot be written is told and counted, the proxy
// serves the new document, and the last good one on disk stays whole; with room
// again the next document is kept.
func fullDisk(t *testing.T, bin string) {
	h := newHouse(t, bin)
	p, metric := h.startCounted()
	h.until("ready", h.isReady)
	state := filepath.Join(h.dir, "state", "last-good.json")
	h.until("the state", func() bool { _, err := os.Stat(state); return err == nil })
	before, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", state+".new"); err != nil { // which has no room for a byte
		t.Fatal(err)
	}
	change := func(name string) {
		text, err := os.ReadFile(h.config)
		if err != nil {
			t.Fatal(err)
		}
		h.write(h.config+".new", string(text)+fmt.Sprintf("- {name: %s, address: 10.1.0.9}\n", name))
		if err := os.Rename(h.config+".new", h.config); err != nil {
			t.Fatal(err)
		}
	}
	change("one-more")
	p.says("no space left on device")
	h.until("the count", func() bool { return metric("waypoint_state_unsaved_total") == "1" })
	h.wantAnswer("/full")
	if !h.isReady() {
		t.Error("not ready because of a full disk")
	}
	if after, err := os.ReadFile(state); err != nil || string(after) != string(before) {
		t.Errorf("what was there is gone: %v", err)
	}
	if err := os.Remove(state + ".new"); err != nil {
		t.Fatal(err)
	}
	change("and-another")
	h.until("the new state", func() bool {
		after, err := os.ReadFile(state)
		return err == nil && strings.Contains(string(after), "and-another")
	})
}

// noDescriptors: more connections than there are descriptors for cost only
// themselves. With the cap as it is by default they are closed at the cap, and
// there are descriptors left for endpoints and probes; with one that is too high
// accept fails, is counted, and works again when some have gone.
func noDescriptors(t *testing.T, bin string) {
	const limit = 100
	for name, row := range map[string]struct {
		flags  []string
		count  string
		probes bool
	}{
		"default cap":  {nil, "waypoint_connections_over_cap_total", true},
		"no such room": {[]string{"--max-connections", "1000"}, "waypoint_accept_errors_total", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, bin)
			h.path, h.first = "/bin/sh", append([]string{"-c", fmt.Sprintf("ulimit -n %d; exec \"$0\" \"$@\"", limit), h.path}, h.first...)
			_, metric := h.startCounted(row.flags...)
			h.until("ready", h.isReady)
			metric(row.count) // which keeps a connection for later looks
			known, err := h.visit()
			if err != nil {
				t.Fatal(err)
			}
			defer known.nc.Close()
			if _, err := known.ask("/before"); err != nil {
				t.Fatal(err)
			}
			var crowd []net.Conn
			for range 2 * limit {
				nc, err := net.DialTimeout("tcp", h.entry, patience)
				if err != nil {
					break // the queue is full as well
				}
				crowd = append(crowd, nc)
			}
			h.until(row.count, func() bool { n := metric(row.count); return n != "0" && n != "none" })
			if again, err := known.ask("/during"); err != nil || !again {
				t.Errorf("a connection that was there: again %v, %v", again, err)
			}
			if row.probes && !h.isReady() {
				t.Error("probes find no descriptor left")
			}
			for _, nc := range crowd {
				nc.Close()
			}
			h.until("a new connection's answer", func() bool {
				g, err := h.visit()
				if err != nil {
					return false
				}
				defer g.nc.Close()
				g.nc.SetDeadline(time.Now().Add(2 * time.Second))
				_, err = g.ask("/after")
				return err == nil
			})
		})
	}
}
