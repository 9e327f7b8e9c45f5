package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryReleaseIsRead decodes the documents of every release so far: they
// stay readable, and mean what they meant. A release adds a folder and never
// changes an old one; what a document comes to may only gain fields.
func TestEveryReleaseIsRead(t *testing.T) {
	names, err := filepath.Glob("testdata/v*/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal("no documents", err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c, problems := inspect(t, string(text))
			if len(problems) > 0 {
				t.Fatal(lines(problems))
			}
			out, err := EncodeJSON(c)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, out, "", " "); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".out.json", append(pretty.Bytes(), '\n'))
		})
	}
}

// TestEncodingIsStable reads back what was written, as JSON and as YAML.
func TestEncodingIsStable(t *testing.T) {
	text, err := os.ReadFile("testdata/v0/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := Decode(file(string(text)))
	wantStable(t, c)
}

func wantStable(t *testing.T, c *Config) {
	t.Helper()
	one, err := EncodeJSON(c)
	if err != nil {
		t.Fatal(err)
	}
	y, err := EncodeYAML(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []File{{"x.json", one}, {"x.yaml", y}} {
		again, problems := decode([]File{f}, maxState)
		if again == nil || len(problems) > 0 {
			t.Fatalf("%s is not read back: %s\n%s", f.Name, lines(problems), f.Data)
		}
		two, err := EncodeJSON(again)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%s comes back as another document, %v:\n%s\n%s", f.Name, err, one, two)
		}
	}
}

// FuzzDecode holds what every text must keep to: no panic, problems with a
// place and a known code, and a document that is the same when it is written and
// read back.
func FuzzDecode(f *testing.F) {
	names, _ := filepath.Glob("testdata/v*/*.yaml")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, false)
		c, _ := Decode(File{name, text})
		out, _ := EncodeJSON(c)
		f.Add(out, true)
	}
	for i := range samples {
		if text, _ := samples[i].place(samples[i].bad); len(text) < 2000 { // long seeds cost minutes to minimise
			f.Add([]byte(text), false)
		}
	}
	f.Add([]byte(head+"services: &a [*a, {<<: *a}]\nmetadata: {name: x}\n---\n"+head+"metadata: {name: y}\n"), false)
	f.Add([]byte(head+policy+farR), false)
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		name := "fuzz.yaml"
		if isJSON {
			name = "fuzz.json"
		}
		c, problems := Decode(File{name, text})
		if (c == nil) != Fatal(problems) {
			t.Fatalf("document taken: %v, with %s", c != nil, lines(problems))
		}
		if c != nil {
			s := Settle(nil, c)
			problems = slices.Concat(problems, References(s.Config), Lint(s.Config))
			if s.Active+len(s.Closed)+len(s.Inactive) > s.Total {
				t.Fatalf("%+v does not add up", s)
			}
			wantStable(t, s.Config)
		}
		for _, p := range problems {
			if p.File != name || p.Line < 1 || p.Column < 1 || p.Code.Meaning() == "" || p.Message == "" || p.Fix == "" || p.Object.Kind == "" {
				t.Fatalf("%+v lacks something", p)
			}
			if p.Line > len(text)+1 { // YAML has five sorts of line break
				t.Fatalf("%s is beyond the end", p.String())
			}
		}
	})
}
