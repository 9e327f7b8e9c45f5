package traffic

import (
	"encoding/binary"
	"net/netip"
)

// tlvSPIFFE is the TLV in which node tunnels tell the source's identity.
const tlvSPIFFE = 0xD0

// ProxyHeader writes a PROXY v2 header for TCP; both addresses are of one family.
// It is written here, by the format's text, and not with the parser under test.
func ProxyHeader(src, dst netip.AddrPort, identity string) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x00")
	if src.Addr().Is6() {
		b[13] = 0x21 // TCP over IPv6
	}
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	if identity != "" {
		b = append(b, tlvSPIFFE)
		b = binary.BigEndian.AppendUint16(b, uint16(len(identity)))
		b = append(b, identity...)
	}
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16))
	return b
}
