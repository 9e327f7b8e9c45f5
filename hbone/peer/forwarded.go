package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A Forwarded is what we use of a forwarded field (RFC 7239): node tunnels
// write for="<ip>:<port>", and ;host=<service> where the service is known.
type Forwarded struct {
	For  netip.AddrPort // the application's own address; its port is 0 if none was given
	Host string         // the service that was meant, lower case
}

// ParseForwarded parses a forwarded field. Of several elements the last one
// counts: it is the one that the peer itself added.
func ParseForwarded(s string) (Forwarded, error) {
	f, err := parseForwarded(s)
	if err != nil {
		return Forwarded{}, fmt.Errorf("forwarded %.300q: %w", s, err)
	}
	return f, nil
}

func parseForwarded(s string) (f Forwarded, err error) {
	for rest, first := s, true; rest != "" || first; first = false {
		var e Forwarded
		var any bool
		if e, rest, any, err = forwardedElement(rest); err != nil {
			return Forwarded{}, err
		}
		if any {
			f = e
		}
	}
	return f, nil
}

// forwardedElement parses pairs up to a comma or the end. Empty elements and
// pairs are legal and mean nothing.
func forwardedElement(s string) (f Forwarded, rest string, any bool, err error) {
	var seenFor, seenHost bool
	for {
		s = trimLeft(s)
		switch {
		case s == "":
			return f, "", any, nil
		case s[0] == ',':
			return f, s[1:], any, nil
		case s[0] == ';':
			s = s[1:]
			continue
		}
		var name, value string
		if name, value, s, err = forwardedPair(s); err != nil {
			return f, "", false, err
		}
		switch {
		case name == "for" && !seenFor:
			seenFor = true
			f.For, err = parseNode(value)
		case name == "host" && !seenHost:
			seenHost = true
			f.Host, err = forwardedHost(value)
		case name == "for" || name == "host":
			err = fmt.Errorf("%s occurs twice in one element", name)
		}
		if err != nil {
			return f, "", false, err
		}
		any = true
		if s = trimLeft(s); s != "" && s[0] != ';' && s[0] != ',' {
			return f, "", false, fmt.Errorf("%q after a value, want ';' or ','", s[0])
		}
	}
}

// forwardedHost checks what may stand in a Host field, loosely: it is compared
// with the names of services and goes nowhere else.
func forwardedHost(s string) (string, error) {
	if s == "" || len(s) > maxHost+len(":65535") {
		return "", errors.New("host is empty or too long")
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"\,;/@`, c) >= 0 {
			return "", fmt.Errorf("host has %q", c)
		}
	}
	return strings.ToLower(s), nil
}

// parseNode parses a node identifier (RFC 7239, section 6). Those that hide an
// address are legal and tell nothing.
func parseNode(s string) (netip.AddrPort, error) {
	if s == "unknown" || strings.HasPrefix(s, "_") || strings.HasPrefix(s, "unknown:") {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		bare := s
		if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
			bare = s[1 : len(s)-1]
		}
		var ip netip.Addr
		if ip, err = netip.ParseAddr(bare); err == nil && ip.Is4() == (bare == s) {
			a = netip.AddrPortFrom(ip, 0)
		}
	}
	if !a.IsValid() || a.Addr().Zone() != "" {
		return netip.AddrPort{}, errors.New("for is no address")
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// forwardedPair parses name=value and returns the name in lower case.
func forwardedPair(s string) (name, value, rest string, err error) {
	i := tokenLen(s)
	if i == 0 || i == len(s) || s[i] != '=' {
		return "", "", "", errors.New("want name=value")
	}
	name, s = strings.ToLower(s[:i]), s[i+1:]
	if !strings.HasPrefix(s, `"`) {
		i = tokenLen(s)
		if i == 0 {
			return "", "", "", fmt.Errorf("%s has no value, or one that needs quotes", name)
		}
		return name, s[:i], s[i:], nil
	}
	value, rest, err = unquote(s[1:])
	return name, value, rest, err
}

// unquote reads a quoted-string from behind its first quote (RFC 9110, section 5.6.4).
func unquote(s string) (value, rest string, err error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return string(b), s[i+1:], nil
		case c == '\\' && i+1 < len(s) && s[i+1] >= ' ' && s[i+1] != 0x7f:
			i++
			b = append(b, s[i])
		case c < ' ' && c != '\t' || c == '\\' || c == 0x7f:
			return "", "", fmt.Errorf("%q inside quotes", c)
		default:
			b = append(b, c)
		}
	}
	return "", "", errors.New("a quote is not closed")
}

// Append appends the field's value as node tunnels write it. A zero Forwarded
// appends nothing, and a host that cannot be one is left out.
func (f Forwarded) Append(dst []byte) []byte {
	if f.For.IsValid() {
		dst = append(dst, `for="`...)
		dst = f.For.AppendTo(dst)
		dst = append(dst, '"')
	}
	if _, err := forwardedHost(f.Host); err != nil {
		return dst
	}
	if f.For.IsValid() {
		dst = append(dst, ';')
	}
	dst = append(dst, "host="...)
	if tokenLen(f.Host) == len(f.Host) {
		return append(dst, f.Host...)
	}
	dst = append(dst, '"')
	dst = append(dst, f.Host...) // has neither quote nor backslash
	return append(dst, '"')
}

// tokenLen returns how many bytes of s belong to a token (RFC 9110, section 5.6.2).
func tokenLen(s string) int {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return i
		}
	}
	return len(s)
}

func trimLeft(s string) string { return strings.TrimLeft(s, " \t") }
