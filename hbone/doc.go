// Package hbone is the mesh transport: tunnels in, tunnels out, and the
// certificates that both stand on.
//
// A Server accepts tunnels (CONNECT over mutual TLS, PROXY over TCP, bare TCP)
// and a Pool opens them, over the few mesh connections that they share.
// Certificates hold what this end proves itself with and whom it trusts; Files
// and WorkloadAPI keep them current. It knows nothing of HTTP requests, routes
// or services: what a tunnel carries is the handler's business, and whether a
// destination may be reached is for the Server's owner to say.
//
// # Memory
//
// A tunnel's Data is a view that dies when the call returns. A peer.Info is
// immutable and may be kept. Credentials never change: a new set replaces the
// old one whole, and whoever holds the old one may finish with it.
//
// # Concurrency
//
// A TunnelHandler is called inside a turn, with no lock held, and calls for one
// tunnel never overlap. Server, Pool and Certificates may be used from any
// goroutine. A mesh connection is read by an event loop or has one goroutine; a
// dial and a handshake have one while they run, or wait for their turn; a server and
// a pool with mesh connections have one that looks at their peers when certificates
// change, until Shutdown and Close; a certificate source has the one that Watch is
// called on.
//
// Start reading at Tunnel, then Server.ServeHBONE and Pool.Open; for
// certificates at Certificates.ServerConfig.
package hbone
