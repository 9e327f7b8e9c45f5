package message

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The slow twins of what looks at eight bytes at once.

func slowEnd(b []byte, ok func(byte) bool) int {
	i := 0
	for i < len(b) && ok(b[i]) {
		i++
	}
	return i
}

func inValue(c byte) bool  { return c == '\t' || c >= ' ' && c != 0x7f }
func inTarget(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }

func slowKnown(name []byte) Known {
	for k, row := range names {
		if EqualFold(name, row.lower) && row.lower != "" {
			return Known(k)
		}
	}
	return Unknown
}

func checkScans(t *testing.T, b []byte) {
	t.Helper()
	if got, want := ValueEnd(b), slowEnd(b, inValue); got != want {
		t.Fatalf("ValueEnd(%q) = %d, want %d", b, got, want)
	}
	if got, want := TargetEnd(b), slowEnd(b, inTarget); got != want {
		t.Fatalf("TargetEnd(%q) = %d, want %d", b, got, want)
	}
	if got, want := ValidAuthority(b), validAuthority(b); got != want {
		t.Fatalf("ValidAuthority(%q) = %v, want %v", b, got, want)
	}
}

// checkLine reads data as a line behind others and before what an arena has behind
// its bytes.
func checkLine(t *testing.T, data []byte) {
	t.Helper()
	const before, behind = "a: b\r\n", "User-Agent: x\r\n: behind it there may be anything, a colon\r\n"
	h := Header{arena: append([]byte(before+string(data)), behind...)[:len(before)+len(data)]}
	b, pos := h.Padded(), len(before)
	if got := len(b) - pos - len(data); got < linePad || b[pos+len(data)] != 0 || !bytes.Equal(b[:pos+len(data)], h.Bytes()) {
		t.Fatalf("padded by %d with %q", got, b[pos+len(data):])
	}
	colon, end, known := FieldLine(b, pos)
	if want := slowEnd(data, inValue); end != pos+want {
		t.Fatalf("%q ends at %d, want %d", data, end-pos, want)
	}
	line := data[:end-pos]
	switch at := bytes.IndexByte(line, ':'); {
	case at < 0:
		if pos <= colon && colon <= end || known != Unknown {
			t.Fatalf("%q has a colon at %d and name %d, want none", line, colon-pos, known)
		}
	case colon != pos+at:
		t.Fatalf("%q has a colon at %d, want %d", line, colon-pos, at)
	default:
		if want := slowKnown(line[:at]); known != want || Lookup(line[:at]) != want {
			t.Fatalf("%q is name %d and %d, want %d", line[:at], known, Lookup(line[:at]), want)
		}
	}
}

func inName(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.'
}

// slowLines is what Lines takes of data, as names, values and whether for one
// connection only.
func slowLines(data []byte, left int) (taken [][2]string, hop []bool, at int) {
	hops := 0
	for ; left > 0; left-- {
		line := data[at:]
		line = line[:slowEnd(line, func(c byte) bool { return ' ' <= c && c <= '~' })]
		name, value, _ := bytes.Cut(line, []byte(": "))
		known := slowKnown(name)
		switch {
		case !bytes.HasPrefix(data[at+len(line):], []byte("\r\n")),
			len(name) == 0, len(name) > 31, slowEnd(name, inName) < len(name),
			len(value) == 0, len(bytes.Trim(value, " ")) < len(value):
			return taken, hop, at
		case known.Hop():
			if hops++; hops > 4 {
				return taken, hop, at
			}
		}
		taken, hop = append(taken, [2]string{string(name), string(value)}), append(hop, known.Hop())
		at += len(line) + 2
	}
	return taken, hop, at
}

func checkLines(t *testing.T, data []byte, left int) {
	t.Helper()
	const before = "GET / HTTP/1.1\r\n"
	h := Header{arena: []byte(before + string(data) + "\nA: b\r\nC: d\r\n")[:len(before)+len(data)], fields: make([]field, 0, 64)}
	var hops Hops
	b := h.Padded()
	pos, more := h.Lines(b, len(before), left, &hops)
	want, hop, at := slowLines(data, left)
	if pos != len(before)+at || more != left-len(want) {
		t.Fatalf("%q: Lines stops at %d with %d left, want %d and %d", data, pos-len(before), more, at, left-len(want))
	}
	fields, met := h.fields, hops.Met()
	for i, w := range want {
		var got Hop
		known := slowKnown([]byte(w[0]))
		if hop[i] {
			got, met = met[0], met[1:]
		} else {
			f := fields[0]
			got, fields = Hop{Span{f.name, uint32(f.nameLen)}, Span{f.value, f.valueLen}, f.known}, fields[1:]
			if !f.line || h.has&known.bit() == 0 {
				t.Fatalf("%q: field %d is no line, or not among the names", data, i)
			}
		}
		if string(got.Name.Of(b)) != w[0] || string(got.Value.Of(b)) != w[1] || got.Known != known {
			t.Fatalf("%q: got %q %q %d, want %q %d", data, got.Name.Of(b), got.Value.Of(b), got.Known, w, known)
		}
	}
	if len(fields) > 0 || len(met) > 0 {
		t.Fatalf("%q: got %d fields and %d hops too many", data, len(fields), len(met))
	}
}

// TestLines has each byte in each place of lines that are taken, and values and
// names of every length around a step's.
func TestLines(t *testing.T) {
	for _, line := range []string{
		"a: b\r\n", "Host: h\r\nAccept: */*\r\n", "X-Canary-Ab: 12345678\r\nTE: x\r\n", "X-Forwarded-Client-Cert: 1\r\n",
		"access-control-request-method: PUT\r\n", "Access-Control-Allow-Origin: *\r\n", "x-a-name-of-just-31-bytes-in-all: v\r\n",
		"te: 1\r\nTE: 2\r\nte: 3\r\nConnection: 4\r\nHost: 5\r\na: 6\r\n",
	} {
		data := []byte(line)
		checkLines(t, data, 20)
		checkLines(t, data, 1)
		checkLines(t, data, 0)
		for at := range data {
			was := data[at]
			for c := range 256 {
				data[at] = byte(c)
				checkLines(t, data, 20)
			}
			data[at] = was
			checkLines(t, data[:at], 20)
		}
	}
	for k := Unknown + 1; k < numKnown; k++ {
		checkLines(t, []byte(names[k].name+": v\r\n"+names[k].lower+": w\r\n"), 20)
	}
	for n := range 70 {
		run := bytes.Repeat([]byte("x"), n)
		checkLines(t, slices.Concat([]byte("a: "), run, []byte("\r\nb: c\r\n")), 20)
		checkLines(t, slices.Concat(run, []byte(": v\r\nb: c\r\n")), 20)
	}
}

// TestLinesOfLongNames has names that begin as a well-known one does, and every
// pair of bytes where a long name's last letters would be.
func TestLinesOfLongNames(t *testing.T) {
	for k := Unknown + 1; k < numKnown; k++ {
		if len(names[k].name) < 16 {
			continue
		}
		data := []byte(names[k].name + ": " + strings.Repeat("v", 40) + "\r\nA: b\r\n")
		for a := byte(' '); a <= '~'; a++ {
			for c := byte(' '); c <= '~'; c++ {
				data[30], data[31] = a, c
				checkLines(t, data, 20)
			}
		}
	}
}

// TestLinesMakeRoom has more lines than the table had room for: what is left is
// found in place.
func TestLinesMakeRoom(t *testing.T) {
	var h Header
	var hops Hops
	h.Write([]byte("\n" + string(bytes.Repeat([]byte("a: b\r\n"), minFields+3))))
	b := h.Padded()
	if pos, more := h.Lines(b, 1, 100, &hops); h.Len() != minFields || pos != 1+6*minFields || more != 100-minFields {
		t.Fatalf("got %d fields up to %d, %d left", h.Len(), pos, more)
	}
	if pos, more := h.Lines(b, 1+6*minFields, 3, &hops); h.Len() != minFields+3 || pos != len(h.Bytes()) || more != 0 {
		t.Fatalf("then %d fields up to %d, %d left", h.Len(), pos, more)
	}
	if pos, more := h.Lines(b, 0, 100, &hops); pos != 0 || more != 100 {
		t.Fatalf("without a byte before them, lines up to %d are taken", pos)
	}
}

// TestLookupTwin changes each byte of each name to every other.
func TestLookupTwin(t *testing.T) {
	for k := Unknown + 1; k < numKnown; k++ {
		name := names[k].name
		if len(name) < 2 || len(name) > 31 {
			t.Fatalf("%q fits no pattern", name)
		}
		checkLine(t, []byte(name+":"))
		line := []byte(name + ": v")
		for at := range len(name) {
			was := line[at]
			for c := range 256 {
				line[at] = byte(c)
				checkLine(t, line)
			}
			line[at] = was
		}
	}
}

// TestScanTwins has every byte in every place.
func TestScanTwins(t *testing.T) {
	for n := range 25 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte("\xff"), n)
				b[at] = byte(c)
				checkScans(t, b)
				copy(b, bytes.Repeat([]byte("a"), at))
				checkScans(t, b)
				checkLine(t, b)
			}
		}
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		b := make([]byte, rnd.IntN(100))
		for i := range b {
			b[i] = byte(rnd.Uint32())&0x5f | 0x20
			if rnd.IntN(30) == 0 {
				b[i] = "\t\x00\x7f\x80#\x1f:;\xff"[rnd.IntN(9)]
			}
		}
		checkScans(t, b)
		checkLine(t, b)
		checkLines(t, b, 20)
	}
}

func FuzzScans(f *testing.F) {
	for _, s := range []string{"items.demo.svc.cluster.local:8080", "[::1]:80", "a_b", "/api/v1/items?expand=owner", "a\tb\xc3\xa9 c", "\x7f"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkScans(t, b) })
}

func FuzzFieldLine(f *testing.F) {
	for k := range numKnown {
		f.Add([]byte(names[k].name + ": value\r\n"))
		f.Add([]byte("x" + names[k].lower + ":\r\n"))
	}
	f.Add([]byte("no colon\r\n: in this line"))
	f.Add([]byte("a-name-that-is-longer-than-any-that-has-an-id: v\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) { checkLine(t, b) })
}

func FuzzLines(f *testing.F) {
	for k := range numKnown {
		f.Add([]byte(names[k].name+": value\r\nHost: h\r\n\r\n"), byte(20))
		f.Add([]byte("x"+names[k].lower+": 1\r\nx:\r\n"), byte(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, left byte) { checkLines(t, b, int(left&63)) })
}

func BenchmarkLookup(b *testing.B) {
	for _, name := range []string{"User-Agent", "x-forwarded-for", "X-rEQUEST-iD", "X-Custom"} {
		line := []byte(name + ": and a value behind it\r\nand another line")
		b.Run(name+"/line", func(b *testing.B) {
			for b.Loop() {
				FieldLine(line, 0)
			}
		})
		b.Run(name+"/alone", func(b *testing.B) {
			for b.Loop() {
				Lookup(line[:len(name):len(name)])
			}
		})
		b.Run(name+"/folding", func(b *testing.B) {
			row := names[Lookup(line[:len(name)])].lower
			for b.Loop() {
				EqualFold(line[:len(name)], row)
			}
		})
	}
}

func BenchmarkValueEnd(b *testing.B) {
	v := bytes.Repeat([]byte("v"), 64)
	b.Run("words", func(b *testing.B) {
		for b.Loop() {
			ValueEnd(v)
		}
	})
	b.Run("slow", func(b *testing.B) {
		for b.Loop() {
			valueEndSlow(v, 0)
		}
	})
	b.Run("bytes", func(b *testing.B) {
		for b.Loop() {
			valueEndBytes(v)
		}
	})
}

func BenchmarkValidAuthority(b *testing.B) {
	v := []byte("items.demo.svc.cluster.local")
	b.Run("words", func(b *testing.B) {
		for b.Loop() {
			ValidAuthority(v)
		}
	})
	b.Run("bytes", func(b *testing.B) {
		for b.Loop() {
			validAuthority(v)
		}
	})
}
