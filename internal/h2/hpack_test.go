package h2

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// lateUpdate reports whether a block has a table size update anywhere but as its
// first representation. hpack.Decoder takes one behind a field if its table is
// empty, which RFC 7541, section 4.2, forbids, and not the second of the two that
// it allows.
func lateUpdate(p []byte) bool {
	str := func(p []byte) int {
		v, n := readInt(p, 7)
		if n == 0 || v > uint64(len(p)-n) {
			return 0
		}
		return n + int(v)
	}
	for first := true; len(p) > 0; first = false {
		bits, literal := 4, true
		switch {
		case p[0]&0x80 != 0:
			bits, literal = 7, false
		case p[0]&0x40 != 0:
			bits = 6
		case p[0]&0x20 != 0:
			if !first {
				return true
			}
			bits, literal = 5, false
		}
		v, n := readInt(p, bits)
		if n == 0 {
			return false
		}
		p = p[n:]
		for i := 0; literal && i < 2; i++ {
			if i == 0 && v != 0 {
				continue
			}
			if n = str(p); n == 0 {
				return false
			}
			p = p[n:]
		}
	}
	return false
}

// A link is an encoder, and two decoders of what it makes: ours and x/net's.
type link struct {
	t    *testing.T
	enc  encoder
	dec  decoder
	them *hpack.Decoder
}

func newLink(t *testing.T) *link {
	l := &link{t: t, them: hpack.NewDecoder(tableSize, nil)}
	l.enc.init()
	l.dec.max = tableSize
	return l
}

// send sends a block, checks what both decoders make of it, and returns it.
func (l *link) send(fields []Field) []byte {
	l.t.Helper()
	var b []byte
	if !l.enc.told {
		b = l.enc.appendLimit(b)
	}
	for i := range fields {
		b = l.enc.appendField(b, &fields[i])
	}
	theirs, err := l.them.DecodeFull(b)
	if err != nil {
		l.t.Fatalf("hpack.Decoder: %v in %x", err, b)
	}
	defer l.dec.release()
	if err := l.dec.decode(b, 1<<20, 1<<30); err != nil {
		l.t.Fatalf("decode: %v in %x", err, b)
	}
	if len(theirs) != len(fields) || len(l.dec.spans) != len(fields) {
		l.t.Fatalf("%d fields became %d and %d", len(fields), len(theirs), len(l.dec.spans))
	}
	for i := range fields {
		s := &l.dec.spans[i]
		ours := hpack.HeaderField{Name: string(l.dec.name(s)), Value: string(l.dec.value(s)), Sensitive: s.sensitive}
		want := hpack.HeaderField{Name: string(fields[i].Name), Value: string(fields[i].Value), Sensitive: fields[i].Sensitive}
		if theirs[i] != want || ours != want {
			l.t.Fatalf("field %d: sent %v, hpack.Decoder has %v, ours %v", i, want, theirs[i], ours)
		}
	}
	if l.enc.size != l.dec.size || l.enc.n != l.dec.n {
		l.t.Fatalf("tables differ: %d entries of %d bytes, and %d of %d", l.enc.n, l.enc.size, l.dec.n, l.dec.size)
	}
	return b
}

// TestStaticTable: the same as x/net's.
func TestStaticTable(t *testing.T) {
	for i := 1; i < len(static); i++ {
		fields, err := hpack.NewDecoder(0, nil).DecodeFull([]byte{0x80 | byte(i)})
		if err != nil || fields[0].Name != static[i][0] || fields[0].Value != static[i][1] {
			t.Errorf("entry %d is %v, want %v (%v)", i, static[i], fields, err)
		}
	}
	if _, err := hpack.NewDecoder(0, nil).DecodeFull([]byte{0x80 | byte(len(static))}); err == nil {
		t.Error("there are more")
	}
}

// TestSecondSight: what comes for the second time goes into the table, what comes
// once evicts nothing, and what is sensitive is nowhere.
func TestSecondSight(t *testing.T) {
	l := newLink(t)
	once := func(i int) []Field {
		return []Field{
			NewField(":method", "POST"),
			NewField("x-same", "value"),
			NewField("x-request-id", fmt.Sprintf("%08x", uint32(i*0x9e3779b1))),
			{Name: []byte("authorization"), Value: []byte("secret"), Sensitive: true},
		}
	}
	var sizes []int
	for i := range 5000 {
		sizes = append(sizes, len(l.send(once(i))))
	}
	if l.enc.n > 3 { // a request's id may meet another's hash
		t.Errorf("%d entries, want the one that recurs", l.enc.n)
	}
	if want := 1 + 1 + (1 + 1 + len("x-request-id") + 1 + 8) + (2 + 1 + len("secret")); sizes[2] > want || sizes[1] < sizes[2] || sizes[0] < sizes[1] {
		t.Errorf("blocks of %v bytes, want %d from the third on", sizes[:5], want)
	}
	if b := l.send(once(0)[3:]); b[0]&0xf0 != 0x10 || b[0]&0xf != 0xf {
		t.Errorf("a sensitive field begins with %x, want one that is never indexed, its name by index", b[0])
	}
}

// TestTableLimit: the peer's limit is followed and told, also when it was lower
// for a while, and what is too large for the table leaves the rest there.
func TestTableLimit(t *testing.T) {
	l := newLink(t)
	fields := []Field{NewField("a", strings.Repeat("x", 100)), NewField("b", strings.Repeat("y", 100)), NewField("c", "z")}
	l.send(fields)
	l.send(fields)
	if b := l.send(fields); len(b) != 3 || l.enc.n != 3 {
		t.Fatalf("%d entries and %d bytes, want 3", l.enc.n, len(b))
	}
	l.enc.setLimit(200)
	if l.send(fields); l.enc.max != 200 || l.enc.size > 200 {
		t.Errorf("the table has %d of %d bytes, the limit is 200", l.enc.size, l.enc.max)
	}
	l.enc.setLimit(0)
	l.enc.setLimit(1 << 30)
	b := l.send(fields)
	if b[0] != 0x20 || l.enc.max != tableSize {
		t.Errorf("first byte %x, limit %d, want both limits told", b[0], l.enc.max)
	}
	for range 3 {
		l.send(fields)
	}
	if l.enc.n != 3 {
		t.Errorf("%d entries after the limit rose again", l.enc.n)
	}
	large := []Field{NewField("large", strings.Repeat("l", tableSize))}
	for range 3 {
		l.send(large)
	}
	if l.enc.n != 3 {
		t.Errorf("%d entries, want those from before", l.enc.n)
	}
}

// TestUpdateBehindField: refused, and at the beginning two are taken.
func TestUpdateBehindField(t *testing.T) {
	for block, want := range map[string]error{
		"\x20\x3f\xe1\x1f\x82": nil,
		"\x82\x20":             errUpdate,
		"\x3f\xe2\x1f":         errTooLarge,
		"\x80":                 errIndex,
		"\xbe":                 errIndex,
		"\x7e\x01a":            errIndex,
		"\x40\x05ab":           errShort,
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01": errShort,
	} {
		var d decoder
		d.max = tableSize
		if err := d.decode([]byte(block), 100, 1<<16); err != want {
			t.Errorf("%x: got %v, want %v", block, err, want)
		}
		d.release()
	}
}

// TestHeadBomb: one entry that is referred to again and again is not unpacked
// beyond the limit, and the tables stay in step.
func TestHeadBomb(t *testing.T) {
	var d decoder
	d.max = tableSize
	defer d.release()
	entry := slices.Concat([]byte{0x40, 1, 'a', 0x7f, 0x80 + 0x29, 0x1e}, bytes.Repeat([]byte("x"), 127+0x29+0x1e<<7))
	block := append(slices.Clone(entry), bytes.Repeat([]byte{0xbe}, 30000)...)
	block = append(block, 0x40, 1, 'b', 1, 'c')
	if err := d.decode(block, 1<<20, 64<<10); err != nil || !d.quiet {
		t.Fatal(err, d.quiet)
	}
	if cap(d.bytes) > 128<<10 {
		t.Errorf("%d bytes of memory for a head of at most 64 KiB", cap(d.bytes))
	}
	if d.n == 0 || string(d.newest(0).bytes) != "bc" {
		t.Error("what came behind the limit is not in the table")
	}
}

// FuzzEncode encodes blocks of a small vocabulary, and of the fuzzer's own
// fields, under changing limits; x/net's decoder and ours must read back what
// was written.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\xff\x00\x01\x02\xff\x00\x01\x02"))
	f.Add([]byte("\x10\x03abcdef\xff\x10\x03abcdef\xff\xfe\x05\x10\x03abcdef\x11\x03abcdef"))
	f.Add(bytes.Repeat([]byte("\x07\x08\x09\x0a\xff\x20\x40\x60\x80"), 30))
	words := []string{":method", "POST", ":path", "/", "content-type", "application/grpc", "x", "", "te", "trailers", strings.Repeat("long", 300)}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLink(t)
		var block []Field
		for len(data) > 0 {
			op := data[0]
			data = data[1:]
			switch {
			case op == 0xff:
				l.send(block)
				block = nil
			case op == 0xfe && len(data) > 0:
				l.enc.setLimit(uint32(data[0]) * 64)
				data = data[1:]
			case op&0x10 != 0 && len(data) > 1: // of the fuzzer's own
				n := min(int(data[0]), len(data)-1)
				own := data[1 : 1+n]
				block = append(block, Field{Name: own[:n/2], Value: own[n/2:], Sensitive: op&1 != 0})
				data = data[1+n:]
			default:
				block = append(block, NewField(words[int(op)%len(words)], words[int(op>>4)%len(words)]))
			}
		}
		l.send(block)
	})
}

// The head of a gRPC call, as a node's proxy sees it.
var callHead = []Field{
	NewField(":method", "POST"), NewField(":scheme", "http"), NewField(":path", "/shop.v1.Reviews/List"),
	NewField(":authority", "reviews.shop:9090"), NewField("content-type", "application/grpc"),
	NewField("user-agent", "grpc-go/1.85.0"), NewField("te", "trailers"), NewField("grpc-accept-encoding", "gzip"),
	NewField("x-tenant", "blue"), NewField("x-region", "eu-west-1"),
}

// BenchmarkEncode and BenchmarkDecode are one head; unique adds two values that
// never come again.
func BenchmarkEncode(b *testing.B) {
	for _, unique := range []int{0, 2} {
		heads := benchHeads(unique)
		b.Run(fmt.Sprintf("unique=%d/ours", unique), func(b *testing.B) {
			var e encoder
			e.init()
			out := make([]byte, 0, 4096)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				out = out[:0]
				for j, h := 0, heads[i%len(heads)]; j < len(h); j++ {
					out = e.appendField(out, &h[j])
				}
			}
		})
		b.Run(fmt.Sprintf("unique=%d/x-net", unique), func(b *testing.B) {
			var out bytes.Buffer
			e := hpack.NewEncoder(&out)
			var theirs [][]hpack.HeaderField
			for _, h := range heads {
				var fields []hpack.HeaderField
				for _, f := range h {
					fields = append(fields, hpack.HeaderField{Name: string(f.Name), Value: string(f.Value)})
				}
				theirs = append(theirs, fields)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				out.Reset()
				for _, f := range theirs[i%len(theirs)] {
					e.WriteField(f)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, unique := range []int{0, 2} {
		var e encoder
		e.init()
		var blocks [][]byte
		for _, h := range benchHeads(unique) {
			var out []byte
			for j := range h {
				out = e.appendField(out, &h[j])
			}
			blocks = append(blocks, out)
		}
		// Three blocks bring the table to where it stays.
		b.Run(fmt.Sprintf("unique=%d/ours", unique), func(b *testing.B) {
			var d decoder
			d.max = tableSize
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := i
				if i > 2 {
					k = 3 + i%(len(blocks)-3)
				}
				if err := d.decode(blocks[k], 100, 1<<16); err != nil {
					b.Fatal(err)
				}
				d.release()
			}
		})
		b.Run(fmt.Sprintf("unique=%d/x-net", unique), func(b *testing.B) {
			d := hpack.NewDecoder(tableSize, func(hpack.HeaderField) {})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := i
				if i > 2 {
					k = 3 + i%(len(blocks)-3)
				}
				if _, err := d.Write(blocks[k]); err != nil {
					b.Fatal(err)
				}
				d.Close()
			}
		})
	}
}

// benchHeads are many heads with so many fields of unique values.
func benchHeads(unique int) (heads [][]Field) {
	for i := range 1000 {
		h := slices.Clone(callHead)
		for j := range unique {
			h = append(h, NewField(fmt.Sprintf("x-id-%d", j), fmt.Sprintf("%016x-%016x", i*0x9e3779b1, i)))
		}
		heads = append(heads, h)
	}
	return heads
}
