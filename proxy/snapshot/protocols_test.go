package snapshot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// ports is a service with a port of each protocol, and one to send to.
const ports = head + `
services:
- {name: a, namespace: shop, addresses: [10.96.0.1], ports: [{port: 1}, {port: 2, appProtocol: http}, {port: 3, appProtocol: grpc}, {port: 4, appProtocol: tcp}, {port: 5, appProtocol: tls}], endpoints: [{workload: w}]}
- {name: b, namespace: shop, addresses: [10.96.0.2], ports: [{port: 1}, {port: 2, appProtocol: http}, {port: 3, appProtocol: grpc}, {port: 4, appProtocol: tcp}, {port: 5, appProtocol: tls}], endpoints: [{workload: w}]}
workloads:
- {name: w, namespace: shop, address: 10.1.0.1}
`

func call(path string) *message.Request {
	r := &message.Request{}
	r.SetMethod([]byte("POST"))
	r.SetPath([]byte(path))
	return r
}

// to says where a route leads, or why nowhere.
func to(r *Route, ok bool) string {
	switch {
	case !ok:
		return "none"
	case r.Fault != nil:
		return fmt.Sprint(r.Fault.Status())
	}
	return strings.TrimPrefix(r.Info.Backend, "shop/")
}

func TestProtocols(t *testing.T) {
	s := compile(t, ports)
	for i, want := range []Protocol{Detect, HTTP1, HTTP2, TCP, TLS} {
		for _, dest := range []string{"10.96.0.1", "10.1.0.1"} { // the service, and its pod
			v := service(t, s, fmt.Sprintf("%s:%d", dest, i+1), "")
			if v.Protocol != want {
				t.Errorf("%s: got %d, want %d", v.Name, v.Protocol, want)
			}
			speaks := map[Protocol]Protocol{Detect: Detect, HTTP2: HTTP2}[want]
			if want != Detect && want != HTTP2 {
				speaks = HTTP1
			}
			if r, ok := v.Route(request("/"), 0); !ok || r.Speaks != speaks {
				t.Errorf("%s is spoken to by %d, want %d", v.Name, r.Speaks, speaks)
			}
			for name, got := range map[string]string{"TCP": to(v.TCP(0)), "TLS": to(v.TLS([]byte("x"), 0))} {
				if got == "none" || strings.HasPrefix(got, "b") {
					t.Errorf("%s: without routes %s goes to %s", v.Name, name, got)
				}
			}
		}
	}
}

// TestGRPCRoutes sends by service and method, and tells what is not there as
// gRPC would.
func TestGRPCRoutes(t *testing.T) {
	rule := func(match, backend string) string {
		return fmt.Sprintf("  - {matches: [%s], backendRefs: [%s]}\n", match, backend)
	}
	text := ports + "grpcRoutes:\n- name: r\n  namespace: shop\n  parentRefs: [{kind: Service, name: a, port: 3}, {kind: Service, name: a, port: 2}]\n  rules:\n" +
		rule("{method: {service: shop.Cart}}", "{name: b, port: 3}") +
		rule("{method: {service: shop.Cart, method: Add}}", "{name: a, port: 3}") +
		rule("{method: {service: shop.Gone}}", "{name: gone, port: 3}") +
		rule("{method: {service: shop.None}}", "{name: b, port: 3, weight: 0}") +
		rule("{method: {type: RegularExpression, service: 'old\\..*'}, headers: [{name: x, value: y}]}", "{name: b, port: 2}") +
		"httpRoutes:\n- {name: r, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 4}]}]}\n"
	s := compile(t, text)
	v := service(t, s, "10.96.0.1:3", "")
	old := call("/old.Cart/Get")
	old.Header.Add("x", "y")
	for _, row := range []struct {
		r    *message.Request
		want string
	}{
		{call("/shop.Cart/Get"), "b:3"},
		{call("/shop.Cart/Add"), "a:3"},
		{call("/shop.Gone/Get"), "503"},
		{call("/shop.None/Get"), "503"},
		{call("/old.Cart/Get"), "none"},
		{old, "b:2"},
		{call("/other/Get"), "none"}, // and not the HTTPRoute's
	} {
		r, ok := v.Route(row.r, 0)
		if got := to(r, ok); got != row.want {
			t.Errorf("%s: got %s, want %s", row.r.Path, got, row.want)
		}
		if ok && r.Fault != nil && r.Fault.Kind != fault.NoCallBackend {
			t.Errorf("%s: got %v, want that a backend is not there", row.r.Path, r.Fault)
		}
	}
	if r, _ := v.Route(call("/shop.Cart/Add"), 0); r.Info.Name != "shop/r" || r.Info.Rule != "1" || r.Speaks != HTTP2 {
		t.Errorf("got %+v, want rule 1 of shop/r, to HTTP/2", r.Info)
	}
	if got := to(service(t, s, "10.96.0.1:1", "").Route(call("/shop.Cart/Get"), 0)); got != "b:4" {
		t.Errorf("at a port without GRPCRoutes got %s, want the HTTPRoute's", got)
	}
}

// TestStreamRoutes sends connections by the name they ask for, and by weight.
func TestStreamRoutes(t *testing.T) {
	s := compile(t, ports+`
tcpRoutes:
- {name: t, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 4, weight: 3}, {name: b, port: 4}]}, {backendRefs: [{name: b, port: 1}]}]}
- {name: later, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 1}]}]}
tlsRoutes:
- {name: one, namespace: shop, hostnames: [one.x], parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 5}]}]}
- {name: gone, namespace: shop, hostnames: [gone.x], parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: gone, port: 5}]}]}
- {name: wild, namespace: shop, hostnames: ["*.x"], parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 5}]}]}
- {name: every, namespace: shop, parentRefs: [{kind: Service, name: b, port: 5}], rules: [{backendRefs: [{name: a, port: 5}]}]}
- {name: named, namespace: shop, hostnames: [b.x], parentRefs: [{kind: Service, name: b, port: 5}], rules: [{backendRefs: [{name: b, port: 5}]}]}
`)
	for _, row := range []struct{ dest, sni, want string }{
		{"10.96.0.1:5", "one.x", "a:5"},
		{"10.96.0.1:5", "ONE.x", "a:5"},
		{"10.96.0.1:5", "two.x", "b:5"},
		{"10.96.0.1:5", "gone.x", "500"},
		{"10.96.0.1:5", "one.y", "none"}, // and not the TCPRoute's
		{"10.96.0.1:5", "", "none"},
		{"10.96.0.1:1", "one.x", "a:5"}, // found out to be TLS
		{"10.96.0.1:1", "one.y", "none"},
		{"10.96.0.2:5", "b.x", "b:5"},
		{"10.96.0.2:5", "c.x", "a:5"},
		{"10.96.0.2:5", "", "a:5"},
		{"10.96.0.2:1", "c.x", "b:1"},  // no route
		{"10.1.0.1:5", "one.y", "a:5"}, // to the pod itself
	} {
		if got := strings.Replace(to(service(t, s, row.dest, "").TLS([]byte(row.sni), 0)), "pod 10.1.0.1", "a", 1); got != row.want {
			t.Errorf("%s asking for %q: got %s, want %s", row.dest, row.sni, got, row.want)
		}
	}
	for dest, want := range map[string]string{"10.96.0.1:4": "a:4b:4", "10.96.0.1:1": "a:4b:4", "10.96.0.2:4": "b:4b:4"} {
		v := service(t, s, dest, "")
		if got := to(v.TCP(0)) + to(v.TCP(1<<32-1)); got != want {
			t.Errorf("%s: got %s, want %s", dest, got, want)
		}
	}
	v, got := service(t, s, "10.96.0.1:4", ""), map[string]int{}
	for i := range uint32(1000) {
		got[to(v.TCP(i*(1<<32/1000)))]++
	}
	if got["a:4"] < 749 || got["a:4"] > 751 {
		t.Errorf("3 to 1 became %v", got)
	}
}

// TestOtherProtocolsFailClosed: a route without a valid version holds up what it
// may have been for, and nothing else.
func TestOtherProtocolsFailClosed(t *testing.T) {
	bad := "- {name: bad, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{zz: 1}]}\n"
	good := map[string]string{
		"tlsRoutes":  "- {name: good, namespace: shop, hostnames: [x.x], parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 5}]}]}\n",
		"tcpRoutes":  "- {name: good, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 4}]}]}\n",
		"grpcRoutes": "- {name: good, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{method: {service: s}}], backendRefs: [{name: b, port: 3}]}]}\n",
	}
	for _, row := range []struct {
		section, more                  string
		called, other, tcp, named, tls string // at the port that declares nothing
	}{
		{"grpcRoutes", "", "500", "500", "a:1", "a:1", "a:1"},
		{"grpcRoutes", good["grpcRoutes"], "b:3", "500", "a:1", "a:1", "a:1"},
		{"tcpRoutes", "", "a:1", "a:1", "500", "500", "500"},
		{"tcpRoutes", good["tcpRoutes"], "a:1", "a:1", "b:4", "b:4", "b:4"},
		{"tlsRoutes", "", "a:1", "a:1", "a:1", "500", "500"},
		{"tlsRoutes", good["tlsRoutes"], "a:1", "a:1", "a:1", "b:5", "500"},
	} {
		c, problems := config.Decode(config.File{Name: "test.yaml", Data: []byte(ports + row.section + ":\n" + bad + row.more)})
		if c == nil || len(problems) == 0 {
			t.Fatal(problems)
		}
		s, _ := Compile(c, nil, env())
		v := service(t, s, "10.96.0.1:1", "")
		got := fmt.Sprint(to(v.Route(call("/s/m"), 0)), to(v.Route(call("/t/m"), 0)), to(v.TCP(0)), to(v.TLS([]byte("x.x"), 0)), to(v.TLS([]byte("y.x"), 0)))
		if want := fmt.Sprint(row.called, row.other, row.tcp, row.named, row.tls); got != want {
			t.Errorf("%s, with a good one %v: got %s, want %s", row.section, row.more != "", got, want)
		}
		if other := service(t, s, "10.96.0.2:1", ""); to(other.TCP(0)) != "b:1" || to(other.TLS(nil, 0)) != "b:1" || to(other.Route(call("/s/m"), 0)) != "b:1" {
			t.Errorf("%s: the other service suffers", row.section)
		}
	}
}

// TestGRPCRouteIsTried: what only the filters know to be wrong closes the route.
func TestGRPCRouteIsTried(t *testing.T) {
	text := ports + "grpcRoutes:\n- {name: r, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{headers: [{name: NAME, value: x}]}], backendRefs: [{name: b, port: 3}]}]}\n"
	for name, want := range map[string]bool{"connection": true, "x-tier": false} {
		_, problems := Compile(decode(t, strings.Replace(text, "NAME", name, 1)), nil, env())
		found := false
		for _, p := range problems {
			found = found || p.Code == config.CodeCompile && p.Object.Kind == "GRPCRoute" && p.Field == "rules[0].matches[0]"
		}
		if found != want {
			t.Errorf("header %s: got %v, want a problem: %v", name, problems, want)
		}
	}
}
