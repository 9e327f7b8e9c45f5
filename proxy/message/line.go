package message

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// linePad is how many bytes FieldLine wants from a line's first on.
const linePad = 40

// Padded returns the whole arena as Bytes does, and behind it bytes that mean
// nothing; but the first of them may stand in no line, so that whoever looks for a
// line's end stops there and need not count.
func (h *Header) Padded() []byte {
	n := len(h.arena)
	h.arena = slices.Grow(h.arena, linePad)
	b := h.arena[:n+linePad]
	b[n] = 0
	return b
}

// FieldLine takes the field line at pos of a padded arena apart: where its first
// colon is, where it ends, which is at the first byte that no value may have, and
// the id of the name. Without a colon, colon is not between pos and end. Nothing
// here depends on how a sender spells.
//
// The end is looked for from the line's first byte on, although no name has it. So
// the place of the next line depends on nothing else in this one, and a processor
// begins with the next while it is still at this one's name: 10 to 18 % of
// BenchmarkRequestHead/parse and BenchmarkResponseHead/parse.
func FieldLine(b []byte, pos int) (colon, end int, known Known) {
	if end = valueEnd(b, pos); end == pos {
		return -1, end, Unknown
	}
	p := (*[linePad]byte)(b[pos : pos+linePad : pos+linePad])
	w0, w1 := binary.LittleEndian.Uint64(p[0:]), binary.LittleEndian.Uint64(p[8:])
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
	middle, last := uint(n-1)/2&15, uint(n-2)&31 // as they are: only the compiler does not know
	known = slots[slotOf(pair(p[middle], p[middle+1]), pair(p[last], p[last+1]), n)]
	t := &patterns[known]
	other := (w0^t.lower[0])&t.care[0] | (w1^t.lower[1])&t.care[1]
	if n >= 16 {
		other |= (binary.LittleEndian.Uint64(p[16:])^t.lower[2])&t.care[2] | (binary.LittleEndian.Uint64(p[24:])^t.lower[3])&t.care[3]
	}
	if other != 0 {
		known = Unknown
	}
	return pos + n, end, known
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
	return all
}
