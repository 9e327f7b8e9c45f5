package proxy

import (
	"sync"
	"sync/atomic"
)

// maxWorkers bounds the goroutines on which waiting filters work. A filter that
// waits for a network is quick to start and slow to end, so there are many more
// than cores.
const maxWorkers = 512

// workers runs what may not run in a turn on a bounded set of goroutines. Who
// submits never waits.
type workers struct {
	max    int
	queued atomic.Int64 // waiting for a goroutine now

	mu     sync.Mutex
	work   sync.Cond
	queue  []func()
	n      int // goroutines
	idle   int // of them waiting for work
	closed bool
}

func newWorkers(max int) *workers {
	w := &workers{max: max}
	w.work.L = &w.mu
	return w
}

// submit queues f and sees to it that somebody will run it.
func (w *workers) submit(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, f)
	w.queued.Add(1)
	switch {
	case w.idle >= len(w.queue): // each that waits is good for one
		w.work.Signal()
	case w.n < w.max:
		w.n++
		go w.run()
	}
}

// run is one worker. It stays when there is nothing to do: waking it costs less
// than starting another.
func (w *workers) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 {
			if w.closed {
				w.n--
				return
			}
			w.idle++
			w.work.Wait()
			w.idle--
		}
		f := w.queue[0]
		w.queue[0] = nil
		w.queue = w.queue[1:]
		w.queued.Add(-1)
		w.mu.Unlock()
		f()
		w.mu.Lock()
	}
}

// close lets the workers end when the queue is empty.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.work.Broadcast()
}
