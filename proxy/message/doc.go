// Package message is the HTTP message: head, header arena, body chunk; and the
// rules for views into buffers.
//
// It parses no head and writes none: codecs do (proxy/http1, proxy/http2). Only
// field lines, which become rows of its table and are made of them, are taken apart
// and appended here.
// It knows no framing: Content-Length, Transfer-Encoding, Connection and their
// like become Length and flags, and are not among the fields of a message.
//
// # Memory
//
// A message owns one byte arena. A codec copies the bytes of a head into it
// once and parses them there; what is set later is appended. Value, Field, All
// and the byte slices of Request and Response are views: they live until the
// message is Reset, and never longer. Get and CopyFrom copy. Reset keeps an
// arena of up to 16 KiB for the next message and drops a larger one. In the
// housecheck build it fills the arena with 0xDB.
//
// # Concurrency
//
// None: a message belongs to one exchange, and its lane guards it.
//
// Start reading at Request, then Header.
package message
