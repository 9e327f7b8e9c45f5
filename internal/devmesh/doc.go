// Package devmesh is a whole ambient path in one process: a throw-away CA, node
// tunnels, waypoints and echo services. It stands behind waypoint dev, the
// examples and the end-to-end tests.
//
// The addresses of its document are not the machine's: a network of its own
// maps each pod and each service to a listener on loopback, so that any document
// runs on a laptop without privileges.
//
//	client → node tunnel → HBONE → waypoint → HBONE → node tunnel → echo
//
// and, sandwiched, where the waypoint has a node tunnel of its own:
//
//	client → node tunnel → HBONE → node tunnel → PROXY → waypoint
//	       → capture → node tunnel → HBONE → node tunnel → echo
//
// # Memory
//
// Nothing here is tuned: it is for people and tests.
//
// # Concurrency
//
// A Mesh may be used from any goroutine.
//
// Start reading at Start.
package devmesh
