package snapshot

import (
	"encoding/json"
	"fmt"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/route"
)

// A source is one rule of a route of whatever kind, as written.
type source struct {
	kind     string
	meta     *config.Meta
	field    string // rules[1]
	name     string // for logs and metrics
	matches  []route.Match
	filters  []config.HTTPRouteFilter
	backends []sourceBackend
	timeouts config.HTTPRouteTimeouts
	retry    *config.HTTPRouteRetry
	// noBackend answers for a backend that does not exist.
	noBackend fault.Kind
}

// A sourceBackend is a backend of a rule, as written.
type sourceBackend struct {
	ref     *config.BackendRef
	filters []config.HTTPRouteFilter
}

// sources returns the rules of routes, in their order.
func sources[R any](routes []R, rules func(R) []source) (out []source) {
	for _, r := range routes {
		out = append(out, rules(r)...)
	}
	return out
}

func newSource(kind string, meta *config.Meta, i int, name string, noBackend fault.Kind) source {
	if name == "" {
		name = fmt.Sprint(i)
	}
	return source{kind: kind, meta: meta, field: fmt.Sprintf("rules[%d]", i), name: name, noBackend: noBackend}
}

func httpSources(h *config.HTTPRoute) (out []source) {
	for i := range h.Rules {
		r := &h.Rules[i]
		s := newSource("HTTPRoute", &h.Meta, i, r.Name, fault.NoBackend)
		s.filters, s.timeouts, s.retry = r.Filters, r.Timeouts, r.Retry
		for j := range r.Matches {
			s.matches = append(s.matches, requestMatch(&r.Matches[j]))
		}
		for j := range r.BackendRefs {
			ref := &r.BackendRefs[j]
			s.backends = append(s.backends, sourceBackend{&ref.BackendRef, ref.Filters})
		}
		out = append(out, s)
	}
	return out
}

// grpcSources are rules that match what is called. Who cannot be reached is
// UNAVAILABLE (Gateway API), hence another fault than for HTTP.
func grpcSources(g *config.GRPCRoute) (out []source) {
	for i := range g.Rules {
		r := &g.Rules[i]
		s := newSource("GRPCRoute", &g.Meta, i, r.Name, fault.NoCallBackend)
		s.filters = config.HTTPFilters(r.Filters)
		for j := range r.Matches {
			s.matches = append(s.matches, callMatch(&r.Matches[j]))
		}
		for j := range r.BackendRefs {
			ref := &r.BackendRefs[j]
			s.backends = append(s.backends, sourceBackend{&ref.BackendRef, config.HTTPFilters(ref.Filters)})
		}
		out = append(out, s)
	}
	return out
}

// streamSources are the rules of a TCPRoute or a TLSRoute.
func streamSources(kind string, meta *config.Meta, rules []config.StreamRouteRule) (out []source) {
	for i := range rules {
		s := newSource(kind, meta, i, rules[i].Name, fault.NoBackend)
		for j := range rules[i].BackendRefs {
			s.backends = append(s.backends, sourceBackend{ref: &rules[i].BackendRefs[j]})
		}
		out = append(out, s)
	}
	return out
}

func requestMatch(m *config.HTTPRouteMatch) route.Match {
	out := route.Match{Method: m.Method, Headers: headerValues(m.Headers)}
	if m.Path != nil {
		out.Path = route.Path{Type: pathTypes[m.Path.Type], Value: m.Path.Value}
	}
	for _, q := range m.QueryParams {
		out.Query = append(out.Query, route.Value{Name: q.Name, Value: q.Value, Regex: q.Type == config.MatchRegularExpression})
	}
	return out
}

func callMatch(m *config.GRPCRouteMatch) route.Match {
	out := route.Match{Call: &route.Call{}, Headers: headerValues(m.Headers)}
	if m.Method != nil {
		*out.Call = route.Call{Service: m.Method.Service, Method: m.Method.Method, Regex: m.Method.Type == config.MatchRegularExpression}
	}
	return out
}

func headerValues(list []config.HTTPHeaderMatch) (out []route.Value) {
	for _, h := range list {
		out = append(out, route.Value{Name: h.Name, Value: h.Value, Regex: h.Type == config.MatchRegularExpression})
	}
	return out
}

// pathTypes is never written.
var pathTypes = map[config.PathMatchType]route.PathType{
	config.PathMatchExact:             route.Exact,
	config.PathMatchPathPrefix:        route.Prefix,
	config.PathMatchRegularExpression: route.Regex,
}

// addFilters builds the filters of a rule, then those of a backend.
func addFilters(fb *filters.Builder, meta *config.Meta, lists ...[]config.HTTPRouteFilter) error {
	for _, list := range lists {
		for i := range list {
			f := &list[i]
			settings := f.RequestHeaderModifier
			if f.Type == config.FilterResponseHeaderModifier {
				settings = f.ResponseHeaderModifier
			}
			raw, err := json.Marshal(settings)
			if err != nil {
				return err
			}
			if err := fb.Add(string(f.Type), meta.Key().String(), filters.NewSpec(json.RawMessage(raw))); err != nil {
				return err
			}
		}
	}
	return nil
}

// tryRoutes finds the routes that cannot be compiled although they decode: what
// only the packages below know to be wrong. TCPRoutes and TLSRoutes have nothing
// that could be.
func tryRoutes(c *config.Config, env Env) (bad []config.ID, problems []config.Problem) {
	try := func(kind string, m *config.Meta, rules []source) {
		field, err := tryRoute(rules, env)
		if err == nil {
			return
		}
		id := config.ID{Kind: kind, Namespace: m.Namespace, Name: m.Name}
		bad = append(bad, id)
		problems = append(problems, config.Problem{
			Code: config.CodeCompile, File: m.File, Line: int(m.At.Line), Column: int(m.At.Column),
			Object: id, Origin: m.Origin, Field: field, Message: err.Error(),
			Fix: "mend it; until then its last good version is in force, or its requests are answered 500",
		})
	}
	for _, h := range c.HTTPRoutes {
		try("HTTPRoute", &h.Meta, httpSources(h))
	}
	for _, g := range c.GRPCRoutes {
		try("GRPCRoute", &g.Meta, grpcSources(g))
	}
	return bad, problems
}

func tryRoute(rules []source, env Env) (field string, err error) {
	for i := range rules {
		r := &rules[i]
		for j := range r.matches {
			if err := r.matches[j].Check(); err != nil {
				return fmt.Sprintf("%s.matches[%d]", r.field, j), err
			}
		}
		lists := [][]config.HTTPRouteFilter{r.filters}
		for j := range r.backends {
			lists = append(lists, r.backends[j].filters)
		}
		fb := filters.NewBuilder(filters.Env{Level: filters.RouteLevel, Registry: env.Registry, Shared: env.Shared})
		err := addFilters(fb, r.meta, lists...)
		_ = fb.Discard()
		if err != nil {
			return r.field, err
		}
	}
	return "", nil
}
