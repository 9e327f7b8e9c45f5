// Package upstream picks an endpoint, gets a connection to it, makes one call,
// and remembers how it went.
//
// It does not retry and knows nothing of routes: the engine decides whether
// there is another attempt, and tells which endpoints were tried.
//
// # Memory
//
// Picking allocates nothing; a call on an idle connection neither, and one over
// HTTP/2 only its stream. A connection
// that is idle holds its codec and its tunnel and no buffer. What a CallHandler
// is given are views that die when it returns, but for heads: they live in the
// message that the handler provided.
//
// # Concurrency
//
// A Backend's membership is an immutable set behind an atomic pointer. An inner
// connection is guarded by a lane: that of the exchange it serves, or that of all
// which its endpoint has at rest. An HTTP/2 connection is shared: each of its calls is guarded by the
// lane of its exchange. Pool locks are leaves.
//
// Start reading at Backend.Pick, then Endpoint.Open; for HTTP/2
// Endpoint.OpenHTTP2.
package upstream
