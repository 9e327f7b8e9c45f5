package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

const (
	// dials is how many connections are made at the same time.
	dials = 32
	// look is how often requests that take too long are looked for.
	look = 100 * time.Millisecond
	// together is how many requests that are due at once leave in one turn.
	together = 16
	// nap bounds a pacer's sleep, so that it hears of the end.
	nap = 20 * time.Millisecond
)

// Options are what a run needs besides its spec.
type Options struct {
	// Progress is told once a second what has happened in it; nil for nobody.
	Progress func(p Point, r *Running)

	// For tests: nil and nil are a net.Dialer and the system's clock.
	dial  func(ctx context.Context, addr string) (net.Conn, error)
	sleep func(d time.Duration)
	queue int // in place of maxQueue
}

// A Run is load on a target: its connections stand from Start to Close, and work
// while Measure lasts.
type Run struct {
	spec     Spec
	progress func(p Point, r *Running)
	closed   bool // loop
	messages []message
	workers  []*worker
	loops    *wire.Loops
	tls      *tls.Config // nil: plain
	dialer   func(ctx context.Context, addr string) (net.Conn, error)
	sleep    func(d time.Duration)
	base     time.Time
	queue    int // requests of a worker that may wait for a connection

	connectFields []h2.Field

	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	// Atomic.
	going   atomic.Bool  // a closed loop's requests may begin
	given   atomic.Bool  // the measurement was given up
	working atomic.Bool  // a measurement is in progress
	counts  atomic.Int64 // when the part that counts begins, ns since base
}

// now is the time since the run was made, in ns.
func (r *Run) now() int64 { return int64(time.Since(r.base)) }

// Spec returns what is run, with its defaults.
func (r *Run) Spec() Spec { return r.spec }

// Start checks a spec and opens its connections.
func Start(ctx context.Context, s Spec, o Options) (*Run, error) {
	s = s.withDefaults()
	if err := s.check(); err != nil {
		return nil, err
	}
	r := &Run{spec: s, progress: o.Progress, closed: s.Schedule.Shape == Closed, messages: newMessages(&s),
		dialer: o.dial, sleep: o.sleep, base: time.Now(), connectFields: s.Target.connectFields()}
	var err error
	if r.tls, err = s.Target.clientTLS(); err != nil {
		return nil, err
	}
	if r.dialer == nil {
		d := &net.Dialer{Timeout: connectTime}
		r.dialer = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
		if err := r.resolve(ctx); err != nil {
			return nil, err
		}
		if r.loops, err = wire.NewLoops(s.Workers, nil); err != nil {
			return nil, err
		}
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.arrange()
	r.queue = cmp.Or(o.queue, maxQueue) / len(r.workers)
	if err := r.connect(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// resolve refuses a target that is elsewhere before anything is sent to it.
func (r *Run) resolve(ctx context.Context) error {
	t := &r.spec.Target
	host, _, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("target %s: %w", t.Addr, err)
	}
	return t.local(addrs)
}

// arrange gives each worker its connections. Tunnels of one mesh connection have
// the same worker.
func (r *Run) arrange() {
	s := &r.spec
	for i := range s.Workers {
		r.workers = append(r.workers, &worker{run: r, id: i, kinds: newChooser(s.Mix, newRandom(s.Seed+1, i)), rec: newRecord(s)})
	}
	var meshes []*mesh
	for range s.Mesh {
		meshes = append(meshes, &mesh{run: r})
	}
	for i := range s.Connections {
		at := i
		l := &link{id: i}
		if s.Mesh > 0 {
			at = i % s.Mesh
			l.mesh = meshes[at]
		}
		w := r.workers[at%len(r.workers)]
		l.worker = w
		for n := range s.Streams {
			l.slots = append(l.slots, &slot{link: l, at: n})
		}
		w.links = append(w.links, l)
	}
}

// connect opens all connections, some at a time, up to the first error.
func (r *Run) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *link)
	var wg sync.WaitGroup
	for range min(dials, r.spec.Connections) {
		wg.Go(func() {
			for l := range queue {
				if err := l.connect(ctx); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, l := range r.links() {
		select {
		case queue <- l:
		case <-ctx.Done():
		}
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}

// links are all connections, workers taking turns, so that event loops share them
// as workers do.
func (r *Run) links() (all []*link) {
	for i := 0; len(all) < r.spec.Connections; i++ {
		for _, w := range r.workers {
			if i < len(w.links) {
				all = append(all, w.links[i])
			}
		}
	}
	return all
}

// Close ends all connections.
func (r *Run) Close() {
	r.going.Store(false)
	r.cancel()
	r.tasks.Wait()
	r.loops.Close()
}

// A window is the times of one measurement, ns since the run's base.
type window struct{ start, from, end int64 }

// Measure makes the spec's load once: its warm-up, the time that counts, and
// what is left of it afterwards.
func (r *Run) Measure(ctx context.Context) (*Result, error) {
	b, err := r.gather(ctx)
	if err != nil {
		return nil, err
	}
	return b.result()
}

func (r *Run) gather(ctx context.Context) (*book, error) {
	s := &r.spec
	b := &book{run: r, total: newRecord(s), second: newRecord(s), empty: newRecord(s)}
	for i, w := range r.workers {
		w.swap(newRecord(s))
		w.mu.Lock()
		w.budget, w.paced = 1<<62, false
		if s.Requests > 0 {
			w.budget = share(s.Requests, s.Workers, i)
		}
		w.mu.Unlock()
	}
	at := r.now()
	b.window = window{at, at + int64(s.Warm), at + int64(s.Warm) + int64(s.For)}
	r.counts.Store(b.window.from)
	r.working.Store(true)
	r.going.Store(true)
	defer r.working.Store(false)
	var pacers sync.WaitGroup
	for _, w := range r.workers {
		if r.closed {
			w.kick()
			continue
		}
		pacers.Go(func() { w.pace(b.window) })
	}
	err := r.work(ctx, b)
	r.going.Store(false)
	r.given.Store(err != nil)
	pacers.Wait()
	if err == nil {
		err = r.drain(ctx, b)
	}
	return b, err
}

// work keeps the book until the window is over, or all requests that there may
// be have been made.
func (r *Run) work(ctx context.Context, b *book) error {
	for {
		now := r.now()
		if err := b.keep(now); err != nil {
			return err
		}
		switch {
		case now >= b.window.end:
			return b.close(now, false)
		case r.spec.Requests > 0 && r.spent():
			return b.close(now, true)
		}
		next := min(int64(look), b.window.end-now)
		if now < b.window.from {
			next = min(next, b.window.from-now)
		}
		if err := sleep(ctx, time.Duration(next)); err != nil {
			return err
		}
		for _, w := range r.workers {
			w.expire(false)
		}
	}
}

// spent reports whether a closed loop has made all its requests, or an open one's
// pacers have ended and all is answered.
func (r *Run) spent() bool {
	for _, w := range r.workers {
		w.mu.Lock()
		over := w.busy == 0 && w.queue.len() == 0 && (w.budget == 0 || !r.closed && w.paced)
		w.mu.Unlock()
		if !over {
			return false
		}
	}
	return true
}

// drain waits for what is on its way when the window is over: it counts.
func (r *Run) drain(ctx context.Context, b *book) error {
	tick := time.NewTicker(look / 10)
	defer tick.Stop()
	for n, until := 0, r.now()+int64(r.spec.Timeout)+int64(time.Second); ; n++ {
		left := 0
		for _, w := range r.workers {
			left += w.rest()
		}
		if left == 0 {
			break
		}
		over := r.now() > until
		if n%10 == 9 || over {
			for _, w := range r.workers {
				w.expire(over)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	b.sweep()
	return nil
}

// pace sends a worker's requests when they are due, up to the end of a window.
func (w *worker) pace(b window) {
	sleep, end := w.run.sleep, func() {}
	if sleep == nil {
		sleep, end = preciseSleep()
	}
	defer end()
	a := newArrivals(&w.run.spec, time.Duration(b.end-b.start), w.id)
	next, more := a.next()
	for more && !w.run.given.Load() { // what is due is sent, however late
		due := b.start + int64(next)
		if due >= b.end {
			break
		}
		if d := due - w.run.now(); d > 0 {
			sleep(min(time.Duration(d), nap))
			continue
		}
		var t turn.Turn
		for n := 0; n < together && more && due < b.end && due <= w.run.now(); n++ {
			w.dispatch(&t, due)
			next, more = a.next()
			due = b.start + int64(next)
		}
		t.End()
	}
	w.mu.Lock()
	w.paced = true
	w.mu.Unlock()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Do makes one run from its connections to its result.
func Do(ctx context.Context, s Spec, o Options) (*Result, error) {
	r, err := Start(ctx, s, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Measure(ctx)
}

var errNothing = errors.New("no request began in the time that counts: it is too short, or the rate too low")
