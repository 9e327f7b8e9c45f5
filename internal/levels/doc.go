// Package levels lets the log level of each component be changed for a while.
//
// It writes no log: a component's Handler asks it what is to be written, and
// hands the rest on. Loggers are made by whoever wires the program.
//
// # Memory
//
// One level and at most one timer for each component, and components are named
// when the program starts.
//
// # Concurrency
//
// Everything may be used from any goroutine; asking whether a line is wanted is
// one atomic load.
//
// Start reading at Levels.Set.
package levels
