// Package interop tests against programs that we did not write: curl, nginx,
// Node and its ws, Redis and PostgreSQL as clients and applications, Apache httpd
// and Envoy as node tunnels.
//
// It has no code. Two ends of ours agree with each other even where both are
// wrong; these do not. The rigs are first driven against each other, without
// the proxy, so that what fails with it in the middle is ours to mend. A program
// that is not installed skips its tests and is named at the end of `make test`.
//
// # Memory
//
// Every rig writes below its test's temporary folder and nowhere else.
//
// # Concurrency
//
// Tests run one after the other; each program has its own process group, which
// is killed when its test ends.
//
// Start reading at TestTunnelsAgree in rigs_test.go.
package interop
