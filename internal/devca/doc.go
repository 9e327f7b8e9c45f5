// Package devca makes throw-away certificate authorities for a mesh on one
// machine: roots, intermediates, workload certificates with a SPIFFE ID, and
// revocation lists, all on ECDSA P-256.
//
// It keeps nothing on disk and protects no key, so it is for development,
// tests and benchmarks only. It does not verify: package hbone does.
//
// # Memory
//
// What it returns belongs to the caller.
//
// # Concurrency
//
// A CA may issue from several goroutines at once.
//
// Start reading at New and CA.Issue.
package devca
