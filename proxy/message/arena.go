package message

import "slices"

// What follows is for codecs: they put a head's bytes into the arena as these
// came, parse them there, and say where the fields are.

// Bytes returns a view of the whole arena. It is stale after the next Write,
// Set or Add, because the arena may have moved.
func (h *Header) Bytes() []byte { return h.arena }

// Size returns how many bytes the arena holds.
func (h *Header) Size() int { return len(h.arena) }

// Write appends p to the arena without making it a field.
func (h *Header) Write(p []byte) {
	n := len(h.arena)
	if n+len(p)+linePad > cap(h.arena) {
		h.arena = slices.Grow(h.arena, len(p)+linePad)
	}
	h.arena = h.arena[:n+len(p)]
	copy(h.arena[n:], p)
}

// Room returns room for n bytes behind what the arena holds, for a codec to put a
// head together; nil if Reset would not keep an arena as large as that. It is
// good until the header changes.
func (h *Header) Room(n int) []byte {
	at := len(h.arena)
	if at+n > cap(h.arena) {
		if at+n > keepArena {
			return nil
		}
		h.arena = append(make([]byte, 0, max(at+n, min(2*cap(h.arena), keepArena))), h.arena...)
	}
	return h.arena[at:at:cap(h.arena)]
}

// Cut takes the arena back to its first n bytes. No field may lie beyond them.
func (h *Header) Cut(n int) { h.arena = h.arena[:n] }

// A Span is a run of the arena.
type Span struct{ Off, Len uint32 }

// Of returns the run of b as a view; b is what Bytes returned.
func (s Span) Of(b []byte) []byte { return b[s.Off : s.Off+s.Len : s.Off+s.Len] }

// Push makes two runs of the arena a field. Name and value have been checked.
// line says that the arena holds exactly "name: value CRLF" there.
func (h *Header) Push(name, value Span, known Known, line bool) {
	n := len(h.fields)
	if n == cap(h.fields) {
		h.fields = slices.Grow(h.fields, minFields)
	}
	h.fields = h.fields[:n+1]
	f := &h.fields[n] // filled in place: a struct put together first is stored in parts and loaded whole, which stalls
	f.name, f.nameLen, f.known = name.Off, uint16(name.Len), known
	f.value, f.valueLen, f.line = value.Off, value.Len, line && !known.Hop()
	h.has |= known.bit()
}

// Line appends a field whose name, which has that id, and whose value have been
// checked, as a line of its own.
func (h *Header) Line(known Known, name, value []byte) {
	off, n := uint32(len(h.arena)), uint32(len(name))
	h.arena = appendLine(h.arena, name, value)
	h.Push(Span{off, n}, Span{off + n + 2, uint32(len(value))}, known, true)
}

func appendLine(b, name, value []byte) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// LinesLen returns how many bytes AppendLines appends at most. No two fields
// share a byte of the arena, so what there is of it bounds them all.
func (h *Header) LinesLen() int { return len(h.arena) + 4*len(h.fields) }

// AppendLines appends the fields to b as HTTP/1.1 field lines. Fields that speak
// of one connection only, Host among them, are left out: the codec writes what
// is true of its own.
//
// Fields that came together leave together: lines that stand next to each other
// in the arena are copied in one go. BenchmarkAppendLines, 7 fields: 50 → 12 ns.
func (h *Header) AppendLines(b []byte) []byte {
	fields := h.fields
	for i := 0; i < len(fields); {
		f := &fields[i]
		i++
		if !f.line {
			if !f.known.Hop() {
				b = appendLine(b, h.run(f.name, uint32(f.nameLen)), h.run(f.value, f.valueLen))
			}
			continue
		}
		from, end := f.name, f.value+f.valueLen+2
		for ; i < len(fields); i++ {
			if f = &fields[i]; !f.line || f.name != end {
				break
			}
			end = f.value + f.valueLen + 2
		}
		b = append(b, h.arena[from:end]...)
	}
	return b
}

// AppendTrailers appends the fields that may follow a body as field lines.
func (h *Header) AppendTrailers(b []byte) []byte {
	for i := range h.fields {
		if h.fields[i].known.InTrailer() {
			name, value := h.Field(i)
			b = appendLine(b, name, value)
		}
	}
	return b
}

// DelFirst removes the first field whose name has that id.
func (h *Header) DelFirst(known Known) {
	for i := range h.fields {
		if h.fields[i].known == known {
			h.fields = append(h.fields[:i], h.fields[i+1:]...)
			return
		}
	}
}
