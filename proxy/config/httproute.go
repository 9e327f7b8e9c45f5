package config

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// HTTPRoute is a Gateway API v1 HTTPRoute: its spec's fields beside its name.
type HTTPRoute struct {
	Route
	// Accepted for pasted objects. The destination picks the service, never the Host.
	Hostnames []string `json:"hostnames,omitempty" rule:"maxItems=16,format=wildcardHostname"`
	// The rules. The most specific match wins, not the first.
	Rules []HTTPRouteRule `json:"rules" rule:"required,minItems=1,maxItems=16"`
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

// HTTPBackendRef is a service that requests go to.
type HTTPBackendRef struct {
	BackendRef
	// What is done to the requests that go here, after the rule's filters.
	Filters []HTTPRouteFilter `json:"filters,omitempty" rule:"maxItems=16"`
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

func (h *HTTPRoute) views() []ruleView {
	out := make([]ruleView, len(h.Rules))
	for i := range h.Rules {
		rule := &h.Rules[i]
		out[i] = ruleView{name: rule.Name, at: rule.At}
		for j := range rule.BackendRefs {
			out[i].backends = append(out[i].backends, &rule.BackendRefs[j].BackendRef)
		}
	}
	return out
}

func (h *HTTPRoute) complete(*Config) {
	completeRoute(h)
	for i := range h.Rules {
		rule := &h.Rules[i]
		for j := range rule.Matches {
			if m := &rule.Matches[j]; m.Path == nil {
				m.Path = &HTTPPathMatch{Type: PathMatchPathPrefix, Value: "/", At: m.At}
			}
		}
	}
}

func (h *HTTPRoute) check(r *report) {
	checkRoute(r, h)
	matches := 0
	for i := range h.Rules {
		matches += len(h.Rules[i].Matches)
		h.Rules[i].check(r, fmt.Sprintf("rules[%d]", i))
	}
	checkMatches(r, matches)
}

func (h *HTTPRoute) refs(r *report, x *index) { refsOfRoute(r, x, h, answered500) }

func (rule *HTTPRouteRule) check(r *report, field string) {
	for i := range rule.Matches {
		rule.Matches[i].check(r, fmt.Sprintf("%s.matches[%d]", field, i))
	}
	checkFilters(r, rule.Filters, field)
	for i := range rule.BackendRefs {
		checkFilters(r, rule.BackendRefs[i].Filters, fmt.Sprintf("%s.backendRefs[%d]", field, i))
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
	checkHeaders(r, m.Headers, field)
	seen := make(map[string]bool, len(m.QueryParams))
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

// checkHeaders checks the conditions of a match on header fields.
func checkHeaders(r *report, list []HTTPHeaderMatch, field string) {
	seen := make(map[string]bool, len(list))
	for i := range list {
		h := &list[i]
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
