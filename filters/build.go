package filters

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
)

// A Kind is a sort of filter that configuration may name.
type Kind struct {
	Name string
	New  func(b *Builder, spec Spec) (Filter, error) // Spec decodes strictly
}

// A Registry says which kinds a binary contains. It is immutable.
type Registry struct{ kinds map[string]Kind }

// NewRegistry panics if two kinds share a name: that is a bug in main.
func NewRegistry(kinds ...Kind) Registry {
	r := Registry{make(map[string]Kind, len(kinds))}
	for _, k := range kinds {
		if _, ok := r.kinds[k.Name]; ok || k.Name == "" || k.New == nil {
			panic(fmt.Sprintf("filter kind %q is registered twice, or is incomplete", k.Name))
		}
		r.kinds[k.Name] = k
	}
	return r
}

// Names returns the kinds' names, sorted.
func (r Registry) Names() []string {
	names := make([]string, 0, len(r.kinds))
	for n := range r.kinds {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// An Env is what a chain's filters may reach while they are built.
type Env struct {
	Level    Level
	Registry Registry
	Shared   *refpool.Pool
	Metrics  *metrics.Registry
	Backend  func(name string) (Backend, error) // nil: there are none
	Warming  *Warming                           // nil: nobody waits
}

// A Builder puts one chain together: Add in order, then Chain or Discard.
type Builder struct {
	env          Env
	kind, object string // what is being built
	list         []Filter
	names        []Name
	slots        int
	held         []io.Closer
}

// NewBuilder returns a Builder for one chain. Shared and Metrics default to
// ones of its own.
func NewBuilder(env Env) *Builder {
	if env.Shared == nil {
		env.Shared = new(refpool.Pool)
	}
	if env.Metrics == nil {
		env.Metrics = new(metrics.Registry)
	}
	return &Builder{env: env}
}

// Add builds the next filter, of that kind, for the object of the document that
// asks for it. After an error the Builder is as it was before.
func (b *Builder) Add(kind, object string, spec Spec) error {
	k, ok := b.env.Registry.kinds[kind]
	if !ok {
		return fmt.Errorf("no filter kind %q in this binary, it has %q", kind, b.env.Registry.Names())
	}
	b.kind, b.object = kind, object
	slots, held := b.slots, len(b.held)
	f, err := k.New(b, spec)
	if err == nil && b.slots > MaxFilters {
		err = fmt.Errorf("the chain keeps %d values per stream, at most %d are possible", b.slots, MaxFilters)
	}
	if err != nil {
		b.slots = slots
		return errors.Join(fmt.Errorf("filter %s: %w", kind, err), b.release(held))
	}
	b.list = append(b.list, f)
	b.names = append(b.names, Name{kind, object})
	return nil
}

// Chain returns the chain, which now owns what the filters share.
func (b *Builder) Chain() (*Chain, error) {
	c, err := NewChain(b.env.Level, b.list...)
	if err != nil {
		return nil, errors.Join(err, b.Discard())
	}
	c.slots, c.held, c.names = uint8(b.slots), b.held, b.names
	b.held = nil
	return c, nil
}

// Discard gives up what was built.
func (b *Builder) Discard() error { return b.release(0) }

func (b *Builder) release(from int) error {
	var errs []error
	for _, h := range b.held[from:] {
		errs = append(errs, h.Close())
	}
	b.held = b.held[:from]
	return errors.Join(errs...)
}

// Object is the name of the document's object that the filter is built for.
func (b *Builder) Object() string { return b.object }

// Counter returns a counter of the filter: waypoint_filter_<name>_total with
// the labels kind and object. Built again it is the same counter.
func (b *Builder) Counter(name string) *metrics.Counter {
	return b.env.Metrics.Counter("waypoint_filter_"+name+"_total", "",
		metrics.Label{Name: "kind", Value: b.kind}, metrics.Label{Name: "object", Value: b.object})
}

// Backend returns a way to call out to a backend of the document.
func (b *Builder) Backend(name string) (Backend, error) {
	if b.env.Backend == nil {
		return nil, fmt.Errorf("backend %q: filters have no backends here", name)
	}
	return b.env.Backend(name)
}

// Share returns what other filters of the same kind built with the same key
// already hold, or builds it. This is the only way for state (buckets, key sets,
// Wasm machines) to outlive a snapshot; it is closed when the last snapshot
// using it is gone.
func Share[T io.Closer](b *Builder, key string, build func() (T, error)) (T, error) {
	v, ref, err := refpool.Get(b.env.Shared, b.kind+"\x00"+key, build)
	if err != nil {
		var zero T
		return zero, err
	}
	b.held = append(b.held, ref)
	return v, nil
}
