package config

import (
	"fmt"
	"slices"
	"strings"
)

// attached is a route at one of its parents.
type attached struct {
	route router
	port  int32 // 0: all ports
}

// matchAt is where a match is written.
type matchAt struct {
	route router
	rule  int
}

// attach notes which routes stand at which service. Only lints ask for it.
func (x *index) attach() {
	x.routes = make(map[Key][]attached)
	x.backends = make(map[Key]bool)
	x.matches = make(map[string]matchAt)
	for _, n := range x.c.Objects() {
		o, ok := n.Object.(router)
		if !ok {
			continue
		}
		rt := o.base()
		for i := range rt.ParentRefs {
			p := &rt.ParentRefs[i]
			if s := x.service(p.Kind, p.Namespace, p.Name); s != nil && p.Kind != "Gateway" {
				x.routes[s.Key()] = append(x.routes[s.Key()], attached{o, p.Port})
			}
		}
		for _, rule := range o.views() {
			for _, b := range rule.backends {
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
	lintHostnames(r, h.Hostnames)
	lintRoute(r, x, h)
}

func lintHostnames(r *report, list []string) {
	if len(list) > 0 {
		r.add(CodeHostIgnored, Pos{}, "hostnames", "hostnames are ignored: the destination picks the service, never the Host", "remove them")
	}
}

// lintRoute has the lints of all kinds of routes.
func lintRoute(r *report, x *index, o router) {
	nothing := map[string]string{kindHTTP: "it answers 500", kindGRPC: "it answers UNAVAILABLE"}[kindNameOf(o)]
	if nothing == "" {
		nothing = "it refuses connections"
	}
	for i, rule := range o.views() {
		field := fmt.Sprintf("rules[%d]", i)
		if len(rule.backends) == 0 {
			r.add(CodeNoBackends, rule.at, field, "the rule has no backendRefs: "+nothing, "write backendRefs: [{name: SERVICE, port: PORT}]")
		} else if !slices.ContainsFunc(rule.backends, func(b *BackendRef) bool { return *b.Weight > 0 }) {
			r.add(CodeNoWeight, rule.at, field, "all backendRefs have weight 0: "+nothing, "give one of them a weight")
		}
		for j, b := range rule.backends {
			lintBackend(r, x, kindNameOf(o), b, fmt.Sprintf("%s.backendRefs[%d]", field, j))
		}
	}
	lintShadowed(r, x, o)
	for i := range o.base().ParentRefs {
		lintParent(r, x, o, &o.base().ParentRefs[i], fmt.Sprintf("parentRefs[%d]", i))
	}
}

// lintBackend finds ports that do not understand what is sent to them.
func lintBackend(r *report, x *index, kind string, b *BackendRef, field string) {
	s := x.service(b.Kind, b.Namespace, b.Name)
	if s == nil || s.Port(b.Port) == nil {
		return
	}
	speaks := s.Port(b.Port).Speaks()
	switch {
	case routes(kind, AppHTTP1) && speaks == AppTLS:
		r.add(CodeBackendSpeaks, b.At, field, fmt.Sprintf("port %d of Service %s speaks TLS, and is sent plain HTTP", b.Port, s.Key()), "name a port that speaks plain HTTP: the mesh encrypts")
	case kind == kindGRPC && speaks == AppHTTP1:
		r.add(CodeBackendSpeaks, b.At, field, fmt.Sprintf("port %d of Service %s speaks HTTP/1, and gRPC needs HTTP/2", b.Port, s.Key()), "write appProtocol: grpc at the port, if that is what it speaks")
	}
}

// A standing is a route at one port of one of its parents.
type standing struct {
	route   router
	kind    string
	parent  *ParentReference
	field   string
	service *Service
	port    *ServicePort
}

func lintParent(r *report, x *index, o router, p *ParentReference, field string) {
	s := x.service(p.Kind, p.Namespace, p.Name)
	if s == nil || p.Kind == "Gateway" {
		return
	}
	for i := range s.Ports {
		at := &standing{o, kindNameOf(o), p, field, s, &s.Ports[i]}
		if p.Port != 0 && p.Port != at.port.Port {
			continue
		}
		if !routes(at.kind, at.port.Speaks()) {
			if p.Port != 0 || len(s.Ports) == 1 {
				at.lintSpeaks(r)
			}
			continue
		}
		if at.outranked(r, x) || at.leavesSome(r, x) {
			return
		}
	}
}

// lintSpeaks says that the port does not speak what the route is for.
func (at *standing) lintSpeaks(r *report) {
	where := fmt.Sprintf("port %d of Service %s", at.port.Port, at.service.Key())
	switch at.kind {
	case kindTCP:
		r.add(CodeNotTCP, at.parent.At, at.field, where+" speaks HTTP: the route is never used for it", "write an HTTPRoute or a GRPCRoute, or appProtocol: tcp at the port")
	case kindTLS:
		r.add(CodeNotTCP, at.parent.At, at.field, where+" does not speak TLS: the route is never used for it", "write appProtocol: tls at the port, if that is what it speaks")
	default:
		r.add(CodeNotHTTP, at.parent.At, at.field, where+" is not HTTP: the route is never used for it", "write appProtocol: http at the port, if that is what it speaks")
	}
}

// here reports whether another route stands at the same port.
func (at *standing) here(a attached) bool { return a.port == 0 || a.port == at.port.Port }

// outranked reports whether routes of a more specific kind stand at the port.
func (at *standing) outranked(r *report, x *index) bool {
	for _, a := range x.routes[at.service.Key()] {
		if other := kindNameOf(a.route); at.here(a) && outranks(other, at.kind, at.port.Speaks()) {
			r.add(CodeOutranked, at.parent.At, at.field,
				fmt.Sprintf("%s %s is for port %d of Service %s as well, and goes before: this route is never used for it", other, a.route.base().Key(), at.port.Port, at.service.Key()),
				"make one kind of them, or give them ports of their own")
			return true
		}
	}
	return false
}

// leavesSome reports whether the routes of the kind leave requests that no rule
// takes. The first of them speaks for all.
func (at *standing) leavesSome(r *report, x *index) bool {
	all := x.routes[at.service.Key()]
	alike := func(a attached) bool { return at.here(a) && kindNameOf(a.route) == at.kind }
	first := slices.IndexFunc(all, alike)
	if first < 0 || all[first].route != at.route || slices.ContainsFunc(all, func(a attached) bool { return alike(a) && a.route.takesAll() }) {
		return false
	}
	answer := "404"
	if at.kind == kindGRPC {
		answer = "UNIMPLEMENTED"
	}
	r.add(CodeNoCatchAll, at.parent.At, at.field, fmt.Sprintf("no rule takes what the others leave: it is answered %s at port %d of Service %s", answer, at.port.Port, at.service.Key()), "add a rule without matches")
	return true
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
func lintShadowed(r *report, x *index, o router) {
	kind := kindNameOf(o)
	for i, rule := range o.views() {
		told := false
		signs := o.signs(i)
		for _, p := range o.base().ParentRefs {
			at := fmt.Sprintf("%s %s %s/%s:%d ", kind, p.Kind, p.Namespace, p.Name, p.Port)
			for _, s := range signs {
				first, taken := x.matches[at+s.text]
				if !taken {
					x.matches[at+s.text] = matchAt{o, i}
				} else if (first.route != o || first.rule != i) && !told {
					told = true
					where := fmt.Sprintf("rules[%d]", first.rule)
					if first.route != o {
						where += " of " + kind + " " + first.route.base().Key().String()
					}
					r.add(CodeShadowed, rule.at, s.field, "it is never reached: "+where+" has the same match", "make it more specific, or remove it")
				}
			}
		}
	}
}

func (h *HTTPRoute) signs(i int) []sign {
	rule := &h.Rules[i]
	if len(rule.Matches) == 0 {
		return []sign{{fmt.Sprintf("rules[%d]", i), requestSign(&HTTPRouteMatch{Path: &HTTPPathMatch{Type: PathMatchPathPrefix, Value: "/"}})}}
	}
	var out []sign
	for j := range rule.Matches {
		out = append(out, sign{fmt.Sprintf("rules[%d].matches[%d]", i, j), requestSign(&rule.Matches[j])})
	}
	return out
}

func requestSign(m *HTTPRouteMatch) string {
	value := m.Path.Value
	if m.Path.Type == PathMatchPathPrefix && value != "/" {
		value = strings.TrimSuffix(value, "/")
	}
	parts := headerSigns(m.Headers)
	for i := range m.QueryParams {
		q := &m.QueryParams[i]
		parts = append(parts, fmt.Sprintf("q %s %s %q", q.Name, q.Type, q.Value))
	}
	slices.Sort(parts)
	return strings.Join(append([]string{fmt.Sprintf("%s %q %s", m.Path.Type, value, m.Method)}, parts...), "\n")
}

func headerSigns(list []HTTPHeaderMatch) []string {
	var parts []string
	for i := range list {
		h := &list[i]
		parts = append(parts, fmt.Sprintf("h %s %s %q", strings.ToLower(h.Name), h.Type, h.Value))
	}
	slices.Sort(parts)
	return parts
}
