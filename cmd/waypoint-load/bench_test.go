package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// TestBenchRefuses: what cannot be done is said before anything is started, and
// what to write.
func TestBenchRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"bench --rounds 0", "write 1 to 200"},
		{"bench --rounds 201", "write 1 to 200"},
		{"bench --for 1ms", "write 100ms to 1m"},
		{"bench -o yaml", "write text or json"},
		{"bench --only nonsense", "there are proxy-32, hbone-32"},
		{"bench --only (", "--only"},
		{"bench --only proxy --page README.md", "leave --only out"},
		{"bench please", "unknown command"},
	} {
		var out, errs bytes.Buffer
		code := run(context.Background(), strings.Fields(c.args), &out, &errs)
		if code != int(exitNoRun) || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: exit %d, said %q; want exit %d and %q", c.args, code, &errs, exitNoRun, c.want)
		}
	}
}

// TestBenchWorks: without a wish all works are done, with one those that match.
func TestBenchWorks(t *testing.T) {
	for only, want := range map[string]int{"": 4, "hbone": 2, "^grpc-32$": 1} {
		list, all, err := (&benchFlags{only: only}).works()
		if err != nil || len(list) != want || all != (only == "") {
			t.Errorf("--only %q: got %d works, all %v, %v; want %d", only, len(list), all, err, want)
		}
	}
}

// TestPart: the program is also the parts of its bench, and an unknown one is an
// error.
func TestPart(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"part", "nobody", "{}"}, &out, &errs); code != int(exitNoRun) || !strings.Contains(errs.String(), `no part is called "nobody"`) {
		t.Errorf("exit %d, said %q", code, &errs)
	}
	out.Reset()
	if code := run(context.Background(), []string{"--help"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "bench") || strings.Contains(out.String(), "Be one process") {
		t.Errorf("help: exit %d\n%s", code, &out)
	}
}
