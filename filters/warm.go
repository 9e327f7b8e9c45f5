package filters

import (
	"maps"
	"slices"
	"sync"
)

// A Warming is what filters have asked a proxy to wait for before it is ready.
// Its zero value is ready.
type Warming struct {
	mu   sync.Mutex
	asks map[*warmUp]string
}

// A warmUp is one wish to be waited for.
type warmUp struct{ of *Warming }

// Close ends the wish, fulfilled or not.
func (u *warmUp) Close() error {
	u.of.mu.Lock()
	defer u.of.mu.Unlock()
	delete(u.of.asks, u)
	return nil
}

// WarmUp asks that this proxy, when it starts, is not called ready before done
// was called: a key set is still to be fetched, a plugin to be compiled. The
// words say what for, as in "key set of issuer https://idp.example". done may be
// called from any goroutine, and more than once.
//
// It is a wish with a bound: everything that filters ask for is waited for a few
// seconds together, and a proxy that was ready once asks nobody again. A filter
// that is needed before it is done answers by its own fail mode. A chain that is
// given up asks no more, so each filter of what they share asks for itself.
func (b *Builder) WarmUp(what string) (done func()) {
	w := b.env.Warming
	if w == nil {
		return func() {}
	}
	u := &warmUp{w}
	w.mu.Lock()
	if w.asks == nil {
		w.asks = make(map[*warmUp]string)
	}
	w.asks[u] = b.object + ": " + what
	w.mu.Unlock()
	b.held = append(b.held, u)
	return func() { _ = u.Close() }
}

// Pending returns what is still waited for, sorted, each once.
func (w *Warming) Pending() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Compact(slices.Sorted(maps.Values(w.asks)))
}
