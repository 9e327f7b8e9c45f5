package h2

import "testing"

// TestShare holds the arithmetic; drive_test.go runs connections with it.
func TestShare(t *testing.T) {
	const window = 256 << 10
	var sh share
	sh.epoch = 1
	streams := make([]Stream, 64)
	round := func(active int) {
		for sh.bytes = 0; ; {
			before := sh.epoch
			for i := range active {
				sh.count(&streams[i], 1000)
			}
			if sh.epoch != before {
				return
			}
		}
	}
	for _, tc := range []struct {
		active int
		want   int32
	}{{1, window}, {4, window}, {8, window / 2}, {16, leastShare}, {64, leastShare}, {2, window}} {
		round(tc.active)
		round(tc.active) // the count before may have begun with others
		if got := sh.of(window); got != tc.want {
			t.Errorf("%d active streams: share %d, want %d", tc.active, got, tc.want)
		}
	}
	if got := sh.of(20 << 10); got != 20<<10 {
		t.Errorf("a window below the least share is %d, want it whole", got)
	}
}
