package proxy

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

func TestIdentify(t *testing.T) {
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 1000 {
		var r message.Request
		identify(nil, &r)
		id := r.Header.Get("X-Request-Id")
		if !uuid.MatchString(id) || seen[id] {
			t.Fatalf("%q is no new UUID", id)
		}
		seen[id] = true
	}
	var r message.Request
	r.Header.Add("X-Request-ID", "mine")
	if identify(nil, &r); r.Header.Len() != 1 || r.Header.Get("x-request-id") != "mine" {
		t.Errorf("a client's own id was not kept: %q", r.Header.Get("x-request-id"))
	}
}

// The digits against the library's.
func TestHex(t *testing.T) {
	for v := uint64(0); v < 1<<32; v += 0x1234_567 {
		var got [8]byte
		if hex(got[:], uint32(v)); string(got[:]) != fmt.Sprintf("%08x", v) {
			t.Fatalf("%x is written %q", v, got)
		}
	}
}

func TestIdentifyAllocatesNothing(t *testing.T) {
	var r message.Request
	got := testing.AllocsPerRun(100, func() { r.Reset(); identify(nil, &r) })
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

func BenchmarkIdentify(b *testing.B) {
	var r message.Request
	for name, s := range map[string]*shelf{"loop": new(shelf), "none": nil} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Reset()
				identify(s, &r)
			}
		})
	}
}
