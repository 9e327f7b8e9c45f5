package proxyproto

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

var (
	anyVersion = Options{V1: true}
	onlyV2     = Options{}
)

const curl = "spiffe://cluster.local/ns/demo/sa/curl"

// header is signature, the bytes given, the length of body, and body.
func header(command, family byte, body ...string) []byte {
	b := strings.Join(body, "")
	p := append([]byte(signature), command, family)
	return append(binary.BigEndian.AppendUint16(p, uint16(len(b))), b...)
}

func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

// withCRC appends a checksum TLV to a header and corrects its length.
func withCRC(p []byte) []byte {
	p = append(bytes.Clone(p), tlvCRC32C, 0, 4, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(p[14:], uint16(len(p)-fixed))
	binary.BigEndian.PutUint32(p[len(p)-4:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

const (
	v4 = "\x0a\x00\x00\x01\x0a\x00\x00\x02\x11\x22\x00\x50"
	v6 = "\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x11\x22\x00\x50"
)

func say(h Header) string {
	if h.Local {
		return "LOCAL"
	}
	return h.Source.String() + " " + h.Destination.String() + " " + string(h.Identity) + " " + string(h.Service)
}

func TestParse(t *testing.T) {
	rows := []struct {
		name string
		in   []byte
		want string
	}{
		{"IPv4", header(0x21, 0x11, v4), "10.0.0.1:4386 10.0.0.2:80  "},
		{"IPv4 and identity", header(0x21, 0x11, v4, tlv(0xD0, curl)), "10.0.0.1:4386 10.0.0.2:80 " + curl + " "},
		{"IPv6 and identity", header(0x21, 0x21, v6, tlv(0xD0, curl)), "[fd00::1]:4386 [fd00::2]:80 " + curl + " "},
		{"families differ", header(0x21, 0x01, tlv(0xD0, curl)), "invalid AddrPort invalid AddrPort " + curl + " "},
		{"unspecified", header(0x21, 0x00), "invalid AddrPort invalid AddrPort  "},
		{"service", header(0x21, 0x11, v4, tlv(0xD1, "echo.demo"), tlv(0xD0, curl)), "10.0.0.1:4386 10.0.0.2:80 " + curl + " echo.demo"},
		{"service that is no name", header(0x21, 0x11, v4, tlv(0xD1, "a b"), tlv(0xD1, "")), "10.0.0.1:4386 10.0.0.2:80  "},
		{"others are skipped", header(0x21, 0x11, v4, tlv(4, "\x00\x00"), tlv(1, "h2"), tlv(0x20, "x"), tlv(0xD0, curl), tlv(0xEE, "")), "10.0.0.1:4386 10.0.0.2:80 " + curl + " "},
		{"local", header(0x20, 0x00), "LOCAL"},
		{"local, with what must be ignored", header(0x20, 0x31, "xyz"), "LOCAL"},
		{"checksum", withCRC(header(0x21, 0x11, v4, tlv(0xD0, curl))), "10.0.0.1:4386 10.0.0.2:80 " + curl + " "},
		{"longest identity", header(0x21, 0x11, v4, tlv(0xD0, strings.Repeat("a", 2048))), "10.0.0.1:4386 10.0.0.2:80 " + strings.Repeat("a", 2048) + " "},
		{"longest header", header(0x21, 0x11, v4, tlv(0xEE, strings.Repeat("a", MaxHeader-16-12-3))), "10.0.0.1:4386 10.0.0.2:80  "},
	}
	for _, r := range rows {
		h, n, err := Parse(append(bytes.Clone(r.in), "GET / HTTP/1.1"...), onlyV2)
		if err != nil || n != len(r.in) || say(h) != r.want {
			t.Errorf("%s: got %q, %d, %v, want %q, %d", r.name, say(h), n, err, r.want, len(r.in))
		}
		for k := range r.in {
			if h, n, err := Parse(r.in[:k], onlyV2); n != 0 || err != nil || say(h) != say(Header{}) {
				t.Errorf("%s: %d of %d bytes: got %q, %d, %v, want to be asked for more", r.name, k, len(r.in), say(h), n, err)
			}
		}
	}
}

// Every row is a header with one thing wrong, beside the same one without it.
func TestParseRefuses(t *testing.T) {
	sum := withCRC(header(0x21, 0x11, v4, tlv(0xD0, curl)))
	forged := bytes.Replace(sum, []byte("curl"), []byte("root"), 1)
	rows := []struct {
		name      string
		bad, good []byte
		says      string
		at        int // bytes after which it must have been refused
	}{
		{"no header", []byte("GET / HTTP/1.1\r\n"), header(0x21, 0x11, v4), "signature", 1},
		{"version 1", []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), header(0x21, 0x11, v4), "signature", 1},
		{"signature breaks off", []byte("\r\n\r\n\x00\r\nQUIET"), header(0x21, 0x11, v4), "signature", 11},
		{"version 3", header(0x31, 0x11, v4), header(0x21, 0x11, v4), "version 3", 13},
		{"command 2", header(0x22, 0x11, v4), header(0x21, 0x11, v4), "command 2", 13},
		{"unix", header(0x21, 0x31, strings.Repeat("a", 216)), header(0x21, 0x11, v4), "unix sockets", 16},
		{"datagram", header(0x21, 0x12, v4), header(0x21, 0x11, v4), "datagrams", 16},
		{"transport 3", header(0x21, 0x13, v4), header(0x21, 0x11, v4), "not accepted", 16},
		{"too long", header(0x21, 0x11, v4, tlv(0xEE, strings.Repeat("a", MaxHeader-16-12-3+1))), header(0x21, 0x11, v4, tlv(0xEE, strings.Repeat("a", MaxHeader-16-12-3))), "4097 bytes long", 16},
		{"local, too long", header(0x20, 0x00, strings.Repeat("a", MaxHeader-15)), header(0x20, 0x00, strings.Repeat("a", MaxHeader-16)), "bytes long", 16},
		{"short IPv4", header(0x21, 0x11, v4[:11]), header(0x21, 0x11, v4), "inside the addresses", 16},
		{"short IPv6", header(0x21, 0x21, v6[:35]), header(0x21, 0x21, v6), "inside the addresses", 16},
		{"TLV cut short", header(0x21, 0x11, v4, "\xd0\x00"), header(0x21, 0x11, v4, "\xee\x00\x00"), "longer than the header", 30},
		{"TLV overruns", header(0x21, 0x11, v4, "\xee\x00\x02x"), header(0x21, 0x11, v4, "\xee\x00\x01x"), "longer than the header", 32},
		{"long identity", header(0x21, 0x11, v4, tlv(0xD0, strings.Repeat("a", 2049))), header(0x21, 0x11, v4, tlv(0xD0, strings.Repeat("a", 2048))), "2049 bytes", 0},
		{"empty identity", header(0x21, 0x11, v4, tlv(0xD0, "")), header(0x21, 0x11, v4, tlv(0xD0, "a")), "identity is empty", 0},
		{"identity with a newline", header(0x21, 0x11, v4, tlv(0xD0, curl+"\n")), header(0x21, 0x11, v4, tlv(0xD0, curl)), "printable", 0},
		{"identity not UTF-8", header(0x21, 0x11, v4, tlv(0xD0, curl+"\xff")), header(0x21, 0x11, v4, tlv(0xD0, curl)), "printable", 0},
		{"two identities", header(0x21, 0x11, v4, tlv(0xD0, "a"), tlv(0xD0, "a")), header(0x21, 0x11, v4, tlv(0xD0, "a"), tlv(0xEE, "a")), "more than one", 0},
		{"checksum wrong", forged, sum, "checksum", 0},
		{"checksum of 3 bytes", header(0x21, 0x11, v4, tlv(3, "abc")), sum, "checksum", 0},
	}
	for _, r := range rows {
		_, n, err := Parse(r.bad, onlyV2)
		if err == nil || n != 0 || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: got %d, %v, want an error with %q", r.name, n, err, r.says)
		}
		if _, _, err := Parse(r.bad[:r.at], onlyV2); r.at > 0 && err == nil {
			t.Errorf("%s: not refused after %d bytes", r.name, r.at)
		}
		if _, n, err := Parse(r.good, onlyV2); err != nil || n == 0 {
			t.Errorf("%s: control: got %d, %v", r.name, n, err)
		}
	}
}

func TestAppend(t *testing.T) {
	a4, b4 := netip.MustParseAddrPort("10.0.0.1:4386"), netip.MustParseAddrPort("10.0.0.2:80")
	a6, b6 := netip.MustParseAddrPort("[fd00::1]:4386"), netip.MustParseAddrPort("[fd00::2]:80")
	rows := []struct {
		name string
		h    Header
		want []byte
	}{
		{"IPv4 and identity", Header{Source: a4, Destination: b4, Identity: curl}, header(0x21, 0x11, v4, tlv(0xD0, curl))},
		{"IPv6", Header{Source: a6, Destination: b6}, header(0x21, 0x21, v6)},
		{"families differ", Header{Source: a4, Destination: b6, Identity: curl}, header(0x21, 0x01, tlv(0xD0, curl))},
		{"no addresses", Header{Service: "echo"}, header(0x21, 0x01, tlv(0xD1, "echo"))},
		{"local", Header{Local: true}, header(0x20, 0x00)},
	}
	for _, r := range rows {
		got, err := Append([]byte("x"), r.h)
		if err != nil || string(got) != "x"+string(r.want) {
			t.Errorf("%s: got %q, %v, want x%q", r.name, got, err, r.want)
		}
	}
	for name, h := range map[string]Header{
		"long identity":      {Identity: strings.Repeat("a", 2049)},
		"long service":       {Service: strings.Repeat("a", 254)},
		"space in identity":  {Identity: "a b"},
		"newline in service": {Service: "a\n"},
	} {
		if got, err := Append([]byte("x"), h); err == nil || string(got) != "x" {
			t.Errorf("%s: got %.40q, %v, want an error", name, got, err)
		}
	}
	if _, err := Append(nil, Header{Identity: strings.Repeat("a", 2048), Service: strings.Repeat("a", 253)}); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestParseV1(t *testing.T) {
	rows := []struct{ in, want string }{
		{"PROXY TCP4 10.0.0.1 10.0.0.2 4386 80\r\n", "10.0.0.1:4386 10.0.0.2:80  "},
		{"PROXY TCP6 fd00::1 fd00::2 4386 80\r\n", "[fd00::1]:4386 [fd00::2]:80  "},
		{"PROXY UNKNOWN\r\n", "invalid AddrPort invalid AddrPort  "},
		{"PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", "invalid AddrPort invalid AddrPort  "},
		{"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0 255.255.255.255:65535  "},
	}
	for _, r := range rows {
		h, n, err := Parse([]byte(r.in+"\r\nGET"), anyVersion)
		if err != nil || n != len(r.in) || say(h) != r.want {
			t.Errorf("%q: got %q, %d, %v, want %q", r.in, say(h), n, err, r.want)
		}
		for k := range len(r.in) {
			if _, n, err := Parse([]byte(r.in[:k]), anyVersion); n != 0 || err != nil {
				t.Errorf("%q: %d bytes: got %d, %v, want to be asked for more", r.in, k, n, err)
			}
		}
	}
	if h, n, err := Parse(header(0x21, 0x11, v4), anyVersion); err != nil || n != 28 || say(h) != rows[0].want {
		t.Errorf("version 2: got %q, %d, %v", say(h), n, err)
	}
}

func TestParseV1Refuses(t *testing.T) {
	const good = "PROXY TCP4 10.0.0.1 10.0.0.2 4386 80\r\n"
	if _, n, err := Parse([]byte(good), anyVersion); err != nil || n != len(good) {
		t.Fatalf("control: got %d, %v", n, err)
	}
	if _, _, err := Parse([]byte(good), onlyV2); err == nil {
		t.Error("Parse took version 1 unasked")
	}
	for _, bad := range []string{
		"PROXI TCP4 10.0.0.1 10.0.0.2 4386 80\r\n",
		"PROXY  TCP4 10.0.0.1 10.0.0.2 4386 80\r\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 4386 80\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 4386 80 \r\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 4386\r\n",
		"PROXY TCP6 10.0.0.1 10.0.0.2 4386 80\r\n",
		"PROXY TCP4 fd00::1 fd00::2 4386 80\r\n",
		"PROXY TCP6 fe80::1%eth0 fd00::2 4386 80\r\n",
		"PROXY TCP4 10.0.0.01 10.0.0.2 4386 80\r\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 04386 80\r\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 4386 65536\r\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 +4386 80\r\n",
		"PROXY UDP4 10.0.0.1 10.0.0.2 4386 80\r\n",
		"PROXY \r\n",
		"PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n",
		"PROXY UNKNOWN " + strings.Repeat("f", 200),
	} {
		if h, n, err := Parse([]byte(bad), anyVersion); err == nil {
			t.Errorf("%q: got %q, %d, want an error", bad, say(h), n)
		}
	}
}

func TestParseAllocates(t *testing.T) {
	p := withCRC(header(0x21, 0x11, v4, tlv(0xD0, curl)))
	if got := testing.AllocsPerRun(100, func() { _, _, _ = Parse(p, onlyV2) }); got != 1 {
		t.Errorf("Parse: got %v allocations, want 1, the identity", got)
	}
	h, _, err := Parse(p, onlyV2)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 256)
	if got := testing.AllocsPerRun(100, func() { _, _ = Append(dst, h) }); got != 0 {
		t.Errorf("Append: got %v allocations, want 0", got)
	}
}

func BenchmarkParse(b *testing.B) {
	p := header(0x21, 0x11, v4, tlv(0xD0, curl))
	for b.Loop() {
		if _, n, err := Parse(p, onlyV2); n == 0 || err != nil {
			b.Fatal(err)
		}
	}
}
