package snapshot

import (
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

// routes builds what a service's port routes by: the routes in force at it, or
// where it has none everything to itself. Routes that are present and of which
// none matches mean 404 or a refusal, but not if one of them failed closed: then
// that is told.
func (b *builder) routes(v *Service, s *config.Service, port *config.ServicePort) {
	at := b.attached.At(s, port)
	own := b.defaultRule(v.Name, b.serviceBackend(s, port), speaks(port))
	own.routes[0].Info.To = v.Info
	v.http = b.requests(v.Name, &at, own)
	v.requests = len(at.HTTP)+len(at.GRPC) > 0
	v.tcp = own
	switch {
	case len(at.TCP) > 0: // there is nothing to choose by: the first rule takes all
		v.tcp = b.rule(v.Name, &streamSources("TCPRoute", &at.TCP[0].Meta, at.TCP[0].Rules)[0])
	case at.ClosedTCP != nil:
		v.tcp = closedRule(v.Name, at.ClosedTCP)
	}
	if len(at.TLS) == 0 && (at.ClosedTLS == nil || len(at.TCP) > 0) {
		return
	}
	v.tls = new(route.Hosts[*rule])
	for _, t := range at.TLS {
		one := b.rule(v.Name, &streamSources("TLSRoute", &t.Meta, t.Rules)[0])
		for _, name := range t.Hostnames {
			v.tls.Add(name, one)
		}
		if len(t.Hostnames) == 0 {
			v.tls.Add("", one)
		}
	}
	if at.ClosedTLS != nil {
		v.tls.Add("", closedRule(v.Name, at.ClosedTLS))
	}
}

// requests builds the table for HTTP requests and gRPC calls.
func (b *builder) requests(service string, at *config.Routes, own *rule) *route.Table[*rule] {
	var rules []route.Rule[*rule]
	for _, list := range [][]source{sources(at.HTTP, httpSources), sources(at.GRPC, grpcSources)} {
		for i := range list {
			rules = append(rules, route.Rule[*rule]{Matches: list[i].matches, Result: b.rule(service, &list[i])})
		}
	}
	if at.ClosedHTTP != nil {
		rules = append(rules, route.Rule[*rule]{Result: closedRule(service, at.ClosedHTTP)})
	}
	if len(rules) == 0 {
		rules = append(rules, route.Rule[*rule]{Result: own})
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

// defaultRule sends everything to one backend, with the mesh's default retry.
func (b *builder) defaultRule(name string, be *upstream.Backend, speaks Protocol) *rule {
	return &rule{routes: []*Route{{
		Info:    &filters.RouteInfo{Service: name, Name: "default", Backend: be.Name(), Retry: retry.Default()},
		Chain:   noFilters,
		Backend: be,
		Speaks:  speaks,
	}}}
}

// answer is a rule that answers with a fault.
func answer(service string, k fault.Kind, why error) *rule {
	return &rule{routes: []*Route{{
		Info:  &filters.RouteInfo{Service: service},
		Chain: noFilters,
		Fault: fault.Wrap(k, fault.Local, why),
	}}}
}

// closedRule answers for a route that has no valid version.
func closedRule(service string, by *config.Closed) *rule {
	return answer(service, fault.BadConfig, fmt.Errorf("%s has no valid version", by.By))
}

// rule builds one rule of a route for a service's port.
func (b *builder) rule(service string, src *source) *rule {
	out := &rule{}
	var shares []int32
	for i := range src.backends {
		share := int32(1)
		if w := src.backends[i].ref.Weight; w != nil {
			share = *w
		}
		shares = append(shares, share)
		out.routes = append(out.routes, b.route(service, src, &src.backends[i]))
	}
	weights, err := route.NewWeights(shares)
	if _, any := weights.Pick(0); err != nil || !any {
		out = answer(service, src.noBackend, fmt.Errorf("%s of %s %s has no backend with a weight", src.field, src.kind, src.meta.Key()))
	} else {
		out.weights = weights
	}
	for _, one := range out.routes {
		one.Info.Name, one.Info.Rule = src.meta.Key().String(), src.name
	}
	return out
}

// route builds a rule with one of its backends.
func (b *builder) route(service string, src *source, to *sourceBackend) *Route {
	out := &Route{Chain: noFilters, Info: &filters.RouteInfo{
		Service:    service,
		Backend:    fmt.Sprintf("%s/%s:%d", to.ref.Namespace, to.ref.Name, to.ref.Port),
		Retry:      policy(src.retry),
		Timeout:    duration(src.timeouts.Request),
		TryTimeout: duration(src.timeouts.BackendRequest),
	}}
	target, port := b.find(to.ref)
	if target == nil {
		out.Fault = fault.Wrap(src.noBackend, fault.Local, fmt.Errorf("backend %s does not exist", out.Info.Backend))
		return out
	}
	out.Backend, out.Speaks = b.serviceBackend(target, port), speaks(port)
	out.Info.To = b.info(target, port)
	if len(src.filters)+len(to.filters) > 0 {
		fb := b.filterBuilder(filters.RouteLevel)
		if err := addFilters(fb, src.meta, src.filters, to.filters); err != nil {
			_ = fb.Discard()
			out.Fault = fault.Wrap(fault.BadConfig, fault.Local, err)
			return out
		}
		out.Chain = b.chain(fb, filters.RouteLevel)
	}
	return out
}

// find returns the service and the port that a backend reference means.
func (b *builder) find(ref *config.BackendRef) (*config.Service, *config.ServicePort) {
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
