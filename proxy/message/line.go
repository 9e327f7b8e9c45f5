package message

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// linePad is how many bytes FieldLine wants from a line's first on, and Lines from
// the one before.
const linePad = 40

// Padded returns the whole arena as Bytes does, and behind it bytes that mean
// nothing; but the first of them may stand in no line, so that whoever looks for a
// line's end stops there and need not count.
func (h *Header) Padded() []byte {
	n := len(h.arena)
	if n+linePad > cap(h.arena) {
		h.arena = slices.Grow(h.arena, linePad)
	}
	b := h.arena[:n+linePad]
	b[n] = 0
	return b
}

// Hops are the fields for one connection only that Lines has met.
type Hops struct {
	all [4]Hop
	n   uint
}

// A Hop is a field whose name is for one connection only.
type Hop struct {
	Name, Value Span
	Known       Known
}

// Met returns what the last call of Lines has met, in wire order.
func (h *Hops) Met() []Hop { return h.all[:h.n] }

// Lines takes the field lines from pos on of a padded arena, at most left of them,
// for as long as each is what nearly all are: "name: value CRLF" in printable ASCII,
// one space before the value and none around it, a name of up to 31 letters, digits,
// dots and hyphens. It makes fields of them, or hops. It returns where it has come
// to, and what is left of left; what is there is for FieldLine to judge.
//
// A line's end is looked for from its first byte on, although no name has it. So
// the place of the next line depends on nothing else in this one, and a processor
// begins with the next while it is still at this one's name: with names first, all
// that is won here is lost. Against a FieldLine and a Push for each line, this takes
// 9 % off BenchmarkRequestHead/parse and 13 % off BenchmarkResponseHead/parse.
func (h *Header) Lines(b []byte, pos, left int, hops *Hops) (next, more int) {
	hops.n = 0
	n := len(h.fields)
	if n == cap(h.fields) {
		h.fields = slices.Grow(h.fields, minFields)
	}
	table := h.fields[:cap(h.fields)]

lines:
	for ; left > 0; left-- {
		at := (pos - 1) & math.MaxInt // the byte before: in one load with it are a value's last and CRLF
		if at > len(b)-linePad {
			break
		}
		p := (*[linePad]byte)(b[at : at+linePad : at+linePad])
		w0, w1 := binary.LittleEndian.Uint64(p[1:9]), binary.LittleEndian.Uint64(p[9:17])
		x, y := (w0-0x20*ones)|(w0+ones), (w1-0x20*ones)|(w1+ones) // as unprintable
		q := (*[32]byte)(p[:32])
		for (x|y)&highs == 0 {
			if at = (at + 16) & math.MaxInt; at > len(b)-32 {
				break lines
			}
			q = (*[32]byte)(b[at : at+32 : at+32])
			x = (binary.LittleEndian.Uint64(q[1:9]) - 0x20*ones) | (binary.LittleEndian.Uint64(q[1:9]) + ones)
			y = (binary.LittleEndian.Uint64(q[9:17]) - 0x20*ones) | (binary.LittleEndian.Uint64(q[9:17]) + ones)
		}
		k := firstMark(x, y) & 15 // as it is: only the compiler does not know
		if e := binary.LittleEndian.Uint32(q[k : k+4]); byte(e) <= ' ' || e&0xffff00 != '\r'<<8|'\n'<<16 {
			break
		}
		end, size := at+int(k)+1, uint(0)
		if c := (w0 ^ ones*':' - ones) & highs; c != 0 {
			size = uint(bits.TrailingZeros64(c)) / 8
		} else if c := (w1 ^ ones*':' - ones) & highs; c != 0 {
			size = uint(bits.TrailingZeros64(c))/8 + 8
		}
		known := candidate(p, 1, size)
		if size == 0 || patterns[known].other(w0, w1) != 0 { // of a long name, known means nothing yet
			if size, known = otherName(p, size); size == 0 {
				break
			}
		}
		if size &= 31; p[size+2] != ' ' || p[size+3] <= ' ' {
			break
		}
		from := pos + int(size) + 2
		if !known.Hop() {
			if n >= len(table) {
				break
			}
			f := &table[n] // filled in place, as Push does
			f.name, f.nameLen, f.known = uint32(pos), uint16(size), known
			f.value, f.valueLen, f.line = uint32(from), uint32(end-from), true
			h.has |= known.bit()
			n++
		} else {
			if hops.n >= uint(len(hops.all)) {
				break
			}
			hops.all[hops.n] = Hop{Span{uint32(pos), uint32(size)}, Span{uint32(from), uint32(end - from)}, known}
			hops.n++
		}
		pos = end + 2
	}
	h.fields = table[:n]
	return pos, left
}

// firstMark returns where the lowest mark of two words is that have one.
func firstMark(x, y uint64) uint {
	if x &= highs; x != 0 {
		return uint(bits.TrailingZeros64(x)) / 8
	}
	return uint(bits.TrailingZeros64(y&highs|1<<63))/8 + 8
}

// FieldLine takes the field line at pos of a padded arena apart: where its first
// colon is, where it ends, which is at the first byte that no value may have, and
// the id of the name. Without a colon, colon is not between pos and end. Nothing
// here depends on how a sender spells.
func FieldLine(b []byte, pos int) (colon, end int, known Known) {
	if end = valueEnd(b, pos); end == pos {
		return -1, end, Unknown
	}
	p := (*[linePad]byte)(b[pos : pos+linePad : pos+linePad])
	w0, w1 := binary.LittleEndian.Uint64(p[0:8]), binary.LittleEndian.Uint64(p[8:16])
	n := 0
	if at := colons(w0); at != 0 {
		n = bits.TrailingZeros64(at) / 8
	} else if at = colons(w1); at != 0 {
		n = 8 + bits.TrailingZeros64(at)/8
	} else if n = bytes.IndexByte(p[16:32], ':') + 16; n < 16 { // longer than any that has an id
		return pos + bytes.IndexByte(b[pos:end], ':'), end, Unknown
	}
	if n < 2 {
		return pos + n, end, Unknown
	}
	known = candidate(p, 0, uint(n))
	t := &patterns[known]
	other := t.other(w0, w1)
	if n >= 16 {
		other |= (binary.LittleEndian.Uint64(p[16:24])^t.lower[2])&t.care[2] | (binary.LittleEndian.Uint64(p[24:32])^t.lower[3])&t.care[3]
	}
	if other != 0 {
		known = Unknown
	}
	return pos + n, end, known
}

// candidate returns the one name that the n bytes of p from at on could be.
func candidate(p *[linePad]byte, at, n uint) Known {
	middle, last := at+(n-1)/2&15, at+(n-2)&31 // as they are: only the compiler does not know
	return slots[slotOf(binary.LittleEndian.Uint16(p[middle:]), binary.LittleEndian.Uint16(p[last:]), n)]
}

// otherName judges a name behind p[0] that is no well-known one of size bytes, which
// are fewer than 16; if size is 0, it may be longer. It returns 0 for one that has
// more than 31 bytes, or others than letters, digits, dots and hyphens.
func otherName(p *[linePad]byte, size uint) (uint, Known) {
	w0, w1 := binary.LittleEndian.Uint64(p[1:9]), binary.LittleEndian.Uint64(p[9:17])
	bad := noPlain(w0)
	switch {
	case size == 0:
		return longName(p)
	case size <= 8:
		bad <<= (64 - 8*size) & 63
	default:
		bad |= noPlain(w1) << ((128 - 8*size) & 63)
	}
	if bad != 0 {
		return 0, Unknown
	}
	return size, Unknown
}

// longName is otherName for names of 16 bytes and more.
func longName(p *[linePad]byte) (size uint, known Known) {
	w := [4]uint64{
		binary.LittleEndian.Uint64(p[1:9]), binary.LittleEndian.Uint64(p[9:17]),
		binary.LittleEndian.Uint64(p[17:25]), binary.LittleEndian.Uint64(p[25:33]),
	}
	bad := noPlain(w[0]) | noPlain(w[1])
	if c := colons(w[2]); c != 0 {
		size = 16 + uint(bits.TrailingZeros64(c))/8
		bad |= noPlain(w[2]) & (c&-c - 1)
	} else if c = colons(w[3]); c != 0 {
		size = 24 + uint(bits.TrailingZeros64(c))/8
		bad |= noPlain(w[2]) | noPlain(w[3])&(c&-c-1)
	}
	if size == 0 || bad != 0 {
		return 0, Unknown
	}
	known = candidate(p, 1, size)
	t, other := &patterns[known], uint64(0)
	for i := range w {
		other |= (w[i] ^ t.lower[i]) & t.care[i]
	}
	if other != 0 {
		known = Unknown
	}
	return size, known
}

// colons marks the colons among eight bytes as unprintable marks.
func colons(x uint64) uint64 {
	x ^= ones * ':'
	return (x - ones) &^ x & highs
}

// A pattern is a name of up to 31 bytes and the colon behind it, as words. A
// word x is the name's, in any letter case, if (x^lower)&care is 0: in care are
// all bits up to the colon but those of a letter's case.
type pattern struct{ lower, care [4]uint64 }

// other is not 0 if the first two words are not the name's.
func (t *pattern) other(w0, w1 uint64) uint64 {
	return (w0^t.lower[0])&t.care[0] | (w1^t.lower[1])&t.care[1]
}

var patterns = makePatterns()

func makePatterns() (all [numKnown]pattern) {
	for k := range all {
		var lower, care [32]byte
		n := copy(lower[:], names[k].lower+":")
		for i := range n {
			care[i] = 0xff
			if c := lower[i]; 'a' <= c && c <= 'z' {
				care[i] = 0xdf
			}
		}
		for i := range 4 {
			all[k].lower[i] = binary.LittleEndian.Uint64(lower[8*i:])
			all[k].care[i] = binary.LittleEndian.Uint64(care[8*i:])
		}
	}
	all[Unknown] = pattern{care: [4]uint64{0xff}} // no name
	return all
}
