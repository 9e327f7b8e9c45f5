package h2

// Windows are shared: where many streams receive at once, each may have less
// under way. A bulk stream with a whole window in the pipe makes every small
// message behind it wait for as long as that takes: TestShare, and the bar
// hbone-p99-beside-bulk.
//
// Only what is returned shrinks. The window that SETTINGS promised is honoured
// once, and then a stream is held to its share until it has fewer neighbours.

const (
	// shareCount is after how many received bytes the active streams are
	// counted anew.
	shareCount = 1 << 20
	// wholeFor is how many active streams have the whole window.
	wholeFor = 4
	// leastShare is what a stream has in any crowd. Credit follows bytes with up
	// to turn.LowMark of delay, so with much less a sender could wait for credit
	// that no event brings: 20 KiB hung, 40 KiB did not.
	leastShare = 64 << 10
)

// A share counts the streams that have received lately.
type share struct {
	bytes   int32  // received since the count began
	seen    uint16 // streams they came on
	streams uint16 // …in the last count that is complete
	epoch   uint16
}

// count notes n received bytes of a stream.
func (sh *share) count(s *Stream, n int) {
	if s.epoch != sh.epoch {
		s.epoch = sh.epoch
		sh.seen++
	}
	if sh.bytes += int32(n); sh.bytes >= shareCount {
		sh.streams, sh.seen, sh.bytes = sh.seen, 0, 0
		sh.epoch++
	}
}

// of returns how much of a window a stream may have now.
func (sh *share) of(window int32) int32 {
	if sh.streams <= wholeFor {
		return window
	}
	return min(window, max(int32(int64(window)*wholeFor/int64(sh.streams)), leastShare))
}
