// Package filtertest drives one filter without an engine, and holds filters
// that prove what an engine does with each phase. It is for tests only.
//
// It checks no engine: a Drive calls the phases in order, runs work in place,
// and waits for Wakers. Flow control, limits and retries do not exist here.
//
// # Memory
//
// A Drive copies the bytes it is given and returns copies, and overwrites every
// view after the call, as an engine's buffers are overwritten. A filter that
// keeps a view fails its test.
//
// # Concurrency
//
// A Drive belongs to one test goroutine. The filters are as safe as any.
//
// Start reading at Drive.
package filtertest
