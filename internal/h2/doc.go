// Package h2 runs one HTTP/2 connection as a state machine: frames, settings,
// flow control, stream states, flood limits.
//
// It does no I/O, gives requests no meaning beyond what RFC 9113 says of their
// form, and holds no policy. Bytes come in through Conn.Feed and go out through
// a turn.Sink, which is a transport connection or the stream of another Conn.
//
// # Memory
//
// Data and fields handed to handlers are views: they die when the handler
// returns. What Write and SendHeaders are given is copied. Frames are appended to an out buffer that is
// lent by internal/buf and handed on whole when the turn flushes; what may not
// leave yet waits in the stream's own queue of lent chunks. A connection with
// nothing to send and no partial frame holds no buffers.
//
// # Concurrency
//
// Feed, EOF and Closed belong to the goroutine that reads the connection, one
// call at a time. Everything else may be called from any goroutine: the out
// side, windows and the stream table are guarded by Conn.mu, which is never
// held while a handler runs.
//
// Calls to one stream's handler never overlap, whichever goroutines they come
// from, and Closed is the last of them. The reader marks the stream busy, which
// needs no lock but Conn.mu, and Notified leaves what it would say to the reader;
// Notified holds Stream.up, and the reader waits for it. Locks are taken in the
// order Stream.up, the handler's own (lane), Conn.mu, the sink's.
//
// Start reading at Conn.Feed (conn_recv.go) and Stream.Write (stream.go).
package h2
