package snapshot

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/retry"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/route"
	"github.com/sandwich-mesh/sandwich/proxy/upstream"
)

// A rule is what a table finds: the routes to its backends, by weight.
type rule struct {
	routes  []*Route
	weights route.Weights
}

// pick chooses a route by weight.
func (f *rule) pick(random uint32) *Route {
	if len(f.routes) == 1 {
		return f.routes[0]
	}
	i, ok := f.weights.Pick(random)
	if !ok {
		return f.routes[0]
	}
	return f.routes[i]
}

// noFilters is the chain of a route without filters.
var noFilters = func() *filters.Chain {
	c, err := filters.NewChain(filters.RouteLevel)
	if err != nil {
		panic(err)
	}
	return c
}()

// routes builds what a service's port routes by: its HTTPRoutes, or if it has
// none everything to itself. Routes that are present and of which none matches
// mean 404, but not if one of them failed closed: then it is 500.
func (b *builder) routes(s *config.Service, port *config.ServicePort) *route.Table[*rule] {
	var rules []route.Rule[*rule]
	attached := false
	for _, h := range b.c.HTTPRoutes {
		if !b.attaches(h, s, port) {
			continue
		}
		attached = true
		for i := range h.Rules {
			rules = append(rules, b.rule(s, port, h, i))
		}
	}
	if cl := b.closedRoute(s); cl != nil {
		attached = true
		rules = append(rules, route.Rule[*rule]{Result: b.answer(s, port, fault.BadConfig, fmt.Errorf("%s has no valid version", cl.By))})
	}
	if !attached {
		return b.defaultRoute(portName(s, port), b.serviceBackend(s, port))
	}
	return b.table(rules)
}

// table builds a table. tryRoutes has seen to it that it can be built.
func (b *builder) table(rules []route.Rule[*rule]) *route.Table[*rule] {
	t, err := route.New(rules)
	if err != nil {
		panic(err)
	}
	return t
}

// defaultRoute sends everything to one backend, with the mesh's default retry.
func (b *builder) defaultRoute(name string, be *upstream.Backend) *route.Table[*rule] {
	r := &Route{
		Info:    &filters.RouteInfo{Service: name, Name: "default", Backend: be.Name(), Retry: retry.Default()},
		Chain:   noFilters,
		Backend: be,
	}
	return b.table([]route.Rule[*rule]{{Result: &rule{routes: []*Route{r}}}})
}

// answer is a rule that answers with a fault.
func (b *builder) answer(s *config.Service, port *config.ServicePort, k fault.Kind, why error) *rule {
	return &rule{routes: []*Route{{
		Info:  &filters.RouteInfo{Service: portName(s, port)},
		Chain: noFilters,
		Fault: fault.Wrap(k, fault.Local, why),
	}}}
}

// closedRoute returns what keeps the service's routes from being trusted.
func (b *builder) closedRoute(s *config.Service) *config.Closed {
	for i := range b.c.Closed {
		if cl := &b.c.Closed[i]; cl.Role == config.RoleRoute && has(cl.Services, s.Key()) {
			return cl
		}
	}
	return nil
}

// attaches reports whether a route is for a service's port. A route for the
// waypoint's Gateway is for every service. One in neither the service's nor the
// waypoint's namespace is a consumer's, and not for us.
func (b *builder) attaches(h *config.HTTPRoute, s *config.Service, port *config.ServicePort) bool {
	if h.Namespace != s.Namespace && h.Namespace != b.c.Metadata.Namespace {
		return false
	}
	for i := range h.ParentRefs {
		p := &h.ParentRefs[i]
		if p.Port != 0 && p.Port != port.Port {
			continue
		}
		gateway := p.Kind == "Gateway" && p.Name == b.c.Metadata.Name && p.Namespace == b.c.Metadata.Namespace
		if gateway || s.Is(p.Kind, p.Namespace, p.Name) {
			return true
		}
	}
	return false
}

// rule builds one rule of a route for a service's port.
func (b *builder) rule(s *config.Service, port *config.ServicePort, h *config.HTTPRoute, i int) route.Rule[*rule] {
	r := &h.Rules[i]
	out := &rule{}
	var shares []int32
	for j := range r.BackendRefs {
		ref := &r.BackendRefs[j]
		share := int32(1)
		if ref.Weight != nil {
			share = *ref.Weight
		}
		shares = append(shares, share)
		out.routes = append(out.routes, b.route(s, port, h, r, ref))
	}
	weights, err := route.NewWeights(shares)
	if _, any := weights.Pick(0); err != nil || !any {
		out = b.answer(s, port, fault.NoBackend, fmt.Errorf("rule %d of HTTPRoute %s has no backend with a weight", i, h.Key()))
	} else {
		out.weights = weights
	}
	for _, one := range out.routes {
		describe(one.Info, h, i)
	}
	return route.Rule[*rule]{Matches: matches(r), Result: out}
}

func describe(info *filters.RouteInfo, h *config.HTTPRoute, i int) {
	info.Name = h.Key().String()
	info.Rule = h.Rules[i].Name
	if info.Rule == "" {
		info.Rule = fmt.Sprint(i)
	}
}

// route builds a rule with one of its backends.
func (b *builder) route(s *config.Service, port *config.ServicePort, h *config.HTTPRoute, r *config.HTTPRouteRule, ref *config.HTTPBackendRef) *Route {
	out := &Route{Chain: noFilters, Info: &filters.RouteInfo{
		Service:    portName(s, port),
		Backend:    fmt.Sprintf("%s/%s:%d", ref.Namespace, ref.Name, ref.Port),
		Retry:      policy(r.Retry),
		Timeout:    duration(r.Timeouts.Request),
		TryTimeout: duration(r.Timeouts.BackendRequest),
	}}
	target, targetPort := b.find(ref)
	if target == nil {
		out.Fault = fault.Wrap(fault.NoBackend, fault.Local, fmt.Errorf("backend %s does not exist", out.Info.Backend))
		return out
	}
	out.Backend = b.serviceBackend(target, targetPort)
	if len(r.Filters)+len(ref.Filters) > 0 {
		fb := b.filterBuilder(filters.RouteLevel)
		if err := addFilters(fb, h, r.Filters, ref.Filters); err != nil {
			_ = fb.Discard()
			out.Fault = fault.Wrap(fault.BadConfig, fault.Local, err)
			return out
		}
		out.Chain = b.chain(fb, filters.RouteLevel)
	}
	return out
}

// find returns the service and the port that a backend reference means.
func (b *builder) find(ref *config.HTTPBackendRef) (*config.Service, *config.ServicePort) {
	s := b.services[config.Key{Namespace: ref.Namespace, Name: ref.Name}]
	for i := 0; s == nil && ref.Kind == "ServiceEntry" && i < len(b.c.Services); i++ {
		if one := b.c.Services[i]; one.Is(ref.Kind, ref.Namespace, ref.Name) {
			s = one
		}
	}
	if s == nil {
		return nil, nil
	}
	port := s.Port(ref.Port)
	if port == nil {
		return nil, nil
	}
	return s, port
}

// addFilters builds the filters of a rule, then those of a backend.
func addFilters(fb *filters.Builder, h *config.HTTPRoute, lists ...[]config.HTTPRouteFilter) error {
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
			if err := fb.Add(string(f.Type), h.Key().String(), filters.NewSpec(json.RawMessage(raw))); err != nil {
				return err
			}
		}
	}
	return nil
}

func duration(d *config.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(*d)
}

// policy builds the retry policy of a rule; the document's checks have seen to
// the numbers.
func policy(r *config.HTTPRouteRetry) filters.RetryPolicy {
	if r == nil {
		return retry.Default()
	}
	var s retry.Settings
	if r.Attempts != nil {
		n := int(*r.Attempts)
		s.Attempts = &n
	}
	for _, c := range r.Codes {
		s.Codes = append(s.Codes, int(c))
	}
	if r.Backoff != nil {
		d := time.Duration(*r.Backoff)
		s.Backoff = &d
	}
	p, err := retry.New(s)
	if err != nil {
		return retry.Default()
	}
	return p
}

// matches turns a rule's conditions into the table's.
func matches(r *config.HTTPRouteRule) []route.Match {
	var out []route.Match
	for i := range r.Matches {
		m := &r.Matches[i]
		one := route.Match{Method: m.Method}
		if m.Path != nil {
			one.Path = route.Path{Type: pathTypes[m.Path.Type], Value: m.Path.Value}
		}
		for _, h := range m.Headers {
			one.Headers = append(one.Headers, route.Value{Name: h.Name, Value: h.Value, Regex: h.Type == config.MatchRegularExpression})
		}
		for _, q := range m.QueryParams {
			one.Query = append(one.Query, route.Value{Name: q.Name, Value: q.Value, Regex: q.Type == config.MatchRegularExpression})
		}
		out = append(out, one)
	}
	return out
}

// pathTypes is never written.
var pathTypes = map[config.PathMatchType]route.PathType{
	config.PathMatchExact:             route.Exact,
	config.PathMatchPathPrefix:        route.Prefix,
	config.PathMatchRegularExpression: route.Regex,
}

// tryRoutes finds the routes that cannot be compiled although they decode: what
// only the packages below know to be wrong.
func tryRoutes(c *config.Config, env Env) (bad []config.ID, problems []config.Problem) {
	for _, h := range c.HTTPRoutes {
		field, err := tryRoute(h, env)
		if err == nil {
			continue
		}
		id := config.ID{Kind: "HTTPRoute", Namespace: h.Namespace, Name: h.Name}
		bad = append(bad, id)
		problems = append(problems, config.Problem{
			Code: config.CodeCompile, File: h.File, Line: int(h.At.Line), Column: int(h.At.Column),
			Object: id, Origin: h.Origin, Field: field, Message: err.Error(),
			Fix: "mend it; until then its last good version is in force, or its requests are answered 500",
		})
	}
	return bad, problems
}

func tryRoute(h *config.HTTPRoute, env Env) (field string, err error) {
	for i := range h.Rules {
		r := &h.Rules[i]
		field = fmt.Sprintf("rules[%d]", i)
		ms := matches(r)
		for j := range ms {
			if err := ms[j].Check(); err != nil {
				return fmt.Sprintf("%s.matches[%d]", field, j), err
			}
		}
		lists := [][]config.HTTPRouteFilter{r.Filters}
		for j := range r.BackendRefs {
			lists = append(lists, r.BackendRefs[j].Filters)
		}
		fb := filters.NewBuilder(filters.Env{Level: filters.RouteLevel, Registry: env.Registry, Shared: env.Shared})
		err := addFilters(fb, h, lists...)
		_ = fb.Discard()
		if err != nil {
			return field, err
		}
	}
	return "", nil
}
