package route

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func TestExplain(t *testing.T) {
	gold := []Value{{Name: "x-tier", Value: "gold"}}
	tab := table(t,
		path(Prefix, "/"),
		Match{Path: Path{Prefix, "/a"}, Headers: gold},
		Match{Path: Path{Prefix, "/a"}, Method: "PUT"},
		Match{Path: Path{Exact, "/a/b"}, Query: []Value{{Name: "q", Value: "1"}}},
		path(Regex, "/a/.*"),
		path(Prefix, "/other"),
		path(Regex, "/other"),
	)
	met, others := tab.Explain(request(t, "GET /a/b?q=2 x-tier=gold"))
	var got []string
	for _, m := range met {
		got = append(got, fmt.Sprint(m.Result, " ", m.Fails))
	}
	want := []string{"3 query parameter q does not fit", "2 the method is not PUT", "1 ", "0 ", "4 "}
	if !slices.Equal(got, want) || others != 2 {
		t.Errorf("got %q and %d others, want %q and 2", got, others, want)
	}
}

// FuzzExplain: the first match of which all holds is the one that Find finds.
func FuzzExplain(f *testing.F) {
	f.Add([]byte{3, 1, 0, 0, 2, 1, 0, 0}, []byte("/a/b?x=1"), []byte("1"))
	f.Add([]byte{7, 2, 1, 2, 0, 1, 1, 0, 0, 2, 2, 1, 3, 0, 1, 2, 2, 2, 0, 1}, []byte("/a//b?X=a+b&y=%31"), []byte("2"))
	f.Fuzz(func(t *testing.T, choices, target, value []byte) {
		d := &dice{choices}
		rules := d.rules()
		tab, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		r := new(message.Request)
		r.SetMethod([]byte("GET"))
		if !r.SetPath(target) {
			return
		}
		r.Header.AddBytes([]byte("x"), value)
		want, ok := tab.Find(r)
		met, others := tab.Explain(r)
		first := slices.IndexFunc(met, func(c Considered[int]) bool { return c.Fails == "" })
		if (first >= 0) != ok || ok && met[first].Result != want {
			t.Errorf("found %d %v, explained %v", want, ok, met)
		}
		matches := 0
		for _, one := range rules {
			matches += max(len(one.Matches), 1)
		}
		if len(met)+others != matches {
			t.Errorf("%d met and %d others of %d matches", len(met), others, matches)
		}
	})
}

func TestExplainCalls(t *testing.T) {
	tab := table(t,
		Match{Call: &Call{}, Headers: []Value{{Name: "x", Value: "1"}}},
		Match{Call: &Call{Service: "shop.Cart"}},
		Match{Call: &Call{Service: "shop.Cart", Method: "Add"}, Headers: []Value{{Name: "x", Value: "1"}}},
		Match{Call: &Call{Service: "shop.Other"}},
	)
	met, others := tab.Explain(request(t, "POST /shop.Cart/Add"))
	if len(met) != 3 || others != 1 || met[0].Result != 2 || met[0].Fails == "" || met[1].Result != 1 || met[1].Fails != "" {
		t.Errorf("got %v and %d others", met, others)
	}
}
