// Package turn is one read's worth of work: what it dirtied, whom to notify,
// and the clock it read.
//
// It knows nothing of connections. A driver (internal/wire) begins a Turn after
// a read, hands it down through engines and handlers, and ends it before the
// next read that could block.
//
// # Rules
//
//   - Calls down never call up. Down: Write, Consume, CloseWrite, Abort, Open.
//     Up: Left, Opened, Closed. Up-calls are queued with Notify and delivered at
//     the top level of the Turn, where no lock is held.
//   - End repeats flush and deliver until nothing is dirty, because delivering
//     gives credit back and credit makes more to flush.
//   - What is put off with Later in a feed is done when the outermost feed ends, with
//     no lock held.
//   - Nothing in a turn blocks: no dial, no channel, no foreign I/O.
//   - Lock order: lane, inner h2.Conn, outer h2.Conn, wire.Conn, pools.
//
// # Memory
//
// A Turn is reused by its driver; nothing may keep it after the call it was
// handed to has returned.
//
// # Concurrency
//
// A Turn belongs to one goroutine. What it marks and notifies is shared, and
// each Flusher and Notified guards itself.
//
// Start reading at Turn.End.
package turn
