// Package load makes one run of load on a target and says what came of it:
// requests at times that were meant beforehand (open loop) or one after the other
// (closed loop), over HTTP/1.1, HTTP/2, gRPC, WebSocket or bare TCP, through TCP,
// TLS, PROXY v2 or HBONE.
//
// It judges no target: conditions that are to hold come from whoever asks. It
// does judge itself: a run in which the generator was the bottleneck says so.
//
// # How it measures
//
// Every request of an open loop has a time at which it was to be sent. Three
// durations are kept for it: the corrected latency, from that time to the end of
// the answer, which is what a client of a steady stream of clients would have
// waited; the service time, from when it was sent; and the generator's lag, from
// when it was meant to when the generator looked at it. A request that finds every
// connection busy waits, and its corrected latency grows; nothing is left out.
//
// # Memory
//
// A request costs no allocation of HTTP/1.1, WebSocket and TCP. Bodies are
// compared or counted in place. Each worker has three histograms of 260 KiB, and
// one more for each kind of a mix.
//
// # Concurrency
//
// Event loops read; a pacer for each worker sends what is due. A slot, the place
// of one request at a time, has a lane; a worker has a mutex for its idle slots,
// queue and record. Lock order: h2's, slot, worker, h2.Conn.
//
// Start reading at Run.
package load
