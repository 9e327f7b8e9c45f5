package levels

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLevelsRevert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.LevelInfo)
		a, b := slog.New(l.Handler("a")), slog.New(l.Handler("b")).With("x", 1).WithGroup("g")
		wrote := func() string {
			out.Reset()
			a.Debug("one")
			b.Debug("two", "y", 2)
			b.Info("three")
			var words []string
			for _, w := range []string{"msg=one", "msg=two", "msg=three"} {
				if strings.Contains(out.String(), w) {
					words = append(words, w[4:])
				}
			}
			return strings.Join(words, " ")
		}
		steps := []struct {
			do   func() error
			want string
		}{
			{func() error { return nil }, "three"},
			{func() error { return l.Set("a", slog.LevelDebug, time.Minute) }, "one three"},
			{func() error { time.Sleep(30 * time.Second); return l.Set("a", slog.LevelDebug, time.Minute) }, "one three"},
			{func() error { time.Sleep(45 * time.Second); return nil }, "one three"}, // the first timer is void
			{func() error { time.Sleep(16 * time.Second); return nil }, "three"},
			{func() error { return l.Set("*", slog.LevelError, time.Minute) }, ""},
			{func() error { return l.Set("b", slog.LevelDebug, time.Hour) }, "two three"},
			{func() error { time.Sleep(2 * time.Hour); return nil }, "three"},
		}
		for i, s := range steps {
			if err := s.do(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := wrote(); got != s.want {
				t.Errorf("step %d: got %q, want %q", i, got, s.want)
			}
		}
		if !strings.Contains(out.String(), "component=b x=1") {
			t.Errorf("got %q", out.String())
		}
	})
}

func TestSetRefuses(t *testing.T) {
	l := New(slog.DiscardHandler, slog.LevelInfo)
	l.Handler("b")
	l.Handler("a")
	l.Handler("a")
	for want, err := range map[string]error{
		"write one of a, b, or *": l.Set("c", 0, time.Minute),
		"at most 24h0m0s":         l.Set("a", 0, 25*time.Hour),
		"such as 10m":             l.Set("a", 0, 0),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if all := l.All(); len(all) != 2 || all[0].Component != "a" || all[0].Level != slog.LevelInfo || !all[0].Until.IsZero() {
		t.Errorf("got %v", all)
	}
}

func TestParse(t *testing.T) {
	for word, want := range map[string]slog.Level{"trace": -4, "DEBUG": -4, "info": 0, "warning": 4, "critical": 8, "off": 108} {
		if got, err := Parse(word); err != nil || got != want {
			t.Errorf("%s: got %v, %v", word, got, err)
		}
	}
	if _, err := Parse("loud"); err == nil || !strings.Contains(err.Error(), "write debug") {
		t.Errorf("got %v", err)
	}
}
