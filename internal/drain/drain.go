package drain

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A Watcher learns that draining has begun. It says so to whom it concerns, for
// example with a GOAWAY, and does not wait for anything.
type Watcher interface{ Draining() }

// A Token delays the end of draining while it is held. Its zero value is not
// held.
type Token struct {
	// Guarded by the Drain's mu.
	d          *Drain // nil while not held
	next, prev *Token // in the ring of those who watch; nil if it does not, or was told
	watcher    Watcher
	name       string
}

// A Drain counts what is under way, by name. Its zero value is ready.
type Drain struct {
	mu     sync.Mutex
	held   int
	counts map[string]int
	ring   Token // head of the tokens whose watcher has not been told
	begun  bool
	over   chan struct{} // closed when draining has begun and nothing is held; made by the first Wait
}

// Hold delays the end of draining until Release. The name says what kind of work
// it is. If w is not nil it is told when draining begins, unless the token was
// released before. Hold reports whether draining has begun already: then w is
// not told, and the work has to finish by itself.
func (d *Drain) Hold(tok *Token, name string, w Watcher) (draining bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if tok.d != nil {
		panic("drain: token is held already, as " + tok.name)
	}
	if d.counts == nil {
		d.counts = make(map[string]int)
		d.ring.next, d.ring.prev = &d.ring, &d.ring
	}
	tok.d, tok.name = d, name
	d.held++
	d.counts[name]++
	if w != nil && !d.begun {
		tok.watcher = w
		tok.next, tok.prev = &d.ring, d.ring.prev
		tok.prev.next, tok.next.prev = tok, tok
	}
	return d.begun
}

// Release ends the delay. To release a token that is not held does nothing, so
// that every end of the work may do it. It belongs to the work's owner: Release
// and Hold of one token do not overlap.
func (tok *Token) Release() {
	d := tok.d
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	tok.unlink()
	d.held--
	d.counts[tok.name]--
	tok.d = nil
	if d.held == 0 && d.begun && d.over != nil {
		d.end()
	}
}

// unlink is called with mu held.
func (tok *Token) unlink() {
	if tok.next != nil {
		tok.next.prev, tok.prev.next = tok.prev, tok.next
	}
	tok.next, tok.prev, tok.watcher = nil, nil, nil
}

// end wakes those in Wait. Called with mu held.
func (d *Drain) end() {
	close(d.over)
	d.over = nil
}

// Begin tells every watcher, once; a second call does nothing.
func (d *Drain) Begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = true
	for d.ring.next != nil && d.ring.next != &d.ring {
		tok := d.ring.next
		w := tok.watcher
		tok.unlink()
		d.mu.Unlock()
		w.Draining() // may release its token, or others
		d.mu.Lock()
	}
}

// Begun reports whether draining has begun.
func (d *Drain) Begun() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}

// Wait begins to drain and returns when nothing is held. If ctx ends first the
// error names what still is.
func (d *Drain) Wait(ctx context.Context) error {
	d.Begin()
	d.mu.Lock()
	if d.held == 0 {
		d.mu.Unlock()
		return nil
	}
	if d.over == nil {
		d.over = make(chan struct{})
	}
	over := d.over
	d.mu.Unlock()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain: still under way: %s: %w", d, context.Cause(ctx))
	}
}

// Counts returns how many tokens of each name are held.
func (d *Drain) Counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]int)
	for name, n := range d.counts {
		if n > 0 {
			out[name] = n
		}
	}
	return out
}

// String lists what is held, such as "2 dials, 1 tunnel".
func (d *Drain) String() string {
	counts := d.Counts()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		plural := ""
		if counts[name] > 1 {
			plural = "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s%s", counts[name], name, plural))
	}
	return strings.Join(parts, ", ")
}
