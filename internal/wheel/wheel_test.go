package wheel

import (
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	for end := time.Now().Add(5 * time.Second); code == 0 && runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) { // one that has closed done may take a moment to go
			println("goroutines left:", runtime.NumGoroutine()-before)
			code = 1
		}
	}
	os.Exit(code)
}

// An alarm remembers when it was told.
type alarm struct {
	tm    Timer
	mu    sync.Mutex
	fired []time.Time
	then  func(t *turn.Turn, tm *Timer)
}

func (a *alarm) Expired(t *turn.Turn, tm *Timer) {
	a.mu.Lock()
	a.fired = append(a.fired, time.Now())
	a.mu.Unlock()
	if a.then != nil {
		a.then(t, tm)
	}
}

func (a *alarm) times() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fired
}

// bubble runs f in fake time with a wheel that has started.
func bubble(t *testing.T, f func(t *testing.T, w *Wheel)) {
	synctest.Test(t, func(t *testing.T) {
		w := New()
		w.Start()
		defer w.Close()
		f(t, w)
	})
}

// A timer fires once, never early, and at most two ticks late.
func TestSet(t *testing.T) {
	for _, d := range []time.Duration{
		-time.Second, 0, 1, 9 * time.Millisecond, 10 * time.Millisecond, 11 * time.Millisecond,
		630 * time.Millisecond, 640 * time.Millisecond, 650 * time.Millisecond, // a level's end
		40960 * time.Millisecond, 40970 * time.Millisecond, time.Hour, 46 * time.Hour, 100 * time.Hour,
	} {
		for _, offset := range []time.Duration{0, 3 * time.Millisecond, 7 * time.Hour} {
			bubble(t, func(t *testing.T, w *Wheel) {
				time.Sleep(offset)
				start := time.Now()
				var a alarm
				w.Set(&a.tm, &a, d)
				time.Sleep(max(d, 0) + time.Second)
				synctest.Wait()
				got := a.times()
				if len(got) != 1 {
					t.Fatalf("%v after %v: fired %d times, want 1", d, offset, len(got))
				}
				if took := got[0].Sub(start); took < d || took > max(d, 0)+2*Tick {
					t.Errorf("%v after %v: fired after %v", d, offset, took)
				}
			})
		}
	}
}

func TestStopAndMove(t *testing.T) {
	bubble(t, func(t *testing.T, w *Wheel) {
		var stopped, later, sooner, idle alarm
		start := time.Now()
		w.Set(&stopped.tm, &stopped, time.Second)
		w.Set(&later.tm, &later, time.Second)
		w.Set(&sooner.tm, &sooner, time.Hour)
		w.Stop(&idle.tm)
		time.Sleep(500 * time.Millisecond)
		w.Stop(&stopped.tm)
		w.Stop(&stopped.tm)
		w.Set(&later.tm, &later, 2*time.Second)
		w.Set(&sooner.tm, &sooner, 100*time.Millisecond) // while the wheel sleeps for longer
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(stopped.times()); n != 0 {
			t.Errorf("a stopped timer fired %d times", n)
		}
		for _, tc := range []struct {
			name string
			a    *alarm
			want time.Duration
		}{{"later", &later, 2500 * time.Millisecond}, {"sooner", &sooner, 600 * time.Millisecond}} {
			got := tc.a.times()
			if len(got) != 1 || got[0].Sub(start) < tc.want || got[0].Sub(start) > tc.want+2*Tick {
				t.Errorf("%s fired at %v of start %v, want once after %v", tc.name, got, start, tc.want)
			}
		}
	})
}

// An owner sets its timer again from Expired; a second one is stopped by the
// first though both are due.
func TestFromExpired(t *testing.T) {
	bubble(t, func(t *testing.T, w *Wheel) {
		var every, victim, killer alarm
		every.then = func(_ *turn.Turn, tm *Timer) { w.Set(tm, &every, time.Second) }
		killer.then = func(*turn.Turn, *Timer) { w.Stop(&victim.tm) }
		w.Set(&every.tm, &every, time.Second)
		w.Set(&killer.tm, &killer, time.Second)
		w.Set(&victim.tm, &victim, time.Second)
		time.Sleep(time.Minute)
		w.Stop(&every.tm)
		if n := len(every.times()); n < 58 || n > 60 {
			t.Errorf("fired %d times in a minute, want one a second", n)
		}
		if n := len(victim.times()); n != 0 {
			t.Errorf("a timer stopped in its own tick fired %d times", n)
		}
	})
}

// A flusher counts how often a turn of the wheel flushed it.
type flusher struct{ n int }

func (f *flusher) Flush(*turn.Turn) { f.n++ }

// What owners mark is flushed before the wheel sleeps again.
func TestTurnEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *Wheel) {
		var a alarm
		var f flusher
		a.then = func(tn *turn.Turn, _ *Timer) { tn.Mark(&f) }
		w.Set(&a.tm, &a, time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f.n != 1 {
			t.Errorf("flushed %d times, want 1", f.n)
		}
	})
}

// A wheel with no timer set does not wake up to look.
func TestSleepsWhenEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New()
		w.Start()
		var a alarm
		w.Set(&a.tm, &a, time.Second)
		w.Stop(&a.tm)
		time.Sleep(time.Second) // the wheel looks once more
		synctest.Wait()
		w.mu.Lock()
		until := w.until
		w.mu.Unlock()
		if until != noTick {
			t.Errorf("an empty wheel sleeps until tick %d, want no tick", until)
		}
		w.Close()
	})
}

// A closed wheel is silent; one that never started closes all the same.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New()
		w.Start()
		w.Start()
		var a alarm
		w.Set(&a.tm, &a, time.Second)
		w.Close()
		w.Set(&a.tm, &a, time.Second)
		time.Sleep(time.Minute)
		if n := len(a.times()); n != 0 {
			t.Errorf("fired %d times after Close", n)
		}
		New().Close()
	})
}

// The slow twin of the wheel is a list of deadlines.
func TestAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	bubble(t, func(t *testing.T, w *Wheel) {
		const n = 300
		alarms := make([]alarm, n)
		due := make([]time.Time, n)
		fired := make([]int, n)
		check := func() {
			synctest.Wait()
			now := time.Now()
			for i := range alarms {
				got := len(alarms[i].times())
				if due[i].IsZero() && got != fired[i] {
					t.Fatalf("timer %d fired while idle", i)
				}
				if due[i].IsZero() {
					continue
				}
				switch {
				case got == fired[i] && now.After(due[i].Add(2*Tick)):
					t.Fatalf("timer %d was due %v ago and has not fired", i, now.Sub(due[i]))
				case got > fired[i] && now.Before(due[i]):
					t.Fatalf("timer %d fired %v early", i, due[i].Sub(now))
				case got > fired[i]:
					fired[i], due[i] = got, time.Time{}
				}
			}
		}
		for range 3000 {
			i := r.IntN(n)
			if r.IntN(4) == 0 {
				w.Stop(&alarms[i].tm)
				due[i] = time.Time{}
			} else {
				d := time.Duration(r.Int64N(int64(time.Millisecond) << r.IntN(24)))
				w.Set(&alarms[i].tm, &alarms[i], d)
				due[i] = time.Now().Add(d)
			}
			check()
			time.Sleep(time.Duration(r.Int64N(int64(time.Millisecond) << r.IntN(14))))
			check()
		}
	})
}

// Set and Stop from many goroutines, in real time, for the race detector.
func TestConcurrent(t *testing.T) {
	w := New()
	w.Start()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var as [8]alarm
			for i := range 2000 {
				a := &as[i%len(as)]
				w.Set(&a.tm, a, time.Duration(i%30)*time.Millisecond)
				if i%3 == 0 {
					w.Stop(&a.tm)
				}
			}
			for i := range as {
				w.Stop(&as[i].tm)
			}
		})
	}
	wg.Wait()
	w.Close()
}

func TestAllocs(t *testing.T) {
	w := New()
	var a alarm
	if got := testing.AllocsPerRun(1000, func() {
		w.Set(&a.tm, &a, time.Minute)
		w.Set(&a.tm, &a, time.Second)
		w.Stop(&a.tm)
	}); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

func BenchmarkSetStop(b *testing.B) {
	w := New()
	as := make([]alarm, 1000)
	for i := 0; b.Loop(); i++ {
		a := &as[i%len(as)]
		w.Set(&a.tm, a, 15*time.Second)
		if i%2 == 0 {
			w.Stop(&a.tm)
		}
	}
}
