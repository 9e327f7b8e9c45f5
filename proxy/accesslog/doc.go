// Package accesslog writes a line for each request that somebody wants to read
// about.
//
// The formats are the mesh's defaults, text and JSON, with its response flags.
// It writes no header field beyond those that the formats name, and of a query
// only the names: tokens, cookies and what people type stay out of it.
//
// # Memory
//
// Lines wait for the writer in one buffer of at most MaxPending bytes; what finds
// no room there is dropped and counted. Until the first line there is no buffer.
//
// # Concurrency
//
// Observe never blocks: it formats, takes a lock for as long as a copy lasts,
// and leaves. One goroutine writes; Close ends it.
//
// Start reading at Log.Observe.
package accesslog
