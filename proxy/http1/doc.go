// Package http1 reads and writes HTTP/1.1 in place, for both sides: Server on a
// connection that brings requests, Client on one that takes them.
//
// It does no I/O, keeps no time and decides no policy: bytes come in by Feed,
// leave through a turn.Sink, and what was read is told to a handler. Deadlines,
// retries, routing and what to answer are the engine's.
//
// Reading is as strict as RFC 9112 lets a recipient be: what two parsers could
// understand differently is refused. Framing is rebuilt: Content-Length,
// Transfer-Encoding, Connection and their like become the message's Length and
// flags, and are written anew from these alone, so that no framing field is ever
// copied from one side to the other. A writer whose bytes do not match Length
// says so, and its connection must be aborted.
//
// # Memory
//
// A head is copied into its message's arena, up to its last byte only, and
// parsed there. Body bytes are handed on as views of what Feed was given and
// die when the handler returns. Bytes that come while an exchange is in
// progress are copied into a pooled buffer (Kept), at most Limits.Kept of them.
// An idle codec holds no buffer.
//
// # Concurrency
//
// None: the lane of the connection guards its codec. Handlers are called from
// within Feed, EOF and Next, with the lane held. They may call the codec back,
// all but Feed and EOF.
//
// Start reading at Server.Feed, then headReader.lines in scan.go.
package http1
