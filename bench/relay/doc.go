// Package relay holds the yardsticks: relays that do for a byte what any proxy
// must, and nothing for a request.
//
// They know no HTTP and enforce nothing. They are frozen: a test holds the hash
// of their source, because a proxy that is compared with a relay could also win
// by a slower relay. Who changes one states the new figures with the new hash.
//
// # Memory
//
// Each connection holds its buffers for its life.
//
// # Concurrency
//
// A byte relay has one goroutine for each connection, a TLS relay two.
//
// Start reading at Byte.
package relay
