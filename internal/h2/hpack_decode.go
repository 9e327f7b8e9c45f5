package h2

import (
	"errors"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"golang.org/x/net/http2/hpack"
)

var (
	errIndex    = errors.New("index beyond the table")
	errShort    = errors.New("field cut short, or an integer too large")
	errUpdate   = errors.New("table size update behind a field")
	errTooLarge = errors.New("table size update beyond what was allowed")
)

// A decoder is the receiving side's compression. It decodes one whole block into
// memory of its own, because an entry that a field refers to may be evicted by a
// later field of the same block.
type decoder struct {
	table
	bytes []byte // lent while a block is decoded: names and values
	spans []span
	total uint32 // of the fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts it
	quiet bool   // over the limits: only the table is kept in step
}

// staticJudged is what the fields of the static table are; never written.
var staticJudged = func() (all [len(static)]span) {
	for i := 1; i < len(static); i++ {
		all[i].kind, all[i].bad = judge([]byte(static[i][0]), []byte(static[i][1]))
	}
	return all
}()

// A span is a field in a decoder's bytes.
type span struct {
	at, name, value uint32 // where it begins, and two lengths
	bad             string // the objection to its form
	kind            kind
	sensitive       bool
}

// decode decodes a complete block. Beyond so many fields, or so large a head, it
// keeps none, and goes on so that the table stays in step with the peer's.
func (d *decoder) decode(p []byte, maxFields int, maxSize uint32) error {
	d.spans, d.total, d.quiet = d.spans[:0], 0, false
	d.bytes = buf.Get(len(p) + len(p)/2)
	fields := false
	for len(p) > 0 {
		n, update, err := d.next(p)
		switch {
		case err != nil:
			return err
		case update && fields:
			return errUpdate
		case update:
			p = p[n:]
			continue
		}
		fields = true
		p = p[n:]
		if d.total > maxSize || len(d.spans) > maxFields {
			d.quiet = true
			d.spans = d.spans[:0]
		}
		if d.quiet {
			d.bytes = d.bytes[:0]
			p = d.skip(p)
		}
	}
	return nil
}

// skip passes over fields that are in a table, which change nothing: a head that is
// too large may name one entry thousands of times. BenchmarkBomb.
func (d *decoder) skip(p []byte) []byte {
	end := byte(min(len(static)+d.n, 0x7f)) // what one byte can name
	for len(p) > 0 && p[0] > 0x80 && p[0]&0x7f < end {
		p = p[1:]
	}
	return p
}

// next takes one representation (section 6), n bytes long.
func (d *decoder) next(p []byte) (n int, update bool, err error) {
	switch b := p[0]; {
	case b&0x80 != 0:
		i, n := readInt(p, 7)
		if n == 0 {
			return 0, false, errShort
		}
		return n, false, d.indexed(i)
	case b&0xc0 == 0x40:
		n, err = d.literal(p, 6)
		if err == nil {
			d.insert()
		}
	case b&0xe0 == 0x20:
		v, n := readInt(p, 5)
		switch {
		case n == 0:
			return 0, false, errShort
		case v > tableSize:
			return 0, false, errTooLarge
		}
		d.setMax(int(v))
		return n, true, nil
	default:
		n, err = d.literal(p, 4)
	}
	if err != nil {
		return 0, false, err
	}
	d.spans[len(d.spans)-1].sensitive = p[0]&0xf0 == 0x10
	return n, false, nil
}

// entry returns the entry of the dynamic table that an index beyond the static
// one means, or nil.
func (d *decoder) entry(i uint64) *entry {
	if i -= uint64(len(static)); i >= uint64(d.n) {
		return nil
	}
	return d.newest(int(i))
}

// indexed takes a field that is in a table. Only literals are judged for their
// form: an entry was one, and the judgement is kept with it.
func (d *decoder) indexed(i uint64) error {
	s := span{at: uint32(len(d.bytes))}
	switch {
	case i == 0:
		return errIndex
	case i < uint64(len(static)):
		f := &static[i]
		s.name, s.value, s.kind, s.bad = uint32(len(f[0])), uint32(len(f[1])), staticJudged[i].kind, staticJudged[i].bad
		if !d.quiet {
			d.bytes = append(append(buf.Grow(d.bytes, len(f[0])+len(f[1])), f[0]...), f[1]...)
		}
	default:
		e := d.entry(i)
		if e == nil {
			return errIndex
		}
		s.name, s.value, s.kind, s.bad = uint32(e.name), uint32(len(e.bytes)-e.name), e.kind, e.bad
		if !d.quiet {
			d.bytes = buf.Append(d.bytes, e.bytes)
		}
	}
	d.push(s)
	return nil
}

// literal takes a field that is written out, its name perhaps by index.
func (d *decoder) literal(p []byte, bits int) (n int, err error) {
	s := span{at: uint32(len(d.bytes))}
	i, n := readInt(p, bits)
	switch {
	case n == 0:
		return 0, errShort
	case i == 0:
		k, err := d.string(p[n:])
		if err != nil {
			return 0, err
		}
		n += k
	case i < uint64(len(static)):
		d.bytes = append(buf.Grow(d.bytes, len(static[i][0])), static[i][0]...)
	default:
		e := d.entry(i)
		if e == nil {
			return 0, errIndex
		}
		d.bytes = buf.Append(d.bytes, e.bytes[:e.name])
	}
	s.name = uint32(len(d.bytes)) - s.at
	k, err := d.string(p[n:])
	if err != nil {
		return 0, err
	}
	s.value = uint32(len(d.bytes)) - s.at - s.name
	s.kind, s.bad = judge(d.name(&s), d.value(&s))
	d.push(s)
	return n + k, nil
}

func (d *decoder) push(s span) {
	d.total += s.name + s.value + entryOverhead
	d.spans = append(d.spans, s)
}

// insert adds the last field to the table.
func (d *decoder) insert() {
	s := &d.spans[len(d.spans)-1]
	if e := d.add(d.name(s), d.value(s)); e != nil {
		e.kind, e.bad = s.kind, s.bad
	}
}

func (d *decoder) name(s *span) []byte {
	return d.bytes[s.at : s.at+s.name : s.at+s.name]
}

func (d *decoder) value(s *span) []byte {
	at := s.at + s.name
	return d.bytes[at : at+s.value : at+s.value]
}

// string appends the string that p begins with (section 5.2), n bytes long.
func (d *decoder) string(p []byte) (n int, err error) {
	length, n := readInt(p, 7)
	if n == 0 {
		return 0, errShort
	}
	if length > uint64(len(p)-n) {
		return 0, errShort
	}
	raw := p[n : n+int(length)]
	if p[0]&0x80 != 0 {
		_, err = hpack.HuffmanDecode((*decoderOut)(d), raw)
	} else {
		d.bytes = buf.Append(d.bytes, raw)
	}
	return n + len(raw), err
}

// decoderOut is a decoder as the writer of Huffman-coded strings.
type decoderOut decoder

func (d *decoderOut) Write(p []byte) (int, error) {
	d.bytes = buf.Append(d.bytes, p)
	return len(p), nil
}

// release gives the memory of a block back.
func (d *decoder) release() {
	buf.Put(d.bytes)
	d.bytes = nil
	if cap(d.spans) > keepFields {
		d.spans = nil
	}
}
