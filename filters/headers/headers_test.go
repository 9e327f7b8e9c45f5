package headers

import (
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func build(t *testing.T, k filters.Kind, e Edits) (filters.Filter, error) {
	t.Helper()
	return k.New(filters.NewBuilder(filters.Env{}), filters.NewSpec(e))
}

func text(h *message.Header) string {
	var lines []string
	for name, value := range h.All() {
		lines = append(lines, string(name)+": "+string(value))
	}
	return strings.Join(lines, "\n")
}

func TestEdits(t *testing.T) {
	for name, tc := range map[string]struct {
		edits Edits
		want  string
	}{
		"nothing":              {Edits{}, "A: 1\nB: 2\na: 3"},
		"set takes all":        {Edits{Set: []Field{{"a", "x"}}}, "A: x\nB: 2"},
		"set makes":            {Edits{Set: []Field{{"c", "x"}}}, "A: 1\nB: 2\na: 3\nc: x"},
		"add keeps":            {Edits{Add: []Field{{"b", "x"}}}, "A: 1\nB: 2\na: 3\nb: x"},
		"remove all":           {Edits{Remove: []string{"A"}}, "B: 2"},
		"remove what is not":   {Edits{Remove: []string{"c"}}, "A: 1\nB: 2\na: 3"},
		"set, add":             {Edits{Set: []Field{{"a", "x"}}, Add: []Field{{"a", "y"}}}, "A: x\nB: 2\na: y"},
		"add, remove":          {Edits{Add: []Field{{"c", "y"}}, Remove: []string{"C"}}, "A: 1\nB: 2\na: 3"},
		"set an empty value":   {Edits{Set: []Field{{"b", ""}}}, "A: 1\nB: \na: 3"},
		"set, add, remove all": {Edits{Set: []Field{{"b", "x"}}, Add: []Field{{"d", "y"}}, Remove: []string{"a"}}, "B: x\nd: y"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &filters.Stream{Request: new(message.Request), Response: new(message.Response)}
			for _, h := range []*message.Header{&s.Request.Header, &s.Response.Header} {
				h.Add("A", "1")
				h.Add("B", "2")
				h.Add("a", "3")
			}
			q, err := build(t, RequestKind(), tc.edits)
			if err != nil {
				t.Fatal(err)
			}
			p, err := build(t, ResponseKind(), tc.edits)
			if err != nil {
				t.Fatal(err)
			}
			if r := q.(filters.RequestFilter).Request(s); r != nil {
				t.Errorf("replied %+v", r)
			}
			if r := p.(filters.ResponseFilter).Response(s); r != nil {
				t.Errorf("replied %+v", r)
			}
			if got := text(&s.Request.Header); got != tc.want {
				t.Errorf("request: got\n%s\nwant\n%s", got, tc.want)
			}
			if got := text(&s.Response.Header); got != tc.want {
				t.Errorf("response: got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestHostIsTheAuthority(t *testing.T) {
	given := Edits{Set: []Field{{"a", "1"}, {"HOST", "other:8080"}, {"b", "2"}}}
	f, err := build(t, RequestKind(), given)
	if err != nil {
		t.Fatal(err)
	}
	s := &filters.Stream{Request: new(message.Request)}
	s.Request.SetAuthority([]byte("reviews"))
	f.(filters.RequestFilter).Request(s)
	if got := string(s.Request.Authority); got != "other:8080" {
		t.Errorf("authority %q", got)
	}
	if got, want := text(&s.Request.Header), "a: 1\nb: 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(given.Set) != 3 || given.Set[1].Name != "HOST" {
		t.Errorf("the configuration was changed: %v", given.Set)
	}
}

// Every row would put onto the wire what a peer reads as something else.
func TestRefusedEdits(t *testing.T) {
	bad := map[string]Edits{
		"no name":         {Set: []Field{{"", "1"}}},
		"no token":        {Add: []Field{{"a b", "1"}}},
		"pseudo header":   {Set: []Field{{":path", "/"}}},
		"line break":      {Set: []Field{{"a", "1\r\nb: 2"}}},
		"NUL":             {Add: []Field{{"a", "\x00"}}},
		"framing, set":    {Set: []Field{{"Content-Length", "5"}}},
		"framing, add":    {Add: []Field{{"transfer-encoding", "chunked"}}},
		"framing, remove": {Remove: []string{"content-length"}},
		"connection":      {Set: []Field{{"Connection", "x-secret"}}},
		"host added":      {Add: []Field{{"host", "b"}}},
		"host removed":    {Remove: []string{"host"}},
		"host malformed":  {Set: []Field{{"host", "a b"}}},
		"twice in set":    {Set: []Field{{"a", "1"}, {"A", "2"}}},
		"twice in add":    {Add: []Field{{"a", "1"}, {"A", "2"}}},
		"twice in remove": {Remove: []string{"a", "A"}},
	}
	for name, e := range bad {
		for _, k := range []filters.Kind{RequestKind(), ResponseKind()} {
			if f, err := build(t, k, e); err == nil || f != nil {
				t.Errorf("%s as %s: got %v, %v", name, k.Name, f, err)
			}
		}
	}
	if _, err := build(t, ResponseKind(), Edits{Set: []Field{{"host", "a"}}}); err == nil {
		t.Error("a response got a Host")
	}
	// The control: the same without the bad part.
	good := Edits{Set: []Field{{"a", "1"}, {"b", "2"}}, Add: []Field{{"a", "x y"}}, Remove: []string{"c", "d"}}
	for _, k := range []filters.Kind{RequestKind(), ResponseKind()} {
		if _, err := build(t, k, good); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
	if _, err := RequestKind().New(nil, filters.NewSpec(map[string]any{"sets": nil})); err == nil {
		t.Error("an unknown field was taken")
	}
}

func TestEditsAllocateNothing(t *testing.T) {
	f, err := build(t, RequestKind(), Edits{Set: []Field{{"host", "b"}, {"x-a", "1"}}, Add: []Field{{"x-b", "2"}}, Remove: []string{"x-c"}})
	if err != nil {
		t.Fatal(err)
	}
	s := &filters.Stream{Request: new(message.Request)}
	got := testing.AllocsPerRun(1000, func() {
		s.Request.Reset()
		s.Request.Header.Add("x-a", "0")
		s.Request.Header.Add("x-c", "0")
		f.(filters.RequestFilter).Request(s)
	})
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

func BenchmarkRequest(b *testing.B) {
	f, err := RequestKind().New(nil, filters.NewSpec(Edits{Set: []Field{{"x-a", "1"}}, Add: []Field{{"x-b", "2"}}, Remove: []string{"x-c"}}))
	if err != nil {
		b.Fatal(err)
	}
	s := &filters.Stream{Request: new(message.Request)}
	for b.Loop() {
		s.Request.Reset()
		f.(filters.RequestFilter).Request(s)
	}
}
