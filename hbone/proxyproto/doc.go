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
// Parse copies nothing: Identity and Service of a Header are views of its
// input. It allocates nothing either, unless it fails. ParseV1 does allocate.
//
// # Concurrency
//
// Functions without state.
//
// Start reading at Parse.
package proxyproto
