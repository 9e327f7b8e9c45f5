package config

import (
	"fmt"
	"net/netip"
)

// index finds the objects of one document by what others call them.
type index struct {
	c         *Config
	services  map[Key]*Service
	entries   map[Key]*Service // by the ServiceEntry they were made from
	workloads map[Key]*Workload
	byAddress map[netip.Addr]*Workload // the first that has it
	broken    map[ID]bool
	addresses map[netip.AddrPort]*Service // who is served there: the first that wants it
	hostnames map[hostPort]*Service

	routes   map[Key][]attached // by service, in document order; for lints
	backends map[Key]bool       // services that a route sends to
	matches  map[string]matchAt // who has a match first
}

type hostPort struct {
	host string
	port int32
}

func newIndex(c *Config) *index {
	x := &index{
		c:         c,
		services:  make(map[Key]*Service, len(c.Services)),
		entries:   make(map[Key]*Service),
		workloads: make(map[Key]*Workload, len(c.Workloads)),
		byAddress: make(map[netip.Addr]*Workload, len(c.Workloads)),
		broken:    make(map[ID]bool, len(c.Broken)),
		addresses: make(map[netip.AddrPort]*Service, len(c.Services)),
		hostnames: make(map[hostPort]*Service, len(c.Services)),
	}
	for _, s := range c.Services {
		x.services[s.Key()] = s
		if o := s.Origin; o != nil && o.Kind == "ServiceEntry" {
			setFirst(x.entries, Key{o.Namespace, o.Name}, s)
		}
		for i := range s.Ports {
			port := s.Ports[i].Port
			for _, a := range s.Addresses {
				setFirst(x.addresses, netip.AddrPortFrom(a, uint16(port)), s)
			}
			for _, h := range s.Hostnames {
				setFirst(x.hostnames, hostPort{h, port}, s)
			}
		}
	}
	for _, w := range c.Workloads {
		x.workloads[w.Key()] = w
		for _, a := range w.Addresses {
			setFirst(x.byAddress, a, w)
		}
	}
	for i := range c.Broken {
		x.broken[c.Broken[i].ID] = true
	}
	return x
}

func setFirst[K comparable, V any](m map[K]V, k K, v V) {
	if _, ok := m[k]; !ok {
		m[k] = v
	}
}

// service returns the service that a reference means. A ServiceEntry is one of
// our services: by its own name, or by that of its origin.
func (x *index) service(kind, namespace, name string) *Service {
	if s := x.services[Key{namespace, name}]; s != nil || kind != "ServiceEntry" {
		return s
	}
	return x.entries[Key{namespace, name}]
}

// missing says that a reference leads nowhere, and what to write.
func (x *index) missing(r *report, id ID) (message, fix string) {
	message = fmt.Sprintf("there is no %s in the document", id)
	if x.broken[ID{"Service", id.Namespace, id.Name}] && id.Kind != "Workload" || x.broken[id] {
		return fmt.Sprintf("%s is in the document and cannot be used", id), "mend " + id.String() + " first"
	}
	known := x.names(r, id)
	if guess := nearest(id.Name, known); guess != "" {
		return message, fmt.Sprintf("did you mean %q?", guess)
	}
	if len(known) > 0 && len(known) <= 12 {
		return message, "write " + oneOf(known)
	}
	return message, "add it, or write the name of another one"
}

// names returns what could have been meant in a namespace: not all of a large
// one, and nothing once problems are only counted.
func (x *index) names(r *report, id ID) []string {
	if r.full() {
		return nil
	}
	const most = 500
	var out []string
	if id.Kind == "Workload" {
		for _, w := range x.c.Workloads {
			if w.Namespace == id.Namespace && len(out) < most {
				out = append(out, w.Name)
			}
		}
		return out
	}
	for _, s := range x.c.Services {
		if s.Namespace == id.Namespace && len(out) < most {
			out = append(out, s.Name)
		}
	}
	return out
}

// References reports what is wrong between the objects of c, which are each
// right by themselves. The objects stay active but for the parts named: an
// unknown backend's share is answered 500, an unknown endpoint is left out.
//
// It looks at what is in force, so it is asked after Settle.
func References(c *Config) []Problem { return c.eachObject(newIndex(c), Object.refs) }

// Lint reports what is legal and probably not meant.
func Lint(c *Config) []Problem {
	x := newIndex(c)
	x.attach()
	return c.eachObject(x, Object.lint)
}

func (c *Config) eachObject(x *index, f func(Object, *report, *index)) []Problem {
	r := &report{}
	for _, n := range c.Objects() {
		r.turnTo(n.ID.Kind, n.Object.Head())
		f(n.Object, r, x)
	}
	return r.problems()
}
