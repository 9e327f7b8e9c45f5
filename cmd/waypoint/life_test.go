package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// TestLife runs processes as an operator does: they begin, follow each other, run
// out of things, and end.
func TestLife(t *testing.T) {
	bin := needs.Command(t, "./cmd/waypoint")
	for name, test := range map[string]func(t *testing.T, bin string){
		"take over": takeOver, "successor fails": successorFails, "one process for a state directory": stateDirIsOneProcess,
		"terminate": terminate, "cold start": coldStart, "full disk": fullDisk, "no descriptors": noDescriptors,
	} {
		t.Run(name, func(t *testing.T) { test(t, bin) })
	}
}

// A house is where processes of one waypoint follow each other: its binary, its
// state directory, its ports and its application.
type house struct {
	t           *testing.T
	path        string
	dir         string
	entry       string // bare connections
	ready       string
	app         *httptest.Server
	hold        chan struct{} // /held answers when it is closed
	held        atomic.Int64
	config      string
	first, next []string // flags of all, and of who takes over
}

func newHouse(t *testing.T, bin string) *house {
	t.Helper()
	t.Parallel() // these tests wait more than they work
	h := &house{t: t, path: bin, dir: t.TempDir(), entry: freePort(t), ready: freePort(t), hold: make(chan struct{})}
	h.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			h.held.Add(1)
			<-h.hold
		}
		fmt.Fprint(w, "hello from ", r.URL.Path)
	}))
	t.Cleanup(h.app.Close)
	h.config = filepath.Join(h.dir, "waypoint.yaml")
	_, port, _ := net.SplitHostPort(h.entry)
	_, target, _ := net.SplitHostPort(h.app.Listener.Addr().String())
	h.write(h.config, fmt.Sprintf(`apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: life, namespace: demo}
services:
- {name: a, addresses: [127.0.0.1], ports: [{port: %s, targetPort: %s, appProtocol: http}], endpoints: [{workload: a-1}]}
workloads:
- {name: a-1, address: 127.0.0.1, protocol: TCP}
`, port, target))
	h.first = []string{"serve", "--config", h.config, "--state-dir", filepath.Join(h.dir, "state"), "--hbone-listen", "",
		"--plain-listen", h.entry, "--admin-listen", "", "--metrics-listen", "", "--ready-listen", h.ready, "--drain", "10s", "--lame-duck", "0s"}
	h.next = append(h.first[:len(h.first):len(h.first)], "--take-over")
	return h
}

func (h *house) write(file, text string) {
	h.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A tenant is one process in it.
type tenant struct {
	h    *house
	cmd  *exec.Cmd
	log  lockedLog
	done chan struct{}
	err  error // once done is closed
}

type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (h *house) start(args []string) *tenant {
	h.t.Helper()
	p := &tenant{h: h, cmd: exec.Command(h.path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	h.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if h.t.Failed() {
			h.t.Logf("process %d said:\n%s", p.cmd.Process.Pid, p.log.String())
		}
	})
	return p
}

// until waits for something.
func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !holds(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s: not in time", what)
		}
	}
}

// says waits until the process has written words to its log.
func (p *tenant) says(words string) {
	p.h.t.Helper()
	p.h.until(words, func() bool { return strings.Contains(p.log.String(), words) })
}

// ends waits for the process to end in order.
func (p *tenant) ends() {
	p.h.t.Helper()
	select {
	case <-p.done:
		if p.err != nil {
			p.h.t.Errorf("process %d: %v", p.cmd.Process.Pid, p.err)
		}
	case <-time.After(patience):
		p.h.t.Fatalf("process %d does not end", p.cmd.Process.Pid)
	}
}

// isReady asks the readiness port.
func (h *house) isReady() bool {
	r, err := http.Get("http://" + h.ready + "/healthz/ready")
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == 200
}

// A guest is a client's connection.
type guest struct {
	nc net.Conn
	r  *bufio.Reader
}

func (h *house) visit() (*guest, error) {
	nc, err := net.DialTimeout("tcp", h.entry, patience)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(patience))
	return &guest{nc, bufio.NewReader(nc)}, nil
}

// ask makes a request and reports whether the connection may be used again.
func (g *guest) ask(path string) (again bool, err error) {
	if _, err := fmt.Fprintf(g.nc, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", path); err != nil {
		return false, err
	}
	p, err := http.ReadResponse(g.r, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(p.Body)
	if err == nil && (p.StatusCode != 200 || string(body) != "hello from "+path) {
		err = fmt.Errorf("status %d, %q", p.StatusCode, body)
	}
	return !p.Close, err
}

// crowd asks on several connections until it is told to stop. Nothing is tried
// twice.
type crowd struct {
	asked, failed atomic.Int64
	first         atomic.Pointer[error]
	stop          chan struct{}
	wg            sync.WaitGroup
}

func (h *house) crowd(n int) *crowd {
	c := &crowd{stop: make(chan struct{})}
	for range n {
		c.wg.Go(func() { c.loop(h) })
	}
	return c
}

func (c *crowd) loop(h *house) {
	var g *guest
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		var err error
		if g == nil {
			g, err = h.visit()
		}
		again := false
		if err == nil {
			again, err = g.ask("/crowd")
		}
		if err != nil {
			c.failed.Add(1)
			c.first.CompareAndSwap(nil, &err)
			<-time.After(time.Millisecond)
		}
		c.asked.Add(1)
		if g != nil && !again {
			g.nc.Close()
			g = nil
		}
	}
}

func (c *crowd) leave() (asked, failed int64, first error) {
	close(c.stop)
	c.wg.Wait()
	if p := c.first.Load(); p != nil {
		first = *p
	}
	return c.asked.Load(), c.failed.Load(), first
}

// takeOver: processes that follow each other while clients ask and connect
// refuse nobody and lose nothing. A request that is under way ends where it began.
func takeOver(t *testing.T, bin string) {
	h := newHouse(t, bin)
	p := h.start(h.first)
	h.until("ready", h.isReady)
	crowd := h.crowd(8)
	for range 3 {
		before := crowd.asked.Load()
		h.until("requests", func() bool { return crowd.asked.Load() > before+200 })
		q := h.start(h.next)
		p.ends()
		q.says("taken over")
		p = q
	}
	// One more, while a request is under way.
	slow, err := h.visit()
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := slow.ask("/held")
		answered <- err
	}()
	h.until("the request", func() bool { return h.held.Load() == 1 })
	q := h.start(h.next)
	q.says("taken over")
	if !h.isReady() {
		t.Error("not ready after it was taken over")
	}
	close(h.hold)
	if err := <-answered; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	p.ends()
	asked, failed, first := crowd.leave()
	t.Logf("%d requests, %d failed", asked, failed)
	if failed > 0 {
		t.Errorf("%d of %d failed, the first: %v", failed, asked, first)
	}
	// The control: a process that just dies is noticed.
	crowd = h.crowd(8)
	h.until("requests", func() bool { return crowd.asked.Load() > 200 })
	q.cmd.Process.Kill()
	<-q.done
	h.until("failures", func() bool { return crowd.failed.Load() > 0 })
	crowd.leave()
	// And whoever comes after it finds its door shut, and begins anew.
	h.start(h.next)
	h.until("ready", h.isReady)
}

// successorFails: a successor that does not get to serve changes nothing.
func successorFails(t *testing.T, bin string) {
	h := newHouse(t, bin)
	p := h.start(h.first)
	h.until("ready", h.isReady)
	waits := h.start(append(h.next[:len(h.next):len(h.next)], "--hbone-listen", freePort(t), "--workload-api", "unix://"+h.dir+"/nobody.sock"))
	waits.says("the predecessor serves on")
	for range 20 {
		if !h.isReady() {
			t.Fatal("not ready while a successor waits for its certificate")
		}
	}
	second := h.start(h.next)
	<-second.done
	if second.err == nil || !strings.Contains(second.log.String(), "another process is taking over") {
		t.Errorf("two at once: %v, %s", second.err, second.log.String())
	}
	waits.cmd.Process.Kill()
	p.says("did not take over")
	if g, err := h.visit(); err != nil {
		t.Error(err)
	} else if again, err := g.ask("/after"); err != nil || !again {
		t.Errorf("behind it: again %v, %v", again, err)
	} else {
		g.nc.Close()
	}
	h.start(h.next).says("taken over")
	p.ends()
}

// stateDirIsOneProcess: a second process is told of the first.
func stateDirIsOneProcess(t *testing.T, bin string) {
	h := newHouse(t, bin)
	p := h.start(h.first)
	h.until("ready", h.isReady)
	h.until("the door", func() bool { _, err := os.Stat(filepath.Join(h.dir, "state", doorName)); return err == nil })
	h.entry, h.ready = freePort(t), freePort(t)
	second := h.start(append(h.first[:len(h.first):len(h.first)], "--plain-listen", h.entry, "--ready-listen", h.ready))
	<-second.done
	if second.err == nil || !strings.Contains(second.log.String(), "write --take-over to take its place, or another directory") {
		t.Errorf("%v, %s", second.err, second.log.String())
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.ends()
}

// terminate: SIGTERM takes readiness away first, then asks clients to go, and
// ends in order when they have.
func terminate(t *testing.T, bin string) {
	h := newHouse(t, bin)
	p := h.start(append(h.first[:len(h.first):len(h.first)], "--lame-duck", "1s", "--drain", "3s"))
	h.until("ready", h.isReady)
	idle, err := h.visit()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := idle.ask("/1"); err != nil || !again {
		t.Fatalf("again %v, %v", again, err)
	}
	begun := time.Now()
	for range 2 { // the second says nothing new
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	p.says("not ready, and serving on")
	if h.isReady() {
		t.Error("ready, and told to end")
	}
	late, err := h.visit()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := late.ask("/2"); err != nil || !again {
		t.Errorf("lame: again %v, %v", again, err)
	}
	p.says("draining")
	if h.isReady() {
		t.Error("ready, and draining")
	}
	if again, err := late.ask("/3"); err != nil || again {
		t.Errorf("draining: again %v, %v", again, err)
	}
	late.nc.Close()
	if n, err := idle.r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an unused connection at the end: %d, %v, want EOF", n, err)
	}
	idle.nc.Close()
	p.ends()
	if took := time.Since(begun); took < 3*time.Second || took > 6*time.Second {
		t.Errorf("ended after %v, want the drain's 3 s for the unused connection, and no more than a moment", took)
	}
	if strings.Contains(p.log.String(), "cut at the end") {
		t.Error("an unused connection counts as cut")
	}
}
