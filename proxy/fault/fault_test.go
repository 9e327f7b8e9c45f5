package fault

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestTable walks the table, so that no kind is without its line.
func TestTable(t *testing.T) {
	flags := map[Flag]bool{}
	for _, f := range []Flag{None, DC, DPE, DT, NC, NR, OM, RL, SI, UAEX, UC, UF, UH, UO, UPE, UR, URX, UT} {
		flags[f] = true
	}
	used := map[Flag]bool{}
	details, texts := map[string]Kind{}, map[string]Kind{}
	for k := range Kinds {
		r := k.Row()
		if r.Status != 0 && (r.Status < 400 || r.Status > 599) {
			t.Errorf("kind %d (%s): status %d is no error", k, r.Text, r.Status)
		}
		if (r.Status == 0) != (k == ClientGone) {
			t.Errorf("kind %d (%s): status %d; only ClientGone has nobody to answer", k, r.Text, r.Status)
		}
		if !flags[r.Flag] {
			t.Errorf("kind %d (%s): unknown flag %q", k, r.Text, r.Flag)
		}
		used[r.Flag] = true
		if r.Details == "" || strings.ContainsAny(r.Details, " \t\"") {
			t.Errorf("kind %d (%s): details %q must be one word", k, r.Text, r.Details)
		}
		if r.Text == "" || strings.HasPrefix(r.Text, "failed to") || strings.HasSuffix(r.Text, ".") {
			t.Errorf("kind %d: text %q", k, r.Text)
		}
		if other, ok := details[r.Details]; ok {
			t.Errorf("kinds %d and %d share the details %q", k, other, r.Details)
		}
		if other, ok := texts[r.Text]; ok {
			t.Errorf("kinds %d and %d share the text %q", k, other, r.Text)
		}
		details[r.Details], texts[r.Text] = k, k
	}
	for f := range flags {
		if !used[f] {
			t.Errorf("flag %s has no kind", f)
		}
	}
}

// TestRetryAnswers holds the rule behind the column: what is repeated by default
// has reached nobody, and only the way to the upstream can be repeated at all.
func TestRetryAnswers(t *testing.T) {
	want := map[Kind]Retry{
		ConnectFailed: ConnectFailure, ConnectTimeout: ConnectFailure, ConnectRefused: ConnectFailure,
		TLSFailed: ConnectFailure, IdentityMismatch: ConnectFailure,
		RefusedStream: Refused, GoneAway: Refused, StaleConnection: Stale,
		UpstreamReset: Reset, UpstreamClosed: Reset, TryTimeout: Timeout,
	}
	for k := range Kinds {
		if got := k.Row().Retry; got != want[k] {
			t.Errorf("%s: retry answer %d, want %d", k, got, want[k])
		}
	}
	for r, want := range map[Retry]bool{Never: false, ConnectFailure: true, Refused: true, Stale: true, Reset: false, Timeout: false} {
		if got := r.Default(); got != want {
			t.Errorf("retry condition %d: default %v, want %v", r, got, want)
		}
	}
}

func TestOf(t *testing.T) {
	f := Wrap(ConnectTimeout, Upstream, io.ErrUnexpectedEOF)
	for name, tc := range map[string]struct {
		err  error
		want Kind
	}{
		"itself":       {f, ConnectTimeout},
		"wrapped":      {fmt.Errorf("attempt 2: %w", f), ConnectTimeout},
		"joined":       {errors.Join(io.EOF, f), ConnectTimeout},
		"unclassified": {io.EOF, Internal},
		"nil fault":    {(*Fault)(nil), Internal},
		"outer counts": {Wrap(FilterFailed, Local, f), FilterFailed},
	} {
		if got := Of(tc.err).Kind; got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	if got := Of(nil); got != nil {
		t.Errorf("Of(nil) = %v", got)
	}
	if got, want := Of((*Fault)(nil)).Error(), "internal error"; got != want {
		t.Errorf("a nil fault says %q, want %q", got, want)
	}
	if !errors.Is(f, io.ErrUnexpectedEOF) {
		t.Error("the underlying error is lost")
	}
	if got, want := f.Error(), "upstream connection timed out: unexpected EOF"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := f.Status(), 503; got != want {
		t.Errorf("status %d, want %d", got, want)
	}
	if f.Flag() != UF || !strings.HasPrefix(f.Details(), "upstream_reset_before") || f.Side.String() != "upstream" {
		t.Errorf("got %s %s %s", f.Flag(), f.Details(), f.Side)
	}
}

func TestOutOfRange(t *testing.T) {
	f := Wrap(Kinds+3, Side(9), nil)
	if f.Kind != Internal || f.Side.String() != "unknown side" || Kind(255).Row().Status != 500 {
		t.Errorf("got %v on %v", f.Kind, f.Side)
	}
}

func TestWrapWithoutErrorAllocatesNothing(t *testing.T) {
	var sink *Fault
	got := testing.AllocsPerRun(100, func() { sink = Wrap(ClientGone, Downstream, nil) })
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
	if sink.Kind != ClientGone || sink.Side != Downstream || sink.Err != nil {
		t.Errorf("got %+v", sink)
	}
}
