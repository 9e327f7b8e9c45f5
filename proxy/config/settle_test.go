package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// document is the parts of a document, for tests of what happens over time.
func document(t *testing.T, text string) *Config {
	t.Helper()
	c, problems := Decode(file(head + "metadata: {namespace: shop}\n" + text))
	if c == nil {
		t.Fatal(lines(problems))
	}
	return c
}

// state writes what is in force: objects with something to tell their versions
// apart, then what is not as it is written.
func (s *Settled) state() string {
	var out []string
	for _, x := range s.Config.Services {
		out = append(out, fmt.Sprintf("%s:%d", x.Name, x.Ports[0].Port))
	}
	for _, x := range s.Config.HTTPRoutes {
		out = append(out, fmt.Sprintf("%s→%s", x.Name, x.Rules[0].BackendRefs[0].Name))
	}
	for _, x := range s.Config.TCPRoutes {
		out = append(out, fmt.Sprintf("%s→%s", x.Name, x.Rules[0].BackendRefs[0].Name))
	}
	ids := func(what string, list []ID) {
		for _, id := range list {
			out = append(out, what+" "+strings.TrimPrefix(id.String(), "HTTPRoute "))
		}
	}
	ids("stale", s.Stale)
	ids("closed", s.Closed)
	ids("inactive", s.Inactive)
	for _, c := range s.Config.Closed {
		out = append(out, fmt.Sprintf("%s by %s: %v", c.Role, c.By.Name, c.Services))
	}
	return fmt.Sprintf("%d/%d %s", s.Active, s.Total, strings.Join(out, ", "))
}

const (
	goodA  = "- {name: a, ports: [{port: 80}]}\n"
	newA   = "- {name: a, ports: [{port: 81}]}\n"
	badA   = "- {name: a, ports: [{port: 0}]}\n"
	goodB  = "- {name: b, ports: [{port: 90}]}\n"
	goodR  = "httpRoutes:\n- {name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}\n"
	badR   = "httpRoutes:\n- {name: r, parentRefs: [{kind: Service, name: a}], rules: [{zz: 1}]}\n"
	farR   = "httpRoutes:\n- {name: r, namespace: far, parentRefs: [{kind: Service}], rules: [{zz: 1}]}\n"
	policy = "authorizationPolicies:\n- {name: p, targetRefs: [{kind: Service, name: a}]}\n"
)

// TestSettle plays documents one after the other and looks at what is in force
// after each.
func TestSettle(t *testing.T) {
	for _, row := range []struct {
		name string
		play []string // document, what is in force, document, …
	}{
		{"good objects come and go", []string{
			"services:\n" + goodA + goodB, "2/2 a:80, b:90",
			"services:\n" + newA, "1/1 a:81",
		}},
		{"a broken object keeps its last good version", []string{
			"services:\n" + goodA + goodB, "2/2 a:80, b:90",
			"services:\n" + badA + newA[:0] + goodB, "1/2 a:80, b:90, stale Service shop/a",
			"services:\n" + badA, "0/1 a:80, stale Service shop/a", // b is gone, a is still what it was
			"services:\n" + newA, "1/1 a:81",
			"services:\n" + badA, "0/1 a:81, stale Service shop/a",
		}},
		{"a new broken object is closed, the others go on", []string{
			"services:\n" + badA + goodB, "1/2 b:90, closed Service shop/a",
		}},
		{"a broken route closes its parents, but only with nothing to keep", []string{
			"services:\n" + goodA + badR, "1/2 a:80, closed shop/r, route by r: [shop/a]",
			"services:\n" + goodA + goodR, "2/2 a:80, r→a",
			"services:\n" + goodA + badR, "1/2 a:80, r→a, stale shop/r",
			"services:\n" + goodA, "1/1 a:80",
		}},
		{"a double is refused and the one before stays", []string{
			"services:\n" + goodA, "1/1 a:80",
			"services:\n" + goodA + newA, "0/2 a:80, stale Service shop/a",
			"services:\n" + newA, "1/1 a:81",
		}},
		{"doubles from the start are closed", []string{
			"services:\n" + goodA + newA + goodB, "1/3 b:90, closed Service shop/a",
		}},
		{"an object without a name takes nobody's place", []string{
			"services:\n" + goodA, "1/1 a:80",
			"services:\n- {ports: [{port: 80}]}\n", "0/1 closed Service shop/(without a name)",
		}},
		{"a section that cannot be read keeps all there were", []string{
			"services:\n" + goodA + goodB + goodR, "3/3 a:80, b:90, r→a",
			"services: {a: 1}\n" + goodR, "1/3 a:80, b:90, r→a, stale Service shop/a, stale Service shop/b",
		}},
		{"a mistyped heading loses nothing", []string{
			"services:\n" + goodA + goodR, "2/2 a:80, r→a",
			"services:\n" + goodA + strings.Replace(goodR, "httpRoutes", "httpRouts", 1), "1/2 a:80, r→a, stale shop/r",
		}},
		{"a policy of a kind that is not active closes its service", []string{
			"services:\n" + goodA + goodB + policy, "2/3 a:80, b:90, inactive AuthorizationPolicy shop/p, policy by p: [shop/a]",
			"services:\n" + goodA + goodB, "2/2 a:80, b:90",
		}},
		{"under a mistyped heading as well", []string{
			"services:\n" + goodA + goodB + strings.Replace(policy, "Policies", "Policy", 1), "2/3 a:80, b:90, inactive AuthorizationPolicy shop/p, policy by p: [shop/a]",
		}},
		{"a policy of a later version closes its service", []string{
			"services:\n" + goodA + goodB + strings.Replace(policy, "authorizationPolicies", "quotas", 1), "2/3 a:80, b:90, inactive quotas shop/p, policy by p: [shop/a]",
		}},
		{"a route of a later version closes its parent", []string{
			"services:\n" + goodA + "gadgetRoutes:\n- {name: g, parentRefs: [{kind: Service, name: a}]}\n", "1/2 a:80, inactive gadgetRoutes shop/g, route by g: [shop/a]",
		}},
		{"every kind of route keeps its last good version", []string{
			"services:\n" + goodA + "tcpRoutes:\n- {name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}\n", "2/2 a:80, r→a",
			"services:\n" + goodA + "tcpRoutes:\n- {name: r, parentRefs: [{kind: Service, name: a}], rules: []}\n", "1/2 a:80, r→a, stale TCPRoute shop/r",
			"services:\n" + goodA + "tcpRoutes: {}\n", "1/2 a:80, r→a, stale TCPRoute shop/r, route by : [shop/a]",
		}},
		{"a rule for destinations closes nothing", []string{
			"services:\n" + goodA + "destinationRules:\n- {name: d, host: a}\n", "1/2 a:80, inactive DestinationRule shop/d",
		}},
		{"policies that cannot be read close all", []string{
			"services:\n" + goodA + goodB + "authorizationPolicies: {}\n", "2/2 a:80, b:90, policy by : [shop/a shop/b]",
		}},
		{"a policy for unknown targets closes its namespace", []string{
			"services:\n" + goodA + "- {name: c, namespace: far, ports: [{port: 1}]}\n" +
				"authorizationPolicies:\n- {name: p, namespace: far, targetRefs: [{kind: Servce, name: a}]}\n",
			"2/3 a:80, c:1, inactive AuthorizationPolicy far/p, policy by p: [far/c]",
		}},
		{"in the waypoint's own namespace it closes all", []string{
			"services:\n" + goodA + "- {name: c, namespace: far, ports: [{port: 1}]}\n" + "authorizationPolicies:\n- {name: p}\n",
			"2/3 a:80, c:1, inactive AuthorizationPolicy shop/p, policy by p: [shop/a far/c]",
		}},
		{"a policy for the waypoint closes all", []string{
			"services:\n" + goodA + goodB + "authorizationPolicies:\n- {name: p, targetRefs: [{kind: Gateway, name: waypoint}]}\n",
			"2/3 a:80, b:90, inactive AuthorizationPolicy shop/p, policy by p: [shop/a shop/b]",
		}},
		{"a policy for another waypoint closes nothing", []string{
			"services:\n" + goodA + "authorizationPolicies:\n- {name: p, targetRefs: [{kind: Gateway, name: other}]}\n",
			"1/2 a:80, inactive AuthorizationPolicy shop/p, policy by p: []",
		}},
		{"a policy for workloads is not ours", []string{
			"services:\n" + goodA + "authorizationPolicies:\n- {name: p, selector: {matchLabels: {a: b}}}\n",
			"1/2 a:80, inactive AuthorizationPolicy shop/p, policy by p: []",
		}},
		{"a policy for a ServiceEntry finds what was made of it", []string{
			"services:\n- {name: x-0, ports: [{port: 1}], origin: {kind: ServiceEntry, namespace: shop, name: x}}\n" +
				"rateLimits:\n- {name: p, targetRef: {kind: ServiceEntry, name: x}}\n",
			"1/2 x-0:1, inactive RateLimit shop/p, policy by p: [shop/x-0]",
		}},
		{"a route that does not say for whom closes its namespace", []string{
			"services:\n" + goodA + "- {name: c, namespace: far, ports: [{port: 1}]}\n" + farR,
			"2/3 a:80, c:1, closed far/r, route by r: [far/c]",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var prev *Config
			for i := 0; i < len(row.play); i += 2 {
				s := Settle(prev, document(t, row.play[i]))
				if got, want := s.state(), row.play[i+1]; got != want {
					t.Fatalf("document %d:\ngot  %s\nwant %s", i/2+1, got, want)
				}
				prev = s.Config
			}
		})
	}
}

// TestSettleWithRefusals is what Compile does: an object that is right on paper
// and cannot be built.
func TestSettleWithRefusals(t *testing.T) {
	next := document(t, "services:\n"+newA+goodB+goodR)
	route := ID{"HTTPRoute", "shop", "r"}
	service := ID{"Service", "shop", "a"}
	first := Settle(nil, next, route)
	if got, want := first.state(), "2/3 a:81, b:90, closed shop/r, route by r: [shop/a]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	prev := Settle(nil, document(t, "services:\n"+goodA+goodR)).Config
	s := Settle(prev, next, route, service)
	if got, want := s.state(), "1/3 a:80, b:90, r→a, stale Service shop/a, stale shop/r"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(next.Broken) != 0 || len(next.Services) != 2 || len(prev.Services) != 1 {
		t.Error("Settle changed what it was given")
	}
}

// TestStaleObjectKeepsItsPlace has two services that want one address: who came
// first keeps it, also while it is broken.
func TestStaleObjectKeepsItsPlace(t *testing.T) {
	service := func(name, more string) string {
		return "- {name: " + name + ", addresses: [10.0.0.1], ports: [{port: 80}]" + more + "}\n"
	}
	s := Settle(nil, document(t, "services:\n"+service("a", "")+service("b", "")))
	for range 2 {
		problems := References(s.Config)
		if len(problems) != 1 || problems[0].Object.Name != "b" {
			t.Fatalf("got %s, want that b lacks the address", lines(problems))
		}
		s = Settle(s.Config, document(t, "services:\n"+service("a", ", zz: 1")+service("b", "")))
	}
	if got := len(s.Stale); got != 1 {
		t.Errorf("got %d stale objects, want 1", got)
	}
}

func TestReferenceToBrokenObjectSaysSo(t *testing.T) {
	c := document(t, "services:\n"+badA+goodB+strings.Replace(goodR, "parentRefs: [{kind: Service, name: a}]", "parentRefs: [{kind: Service, name: b}]", 1))
	problems := References(Settle(nil, c).Config)
	if len(problems) != 1 || !strings.Contains(problems[0].Fix, "mend Service shop/a") {
		t.Errorf("got %s", lines(problems))
	}
}

// TestLintsAcrossRoutes has two routes at one service: together they take
// everything, and one match is in both.
func TestLintsAcrossRoutes(t *testing.T) {
	c := document(t, `services:
- {name: a, ports: [{port: 80}], endpoints: [{address: 10.0.0.9, protocol: TCP}]}
- {name: routed, ports: [{port: 80}]}
httpRoutes:
- {name: r, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{path: {value: /x}}, {method: GET}], backendRefs: [{name: a, port: 80}]}]}
- {name: q, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{path: {value: /x/}}], backendRefs: [{name: a, port: 80}]}, {backendRefs: [{name: a, port: 80}]}]}
- {name: s, parentRefs: [{kind: Service, name: routed}], rules: [{backendRefs: [{name: a, port: 80}]}]}
`)
	var got []string
	for _, p := range Lint(c) {
		got = append(got, string(p.Code)+" "+p.Object.Name+" "+p.Field)
	}
	if want := []string{string(CodeShadowed) + " q rules[0].matches[0]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
