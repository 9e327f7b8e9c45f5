package message

import "testing"

func BenchmarkLookup(b *testing.B) {
	for _, name := range []string{"User-Agent", "x-forwarded-for", "X-request-id", "X-Custom"} {
		b.Run(name, func(b *testing.B) {
			n := []byte(name)
			for b.Loop() {
				Lookup(n)
			}
		})
	}
}
