// Package admin serves what operators ask of a running proxy, on ports of its
// own: pages about its state, actions that change it, readiness, metrics.
//
// It knows no proxy. Whoever wires the program gives it pages and actions; it
// sees to ports, forms (text, HTML, JSON), and who may ask.
//
// Three ports, as the mesh has them. The admin port serves loopback only. A
// page there is for people and scripts on this machine, and not for web sites
// that their browser shows: Host must be a loopback name, Origin must be ours,
// and what changes anything takes a POST. The ready and metrics ports may be
// reached from outside, and change nothing.
//
// # Memory
//
// A page is built when it is asked for, and holds nothing afterwards.
//
// # Concurrency
//
// One goroutine for each connection and each listener; pages and actions are
// called on any of them.
//
// Start reading at Server.Serve.
package admin
