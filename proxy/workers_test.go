package proxy

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWorkersBound: as many run at once as there are workers, the rest waits,
// all of it runs, and the workers end with the pool.
func TestWorkersBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, jobs = 4, 100
		w := newWorkers(most)
		var now, peak, ran atomic.Int64
		for range jobs {
			w.submit(func() {
				if n := now.Add(1); n > peak.Load() {
					peak.Store(n)
				}
				time.Sleep(time.Second)
				now.Add(-1)
				ran.Add(1)
			})
		}
		synctest.Wait()
		if got := w.queued.Load(); got != jobs-most {
			t.Errorf("%d queued, want %d", got, jobs-most)
		}
		pass(time.Hour)
		if ran.Load() != jobs || peak.Load() != most {
			t.Errorf("%d ran, %d at once, want %d, %d", ran.Load(), peak.Load(), jobs, most)
		}
		w.close()
		synctest.Wait()
		if w.n != 0 {
			t.Errorf("%d workers after the end", w.n)
		}
	})
}

// TestWorkersReuse: a worker that waits is used before another is started.
func TestWorkersReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(8)
		defer w.close()
		for range 50 {
			w.submit(func() {})
			synctest.Wait()
		}
		if w.n != 1 {
			t.Errorf("%d workers for one job at a time", w.n)
		}
	})
}

// TestWorkersLoseNothing: submitted from everywhere, with workers that come and
// go to sleep, every job runs. A lost wake-up would hang the bubble.
func TestWorkersLoseNothing(t *testing.T) {
	w := newWorkers(3)
	var all, senders sync.WaitGroup
	all.Add(8 * 2000)
	for range 8 {
		senders.Go(func() {
			for range 2000 {
				w.submit(all.Done)
			}
		})
	}
	senders.Wait()
	all.Wait()
	w.close()
}

// TestWorkersCloseRunsTheRest: what was submitted is done, also after close.
func TestWorkersCloseRunsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(1)
		var ran atomic.Int64
		for range 5 {
			w.submit(func() { time.Sleep(time.Second); ran.Add(1) })
		}
		w.close()
		w.submit(func() { ran.Add(1) })
		pass(time.Minute)
		if ran.Load() != 6 || w.n != 0 {
			t.Errorf("%d of 6 ran, %d workers are left", ran.Load(), w.n)
		}
	})
}
