package config

import (
	"cmp"
	"fmt"
	"slices"
)

// Route is what every route begins with, whatever it routes.
type Route struct {
	Meta
	// The services it routes for, or the waypoint's Gateway for all of them.
	ParentRefs []ParentReference `json:"parentRefs" rule:"required,minItems=1,maxItems=32"`
	_          struct{}          `soon:"useDefaultGateways"`
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

// BackendRef is a service that a rule sends to.
type BackendRef struct {
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
	// Its share of what the rule takes, against the sum of all; 0 takes none.
	Weight *int32 `json:"weight,omitempty" rule:"min=0,max=1000000" default:"1"`

	At Pos `json:"-"`
}

// The API groups of what routes refer to.
const (
	groupCore    = ""
	groupIstio   = "networking.istio.io"
	groupGateway = "gateway.networking.k8s.io"
)

// A router is an object of one of the kinds of routes.
type router interface {
	Object
	base() *Route
	// views returns the rules without what only their kind has.
	views() []ruleView
	// takesAll reports whether some rule takes everything.
	takesAll() bool
	// signs writes each match of a rule so that equal matches are equal strings.
	signs(rule int) []sign
}

// A ruleView is a rule without what only its kind has.
type ruleView struct {
	name     string
	at       Pos
	backends []*BackendRef
}

// A sign is a match, and the field it is written in.
type sign struct{ field, text string }

func (rt *Route) base() *Route { return rt }

func (rt *Route) targets() []Target {
	var out []Target
	for i := range rt.ParentRefs {
		p := &rt.ParentRefs[i]
		out = append(out, Target{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name})
	}
	return out
}

// completeRoute gives references the route's namespace.
func completeRoute(o router) {
	rt := o.base()
	for i := range rt.ParentRefs {
		p := &rt.ParentRefs[i]
		p.Namespace = cmp.Or(p.Namespace, rt.Namespace)
	}
	for _, rule := range o.views() {
		for _, b := range rule.backends {
			b.Namespace = cmp.Or(b.Namespace, rt.Namespace)
		}
	}
}

// checkRoute checks what all kinds have.
func checkRoute(r *report, o router) {
	rt := o.base()
	type parent struct {
		kind, namespace, name string
		port                  int32
	}
	parents := make(map[parent]bool, len(rt.ParentRefs))
	for i := range rt.ParentRefs {
		p := &rt.ParentRefs[i]
		field := fmt.Sprintf("parentRefs[%d]", i)
		checkGroup(r, p.At, field, p.Kind, p.Group)
		id := parent{p.Kind, p.Namespace, p.Name, p.Port}
		if parents[id] {
			r.add(CodeRepeated, p.At, field, "the parent is listed twice", "remove one of them")
		}
		parents[id] = true
	}
	names := make(map[string]bool)
	for i, rule := range o.views() {
		field := fmt.Sprintf("rules[%d]", i)
		if rule.name != "" && names[rule.name] {
			r.add(CodeRepeated, rule.at, field+".name", fmt.Sprintf("two rules are named %q", rule.name), "rename one of them")
		}
		names[rule.name] = true
		for j, b := range rule.backends {
			checkGroup(r, b.At, fmt.Sprintf("%s.backendRefs[%d]", field, j), b.Kind, b.Group)
		}
	}
}

// maxMatches is how many matches all rules of a route may have together.
const maxMatches = 128

func checkMatches(r *report, n int) {
	if n > maxMatches {
		r.add(CodeRange, Pos{}, "rules", fmt.Sprintf("%d matches are more than the %d allowed", n, maxMatches), "split the route")
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

// refsOfRoute reports parents and backends that are not there. What becomes of a
// missing backend's share depends on what is routed.
func refsOfRoute(r *report, x *index, o router, share string) {
	rt := o.base()
	for i := range rt.ParentRefs {
		rt.parentRef(r, x, &rt.ParentRefs[i], fmt.Sprintf("parentRefs[%d]", i))
	}
	for i, rule := range o.views() {
		for j, b := range rule.backends {
			field := fmt.Sprintf("rules[%d].backendRefs[%d]", i, j)
			s := x.service(b.Kind, b.Namespace, b.Name)
			if s == nil {
				message, fix := x.missing(r, ID{b.Kind, b.Namespace, b.Name})
				r.add(CodeNoBackend, b.At, field, message+": its share is "+share, fix)
			} else if s.Port(b.Port) == nil {
				r.add(CodeNoBackendPort, b.At, field+".port", fmt.Sprintf("Service %s has no port %d: its share is %s", s.Key(), b.Port, share), "write "+oneOf(s.portNumbers()))
			}
		}
	}
}

// What becomes of the share of a backend that is not there.
const (
	answered500     = "answered 500"
	answeredUnavail = "answered UNAVAILABLE"
	refusedShare    = "refused"
)

func (rt *Route) parentRef(r *report, x *index, p *ParentReference, field string) {
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
	case rt.Namespace != p.Namespace && rt.Namespace != m.Namespace:
		r.add(CodeConsumerRoute, p.At, field, fmt.Sprintf("a route in %s for a service of %s holds for clients in %s only, which is not supported in this version: the route is not used for it", rt.Namespace, p.Namespace, rt.Namespace), "put the route into namespace "+p.Namespace)
	}
}

// Routes are the routes in force at one port of a service.
type Routes struct {
	HTTP []*HTTPRoute
	GRPC []*GRPCRoute
	TCP  []*TCPRoute
	TLS  []*TLSRoute
	// What has no valid version and may have been for such traffic; nil if
	// nothing. What no route in force takes must not pass in its stead.
	ClosedHTTP, ClosedTCP, ClosedTLS *Closed
}

// RoutesAt returns the routes in force at a port of a service, in document
// order: those that attach to it, and of those for the same traffic only the
// more specific kind (Gateway API, GEP-1294): GRPCRoutes before HTTPRoutes,
// TLSRoutes before TCPRoutes. Where the protocol is found out from the first
// bytes, TLSRoutes are for TLS and TCPRoutes for the rest.
func (c *Config) RoutesAt(s *Service, port *ServicePort) Routes {
	speaks := port.Speaks()
	out := Routes{
		HTTP: attachedTo(c, c.HTTPRoutes, s, port),
		GRPC: attachedTo(c, c.GRPCRoutes, s, port),
		TCP:  attachedTo(c, c.TCPRoutes, s, port),
		TLS:  attachedTo(c, c.TLSRoutes, s, port),
	}
	if len(out.GRPC) > 0 && outranks(kindGRPC, kindHTTP, speaks) {
		out.HTTP = nil
	}
	if len(out.TLS) > 0 && outranks(kindTLS, kindTCP, speaks) {
		out.TCP = nil
	}
	for i := range c.Closed {
		cl := &c.Closed[i]
		if cl.Role != RoleRoute || !slices.Contains(cl.Services, s.Key()) {
			continue
		}
		if cl.closes(kindHTTP, speaks) || cl.closes(kindGRPC, speaks) {
			out.ClosedHTTP = cmp.Or(out.ClosedHTTP, cl)
		}
		if cl.closes(kindTCP, speaks) {
			out.ClosedTCP = cmp.Or(out.ClosedTCP, cl)
		}
		if cl.closes(kindTLS, speaks) || cl.closes(kindTCP, speaks) {
			out.ClosedTLS = cmp.Or(out.ClosedTLS, cl)
		}
	}
	return out
}

// closes reports whether what failed closed may have been a route of the kind
// that is used at a port that speaks so. A kind of a later version may be any.
func (cl *Closed) closes(kind string, speaks AppProtocol) bool {
	known := slices.Contains([]string{kindHTTP, kindGRPC, kindTCP, kindTLS}, cl.By.Kind)
	return (cl.By.Kind == kind || !known) && routes(kind, speaks)
}

func attachedTo[R router](c *Config, list []R, s *Service, port *ServicePort) (out []R) {
	for _, o := range list {
		if routes(kindNameOf(o), port.Speaks()) && c.attaches(o.base(), s, port) {
			out = append(out, o)
		}
	}
	return out
}

// attaches reports whether a route is for a service's port. A route for the
// waypoint's Gateway is for every service. One in neither the service's nor the
// waypoint's namespace is a consumer's, and not for us.
func (c *Config) attaches(rt *Route, s *Service, port *ServicePort) bool {
	if rt.Namespace != s.Namespace && rt.Namespace != c.Metadata.Namespace {
		return false
	}
	for i := range rt.ParentRefs {
		p := &rt.ParentRefs[i]
		if p.Port != 0 && p.Port != port.Port {
			continue
		}
		gateway := p.Kind == "Gateway" && p.Name == c.Metadata.Name && p.Namespace == c.Metadata.Namespace
		if gateway || s.Is(p.Kind, p.Namespace, p.Name) {
			return true
		}
	}
	return false
}

// The kinds of routes.
const (
	kindHTTP = "HTTPRoute"
	kindGRPC = "GRPCRoute"
	kindTCP  = "TCPRoute"
	kindTLS  = "TLSRoute"
)

func kindNameOf(o router) string {
	switch o.(type) {
	case *GRPCRoute:
		return kindGRPC
	case *TCPRoute:
		return kindTCP
	case *TLSRoute:
		return kindTLS
	}
	return kindHTTP
}

// routes reports whether routes of a kind are ever used at a port that speaks
// so.
func routes(kind string, speaks AppProtocol) bool {
	switch kind {
	case kindTCP:
		return speaks == AppDetect || speaks == AppTCP || speaks == AppTLS
	case kindTLS:
		return speaks == AppDetect || speaks == AppTLS
	}
	return speaks == AppDetect || speaks == AppHTTP1 || speaks == AppHTTP2
}

// outranks reports whether routes of a kind put those of another out of force
// at a port that speaks so.
func outranks(kind, other string, speaks AppProtocol) bool {
	switch kind {
	case kindGRPC:
		return other == kindHTTP
	case kindTLS:
		return other == kindTCP && speaks == AppTLS
	}
	return false
}
