package config

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// outline shows a tree with the places of its nodes.
func outline(n *yaml.Node, b *strings.Builder) {
	if n == nil {
		b.WriteString("nothing")
		return
	}
	fmt.Fprintf(b, "%d:%d %s %q %d\n", n.Line, n.Column, n.Tag, n.Value, n.Style)
	for _, c := range n.Content {
		outline(c, b)
	}
}

func sameJSON(t *testing.T, data []byte) {
	t.Helper()
	fast, fastErr := parseJSON(data)
	slow, slowErr := parseSlowly(data)
	if fmt.Sprint(fastErr) != fmt.Sprint(slowErr) {
		t.Fatalf("%q: fast says %v, slow %v", data, fastErr, slowErr)
	}
	if fastErr != nil {
		if *fastErr != *slowErr {
			t.Fatalf("%q: fast says %+v, slow %+v", data, *fastErr, *slowErr)
		}
		return
	}
	var f, s strings.Builder
	outline(fast, &f)
	outline(slow, &s)
	if f.String() != s.String() {
		t.Fatalf("%q: fast\n%sslow\n%s", data, f.String(), s.String())
	}
}

var jsonSeeds = []string{
	`{"a":1,"b":[true,false,null,-1.5e3,0],"c":{"d":"e"}}`, " [ ] ", "{}", `"x"`, "1", "", " \n", `{"a":"\u00e9\n\"\\"}`,
	"{\n  \"a\" : [ 1 ,\n 2 ] ,\r\n\t\"b\":\"\xff\"\n}", `{"a":1}{`, `[1 2]`, `{"a"}`, "[[[", `"\ud800"`, `{"é":"ü"}`, "nul", "[1,]", "1 2",
	strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
}

func TestFastJSON(t *testing.T) {
	for _, text := range jsonSeeds {
		sameJSON(t, []byte(text))
	}
}

// FuzzJSON compares the fast parser with its slow twin: trees, places and errors.
func FuzzJSON(f *testing.F) {
	for _, text := range jsonSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) { sameJSON(t, data) })
}

func BenchmarkParseJSON(b *testing.B) {
	var text strings.Builder
	text.WriteString(`{"services":[`)
	for i := range 1000 {
		fmt.Fprintf(&text, `%s{"name":"s-%d","addresses":["10.0.0.1"],"ports":[{"port":80,"targetPort":9080,"appProtocol":"http"}]}`, strings.Repeat(",", min(i, 1)), i)
	}
	text.WriteString("]}")
	data := []byte(text.String())
	for name, parse := range map[string]func([]byte) (*yaml.Node, *syntaxError){"fast": parseJSON, "slow": parseSlowly} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := parse(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
