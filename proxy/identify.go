package proxy

import (
	"encoding/binary"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// identify gives a request without x-request-id one, as Istio's waypoint does: a
// random UUID. Its version digit is the 4 of "not traced", which Envoy changes
// where it decides otherwise. A client's own id is kept. Fields that carry a
// trace (traceparent, tracestate, b3, x-b3-*) pass untouched.
//
// It is a name and no secret, so a fast generator will do, and its digits are made
// eight at a time. BenchmarkIdentify: 85 → 35 ns, no allocation.
func identify(s *shelf, r *message.Request) {
	if _, ok := r.Header.ValueOf(message.XRequestID); ok {
		return
	}
	high := s.uint64()&^0xf000 | 0x4000      // version 4
	low := s.uint64()&^(0b11<<62) | 0b10<<62 // RFC 9562, section 4.1
	var id [36]byte
	hex(id[0:], uint32(high>>32))
	hex(id[10:], uint32(high)) // four of these digits stand a place before, and so below
	copy(id[9:], id[10:14])
	hex(id[20:], uint32(low>>32))
	copy(id[19:], id[20:24])
	hex(id[28:], uint32(low))
	id[8], id[13], id[18], id[23] = '-', '-', '-', '-'
	r.Header.AddKnown(message.XRequestID, id[:])
}

// hex writes the eight digits of v.
func hex(to []byte, v uint32) {
	x := uint64(v)
	x = (x<<16 | x) & 0x0000ffff_0000ffff
	x = (x<<8 | x) & 0x00ff00ff_00ff00ff
	x = (x<<4 | x) & 0x0f0f0f0f_0f0f0f0f
	letters := (x + 0x06060606_06060606) >> 4 & 0x01010101_01010101
	binary.BigEndian.PutUint64(to, x+0x30303030_30303030+letters*('a'-'9'-1))
}
