package retry

import (
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

func ptr[T any](v T) *T { return &v }

func stanza(t *testing.T, s Settings) *Policy {
	t.Helper()
	p, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func failed(k fault.Kind) *filters.Attempt {
	return &filters.Attempt{N: 1, Fault: fault.Wrap(k, fault.Upstream, nil), Sent: filters.SentBody}
}

// TestEveryFault walks the table of faults, so that a new kind is decided here.
func TestEveryFault(t *testing.T) {
	narrow := map[fault.Kind]bool{
		fault.ConnectFailed: true, fault.ConnectTimeout: true, fault.ConnectRefused: true,
		fault.TLSFailed: true, fault.IdentityMismatch: true, fault.RefusedStream: true, fault.GoneAway: true,
	}
	wide := map[fault.Kind]bool{fault.UpstreamReset: true, fault.UpstreamClosed: true, fault.TryTimeout: true, fault.StaleConnection: true}
	for k := range fault.Kinds {
		if _, got := Default().Next(failed(k)); got != narrow[k] {
			t.Errorf("default, %s: %v", k, got)
		}
		if _, got := stanza(t, Settings{}).Next(failed(k)); got != (narrow[k] || wide[k]) {
			t.Errorf("stanza, %s: %v", k, got)
		}
	}
}

func TestResponses(t *testing.T) {
	for name, tc := range map[string]struct {
		p    *Policy
		a    filters.Attempt
		want bool
	}{
		"200":                    {Default(), filters.Attempt{N: 1, Status: 200}, false},
		"503, default":           {Default(), filters.Attempt{N: 1, Status: 503}, false},
		"503, listed":            {stanza(t, Settings{Codes: []int{504, 503}}), filters.Attempt{N: 1, Status: 503}, true},
		"500, others listed":     {stanza(t, Settings{Codes: []int{504, 503}}), filters.Attempt{N: 1, Status: 500}, false},
		"grpc unavailable":       {Default(), filters.Attempt{N: 1, Status: 200, GRPC: 14}, true},
		"grpc cancelled":         {Default(), filters.Attempt{N: 1, Status: 200, GRPC: 1}, true},
		"grpc permission denied": {Default(), filters.Attempt{N: 1, Status: 200, GRPC: 7}, false},
	} {
		if _, got := tc.p.Next(&tc.a); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestAttemptsAreCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		p    *Policy
		want int // tries in all
	}{
		"default": {Default(), 3},
		"five":    {stanza(t, Settings{Attempts: ptr(5)}), 6},
		"off":     {stanza(t, Settings{Attempts: ptr(0)}), 1},
	} {
		a := failed(fault.ConnectFailed)
		for {
			if _, again := tc.p.Next(a); !again {
				break
			}
			a.N++
		}
		if a.N != tc.want {
			t.Errorf("%s: %d tries, want %d", name, a.N, tc.want)
		}
	}
}

func TestStaleConnection(t *testing.T) {
	off := stanza(t, Settings{Attempts: ptr(0)})
	for name, tc := range map[string]struct {
		p    *Policy
		a    filters.Attempt
		want bool
	}{
		"idempotent":           {Default(), filters.Attempt{N: 1, Idempotent: true, Sent: filters.SentBody}, true},
		"not idempotent":       {Default(), filters.Attempt{N: 1, Sent: filters.SentHead}, false},
		"nothing sent":         {Default(), filters.Attempt{N: 1, Sent: filters.SentNothing}, true},
		"retries off":          {off, filters.Attempt{N: 1, Idempotent: true, Sent: filters.SentHead}, true},
		"retries off, again":   {off, filters.Attempt{N: 2, Idempotent: true, Sent: filters.SentHead}, false},
		"default, third retry": {Default(), filters.Attempt{N: 3, Idempotent: true, Sent: filters.SentHead}, false},
	} {
		tc.a.Fault = fault.Wrap(fault.StaleConnection, fault.Upstream, nil)
		wait, got := tc.p.Next(&tc.a)
		if got != tc.want || wait != 0 {
			t.Errorf("%s: got %v after %s, want %v at once", name, got, wait, tc.want)
		}
	}
}

// TestStaleConnectionWithStanza: what a route has repeated behind a reset it has
// repeated behind a connection that was dead before, whatever the method.
func TestStaleConnectionWithStanza(t *testing.T) {
	p := stanza(t, Settings{Attempts: ptr(1)})
	for n, want := range map[int]bool{1: true, 2: false} {
		a := failed(fault.StaleConnection)
		a.N = n
		if wait, got := p.Next(a); got != want || got && wait < defaultBackoff {
			t.Errorf("try %d: got %v after %v, want %v", n, got, wait, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	p := stanza(t, Settings{Attempts: ptr(MaxAttempts)})
	base := []time.Duration{25, 50, 100, 200, 250, 250, 250}
	for i, want := range base {
		want *= time.Millisecond
		seen := map[time.Duration]bool{}
		for range 200 {
			a := failed(fault.ConnectFailed)
			a.N = i + 1
			d, _ := p.Next(a)
			if d < want || d >= want+want/2 {
				t.Fatalf("after try %d: %s, want %s and up to half of it more", i+1, d, want)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("after try %d: only %d different waits", i+1, len(seen))
		}
	}
	for _, d := range []time.Duration{0, 1} {
		tiny := stanza(t, Settings{Backoff: ptr(d)})
		if got, again := tiny.Next(failed(fault.ConnectFailed)); got != d || !again {
			t.Errorf("backoff %d: waits %d, %v", d, got, again)
		}
	}
}

func TestSettingsOutOfRange(t *testing.T) {
	for want, s := range map[string]Settings{
		"attempts is -1":    {Attempts: ptr(-1)},
		"attempts is 101":   {Attempts: ptr(101)},
		"codes has 200":     {Codes: []int{503, 200}},
		"codes has 600":     {Codes: []int{600}},
		"backoff is -1ns":   {Backoff: ptr(time.Duration(-1))},
		"backoff is 1m0.1s": {Backoff: ptr(time.Minute + 100*time.Millisecond)},
	} {
		if _, err := New(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	codes := []int{599, 400}
	stanza(t, Settings{Attempts: ptr(MaxAttempts), Codes: codes, Backoff: ptr(MaxBackoff)})
	if codes[0] != 599 {
		t.Error("the settings were changed")
	}
}

func TestAskingAllocatesNothing(t *testing.T) {
	p, a := stanza(t, Settings{Codes: []int{502, 503}}), failed(fault.UpstreamReset)
	if got := testing.AllocsPerRun(100, func() { p.Next(a) }); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}
