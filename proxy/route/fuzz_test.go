package route

import (
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A dice turns fuzz bytes into choices.
type dice struct{ b []byte }

func (d *dice) roll(n int) int {
	if len(d.b) == 0 {
		return 0
	}
	v := int(d.b[0]) % n
	d.b = d.b[1:]
	return v
}

func pick[T any](d *dice, of []T) T { return of[d.roll(len(of))] }

// Few words, so that rules and requests meet.
var (
	paths   = []string{"", "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a//b", "//", "/b"}
	exprs   = []string{"/a.*", "/a/[ab]", "/(a|b)", ".*", "/"}
	methods = []string{"", "GET", "POST"}
	names   = []string{"x", "X", "y", "host"}
	values  = []string{"1", "1,1", "", "2", "a b"}
	valexps = []string{"[0-9]", ".*", "1?", "1,.*"}
)

func (d *dice) values() (out []Value) {
	for range d.roll(3) {
		if v := (Value{Name: pick(d, names), Regex: d.roll(3) == 0}); v.Regex {
			v.Value = pick(d, valexps)
			out = append(out, v)
		} else {
			v.Value = pick(d, values)
			out = append(out, v)
		}
	}
	return out
}

func (d *dice) rules() (out []Rule[int]) {
	for i := range 1 + d.roll(8) {
		r := Rule[int]{Result: i}
		for range d.roll(3) {
			m := Match{Method: pick(d, methods)}
			switch m.Path.Type = PathType(d.roll(3)); m.Path.Type {
			case Regex:
				m.Path.Value = pick(d, exprs)
			case Prefix:
				m.Path.Value = pick(d, paths)
			case Exact:
				m.Path.Value = pick(d, paths[1:])
			}
			m.Headers, m.Query = d.values(), d.values()
			r.Matches = append(r.Matches, m)
		}
		out = append(out, r)
	}
	return out
}

// FuzzFind compares the table with the specification, rule by rule.
func FuzzFind(f *testing.F) {
	f.Add([]byte{3, 1, 0, 0, 2, 1, 0, 0}, []byte("/a/b?x=1"), []byte("1"), []byte("2"))
	f.Add([]byte{7, 2, 1, 2, 0, 1, 1, 0, 0, 2, 2, 1, 3, 0, 1, 2, 2, 2, 0, 1}, []byte("/a//b?X=a+b&y=%31"), []byte(""), []byte("1"))
	f.Add([]byte{5, 2, 0, 1, 4, 2, 0, 1, 0, 1, 1, 0, 2, 2, 0, 3}, []byte("/?&=&x"), []byte("1,1"), []byte("1"))
	f.Add([]byte{1, 1, 1, 1, 1, 1, 1}, []byte("*"), []byte("1"), []byte("1"))
	f.Fuzz(func(t *testing.T, choices, target, first, second []byte) {
		d := &dice{choices}
		rules := d.rules()
		tab, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		r := new(message.Request)
		r.SetMethod([]byte(pick(d, methods[1:])))
		if !r.SetPath(target) {
			return
		}
		r.SetAuthority([]byte(pick(d, []string{"1", "2"})))
		r.Header.AddBytes([]byte("x"), first)
		r.Header.AddBytes([]byte(pick(d, names[:3])), second)
		got, ok := tab.Find(r)
		if !ok {
			got = -1
		}
		if want := slowFind(rules, r); got != want {
			t.Errorf("%s: got rule %d, want %d of %+v", target, got, want, rules)
		}
	})
}

// FuzzDecode compares decoding byte by byte with the obvious way.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "a+b", "%41%zz%4", "%%41", "%2", "%2B+%2b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		want := slowDecode(string(raw))
		if got := string(decode(raw)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !equalDecoded(raw, want) || equalDecoded(raw, want+"x") || len(want) > 0 && equalDecoded(raw, want[1:]+"\x00x") {
			t.Errorf("%q is not equal to itself, or to something else", raw)
		}
	})
}
