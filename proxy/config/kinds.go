package config

// A kind is a sort of object. To add one, write a file with its types and the
// methods of Object, give Config a list, and put it here.
type kind struct {
	name    string // HTTPRoute
	section string // httpRoutes
	role    Role

	// Nil when this version only knows the name.
	fresh   func() Object
	add     func(*Config, Object)
	objects func(*Config) []Object
}

// kinds is in the order in which a document is best read.
var kinds = []kind{
	listed("Service", "services", RolePlain, func(c *Config) *[]*Service { return &c.Services }),
	listed("Workload", "workloads", RolePlain, func(c *Config) *[]*Workload { return &c.Workloads }),
	listed(kindHTTP, "httpRoutes", RoleRoute, func(c *Config) *[]*HTTPRoute { return &c.HTTPRoutes }),
	listed(kindGRPC, "grpcRoutes", RoleRoute, func(c *Config) *[]*GRPCRoute { return &c.GRPCRoutes }),
	listed(kindTCP, "tcpRoutes", RoleRoute, func(c *Config) *[]*TCPRoute { return &c.TCPRoutes }),
	listed(kindTLS, "tlsRoutes", RoleRoute, func(c *Config) *[]*TLSRoute { return &c.TLSRoutes }),

	// Known, and not active in this version.
	{name: "DestinationRule", section: "destinationRules", role: RolePlain},
	{name: "RequestAuthentication", section: "requestAuthentications", role: RolePolicy},
	{name: "AuthorizationPolicy", section: "authorizationPolicies", role: RolePolicy},
	{name: "RateLimit", section: "rateLimits", role: RolePolicy},
	{name: "WasmPlugin", section: "wasmPlugins", role: RolePolicy},
}

// listed makes an active kind of a list in Config.
func listed[T any, P interface {
	*T
	Object
}](name, section string, role Role, list func(*Config) *[]P) kind {
	return kind{
		name: name, section: section, role: role,
		fresh: func() Object { return P(new(T)) },
		add:   func(c *Config, o Object) { l := list(c); *l = append(*l, o.(P)) },
		objects: func(c *Config) []Object {
			l := *list(c)
			out := make([]Object, len(l))
			for i, o := range l {
				out[i] = o
			}
			return out
		},
	}
}

func (k *kind) active() bool { return k.fresh != nil }

func kindOf(section string) *kind {
	for i := range kinds {
		if kinds[i].section == section {
			return &kinds[i]
		}
	}
	return nil
}

// Objects returns every object of the document, by kind.
func (c *Config) Objects() []Named {
	var out []Named
	for i := range kinds {
		k := &kinds[i]
		if !k.active() {
			continue
		}
		for _, o := range k.objects(c) {
			h := o.Head()
			out = append(out, Named{ID{k.name, h.Namespace, h.Name}, o})
		}
	}
	return out
}

// Named is an object with its identity.
type Named struct {
	ID     ID
	Object Object
}
