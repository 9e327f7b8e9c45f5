package route

import (
	"strings"
	"testing"
)

func hosts(names ...string) *Hosts[string] {
	h := new(Hosts[string])
	for _, n := range names {
		h.Add(n, n)
	}
	return h
}

func TestHosts(t *testing.T) {
	named := hosts("a.example", "*.example", "*.b.example", "x.b.example")
	for asked, want := range map[string]string{
		"a.example":     "a.example",
		"A.Example":     "a.example",
		"aa.example":    "*.example",
		"b.example":     "*.example",
		"y.b.example":   "*.b.example",
		"y.x.b.example": "*.b.example",
		"x.b.example":   "x.b.example",
		"example":       "none",
		".example":      "none", // no name, and not one under it
		"a.example.org": "none",
		"":              "none",
	} {
		got, ok := named.Find([]byte(asked))
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", asked, got, want)
		}
	}
	every := hosts("a.example", "")
	for asked, want := range map[string]string{"a.example": "a.example", "b": "", "": "", strings.Repeat("a", maxHost+1): ""} {
		if got, ok := every.Find([]byte(asked)); got != want || !ok {
			t.Errorf("%q: got %q, %v, want %q", asked, got, ok, want)
		}
	}
	if _, ok := new(Hosts[int]).Find([]byte("a")); ok {
		t.Error("found something where nothing is")
	}
	first := new(Hosts[int])
	for i := range 2 {
		for _, name := range []string{"a", "*.a", ""} {
			first.Add(name, i)
		}
	}
	for _, asked := range []string{"a", "b.a", ""} {
		if got, _ := first.Find([]byte(asked)); got != 0 {
			t.Errorf("%q: the first does not stay", asked)
		}
	}
}

// slowHost is the specification: of the names that fit, the longest.
func slowHost(names []string, asked string) string {
	best, rank := "none", -1
	for _, n := range names {
		asked := strings.ToLower(asked)
		r := -1
		switch suffix, wild := strings.CutPrefix(n, "*"); {
		case n == "":
			r = 0
		case len(asked) > maxHost:
		case wild && strings.HasSuffix(asked, suffix) && len(asked) > len(suffix):
			r = len(n)
		case n == asked:
			r = 1000
		}
		if r > rank {
			best, rank = n, r
		}
	}
	return best
}

// FuzzHosts compares finding with trying every name.
func FuzzHosts(f *testing.F) {
	words := []string{"", "*.a", "*.b.a", "a", "b.a", "c.b.a", "*.c.b.a", "aa"}
	f.Add([]byte{1, 2, 3}, "x.b.a")
	f.Add([]byte{6, 2, 0}, "X.C.B.A")
	f.Add([]byte{1}, ".a")
	f.Add([]byte{0, 1}, strings.Repeat("a.", 130))
	f.Fuzz(func(t *testing.T, choices []byte, asked string) {
		for _, c := range asked {
			if c > 127 {
				return // strings.ToLower knows more letters than the DNS
			}
		}
		d := &dice{choices}
		var names []string
		for range 1 + d.roll(len(words)) {
			names = append(names, pick(d, words))
		}
		got, ok := hosts(names...).Find([]byte(asked))
		if !ok {
			got = "none"
		}
		if want := slowHost(names, asked); got != want {
			t.Errorf("%q among %q: got %q, want %q", asked, names, got, want)
		}
	})
}

func TestFindingHostsAllocatesNothing(t *testing.T) {
	h := hosts("a.example", "*.example", "")
	for _, asked := range []string{"A.example", "b.example", "c"} {
		name := []byte(asked)
		if got := testing.AllocsPerRun(100, func() { h.Find(name) }); got != 0 {
			t.Errorf("%s: %v allocations, want 0", asked, got)
		}
	}
}
