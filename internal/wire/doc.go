// Package wire drives one transport connection: it reads, gives what it read to
// an engine in a turn, keeps an out buffer, flushes it, and pauses; for TCP and
// for TLS over it.
//
// It knows no protocol above TLS, dials nothing, checks no identity and sets no
// deadline but the one that bounds closing.
//
// # How it goes
//
// A reader runs the engine to completion: everything a read made possible happens
// in one turn, and the turn ends (is flushed) before the next wait. Writes append;
// a flush makes one write that does not block. What the socket does not take is
// left to a drain goroutine, which exists only while the socket is full and which
// alone touches the descriptor's writing side meanwhile.
//
// The reader is a goroutine of the connection's own on Go's netpoller, or one of a
// few Loops, on Linux and for sockets. A loop asks epoll who is ready, reads once
// for each, and flushes when all have been served: bytes that several connections
// had for one leave in one write, nobody reads in vain, and an idle connection has
// no stack. 32 connections through the proxy: 9 to 13 % less CPU a request
// (event-loops-vs-goroutines of cmd/bars).
//
// A connection ends in one of these ways, and the engine hears Closed once:
//
//   - both directions ended (CloseWrite here, FIN or close_notify from the
//     peer): nil;
//   - Close, EOF answered false, or an error from Feed: nil or that error, at
//     once; what was written still leaves, then close_notify and FIN, and what
//     the peer sends is read and dropped, for Options.Linger at most;
//   - Abort: ErrAborted, and RST;
//   - a failed read or write, a TLS alert, a FIN without close_notify: that
//     error, and RST. After a failed write what has already arrived is read
//     first: a server may answer early and close;
//   - a panic in the engine: *PanicError, and RST.
//
// # Memory
//
// Buffers come from internal/buf and are held while bytes are in flight: an
// idle connection has none. Feed's p is a view and dies when Feed returns.
// crypto/tls keeps an input buffer of the largest record seen; it is given
// whole records only, so that it keeps no more than one.
//
// Without loops an idle connection has a goroutine, and with ticks a small one: a reader that
// has received nothing for a whole tick goes on in a fresh goroutine, once until
// bytes come. One request makes a reader's stack grow to 4 KiB or more, and the
// runtime halves a stack only while less than a quarter of it is in use, which
// waiting alone exceeds at 4 KiB. An idle PROXY connection of the proxy: 7.7 →
// 5.5 KiB resident (idle-proxy-connection of cmd/bars), for 9 µs of CPU each time
// that it comes to rest. TestIdleMemory.
//
// # Concurrency
//
// Feed and EOF come from the goroutine that reads, which is a loop's, or the one in
// Serve or who has taken over from it, and never overlap. Left and Tick may come from other
// goroutines, at the same time as Feed: an engine guards itself. Closed comes
// from the goroutine that reads, after every other call has returned. No call is
// made with a lock held. Write, Buffered, CloseWrite, Abort, Close, Consume and
// Flush may be called from any goroutine, with a lane or an engine's lock held:
// they come after those in the lock order.
//
// Start reading at Conn.Serve, then Conn.Flush; with loops at loop.run.
package wire
