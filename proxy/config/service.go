package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Service is a destination: what clients connect to, or a backend of routes.
type Service struct {
	Meta
	// The names by which a client may ask for it; the first is its own. The Kubernetes name when left out.
	Hostnames []string `json:"hostnames,omitempty" rule:"maxItems=32,format=hostname" aka:"hostname,hosts"`
	// Its virtual addresses. Without one it is only a backend.
	Addresses []netip.Addr `json:"addresses,omitempty" rule:"maxItems=64" aka:"address,clusterIP,vip"`
	// The ports it is served on.
	Ports []ServicePort `json:"ports" rule:"required,minItems=1,maxItems=100"`
	// The workloads behind it.
	Endpoints []Endpoint `json:"endpoints,omitempty" rule:"maxItems=10000"`
	// Identities to accept from its endpoints beside those of their workloads.
	SubjectAltNames []string `json:"subjectAltNames,omitempty" rule:"maxItems=64,format=text"`
	// How an endpoint is picked.
	LoadBalancer LoadBalancer `json:"loadBalancer,omitzero"`
}

// ServicePort is one port of a service.
type ServicePort struct {
	// A name, for messages. Like http-web it says the protocol if appProtocol does not.
	Name string `json:"name,omitempty" rule:"format=label"`
	// The port that clients use.
	Port int32 `json:"port" rule:"required,min=1,max=65535"`
	// The port of its endpoints; the same when left out.
	TargetPort int32 `json:"targetPort,omitempty" rule:"min=1,max=65535"`
	// What is spoken: http, http2, grpc, kubernetes.io/h2c, kubernetes.io/ws, tcp, tls. Found out from the first bytes when left out.
	AppProtocol string `json:"appProtocol,omitempty" rule:"format=text,max=253"`

	At Pos `json:"-"`
}

// Endpoint is one member of a service: a workload of the document, or an
// address.
type Endpoint struct {
	// The workload's name.
	Workload string `json:"workload,omitempty" rule:"format=name"`
	// The workload's namespace; the service's when left out.
	Namespace string `json:"namespace,omitempty" rule:"format=label"`
	// An IP address, in place of a workload's name.
	Address netip.Addr `json:"address,omitzero"`
	// How an address without a workload is reached. TCP is plain text and is counted.
	Protocol Protocol `json:"protocol,omitempty" rule:"enum=HBONE|TCP"`
	// Ports that differ from the service's target ports.
	Ports []EndpointPort `json:"ports,omitempty" rule:"maxItems=100"`

	At Pos `json:"-"`
}

// EndpointPort is one endpoint's own target for a port of its service.
type EndpointPort struct {
	// The port of the service.
	Port int32 `json:"port" rule:"required,min=1,max=65535"`
	// The endpoint's port.
	TargetPort int32 `json:"targetPort" rule:"required,min=1,max=65535"`
}

// LoadBalancer says how an endpoint is picked.
type LoadBalancer struct {
	// The algorithm, as in DestinationRule.
	Simple Simple   `json:"simple,omitempty" rule:"enum=LEAST_REQUEST|ROUND_ROBIN,soon=RANDOM|PASSTHROUGH" default:"LEAST_REQUEST"`
	_      struct{} `soon:"consistentHash"`
	_      struct{} `soon:"localityLbSetting"`
	_      struct{} `soon:"warmup"`
}

// Simple is a load balancing algorithm.
type Simple string

// Load balancing algorithms.
const (
	LeastRequest Simple = "LEAST_REQUEST"
	RoundRobin   Simple = "ROUND_ROBIN"
)

// Protocol is how a workload is reached.
type Protocol string

// Protocols of workloads.
const (
	ProtocolHBONE Protocol = "HBONE" // a tunnel, mutual TLS
	ProtocolTCP   Protocol = "TCP"   // plain text
)

// AppProtocol is what is spoken on a port.
type AppProtocol uint8

// Application protocols.
const (
	AppDetect AppProtocol = iota // found out from the first bytes
	AppHTTP1
	AppHTTP2
	AppTCP // opaque
	AppTLS // the application's own TLS: opaque but for the name asked for
)

// appProtocols are the words for them: Kubernetes's (KEP-3726), Istio's, which
// port names use as well, and IANA's for what clients of meshes speak. A server
// of mysql, smtp or ssh speaks first.
var appProtocols = map[string]AppProtocol{
	"http": AppHTTP1, "http1": AppHTTP1, "http11": AppHTTP1, "kubernetes.io/ws": AppHTTP1,
	"http2": AppHTTP2, "h2c": AppHTTP2, "kubernetes.io/h2c": AppHTTP2, "grpc": AppHTTP2, "grpc-web": AppHTTP2,
	"tls": AppTLS, "https": AppTLS, "kubernetes.io/wss": AppTLS, "ldaps": AppTLS, "amqps": AppTLS, "secure-mqtt": AppTLS,
	"tcp": AppTCP, "mongo": AppTCP, "mongodb": AppTCP, "redis": AppTCP, "mysql": AppTCP,
	"postgres": AppTCP, "postgresql": AppTCP, "amqp": AppTCP, "mqtt": AppTCP, "kafka": AppTCP, "nats": AppTCP,
	"ldap": AppTCP, "smtp": AppTCP, "ssh": AppTCP, "memcache": AppTCP, "memcached": AppTCP,
}

// Speaks returns what is spoken on the port: by appProtocol, else by what its
// name begins with, as Istio has it.
func (p *ServicePort) Speaks() AppProtocol {
	if p.AppProtocol != "" {
		return appProtocols[strings.ToLower(p.AppProtocol)]
	}
	if app, ok := appProtocols[p.Name]; ok {
		return app
	}
	word, _, _ := strings.Cut(p.Name, "-")
	return appProtocols[word]
}

// Port returns the service's port of that number, or nil.
func (s *Service) Port(number int32) *ServicePort {
	for i := range s.Ports {
		if s.Ports[i].Port == number {
			return &s.Ports[i]
		}
	}
	return nil
}

// Is reports whether a reference means the service. A ServiceEntry is one of our
// services: by its own name, or by that of its origin.
func (s *Service) Is(kind, namespace, name string) bool {
	if s.Namespace == namespace && s.Name == name {
		return kind == "Service" || kind == "ServiceEntry"
	}
	o := s.Origin
	return kind == "ServiceEntry" && o != nil && o.Kind == kind && o.Namespace == namespace && o.Name == name
}

// Target returns the port to dial at the endpoint for a port of its service.
func (e *Endpoint) Target(p *ServicePort) int32 {
	for i := range e.Ports {
		if e.Ports[i].Port == p.Port {
			return e.Ports[i].TargetPort
		}
	}
	return p.TargetPort
}

func (s *Service) complete(*Config) {
	if len(s.Hostnames) == 0 {
		s.Hostnames = []string{s.Name + "." + s.Namespace + "." + clusterDomain}
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		p.TargetPort = cmp.Or(p.TargetPort, p.Port)
	}
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; e.Workload != "" {
			e.Namespace = cmp.Or(e.Namespace, s.Namespace)
		}
	}
}

func (s *Service) targets() []Target { return nil }

func (s *Service) check(r *report) {
	ports := make(map[int32]bool, len(s.Ports))
	names := make(map[string]bool, len(s.Ports))
	for i := range s.Ports {
		p := &s.Ports[i]
		field := fmt.Sprintf("ports[%d]", i)
		if ports[p.Port] {
			r.add(CodeRepeated, p.At, field, fmt.Sprintf("port %d is listed twice", p.Port), "remove one of them")
		}
		if p.Name != "" && names[p.Name] {
			r.add(CodeRepeated, p.At, field, fmt.Sprintf("two ports are named %q", p.Name), "rename one of them")
		}
		ports[p.Port], names[p.Name] = true, true
	}
	for i, san := range s.SubjectAltNames {
		if !strings.HasPrefix(san, "spiffe://") {
			r.add(CodeFormat, Pos{}, fmt.Sprintf("subjectAltNames[%d]", i), fmt.Sprintf("%q is not a SPIFFE ID", short(san)), "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")
		}
	}
	members := make(map[endpointID]bool, len(s.Endpoints))
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		field := fmt.Sprintf("endpoints[%d]", i)
		s.checkEndpoint(r, e, field)
		id := endpointID{e.Workload, e.Namespace, e.Address}
		if members[id] {
			r.add(CodeRepeated, e.At, field, "the endpoint is listed twice", "remove one of them; a workload's weight gives it a larger share")
		}
		members[id] = true
	}
}

// endpointID is what tells one endpoint of a service from another.
type endpointID struct {
	workload, namespace string
	address             netip.Addr
}

func (s *Service) checkEndpoint(r *report, e *Endpoint, field string) {
	switch {
	case e.Workload == "" && !e.Address.IsValid():
		r.add(CodeExclusive, e.At, field, "it names neither a workload nor an address", "write workload: NAME or address: IP")
	case e.Workload != "" && e.Address.IsValid():
		r.add(CodeExclusive, e.At, field, "it names a workload and an address", "remove one of them")
	case e.Workload != "" && e.Protocol != "":
		r.add(CodeExclusive, e.At, field+".protocol", "how a workload is reached is said at the workload", "move protocol to workload "+e.Workload)
	case e.Workload == "" && e.Namespace != "":
		r.add(CodeExclusive, e.At, field+".namespace", "an address has no namespace", "remove it")
	}
	seen := make(map[int32]bool, len(e.Ports))
	for i, p := range e.Ports {
		at := fmt.Sprintf("%s.ports[%d]", field, i)
		if seen[p.Port] {
			r.add(CodeRepeated, e.At, at, fmt.Sprintf("port %d is listed twice", p.Port), "remove one of them")
		}
		seen[p.Port] = true
	}
}

func (s *Service) portNumbers() []string {
	var out []string
	for i := range s.Ports {
		out = append(out, strconv.Itoa(int(s.Ports[i].Port)))
	}
	return out
}

func (s *Service) refs(r *report, x *index) {
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		field := fmt.Sprintf("endpoints[%d]", i)
		for j, p := range e.Ports {
			if s.Port(p.Port) == nil {
				r.add(CodeEndpointPort, e.At, fmt.Sprintf("%s.ports[%d]", field, j), fmt.Sprintf("the service has no port %d", p.Port), "write "+oneOf(s.portNumbers()))
			}
		}
		if e.Workload != "" {
			if x.workloads[Key{e.Namespace, e.Workload}] == nil {
				message, fix := x.missing(r, ID{"Workload", e.Namespace, e.Workload})
				r.add(CodeNoWorkload, e.At, field+".workload", message, fix)
			}
			continue
		}
		if e.Protocol != ProtocolTCP && x.byAddress[e.Address] == nil && len(s.SubjectAltNames) == 0 {
			r.add(CodeNoIdentity, e.At, field+".address",
				fmt.Sprintf("nothing says which identity the tunnel to %s must show", e.Address),
				"add a workload with this address, or write protocol: TCP for plain text")
		}
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		for _, a := range s.Addresses {
			at := netip.AddrPortFrom(a, uint16(p.Port))
			if first := x.addresses[at]; first != s {
				r.add(CodeAddressTaken, Pos{}, "addresses", fmt.Sprintf("%s belongs to Service %s (%s:%d) already", at, first.Key(), first.File, first.At.Line), "give each service an address of its own")
			}
		}
		for _, h := range s.Hostnames {
			if first := x.hostnames[hostPort{h, p.Port}]; first != s {
				r.add(CodeHostnameTaken, Pos{}, "hostnames", fmt.Sprintf("%s:%d belongs to Service %s (%s:%d) already", h, p.Port, first.Key(), first.File, first.At.Line), "give each service a hostname of its own")
			}
		}
	}
}

func (s *Service) lint(r *report, x *index) {
	if len(s.Endpoints) == 0 && !x.onlyRouted(s) {
		r.add(CodeNoEndpoints, Pos{}, "endpoints", "the service has no endpoints: it answers 503", "write endpoints: [{workload: NAME}]")
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		if _, ok := appProtocols[strings.ToLower(p.AppProtocol)]; !ok && p.AppProtocol != "" {
			r.add(CodeUnknownProtocol, p.At, fmt.Sprintf("ports[%d].appProtocol", i), fmt.Sprintf("%q is not known: the protocol is found out from the first bytes", short(p.AppProtocol)), "write http, http2, grpc, tcp or tls")
		}
	}
}
