package config

// A RouteIndex finds the routes at each port of each service of a document,
// without looking at every route for each of them.
type RouteIndex struct{ of map[Key]*Config } // the same document, with the routes alone that a service may have

// IndexRoutes returns an index of the document as it is now.
func (c *Config) IndexRoutes() *RouteIndex {
	ix := &RouteIndex{make(map[Key]*Config, len(c.Services))}
	for _, s := range c.Services {
		ix.of[s.Key()] = &Config{Metadata: c.Metadata, Closed: c.Closed}
	}
	indexed(ix, c.HTTPRoutes, func(c *Config, r *HTTPRoute) { c.HTTPRoutes = append(c.HTTPRoutes, r) })
	indexed(ix, c.GRPCRoutes, func(c *Config, r *GRPCRoute) { c.GRPCRoutes = append(c.GRPCRoutes, r) })
	indexed(ix, c.TCPRoutes, func(c *Config, r *TCPRoute) { c.TCPRoutes = append(c.TCPRoutes, r) })
	indexed(ix, c.TLSRoutes, func(c *Config, r *TLSRoute) { c.TLSRoutes = append(c.TLSRoutes, r) })
	return ix
}

// indexed adds each route to the services that it names, in document order; to all
// of them if it names a Gateway.
func indexed[R router](ix *RouteIndex, list []R, add func(*Config, R)) {
	for _, r := range list {
		named := make(map[Key]bool, 1)
		everywhere := false
		for _, p := range r.base().ParentRefs {
			everywhere = everywhere || p.Kind == "Gateway"
			named[Key{p.Namespace, p.Name}] = true
		}
		if everywhere {
			for _, c := range ix.of {
				add(c, r)
			}
			continue
		}
		for k := range named {
			if c := ix.of[k]; c != nil {
				add(c, r)
			}
		}
	}
}

// At is the document's RoutesAt.
func (ix *RouteIndex) At(s *Service, port *ServicePort) Routes {
	return ix.of[s.Key()].RoutesAt(s, port)
}
