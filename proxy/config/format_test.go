package config

import (
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for _, row := range []struct {
		text string
		want time.Duration
		back string // as it is written; the text itself if empty
	}{
		{"0s", 0, ""},
		{"0ms", 0, "0s"},
		{"25ms", 25 * time.Millisecond, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"90m", 90 * time.Minute, "1h30m"},
		{"1s1s", 2 * time.Second, "2s"},
		{"1500ms", 1500 * time.Millisecond, "1s500ms"},
		{"99999h59m59s999ms", maxDuration, ""},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(row.text)); err != nil || time.Duration(d) != row.want {
			t.Errorf("%s: got %v, %v, want %v", row.text, time.Duration(d), err, row.want)
		}
		if row.back == "" {
			row.back = row.text
		}
		if got := d.String(); got != row.back {
			t.Errorf("%s: written as %s, want %s", row.text, got, row.back)
		}
	}
	for _, text := range []string{"", "s", "1", "1.5s", "-1s", "+1s", " 1s", "1s ", "1us", "1d", "100000s", "1h1h1h1h1h", "99999h99999h", "1S", "١s"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %s", text, d)
		}
	}
	if got := Duration(-time.Second).String(); got != "0s" {
		t.Errorf("a negative duration is written as %s", got)
	}
}

// FuzzDuration holds durations against time.ParseDuration, which takes every text
// that we take, and the written form against itself.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{"0s", "1h30m", "25ms", "99999h59m59s999ms", "1.5s", "1m1m", "5", "1us"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d Duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		want, err := time.ParseDuration(text)
		if err != nil || want != time.Duration(d) {
			t.Fatalf("%q: got %v, time.ParseDuration has %v, %v", text, time.Duration(d), want, err)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Fatalf("%q: written as %s, which is %v, %v", text, d, again, err)
		}
	})
}

func TestNearest(t *testing.T) {
	known := []string{"hostnames", "addresses", "ports", "endpoints", "name"}
	for _, row := range []struct{ word, want string }{
		{"hostname", "hostnames"},
		{"HOSTNAMES", "hostnames"},
		{"prots", "ports"}, // a swap is one mistake
		{"post", ""},       // two mistakes in four letters are one too many
		{"nam", "name"},    // one letter short
		{"adress", ""},     // three: too far
		{"adresses", "addresses"},
		{"x", ""},
		{"", ""},
		{"spec", ""},
	} {
		if got := nearest(row.word, known); got != row.want {
			t.Errorf("%s: got %q, want %q", row.word, got, row.want)
		}
	}
}

func TestShortKeepsRunesWhole(t *testing.T) {
	text := ""
	for range 40 {
		text += "€"
	}
	for i := range 3 {
		got := short("xxx"[:i] + text)
		for _, r := range got {
			if r == '\ufffd' {
				t.Errorf("got %q", got)
			}
		}
		if len(got) > 64 {
			t.Errorf("got %d bytes", len(got))
		}
	}
}
