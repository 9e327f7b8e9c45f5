package measure

import (
	"hash/maphash"
	"sync/atomic"
)

// A cache finds sets by key. It may forget: what is not found in it is found by
// its labels.
//
// A map that is replaced when it grows would be as quick to read, but costs a
// copy for each new key, and a change of the document makes all keys new.
type cache struct {
	seed  maphash.Seed
	slots [cacheSize]atomic.Pointer[cached]
}

const (
	cacheSize = 4096
	// cacheWays is how many slots a key may have.
	cacheWays = 4
)

type cached struct {
	key key
	set *set
}

func newCache() *cache { return &cache{seed: maphash.MakeSeed()} }

func (c *cache) place(k *key) (first, victim int) {
	h := maphash.Comparable(c.seed, *k)
	first = int(h % (cacheSize / cacheWays) * cacheWays)
	return first, first + int(h>>60)%cacheWays
}

func (c *cache) find(k *key) *set {
	first, _ := c.place(k)
	for i := first; i < first+cacheWays; i++ {
		if e := c.slots[i].Load(); e != nil && e.key == *k {
			return e.set
		}
	}
	return nil
}

func (c *cache) put(k *key, s *set) {
	first, at := c.place(k)
	for i := first; i < first+cacheWays; i++ {
		if c.slots[i].Load() == nil {
			at = i
			break
		}
	}
	c.slots[at].Store(&cached{*k, s})
}
