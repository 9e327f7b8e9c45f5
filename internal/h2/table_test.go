package h2

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A table holds what a map would, whatever numbers come and go.
func TestTableAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, row := range []struct {
		name string
		most int                      // streams at once
		next func(last uint32) uint32 // the number of the next
	}{
		{"counted up", 300, func(last uint32) uint32 { return last + 2 }},
		{"with gaps", 2000, func(last uint32) uint32 { return last + 2 + 2*r.Uint32N(100) }},
		{"all in one place", 100, func(last uint32) uint32 { return last + 2*mostNear }},
		{"both ends' numbers", 500, func(last uint32) uint32 { return last + 1 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			var table streamTable
			twin := map[uint32]*Stream{}
			last := uint32(1)
			for range 20_000 {
				if len(twin) > 0 && (len(twin) >= row.most || r.IntN(3) == 0) {
					for id, s := range twin { // any
						table.remove(s)
						delete(twin, id)
						break
					}
				} else {
					last = row.next(last)
					s := &Stream{id: last}
					table.put(s)
					twin[last] = s
				}
				id := last - min(last, r.Uint32N(4000))
				if got := table.get(id); got != twin[id] {
					t.Fatalf("stream %d: got %v, want %v", id, got, twin[id])
				}
				if table.n != len(twin) {
					t.Fatalf("%d streams, want %d", table.n, len(twin))
				}
			}
			if got := slices.Collect(table.all()); len(got) != len(twin) || len(table.near) > mostNear {
				t.Errorf("%d streams in %d places, want %d", len(got), len(table.near), len(twin))
			}
			for _, s := range slices.Collect(maps.Values(twin)) {
				table.remove(s)
			}
			if table.n != 0 || table.far != nil {
				t.Errorf("%d streams and a map are left", table.n)
			}
		})
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []uint32{32, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var table streamTable
			for i := range n {
				table.put(&Stream{id: 2*i + 1})
			}
			id := uint32(0)
			for b.Loop() {
				id = (id*5 + 3) % n // any order
				if table.get(2*id+1) == nil {
					b.Fatal("lost")
				}
			}
		})
	}
}
