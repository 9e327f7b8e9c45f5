package turn

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A thing tells in which order it was flushed and notified.
type thing struct {
	name  string
	log   *[]string
	flush func(t *Turn)
	told  func(t *Turn)
}

func (x *thing) Flush(t *Turn) {
	*x.log = append(*x.log, "flush "+x.name)
	if x.flush != nil {
		x.flush(t)
	}
}

func (x *thing) Notified(t *Turn) {
	*x.log = append(*x.log, "tell "+x.name)
	if x.told != nil {
		x.told(t)
	}
}

func TestEndRepeatsUntilNothingIsLeft(t *testing.T) {
	var log []string
	a, b := &thing{name: "a", log: &log}, &thing{name: "b", log: &log}
	a.flush = func(t *Turn) { t.Mark(b); a.flush = nil }            // a nested connection marks its carrier
	b.told = func(t *Turn) { t.Mark(a); t.Notify(a); b.told = nil } // credit came, and makes more to flush
	var tn Turn
	tn.Mark(a)
	tn.Notify(b)
	tn.End()
	want := []string{"flush a", "flush b", "tell b", "flush a", "tell a"}
	if !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
	log = nil
	tn.End()
	if len(log) != 0 {
		t.Errorf("an ended turn did %q", log)
	}
}

func TestFirstGoesBeforeWhatWasMarked(t *testing.T) {
	var log []string
	a, b := &thing{name: "a", log: &log}, &thing{name: "b", log: &log}
	b.told = func(t *Turn) { t.Mark(b); t.First(a) }
	var tn Turn
	tn.Mark(b)
	tn.First(a)
	tn.Notify(b)
	tn.End()
	tn.End()
	if want := []string{"flush a", "flush b", "tell b", "flush a", "flush b"}; !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
}

func TestEndInsideAnUpcall(t *testing.T) {
	var log []string
	a, b := &thing{name: "a", log: &log}, &thing{name: "b", log: &log}
	a.told = func(t *Turn) { t.Notify(b); t.End() }
	var tn Turn
	tn.Notify(a)
	tn.End()
	if want := []string{"tell a", "tell b"}; !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
}

func TestPanicCostsOneItemOnly(t *testing.T) {
	var log []string
	things := map[string]*thing{}
	var tn Turn
	for _, name := range []string{"a", "b", "c"} {
		x := &thing{name: name, log: &log}
		things[name] = x
		tn.Mark(x)
		tn.Notify(x)
	}
	things["b"].flush = func(*Turn) { panic("flush") }
	things["b"].told = func(*Turn) { panic("told") }
	panics := 0
	try := func() (ended bool) {
		defer func() {
			if recover() != nil {
				panics++
			}
		}()
		tn.End()
		return true
	}
	for !try() {
	}
	want := []string{"flush a", "flush b", "flush c", "tell a", "tell b", "tell c"}
	if !slices.Equal(log, want) || panics != 2 {
		t.Errorf("got %q and %d panics, want %q and 2", log, panics, want)
	}
}

func TestSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tn Turn
		for range MaxEvents - 1 {
			tn.Event()
			if tn.Spent() {
				t.Fatal("spent before its time and count")
			}
		}
		tn.Event()
		if !tn.Spent() {
			t.Error("not spent after MaxEvents")
		}
		tn.End()
		for range clockEvery {
			tn.Event()
		}
		tn.Now()
		time.Sleep(2 * MaxTime)
		if !tn.Spent() {
			t.Error("not spent after MaxTime")
		}
		tn.End()
		if tn.Spent() {
			t.Error("spent after it ended")
		}
	})
}

func TestNowIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tn Turn
		first := tn.Now()
		time.Sleep(time.Second)
		if got := tn.Now(); got != first {
			t.Errorf("the clock moved from %v to %v within a turn", first, got)
		}
		tn.End()
		if got, want := tn.Now().Sub(first), time.Second; got != want {
			t.Errorf("the next turn began after %v, want %v", got, want)
		}
	})
}

func TestTurnAllocatesNothing(t *testing.T) {
	var log []string
	x := &thing{log: &log}
	var tn Turn
	got := testing.AllocsPerRun(100, func() {
		log = log[:0]
		for range 8 {
			tn.Mark(x)
			tn.Notify(x)
		}
		tn.End()
	})
	if got > 0.1 {
		t.Errorf("%v allocations a turn, want 0", got)
	}
}

// BenchmarkEnd is what a turn costs that touched one connection.
func BenchmarkEnd(b *testing.B) {
	var tn Turn
	x := quiet{}
	for b.Loop() {
		tn.Mark(x)
		tn.Notify(x)
		tn.End()
	}
}

type quiet struct{}

func (quiet) Flush(*Turn)    {}
func (quiet) Notified(*Turn) {}

// TestTick: a tick is as good as the time it was made of.
func TestTick(t *testing.T) {
	var tr Turn
	now := tr.Now()
	k := tr.Tick()
	if k == 0 || k != TickOf(now) || !k.Time().Equal(now) {
		t.Errorf("the turn began at %v, its tick is %v", now, k.Time())
	}
	if tr.Tick() != k || !tr.Now().Equal(now) {
		t.Error("a turn's clock has moved")
	}
	if later := k.Add(time.Minute); later.Sub(k) != time.Minute || later <= k {
		t.Errorf("a minute later is %v later", later.Sub(k))
	}
	if ago := k.Ago(); ago < 0 || ago > time.Minute {
		t.Errorf("the tick was %v ago", ago)
	}
	if TickOf(time.Time{}) != 0 || !Tick(0).Time().IsZero() {
		t.Error("no time is a tick, or no tick a time")
	}
	tr.End()
	if again := tr.Tick(); again < k {
		t.Errorf("the next turn began %v before", k.Sub(again))
	}
}

// BenchmarkTick keeps the turn's clock, as an exchange does at each step, and asks
// how long ago that was.
func BenchmarkTick(b *testing.B) {
	var tr Turn
	b.Run("tick", func(b *testing.B) {
		x := new(struct{ at Tick })
		for b.Loop() {
			x.at = tr.Tick()
			took = tr.Tick().Sub(x.at)
		}
	})
	b.Run("time", func(b *testing.B) {
		x := new(struct{ at time.Time })
		for b.Loop() {
			x.at = tr.Now()
			took = tr.Now().Sub(x.at)
		}
	})
}

var took time.Duration

// TestShelf: what lies there lies there in the next turn, and only a turn that
// lasts has one.
func TestShelf(t *testing.T) {
	var passing, lasting Turn
	lasting.Last()
	if passing.Shelf() != nil || lasting.Shelf() == nil {
		t.Fatalf("a turn that passes has %v, one that lasts %v", passing.Shelf(), lasting.Shelf())
	}
	*lasting.Shelf() = "kept"
	lasting.End()
	if got := *lasting.Shelf(); got != "kept" {
		t.Errorf("the next turn finds %v", got)
	}
}

func TestFeedsNest(t *testing.T) {
	var tn Turn
	var carrier, inner Feed
	inside := func(c, i bool) {
		t.Helper()
		if tn.Inside(&carrier) != c || tn.Inside(&inner) != i {
			t.Errorf("inside carrier %v, inner %v; want %v, %v", tn.Inside(&carrier), tn.Inside(&inner), c, i)
		}
	}
	inside(false, false)
	tn.Enter(&carrier)
	inside(true, false)
	tn.Enter(&inner)
	inside(false, true)
	tn.Leave(&inner)
	inside(true, false)
	tn.Leave(&carrier)
	inside(false, false)
}

// lateFunc is a step.
type lateFunc func(t *Turn)

func (f lateFunc) Late(t *Turn)   { f(t) }
func (lateFunc) Broke(*Turn, any) {}

// What is put off is done once, in order, behind the outermost feed; a step may put
// off another.
func TestLaterComesBehindTheOutermostFeed(t *testing.T) {
	var tn Turn
	var carrier, inner Feed
	var log []string
	step := func(name string) lateFunc { return func(*Turn) { log = append(log, name) } }
	tn.Enter(&carrier)
	tn.Later(lateFunc(func(tn *Turn) {
		log = append(log, "a")
		if tn.Feeding() || !tn.CatchingUp() {
			t.Errorf("a step is in a feed: %v; catching up: %v", tn.Feeding(), tn.CatchingUp())
		}
		tn.Later(step("c"))
	}))
	tn.Enter(&inner)
	tn.Later(step("b"))
	tn.Leave(&inner)
	if !tn.Feeding() || tn.CatchingUp() || log != nil {
		t.Errorf("behind the inner feed: feeding %v, catching up %v, done %q", tn.Feeding(), tn.CatchingUp(), log)
	}
	tn.Leave(&carrier)
	if want := []string{"a", "b", "c"}; !slices.Equal(log, want) || tn.Feeding() || tn.CatchingUp() {
		t.Errorf("done %q, want %q; feeding %v, catching up %v", log, want, tn.Feeding(), tn.CatchingUp())
	}
	log = nil
	tn.Enter(&carrier)
	tn.Leave(&carrier)
	if log != nil {
		t.Errorf("the next feed did %q again", log)
	}
}

// A broken step is told of it, with what it panicked with, and the next goes on.
type brokenStep struct {
	next lateFunc
	got  *any
}

func (b brokenStep) Late(tn *Turn)        { tn.Later(b.next); panic("step") }
func (b brokenStep) Broke(_ *Turn, v any) { *b.got = v }

func TestCatchUpGoesOnBehindAPanic(t *testing.T) {
	var tn Turn
	var f Feed
	var got any
	done := 0
	count := lateFunc(func(*Turn) { done++ })
	tn.Enter(&f)
	tn.Later(count)
	tn.Later(brokenStep{count, &got})
	tn.Later(count)
	tn.Leave(&f)
	if done != 3 || got != "step" || tn.CatchingUp() {
		t.Errorf("%d steps done, want 3; Broke heard %v; catching up %v", done, got, tn.CatchingUp())
	}
}

func TestScratch(t *testing.T) {
	var tn Turn
	if tn.Scratch(1) != nil {
		t.Error("a turn that does not last keeps something")
	}
	tn.Last()
	if tn.Scratch(scratchSize+1) != nil {
		t.Error("more than it keeps")
	}
	b := tn.Scratch(scratchSize)
	if len(b) != 0 || cap(b) < scratchSize {
		t.Fatalf("%d bytes of %d, want room for %d", len(b), cap(b), scratchSize)
	}
	if got := testing.AllocsPerRun(10, func() { b = tn.Scratch(100) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
