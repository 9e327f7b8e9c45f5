package message

import (
	"iter"
	"math"

	"github.com/sandwich-mesh/sandwich/internal/buf"
)

const (
	// keepArena and keepFields are how much of a message's memory Reset keeps.
	keepArena  = 16 << 10
	keepFields = 128
	// minFields is how many fields a table has room for at first.
	minFields = 8
)

// A Header holds fields in wire order, over one arena. Names keep the letter
// case in which they came and are compared without it.
//
// The zero value is an empty header, ready for use.
type Header struct {
	arena  []byte
	fields []field
	has    uint64 // the bit of each name that may be among the fields
}

// A field is two runs of its header's arena. It holds no pointer, so a table of
// them costs the collector nothing and copies as it is.
type field struct {
	name, value, valueLen uint32
	nameLen               uint16
	known                 Known
	// line says that the arena holds "name: value CRLF" at name, and that AppendLines
	// may copy it as it stands: the name is not for one connection only.
	line bool
}

// bit is the name's in has; a few names share one. All that have no id share that
// of Unknown. Most names that are asked for are absent, and this tells without a
// look at the fields. BenchmarkAbsent: 8 → 1.2 ns.
func (k Known) bit() uint64 { return 1 << (k & 63) }

// Len returns how many fields there are.
func (h *Header) Len() int { return len(h.fields) }

// Field returns the i-th field as views, 0 ≤ i < Len.
func (h *Header) Field(i int) (name, value []byte) {
	f := &h.fields[i]
	return h.run(f.name, uint32(f.nameLen)), h.run(f.value, f.valueLen)
}

// Known returns the id of the i-th field's name, or Unknown.
func (h *Header) Known(i int) Known { return h.fields[i].known }

// run never lets an append through a view reach what follows it.
func (h *Header) run(off, n uint32) []byte { return h.arena[off : off+n : off+n] }

// All yields every field as views, in wire order. The header must not change
// meanwhile.
func (h *Header) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range h.fields {
			if !yield(h.Field(i)) {
				return
			}
		}
	}
}

// Values yields a view of every value of name, in wire order. The header must
// not change meanwhile.
func (h *Header) Values(name string) iter.Seq[[]byte] {
	return func(yield func(value []byte) bool) {
		known := LookupString(name)
		for i := range h.fields {
			if f := &h.fields[i]; is(h, f, known, name) && !yield(h.run(f.value, f.valueLen)) {
				return
			}
		}
	}
}

// Value returns a view of the first value of name.
func (h *Header) Value(name string) (view []byte, ok bool) {
	known := LookupString(name)
	for i := range h.fields {
		if f := &h.fields[i]; is(h, f, known, name) {
			return h.run(f.value, f.valueLen), true
		}
	}
	return nil, false
}

// ValueOf is Value for a name that has an id.
func (h *Header) ValueOf(known Known) (view []byte, ok bool) {
	if h.has&known.bit() == 0 {
		return nil, false
	}
	return h.valueOf(known)
}

func (h *Header) valueOf(known Known) (view []byte, ok bool) {
	for i := range h.fields {
		if f := &h.fields[i]; f.known == known && known != Unknown {
			return h.run(f.value, f.valueLen), true
		}
	}
	return nil, false
}

// First returns a view of the first value of name, and how many there are. known
// is the name's id, or Unknown.
func (h *Header) First(known Known, name string) (view []byte, n int) {
	if h.has&known.bit() == 0 {
		return nil, 0
	}
	fields, size := h.fields, uint16(len(name)) // by which most names differ that have no id
	for i := range fields {
		f := &fields[i]
		if f.known != known || f.nameLen != size {
			continue
		}
		if known == Unknown && !named(h, f, name) {
			continue
		}
		if n == 0 {
			view = h.run(f.value, f.valueLen)
		}
		n++
	}
	return view, n
}

// Get returns a copy of the first value of name, or "". It allocates.
func (h *Header) Get(name string) string {
	v, _ := h.Value(name)
	return string(v)
}

// is compares ids where there is one, and letters only where there is none.
func is[N string | []byte](h *Header, f *field, known Known, name N) bool {
	return f.known == known && (known != Unknown || named(h, f, name))
}

func named[N string | []byte](h *Header, f *field, name N) bool {
	if int(f.nameLen) != len(name) {
		return false
	}
	have := h.run(f.name, uint32(f.nameLen))
	return string(have) == string(name) || equalFold(have, name)
}

// Set gives name the one value. It takes the place of the first field of that
// name, and the others go. It reports false, and does nothing, if name is not a
// token. Bytes that no value may have become spaces (RFC 9110, section 5.5), so
// that nothing a filter computed can end a line.
func (h *Header) Set(name, value string) bool { return set(h, name, value) }

// SetBytes is Set for a value that is a view; the bytes are copied.
func (h *Header) SetBytes(name string, value []byte) bool { return set(h, name, value) }

// Add appends a field, as Set does otherwise.
func (h *Header) Add(name, value string) bool { return add(h, name, value) }

// AddBytes is Add for views; the bytes are copied. Inlined into another package
// it would make the caller's views escape.
//
//go:noinline
func (h *Header) AddBytes(name, value []byte) bool { return add(h, name, value) }

// AddKnown appends a field whose name has an id and whose value is known to be one;
// the bytes are copied.
func (h *Header) AddKnown(known Known, value []byte) {
	if _, ok := h.place(len(known.Name()) + len(value) + 4); ok {
		h.Line(known, known.Bytes(), value)
	}
}

// Del removes every field of that name.
func (h *Header) Del(name string) { del(h, 0, LookupString(name), name) }

// DelBytes is Del for a name that is a view.
func (h *Header) DelBytes(name []byte) { del(h, 0, Lookup(name), name) }

// DelKnown removes every field whose name has that id.
func (h *Header) DelKnown(known Known) {
	if h.has&known.bit() != 0 {
		del(h, 0, known, known.Name())
	}
}

// del closes the gaps at once: copying a few table rows is cheaper than every
// reader's having to step over the dead.
func del[N string | []byte](h *Header, i int, known Known, name N) {
	if h.has&known.bit() == 0 {
		return
	}
	kept := h.fields[:i]
	for ; i < len(h.fields); i++ {
		if f := h.fields[i]; !is(h, &f, known, name) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
}

func set[V string | []byte](h *Header, name string, value V) bool {
	known := LookupString(name)
	for i := range h.fields {
		if f := &h.fields[i]; is(h, f, known, name) {
			off, ok := h.place(len(value))
			if !ok {
				return false
			}
			h.arena = appendClean(h.arena, value)
			f.value, f.valueLen, f.line = off, uint32(len(value)), false
			del(h, i+1, known, name)
			return true
		}
	}
	return add(h, name, value)
}

func add[N, V string | []byte](h *Header, name N, value V) bool {
	if len(name) > math.MaxUint16 || !isToken(name) {
		return false
	}
	off, ok := h.place(len(name) + len(value) + 4)
	if !ok {
		return false
	}
	h.arena = append(h.arena, name...)
	h.arena = append(h.arena, ": "...)
	h.arena = appendClean(h.arena, value)
	h.arena = append(h.arena, "\r\n"...)
	n := uint32(len(name))
	h.Push(Span{off, n}, Span{off + n + 2, uint32(len(value))}, lookup(name), true)
	return true
}

// place returns where the next n bytes of the arena begin; ok is false if its
// 4 GiB are used up.
func (h *Header) place(n int) (off uint32, ok bool) {
	return uint32(len(h.arena)), uint64(len(h.arena))+uint64(n) <= math.MaxUint32
}

// CopyFrom makes h a copy of src.
func (h *Header) CopyFrom(src *Header) {
	h.arena = append(h.arena[:0], src.arena...)
	h.fields = append(h.fields[:0], src.fields...)
	h.has = src.has
}

// Reset empties h. Views of it are dead from here on.
func (h *Header) Reset() {
	if buf.Check {
		poison(h.arena[:cap(h.arena)])
	}
	h.arena, h.fields, h.has = h.arena[:0], h.fields[:0], 0
	if cap(h.arena) > keepArena {
		h.arena = nil
	}
	if cap(h.fields) > keepFields {
		h.fields = nil
	}
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}
