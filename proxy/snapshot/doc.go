// Package snapshot compiles a configuration document into what the engine runs,
// and fills the ports that filters were promised.
//
// It serves nothing and keeps no state of its own: what outlives a snapshot
// (backends, and what filters share) is held through internal/refpool.
//
// # Memory
//
// A snapshot never changes, except inside an *upstream.Backend, which outlives
// it by design. It is given up when it has been replaced and the last connection
// has let go of it.
//
// # Concurrency
//
// Everything may be read from any goroutine while pinned.
//
// Start reading at Compile.
package snapshot
