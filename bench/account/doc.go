// Package account measures what another process costs: CPU time and memory.
//
// It does not start or stop anything. On Linux the sources are per-thread
// scheduler statistics (nanoseconds) and /proc; elsewhere ps(1), which has
// hundredths of a second.
//
// # Memory
//
// A Meter keeps one number per thread of the process it watches.
//
// # Concurrency
//
// A Meter belongs to one goroutine.
//
// Start reading at Meter.
package account
