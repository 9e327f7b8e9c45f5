package http1

import (
	"errors"
	"fmt"

	"github.com/sandwich-mesh/sandwich/internal/buf"
)

// Limits bound what one connection may make us hold or do.
type Limits struct {
	HeadBytes int // of a head, start line included, and of a trailer section
	Fields    int // in a head, and in a trailer section
	Options   int // in the Connection fields of a head
	Extension int // bytes after a chunk's size
	Overhead  int // bytes of chunk framing beyond a fair share of the data
	Interim   int // informational responses before the final one
	Kept      int // bytes that come while an exchange is in progress
}

// DefaultLimits returns the limits that hold where nobody set others. Kept is a
// stream's receive window (256 KiB) and one read: a sender that minds its
// window never reaches it.
func DefaultLimits() *Limits {
	return &Limits{
		HeadBytes: 60 << 10,
		Fields:    100,
		Options:   32,
		Extension: 256,
		Overhead:  16 << 10,
		Interim:   10,
		Kept:      320 << 10,
	}
}

// A ParseError says why bytes are not the message they should be. After it the
// connection is good for nothing but an answer and its end.
type ParseError struct {
	Status int    // what to answer the sender of a request; 502 in a response
	Reason string // for people: what is wrong, never what was sent
	Offset int64  // of the line or byte at fault, from the message's first byte
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset)
}

// Errors that are no ParseError. After any of them the caller aborts.
var (
	// ErrLength: the body written is not as long as the head said.
	ErrLength = errors.New("body does not match its length")
	// ErrOrder: a head where none is due, or a chunk without a head.
	ErrOrder = errors.New("message written out of order")
	// ErrSwitch: a 101 that the request did not ask for.
	ErrSwitch = errors.New("response switches protocols unasked")
	// ErrTruncated: the server closed before its response was complete.
	ErrTruncated = errors.New("response cut short")
	// ErrHead: a method, target, authority or status that no head may have.
	ErrHead = errors.New("head has an invalid start line")
)

// kept is what came too early: bytes behind the message being read.
type kept struct {
	off   int    // how much of bytes has been read since
	bytes []byte // pooled; nil when empty
}

func (k *kept) len() int { return len(k.bytes) - k.off }

// add copies p to the end; false means over max, and nothing was added.
func (k *kept) add(p []byte, limit int) bool {
	n := k.len() + len(p)
	if n > limit {
		return false
	}
	if len(k.bytes)+len(p) > cap(k.bytes) { // doubling makes the copying linear
		b := append(buf.Get(max(n, 2*k.len())), k.bytes[k.off:]...)
		buf.Put(k.bytes)
		k.bytes, k.off = b, 0
	}
	k.bytes = append(k.bytes, p...)
	return true
}

// take removes everything; the caller gives bytes back, or restores the rest.
func (k *kept) take() kept {
	all := *k
	*k = kept{}
	return all
}

func (k *kept) drop() {
	buf.Put(k.bytes)
	*k = kept{}
}
