// Package http2 gives streams of internal/h2 HTTP meaning, for both sides: heads
// and trailers become messages and messages heads, and bodies are held to the
// length that their heads tell.
//
// It runs no connection and handles no event: who owns a stream hears those, and
// asks here what they mean. The form of heads is checked by internal/h2; what is
// checked here is what makes sense of them: targets, Host, Expect.
//
// # Memory
//
// Reading copies a head once, into its message's arena. Writing allocates
// nothing for heads of up to 24 fields. Body bytes are not kept.
//
// # Concurrency
//
// None: the lane of the stream guards its Server or Client.
//
// Start reading at Server.ReadHead in read.go, then Server.WriteHead in write.go.
package http2
