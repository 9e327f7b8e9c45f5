// Package fault names every way a stream can fail, with the status, log flag
// and retry answer of each, in one table.
//
// It does not decide: the engine turns a fault into a response in one place and
// asks the retry policy in another, and both read the table.
//
// # Memory
//
// A Fault is immutable. Wrap without an underlying error returns one that was
// built with the program, so saying why costs nothing on a busy path.
//
// # Concurrency
//
// Everything here may be used from any goroutine.
//
// Start reading at the table in table.go.
package fault
