package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// maxV1 is the longest header of version 1 (section 2.1).
const maxV1 = 107

const v1Start = "PROXY "

var errV1 = errors.New(`want "PROXY TCP4|TCP6 <source> <destination> <source port> <destination port>" and CRLF`)

// parseV1 reads a header of version 1 as Parse does. UNKNOWN gives a Header
// without addresses.
func parseV1(p []byte) (h Header, n int, err error) {
	for i := range min(len(p), len(v1Start)) {
		if p[i] != v1Start[i] {
			return Header{}, 0, errV1
		}
	}
	end := bytes.IndexByte(p[:min(len(p), maxV1)], '\n')
	switch {
	case end < 0 && len(p) >= maxV1:
		return Header{}, 0, errV1
	case end < 0:
		return Header{}, 0, nil
	case p[end-1] != '\r': // the signature keeps end above 0
		return Header{}, 0, errV1
	}
	f := strings.Split(string(p[len(v1Start):end-1]), " ")
	if f[0] == "UNKNOWN" { // section 2.1: the rest of the line means nothing
		return Header{}, end + 1, nil
	}
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return Header{}, 0, errV1
	}
	src, ok1 := v1Address(f[1], f[3], f[0] == "TCP4")
	dst, ok2 := v1Address(f[2], f[4], f[0] == "TCP4")
	if !ok1 || !ok2 {
		return Header{}, 0, errV1
	}
	return Header{Source: src, Destination: dst}, end + 1, nil
}

func v1Address(addr, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(n)), true
}
