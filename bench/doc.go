// Package bench measures the proxy against bars: what it costs per request
// compared with relays and peers, and what it holds on to.
//
// It makes no claim about absolute speed. Costs are CPU time of the proxy's
// process per request, taken from rounds that start all variants anew and
// interleave them, and judged as ratios within one run: throughput and latency of a
// shared machine say more about its neighbours.
//
// # Memory
//
// Everything measured runs in a process of its own.
//
// # Concurrency
//
// One scenario runs at a time, from one goroutine. Only the loads of a round begin
// side by side.
//
// Start reading at Scenarios for bars, at Works for the comparison with others.
package bench
