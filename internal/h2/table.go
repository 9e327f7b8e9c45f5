package h2

import "iter"

// A streamTable is the open streams by number. Each has the place that its number
// names, or, if an older one has that, one in a map. Peers count their streams up,
// so as long as there are places enough nearly all find one, and a look touches no
// other stream, which would be out of the processor's caches.
type streamTable struct {
	near []*Stream          // as many as a power of two
	far  map[uint32]*Stream // nil until it is needed
	n    int
}

// A table has places for leastNear streams at first, and for mostNear at most.
const (
	leastNear = 64
	mostNear  = 1024
)

func (t *streamTable) place(id uint32) **Stream { return &t.near[int(id/2)&(len(t.near)-1)] }

// get returns the stream of that number, or nil.
func (t *streamTable) get(id uint32) *Stream {
	if len(t.near) == 0 {
		return nil
	}
	if s := *t.place(id); s != nil && s.id == id {
		return s
	}
	return t.far[id]
}

func (t *streamTable) put(s *Stream) {
	if t.n >= len(t.near)/2 && len(t.near) < mostNear {
		t.grow()
	}
	t.n++
	t.set(s)
}

func (t *streamTable) set(s *Stream) {
	if at := t.place(s.id); *at == nil {
		*at = s
		return
	}
	if t.far == nil {
		t.far = make(map[uint32]*Stream)
	}
	t.far[s.id] = s
}

// grow gives the streams twice the places.
func (t *streamTable) grow() {
	was := *t
	*t = streamTable{near: make([]*Stream, max(leastNear, 2*len(was.near))), n: was.n}
	for s := range was.all() {
		t.set(s)
	}
}

func (t *streamTable) remove(s *Stream) {
	t.n--
	if at := t.place(s.id); *at == s {
		*at = nil
		return
	}
	delete(t.far, s.id)
	if len(t.far) == 0 {
		t.far = nil // which may have been large
	}
}

// all yields every stream; they may be removed meanwhile.
func (t *streamTable) all() iter.Seq[*Stream] {
	return func(yield func(*Stream) bool) {
		for _, s := range t.near {
			if s != nil && !yield(s) {
				return
			}
		}
		for _, s := range t.far {
			if !yield(s) {
				return
			}
		}
	}
}
