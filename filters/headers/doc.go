// Package headers edits the fields of requests and responses, as the filters
// RequestHeaderModifier and ResponseHeaderModifier of Gateway API do.
//
// It computes no values: what is written is what the configuration says. It
// leaves framing alone, which belongs to the codecs.
//
// # Memory
//
// Edits are immutable. New bytes go into the message's own arena.
//
// # Concurrency
//
// A filter has no state of its own.
//
// Start reading at apply.
package headers
