package peer

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseAuthority(t *testing.T) {
	rows := []struct{ in, addr, host string }{
		{"10.1.2.3:80", "10.1.2.3:80", ""},
		{"[::1]:15008", "[::1]:15008", ""},
		{"[2001:DB8::1]:1", "[2001:db8::1]:1", ""},
		{"[::ffff:10.1.2.3]:80", "10.1.2.3:80", ""},
		{"echo.demo.svc.cluster.local:65535", "", "echo.demo.svc.cluster.local:65535"},
		{"Echo.Demo.:80", "", "echo.demo:80"},
		{"my_service-1:8080", "", "my_service-1:8080"},
		{"1.2.3.4.example:1", "", "1.2.3.4.example:1"},
		{strings.Repeat("a", 63) + ":1", "", strings.Repeat("a", 63) + ":1"},
	}
	for _, r := range rows {
		addr, host, err := ParseAuthority(r.in)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, want := string(AppendAuthority(nil, addr, host)), r.addr+r.host; got != want {
			t.Errorf("%q: got %q, want %q", r.in, got, want)
		}
		if got, want := addr.Addr().IsValid(), r.host == ""; got != want {
			t.Errorf("%q: address %v beside host %q", r.in, addr, host)
		}
	}
}

func TestParseAuthorityRefuses(t *testing.T) {
	rows := []struct{ bad, says, good string }{
		{"", "empty", "a:80"},
		{"10.1.2.3", "no port", "10.1.2.3:80"},
		{":80", "no host", "a:80"},
		{"a:", "port is empty", "a:1"},
		{"a:0", "1 to 65535", "a:1"},
		{"a:65536", "1 to 65535", "a:65535"},
		{"a:080", "1 to 65535", "a:80"},
		{"a:+80", "1 to 65535", "a:80"},
		{"a:4294967376", "1 to 65535", "a:80"},
		{"a:http", "1 to 65535", "a:80"},
		{"10.1.2.03:80", "leading zeros", "10.1.2.3:80"},
		{"10.1.3:80", "four numbers", "10.1.2.3:80"},
		{"2130706433:80", "four numbers", "10.1.2.3:80"},
		{"256.1.2.3:80", "four numbers", "255.1.2.3:80"},
		{"10.1.2.3.:80", "ends in a number", "10.1.2.3:80"},
		{"::1:80", "more than one colon", "[::1]:80"},
		{"[::1]", "no port after", "[::1]:80"},
		{"[::1]80", "no port after", "[::1]:80"},
		{"[::1:80", "without ']'", "[::1]:80"},
		{"[10.1.2.3]:80", "not an IPv6", "10.1.2.3:80"},
		{"[fe80::1%eth0]:80", "not an IPv6", "[fe80::1]:80"},
		{"[]:80", "not an IPv6", "[::]:80"},
		{"u@a:80", `'@'`, "a:80"},
		{"a/b:80", `'/'`, "a.b:80"},
		{"a b:80", `' '`, "ab:80"},
		{"a\x00b:80", `'\x00'`, "ab:80"},
		{"*.a:80", `'*'`, "x.a:80"},
		{"a..b:80", "empty label", "a.b:80"},
		{".:80", "empty label", "a.:80"},
		{"-a:80", "begins or ends", "a-a:80"},
		{"a-.b:80", "begins or ends", "a.b:80"},
		{strings.Repeat("a", 64) + ":80", "64 bytes", strings.Repeat("a", 63) + ":80"},
		{strings.Repeat("a.", 126) + "aa:80", "254 bytes", strings.Repeat("a.", 126) + "a:80"},
	}
	for _, r := range rows {
		_, _, err := ParseAuthority(r.bad)
		if err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%q: got %v, want an error with %q", r.bad, err, r.says)
		}
		if _, _, err := ParseAuthority(r.good); err != nil {
			t.Errorf("%q: control: %v", r.bad, err)
		}
	}
}

// The slow twin takes an authority apart with what the standard library has.
func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"10.1.2.3:80", "[::1]:80", "a.b.:80", "a:080", "[::ffff:1.2.3.4]:1", "1.2.3:4", "[fe80::1%a]:80", "a_b:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, host, err := ParseAuthority(s)
		if ap, aerr := netip.ParseAddrPort(s); aerr == nil && ap.Port() != 0 && ap.Addr().Zone() == "" && !strings.Contains(s, ":0") {
			if want := netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()); err != nil || addr != want || host != "" {
				t.Errorf("%q: got %v %q %v, want %v", s, addr, host, err, want)
			}
		}
		if err != nil {
			return
		}
		if addr.Port() == 0 || addr.Addr().IsValid() == (host != "") {
			t.Errorf("%q: got %v and host %q", s, addr, host)
		}
		if host == "" {
			ap, aerr := netip.ParseAddrPort(s)
			if aerr != nil || ap.Port() != addr.Port() || ap.Addr().Unmap() != addr.Addr() {
				t.Errorf("%q: got %v, want %v %v", s, addr, ap, aerr)
			}
		} else if host != strings.ToLower(host) || strings.ContainsAny(host, "/:@[]%?# ,;\"") || strings.Contains(host, "..") {
			t.Errorf("%q: host %q is not canonical", s, host)
		}
		again, h2, err := ParseAuthority(string(AppendAuthority(nil, addr, host)))
		if err != nil || again != addr || h2 != host {
			t.Errorf("%q: written and read again: got %v %q %v, want %v %q", s, again, h2, err, addr, host)
		}
	})
}
