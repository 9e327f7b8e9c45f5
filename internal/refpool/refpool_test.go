package refpool

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

type thing struct{ closed atomic.Int32 }

func (t *thing) Close() error { t.closed.Add(1); return errors.New("told by close") }

type other struct{}

func (other) Close() error { return nil }

func TestValueLivesWhileHeld(t *testing.T) {
	var p Pool
	built := 0
	build := func() (*thing, error) { built++; return new(thing), nil }
	a, ra, err := Get(&p, "k", build)
	if err != nil {
		t.Fatal(err)
	}
	b, rb, _ := Get(&p, "k", build)
	if a != b || built != 1 {
		t.Fatalf("same value %v, built %d times", a == b, built)
	}
	if err := ra.Close(); err != nil || a.closed.Load() != 0 {
		t.Fatalf("closed while held: %v", err)
	}
	ra.Close() // a second time does not count
	if a.closed.Load() != 0 {
		t.Fatal("a hold was given up twice")
	}
	if err := rb.Close(); err == nil || a.closed.Load() != 1 {
		t.Fatalf("last hold gone: closed %d times, %v", a.closed.Load(), err)
	}
	if p.Len() != 0 {
		t.Fatalf("%d keys left", p.Len())
	}
	c, rc, _ := Get(&p, "k", build)
	if c == a || built != 2 {
		t.Fatal("a closed value came back")
	}
	rc.Close()
}

func TestFailedBuildIsNotRemembered(t *testing.T) {
	var p Pool
	boom := errors.New("boom")
	_, _, err := Get(&p, "k", func() (*thing, error) { return nil, boom })
	if !errors.Is(err, boom) || p.Len() != 0 {
		t.Fatalf("%v, %d keys", err, p.Len())
	}
	_, r, err := Get(&p, "k", func() (*thing, error) { return new(thing), nil })
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestAnotherTypeUnderTheKey(t *testing.T) {
	var p Pool
	v, r, _ := Get(&p, "k", func() (*thing, error) { return new(thing), nil })
	if _, _, err := Get(&p, "k", func() (other, error) { return other{}, nil }); err == nil {
		t.Fatal("got a value of the wrong type")
	}
	if v.closed.Load() != 0 {
		t.Fatal("the failed Get closed the value")
	}
	r.Close()
}

func TestPanickingBuildReleasesWhoWaits(t *testing.T) {
	var p Pool
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		Get(&p, "k", func() (io.Closer, error) { panic("bug") })
	}()
	if p.Len() != 0 {
		t.Fatalf("%d keys left", p.Len())
	}
}

func TestManyAtOnce(t *testing.T) {
	var p Pool
	var built, closed atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				v, r, err := Get(&p, "k", func() (*thing, error) { built.Add(1); return new(thing), nil })
				if err != nil {
					t.Error(err)
					return
				}
				if v.closed.Load() != 0 {
					t.Error("held and closed")
				}
				if r.Close(); v.closed.Load() == 1 {
					closed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if p.Len() != 0 || closed.Load() < built.Load() {
		t.Fatalf("%d keys left, %d built, %d closed", p.Len(), built.Load(), closed.Load())
	}
}
