// Package wheel keeps many coarse timers for one owner.
//
// It does not measure time finely: a timer fires at the first 10 ms tick after
// it is due, never before. It makes no goroutine per timer and does not guard
// its owners: Expired runs on the wheel's goroutine, and an owner that may
// panic recovers for itself.
//
// # Memory
//
// A Timer is embedded in what it belongs to; setting and stopping it allocates
// nothing. While a timer is set the wheel holds its owner.
//
// # Concurrency
//
// Set and Stop may be called from any goroutine, with any lock held: the
// wheel's own mutex is the last in the lock order. Stop may race with Expired,
// so an owner looks again under its own lock.
//
// Start reading at Wheel.Set, then Wheel.run.
package wheel
