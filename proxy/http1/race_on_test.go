//go:build race

package http1

// pooled says that sync.Pool keeps what it is given. With the race detector it
// drops some of it, so allocations cannot be counted.
const pooled = false
