package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// HTTPRoute is a Gateway API v1 HTTPRoute: its spec's fields beside its name.
type HTTPRoute struct {
	Meta
	// The services it routes for, or the waypoint's Gateway for all of them.
	ParentRefs []ParentReference `json:"parentRefs" rule:"required,minItems=1,maxItems=32"`
	_          struct{}          `soon:"useDefaultGateways"`
	// Accepted for pasted objects. The destination picks the service, never the Host.
	Hostnames []string `json:"hostnames,omitempty" rule:"maxItems=16,format=wildcardHostname"`
	// The rules. The most specific match wins, not the first.
	Rules []HTTPRouteRule `json:"rules" rule:"required,minItems=1,maxItems=16"`
}

// ParentReference names what a route attaches to.
type ParentReference struct {
	// The API group; empty for a Service.
	Group *string `json:"group,omitempty" rule:"max=253"`
	// Service, ServiceEntry or Gateway.
	Kind string `json:"kind,omitempty" rule:"enum=Service|ServiceEntry|Gateway" default:"Gateway"`
	// The namespace; the route's when left out.
	Namespace string `json:"namespace,omitempty" rule:"format=label"`
	// The name.
	Name string   `json:"name" rule:"required,format=name"`
	_    struct{} `soon:"sectionName"`
	// The service's port; all of them when left out.
	Port int32 `json:"port,omitempty" rule:"min=1,max=65535"`

	At Pos `json:"-"`
}

// HTTPRouteRule says what to do with the requests it matches.
type HTTPRouteRule struct {
	// A name, for logs and metrics.
	Name string `json:"name,omitempty" rule:"format=name"`
	// The conditions: one item is an AND, several are an OR. Everything when left out.
	Matches []HTTPRouteMatch `json:"matches,omitempty" rule:"maxItems=64"`
	// What is done to requests and responses.
	Filters []HTTPRouteFilter `json:"filters,omitempty" rule:"maxItems=16"`
	// Where requests go. 500 when left out.
	BackendRefs []HTTPBackendRef `json:"backendRefs,omitempty" rule:"maxItems=16"`
	// How long things may take.
	Timeouts HTTPRouteTimeouts `json:"timeouts,omitzero"`
	// When another attempt is made; the proxy's default when left out.
	Retry *HTTPRouteRetry `json:"retry,omitempty"`
	_     struct{}        `soon:"sessionPersistence"`

	At Pos `json:"-"`
}

// HTTPRouteMatch is a condition: all of its parts must hold.
type HTTPRouteMatch struct {
	// The path; everything when left out.
	Path *HTTPPathMatch `json:"path,omitempty"`
	// Header fields.
	Headers []HTTPHeaderMatch `json:"headers,omitempty" rule:"maxItems=16"`
	// Query parameters.
	QueryParams []HTTPQueryParamMatch `json:"queryParams,omitempty" rule:"maxItems=16"`
	// The method.
	Method string `json:"method,omitempty" rule:"enum=GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH"`

	At Pos `json:"-"`
}

// HTTPPathMatch is a condition on the path.
type HTTPPathMatch struct {
	// How the value is compared.
	Type PathMatchType `json:"type,omitempty" rule:"enum=Exact|PathPrefix|RegularExpression" default:"PathPrefix"`
	// The path, or a regular expression (RE2) for all of it.
	Value string `json:"value,omitempty" rule:"max=1024,format=text" default:"/"`

	At Pos `json:"-"`
}

// PathMatchType says how paths are compared.
type PathMatchType string

// Path matches. A prefix is matched element by element: /foo is one of /foo/bar
// and not of /foobar.
const (
	PathMatchExact             PathMatchType = "Exact"
	PathMatchPathPrefix        PathMatchType = "PathPrefix"
	PathMatchRegularExpression PathMatchType = "RegularExpression"
)

// MatchType says how values of headers and query parameters are compared.
type MatchType string

// Value matches.
const (
	MatchExact             MatchType = "Exact"
	MatchRegularExpression MatchType = "RegularExpression"
)

// HTTPHeaderMatch is a condition on one header.
type HTTPHeaderMatch struct {
	// How the value is compared.
	Type MatchType `json:"type,omitempty" rule:"enum=Exact|RegularExpression" default:"Exact"`
	// The header's name, in any case.
	Name string `json:"name" rule:"required,format=header"`
	// The value, or a regular expression (RE2) for all of it.
	Value string `json:"value" rule:"required,min=1,max=4096,format=headerValue"`

	At Pos `json:"-"`
}

// HTTPQueryParamMatch is a condition on one query parameter.
type HTTPQueryParamMatch struct {
	// How the value is compared.
	Type MatchType `json:"type,omitempty" rule:"enum=Exact|RegularExpression" default:"Exact"`
	// The parameter's name, which is case-sensitive.
	Name string `json:"name" rule:"required,format=header"`
	// The value, or a regular expression (RE2) for all of it.
	Value string `json:"value" rule:"required,min=1,max=1024,format=text"`

	At Pos `json:"-"`
}

// HTTPRouteFilter is one step of what is done to requests and responses.
type HTTPRouteFilter struct {
	// The sort of filter; the field of the same name holds its settings.
	Type HTTPRouteFilterType `json:"type" rule:"required,enum=RequestHeaderModifier|ResponseHeaderModifier,soon=RequestMirror|RequestRedirect|URLRewrite|CORS|ExternalAuth|ExtensionRef"`
	// Edits of the request's header.
	RequestHeaderModifier *HTTPHeaderFilter `json:"requestHeaderModifier,omitempty"`
	// Edits of the response's header.
	ResponseHeaderModifier *HTTPHeaderFilter `json:"responseHeaderModifier,omitempty"`

	_ struct{} `soon:"requestMirror"`
	_ struct{} `soon:"requestRedirect"`
	_ struct{} `soon:"urlRewrite"`
	_ struct{} `soon:"cors"`
	_ struct{} `soon:"externalAuth"`
	_ struct{} `soon:"extensionRef"`

	At Pos `json:"-"`
}

// HTTPRouteFilterType is a sort of filter.
type HTTPRouteFilterType string

// Filters of this version.
const (
	FilterRequestHeaderModifier  HTTPRouteFilterType = "RequestHeaderModifier"
	FilterResponseHeaderModifier HTTPRouteFilterType = "ResponseHeaderModifier"
)

// HTTPHeaderFilter edits a header: set, then add, then remove.
type HTTPHeaderFilter struct {
	// Fields that replace those of the same name.
	Set []HTTPHeader `json:"set,omitempty" rule:"maxItems=16"`
	// Fields that come beside those of the same name.
	Add []HTTPHeader `json:"add,omitempty" rule:"maxItems=16"`
	// Names of fields that are dropped.
	Remove []string `json:"remove,omitempty" rule:"maxItems=16,format=header"`

	At Pos `json:"-"`
}

// HTTPHeader is a header field.
type HTTPHeader struct {
	// The name, in any case.
	Name string `json:"name" rule:"required,format=header"`
	// The value.
	Value string `json:"value" rule:"required,min=1,max=4096,format=headerValue"`

	At Pos `json:"-"`
}

// HTTPBackendRef is a service that requests go to.
type HTTPBackendRef struct {
	// The API group; empty for a Service.
	Group *string `json:"group,omitempty" rule:"max=253"`
	// Service, or ServiceEntry.
	Kind string `json:"kind,omitempty" rule:"enum=Service|ServiceEntry" default:"Service"`
	// The name.
	Name string `json:"name" rule:"required,format=name"`
	// The namespace; the route's when left out.
	Namespace string `json:"namespace,omitempty" rule:"format=label"`
	// The service's port.
	Port int32 `json:"port" rule:"required,min=1,max=65535"`
	// Its share of the requests, against the sum of all; 0 takes none.
	Weight *int32 `json:"weight,omitempty" rule:"min=0,max=1000000" default:"1"`
	// What is done to the requests that go here, after the rule's filters.
	Filters []HTTPRouteFilter `json:"filters,omitempty" rule:"maxItems=16"`

	At Pos `json:"-"`
}

// HTTPRouteTimeouts says how long things may take; 0s is no limit.
type HTTPRouteTimeouts struct {
	// From the request's head to the end of the response, all attempts included.
	Request *Duration `json:"request,omitempty"`
	// One attempt.
	BackendRequest *Duration `json:"backendRequest,omitempty"`

	At Pos `json:"-"`
}

// HTTPRouteRetry says when another attempt is made.
type HTTPRouteRetry struct {
	// Statuses after which to try again, besides failures to connect.
	Codes []int32 `json:"codes,omitempty" rule:"maxItems=200,min=400,max=599"`
	// How many attempts may follow the first; 0 for none.
	Attempts *int32 `json:"attempts,omitempty" rule:"min=0,max=100"`
	// The least time between attempts.
	Backoff *Duration `json:"backoff,omitempty"`

	At Pos `json:"-"`
}

// The API groups of what routes refer to.
const (
	groupCore    = ""
	groupIstio   = "networking.istio.io"
	groupGateway = "gateway.networking.k8s.io"
)

func (h *HTTPRoute) complete(*Config) {
	for i := range h.ParentRefs {
		p := &h.ParentRefs[i]
		p.Namespace = cmp.Or(p.Namespace, h.Namespace)
	}
	for i := range h.Rules {
		rule := &h.Rules[i]
		for j := range rule.Matches {
			if m := &rule.Matches[j]; m.Path == nil {
				m.Path = &HTTPPathMatch{Type: PathMatchPathPrefix, Value: "/", At: m.At}
			}
		}
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			b.Namespace = cmp.Or(b.Namespace, h.Namespace)
		}
	}
}

func (h *HTTPRoute) targets() []Target {
	var out []Target
	for i := range h.ParentRefs {
		p := &h.ParentRefs[i]
		out = append(out, Target{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name})
	}
	return out
}

// maxMatches is how many matches all rules of a route may have together.
const maxMatches = 128

func (h *HTTPRoute) check(r *report) {
	type parent struct {
		kind, namespace, name string
		port                  int32
	}
	parents := make(map[parent]bool, len(h.ParentRefs))
	for i := range h.ParentRefs {
		p := &h.ParentRefs[i]
		field := fmt.Sprintf("parentRefs[%d]", i)
		checkGroup(r, p.At, field, p.Kind, p.Group)
		id := parent{p.Kind, p.Namespace, p.Name, p.Port}
		if parents[id] {
			r.add(CodeRepeated, p.At, field, "the parent is listed twice", "remove one of them")
		}
		parents[id] = true
	}
	matches := 0
	names := make(map[string]bool, len(h.Rules))
	for i := range h.Rules {
		rule := &h.Rules[i]
		field := fmt.Sprintf("rules[%d]", i)
		if rule.Name != "" && names[rule.Name] {
			r.add(CodeRepeated, rule.At, field+".name", fmt.Sprintf("two rules are named %q", rule.Name), "rename one of them")
		}
		names[rule.Name] = true
		matches += len(rule.Matches)
		rule.check(r, field)
	}
	if matches > maxMatches {
		r.add(CodeRange, Pos{}, "rules", fmt.Sprintf("%d matches are more than the %d allowed", matches, maxMatches), "split the route")
	}
}

func checkGroup(r *report, at Pos, field, kind string, group *string) {
	if group == nil {
		return
	}
	want := map[string]string{"Service": groupCore, "ServiceEntry": groupIstio, "Gateway": groupGateway}[kind]
	if *group != want && !(kind == "Service" && *group == "core") {
		r.add(CodeEnum, at, field+".group", fmt.Sprintf("%s is not of the API group %q", kind, short(*group)), fmt.Sprintf("write group: %q, or leave it out", want))
	}
}

func (rule *HTTPRouteRule) check(r *report, field string) {
	for i := range rule.Matches {
		rule.Matches[i].check(r, fmt.Sprintf("%s.matches[%d]", field, i))
	}
	checkFilters(r, rule.Filters, field)
	for i := range rule.BackendRefs {
		b := &rule.BackendRefs[i]
		at := fmt.Sprintf("%s.backendRefs[%d]", field, i)
		checkGroup(r, b.At, at, b.Kind, b.Group)
		checkFilters(r, b.Filters, at)
	}
	t := &rule.Timeouts
	if t.Request != nil && t.BackendRequest != nil && *t.Request > 0 && *t.BackendRequest > *t.Request {
		r.add(CodeTimeouts, t.At, field+".timeouts",
			fmt.Sprintf("backendRequest (%s) is longer than request (%s), which holds all attempts", *t.BackendRequest, *t.Request),
			"write a backendRequest of at most "+t.Request.String())
	}
}

func (m *HTTPRouteMatch) check(r *report, field string) {
	m.Path.check(r, field+".path")
	seen := make(map[string]bool, len(m.Headers))
	for i := range m.Headers {
		h := &m.Headers[i]
		at := fmt.Sprintf("%s.headers[%d]", field, i)
		if name := strings.ToLower(h.Name); seen[name] {
			r.add(CodeRepeated, h.At, at, fmt.Sprintf("header %q is in the match twice", h.Name), "remove one of them; two matches are an OR")
		} else {
			seen[name] = true
		}
		if h.Type == MatchRegularExpression {
			checkRegex(r, h.At, at+".value", h.Value)
		}
	}
	clear(seen)
	for i := range m.QueryParams {
		q := &m.QueryParams[i]
		at := fmt.Sprintf("%s.queryParams[%d]", field, i)
		if seen[q.Name] {
			r.add(CodeRepeated, q.At, at, fmt.Sprintf("query parameter %q is in the match twice", q.Name), "remove one of them; two matches are an OR")
		}
		seen[q.Name] = true
		if q.Type == MatchRegularExpression {
			checkRegex(r, q.At, at+".value", q.Value)
		}
	}
}

func checkRegex(r *report, at Pos, field, expr string) {
	if _, err := regexp.Compile(expr); err != nil {
		why := err.Error()
		if e := (*syntax.Error)(nil); errors.As(err, &e) {
			why = e.Code.String() + ": " + short(e.Expr)
		}
		r.add(CodeRegex, at, field, "the regular expression does not compile: "+why, "write RE2: no look-around, no back references")
	}
}

// pathPattern is what a request's path can consist of, escapes included.
var pathPattern = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+$`)

// check holds the Gateway API's rules for paths: what a normalised request path
// never contains would never match.
func (p *HTTPPathMatch) check(r *report, field string) {
	if p.Type == PathMatchRegularExpression {
		checkRegex(r, p.At, field+".value", p.Value)
		return
	}
	lower := strings.ToLower(p.Value)
	for _, bad := range []string{"//", "/./", "/../", "%2f", "#"} {
		if strings.Contains(lower, bad) {
			r.add(CodePath, p.At, field+".value", fmt.Sprintf("%q contains %q, which no path of a request has when it is matched", short(p.Value), bad), "write the normalised path")
			return
		}
	}
	switch {
	case !strings.HasPrefix(p.Value, "/"):
		r.add(CodePath, p.At, field+".value", fmt.Sprintf("%q does not begin with /", short(p.Value)), "write "+strconv.Quote("/"+short(p.Value)))
	case strings.HasSuffix(p.Value, "/.") || strings.HasSuffix(p.Value, "/.."):
		r.add(CodePath, p.At, field+".value", fmt.Sprintf("%q ends with a dot segment, which no path of a request has when it is matched", short(p.Value)), "write the normalised path")
	case !pathPattern.MatchString(p.Value):
		r.add(CodePath, p.At, field+".value", fmt.Sprintf("%q has characters that a path cannot have", short(p.Value)), "write them as %XX")
	}
}

func checkFilters(r *report, filters []HTTPRouteFilter, field string) {
	seen := make(map[HTTPRouteFilterType]bool, len(filters))
	for i := range filters {
		f := &filters[i]
		at := fmt.Sprintf("%s.filters[%d]", field, i)
		if seen[f.Type] {
			r.add(CodeFilter, f.At, at, fmt.Sprintf("%s is in the list twice", f.Type), "make one filter of them")
		}
		seen[f.Type] = true
		for _, part := range []struct {
			typ   HTTPRouteFilterType
			name  string
			edits *HTTPHeaderFilter
		}{
			{FilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier},
			{FilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier},
		} {
			switch {
			case part.typ == f.Type && part.edits == nil:
				r.add(CodeFilter, f.At, at, part.name+" is missing", fmt.Sprintf("write %s: {set: …}", part.name))
			case part.typ != f.Type && part.edits != nil:
				r.add(CodeFilter, f.At, at, fmt.Sprintf("%s is in a filter of type %s", part.name, f.Type), "make it a filter of its own")
			case part.edits != nil:
				part.edits.check(r, at+"."+part.name)
			}
		}
	}
}

// ownedFields belong to one connection (RFC 9110, section 7.6.1) or frame the
// message. They are rebuilt for each side, so an edit would be without effect.
var ownedFields = []string{"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func (f *HTTPHeaderFilter) check(r *report, field string) {
	for _, list := range []struct {
		name   string
		fields []HTTPHeader
	}{{"set", f.Set}, {"add", f.Add}} {
		seen := make(map[string]bool, len(list.fields))
		for i := range list.fields {
			h := &list.fields[i]
			at := fmt.Sprintf("%s.%s[%d]", field, list.name, i)
			name := strings.ToLower(h.Name)
			if seen[name] {
				r.add(CodeRepeated, h.At, at, fmt.Sprintf("header %q is in the list twice", h.Name), "write both values in one, with a comma")
			}
			seen[name] = true
			checkOwned(r, h.At, at, name)
		}
	}
	for i, name := range f.Remove {
		checkOwned(r, f.At, fmt.Sprintf("%s.remove[%d]", field, i), strings.ToLower(name))
	}
}

func checkOwned(r *report, at Pos, field, name string) {
	if slices.Contains(ownedFields, name) {
		r.add(CodeFramingField, at, field, fmt.Sprintf("%q belongs to the connection, which the proxy writes itself", name), "remove it")
	}
}

func (h *HTTPRoute) refs(r *report, x *index) {
	for i := range h.ParentRefs {
		h.parentRef(r, x, &h.ParentRefs[i], fmt.Sprintf("parentRefs[%d]", i))
	}
	for i := range h.Rules {
		for j := range h.Rules[i].BackendRefs {
			b := &h.Rules[i].BackendRefs[j]
			field := fmt.Sprintf("rules[%d].backendRefs[%d]", i, j)
			s := x.service(b.Kind, b.Namespace, b.Name)
			if s == nil {
				message, fix := x.missing(r, ID{b.Kind, b.Namespace, b.Name})
				r.add(CodeNoBackend, b.At, field, message+": its share is answered 500", fix)
			} else if s.Port(b.Port) == nil {
				r.add(CodeNoBackendPort, b.At, field+".port", fmt.Sprintf("Service %s has no port %d: its share is answered 500", s.Key(), b.Port), "write "+oneOf(s.portNumbers()))
			}
		}
	}
}

func (h *HTTPRoute) parentRef(r *report, x *index, p *ParentReference, field string) {
	m := &x.c.Metadata
	if p.Kind == "Gateway" {
		if p.Name != m.Name || p.Namespace != m.Namespace {
			fix := fmt.Sprintf("write name: %s", m.Name)
			if x.service("Service", p.Namespace, p.Name) != nil {
				fix = "write kind: Service; without it a Gateway is meant"
			}
			r.add(CodeNoParent, p.At, field, fmt.Sprintf("Gateway %s/%s is not this waypoint, which is %s/%s", p.Namespace, p.Name, m.Namespace, m.Name), fix)
		}
		return
	}
	s := x.service(p.Kind, p.Namespace, p.Name)
	switch {
	case s == nil:
		message, fix := x.missing(r, ID{p.Kind, p.Namespace, p.Name})
		r.add(CodeNoParent, p.At, field, message+": the route is not used for it", fix)
	case p.Port != 0 && s.Port(p.Port) == nil:
		r.add(CodeNoParentPort, p.At, field+".port", fmt.Sprintf("Service %s has no port %d: the route is not used for it", s.Key(), p.Port), "write "+oneOf(s.portNumbers()))
	case h.Namespace != p.Namespace && h.Namespace != m.Namespace:
		r.add(CodeConsumerRoute, p.At, field, fmt.Sprintf("a route in %s for a service of %s holds for clients in %s only, which is not supported in this version: the route is not used for it", h.Namespace, p.Namespace, h.Namespace), "put the route into namespace "+p.Namespace)
	}
}
