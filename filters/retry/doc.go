// Package retry is the standard retry policy.
//
// It does not decide what is safe: the engine asks only when another attempt
// would be, and cannot be overruled. It keeps no budget and picks no endpoint.
//
// # Memory
//
// A Policy is immutable and shared by all streams of a route. Asking it
// allocates nothing.
//
// # Concurrency
//
// A Policy may be asked from any goroutine.
//
// Start reading at Policy.Next.
package retry
