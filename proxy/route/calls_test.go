package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func calling(service, method string, headers ...Value) Match {
	return Match{Call: &Call{Service: service, Method: method}, Headers: headers}
}

func callingRegex(service, method string) Match {
	return Match{Call: &Call{Service: service, Method: method, Regex: true}}
}

func TestOneCall(t *testing.T) {
	for name, tc := range map[string]struct {
		m   Match
		yes []string
		no  []string
	}{
		"everything":         {calling("", ""), []string{"POST /a.B/c", "POST /", "GET /healthz"}, nil},
		"service and method": {calling("a.B", "c"), []string{"POST /a.B/c", "POST /a.B/c?x"}, []string{"POST /a.B/C", "POST /a.B/c/", "POST /a.B/cc", "POST /A.B/c", "POST /x/a.B/c"}},
		"service":            {calling("a.B", ""), []string{"POST /a.B/c", "POST /a.B/d", "POST /a.B/"}, []string{"POST /a.B", "POST /a.Bc/d", "POST /a.B/c/d", "POST /a/B"}},
		"method":             {calling("", "c"), []string{"POST /a.B/c", "POST /x/c"}, []string{"POST /c", "POST /a.B/d", "POST /a.B/cc", "POST /c/d"}},
		"service by regex":   {callingRegex(`a\..*`, ""), []string{"POST /a.B/c", "POST /a./d"}, []string{"POST /b.a.B/c", "POST /ab/c"}},
		"both by regex":      {callingRegex("a|b", "Get.+"), []string{"POST /a/GetX", "POST /b/GetY"}, []string{"POST /a/Get", "POST /ab/GetX", "POST /a/xGetX"}},
		"a header":           {calling("a.B", "", Value{Name: "x", Value: "1"}), []string{"POST /a.B/c x=1"}, []string{"POST /a.B/c x=2", "POST /a.B/c", "POST /b/c x=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			tab := table(t, tc.m)
			for _, text := range tc.yes {
				if _, ok := tab.Find(request(t, text)); !ok {
					t.Errorf("%s does not match", text)
				}
			}
			for _, text := range tc.no {
				if _, ok := tab.Find(request(t, text)); ok {
					t.Errorf("%s matches", text)
				}
			}
		})
	}
}

// TestCallPrecedence: of all rules the one that is asked for last is the most
// specific, and each takes over from those before it.
func TestCallPrecedence(t *testing.T) {
	x := Value{Name: "x", Value: "1"}
	order := []Match{
		calling("", ""),
		calling("", "", x),
		calling("", "Get"),
		calling("", "Get", x),
		callingRegex("", "G.{1,9}"),
		callingRegex("s.+", ""),
		callingRegex("s.+", "Get"),
		callingRegex("sh[o]p.*", ""),
		calling("shop", ""),
		calling("shop", "", x),
		calling("shop", "Get"),
		calling("shop", "Get", x),
	}
	for n := 1; n <= len(order); n++ {
		var rules []Rule[int]
		for i := n - 1; i >= 0; i-- { // the order of the table does not matter
			rules = append(rules, Rule[int]{[]Match{order[i]}, i})
		}
		tab, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := tab.Find(request(t, "POST /shop/Get x=1")); !ok || got != n-1 {
			t.Errorf("of %d rules got %d, %v, want the last", n, got, ok)
		}
	}
	same := table(t, calling("shop", "Get"), calling("shop", "Get"))
	if got, _ := same.Find(request(t, "POST /shop/Get")); got != 0 {
		t.Errorf("of equal rules got %d, want the first", got)
	}
}

func TestCallsDoNotMix(t *testing.T) {
	for want, rules := range map[string][]Rule[int]{
		"rule 1, match 0: rules for gRPC": {{Matches: []Match{calling("a", "b")}}, {Matches: []Match{path(Prefix, "/")}}},
		"rule 0, match 0: rules for gRPC": {{Matches: []Match{path(Prefix, "/")}}, {Matches: []Match{calling("a", "b")}}},
		"in place of path":                {{Matches: []Match{{Call: &Call{}, Method: "GET"}}}},
		"has a slash":                     {{Matches: []Match{calling("a/b", "")}}},
		"missing closing":                 {{Matches: []Match{callingRegex("(", "")}}},
	} {
		if _, err := New(rules); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	tab, err := New([]Rule[int]{{nil, 0}, {[]Match{calling("a", "b")}, 1}}) // a rule without matches takes all of either sort
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"POST /a/b": 1, "POST /b/a": 0} {
		if got, ok := tab.Find(request(t, text)); !ok || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, ok, want)
		}
	}
}

// slowCall is the specification for one match: nil if it does not hold, else its
// precedence, widest first.
func slowCall(m *Match, r *message.Request) []int {
	path, _, _ := strings.Cut(string(r.Path), "?")
	service, method := "", ""
	if parts := strings.Split(path, "/"); len(parts) > 2 && parts[0] == "" {
		service, method = strings.Join(parts[1:len(parts)-1], "/"), parts[len(parts)-1]
	}
	c := m.Call
	for _, part := range [][2]string{{c.Service, service}, {c.Method, method}} {
		want, got := part[0], part[1]
		if want != "" && (c.Regex && !slowWhole(want, got) || !c.Regex && want != got) {
			return nil
		}
	}
	headers := slowFirst(m.Headers, strings.ToLower)
	for _, h := range headers {
		if v, ok := slowHeader(r, h.Name); !ok || !slowFits(h, v) {
			return nil
		}
	}
	exact := 0
	if !c.Regex && c.Service != "" {
		exact = 1
		if c.Method != "" {
			exact = 2
		}
	}
	return []int{exact, len(c.Service), len(c.Method), len(headers)}
}

// FuzzCalls compares the table with the specification, rule by rule.
func FuzzCalls(f *testing.F) {
	services, methods := []string{"", "a", "b", "a.B"}, []string{"", "c", "d"}
	exprs := []string{"", "a.*", "[ab]", "c?"}
	f.Add([]byte{3, 1, 0, 1, 1, 0}, []byte("/a/c?x"), []byte("1"))
	f.Add([]byte{7, 2, 1, 1, 2, 0, 2, 0, 1, 1, 2, 3, 1, 0, 2, 1}, []byte("/a.B/c/d"), []byte("2"))
	f.Add([]byte{7, 1, 1, 1, 1, 2, 1, 0, 0, 0, 2, 1, 1}, []byte("//c"), []byte(""))
	f.Fuzz(func(t *testing.T, choices, target, value []byte) {
		d := &dice{choices}
		var rules []Rule[int]
		for i := range 1 + d.roll(8) {
			rule := Rule[int]{Result: i}
			for range 1 + d.roll(2) {
				c := Call{Regex: d.roll(3) == 0}
				if c.Regex {
					c.Service, c.Method = pick(d, exprs), pick(d, exprs)
				} else {
					c.Service, c.Method = pick(d, services), pick(d, methods)
				}
				rule.Matches = append(rule.Matches, Match{Call: &c, Headers: d.values()})
			}
			rules = append(rules, rule)
		}
		tab, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		r := new(message.Request)
		r.SetMethod([]byte("POST"))
		if !r.SetPath(target) {
			return
		}
		r.SetAuthority([]byte("1"))
		r.Header.AddBytes([]byte("x"), value)
		want, best := -1, []int(nil)
		for i := range rules {
			for j := range rules[i].Matches {
				if rank := slowCall(&rules[i].Matches[j], r); rank != nil && (want < 0 || less(best, rank)) {
					want, best = i, rank
				}
			}
		}
		got, ok := tab.Find(r)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%s: got rule %d, want %d of %+v", target, got, want, rules)
		}
	})
}

// manyCalls is a table of a hundred services with ten methods each, and a few
// rules that must be tried one by one.
func manyCalls(t testing.TB) *Table[int] {
	list := []Match{callingRegex(`shop\.legacy.*`, ""), calling("", "Check")}
	for i := range 100 {
		for j := range 10 {
			list = append(list, calling(fmt.Sprintf("shop.v%d.Cart", i), fmt.Sprintf("Method%d", j)))
		}
		list = append(list, calling(fmt.Sprintf("shop.v%d.Cart", i), ""))
	}
	return table(t, list...)
}

var callRequests = map[string]string{
	"exact": "POST /shop.v50.Cart/Method5", "service": "POST /shop.v99.Cart/Other",
	"regex": "POST /shop.legacy.Cart/Get", "none": "POST /other/Get",
}

func TestFindingCallsAllocatesNothing(t *testing.T) {
	tab := manyCalls(t)
	for name, text := range callRequests {
		r := request(t, text)
		if got := testing.AllocsPerRun(100, func() { tab.Find(r) }); got != 0 {
			t.Errorf("%s: %v allocations, want 0", name, got)
		}
	}
}

func BenchmarkFindCall(b *testing.B) {
	tab := manyCalls(b)
	for name, text := range callRequests {
		r := request(b, text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				tab.Find(r)
			}
		})
	}
}
