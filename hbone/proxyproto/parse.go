package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

const (
	// MaxHeader is the longest header that Parse takes, all in: room for an
	// identity of MaxIdentity bytes and as much again of what others may add.
	// The protocol would allow 64 KiB to be held before anything is known.
	MaxHeader = 4 << 10
	// MaxIdentity is the longest identity (SPIFFE ID standard, section 2.3).
	MaxIdentity = 2048
	// MaxService is the longest service name: what DNS can carry.
	MaxService = 253
)

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	fixed     = 16 // signature, version and command, family, length
)

// Families and transports (section 2.2). Datagrams cannot be on this
// connection, and unix sockets have no address that a policy could mean.
const (
	famUnspec       = 0x00
	famUnspecStream = 0x01 // what node tunnels write if the families of the two ends differ
	famTCP4         = 0x11
	famTCP6         = 0x21
	addrTCP4        = 12
	addrTCP6        = 36
)

// Types of TLVs that are looked at. All others are skipped.
const (
	tlvCRC32C   = 0x03
	tlvIdentity = 0xD0 // Istio: the client's SPIFFE ID
	tlvService  = 0xD1 // Istio, planned: the service that was meant
)

// A Header says whom a connection was made for.
type Header struct {
	// Local is set if the sender speaks for itself, as for a health check.
	// Nothing else is set then.
	Local bool
	// Source and Destination are the addresses of the two ends. They are not
	// valid if the sender did not tell them.
	Source, Destination netip.AddrPort
	// Identity is the client's SPIFFE ID as the sender wrote it, "" if there is
	// none. It is printable ASCII, and no more is known about it.
	Identity string
	// Service is the name of the service that was meant. It is a hint: what is
	// no name is dropped without an error.
	Service string
}

var (
	errSignature = errors.New("the connection does not begin with the signature of version 2")
	errFamily    = errors.New("unix sockets and datagrams are not accepted")
	errAddresses = errors.New("it ends inside the addresses")
	errTLV       = errors.New("a TLV is longer than the header")
	errChecksum  = errors.New("the checksum is wrong")
	errIdentity  = errors.New("the identity is empty or has bytes that are not printable ASCII")
	errTwice     = errors.New("it names more than one identity")
)

// Options say which headers are welcome.
type Options struct {
	// V1 admits version 1, which carries no identity. The first byte tells the
	// versions apart.
	V1 bool
}

// Parse reads a header from the beginning of p. n is its length; n == 0
// without an error asks for more bytes. What cannot become a header is refused
// as early as it shows.
func Parse(p []byte, o Options) (h Header, n int, err error) {
	if o.V1 && len(p) > 0 && p[0] == v1Start[0] {
		return parseV1(p)
	}
	return parseV2(p)
}

func parseV2(p []byte) (h Header, n int, err error) {
	for i := range min(len(p), len(signature)) {
		if p[i] != signature[i] {
			return Header{}, 0, errSignature
		}
	}
	if len(p) > 12 && p[12] != 0x20 && p[12] != 0x21 {
		return Header{}, 0, fmt.Errorf("version %d, command %d; want version 2, LOCAL or PROXY", p[12]>>4, p[12]&0xf)
	}
	if len(p) < fixed {
		return Header{}, 0, nil
	}
	n = fixed + int(binary.BigEndian.Uint16(p[14:]))
	if n > MaxHeader {
		return Header{}, 0, fmt.Errorf("%d bytes long, at most %d are accepted", n, MaxHeader)
	}
	if p[12] == 0x20 { // section 2.2: a LOCAL header is skipped whole, whatever it holds
		if len(p) < n {
			return Header{}, 0, nil
		}
		return Header{Local: true}, n, nil
	}
	skip, err := addressLen(p[13])
	switch {
	case err != nil:
		return Header{}, 0, err
	case fixed+skip > n:
		return Header{}, 0, errAddresses
	case len(p) < n:
		return Header{}, 0, nil
	}
	h.addresses(p[fixed : fixed+skip])
	if err := h.tlvs(p[:n], fixed+skip); err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// addressLen returns how many bytes the addresses of a family take.
func addressLen(family byte) (int, error) {
	switch family {
	case famTCP4:
		return addrTCP4, nil
	case famTCP6:
		return addrTCP6, nil
	case famUnspec, famUnspecStream:
		return 0, nil
	}
	return 0, errFamily
}

func (h *Header) addresses(p []byte) {
	switch len(p) {
	case addrTCP4:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p)), binary.BigEndian.Uint16(p[8:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[4:])), binary.BigEndian.Uint16(p[10:]))
	case addrTCP6:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p)), binary.BigEndian.Uint16(p[32:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[16:])), binary.BigEndian.Uint16(p[34:]))
	}
}

// tlvs reads what follows the addresses in p, a whole header, from at on.
func (h *Header) tlvs(p []byte, at int) error {
	for at < len(p) {
		if len(p)-at < 3 {
			return errTLV
		}
		kind, length := p[at], int(binary.BigEndian.Uint16(p[at+1:]))
		at += 3
		if length > len(p)-at {
			return errTLV
		}
		value := p[at : at+length]
		switch kind {
		case tlvCRC32C:
			if !checksum(p, at, value) {
				return errChecksum
			}
		case tlvIdentity:
			switch {
			case h.Identity != "":
				return errTwice
			case length > MaxIdentity:
				return fmt.Errorf("the identity is %d bytes long, at most %d are accepted", length, MaxIdentity)
			case !printable(value):
				return errIdentity
			}
			h.Identity = string(value)
		case tlvService:
			if h.Service == "" && length <= MaxService && printable(value) {
				h.Service = string(value)
			}
		}
		at += length
	}
	return nil
}

var zeros = make([]byte, 4) // stand for the sum itself; never written

// checksum verifies a CRC32C over the header with the sum's own bytes zero
// (section 2.2.3). One that is there must be right.
func checksum(p []byte, at int, sum []byte) bool {
	if len(sum) != 4 {
		return false
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, table, p[:at])
	c = crc32.Update(c, table, zeros)
	c = crc32.Update(c, table, p[at+4:])
	return c == binary.BigEndian.Uint32(sum)
}

// printable reports whether b is printable ASCII without spaces, and not empty.
func printable[T []byte | string](b T) bool {
	for i := range len(b) {
		if c := b[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(b) > 0
}
