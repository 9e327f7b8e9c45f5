// Package peer says who is at the other end of a mesh connection: SPIFFE ID,
// addresses, destination, baggage, trace.
//
// It holds the types and the parsers for what a CONNECT carries, and their
// inverses for a CONNECT of our own. It verifies nothing: whether an ID was
// proved by a certificate or told by a trusted neighbour is known to package
// hbone, which fills an Info in.
//
// # Memory
//
// Everything here is a value or a copy; nothing aliases a connection's buffer
// unless a caller parsed a string that does. An Info is immutable once a
// tunnel has been handed out and may be kept.
//
// # Concurrency
//
// Values, safe to share.
//
// Start reading at Info.
package peer
