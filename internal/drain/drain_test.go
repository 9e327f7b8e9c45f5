package drain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// work is told of draining and does what its function says.
type work struct {
	tok  Token
	told int
	then func()
}

func (w *work) Draining() {
	w.told++
	if w.then != nil {
		w.then()
	}
}

func TestWaitForTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Drain
		var a, b Token
		for _, tok := range []*Token{&a, &b} {
			if d.Hold(tok, "tunnel", nil) {
				t.Error("Hold says that draining has begun")
			}
		}
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			a.Release()
			a.Release() // does nothing
			time.Sleep(time.Second)
			b.Release()
		}()
		if err := d.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("waited %v, want 2s: until the last token is released", took)
		}
		if err := d.Wait(t.Context()); err != nil {
			t.Errorf("a second wait: %v", err)
		}
	})
}

func TestNothingHeld(t *testing.T) {
	var d Drain
	if d.Begun() {
		t.Error("draining has begun by itself")
	}
	if err := d.Wait(t.Context()); err != nil || !d.Begun() {
		t.Errorf("wait: %v, begun %v; want nil, true", err, d.Begun())
	}
}

// What is not released in time is named.
func TestWaitEnds(t *testing.T) {
	var d Drain
	var toks [4]Token
	d.Hold(&toks[0], "tunnel", nil)
	d.Hold(&toks[1], "dial", nil)
	d.Hold(&toks[2], "dial", nil)
	d.Hold(&toks[3], "request", nil)
	toks[3].Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := d.Wait(ctx)
	want := "drain: still under way: 2 dials, 1 tunnel: context canceled"
	if err == nil || err.Error() != want || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %s", err, want)
	}
	if got, want := d.Counts(), map[string]int{"dial": 2, "tunnel": 1}; !maps.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	for i := range toks {
		toks[i].Release()
	}
	if err := d.Wait(t.Context()); err != nil {
		t.Errorf("after all were released: %v", err)
	}
}

func TestWatch(t *testing.T) {
	var d Drain
	var told, released, takes, taken, late work
	d.Hold(&told.tok, "told", &told)
	d.Hold(&released.tok, "released", &released)
	released.tok.Release()
	d.Hold(&takes.tok, "takes", &takes)
	d.Hold(&taken.tok, "taken", &taken)
	takes.then = func() { taken.tok.Release(); takes.tok.Release() } // before its turn came
	told.then = func() {
		if !d.Hold(&late.tok, "late", &late) {
			t.Error("Hold while draining does not say so")
		}
	}
	d.Begin()
	d.Begin()
	for _, tc := range []struct {
		name string
		w    *work
		want int
	}{{"told", &told, 1}, {"released", &released, 0}, {"takes", &takes, 1}, {"taken", &taken, 0}, {"late", &late, 0}} {
		if tc.w.told != tc.want {
			t.Errorf("%s was told %d times, want %d", tc.name, tc.w.told, tc.want)
		}
	}
	if got, want := d.String(), "1 late, 1 told"; got != want {
		t.Errorf("held: %s; want %s", got, want)
	}
}

func TestHeldTwice(t *testing.T) {
	var d Drain
	var tok Token
	d.Hold(&tok, "tunnel", nil)
	defer func() {
		if recover() == nil {
			t.Error("a token was held twice and nobody was told")
		}
	}()
	d.Hold(&tok, "tunnel", nil)
}

func TestConcurrent(t *testing.T) {
	var d Drain
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 1000 {
				var tok Token
				d.Hold(&tok, fmt.Sprint(i, j%3), nil)
				tok.Release()
			}
		})
	}
	wg.Go(d.Begin)
	wg.Wait()
	if err := d.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAllocs(t *testing.T) {
	var d Drain
	w := new(work)
	if got := testing.AllocsPerRun(1000, func() {
		d.Hold(&w.tok, "tunnel", w)
		w.tok.Release()
	}); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}
