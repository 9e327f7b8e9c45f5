package config

import (
	"fmt"
	"slices"
	"strings"
)

// attached is a route at one of its parents.
type attached struct {
	route *HTTPRoute
	port  int32 // 0: all ports
}

// matchAt is where a match is written.
type matchAt struct {
	route *HTTPRoute
	rule  int
}

// attach notes which routes stand at which service. Only lints ask for it.
func (x *index) attach() {
	x.routes = make(map[Key][]attached)
	x.backends = make(map[Key]bool)
	x.matches = make(map[string]matchAt)
	for _, h := range x.c.HTTPRoutes {
		for i := range h.ParentRefs {
			p := &h.ParentRefs[i]
			if s := x.service(p.Kind, p.Namespace, p.Name); s != nil && p.Kind != "Gateway" {
				x.routes[s.Key()] = append(x.routes[s.Key()], attached{h, p.Port})
			}
		}
		for i := range h.Rules {
			for j := range h.Rules[i].BackendRefs {
				b := &h.Rules[i].BackendRefs[j]
				if s := x.service(b.Kind, b.Namespace, b.Name); s != nil {
					x.backends[s.Key()] = true
				}
			}
		}
	}
}

// onlyRouted reports whether the service is but a name: routes send its
// requests elsewhere, and none sends any to it.
func (x *index) onlyRouted(s *Service) bool {
	return len(x.routes[s.Key()]) > 0 && !x.backends[s.Key()]
}

func (h *HTTPRoute) lint(r *report, x *index) {
	if len(h.Hostnames) > 0 {
		r.add(CodeHostIgnored, Pos{}, "hostnames", "hostnames are ignored: the destination picks the service, never the Host", "remove them")
	}
	for i := range h.Rules {
		rule := &h.Rules[i]
		field := fmt.Sprintf("rules[%d]", i)
		if len(rule.BackendRefs) == 0 {
			r.add(CodeNoBackends, rule.At, field, "the rule has no backendRefs: it answers 500", "write backendRefs: [{name: SERVICE, port: PORT}]")
		} else if !slices.ContainsFunc(rule.BackendRefs, func(b HTTPBackendRef) bool { return *b.Weight > 0 }) {
			r.add(CodeNoWeight, rule.At, field, "all backendRefs have weight 0: the rule answers 500", "give one of them a weight")
		}
	}
	h.lintShadowed(r, x)
	for i := range h.ParentRefs {
		h.lintParent(r, x, &h.ParentRefs[i], fmt.Sprintf("parentRefs[%d]", i))
	}
}

func (h *HTTPRoute) lintParent(r *report, x *index, p *ParentReference, field string) {
	s := x.service(p.Kind, p.Namespace, p.Name)
	if s == nil || p.Kind == "Gateway" {
		return
	}
	for i := range s.Ports {
		port := &s.Ports[i]
		if p.Port != 0 && p.Port != port.Port {
			continue
		}
		if port.Speaks() == AppTCP {
			if p.Port != 0 || len(s.Ports) == 1 {
				r.add(CodeNotHTTP, p.At, field, fmt.Sprintf("port %d of Service %s is not HTTP: the route is never used for it", port.Port, s.Key()), "write appProtocol: http at the port, if that is what it speaks")
			}
			continue
		}
		all := x.routes[s.Key()]
		here := func(a attached) bool { return a.port == 0 || a.port == port.Port }
		first := slices.IndexFunc(all, here) // which speaks for all of them
		if first >= 0 && all[first].route == h && !slices.ContainsFunc(all, func(a attached) bool { return here(a) && a.route.takesAll() }) {
			r.add(CodeNoCatchAll, p.At, field, fmt.Sprintf("no rule takes what the others leave: it is answered 404 at port %d of Service %s", port.Port, s.Key()), "add a rule without matches")
			return
		}
	}
}

// takesAll reports whether some rule of the route takes every request.
func (h *HTTPRoute) takesAll() bool {
	return slices.ContainsFunc(h.Rules, func(rule HTTPRouteRule) bool {
		return len(rule.Matches) == 0 || slices.ContainsFunc(rule.Matches, func(m HTTPRouteMatch) bool {
			return m.Method == "" && len(m.Headers) == 0 && len(m.QueryParams) == 0 &&
				m.Path.Type == PathMatchPathPrefix && m.Path.Value == "/"
		})
	})
}

// lintShadowed finds matches that are word for word those of an earlier rule at
// the same parent. As the most specific match wins, no other match is ever
// hidden in full. Between routes the order of the document decides, where the
// Gateway API takes the older one: the controller lists them by age.
func (h *HTTPRoute) lintShadowed(r *report, x *index) {
	for i := range h.Rules {
		rule := &h.Rules[i]
		signs := []string{sign(&HTTPRouteMatch{Path: &HTTPPathMatch{Type: PathMatchPathPrefix, Value: "/"}})}
		if len(rule.Matches) > 0 {
			signs = signs[:0]
			for j := range rule.Matches {
				signs = append(signs, sign(&rule.Matches[j]))
			}
		}
		told := false
		for _, p := range h.ParentRefs {
			at := fmt.Sprintf("%s %s/%s:%d ", p.Kind, p.Namespace, p.Name, p.Port)
			for j, s := range signs {
				first, taken := x.matches[at+s]
				if !taken {
					x.matches[at+s] = matchAt{h, i}
				} else if (first.route != h || first.rule != i) && !told {
					told = true
					field := fmt.Sprintf("rules[%d]", i)
					if len(rule.Matches) > 0 {
						field = fmt.Sprintf("rules[%d].matches[%d]", i, j)
					}
					where := fmt.Sprintf("rules[%d]", first.rule)
					if first.route != h {
						where += " of HTTPRoute " + first.route.Key().String()
					}
					r.add(CodeShadowed, rule.At, field, "it is never reached: "+where+" has the same match", "make it more specific, or remove it")
				}
			}
		}
	}
}

// sign writes a match so that equal matches are equal strings.
func sign(m *HTTPRouteMatch) string {
	value := m.Path.Value
	if m.Path.Type == PathMatchPathPrefix && value != "/" {
		value = strings.TrimSuffix(value, "/")
	}
	parts := []string{fmt.Sprintf("%s %q %s", m.Path.Type, value, m.Method)}
	for i := range m.Headers {
		h := &m.Headers[i]
		parts = append(parts, fmt.Sprintf("h %s %s %q", strings.ToLower(h.Name), h.Type, h.Value))
	}
	for i := range m.QueryParams {
		q := &m.QueryParams[i]
		parts = append(parts, fmt.Sprintf("q %s %s %q", q.Name, q.Type, q.Value))
	}
	slices.Sort(parts[1:])
	return strings.Join(parts, "\n")
}
