package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxHost is the longest host name DNS can carry (RFC 1035, section 2.3.4).
const maxHost = 253

// ParseAuthority parses what a CONNECT is bound for: IPv4:port, [IPv6]:port or
// hostname:port. For a host name addr has only its port, and host is in
// canonical form: lower case, no trailing dot.
func ParseAuthority(s string) (addr netip.AddrPort, host string, err error) {
	addr, host, err = parseAuthority(s)
	if err != nil {
		return netip.AddrPort{}, "", fmt.Errorf("authority %.300q: %w", s, err)
	}
	return addr, host, nil
}

func parseAuthority(s string) (netip.AddrPort, string, error) {
	h, p, err := splitPort(s)
	if err != nil {
		return netip.AddrPort{}, "", err
	}
	port, err := parsePort(p)
	if err != nil {
		return netip.AddrPort{}, "", err
	}
	if strings.HasPrefix(h, "[") {
		ip, err := parseV6(h[1 : len(h)-1])
		return netip.AddrPortFrom(ip, port), "", err
	}
	if !numeric(h) {
		host, err := canonicalHost(h)
		return netip.AddrPortFrom(netip.Addr{}, port), host, err
	}
	ip, err := netip.ParseAddr(h)
	if err != nil || !ip.Is4() {
		return netip.AddrPort{}, "", errors.New("not an IPv4 address of four numbers without leading zeros")
	}
	return netip.AddrPortFrom(ip, port), "", nil
}

// splitPort cuts at the colon before the port. A host in brackets keeps them.
func splitPort(s string) (host, port string, err error) {
	at := strings.LastIndexByte(s, ':')
	switch {
	case s == "":
		return "", "", errors.New("empty, want address:port or hostname:port")
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", errors.New("'[' without ']'")
		}
		if end+1 != at {
			return "", "", errors.New("no port after ']'")
		}
	case at < 0:
		return "", "", errors.New("no port")
	case at == 0:
		return "", "", errors.New("no host before the port")
	case strings.IndexByte(s, ':') != at:
		return "", "", errors.New("more than one colon; an IPv6 address stands in brackets")
	}
	return s[:at], s[at+1:], nil
}

// parsePort takes 1 to 65535 in decimal, without sign or leading zeros.
func parsePort(s string) (uint16, error) {
	if s == "" {
		return 0, errors.New("the port is empty")
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i == 0 && s[i] == '0' || i == 5 {
			return 0, errors.New("the port is not a number from 1 to 65535")
		}
		n = n*10 + int(s[i]-'0')
	}
	if n > 65535 {
		return 0, errors.New("the port is not a number from 1 to 65535")
	}
	return uint16(n), nil
}

// parseV6 takes no zone: a scope means nothing to another machine. An IPv4
// address in IPv6 clothes comes out as IPv4, so that addresses compare.
func parseV6(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is6() || ip.Zone() != "" {
		return netip.Addr{}, errors.New("not an IPv6 address between the brackets")
	}
	return ip.Unmap(), nil
}

// numeric reports whether a host is meant as an IPv4 address: its last label
// is a number, which no top-level domain is.
func numeric(h string) bool {
	last := h[strings.LastIndexByte(h, '.')+1:]
	for i := range len(last) {
		if last[i] < '0' || last[i] > '9' {
			return false
		}
	}
	return last != ""
}

// canonicalHost checks a host name (RFC 1123, section 2.1, and underscores,
// which services do use) and brings it into the form in which names compare.
func canonicalHost(h string) (string, error) {
	h = strings.TrimSuffix(h, ".")
	if len(h) > maxHost {
		return "", fmt.Errorf("the host name is %d bytes long, at most %d are allowed", len(h), maxHost)
	}
	start := 0
	for i := 0; i <= len(h); i++ {
		if i < len(h) && h[i] != '.' {
			if !segmentByte(h[i]) {
				return "", fmt.Errorf("the host name has %q", h[i])
			}
			continue
		}
		label := h[start:i]
		switch {
		case label == "":
			return "", errors.New("the host name has an empty label")
		case len(label) > 63:
			return "", fmt.Errorf("a label of the host name is %d bytes long, at most 63 are allowed", len(label))
		case label[0] == '-' || label[len(label)-1] == '-':
			return "", errors.New("a label of the host name begins or ends with '-'")
		}
		start = i + 1
	}
	if numeric(h) { // "1.2.3.4." was no address either
		return "", errors.New("the host name ends in a number")
	}
	return strings.ToLower(h), nil
}

// AppendAuthority appends the authority of a CONNECT: host and addr's port if
// host is set, else addr.
func AppendAuthority(dst []byte, addr netip.AddrPort, host string) []byte {
	if host == "" {
		if !addr.Addr().IsValid() {
			return append(dst, "unknown"...)
		}
		return addr.AppendTo(dst)
	}
	dst = append(dst, host...)
	dst = append(dst, ':')
	return strconv.AppendUint(dst, uint64(addr.Port()), 10)
}
