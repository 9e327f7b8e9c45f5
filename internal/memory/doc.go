// Package memory says how much memory this process may have, how much it needs, and
// on which step of a ladder that puts it.
//
// It gives nothing up by itself: who has something to give up asks on which step
// the ladder stands.
//
// # Memory
//
// A Gauge keeps a buffer for the few lines that it reads.
//
// # Concurrency
//
// A Gauge and a Ladder belong to one goroutine.
//
// Start reading at Ladder.
package memory
