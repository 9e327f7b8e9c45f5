package filters

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// Attr looks up a dotted attribute such as "source.principal". It is for
// configuration-driven readers (templates, rate limit keys, Wasm properties);
// Go code uses the fields. The names are those of Istio's conditions and of
// Envoy's attributes; a header is request.headers[name]. It reports false for a
// name that does not exist and for one without a value on this stream. The
// string is a copy.
func (s *Stream) Attr(name string) (string, bool) {
	if f, ok := attributes[name]; ok {
		v := f(s)
		return v, v != ""
	}
	if key, ok := index(name, "request.headers["); ok && s.Request != nil {
		return value(&s.Request.Header, key)
	}
	if key, ok := index(name, "response.headers["); ok && s.Response != nil {
		return value(&s.Response.Header, key)
	}
	return "", false
}

// HasAttr reports whether Attr knows the name, for checks while building.
func HasAttr(name string) bool {
	if _, ok := attributes[name]; ok {
		return true
	}
	key, request := index(name, "request.headers[")
	if !request {
		key, _ = index(name, "response.headers[")
	}
	return key != ""
}

func index(name, prefix string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "]")
}

// value joins the values of a field that is repeated (RFC 9110, section 5.3).
func value(h *message.Header, name string) (string, bool) {
	var joined []byte
	n := 0
	for v := range h.Values(name) {
		if n > 0 {
			joined = append(joined, ',')
		}
		joined = append(joined, v...)
		n++
	}
	return string(joined), n > 0
}

// attributes is never written.
var attributes = map[string]func(s *Stream) string{
	"request.method":    head(func(r *message.Request) []byte { return r.Method }),
	"request.scheme":    head(func(r *message.Request) []byte { return r.Scheme }),
	"request.host":      head(func(r *message.Request) []byte { return r.Authority }),
	"request.path":      head(func(r *message.Request) []byte { return r.Path }),
	"request.url_path":  head(func(r *message.Request) []byte { path, _, _ := bytes.Cut(r.Path, question); return path }),
	"request.query":     head(func(r *message.Request) []byte { _, query, _ := bytes.Cut(r.Path, question); return query }),
	"request.id":        field("x-request-id"),
	"request.useragent": field("user-agent"),
	"request.referer":   field("referer"),
	"request.protocol": func(s *Stream) string {
		if s.Request == nil {
			return ""
		}
		return s.Request.Proto.String()
	},
	"response.code": func(s *Stream) string {
		if s.Response == nil {
			return ""
		}
		return strconv.Itoa(s.Response.Status)
	},

	"source.principal":       id(func(s *Stream) string { return s.Peer.ID.Principal() }),
	"source.namespace":       id(func(s *Stream) string { return s.Peer.ID.Namespace() }),
	"source.service_account": id(func(s *Stream) string { return s.Peer.ID.ServiceAccount() }),
	"source.trust_domain":    id(func(s *Stream) string { return s.Peer.ID.TrustDomain() }),
	"source.address":         id(func(s *Stream) string { return address(s.Peer.Client()) }),
	"destination.address":    id(func(s *Stream) string { return address(s.Peer.Destination) }),
	"destination.port":       id(func(s *Stream) string { return port(s.Peer.Destination) }),

	"destination.service": route(func(r *RouteInfo) string { return r.Service }),
	"route.name":          route(func(r *RouteInfo) string { return r.Name }),
	"route.rule":          route(func(r *RouteInfo) string { return r.Rule }),
	"route.backend":       route(func(r *RouteInfo) string { return r.Backend }),
}

var question = []byte("?")

func head(f func(r *message.Request) []byte) func(*Stream) string {
	return func(s *Stream) string {
		if s.Request == nil {
			return ""
		}
		return string(f(s.Request))
	}
}

func field(name string) func(*Stream) string {
	return func(s *Stream) string {
		if s.Request == nil {
			return ""
		}
		return s.Request.Header.Get(name)
	}
}

func id(f func(s *Stream) string) func(*Stream) string {
	return func(s *Stream) string {
		if s.Peer == nil {
			return ""
		}
		return f(s)
	}
}

func route(f func(r *RouteInfo) string) func(*Stream) string {
	return func(s *Stream) string {
		if s.Route == nil {
			return ""
		}
		return f(s.Route)
	}
}

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr().Unmap().String()
}

// port is known even when the destination is named and has no address.
func port(a netip.AddrPort) string {
	if a.Port() == 0 {
		return ""
	}
	return strconv.Itoa(int(a.Port()))
}
