package main

import (
	"bytes"
	"context"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"version"}, 0, version + "\n"},
		{[]string{"version", "please"}, 2, ""},
		{[]string{"nonsense"}, 2, ""},
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), c.args, &out, &errs); code != c.code || out.String() != c.out {
			t.Errorf("%v: exit %d and %q, want %d and %q; %s", c.args, code, out.String(), c.code, c.out, &errs)
		}
	}
}
