// Package suites runs conformance suites of others against the proxy: h2spec
// for HTTP/2, inside tunnels and of the mesh's own connections, and gRPC's
// interoperability client and server.
//
// It is a module of its own, so that what the suites depend on is nothing that
// the proxy depends on.
//
// # Memory
//
// What is built and written goes below a test's temporary folder.
//
// # Concurrency
//
// Tests run one after the other. Programs end with their test.
//
// Start reading at TestH2specInside.
package suites
