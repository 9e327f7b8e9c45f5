// Package proxy is the engine: it serves tunnels, runs exchanges, and swaps
// snapshots.
//
// It parses no configuration (proxy/config), picks no endpoint (proxy/upstream)
// and decides nothing that a filter could decide.
//
// # Memory
//
// An exchange is pooled: it and everything reached through its filters.Stream
// are reused when the exchange is over. Heads live in the exchange's messages;
// body bytes pass as views and are copied only while they are held: for a
// filter that waits, for a connection that is being made, or for another
// attempt. Bytes that are held are not credited to their sender.
//
// # Concurrency
//
// An inner connection is a lane; of HTTP/2 each stream is one. Every event of it
// and of the exchange on it runs with the lane held, in somebody's turn. The
// snapshot is an atomic pointer that a connection pins.
//
// Start reading at openTunnel in tunnel.go, then the table at the top of
// exchange.go.
package proxy
