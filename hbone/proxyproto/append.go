package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Append appends h as a header of version 2, in the form that node tunnels
// write: UNSPEC without addresses if the two ends are of different families.
// Nothing is appended with an error.
func Append(dst []byte, h Header) ([]byte, error) {
	if h.Local {
		return append(append(dst, signature...), 0x20, famUnspec, 0, 0), nil
	}
	switch {
	case len(h.Identity) > MaxIdentity:
		return dst, fmt.Errorf("the identity is %d bytes long, at most %d are allowed", len(h.Identity), MaxIdentity)
	case len(h.Service) > MaxService:
		return dst, fmt.Errorf("the service name is %d bytes long, at most %d are allowed", len(h.Service), MaxService)
	case len(h.Identity) > 0 && !printable(h.Identity), len(h.Service) > 0 && !printable(h.Service):
		return dst, errors.New("identity and service name must be printable ASCII")
	}
	start := len(dst)
	dst = append(append(dst, signature...), 0x21, famUnspecStream, 0, 0)
	s, d := h.Source.Addr(), h.Destination.Addr()
	switch {
	case s.Is4() && d.Is4():
		dst[start+13] = famTCP4
		dst = appendAddresses(dst, h.Source, h.Destination)
	case s.Is6() && d.Is6():
		dst[start+13] = famTCP6
		dst = appendAddresses(dst, h.Source, h.Destination)
	}
	dst = appendTLV(dst, tlvIdentity, h.Identity)
	dst = appendTLV(dst, tlvService, h.Service)
	// The limits above keep the whole far under 64 KiB.
	binary.BigEndian.PutUint16(dst[start+14:], uint16(len(dst)-start-fixed))
	return dst, nil
}

func appendAddresses(dst []byte, s, d netip.AddrPort) []byte {
	if s.Addr().Is4() {
		a, b := s.Addr().As4(), d.Addr().As4()
		dst = append(append(dst, a[:]...), b[:]...)
	} else {
		a, b := s.Addr().As16(), d.Addr().As16()
		dst = append(append(dst, a[:]...), b[:]...)
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, s.Port()), d.Port())
}

func appendTLV(dst []byte, kind byte, value string) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(append(dst, kind), uint16(len(value)))
	return append(dst, value...)
}
