// Package buf lends byte buffers and takes them back.
//
// It does not count references and knows nothing of what the bytes mean. A
// buffer has one owner at a time: whoever got it, or was handed it, puts it
// back once or leaves it to the collector.
//
// # Memory
//
// Buffers come in sizes of 1, 4, 16, 32, 64 and 128 KiB, each from a pool of its
// own; larger ones are made in multiples of 128 KiB and go to the collector.
// Put recognises a buffer by its capacity, so a buffer must come back as it was
// lent: b[:0] and b[:n] are the same buffer, b[1:] is not and is dropped.
//
// With -tags housecheck a returned buffer is filled with 0xDB, so that a view
// kept too long is seen; returning twice, returning what was not lent and
// writing after returning panic.
//
// # Concurrency
//
// All functions may be called from any goroutine. A buffer itself is not
// guarded.
//
// Start reading at Get.
package buf
