package filters

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
)

type bucket struct{ closed *int }

func (b *bucket) Close() error { *b.closed++; return nil }

// A sharer holds a bucket under its object's name.
type sharer struct{ b *bucket }

func (*sharer) Request(*Stream) *Reply { return nil }

func sharing(built, closed *int) Kind {
	return Kind{Name: "sharer", New: func(b *Builder, spec Spec) (Filter, error) {
		v := struct {
			Fail bool `json:"fail"`
		}{}
		shared, err := Share(b, b.Object(), func() (*bucket, error) { *built++; return &bucket{closed}, nil })
		if err != nil {
			return nil, err
		}
		NewSlot[int](b)
		if err := spec.Decode(&v); err != nil {
			return nil, err
		}
		if v.Fail {
			return nil, errors.New("as asked")
		}
		b.Counter("made").Add(1)
		return &sharer{shared}, nil
	}}
}

func TestSharedStateOutlivesAChain(t *testing.T) {
	var built, closed int
	env := Env{Registry: NewRegistry(sharing(&built, &closed)), Shared: new(refpool.Pool), Metrics: new(metrics.Registry)}
	chain := func() *Chain {
		b := NewBuilder(env)
		if err := b.Add("sharer", "o", Spec{}); err != nil {
			t.Fatal(err)
		}
		c, err := b.Chain()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := chain()
	second := chain()
	first.Close()
	if built != 1 || closed != 0 {
		t.Fatalf("built %d, closed %d while held", built, closed)
	}
	second.Close()
	second.Close()
	if closed != 1 || env.Shared.Len() != 0 {
		t.Fatalf("closed %d, %d keys left", closed, env.Shared.Len())
	}
	var made uint64
	env.Metrics.Each(func(s *metrics.Series) {
		if s.Name == "waypoint_filter_made_total" && slices.Equal(s.Labels, []metrics.Label{{Name: "kind", Value: "sharer"}, {Name: "object", Value: "o"}}) {
			made = s.Counter.Value()
		}
	})
	if made != 2 {
		t.Errorf("the counter has %d, want 2: it must outlive a chain", made)
	}
}

func TestFailedAddLeavesNothing(t *testing.T) {
	var built, closed int
	b := NewBuilder(Env{Registry: NewRegistry(sharing(&built, &closed))})
	if err := b.Add("sharer", "good", Spec{}); err != nil {
		t.Fatal(err)
	}
	err := b.Add("sharer", "bad", NewSpec(map[string]any{"fail": true}))
	if err == nil || !strings.Contains(err.Error(), "filter sharer: as asked") {
		t.Errorf("got %v", err)
	}
	if closed != 1 || b.slots != 1 {
		t.Errorf("closed %d, slots %d, want 1 and 1", closed, b.slots)
	}
	if err := b.Add("nonesuch", "o", Spec{}); err == nil || !strings.Contains(err.Error(), `["sharer"]`) {
		t.Errorf("an unknown kind: %v", err)
	}
	if err := b.Discard(); err != nil || closed != 2 {
		t.Errorf("Discard: %v, closed %d, want 2", err, closed)
	}
}

func TestTooManySlots(t *testing.T) {
	kind := Kind{Name: "greedy", New: func(b *Builder, _ Spec) (Filter, error) {
		for range MaxFilters {
			NewSlot[int](b)
		}
		return &slotted{}, nil
	}}
	b := NewBuilder(Env{Registry: NewRegistry(kind)})
	if err := b.Add("greedy", "o", Spec{}); err != nil {
		t.Errorf("within the limit: %v", err)
	}
	if err := b.Add("greedy", "o", Spec{}); err == nil {
		t.Error("beyond the limit: no error")
	}
}

func TestChainOfAPhaselessFilter(t *testing.T) {
	b := NewBuilder(Env{Registry: NewRegistry(Kind{Name: "n", New: func(*Builder, Spec) (Filter, error) { return 1, nil }})})
	b.Add("n", "o", Spec{})
	if _, err := b.Chain(); err == nil {
		t.Error("no error")
	}
}

func TestRegistryPanicsOnBugs(t *testing.T) {
	f := func(*Builder, Spec) (Filter, error) { return nil, nil }
	for name, kinds := range map[string][]Kind{
		"twice": {{"a", f}, {"a", f}}, "nameless": {{"", f}}, "empty": {{"a", nil}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			NewRegistry(kinds...)
		}()
	}
	if got := NewRegistry(Kind{"b", f}, Kind{"a", f}).Names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
}

func TestBackendPort(t *testing.T) {
	if _, err := NewBuilder(Env{}).Backend("x"); err == nil {
		t.Error("a backend where there are none")
	}
	boom := errors.New("boom")
	b := NewBuilder(Env{Backend: func(name string) (Backend, error) { return nil, boom }})
	if _, err := b.Backend("x"); err != boom {
		t.Errorf("got %v", err)
	}
}
