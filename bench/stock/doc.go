// Package stock is the waypoint that Go's standard library and x/net make:
// net/http, httputil.ReverseProxy and x/net/http2, for the benchmarks to
// compare with.
//
// It serves one service with one route, checks no policy, retries nothing and
// keeps no metrics of the mesh. What it does it does as the libraries' documents
// say, with pooled buffers, kept connections and no log.
//
// # Memory
//
// Each request has goroutines and tables of its own; the libraries' pools keep
// connections and buffers.
//
// # Concurrency
//
// A Proxy may serve on several listeners at once. A tunnel is read by one
// goroutine and written by another at a time, as a net.Conn is.
//
// Start reading at Proxy.
package stock
