package proxy

import "encoding/binary"

// A messages counts the messages of a gRPC body: each begins with five bytes, a
// flag and its length. The zero value counts nothing until it is told to.
type messages struct {
	counts bool
	at     uint8   // bytes of the prefix that have come
	prefix [4]byte // of them, those of the length
	left   uint32  // bytes of the message at hand
	n      uint32
}

// feed takes the next bytes of the body.
func (m *messages) feed(p []byte) {
	for m.counts && len(p) > 0 {
		if m.left > 0 {
			n := min(uint64(m.left), uint64(len(p)))
			m.left -= uint32(n)
			p = p[n:]
			continue
		}
		if m.at > 0 {
			m.prefix[m.at-1] = p[0]
		}
		p = p[1:]
		if m.at++; m.at == 5 {
			m.left, m.at = binary.BigEndian.Uint32(m.prefix[:]), 0
			m.n++
		}
	}
}
