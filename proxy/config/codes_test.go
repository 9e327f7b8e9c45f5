package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the schema and add to golden files")

// golden compares got with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is stale: run go test ./proxy/config -update and look at what changes", name)
	}
}

func TestCodesAreUnique(t *testing.T) {
	seen := make(map[Code]bool)
	meanings := make(map[string]bool)
	for _, c := range codes {
		if !regexp.MustCompile(`^WP1[0-6][0-9]{2}$`).MatchString(string(c.code)) {
			t.Errorf("%s is no code of this package", c.code)
		}
		if seen[c.code] {
			t.Errorf("%s is given out twice", c.code)
		}
		if meanings[c.meaning] || c.meaning == "" || strings.Contains(c.meaning, "\n") {
			t.Errorf("%s has the meaning %q, want one line of its own", c.code, c.meaning)
		}
		if (c.severity == Warning) != (c.code > "WP1500" && c.code < "WP1600" || c.code == CodeState) {
			t.Errorf("%s is a %s", c.code, c.severity)
		}
		seen[c.code], meanings[c.meaning] = true, true
		if c.code.Meaning() != c.meaning || c.code.Effect() != c.effect {
			t.Errorf("%s is not found by its code", c.code)
		}
	}
}

// TestCodesKeepTheirMeaning holds the table against what was published: users
// have written the codes into alerts.
func TestCodesKeepTheirMeaning(t *testing.T) {
	var b strings.Builder
	for _, c := range codes {
		fmt.Fprintf(&b, "%s %s %s\n", c.code, c.severity, c.meaning)
	}
	golden(t, filepath.Join("testdata", "codes.txt"), []byte(b.String()))
}

func TestUnknownCodeIsStrict(t *testing.T) {
	if got := Code("WP1999").Effect(); got != ObjectFails {
		t.Errorf("got effect %d for a code from elsewhere, want that the object fails", got)
	}
	if got := Code("WP1999").Meaning(); got != "" {
		t.Errorf("got meaning %q for a code from elsewhere", got)
	}
}
