package peer

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseForwarded(t *testing.T) {
	rows := []struct{ in, addr, host string }{
		{`for="10.1.2.3:4567"`, "10.1.2.3:4567", ""},
		{`for="[2001:db8::1]:4567";host=echo.demo.svc.cluster.local`, "[2001:db8::1]:4567", "echo.demo.svc.cluster.local"},
		{`for="[::ffff:10.1.2.3]:4567"`, "10.1.2.3:4567", ""},
		{`For=10.1.2.3; Host="Echo.Demo:80" ;proto=http`, "10.1.2.3:0", "echo.demo:80"},
		{`for="[2001:db8::1]"`, "[2001:db8::1]:0", ""},
		{`for=unknown`, "", ""},
		{`for="_secret:_port"`, "", ""},
		{`for=10.0.0.1;host=first, for="10.0.0.2:2"`, "10.0.0.2:2", ""},
		{`for="10.0.0.1:1" ,,`, "10.0.0.1:1", ""},
		{`by=_x;for="10.0.0.\1:1";`, "10.0.0.1:1", ""},
		{``, "", ""},
	}
	for _, r := range rows {
		f, err := ParseForwarded(r.in)
		if err != nil {
			t.Error(err)
			continue
		}
		var addr string
		if f.For.IsValid() {
			addr = f.For.String()
		}
		if addr != r.addr || f.Host != r.host {
			t.Errorf("%q: got %q %q, want %q %q", r.in, addr, f.Host, r.addr, r.host)
		}
	}
}

func TestParseForwardedRefuses(t *testing.T) {
	rows := []struct{ bad, good string }{
		{`for=10.1.2.3:80`, `for="10.1.2.3:80"`},
		{`for`, `for=_x`},
		{`for=`, `for=_x`},
		{`for =_x`, `for=_x`},
		{`for="10.1.2.3:80`, `for="10.1.2.3:80"`},
		{`for="10.1.2.3:99999"`, `for="10.1.2.3:9999"`},
		{`for="[10.1.2.3]"`, `for="[::1]"`},
		{`for="::1"`, `for="[::1]"`},
		{`for="[fe80::1%eth0]:1"`, `for="[fe80::1]:1"`},
		{`for=somebody`, `for=_somebody`},
		{`for=_a;for=_b`, `for=_a,for=_b`},
		{`host=a;host=b`, `host=a;proto=b`},
		{`for=_a host=b`, `for=_a;host=b`},
		{`host="a` + "\x01" + `"`, `host="a"`},
		{`host="a,b"`, `host="a.b"`},
		{`host="a\"b"`, `host="ab"`},
		{`host="` + strings.Repeat("a", 260) + `"`, `host="` + strings.Repeat("a", 259) + `"`},
	}
	for _, r := range rows {
		if f, err := ParseForwarded(r.bad); err == nil {
			t.Errorf("%q: taken as %v", r.bad, f)
		}
		if _, err := ParseForwarded(r.good); err != nil {
			t.Errorf("%q: control: %v", r.bad, err)
		}
	}
}

func TestForwardedAppend(t *testing.T) {
	a := netip.MustParseAddrPort("10.1.2.3:4567")
	rows := []struct {
		f    Forwarded
		want string
	}{
		{Forwarded{}, ""},
		{Forwarded{For: a}, `for="10.1.2.3:4567"`},
		{Forwarded{For: netip.MustParseAddrPort("[::1]:2"), Host: "echo.demo"}, `for="[::1]:2";host=echo.demo`},
		{Forwarded{Host: "echo:80"}, `host="echo:80"`},
		{Forwarded{For: a, Host: `e";for="9.9.9.9:9`}, `for="10.1.2.3:4567"`},
	}
	for _, r := range rows {
		if got := string(r.f.Append(nil)); got != r.want {
			t.Errorf("%v: got %s, want %s", r.f, got, r.want)
		}
	}
}

func FuzzParseForwarded(f *testing.F) {
	for _, s := range []string{`for="10.1.2.3:4567";host=a.b`, `for=_x, host="a"`, `for="[::1]:1`, `a="\"";for=unknown`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseForwarded(s)
		if err != nil {
			if v != (Forwarded{}) {
				t.Errorf("%q: %v beside an error", s, v)
			}
			return
		}
		again, err := ParseForwarded(string(v.Append(nil)))
		if err != nil || again != v {
			t.Errorf("%q: written and read again: got %v %v, want %v", s, again, err, v)
		}
		if !v.For.IsValid() && v.For != (netip.AddrPort{}) || v.For.Addr().Is4In6() || v.For.Addr().Zone() != "" {
			t.Errorf("%q: address %v", s, v.For)
		}
	})
}

const nodeBaggage = "k8s.cluster.name=c1,k8s.namespace.name=demo,k8s.deployment.name=curl,service.name=curl,service.version=v1,cloud.region=r1,cloud.availability_zone=z1"

func TestBaggage(t *testing.T) {
	b, err := ParseBaggage(nodeBaggage)
	if err != nil {
		t.Fatal(err)
	}
	want := Workload{Cluster: "c1", Namespace: "demo", Kind: "deployment", Name: "curl", Service: "curl", Revision: "v1", Region: "r1", Zone: "z1"}
	if got := b.Workload(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := string(want.AppendBaggage([]byte("x"))); got != "x"+nodeBaggage {
		t.Errorf("got %s, want %s", got, nodeBaggage)
	}
	b, err = ParseBaggage("a = 1 ;p=q;r , ,b=2,a=3, k8s.job.name=j, k8s.statefulset.name=s, c=")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for k, v := range b.All() {
		got = append(got, k+"="+v)
		if k == "k8s.statefulset.name" {
			break
		}
	}
	if want := []string{"a=1", "b=2", "a=3", "k8s.job.name=j", "k8s.statefulset.name=s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if v, ok := b.Value("a"); v != "1" || !ok {
		t.Errorf("a: got %q %v, want the first value", v, ok)
	}
	if v, ok := b.Value("c"); v != "" || !ok {
		t.Errorf("c: got %q %v, want empty and present", v, ok)
	}
	if _, ok := b.Value("d"); ok {
		t.Error("d: present, want absent")
	}
	if w := b.Workload(); w.Kind != "job" || w.Name != "j" {
		t.Errorf("got %+v, want job j", w)
	}
	if got := string(Workload{Namespace: "n", Kind: "other", Name: "x", Service: "a,b=c"}.AppendBaggage(nil)); got != "k8s.namespace.name=n" {
		t.Errorf("got %s, want only what the field can carry", got)
	}
}

func TestParseBaggageRefuses(t *testing.T) {
	rows := []struct{ bad, good string }{
		{"a", "a=1"},
		{"=1", "a=1"},
		{"a b=1", "ab=1"},
		{"a=1 2", "a=12"},
		{`a="1"`, "a=1"},
		{`a=\1`, "a=1"},
		{"a=1\x00", "a=1"},
		{"a=ä", "a=%C3%A4"},
		{"a=1;p\x01", "a=1;p"},
		{strings.Repeat("a=1,", 65), strings.Repeat("a=1,", 64)},
		{"a=" + strings.Repeat("x", 8191), "a=" + strings.Repeat("x", 8190)},
	}
	for _, r := range rows {
		if b, err := ParseBaggage(r.bad); err == nil {
			t.Errorf("%.80q: taken as %q", r.bad, b)
		}
		if _, err := ParseBaggage(r.good); err != nil {
			t.Errorf("%.80q: control: %v", r.bad, err)
		}
	}
}

func FuzzParseBaggage(f *testing.F) {
	f.Add(nodeBaggage)
	f.Add("a = 1 ;p=q;r , ,b=2")
	f.Add("a=1;=;,b")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBaggage(s)
		if err != nil {
			return
		}
		n := 0
		for k, v := range b.All() {
			n++
			if k == "" || tokenLen(k) != len(k) || !octets(v) {
				t.Errorf("%q: yields %q=%q", s, k, v)
			}
			if first, ok := b.Value(k); !ok || v != first && n == 1 {
				t.Errorf("%q: Value(%q) is %q %v", s, k, first, ok)
			}
		}
		if n > MaxBaggageMembers {
			t.Errorf("%q: %d members", s, n)
		}
		w := b.Workload()
		again, err := ParseBaggage(string(w.AppendBaggage(nil)))
		if got := again.Workload(); err != nil || w.Name != "" && got != w {
			t.Errorf("%q: written and read again: got %+v %v, want %+v", s, got, err, w)
		}
	})
}

func TestTraceparent(t *testing.T) {
	const s = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tp, err := ParseTraceparent(s)
	if err != nil {
		t.Fatal(err)
	}
	if tp.TraceID() != "0af7651916cd43dd8448eb211c80319c" || tp.SpanID() != "b7ad6b7169203331" || !tp.Sampled() {
		t.Errorf("got %s %s %v", tp.TraceID(), tp.SpanID(), tp.Sampled())
	}
	if got, want := NewTraceparent([16]byte{15: 1}, [8]byte{7: 2}, 0), Traceparent("00-00000000000000000000000000000001-0000000000000002-00"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := ParseTraceparent(string(NewTraceparent([16]byte{15: 1}, [8]byte{7: 2}, 0xff))); err != nil {
		t.Error(err)
	}
	for i, c := range "0123456789abcdef" {
		tp := Traceparent(s[:54] + string(c))
		if got, want := tp.Sampled(), i&1 == 1; got != want {
			t.Errorf("flags 0%c: got sampled %v, want %v", c, got, want)
		}
	}
	if tp = ""; tp.TraceID()+tp.SpanID() != "" || tp.Sampled() {
		t.Error("the empty traceparent says something")
	}
}

func TestParseTraceparentRefuses(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	if _, err := ParseTraceparent(good); err != nil {
		t.Fatalf("control: %v", err)
	}
	for name, bad := range map[string]string{
		"short":      good[:54],
		"long":       good + "0",
		"empty":      "",
		"upper case": strings.Replace(good, "a", "A", 1),
		"no dash":    good[:2] + "0" + good[3:],
		"dash moved": good[:35] + "0-" + good[37:],
		"version ff": "ff" + good[2:],
		"zero trace": good[:3] + strings.Repeat("0", 32) + good[35:],
		"zero span":  good[:36] + strings.Repeat("0", 16) + good[52:],
		"not hex":    good[:54] + "g",
	} {
		if tp, err := ParseTraceparent(bad); err == nil {
			t.Errorf("%s: %q taken as %q", name, bad, tp)
		}
	}
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	f.Add("ff-00000000000000000000000000000000-b7ad6b7169203331-00")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := ParseTraceparent(s)
		p := strings.Split(s, "-") // the slow twin
		want := len(p) == 4 && len(p[0]) == 2 && len(p[1]) == 32 && len(p[2]) == 16 && len(p[3]) == 2 &&
			strings.Trim(s, "0123456789abcdef-") == "" && p[0] != "ff" &&
			strings.Trim(p[1], "0") != "" && strings.Trim(p[2], "0") != ""
		if want {
			for i, c := range s {
				want = want && ((c == '-') == (i == 2 || i == 35 || i == 52))
			}
		}
		if got := err == nil; got != want {
			t.Errorf("%q: got %v, want accepted %v", s, err, want)
		}
	})
}

func TestInfo(t *testing.T) {
	i := &Info{How: HBONE, Source: netip.MustParseAddrPort("10.0.0.1:1"), Destination: netip.MustParseAddrPort("10.0.0.2:80")}
	if got, want := i.Dest(), "10.0.0.2:80"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := i.Client(), i.Source; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	i.Forwarded.For = netip.MustParseAddrPort("10.0.0.9:9")
	if got, want := i.Client(), i.Forwarded.For; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	i.Destination, i.Host = netip.AddrPortFrom(netip.Addr{}, 80), "echo"
	if got, want := i.Dest(), "echo:80"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	i.Destination, i.Host = netip.AddrPort{}, ""
	if got, want := i.Dest(), "unknown"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for h, want := range map[How]string{HBONE: "HBONE", PROXY: "PROXY", NONE: "NONE", 0: "unknown"} {
		if got := h.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
