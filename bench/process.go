package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Where a process runs, unless the two have changed places. The proxy under test has
// a CPU to itself, load and answering ends share the other, so each hop pays for
// waking another CPU as on a real node.
const (
	proxyCPU = 0
	loadCPU  = 1
	anyCPU   = -1
)

// startTime bounds how long a process may take until it serves.
const startTime = 20 * time.Second

// ahead is the niceness that everything measured has in a comparison where that is
// allowed: what else runs on the machine has the CPU when nothing of it wants it.
const ahead = "-15"

// stepAhead has what starts from now on go before others' work, if that is allowed.
func (r *Rig) stepAhead(ctx context.Context) {
	if r.nice == "" {
		return
	}
	// It says how nice it is, and is no nicer than we if that is refused.
	got, err := exec.CommandContext(ctx, r.nice, "-n", ahead, r.nice).Output()
	r.ahead = err == nil && strings.HasPrefix(string(got), "-")
}

// A Process is a running part, proxy or peer.
type Process struct {
	Name string
	Addr string // where it listens, if it says so or was told to

	cmd  *exec.Cmd
	in   io.Closer
	log  *tail
	done chan struct{}
	err  error // of Wait, once done is closed
}

// PID returns the process id, which is also that of what taskset became.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop ends the process and waits for it.
func (p *Process) Stop() {
	if p.in != nil {
		p.in.Close()
	}
	p.cmd.Process.Kill()
	<-p.done
}

// drainLog keeps the end of what the process says.
func (p *Process) drainLog(out io.Reader) { _, _ = io.Copy(p.log, out) }

// Ended waits for the process to end by itself, and returns how it did.
func (p *Process) Ended(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w: %s", p.Name, ctx.Err(), p.log)
	}
}

// alive returns an error with what the process said last, if it has ended.
func (p *Process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %v: %s", p.Name, p.err, p.log)
	default:
		return nil
	}
}

// A tail keeps the end of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 2048; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// start runs a program on a CPU, with GOMAXPROCS 1 unless it may use any.
func (r *Rig) start(name string, cpu int, argv []string) (*Process, *bufio.Reader, error) {
	env := os.Environ()
	if cpu != anyCPU {
		env = append(env, "GOMAXPROCS=1")
		if r.taskset != "" {
			argv = append([]string{r.taskset, "-c", strconv.Itoa(r.place(cpu))}, argv...)
		}
	}
	if r.ahead && cpu != anyCPU {
		argv = append([]string{r.nice, "-n", ahead}, argv...)
	}
	if name == attacker && r.nice != "" { // who has a machine of his own in the world
		argv = append([]string{r.nice, "-n", "19"}, argv...)
	}
	p := &Process{Name: name, cmd: exec.Command(argv[0], argv[1:]...), log: &tail{}, done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr, p.cmd.Dir = env, p.log, r.dir
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	p.in = in
	out, w, err := os.Pipe() // not StdoutPipe: Wait would close it under the reader
	if err != nil {
		return nil, nil, err
	}
	p.cmd.Stdout = w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		out.Close()
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	go p.wait()
	r.mu.Lock()
	r.started = append(r.started, p)
	r.mu.Unlock()
	return p, bufio.NewReader(out), nil
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// Part starts one of our own parts and waits until it listens.
func (r *Rig) Part(name string, cpu int, o PartOptions) (*Process, error) {
	opts, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p, out, err := r.start(name, cpu, append(r.self[:len(r.self):len(r.self)], name, string(opts)))
	if err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() {
		s, _ := out.ReadString('\n')
		line <- s
		io.Copy(io.Discard, out)
	}()
	select {
	case s := <-line:
		p.Addr = strings.TrimSpace(s)
	case <-time.After(startTime):
	}
	if p.Addr == "" {
		p.Stop()
		return nil, fmt.Errorf("%s did not start: %s", name, p.log)
	}
	return p, nil
}

// Program starts a foreign program that was told to listen on addr, and waits
// until it does.
func (r *Rig) Program(ctx context.Context, name string, cpu int, addr string, argv ...string) (*Process, error) {
	p, out, err := r.start(name, cpu, argv)
	if err != nil {
		return nil, err
	}
	go io.Copy(p.log, out)
	p.Addr = addr
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if err := p.alive(); err != nil {
			return nil, err
		}
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return p, nil
		}
		select {
		case <-ctx.Done():
			p.Stop()
			return nil, fmt.Errorf("%s does not listen on %s: %w: %s", name, addr, err, p.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ports that freeAddr picks from lie below those that systems give to outgoing
// connections: one of these may be given away before the program listens there.
const (
	lowPort  = 16 << 10
	highPort = 32 << 10
)

// freeAddr picks a loopback port for a program that cannot pick one itself, each
// time another: those that were picked before may not be in use yet.
func (r *Rig) freeAddr() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.port == 0 {
		r.port = lowPort + rand.IntN(highPort-lowPort) // other rigs have begun elsewhere
	}
	var err error
	for range highPort - lowPort {
		if r.port++; r.port >= highPort {
			r.port = lowPort
		}
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.port)); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// Build builds a program of the module at root.
func (r *Rig) Build(ctx context.Context, root, pkg string) (string, error) {
	bin := filepath.Join(r.dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, bytes.TrimSpace(out))
	}
	return bin, nil
}
