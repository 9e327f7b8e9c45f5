package proxyproto

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	pires "github.com/pires/go-proxyproto"
)

// theirs returns what the oracle makes of p, and how many bytes it took.
func theirs(p []byte) (*pires.Header, int, error) {
	r := bufio.NewReaderSize(bytes.NewReader(p), 1<<17)
	_, _ = r.Peek(1) // the oracle wants a header of version 1 in one read
	h, err := pires.Read(r)
	rest := r.Buffered()
	return h, len(p) - rest, err
}

// stricter says why we refuse a header of version 2 that the oracle takes;
// "" means that we must not.
func stricter(h *pires.Header, n int) string {
	if n > MaxHeader {
		return "longer than MaxHeader"
	}
	if h.Command.IsLocal() {
		return ""
	}
	if !h.TransportProtocol.IsStream() || h.TransportProtocol.IsUnix() {
		return "not TCP"
	}
	tlvs, err := h.TLVs()
	if err != nil {
		return "TLVs do not fit"
	}
	ids := 0
	for _, v := range tlvs {
		switch v.Type {
		case tlvCRC32C:
			return "has a checksum, which the oracle does not verify"
		case tlvIdentity:
			if ids++; ids > 1 || len(v.Value) > MaxIdentity || !printable(v.Value) {
				return "identity"
			}
		}
	}
	return ""
}

func addr(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}

// same compares addresses; net.IP forgets whether 4-in-6 was IPv6.
func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap()
}

func agree(t *testing.T, h Header, o *pires.Header) {
	t.Helper()
	if h.Local {
		if !o.Command.IsLocal() {
			t.Errorf("LOCAL, the oracle says %v", o.Command)
		}
		return
	}
	if !same(h.Source, addr(o.SourceAddr)) || !same(h.Destination, addr(o.DestinationAddr)) {
		t.Errorf("got %v %v, want %v %v", h.Source, h.Destination, o.SourceAddr, o.DestinationAddr)
	}
	tlvs, err := o.TLVs()
	if err != nil {
		t.Errorf("TLVs: %v", err)
	}
	var id string
	for _, v := range tlvs {
		if v.Type == tlvIdentity {
			id = string(v.Value)
		}
	}
	if h.Identity != id {
		t.Errorf("identity: got %q, want %q", h.Identity, id)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range [][]byte{
		header(0x21, 0x11, v4, tlv(0xD0, curl)), header(0x21, 0x21, v6, tlv(4, "x"), tlv(0xD1, "echo")), header(0x21, 0x01, tlv(0xD0, curl)),
		header(0x20, 0x00), header(0x20, 0x11, "x"), withCRC(header(0x21, 0x11, v4)), header(0x21, 0x12, v4), header(0x21, 0x11, v4, "\xd0\x00\x05a"),
		[]byte("PROXY TCP4 10.0.0.1 10.0.0.2 4386 80\r\n"), []byte("PROXY UNKNOWN\r\nx"),
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h, n, err := Parse(p, anyVersion)
		o, on, oerr := theirs(p)
		switch {
		case err == nil && n > 0 && oerr == nil:
			if n != on {
				t.Errorf("length: got %d, want %d", n, on)
			}
			if p[0] == 'P' && !h.Source.IsValid() && o.Command.IsLocal() { // UNKNOWN is LOCAL to the oracle
				return
			}
			agree(t, h, o)
		case err == nil && n > 0: // the oracle has no UNSPEC and no undefined family
			if h.Source.IsValid() || !h.Local && p[13] > 1 {
				t.Errorf("got %q, the oracle refuses: %v", say(h), oerr)
			}
		case oerr == nil && o.Version == 2:
			if stricter(o, on) == "" {
				t.Errorf("got n %d, error %v; the oracle takes it: %+v", n, err, o)
			}
		case oerr == nil && o.Version == 1:
			t.Errorf("got n %d, error %v; the oracle takes it: %+v", n, err, o)
		}
		piecewise(t, p, n, err)
	})
}

// piecewise checks that a header is the same however it arrives.
func piecewise(t *testing.T, p []byte, n int, err error) {
	t.Helper()
	for k := range p {
		_, m, e := Parse(p[:k], anyVersion)
		switch {
		case m > 0 && (m != n || k < n):
			t.Fatalf("%d bytes are a header of %d, all %d are one of %d (%v)", k, m, len(p), n, err)
		case e != nil && err == nil:
			t.Fatalf("%d bytes are refused (%v), all %d are not", k, e, len(p))
		case m > 0:
			return
		}
	}
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte("\x0a\x00\x00\x01"), []byte("\x0a\x00\x00\x02"), uint16(1), uint16(2), curl, "echo")
	f.Add([]byte(v6[:16]), []byte(v6[16:32]), uint16(1), uint16(2), "", "")
	f.Add([]byte(v6[:16]), []byte("\x0a\x00\x00\x02"), uint16(1), uint16(2), strings.Repeat("a", 2049), "")
	f.Fuzz(func(t *testing.T, src, dst []byte, sp, dp uint16, id, service string) {
		s, _ := netip.AddrFromSlice(src)
		d, _ := netip.AddrFromSlice(dst)
		want := Header{Source: netip.AddrPortFrom(s, sp), Destination: netip.AddrPortFrom(d, dp), Identity: id, Service: service}
		p, err := Append(nil, want)
		if err != nil {
			if len(id) <= MaxIdentity && len(service) <= MaxService && printable("a"+id+service) {
				t.Error(err)
			}
			return
		}
		if s.BitLen() != d.BitLen() || !s.IsValid() {
			want.Source, want.Destination = netip.AddrPort{}, netip.AddrPort{}
		}
		h, n, err := Parse(p, onlyV2)
		if err != nil || n != len(p) || say(h) != say(want) {
			t.Errorf("our own: got %q, %d, %v, want %q, %d", say(h), n, err, say(want), len(p))
		}
		if !want.Source.IsValid() {
			return
		}
		o, on, err := theirs(p)
		if err != nil || on != len(p) {
			t.Fatalf("the oracle took %d of %d bytes: %v", on, len(p), err)
		}
		agree(t, want, o)
		back, err := o.Format()
		if err != nil {
			return // it cannot write an IPv4 address that came as IPv6
		}
		if h, _, err := Parse(back, onlyV2); err != nil || say(h) != say(want) {
			t.Errorf("the oracle's: got %q, %v, want %q", say(h), err, say(want))
		}
	})
}
