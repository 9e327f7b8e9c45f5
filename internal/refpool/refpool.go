package refpool

import (
	"fmt"
	"io"
	"sync"
)

// A Pool holds values by key. The zero value is ready.
type Pool struct {
	mu      sync.Mutex
	entries map[string]*entry
}

// An entry is a value and how many hold it. It leaves the map with its last
// holder, so a later Get of the key builds anew.
type entry struct {
	pool *Pool
	key  string

	// Guarded by Pool.mu.
	refs int

	// Set once, before built is closed.
	value io.Closer
	err   error
	built chan struct{}
}

// A Ref is one hold on a value.
type Ref struct {
	once  sync.Once
	entry *entry
}

// Get returns what others hold under key, or builds it. The value is closed
// when the last Ref to it is; who asks for the key during that Close gets a new
// value beside the dying one. A failed build is told to everyone who waited for
// it and is not remembered.
func Get[T io.Closer](p *Pool, key string, build func() (T, error)) (T, *Ref, error) {
	var zero T
	e, first := p.enter(key)
	if first {
		e.build(func() (io.Closer, error) { return build() })
	}
	<-e.built
	if e.err != nil {
		e.leave()
		return zero, nil, e.err
	}
	v, ok := e.value.(T)
	if !ok {
		held := e.value
		e.leave()
		return zero, nil, fmt.Errorf("%q is held as %T, wanted as %T", key, held, zero)
	}
	return v, &Ref{entry: e}, nil
}

// Len returns how many keys are held.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.entries)
}

func (p *Pool) enter(key string) (e *entry, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[key]; e != nil {
		e.refs++
		return e, false
	}
	if p.entries == nil {
		p.entries = map[string]*entry{}
	}
	e = &entry{pool: p, key: key, refs: 1, built: make(chan struct{})}
	p.entries[key] = e
	return e, true
}

// build fills e. A build that panics is a failed build to those who wait, so
// that they do not wait for ever.
func (e *entry) build(f func() (io.Closer, error)) {
	done := false
	defer func() {
		if !done {
			e.err = fmt.Errorf("building %q panicked", e.key)
		}
		close(e.built)
		if !done {
			e.leave()
		}
	}()
	v, err := f()
	if err == nil {
		e.value = v
	}
	e.err, done = err, true
}

func (e *entry) leave() error {
	e.pool.mu.Lock()
	e.refs--
	last := e.refs == 0
	if last {
		delete(e.pool.entries, e.key)
	}
	e.pool.mu.Unlock()
	if last && e.value != nil {
		return e.value.Close()
	}
	return nil
}

// Close gives the hold up; only the first call counts. The error is the
// value's, if this was the last hold.
func (r *Ref) Close() error {
	var err error
	r.once.Do(func() { err = r.entry.leave() })
	return err
}
