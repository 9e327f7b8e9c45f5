package route

import (
	"fmt"
	"math/bits"
)

// Weights choose one of several backends by their shares. The zero value has
// nothing to choose from.
type Weights struct{ upTo []uint64 } // running sums

// MaxWeight is the largest share (Gateway API, BackendRef.weight).
const MaxWeight = 1_000_000

// NewWeights prepares shares; an item with share 0 is never chosen.
func NewWeights(shares []int32) (Weights, error) {
	w := Weights{make([]uint64, len(shares))}
	var sum uint64
	for i, s := range shares {
		if s < 0 || s > MaxWeight {
			return Weights{}, fmt.Errorf("weight %d is %d, want 0 to %d", i, s, MaxWeight)
		}
		sum += uint64(s)
		w.upTo[i] = sum
	}
	return w, nil
}

// Share returns the share of an item; 0 if there is none.
func (w Weights) Share(item int) uint64 {
	switch {
	case item < 0 || item >= len(w.upTo):
		return 0
	case item == 0:
		return w.upTo[0]
	}
	return w.upTo[item] - w.upTo[item-1]
}

// Pick chooses an item by a random number. It reports false if all shares are 0
// or there are no items.
func (w Weights) Pick(random uint32) (item int, ok bool) {
	if len(w.upTo) == 0 {
		return 0, false
	}
	at, _ := bits.Mul64(uint64(random)<<32, w.upTo[len(w.upTo)-1]) // random/2³² of the sum
	for i, upTo := range w.upTo {
		if at < upTo {
			return i, true
		}
	}
	return 0, false
}
