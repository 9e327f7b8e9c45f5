package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 20 * time.Second // for a program to listen, on a busy machine
	runTimeout   = 2 * time.Minute  // for a program to live at most
)

// A process is a program that runs beside the test.
type process struct {
	name string
	dir  string // its own folder, for configuration and logs
	cmd  *exec.Cmd
	log  lockedBuffer
	stop context.CancelFunc
	done chan struct{} // closed when it has ended
	err  error         // why; read after done
}

// A lockedBuffer is written by the program and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a program until the test ends, and returns when every address
// accepts connections. Its output is shown if the test fails.
func start(t *testing.T, dir, path string, args []string, listens ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	p := &process{name: filepath.Base(path), dir: dir, stop: cancel, done: make(chan struct{})}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children die with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatalf("start %s: %v", p.name, err)
	}
	p.cmd = cmd
	go p.wait(cmd)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s%s", p.name, p.log.String(), p.files())
		}
	})
	for _, addr := range listens {
		if err := p.listening(addr); err != nil {
			t.Fatalf("%s does not listen on %s: %v", p.name, addr, err)
		}
	}
	return p
}

// kill ends the program at once, as a node that fails does.
func (p *process) kill() {
	p.stop()
	<-p.done
}

func (p *process) wait(cmd *exec.Cmd) {
	p.err = cmd.Wait()
	close(p.done)
}

// listening waits until addr accepts a connection.
func (p *process) listening(addr string) (err error) {
	ok := poll(func() bool {
		var nc net.Conn
		if nc, err = net.DialTimeout("tcp", addr, time.Second); err == nil {
			nc.Close()
		}
		return err == nil || p.ended()
	})
	if ok && err != nil {
		return fmt.Errorf("it ended: %w", errors.Join(p.err, err))
	}
	return err
}

// ended reports whether the program has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// until waits for something that the program does.
func (p *process) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !poll(done) {
		t.Fatalf("%s: waited in vain for %s", p.name, what)
	}
}

// poll asks until the answer is yes, or startTimeout has passed.
func poll(done func() bool) bool {
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// files returns the logs that the program wrote into its folder.
func (p *process) files() string {
	var all strings.Builder
	logs, _ := filepath.Glob(filepath.Join(p.dir, "*.log"))
	for _, name := range logs {
		if text, err := os.ReadFile(name); err == nil {
			fmt.Fprintf(&all, "--- %s\n%s", filepath.Base(name), text)
		}
	}
	return all.String()
}

// eventually waits until the file contains want, and returns its text. Programs
// write their logs some time after they have answered.
func eventually(t *testing.T, file, want string) string {
	t.Helper()
	var text []byte
	var err error
	found := poll(func() bool {
		text, err = os.ReadFile(file)
		return err == nil && strings.Contains(string(text), want)
	})
	if !found {
		t.Fatalf("%s: got %q, %v; want it to contain %q", filepath.Base(file), text, err, want)
	}
	return string(text)
}

// loopback returns a free address. Its port lies below those that the system
// gives to connections, so that nobody takes it before the program does.
func loopback(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no free port on loopback")
	return ""
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// folder makes a folder that servers which drop root may enter.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// dial connects within a bounded time and closes with the test.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, startTimeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(startTimeout))
	return nc
}

// handshake speaks TLS to addr as cfg says, and returns why the server will
// not have it. In TLS 1.3 a refused certificate shows at the first read; an
// HTTP/2 server that is content sends its SETTINGS.
func handshake(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	tc := tls.Client(dial(t, addr), cfg)
	if err := tc.Handshake(); err != nil {
		return err
	}
	if proto := tc.ConnectionState().NegotiatedProtocol; proto != "h2" {
		return fmt.Errorf("negotiated %q, want h2", proto)
	}
	// An empty SETTINGS after the preface: servers may wait for them.
	if _, err := tc.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return err
	}
	_, err := io.ReadFull(tc, make([]byte, 9))
	return err
}
