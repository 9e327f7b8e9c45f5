package config

import (
	"fmt"
	"regexp"
	"strings"
)

// GRPCRoute is a Gateway API v1 GRPCRoute: its spec's fields beside its name.
type GRPCRoute struct {
	Route
	// Accepted for pasted objects. The destination picks the service, never the authority.
	Hostnames []string `json:"hostnames,omitempty" rule:"maxItems=16,format=wildcardHostname"`
	// The rules. The most specific match wins, not the first.
	Rules []GRPCRouteRule `json:"rules" rule:"required,minItems=1,maxItems=16"`
}

// GRPCRouteRule says what to do with the calls it matches.
type GRPCRouteRule struct {
	// A name, for logs and metrics.
	Name string `json:"name,omitempty" rule:"format=name"`
	// The conditions: one item is an AND, several are an OR. Everything when left out.
	Matches []GRPCRouteMatch `json:"matches,omitempty" rule:"maxItems=64"`
	// What is done to calls and their responses.
	Filters []GRPCRouteFilter `json:"filters,omitempty" rule:"maxItems=16"`
	// Where calls go. UNAVAILABLE when left out.
	BackendRefs []GRPCBackendRef `json:"backendRefs,omitempty" rule:"maxItems=16"`
	_           struct{}         `soon:"sessionPersistence"`

	At Pos `json:"-"`
}

// GRPCRouteMatch is a condition: all of its parts must hold.
type GRPCRouteMatch struct {
	// The service and the method; every one when left out.
	Method *GRPCMethodMatch `json:"method,omitempty"`
	// Header fields, which gRPC calls metadata.
	Headers []HTTPHeaderMatch `json:"headers,omitempty" rule:"maxItems=16"`

	At Pos `json:"-"`
}

// GRPCMethodMatch is a condition on the service and the method of a call, which
// are the path of its request: /service/method.
type GRPCMethodMatch struct {
	// How the two are compared.
	Type MatchType `json:"type,omitempty" rule:"enum=Exact|RegularExpression" default:"Exact"`
	// The service with its package, or a regular expression (RE2) for all of it. Every one when left out.
	Service string `json:"service,omitempty" rule:"max=1024,format=text"`
	// The method, or a regular expression (RE2) for all of it. Every one when left out.
	Method string `json:"method,omitempty" rule:"max=1024,format=text"`

	At Pos `json:"-"`
}

// GRPCRouteFilter is one step of what is done to calls and their responses.
type GRPCRouteFilter struct {
	// The sort of filter; the field of the same name holds its settings.
	Type HTTPRouteFilterType `json:"type" rule:"required,enum=RequestHeaderModifier|ResponseHeaderModifier,soon=RequestMirror|ExtensionRef"`
	// Edits of the call's header.
	RequestHeaderModifier *HTTPHeaderFilter `json:"requestHeaderModifier,omitempty"`
	// Edits of the response's header.
	ResponseHeaderModifier *HTTPHeaderFilter `json:"responseHeaderModifier,omitempty"`

	_ struct{} `soon:"requestMirror"`
	_ struct{} `soon:"extensionRef"`

	At Pos `json:"-"`
}

// GRPCBackendRef is a service that calls go to.
type GRPCBackendRef struct {
	BackendRef
	// What is done to the calls that go here, after the rule's filters.
	Filters []GRPCRouteFilter `json:"filters,omitempty" rule:"maxItems=16"`
}

// HTTPFilters returns filters as what they are for HTTP: a gRPC call is a request.
func HTTPFilters(list []GRPCRouteFilter) []HTTPRouteFilter {
	var out []HTTPRouteFilter
	for i := range list {
		f := &list[i]
		out = append(out, HTTPRouteFilter{
			Type:                  f.Type,
			RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier,
			At: f.At,
		})
	}
	return out
}

func (g *GRPCRoute) views() []ruleView {
	out := make([]ruleView, len(g.Rules))
	for i := range g.Rules {
		rule := &g.Rules[i]
		out[i] = ruleView{name: rule.Name, at: rule.At}
		for j := range rule.BackendRefs {
			out[i].backends = append(out[i].backends, &rule.BackendRefs[j].BackendRef)
		}
	}
	return out
}

func (g *GRPCRoute) complete(*Config) { completeRoute(g) }

func (g *GRPCRoute) check(r *report) {
	checkRoute(r, g)
	matches := 0
	for i := range g.Rules {
		rule := &g.Rules[i]
		field := fmt.Sprintf("rules[%d]", i)
		matches += len(rule.Matches)
		for j := range rule.Matches {
			m := &rule.Matches[j]
			at := fmt.Sprintf("%s.matches[%d]", field, j)
			if m.Method != nil {
				m.Method.check(r, at+".method")
			}
			checkHeaders(r, m.Headers, at)
		}
		checkFilters(r, HTTPFilters(rule.Filters), field)
		for j := range rule.BackendRefs {
			checkFilters(r, HTTPFilters(rule.BackendRefs[j].Filters), fmt.Sprintf("%s.backendRefs[%d]", field, j))
		}
	}
	checkMatches(r, matches)
}

// What Protocol Buffers allow as names, as the Gateway API has them.
var (
	grpcService = regexp.MustCompile(`^\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*$`)
	grpcMethod  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func (m *GRPCMethodMatch) check(r *report, field string) {
	if m.Service == "" && m.Method == "" {
		r.add(CodeExclusive, m.At, field, "it names neither a service nor a method", "write service: NAME, or leave method out to match every call")
	}
	for _, part := range []struct {
		name, value, want string
		form              *regexp.Regexp
	}{
		{"service", m.Service, "the service with its package, such as shop.v1.Cart", grpcService},
		{"method", m.Method, "the method alone, such as AddItem", grpcMethod},
	} {
		switch {
		case part.value == "":
		case m.Type == MatchRegularExpression:
			checkRegex(r, m.At, field+"."+part.name, part.value)
		case !part.form.MatchString(part.value):
			r.add(CodeFormat, m.At, field+"."+part.name, fmt.Sprintf("%q is no name of a gRPC %s", short(part.value), part.name), "write "+part.want+", without slashes")
		}
	}
}

func (g *GRPCRoute) refs(r *report, x *index) { refsOfRoute(r, x, g, answeredUnavail) }

func (g *GRPCRoute) lint(r *report, x *index) {
	lintHostnames(r, g.Hostnames)
	lintRoute(r, x, g)
}

// takesAll reports whether some rule of the route takes every call.
func (g *GRPCRoute) takesAll() bool {
	for i := range g.Rules {
		if len(g.Rules[i].Matches) == 0 {
			return true
		}
		for _, m := range g.Rules[i].Matches {
			if m.Method == nil && len(m.Headers) == 0 {
				return true
			}
		}
	}
	return false
}

func (g *GRPCRoute) signs(i int) []sign {
	rule := &g.Rules[i]
	if len(rule.Matches) == 0 {
		return []sign{{fmt.Sprintf("rules[%d]", i), callSign(&GRPCRouteMatch{})}}
	}
	var out []sign
	for j := range rule.Matches {
		out = append(out, sign{fmt.Sprintf("rules[%d].matches[%d]", i, j), callSign(&rule.Matches[j])})
	}
	return out
}

func callSign(m *GRPCRouteMatch) string {
	var parts []string
	if m.Method != nil {
		parts = append(parts, fmt.Sprintf("%s %q %q", m.Method.Type, m.Method.Service, m.Method.Method))
	}
	return strings.Join(append(parts, headerSigns(m.Headers)...), "\n")
}
