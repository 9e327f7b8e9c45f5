package http1

import "github.com/sandwich-mesh/sandwich/proxy/message"

// bodyMode is how a body's end is known.
type bodyMode uint8

const (
	noBody      bodyMode = iota
	sizedBody            // after so many bytes
	chunkedBody          // after the last chunk and its trailer section
	closeBody            // when the sender closes
)

// A bodyReader hands on the body of one message.
type bodyReader struct {
	left int64 // of a sized body, or of the chunk being read
	raw  int64 // bytes of the message read before this call, for error offsets
	mode bodyMode
	chunkReader
}

// begin makes the reader ready for a body; raw is the length of the head.
func (b *bodyReader) begin(mode bodyMode, length, raw int64) {
	*b = bodyReader{mode: mode, raw: raw}
	if mode == sizedBody {
		b.left = length
	}
}

// read takes from p up to the next event and puts it into c. ready is false if
// p ran out before there was one. Trailers are read into h.
func (b *bodyReader) read(p []byte, c *message.Chunk, s *partial, h *message.Header) (n int, ready bool, err *ParseError) {
	switch b.mode {
	case sizedBody:
		n = int(min(int64(len(p)), b.left))
		b.left -= int64(n)
		*c = message.Chunk{Data: p[:n:n], End: b.left == 0}
		ready = true
	case closeBody:
		n = len(p)
		*c, ready = message.Chunk{Data: p}, true
	default:
		n, ready, err = b.readChunked(p, c, s, h)
	}
	b.raw += int64(n)
	return n, ready, err
}
