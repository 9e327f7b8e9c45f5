package sniff

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// helloOf returns the ClientHello that crypto/tls sends for a configuration.
func helloOf(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() {
		_ = tls.Client(near, c).Handshake() // which nobody answers
		near.Close()
	}()
	defer far.Close()
	far.SetDeadline(time.Now().Add(10 * time.Second))
	head := make([]byte, 5)
	if _, err := io.ReadFull(far, head); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 5+int(binary.BigEndian.Uint16(head[3:])))
	copy(p, head)
	if _, err := io.ReadFull(far, p[5:]); err != nil {
		t.Fatal(err)
	}
	return p
}

// read feeds p in runs, and returns the state and the name.
func read(p []byte, cut func() int) (HelloState, string, int) {
	var h Hello
	for at := 0; at < len(p); {
		n := min(max(cut(), 1), len(p)-at)
		s := h.Feed(p[at : at+n])
		at += n
		if s != HelloMore {
			return s, string(h.Name()), at
		}
	}
	return HelloMore, string(h.Name()), len(p)
}

func whole() int    { return 1 << 20 }
func bytewise() int { return 1 }

// inRecords cuts the one record of a ClientHello into records of n bytes.
func inRecords(p []byte, n int) (out []byte) {
	for m := p[5:]; len(m) > 0; m = m[min(n, len(m)):] {
		k := min(n, len(m))
		out = append(out, 22, 3, 1, byte(k>>8), byte(k))
		out = append(out, m[:k]...)
	}
	return out
}

var errSeen = errors.New("seen")

// byTLS is what crypto/tls makes of the bytes: the name, if it takes them for a
// ClientHello.
func byTLS(p []byte) (name string, ok bool) {
	c := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, errSeen
	}}
	_ = tls.Server(&oneWay{Reader: bytes.NewReader(p)}, c).Handshake()
	return name, ok
}

// A oneWay connection brings bytes and takes any.
type oneWay struct {
	net.Conn
	io.Reader
}

func (o *oneWay) Read(p []byte) (int, error)       { return o.Reader.Read(p) }
func (o *oneWay) Write(p []byte) (int, error)      { return len(p), nil }
func (o *oneWay) Close() error                     { return nil }
func (o *oneWay) SetDeadline(time.Time) error      { return nil }
func (o *oneWay) SetWriteDeadline(time.Time) error { return nil }
func (o *oneWay) SetReadDeadline(time.Time) error  { return nil }

// configs are clients of many kinds.
var configs = map[string]*tls.Config{
	"1.3":         {ServerName: "a.example"},
	"1.2":         {ServerName: "Shop.Example", MaxVersion: tls.VersionTLS12},
	"no name":     {InsecureSkipVerify: true},
	"an address":  {ServerName: "192.0.2.7", InsecureSkipVerify: true},
	"ALPN":        {ServerName: "x_y-z.example", NextProtos: []string{"h2", "http/1.1"}},
	"a long name": {ServerName: strings.Repeat("abcdefghi.", 24) + "example"},
	"one curve":   {ServerName: "c", CurvePreferences: []tls.CurveID{tls.X25519}},
	"many ALPNs":  {ServerName: "late.example", NextProtos: strings.Fields(strings.Repeat("abcdefghijklmnopqrstuvwxyz ", 200))},
}

// TestHello: the name that crypto/tls sends is found, however the bytes are cut
// into reads and records; and crypto/tls finds the same.
func TestHello(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, c := range configs {
		one := helloOf(t, c)
		want := strings.TrimSuffix(c.ServerName, ".")
		if net.ParseIP(want) != nil {
			want = ""
		}
		for _, size := range []int{len(one), 1, 2, 3, 7, 100, 251} {
			p := inRecords(one, size)
			if len(p) > HelloLimit {
				continue
			}
			for _, cut := range []func() int{whole, bytewise, func() int { return 1 + r.IntN(40) }} {
				if s, got, _ := read(p, cut); s != HelloDone || got != want {
					t.Errorf("%s in records of %d: state %d, name %q, want %q", name, size, s, got, want)
				}
			}
			if got, ok := byTLS(p); (!ok || got != want) && size > 3 { // crypto/tls gives up on so many small records
				t.Errorf("%s in records of %d: the oracle says %q, %v", name, size, got, ok)
			}
		}
		if v, _ := inCuts(one, bytewise); v != (Verdict{TLS, ClientHello}) {
			t.Errorf("%s: detected as %v", name, v.Protocol)
		}
	}
}

// TestHelloEarly: the name is told before the rest has come.
func TestHelloEarly(t *testing.T) {
	p := helloOf(t, configs["many ALPNs"])
	if _, got, n := read(p, bytewise); got != "late.example" || n > len(p)/2 {
		t.Errorf("%q after %d of %d bytes", got, n, len(p))
	}
}

// change returns a ClientHello with one edit: at the first place of old.
func change(t *testing.T, p []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(p, []byte(old)) {
		t.Fatalf("no %q in the ClientHello", old)
	}
	return bytes.Replace(p, []byte(old), []byte(new), 1)
}

// TestBadHello: what is no ClientHello, or lies about a length. The control is
// the same one without the edit, in TestHello.
func TestBadHello(t *testing.T) {
	good := helloOf(t, configs["1.3"])
	name := "\x00\x00\x00\x0e\x00\x0c\x00\x00\x09a.example"
	for row, p := range map[string][]byte{
		"another record":        append([]byte{23}, good[1:]...),
		"another version":       append([]byte{22, 2}, good[2:]...),
		"an empty record":       append([]byte{22, 3, 1, 0, 0}, good...),
		"another message":       append([]byte{22, 3, 1, 2, 0, 2}, good[6:]...),
		"a message too short":   append(append([]byte{}, good[:6]...), append([]byte{0, 0, 9}, good[9:]...)...),
		"a control character":   change(t, good, "a.exam", "a\x00exam"),
		"a space":               change(t, good, "a.exam", "a exam"),
		"a dot at the end":      change(t, good, "a.example", "a.exampl."),
		"a list too long":       change(t, good, name, "\x00\x00\x00\x0e\x00\x0d\x00\x00\x09a.example"),
		"a list too short":      change(t, good, name, "\x00\x00\x00\x0e\x00\x0b\x00\x00\x09a.example"),
		"a name too long":       change(t, good, name, "\x00\x00\x00\x0e\x00\x0c\x00\x00\x0aa.example"),
		"an empty name":         change(t, good, name, "\x00\x00\x00\x0e\x00\x0c\x00\x00\x00a.example"),
		"an extension too long": change(t, good, name, "\x00\x00\xff\x0e\x00\x0c\x00\x00\x09a.example"),
	} {
		s, got, n := read(p, whole)
		if s != HelloBad || got != "" {
			t.Errorf("%s: state %d, name %q after %d bytes", row, s, got, n)
		}
		if s, _, _ := read(p, bytewise); s != HelloBad {
			t.Errorf("%s, byte by byte: state %d", row, s)
		}
	}
	long := inRecords(append(append([]byte{}, good[:5]...), bytes.Repeat([]byte{0}, 100)...), 1)
	if s, _, _ := read(long, whole); s != HelloBad {
		t.Errorf("zeros: state %d", s)
	}
	// Extensions without a name that go on for ever.
	endless := append([]byte{}, good[5:5+4+34]...)
	endless = append(endless, 0, 0, 2, 0x13, 1, 1, 0, 0xff, 0xff)
	endless = append(endless, bytes.Repeat([]byte{0x12, 0x34, 0, 4, 1, 2, 3, 4}, 4000)...)
	var msg []byte
	n := 34 + 9 + 0xffff
	endless[1], endless[2], endless[3] = byte(n>>16), byte(n>>8), byte(n)
	for m := endless; len(m) > 0; m = m[min(1<<14, len(m)):] {
		k := min(1<<14, len(m))
		msg = append(msg, 22, 3, 1, byte(k>>8), byte(k))
		msg = append(msg, m[:k]...)
	}
	if s, _, at := read(msg, func() int { return 100 }); s != HelloBad || at < HelloLimit-100 || at > HelloLimit+100 {
		t.Errorf("a ClientHello of 64 KiB: state %d after %d bytes, want the limit %d", s, at, HelloLimit)
	}
}

// versioned reports whether each record is of a version that there is.
func versioned(p []byte) bool {
	for len(p) >= 5 {
		if p[1] != 3 {
			return false
		}
		p = p[min(5+int(p[3])<<8+int(p[4]), len(p)):]
	}
	return true
}

// FuzzHello: what crypto/tls takes for a ClientHello has the name that it says,
// and the cuts make no difference.
func FuzzHello(f *testing.F) {
	for _, c := range configs {
		p := helloOf(f, c)
		f.Add(p, uint64(0))
		f.Add(inRecords(p, 100), uint64(1))
	}
	f.Fuzz(func(t *testing.T, p []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		state, name, _ := read(p, whole)
		if s, n, _ := read(p, bytewise); s != state || n != name {
			t.Errorf("whole: %d %q, byte by byte: %d %q", state, name, s, n)
		}
		if s, n, _ := read(p, func() int { return 1 + r.IntN(9) }); s != state || n != name {
			t.Errorf("whole: %d %q, in runs: %d %q", state, name, s, n)
		}
		want, ok := byTLS(p)
		switch {
		case !ok || len(p) > HelloLimit || !versioned(p): // crypto/tls takes records of any version
		case want == "" || !validName([]byte(want)): // one that we cannot read asks for no name either
			if state == HelloDone && name != "" {
				t.Errorf("took the name %q", name)
			}
		case state != HelloDone || name != want:
			t.Errorf("state %d, name %q, crypto/tls says %q", state, name, want)
		}
	})
}

func BenchmarkHello(b *testing.B) {
	p := helloOf(b, configs["1.3"])
	b.ReportAllocs()
	for b.Loop() {
		var h Hello
		if h.Feed(p) != HelloDone {
			b.Fatal("not done")
		}
	}
}
