package snapshot

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/headers"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

const head = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: infra}
`

const shop = head + `
services:
- {name: a, namespace: shop, hostnames: [a.shop.svc.cluster.local], addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080, appProtocol: http}, {port: 81, targetPort: 9081, appProtocol: http}], endpoints: [{workload: a-1}, {workload: a-2}]}
- {name: b, namespace: shop, addresses: [10.96.0.2], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: b-1}]}
workloads:
- {name: a-1, namespace: shop, address: 10.1.0.1, serviceAccount: a}
- {name: a-2, namespace: shop, address: 10.1.0.2, serviceAccount: a}
- {name: b-1, namespace: shop, address: 10.1.0.3, serviceAccount: b}
`

func decode(t *testing.T, text string) *config.Config {
	t.Helper()
	c, problems := config.Decode(config.File{Name: "test.yaml", Data: []byte(text)})
	if c == nil {
		t.Fatalf("no document: %v", problems)
	}
	return c
}

func env() Env {
	return Env{
		Registry: filters.NewRegistry(headers.RequestKind(), headers.ResponseKind()),
		Shared:   new(refpool.Pool),
		Pool:     hbone.NewPool(hbone.PoolOptions{}),
	}
}

func compile(t *testing.T, text string) *Snapshot {
	t.Helper()
	s, _ := Compile(decode(t, text), nil, env())
	return s
}

func service(t *testing.T, s *Snapshot, addr, host string) *Service {
	t.Helper()
	v, ok := s.Service(netip.MustParseAddrPort(addr), host)
	if !ok {
		t.Fatalf("%s %s is no service", addr, host)
	}
	return v
}

func request(path string) *message.Request {
	r := &message.Request{}
	r.SetMethod([]byte("GET"))
	r.SetPath([]byte(path))
	r.SetAuthority([]byte("whatever"))
	return r
}

// TestDestinations: a tunnel's destination finds its service, and nothing else
// does.
func TestDestinations(t *testing.T) {
	s := compile(t, shop)
	for _, row := range []struct{ addr, host, want string }{
		{"10.96.0.1:80", "", "shop/a:80"},
		{"10.96.0.1:81", "", "shop/a:81"},
		{"10.96.0.1:82", "", ""},
		{"10.96.0.2:80", "", "shop/b:80"},
		{"10.96.0.2:81", "", ""},
		{"10.96.0.3:80", "", ""},
		{"0.0.0.0:80", "a.shop.svc.cluster.local", "shop/a:80"},
		{"0.0.0.0:82", "a.shop.svc.cluster.local", ""},
		{"0.0.0.0:80", "b.shop.svc.cluster.local", "shop/b:80"}, // by its name in the cluster, unsaid
		{"0.0.0.0:80", "c.shop.svc.cluster.local", ""},
		{"10.96.0.2:80", "a.shop.svc.cluster.local", "shop/a:80"}, // a name is a name, whatever stands beside it
		{"10.1.0.1:9080", "", "shop/a-1:9080"},
		{"10.1.0.1:9081", "", "shop/a-1:9081"},
		{"10.1.0.1:80", "", ""},
		{"10.1.0.3:9080", "", "shop/b-1:9080"},
	} {
		v, ok := s.Service(netip.MustParseAddrPort(row.addr), row.host)
		got := ""
		if ok {
			got = v.Name
		}
		if got != row.want {
			t.Errorf("%s %s: got %q, want %q", row.addr, row.host, got, row.want)
		}
	}
}

// TestPodsHaveNoRoutes: what is bound for a pod goes there, whatever the service's
// routes say.
func TestPodsHaveNoRoutes(t *testing.T) {
	s := compile(t, shop+httpRoute("shop", `{kind: Service, group: "", name: a}`, "/only", ""))
	if _, ok := service(t, s, "10.96.0.1:80", "").Route(request("/other"), 0); ok {
		t.Error("the service's route matches what it does not")
	}
	r, ok := service(t, s, "10.1.0.2:9080", "").Route(request("/other"), 0)
	if !ok || len(r.Backend.Endpoints()) != 1 || r.Backend.Endpoints()[0].Addr().String() != "10.1.0.2:9080" {
		t.Errorf("to a pod: %v, %v", r, ok)
	}
}

// httpRoute is one HTTPRoute to b.
func httpRoute(namespace, parent, path, more string) string {
	return fmt.Sprintf(`
httpRoutes:
- name: r
  namespace: %s
  parentRefs: [%s]
  rules:
  - matches: [{path: {type: PathPrefix, value: %s}}]
    backendRefs: [{name: b, namespace: shop, port: 80}]
    %s
`, namespace, parent, path, more)
}

// TestAttach: for which ports of which services a route is.
func TestAttach(t *testing.T) {
	for _, row := range []struct {
		name, namespace, parent string
		on80, on81, onB         bool
	}{
		{"a service", "shop", `{group: "", kind: Service, name: a}`, true, true, false},
		{"one port of it", "shop", `{group: "", kind: Service, name: a, port: 81}`, false, true, false},
		{"a port that it lacks", "shop", `{group: "", kind: Service, name: a, port: 82}`, false, false, false},
		{"another service", "shop", `{group: "", kind: Service, name: b}`, false, false, true},
		{"the waypoint", "infra", `{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}`, true, true, true},
		{"another gateway", "infra", `{group: gateway.networking.k8s.io, kind: Gateway, name: other}`, false, false, false},
		{"from the waypoint's namespace", "infra", `{group: "", kind: Service, name: a, namespace: shop}`, true, true, false},
		{"a consumer's", "client", `{group: "", kind: Service, name: a, namespace: shop}`, false, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := compile(t, shop+httpRoute(row.namespace, row.parent, "/", ""))
			for dest, want := range map[string]bool{"10.96.0.1:80": row.on80, "10.96.0.1:81": row.on81, "10.96.0.2:80": row.onB} {
				r, ok := service(t, s, dest, "").Route(request("/"), 0)
				if !ok {
					t.Fatalf("%s: no route", dest)
				}
				if got := r.Info.Name != "default"; got != want {
					t.Errorf("%s: attached %v, want %v (%+v)", dest, got, want, r.Info)
				}
			}
		})
	}
}

// TestWeights: backends get their shares, and one without a share nothing.
func TestWeights(t *testing.T) {
	text := shop + strings.Replace(httpRoute("shop", `{group: "", kind: Service, name: a}`, "/", ""),
		"backendRefs: [{name: b, namespace: shop, port: 80}]",
		"backendRefs: [{name: a, port: 80, weight: 90}, {name: b, port: 80, weight: 10}, {name: a, port: 81, weight: 0}]", 1)
	v := service(t, compile(t, text), "10.96.0.1:80", "")
	got := map[string]int{}
	const n = 10000
	for i := range uint32(n) {
		r, ok := v.Route(request("/"), i*(1<<32/n))
		if !ok {
			t.Fatal("no route")
		}
		got[r.Info.Backend]++
	}
	if a := got["shop/a:80"]; a < 8990 || a > 9010 || a+got["shop/b:80"] != n {
		t.Errorf("90 to 10 became %v", got)
	}
}

// TestFailsClosed: what a rule cannot send anywhere is an error, and not the
// next rule's.
func TestFailsClosed(t *testing.T) {
	parent := `{group: "", kind: Service, name: a}`
	whole := httpRoute("shop", parent, "/", "")
	for _, row := range []struct {
		name, text string
		kind       fault.Kind
	}{
		{"no such backend", strings.Replace(whole, "name: b,", "name: gone,", 1), fault.NoBackend},
		{"no such port", strings.Replace(whole, "port: 80}]\n    ", "port: 99}]\n    ", 1), fault.NoBackend},
		{"no weight", strings.Replace(whole, "port: 80}]\n    ", "port: 80, weight: 0}]\n    ", 1), fault.NoBackend},
		{"an expression that is none", strings.Replace(whole, "PathPrefix, value: /", "RegularExpression, value: (", 1), fault.BadConfig},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.text == whole {
				t.Fatal("the row changes nothing")
			}
			s, _ := Compile(decode(t, shop+row.text), nil, env())
			r, ok := service(t, s, "10.96.0.1:80", "").Route(request("/"), 0)
			if !ok || r.Fault == nil || r.Fault.Kind != row.kind {
				t.Errorf("got %+v, %v, want %s", r, ok, row.kind)
			}
			if r, ok := service(t, s, "10.96.0.2:80", "").Route(request("/"), 0); !ok || r.Fault != nil {
				t.Errorf("the other service suffers: %+v, %v", r, ok)
			}
		})
	}
}

// TestLastGood: an object with a problem keeps its last version, and the others
// change all the same.
func TestLastGood(t *testing.T) {
	e := env()
	parent := `{group: "", kind: Service, name: a}`
	first, problems := Compile(decode(t, shop+httpRoute("shop", parent, "/good", "")), nil, e)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	broken := shop + strings.Replace(httpRoute("shop", parent, "/good", ""), "PathPrefix, value: /good", "RegularExpression, value: (", 1)
	broken = strings.Replace(broken, "10.96.0.2", "10.96.0.20", 1)
	c, told := config.Decode(config.File{Name: "test.yaml", Data: []byte(broken)})
	second, problems := Compile(c, first, e)
	if len(told)+len(problems) == 0 {
		t.Error("nobody is told")
	}
	v := service(t, second, "10.96.0.1:80", "")
	if r, ok := v.Route(request("/good/x"), 0); !ok || r.Fault != nil || r.Info.Backend != "shop/b:80" {
		t.Errorf("the last good version is not in force: %+v, %v", r, ok)
	}
	if _, ok := v.Route(request("/bad"), 0); ok {
		t.Error("more matches than the last good version did")
	}
	service(t, second, "10.96.0.20:80", "")
	third, _ := Compile(decode(t, broken), second, e) // and again: last good is not forgotten
	if r, ok := service(t, third, "10.96.0.1:80", "").Route(request("/good"), 0); !ok || r.Fault != nil {
		t.Errorf("forgotten the second time: %+v, %v", r, ok)
	}
}

// TestBackendsOutlive: a backend is the same in every snapshot that names it,
// and so are its endpoints; those that have gone have gone.
func TestBackendsOutlive(t *testing.T) {
	e := env()
	first, _ := Compile(decode(t, shop), nil, e)
	backend := func(s *Snapshot) *Route {
		r, ok := service(t, s, "10.96.0.1:80", "").Route(request("/"), 0)
		if !ok {
			t.Fatal("no route")
		}
		return r
	}
	was := backend(first)
	ends := was.Backend.Endpoints()
	second, _ := Compile(decode(t, strings.Replace(shop, "{workload: a-1}, ", "", 1)), first, e)
	first.Retire()
	if backend(second).Backend != was.Backend {
		t.Error("a new backend for the same service")
	}
	if now := was.Backend.Endpoints(); len(now) != 1 || now[0] != ends[1] {
		t.Errorf("endpoints %v, want the second of %v", now, ends)
	}
	third, _ := Compile(decode(t, strings.Replace(shop, "endpoints: [{workload: a-1}, {workload: a-2}]", "endpoints: []", 1)), second, e)
	second.Retire()
	if now := backend(third).Backend.Endpoints(); len(now) != 0 {
		t.Errorf("a service without endpoints sends to %v", now)
	}
}

// A closer counts how often it is closed.
type closer struct{ n *atomic.Int64 }

func (c closer) Close() error { c.n.Add(1); return nil }

// share is a filter that holds something shared.
type share struct{}

func (share) Request(*filters.Stream) *filters.Reply { return nil }

// TestPins: a snapshot is given up when it has been replaced and the last pin has
// gone, once, and cannot be pinned then.
func TestPins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int64
		e := env()
		e.Registry = filters.NewRegistry(filters.Kind{Name: "share", New: func(b *filters.Builder, _ filters.Spec) (filters.Filter, error) {
			_, err := filters.Share(b, b.Object(), func() (closer, error) { return closer{&closed}, nil })
			return share{}, err
		}})
		name := "one"
		e.Guard = func(b *filters.Builder, _ string) error { return b.Add("share", name, filters.NewSpec(nil)) }
		first, _ := Compile(decode(t, shop), nil, e)
		if !first.Pin() {
			t.Fatal("the current snapshot cannot be pinned")
		}
		name = "two"
		second, _ := Compile(decode(t, shop), first, e)
		first.Retire()
		synctest.Wait()
		if closed.Load() != 0 || !first.Pin() {
			t.Error("given up while it was pinned")
		}
		first.Unpin()
		first.Unpin()
		synctest.Wait()
		if closed.Load() != 1 || first.Pin() {
			t.Errorf("closed %d times after the last pin, want once", closed.Load())
		}
		third, _ := Compile(decode(t, shop), second, e) // shares with the second
		second.Retire()
		synctest.Wait()
		if closed.Load() != 1 {
			t.Error("what two snapshots share was closed with the first of them")
		}
		third.Retire()
		synctest.Wait()
		if closed.Load() != 2 || e.Shared.Len() != 0 {
			t.Errorf("closed %d, %d still held", closed.Load(), e.Shared.Len())
		}
	})
}

// TestGuardFails: a service whose guards cannot be built lets nobody in.
func TestGuardFails(t *testing.T) {
	e := env()
	e.Guard = func(b *filters.Builder, service string) error {
		if strings.HasPrefix(service, "shop/a:") {
			return b.Add("no such kind", "x", filters.NewSpec(nil))
		}
		return nil
	}
	s, _ := Compile(decode(t, shop), nil, e)
	a, b := service(t, s, "10.96.0.1:80", ""), service(t, s, "10.96.0.2:80", "")
	if err := a.Chain.Conn(&filters.Conn{}); err == nil || fault.Of(err).Kind != fault.PolicyDenied {
		t.Errorf("got %v", err)
	}
	if r := a.Chain.Request(&filters.Stream{}); r == nil || r.Status != 403 {
		t.Errorf("got %+v", r)
	}
	if err := b.Chain.Conn(&filters.Conn{}); err != nil {
		t.Errorf("the other service: %v", err)
	}
}
