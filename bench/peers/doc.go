// Package peers holds the configurations of proxies that others wrote, with
// which they do the work of the proxy under test, and says what they lack or
// have more.
//
// It starts nothing: package bench does.
//
// # Memory
//
// The configurations are embedded in the program.
//
// # Concurrency
//
// All functions may be called at once.
//
// Start reading at Peer.
package peers
