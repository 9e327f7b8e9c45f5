package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// request reads "METHOD path name=value name=value …".
func request(t testing.TB, text string) *message.Request {
	t.Helper()
	words := strings.Fields(text)
	r := new(message.Request)
	r.SetAuthority([]byte("reviews"))
	if !r.SetMethod([]byte(words[0])) || !r.SetPath([]byte(words[1])) {
		t.Fatalf("%q is no request", text)
	}
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "host":
			r.SetAuthority([]byte(value))
		case "upgrade":
			r.SetUpgrade([]byte(value))
		default:
			r.Header.Add(name, value)
		}
	}
	return r
}

func path(t PathType, v string) Match { return Match{Path: Path{t, v}} }

func table(t testing.TB, matches ...Match) *Table[int] {
	t.Helper()
	var rules []Rule[int]
	for i, m := range matches {
		rules = append(rules, Rule[int]{[]Match{m}, i})
	}
	tab, err := New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestOneMatch(t *testing.T) {
	header := func(v ...Value) Match { return Match{Headers: v} }
	query := func(v ...Value) Match { return Match{Query: v} }
	for name, tc := range map[string]struct {
		m   Match
		yes []string
		no  []string
	}{
		"zero":              {Match{}, []string{"GET /", "PUT /a?b"}, []string{"OPTIONS *"}},
		"prefix":            {path(Prefix, "/abc"), []string{"GET /abc", "GET /abc/", "GET /abc/d", "GET /abc?x=/", "GET /abc//"}, []string{"GET /abcd", "GET /ab", "GET /ABC", "GET //abc", "GET /x/abc", "GET /"}},
		"prefix with slash": {path(Prefix, "/abc/"), []string{"GET /abc", "GET /abc/", "GET /abc/d"}, []string{"GET /abcd"}},
		"prefix, two deep":  {path(Prefix, "/a/b"), []string{"GET /a/b", "GET /a/b/c"}, []string{"GET /a", "GET /a/", "GET /a/c/b", "GET /a//b"}},
		"path as received":  {path(Prefix, "/a/b"), []string{"GET /a/b/../c"}, []string{"GET /a/./b", "GET /a%2Fb", "GET /%61/b"}},
		"exact":             {path(Exact, "/abc"), []string{"GET /abc", "GET /abc?x"}, []string{"GET /abc/", "GET /abc/d", "GET /abcd"}},
		"regex":             {path(Regex, "/v[0-9]+|/w"), []string{"GET /v12", "GET /w", "GET /w?/v"}, []string{"GET /v12/", "GET /x/v1", "GET /v"}},
		"method":            {Match{Method: "GET"}, []string{"GET /"}, []string{"POST /", "HEAD /"}},
		"header":            {header(Value{Name: "X-Tier", Value: "gold"}), []string{"GET / x-tier=gold", "GET / a=b X-TIER=gold"}, []string{"GET /", "GET / x-tier=Gold", "GET / x-tier=gold x-tier=gold", "GET / x-tie=gold"}},
		"header, repeated":  {header(Value{Name: "a", Value: "1,2"}), []string{"GET / a=1 a=2", "GET / a=1,2"}, []string{"GET / a=1", "GET / a=1 a=2 a=3", "GET / a=2 a=1", "GET / a=1 a="}},
		"header, regex":     {header(Value{Name: "a", Value: "[0-9],?", Regex: true}), []string{"GET / a=1", "GET / a=1 a="}, []string{"GET / a=x", "GET / a=12", "GET / a=1 a=2"}},
		"two headers":       {header(Value{Name: "a", Value: "1"}, Value{Name: "b", Value: "2"}), []string{"GET / a=1 b=2", "GET / b=2 a=1"}, []string{"GET / a=1", "GET / b=2"}},
		"same header twice": {header(Value{Name: "a", Value: "1"}, Value{Name: "A", Value: "2"}), []string{"GET / a=1"}, []string{"GET / a=2"}},
		"host":              {header(Value{Name: "Host", Value: "b"}), []string{"GET / host=b"}, []string{"GET / host=c", "GET / hos=b"}},
		"upgrade":           {header(Value{Name: "upgrade", Value: "(?i)websocket", Regex: true}), []string{"GET / upgrade=WebSocket"}, []string{"GET /", "GET / upgrade=h2c"}},
		"any upgrade":       {header(Value{Name: "upgrade", Value: ".*", Regex: true}), []string{"GET / upgrade=x"}, []string{"GET /"}},
		"query":             {query(Value{Name: "a", Value: "1"}), []string{"GET /?a=1", "GET /?b=2&a=1", "GET /?a=1&a=2", "GET /?&&a=1&"}, []string{"GET /", "GET /?", "GET /?a", "GET /?A=1", "GET /?a=2&a=1", "GET /?aa=1", "GET /?x=a=1", "GET /?a=1;b=2", "GET /a=1"}},
		"query, encoded":    {query(Value{Name: "a b", Value: "x+y%"}), []string{"GET /?a+b=x%2By%25", "GET /?a%20b=x%2by%", "GET /?%61%20b=%78%2B%79%25"}, []string{"GET /?a+b=x+y%25", "GET /?a+b=x%2", "GET /?a+b=x%2By%2"}},
		"query, not hex":    {query(Value{Name: "a", Value: "%zz%4"}), []string{"GET /?a=%zz%4", "GET /?a=%25zz%4"}, []string{"GET /?a=zz4"}},
		"query, empty":      {query(Value{Name: "a", Value: ""}), []string{"GET /?a", "GET /?a=", "GET /?b&a"}, []string{"GET /?b", "GET /?a=1", "GET /?=a"}},
		"query, regex":      {query(Value{Name: "a", Value: "x .*", Regex: true}), []string{"GET /?a=x%20y", "GET /?a=x+"}, []string{"GET /?a=xy", "GET /?a=%20x%20"}},
	} {
		t.Run(name, func(t *testing.T) {
			tab := table(t, tc.m)
			for _, want := range []bool{true, false} {
				for _, text := range map[bool][]string{true: tc.yes, false: tc.no}[want] {
					r := request(t, text)
					if _, got := tab.Find(r); got != want {
						t.Errorf("%s: got %v", text, got)
					}
					if got := slowFind([]Rule[int]{{Matches: []Match{tc.m}}}, r) == 0; got != want {
						t.Errorf("%s: the slow twin says %v", text, got)
					}
				}
			}
		})
	}
}

// The request holds for both matches; the first of the two wins, wherever it
// stands.
func TestPrecedence(t *testing.T) {
	h := func(n int) (out []Value) {
		for i := range n {
			out = append(out, Value{Name: fmt.Sprint("h", i), Value: "1"})
		}
		return out
	}
	q := func(n int) (out []Value) {
		for i := range n {
			out = append(out, Value{Name: fmt.Sprint("q", i), Value: "1"})
		}
		return out
	}
	r := request(t, "GET /a/b?q0=1&q1=1 h0=1 h1=1")
	for name, m := range map[string][2]Match{
		"exact before prefix, whatever else": {path(Exact, "/a/b"), {Path: Path{Prefix, "/a/b"}, Method: "GET", Headers: h(2), Query: q(2)}},
		"exact before regex":                 {path(Exact, "/a/b"), path(Regex, "/a/b|/a/long/one")},
		"prefix before regex":                {path(Prefix, "/"), path(Regex, "/a/b")},
		"longer prefix":                      {path(Prefix, "/a/b"), {Path: Path{Prefix, "/a"}, Method: "GET", Headers: h(2), Query: q(2)}},
		"longer regex":                       {path(Regex, "/a/[b]"), {Path: Path{Regex, "/a/b"}, Method: "GET", Headers: h(2), Query: q(2)}},
		"method":                             {{Method: "GET"}, {Headers: h(2), Query: q(2)}},
		"more headers":                       {{Headers: h(2)}, {Headers: h(1), Query: q(2)}},
		"more query parameters":              {{Query: q(2)}, {Query: q(1)}},
	} {
		if got, _ := table(t, m[0], m[1]).Find(r); got != 0 {
			t.Errorf("%s: got the other one", name)
		}
		if got, _ := table(t, m[1], m[0]).Find(r); got != 1 {
			t.Errorf("%s: got the other one, which stands first", name)
		}
	}
	if got, _ := table(t, Match{Headers: h(1)}, Match{Headers: h(1)[:1]}).Find(r); got != 0 {
		t.Error("equal matches: the later one won")
	}
}

// A rule that is more specific by path and does not hold gives way.
func TestFallsBackToTheShorterPrefix(t *testing.T) {
	tab := table(t, Match{Path: Path{Exact, "/a/b"}, Method: "PUT"}, Match{Path: Path{Prefix, "/a/b"}, Method: "POST"},
		path(Prefix, "/a"), path(Prefix, "/a/b/c"), Match{Path: Path{Regex, ".*"}})
	for text, want := range map[string]int{"PUT /a/b": 0, "POST /a/b": 1, "GET /a/b": 2, "GET /a/b/c": 3, "GET /x": 4} {
		if got, ok := tab.Find(request(t, text)); got != want || !ok {
			t.Errorf("%s: got %d, %v, want %d", text, got, ok, want)
		}
	}
}

func TestSeveralMatchesAndNone(t *testing.T) {
	tab, err := New([]Rule[string]{
		{[]Match{path(Prefix, "/a"), path(Exact, "/b")}, "either"},
		{nil, "rest"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"GET /a/x": "either", "GET /b": "either", "GET /b/x": "rest"} {
		if got, _ := tab.Find(request(t, text)); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	empty, _ := New[string](nil)
	if got, ok := empty.Find(request(t, "GET /")); ok || got != "" || tab.Len() != 2 {
		t.Errorf("an empty table has %q", got)
	}
}

func TestRefusedMatches(t *testing.T) {
	for want, m := range map[string]Match{
		`path: "a" is no path`:                path(Prefix, "a"),
		`path: "*" is no path`:                path(Exact, "*"),
		`path: "" is no path`:                 path(Exact, ""),
		`path: "/a?b" is no path`:             path(Prefix, "/a?b"),
		`path: "/a b" is no path`:             path(Prefix, "/a b"),
		"path: unknown type 9":                path(9, "/"),
		"path: error parsing regexp":          path(Regex, "("),
		"unexpected )":                        path(Regex, ")(?:"),
		`method: "get" is none`:               {Method: "get"},
		`header "a b": no field`:              {Headers: []Value{{Name: "a b"}}},
		`header "content-length": it belongs`: {Headers: []Value{{Name: "Content-Length"}}},
		`header "a": error parsing regexp`:    {Headers: []Value{{Name: "a", Value: "[", Regex: true}}},
		`query parameter "a": error`:          {Query: []Value{{Name: "a", Value: "[", Regex: true}}},
	} {
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := New([]Rule[int]{{}, {Matches: []Match{{}, m}}}); err == nil || !strings.Contains(err.Error(), "rule 1, match 1: ") {
			t.Errorf("New says %v", err)
		}
	}
	good := Match{Path{Regex, "()"}, "GET", []Value{{Name: "a", Value: "1"}}, []Value{{Name: "a", Value: "[ab]", Regex: true}}, nil}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

// many is a table as a large service has: a hundred prefixes, exact paths and
// rules that differ in one header.
func many(t testing.TB) *Table[int] {
	var list []Match
	for i := range 100 {
		list = append(list, path(Prefix, fmt.Sprintf("/api/v%d/things", i)), path(Exact, fmt.Sprintf("/static/%d.js", i)),
			Match{Path: Path{Prefix, "/tenant"}, Headers: []Value{{Name: "x-tenant", Value: fmt.Sprint(i)}}})
	}
	return table(t, append(list, Match{Path: Path{Prefix, "/q"}, Query: []Value{{Name: "tier", Value: "gold"}}}, path(Regex, "/re/[0-9]+"))...)
}

var manyRequests = map[string]string{
	"prefix": "GET /api/v77/things/12?x=1 accept=x", "exact": "GET /static/50.js accept=x", "none": "GET /other accept=x",
	"100 headers": "GET /tenant/x accept=x user-agent=y x-request-id=z x-tenant=99", "query": "GET /q?a=1&tier=gold", "regex": "GET /re/123",
}

func TestFindAllocatesNothing(t *testing.T) {
	tab := many(t)
	for name, text := range manyRequests {
		r := request(t, text)
		if got := testing.AllocsPerRun(100, func() { tab.Find(r) }); got != 0 {
			t.Errorf("%s: %v allocations, want 0", name, got)
		}
	}
	repeated := request(t, "GET /tenant/x x-tenant=9 x-tenant=9")
	if got := testing.AllocsPerRun(100, func() { tab.Find(repeated) }); got != 0 {
		t.Errorf("repeated header: %v allocations, want 0", got)
	}
}

func BenchmarkFind(b *testing.B) {
	tab := many(b)
	for name, text := range manyRequests {
		r := request(b, text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				tab.Find(r)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	w, err := NewWeights([]int32{0, 90, 0, 10})
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]int, 4)
	for range 100_000 {
		i, ok := w.Pick(rand.Uint32())
		if !ok {
			t.Fatal("nothing picked")
		}
		counts[i]++
	}
	if counts[0] != 0 || counts[2] != 0 || counts[1] < 89_000 || counts[1] > 91_000 {
		t.Errorf("picked %v of 100000, want 90 and 10 %%", counts)
	}
	for random, want := range map[uint32]int{0: 1, 1<<32 - 1: 3} {
		if got, ok := w.Pick(random); got != want || !ok {
			t.Errorf("random %d: got %d, %v, want %d", random, got, ok, want)
		}
	}
	for name, shares := range map[string][]int32{"none": nil, "all zero": {0, 0}} {
		w, err := NewWeights(shares)
		if _, ok := w.Pick(1<<32 - 1); ok || err != nil {
			t.Errorf("%s: picked, or %v", name, err)
		}
	}
	for _, shares := range [][]int32{{-1}, {MaxWeight + 1}} {
		if _, err := NewWeights(shares); err == nil {
			t.Errorf("%v was taken", shares)
		}
	}
	full := make([]int32, 5000) // the sum does not overflow
	for i := range full {
		full[i] = MaxWeight
	}
	w, _ = NewWeights(full)
	if got, ok := w.Pick(1<<32 - 1); got != 4999 || !ok {
		t.Errorf("got %d, %v", got, ok)
	}
}
