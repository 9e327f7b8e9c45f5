package message

import (
	"bytes"
	"math/rand/v2"
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
