// Package proxyproto reads and writes PROXY protocol headers and their TLVs.
//
// A header tells whom a TCP connection was made for; with Istio's TLV it even
// tells the client's identity. Whether the sender may be believed is not
// decided here: package hbone asks for a header only on a port of its own and
// only from the neighbours it trusts. References are to the specification,
// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt.
//
// # Memory
//
// A Header is a copy. Parsing version 2 allocates its two strings and nothing
// else, unless it fails; version 1 allocates.
//
// # Concurrency
//
// Functions without state.
//
// Start reading at Parse.
package proxyproto
