package message

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/sandwich-mesh/sandwich/internal/buf"
)

// twin is the obvious header: a list of pairs.
type twin [][2]string

func (w *twin) add(name, value string) { *w = append(*w, [2]string{name, value}) }

func (w *twin) del(name string) {
	*w = slices.DeleteFunc(*w, func(f [2]string) bool { return strings.EqualFold(f[0], name) })
}

func (w *twin) set(name, value string) {
	i := slices.IndexFunc(*w, func(f [2]string) bool { return strings.EqualFold(f[0], name) })
	if i < 0 {
		w.add(name, value)
		return
	}
	first := [2]string{(*w)[i][0], value}
	head := slices.Clone((*w)[:i])
	w.del(name)
	*w = slices.Insert(*w, len(head), first)
}

func pairs(h *Header) (list twin) {
	for name, value := range h.All() {
		list.add(string(name), string(value))
	}
	return list
}

// TestHeaderTwin does the same at random to a Header and to its twin.
func TestHeaderTwin(t *testing.T) {
	names := []string{"Content-Type", "content-type", "X-A", "x-a", "X-B", "ETag", "traceparent", "Y"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var h, copied Header
		var w twin
		for range 40 {
			name, value := names[rnd.IntN(len(names))], strings.Repeat("v", rnd.IntN(30))
			switch rnd.IntN(7) {
			case 0, 1:
				h.Add(name, value)
				w.add(name, value)
			case 2:
				h.AddBytes([]byte(name), []byte(value))
				w.add(name, value)
			case 3:
				h.Set(name, value)
				w.set(name, value)
			case 4:
				h.SetBytes(name, []byte(value))
				w.set(name, value)
			case 5:
				h.Del(name)
				w.del(name)
			case 6:
				h.DelBytes([]byte(name))
				w.del(name)
			}
			if !slices.Equal(pairs(&h), w) {
				t.Fatalf("got %v, want %v", pairs(&h), w)
			}
			checkReaders(t, &h, w, names)
		}
		copied.CopyFrom(&h)
		h.Reset()
		if h.Add("X-Other", "overwritten"); !slices.Equal(pairs(&copied), w) {
			t.Fatalf("copy: got %v, want %v", pairs(&copied), w)
		}
	}
}

func checkReaders(t *testing.T, h *Header, w twin, names []string) {
	t.Helper()
	for _, name := range names {
		var want, got []string
		for _, f := range w {
			if strings.EqualFold(f[0], name) {
				want = append(want, f[1])
			}
		}
		for v := range h.Values(name) {
			got = append(got, string(v))
		}
		v, ok := h.Value(name)
		if !slices.Equal(got, want) || ok != (len(want) > 0) || ok && (string(v) != want[0] || h.Get(name) != want[0]) {
			t.Fatalf("%s: got %q, first %q %v; want %q", name, got, v, ok, want)
		}
		if first, n := h.First(LookupString(name), name); n != len(want) || string(first) != string(v) {
			t.Fatalf("First %s: got %q and %d, want %q and %d", name, first, n, v, len(want))
		}
		if k := LookupString(name); k != Unknown {
			if v2, ok2 := h.ValueOf(k); ok2 != ok || string(v2) != string(v) {
				t.Fatalf("ValueOf %s: got %q, want %q", name, v2, v)
			}
		}
	}
	var lines string
	for _, f := range w {
		lines += f[0] + ": " + f[1] + "\r\n"
	}
	if got := string(h.AppendLines(nil)); got != lines || h.LinesLen() < len(got) {
		t.Fatalf("AppendLines: got %q (at most %d), want %q", got, h.LinesLen(), lines)
	}
}

// TestRoom: what is put together behind the arena is no part of the header, and
// an arena that Reset would drop is not made for it.
func TestRoom(t *testing.T) {
	var h Header
	h.Add("A", "1")
	view, _ := h.Value("A")
	b := h.Room(3000)
	if cap(b) < 3000 {
		t.Fatalf("room for %d bytes, want 3000", cap(b))
	}
	b = append(h.AppendLines(b), "!"...)
	if got, want := string(b), "A: 1\r\n!"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if h.Size() != 6 || string(view) != "1" || h.Get("A") != "1" {
		t.Errorf("header has %d bytes, %q and %q after a use of its room", h.Size(), view, h.Get("A"))
	}
	if got := testing.AllocsPerRun(10, func() { h.Room(3000) }); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
	if h.Room(keepArena-6) == nil || h.Room(keepArena-5) != nil {
		t.Error("the arena grows beyond what Reset keeps, or not up to it")
	}
}

// TestSetCannotEndALine: what a filter computes stays inside its value.
func TestSetCannotEndALine(t *testing.T) {
	var h Header
	h.Set("X-A", "b\r\nEvil: 1\x00\x7f\tc")
	h.Add("X-B", "\n")
	if got, want := string(h.AppendLines(nil)), "X-A: b  Evil: 1  \tc\r\nX-B:  \r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range []string{"", "a b", "a:", "a\r\nb", "\xe9"} {
		if h.Set(name, "v") || h.Add(name, "v") || h.AddBytes([]byte(name), nil) {
			t.Errorf("field name %q was taken", name)
		}
	}
	if !h.Set("x-c", "v") || h.Len() != 3 {
		t.Errorf("control: %v", pairs(&h))
	}
}

// TestHopFieldsAreNotWritten: what a filter sets by these names is left out.
func TestHopFieldsAreNotWritten(t *testing.T) {
	var h Header
	h.Add("A", "1")
	for k := Connection; k <= Host; k++ {
		if !k.Hop() || k.InTrailer() {
			t.Errorf("%s: Hop %v, InTrailer %v", k.Name(), k.Hop(), k.InTrailer())
		}
		h.Add(k.Name(), "x")
	}
	h.Add("B", "2")
	if got, want := string(h.AppendLines(nil)), "A: 1\r\nB: 2\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if Unknown.Hop() || Accept.Hop() || !Unknown.InTrailer() {
		t.Error("a name that is not of one connection only is taken for one")
	}
	if got, want := string(h.AppendTrailers(nil)), "A: 1\r\nB: 2\r\n"; got != want {
		t.Errorf("trailers: got %q, want %q", got, want)
	}
}

// TestKnown: every name is found in any letter case, and nothing else is.
func TestKnown(t *testing.T) {
	for k := Unknown + 1; k < numKnown; k++ {
		row := names[k]
		if row.lower == "" || strings.ToLower(row.name) != row.lower {
			t.Fatalf("row %d is %q and %q", k, row.name, row.lower)
		}
		for _, name := range []string{row.name, row.lower, strings.ToUpper(row.name)} {
			if Lookup([]byte(name)) != k || LookupString(name) != k {
				t.Errorf("%s: got %d, want %d (two names in one slot?)", name, Lookup([]byte(name)), k)
			}
		}
		for _, other := range []string{row.name + "x", row.name[1:], strings.ReplaceAll(row.lower, "-", "\r"), strings.ReplaceAll(row.lower, "-", "_")} {
			if other != row.lower && Lookup([]byte(other)) == k {
				t.Errorf("%q is taken for %s", other, row.name)
			}
		}
	}
	if LookupString("") != Unknown || LookupString("x-nobody") != Unknown {
		t.Error("unknown names are known")
	}
}

// TestHas holds the bits of the names to the fields: what a look at them spares
// must not be there.
func TestHas(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var h Header
	check := func(h *Header) {
		t.Helper()
		for k := range numKnown {
			_, fast := h.ValueOf(k)
			if _, slow := h.valueOf(k); fast != slow {
				t.Fatalf("%q: ValueOf says %v, the fields %v", names[k].name, fast, slow)
			}
		}
	}
	for range 20_000 {
		name := Known(rnd.IntN(int(numKnown))).Name()
		if name == "" {
			name = "x-nobody"
		}
		known := LookupString(name)
		switch rnd.IntN(8) {
		case 0:
			h.Set(name, "v")
		case 1:
			h.Add(name, "v")
		case 2:
			h.Del(name)
		case 3:
			h.DelKnown(known)
		case 4:
			h.DelFirst(known)
		case 5:
			if known != Unknown {
				h.AddKnown(known, []byte("v"))
			}
		case 6:
			h.Line(known, []byte(name), []byte("v"))
		case 7:
			if h.Len() > 12 {
				h.Reset()
			}
		}
		check(&h)
		if _, n := h.First(known, name); (n > 0) != (h.Get(name) != "") {
			t.Fatalf("%s: First finds %d", name, n)
		}
		var other Header
		other.CopyFrom(&h)
		check(&other)
	}
}

func TestValidAuthority(t *testing.T) {
	for _, row := range []struct {
		s    string
		want bool
	}{
		{"h", true}, {"h.example:80", true}, {"10.0.0.1:1", true}, {"[::1]", true}, {"[fe80::1]:65535", true},
		{"a_b", true}, {"%41", true}, {"h:00080", true},
		{"", false}, {":80", false}, {"h:", false}, {"h:0", false}, {"h:65536", false}, {"h:99999999999999999999", false},
		{"h:8a", false}, {"h:80:80", false}, {"u@h", false}, {"a,b", false}, {"h/", false}, {"h h", false}, {"h\x00", false},
		{"[::1", false}, {"::1", false}, {"[]", false}, {"[h]", false}, {"[::1]x", false}, {"[::1]:", false}, {"[fe80::1%25e]", false},
		{"\xc3\xa9", false}, {"h?", false}, {"h#", false}, {"h\\", false},
	} {
		if got := ValidAuthority([]byte(row.s)); got != row.want {
			t.Errorf("%q: got %v, want %v", row.s, got, row.want)
		}
	}
}

func TestValidMethodAndPath(t *testing.T) {
	for s, want := range map[string]bool{
		"GET": true, "PURGE": true, "M-SEARCH": true, "get": false, "Get": false, "oPTIONS": false, "got": true, "": false, "G T": false, "G\r\n": false,
	} {
		if got := ValidMethod([]byte(s)); got != want {
			t.Errorf("method %q: got %v, want %v", s, got, want)
		}
	}
	for s, want := range map[string]bool{
		"/": true, "*": true, "/a?b=|{}\"": true, "": false, "a": false, "*a": false, "/ a": false, "/\x7f": false, "/\xe9": false, "/#": false, "/\r\n": false,
	} {
		if got := ValidPath([]byte(s)); got != want {
			t.Errorf("path %q: got %v, want %v", s, got, want)
		}
	}
}

func sample() *Request {
	r := &Request{Length: 5, ExpectContinue: true, Proto: HTTP10}
	r.SetMethod([]byte("POST"))
	r.SetPath([]byte("/a?b"))
	r.SetAuthority([]byte("h:80"))
	r.SetUpgrade([]byte("websocket"))
	r.Scheme = []byte("http")
	r.Header.Add("X-A", "1")
	r.Trailer.Add("X-T", "2")
	return r
}

// TestCopyFrom: a copy outlives what it was made from.
func TestCopyFrom(t *testing.T) {
	src, dst := sample(), &Request{}
	dst.CopyFrom(src)
	src.Reset()
	for range 9 {
		src.Header.Add("Overwritten", strings.Repeat("x", 50))
	}
	if string(dst.Method) != "POST" || string(dst.Path) != "/a?b" || string(dst.Authority) != "h:80" || string(dst.Upgrade) != "websocket" ||
		string(dst.Scheme) != "http" || dst.Header.Get("x-a") != "1" || dst.Trailer.Get("x-t") != "2" ||
		dst.Length != 5 || !dst.ExpectContinue || dst.Proto != HTTP10 {
		t.Errorf("got %+v", dst)
	}
	a, b := &Response{Status: 101, Length: 3}, &Response{}
	a.SetReason([]byte("Why Not"))
	a.SetUpgrade([]byte("websocket"))
	a.Header.Add("X-A", "1")
	b.CopyFrom(a)
	a.Reset()
	a.Header.Add("Overwritten", strings.Repeat("x", 50))
	if b.Status != 101 || b.Length != 3 || string(b.Reason) != "Why Not" || string(b.Upgrade) != "websocket" || b.Header.Get("x-a") != "1" {
		t.Errorf("got %+v", b)
	}
}

func TestSettersRefuse(t *testing.T) {
	r := sample()
	if r.SetMethod([]byte("get")) || r.SetPath([]byte("x y")) || r.SetAuthority([]byte("u@h")) || r.SetUpgrade([]byte("a\r\n")) {
		t.Error("an invalid value was set")
	}
	if string(r.Method) != "POST" || string(r.Path) != "/a?b" || string(r.Authority) != "h:80" {
		t.Errorf("refused values changed the request: %s %s %s", r.Method, r.Authority, r.Path)
	}
	q := &Response{}
	if q.SetReason([]byte("a\r\n")) || !q.SetReason([]byte("fine")) || string(q.Reason) != "fine" {
		t.Errorf("reason %q", q.Reason)
	}
}

// TestReset: nothing of a message is left in the next, small arenas stay and
// large ones go.
func TestReset(t *testing.T) {
	r := sample()
	view, _ := r.Header.Value("x-a")
	r.Reset()
	if r.Method != nil || r.Path != nil || r.Upgrade != nil || r.Header.Len() != 0 || r.Trailer.Len() != 0 || r.Length != 0 || r.ExpectContinue || r.Proto != HTTP11 {
		t.Errorf("got %+v", r)
	}
	if buf.Check && string(view) != "\xdb" {
		t.Errorf("a view kept too long reads %q, want poison", view)
	}
	for _, row := range []struct {
		size int
		kept bool
	}{{8 << 10, true}, {20 << 10, false}} {
		var h Header
		h.Write(make([]byte, row.size))
		h.Reset()
		if got := cap(h.arena) > 0; got != row.kept || h.Size() != 0 {
			t.Errorf("arena of %d bytes: kept %v, want %v", row.size, got, row.kept)
		}
	}
}

func TestStatusText(t *testing.T) {
	for status, want := range map[int]string{100: "Continue", 200: "OK", 308: "Permanent Redirect", 404: "Not Found", 431: "Request Header Fields Too Large", 503: "Service Unavailable", 511: "Network Authentication Required", 99: "", 299: "", 600: "", 999: "", -1: ""} {
		if got := StatusText(status); got != want {
			t.Errorf("%d: got %q, want %q", status, got, want)
		}
	}
}

// TestAllocations: a warm message costs nothing to fill, read, edit and write.
func TestAllocations(t *testing.T) {
	var h Header
	var out []byte
	got := testing.AllocsPerRun(100, func() {
		h.Reset()
		h.Add("Content-Type", "text/plain")
		h.Add("X-Custom", "1")
		h.SetBytes("x-custom", []byte("2"))
		h.Set("X-Request-ID", "abc")
		h.Del("content-type")
		for range h.All() {
		}
		for range h.Values("x-custom") {
		}
		if _, ok := h.Value("x-request-id"); !ok {
			t.Error("not found")
		}
		out = h.AppendLines(out[:0])
	})
	if got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

func TestSizes(t *testing.T) {
	for _, row := range []struct {
		name      string
		got, want uintptr
	}{
		{"field", unsafe.Sizeof(field{}), 16},
		{"Header", unsafe.Sizeof(Header{}), 56},
		{"Request", unsafe.Sizeof(Request{}), 248},
		{"Response", unsafe.Sizeof(Response{}), 184},
		{"Chunk", unsafe.Sizeof(Chunk{}), 40},
	} {
		if row.got != row.want {
			t.Errorf("%s is %d bytes, want %d: adjust the budget, or the struct", row.name, row.got, row.want)
		}
	}
}

// fill sets every field of a struct but its headers to something.
func fill(t *testing.T, v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Slice:
			f.SetBytes([]byte("x"))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		case reflect.Uint8:
			f.SetUint(1)
		case reflect.Struct:
			f.Addr().Interface().(*Header).Add("A", "1")
		default:
			t.Fatalf("%s: how is a %s filled?", v.Type().Field(i).Name, f.Kind())
		}
	}
}

// TestResetForgetsAll: Reset names the fields one by one, so none may be missed.
func TestResetForgetsAll(t *testing.T) {
	for _, m := range []interface{ Reset() }{new(Request), new(Response)} {
		v := reflect.ValueOf(m).Elem()
		fill(t, v)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("control: %s was not filled", v.Type().Field(i).Name)
			}
		}
		m.Reset()
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			if h, ok := f.Addr().Interface().(*Header); ok && (h.Len() != 0 || h.Size() != 0) || !ok && !f.IsZero() {
				t.Errorf("%T: %s outlives Reset", m, name)
			}
		}
	}
}

// BenchmarkReset makes a request ready for the next, and does so by assignment.
func BenchmarkReset(b *testing.B) {
	var r Request
	b.Run("fields", func(b *testing.B) {
		for b.Loop() {
			r.Reset()
		}
	})
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			r.Header.Reset()
			r.Trailer.Reset()
			r = Request{Header: r.Header, Trailer: r.Trailer}
		}
	})
}

// BenchmarkAbsent asks a head of seven fields for a name that it has not.
func BenchmarkAbsent(b *testing.B) {
	h := new(Header)
	for _, name := range []string{"host", "user-agent", "accept", "x-canary", "authorization", "traceparent", "x-echo"} {
		h.Add(name, "value")
	}
	b.Run("bit", func(b *testing.B) {
		for b.Loop() {
			h.ValueOf(GRPCTimeout)
		}
	})
	b.Run("fields", func(b *testing.B) {
		for b.Loop() {
			h.valueOf(GRPCTimeout)
		}
	})
}

// BenchmarkFirst counts the fields of a name that has an id, and of one that has none.
func BenchmarkFirst(b *testing.B) {
	h := new(Header)
	for _, name := range []string{"host", "user-agent", "accept", "x-canary", "authorization", "traceparent", "x-echo"} {
		h.Add(name, "value")
	}
	for _, name := range []string{"traceparent", "x-canary"} {
		known := LookupString(name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				h.First(known, name)
			}
		})
	}
}

func BenchmarkAppendLines(b *testing.B) {
	var h Header
	for _, f := range []string{"Accept", "Accept-Encoding", "Content-Type", "Traceparent", "User-Agent", "X-A", "X-Request-ID"} {
		h.Add(f, strings.Repeat("v", 25))
	}
	out := make([]byte, 0, 1024)
	b.Run("together", func(b *testing.B) {
		for b.Loop() {
			h.AppendLines(out)
		}
	})
	for i := range h.fields {
		h.fields[i].line = false
	}
	b.Run("singly", func(b *testing.B) {
		for b.Loop() {
			h.AppendLines(out)
		}
	})
}
