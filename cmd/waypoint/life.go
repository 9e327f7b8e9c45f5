package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/sandwich-mesh/sandwich/internal/handover"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

const (
	// doorName is where successors come, in the state directory.
	doorName = "takeover.sock"
	// takeTime bounds the wait for a predecessor to stop accepting.
	takeTime = 10 * time.Second
	// lookEvery is how often a successor looks whether it can serve.
	lookEvery = 10 * time.Millisecond
)

// lifeFlags say how a process begins and ends.
type lifeFlags struct {
	takeOver        bool
	lameDuck, drain time.Duration
}

func (f *lifeFlags) add(fl *pflag.FlagSet) {
	fl.DurationVar(&f.drain, "drain", 25*time.Second, "how long after SIGTERM requests may take to finish")
	fl.DurationVar(&f.lameDuck, "lame-duck", 5*time.Second, "how long of that everything is served as before, and only readiness says no; half of --drain at most")
	fl.BoolVar(&f.takeOver, "take-over", false, "take the listeners over from the process that runs with the same --state-dir, if there is one; it drains and ends")
}

// A life is how a process came to its listeners, and what becomes of them.
type life struct {
	lifeFlags
	log  *slog.Logger
	path string // of the door; "" if nobody can succeed us

	before *handover.Inheritance // nil: nobody was before us
	kept   *keeper               // set before serving
	calm   func()                // ends the hurry of the start
	after  *handover.Successor   // set before serving ends; nil: there is none
	door   *handover.Door        // with it; closed when the successor has one
	leaves time.Time             // the same: when this process was told to end

	mu      sync.Mutex
	sockets []handover.Socket
}

var errInterrupted = errors.New("interrupted")

// startGC is Go's GC percentage while a process starts: it makes a lot that stays,
// and would look through it over and over.
const startGC = 400

// hurry has a start pay less for its garbage. done ends that, and gives back what
// the start has left.
func hurry() (done func()) {
	usual := debug.SetGCPercent(startGC)
	return func() {
		debug.SetGCPercent(usual)
		runtime.GC() // pools give up at the second collection what they hold
		debug.FreeOSMemory()
	}
}

// signals ends the context when this process is told to end.
func signals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case s := <-told:
			if s == syscall.SIGINT {
				cancel(errInterrupted)
			}
			cancel(nil)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(told); cancel(nil) }
}

// begin takes over from a predecessor if it is asked to and there is one.
func (f *lifeFlags) begin(stateDir string, log *slog.Logger) (*life, error) {
	l := &life{lifeFlags: *f, log: log, calm: hurry()}
	switch {
	case stateDir == "" && f.takeOver:
		return nil, errors.New("--take-over needs --state-dir, where the process that runs can be found")
	case stateDir == "":
		return l, nil
	}
	l.path = filepath.Join(stateDir, doorName)
	if !f.takeOver {
		if handover.Lives(l.path) {
			return nil, fmt.Errorf("another process runs with --state-dir %s: write --take-over to take its place, or another directory", stateDir)
		}
		return l, nil
	}
	var err error
	if l.before, err = handover.Take(l.path); err != nil {
		return nil, fmt.Errorf("--take-over: %w", err)
	}
	if l.before != nil {
		log.Info("taking over", "from", l.before.PID)
	}
	return l, nil
}

// listen returns the predecessor's socket, or a new one.
func (l *life) listen(addr string) (net.Listener, error) {
	nl, err := l.before.Listen(addr)
	if err == nil {
		l.mu.Lock()
		l.sockets = append(l.sockets, handover.Socket{Addr: addr, Listener: nl})
		l.mu.Unlock()
	}
	return nl, err
}

// wait returns when a successor can serve, and at once for who has no
// predecessor. Until then the predecessor serves alone.
func (l *life) wait(ctx context.Context, p *proxy.Proxy) {
	if l.before == nil {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := time.Now()
	for {
		err := p.Prepared()
		if err == nil {
			return
		}
		if time.Since(said) > time.Second {
			said = time.Now()
			l.log.Info("the predecessor serves on", "because", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// serving returns a context that ends when this process is to stop accepting:
// some time after it was told to end, or when a successor serves.
func (l *life) serving(ctx context.Context, p *proxy.Proxy) (context.Context, func()) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	succeeded := make(chan *handover.Successor, 1)
	go l.calm()
	go l.succeed(serving, succeeded)
	go func() {
		defer stop()
		select {
		case <-serving.Done():
			return
		case s := <-succeeded:
			l.hand(s)
			return
		case <-ctx.Done():
		}
		l.leaves = time.Now()
		p.Leave()
		if errors.Is(context.Cause(ctx), errInterrupted) {
			return
		}
		duck := time.NewTimer(min(l.lameDuck, l.drain/2))
		defer duck.Stop()
		l.log.Info("told to end; not ready, and serving on", "for", min(l.lameDuck, l.drain/2))
		select {
		case s := <-succeeded:
			l.hand(s)
		case <-duck.C:
		case <-serving.Done():
		}
	}()
	return serving, stop
}

// succeed takes the predecessor's place for good, and waits for a successor.
func (l *life) succeed(ctx context.Context, to chan<- *handover.Successor) {
	if l.before != nil {
		end, cancel := context.WithTimeout(ctx, takeTime)
		defer cancel()
		if err := l.before.Ready(end); err != nil {
			l.log.Warn("taken over; whether the predecessor has stopped is not known", "error", err)
		} else {
			l.log.Info("taken over", "from", l.before.PID)
		}
	}
	if l.before != nil {
		l.kept.take(true)
		defer l.before.Close()
	}
	if l.path == "" {
		return
	}
	door, err := handover.Open(l.path)
	if err != nil {
		l.log.Error("no successor can take the listeners over", "error", err)
		return
	}
	l.before.Close() // who comes now finds this door
	l.mu.Lock()
	sockets := slices.Clone(l.sockets)
	l.mu.Unlock()
	s := door.Successor(ctx, sockets, func(err error) { l.log.Warn("serving on", "error", err) })
	if s == nil {
		door.Close()
		return
	}
	l.door = door
	to <- s
}

// hand notes that a successor serves: what this process had is no longer its own.
func (l *life) hand(s *handover.Successor) {
	l.log.Info("handing over", "to", s.PID)
	l.kept.take(false)
	l.after = s
}

// end lets what is under way finish, and cuts what does not in time. The operators'
// ports go first if a successor has them too.
func (l *life) end(p *proxy.Proxy, closePorts func()) {
	from := l.leaves
	if l.after != nil {
		from = time.Now()
		closePorts()
		if err := l.after.Yours(); err != nil {
			l.log.Warn("the successor has gone", "error", err)
		}
		l.door.Close()
	}
	end, cancel := context.WithDeadline(context.Background(), from.Add(l.drain))
	defer cancel()
	l.log.Info("draining", "until", from.Add(l.drain).UTC().Format(time.RFC3339))
	if cut := p.Shutdown(end); cut > 0 {
		s := p.Stats()
		l.log.Warn("cut at the end of the drain", "connections", cut, "opaque", s.Cut.Load(), "requests", s.Faults[fault.Draining].Load())
	}
}

// A keeper writes the last good document to the state directory, while that is
// this process's to write. Nil for who has none.
type keeper struct {
	state  *config.State
	p      *proxy.Proxy
	log    *slog.Logger
	report func([]config.Problem)

	unsaved *metrics.Counter

	begun bool // a document was applied; the source's own

	mu   sync.Mutex
	ours bool
}

// apply applies a document. The last good one is read only if the first is not all
// in force: objects then keep their last good version.
func (k *keeper) apply(c *config.Config) []config.Problem {
	problems := k.p.Apply(c)
	if s := k.p.Snapshot().Settled(); !k.begun && len(s.Closed) > 0 {
		k.restore()
		problems = k.p.Apply(c)
	}
	k.begun = true
	k.save()
	return problems
}

// restore puts the last good document in force.
func (k *keeper) restore() {
	if k == nil || k.begun {
		return
	}
	k.begun = true
	last, problems := k.state.Load()
	if last != nil {
		problems = append(problems, k.p.Apply(last)...)
	}
	if last != nil || len(problems) > 0 {
		k.log.Info("the last good document is in force", "until", "there is a better one")
		k.report(problems)
	}
}

// take says whether the directory is ours from now on.
func (k *keeper) take(ours bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.ours = ours
	k.mu.Unlock()
	k.save()
}

func (k *keeper) save() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ours || !k.p.Serves() {
		return
	}
	if err := k.state.Save(k.p.Snapshot().Settled().Config); err != nil {
		k.unsaved.Add(1)
		k.log.Error("last good document not saved; a restart would begin with the one before", "error", err)
	}
}
