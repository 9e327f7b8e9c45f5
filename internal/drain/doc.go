// Package drain lets work finish before shutdown: hold a token to delay it,
// watch to learn of it.
//
// It ends nothing itself and knows no deadline but its caller's: work that holds
// a token and never releases it is named by Wait's error.
//
// # Memory
//
// A Token is embedded in what it belongs to; holding and releasing it allocates
// nothing once its name has been seen.
//
// # Concurrency
//
// All methods may be called from any goroutine, with any lock held. Draining is
// called with no lock held, on the goroutine that began to drain.
//
// Start reading at Drain.Hold.
package drain
