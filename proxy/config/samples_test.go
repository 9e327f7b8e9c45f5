package config

import (
	"slices"
	"strings"
	"testing"
)

const head = "apiVersion: sandwich-mesh.io/v1alpha1\nkind: Waypoint\n"

// base is a document without a problem; samples add one object to it.
const base = head + `metadata: {namespace: shop}
services:
- {name: a, addresses: [10.0.0.1], ports: [{port: 80, appProtocol: http}], endpoints: [{workload: w}]}
- {name: t, addresses: [10.0.0.2], ports: [{port: 81, appProtocol: tcp}], endpoints: [{workload: w}]}
- {name: g, addresses: [10.0.0.3], ports: [{port: 90, appProtocol: grpc}], endpoints: [{workload: w}]}
- {name: s, addresses: [10.0.0.4], ports: [{port: 443, appProtocol: tls}], endpoints: [{workload: w}]}
#services
workloads:
- {name: w, address: 10.1.0.1}
#workloads
httpRoutes:
#httpRoutes
grpcRoutes:
#grpcRoutes
tcpRoutes:
#tcpRoutes
tlsRoutes:
#tlsRoutes
#end
`

// A sample is an object with one problem, at the mark ‹, and the same object
// without it. The good one is the control: only the difference is refused.
type sample struct {
	name      string
	section   string
	bad, good string
	code      Code
	fix       string // part of what to write
}

var samples = []sample{
	{"unknown field", "services", `{name: b, ‹hostname: b.x, ports: [{port: 80}], endpoints: [{workload: w}]}`, `{name: b, hostnames: [b.x], ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeUnknownField, `"hostnames"`},
	{"field of another case", "services", `{name: b, ports: [{port: 80, ‹targetport: 1}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80, targetPort: 1}], endpoints: [{workload: w}]}`, CodeUnknownField, `"targetPort"`},
	{"field of another API", "workloads", `{name: x, address: 10.1.0.2, ‹capacity: 3}`, `{name: x, address: 10.1.0.2, weight: 3}`, CodeUnknownField, `"weight"`},
	{"field nobody can guess", "workloads", `{name: x, address: 10.1.0.2, ‹zzzzzzzz: 3}`, `{name: x, address: 10.1.0.2}`, CodeUnknownField, "remove it"},
	{"number for text", "workloads", `{name: x, address: 10.1.0.2, labels: {v: ‹1}}`, `{name: x, address: 10.1.0.2, labels: {v: "1"}}`, CodeWrongType, `"1"`},
	{"text for number", "services", `{name: b, ports: [{port: ‹"80"}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeWrongType, "quotes"},
	{"octal number", "services", `{name: b, ports: [{port: ‹0120}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 120}], endpoints: [{workload: w}]}`, CodeWrongType, "whole number"},
	{"fraction", "services", `{name: b, ports: [{port: ‹80.5}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeWrongType, "whole number"},
	{"mapping for list", "services", `{name: b, ports: ‹{port: 80}, endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeWrongType, "list"},
	{"text for mapping", "services", `{name: b, ports: [‹http], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeWrongType, "fields"},
	{"empty value", "workloads", `{name: x, address: 10.1.0.2, labels: ‹null}`, `{name: x, address: 10.1.0.2, labels: {}}`, CodeWrongType, "mapping"},
	{"object that is text", "workloads", `‹x`, `{name: x, address: 10.1.0.2}`, CodeWrongType, "fields"},
	{"missing field", "services", `‹{name: b, endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeMissing, "ports"},
	{"missing name", "workloads", `‹{address: 10.1.0.2}`, `{name: x, address: 10.1.0.2}`, CodeMissing, "name"},
	{"missing field in a list", "httpRoutes", `{name: r, parentRefs: [‹{kind: Service}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, CodeMissing, "name"},
	{"workload without address", "workloads", `‹{name: x}`, `{name: x, address: 10.1.0.2}`, CodeMissing, "address"},
	{"bad enum", "workloads", `{name: x, address: 10.1.0.2, health: ‹HEALTY}`, `{name: x, address: 10.1.0.2, health: HEALTHY}`, CodeEnum, "HEALTHY"},
	{"enum of another case", "httpRoutes", route(`matches: [{method: ‹get}, {}]`), route(`matches: [{method: GET}, {}]`), CodeEnum, "did you mean GET"},
	{"wrong group", "httpRoutes", `{name: r, parentRefs: [‹{kind: Service, group: apps, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, group: "", name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, CodeEnum, `""`},
	{"field twice", "workloads", `{name: x, address: 10.1.0.2, ‹address: 10.1.0.3}`, `{name: x, address: 10.1.0.2}`, CodeFieldTwice, "remove"},
	{"label twice", "workloads", `{name: x, address: 10.1.0.2, labels: {a: b, ‹a: c}}`, `{name: x, address: 10.1.0.2, labels: {a: b}}`, CodeFieldTwice, "remove"},
	{"port out of range", "services", `{name: b, ports: [{port: ‹65536}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 65535}], endpoints: [{workload: w}]}`, CodeRange, "1 to 65535"},
	{"number beyond 64 bits", "services", `{name: b, ports: [{port: ‹99999999999999999999}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 9999}], endpoints: [{workload: w}]}`, CodeRange, "smaller"},
	{"empty list", "services", `{name: b, ports: ‹[], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeRange, "1 or more"},
	{"too many items", "httpRoutes", `{name: r, parentRefs: ‹[` + strings.Repeat(`{kind: Service, name: a},`, 33) + `], rules: [{backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeRange, "split"},
	{"too many labels", "workloads", `{name: x, address: 10.1.0.2, labels: ‹{` + letters(257) + `}}`, `{name: x, address: 10.1.0.2, labels: {` + letters(256) + `}}`, CodeRange, "leave"},
	{"too many matches in all", "httpRoutes", `‹{name: r, parentRefs: [{kind: Service, name: a}], rules: [` + ruleOf(64, 0) + ruleOf(64, 64) + `{matches: [{}], backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a}], rules: [` + ruleOf(64, 0) + ruleOf(63, 64) + `{matches: [{}], backendRefs: [{name: a, port: 80}]}]}`, CodeRange, "split"},
	{"value too long", "httpRoutes", route(`matches: [{path: {value: ‹/` + strings.Repeat("a", 1024) + `}}, {}]`), route(`matches: [{path: {value: /` + strings.Repeat("a", 1023) + `}}, {}]`), CodeRange, "less"},
	{"name with capitals", "workloads", `{name: ‹X, address: 10.1.0.2}`, `{name: x, address: 10.1.0.2}`, CodeFormat, "lower case"},
	{"address with port", "workloads", `{name: x, address: "‹10.1.0.2:80"}`, `{name: x, address: "10.1.0.2"}`, CodeFormat, "without port"},
	{"address with zone", "workloads", `{name: x, address: "‹fe80::1%eth0"}`, `{name: x, address: "fe80::1"}`, CodeFormat, "zone"},
	{"malformed duration", "httpRoutes", route(`timeouts: {request: ‹1.5s}`), route(`timeouts: {request: 1s500ms}`), CodeFormat, "25ms"},
	{"header name with a space", "httpRoutes", route(`matches: [{headers: [{name: "‹a b", value: c}]}, {}]`), route(`matches: [{headers: [{name: a-b, value: c}]}, {}]`), CodeFormat, "letters"},
	{"header value with a line break", "httpRoutes", route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "‹b\r\nc: d"}]}}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "b c: d"}]}}]`), CodeFormat, "line breaks"},
	{"empty text", "httpRoutes", route(`matches: [{headers: [{name: a, value: ‹""}]}, {}]`), route(`matches: [{headers: [{name: a, value: "b"}]}, {}]`), CodeFormat, "leave"},
	{"identity that is none", "services", `‹{name: b, ports: [{port: 80}], subjectAltNames: [cluster.local/ns/x/sa/y], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], subjectAltNames: ["spiffe://cluster.local/ns/x/sa/y"], endpoints: [{workload: w}]}`, CodeFormat, "spiffe://"},
	{"merge key", "workloads", `{‹<<: {node: n}, name: x, address: 10.1.0.2}`, `{node: n, name: x, address: 10.1.0.2}`, CodeYAMLFeature, "write the fields out"},
	{"tag", "workloads", `{name: x, address: 10.1.0.2, node: ‹!!str 1}`, `{name: x, address: 10.1.0.2, node: "1"}`, CodeYAMLFeature, "remove"},

	{"path without slash", "httpRoutes", route(`matches: [{path: ‹{value: a}}, {}]`), route(`matches: [{path: {value: /a}}, {}]`), CodePath, `"/a"`},
	{"path with dots", "httpRoutes", route(`matches: [{path: ‹{value: /a/../b}}, {}]`), route(`matches: [{path: {value: /a/..b}}, {}]`), CodePath, "normalised"},
	{"path that ends in dots", "httpRoutes", route(`matches: [{path: ‹{value: /a/..}}, {}]`), route(`matches: [{path: {value: /a/...}}, {}]`), CodePath, "normalised"},
	{"path with an escaped slash", "httpRoutes", route(`matches: [{path: ‹{value: /a%2Fb}}, {}]`), route(`matches: [{path: {value: /a%20b}}, {}]`), CodePath, "normalised"},
	{"path with a query", "httpRoutes", route(`matches: [{path: ‹{value: "/a?b"}}, {}]`), route(`matches: [{path: {value: "/ab"}}, {}]`), CodePath, "%XX"},
	{"regex that is none", "httpRoutes", route(`matches: [{path: ‹{type: RegularExpression, value: "/(a"}}, {}]`), route(`matches: [{path: {type: RegularExpression, value: "/(a)"}}, {}]`), CodeRegex, "RE2"},
	{"regex of Perl", "httpRoutes", route(`matches: [{headers: [‹{type: RegularExpression, name: a, value: "a(?=b)"}]}, {}]`), route(`matches: [{headers: [{type: RegularExpression, name: a, value: "a(?:b)"}]}, {}]`), CodeRegex, "look-around"},
	{"regex in a query parameter", "httpRoutes", route(`matches: [{queryParams: [‹{type: RegularExpression, name: a, value: "*"}]}, {}]`), route(`matches: [{queryParams: [{type: RegularExpression, name: a, value: ".*"}]}, {}]`), CodeRegex, "RE2"},
	{"filter without settings", "httpRoutes", route(`filters: [‹{type: RequestHeaderModifier}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}]`), CodeFilter, "write requestHeaderModifier"},
	{"filter with another's settings", "httpRoutes", route(`filters: [‹{type: RequestHeaderModifier, requestHeaderModifier: {}, responseHeaderModifier: {}}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: ResponseHeaderModifier, responseHeaderModifier: {}}]`), CodeFilter, "of its own"},
	{"filter twice", "httpRoutes", route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, ‹{type: RequestHeaderModifier, requestHeaderModifier: {}}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}]`), CodeFilter, "one filter"},
	{"try longer than the whole", "httpRoutes", route(`timeouts: ‹{request: 1s, backendRequest: 2s}`), route(`timeouts: {request: 0s, backendRequest: 2s}`), CodeTimeouts, "at most 1s"},
	{"endpoint that is nothing", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeExclusive, "workload: NAME"},
	{"endpoint that is two things", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{workload: w, address: 10.1.0.1}]}`, `{name: b, ports: [{port: 80}], endpoints: [{address: 10.1.0.1}]}`, CodeExclusive, "remove one"},
	{"protocol beside a workload", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{workload: w, protocol: TCP}]}`, `{name: b, ports: [{port: 80}], endpoints: [{address: 10.9.0.1, protocol: TCP}]}`, CodeExclusive, "workload w"},
	{"namespace beside an address", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{address: 10.1.0.1, namespace: shop}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w, namespace: shop}]}`, CodeExclusive, "remove"},
	{"framing field", "httpRoutes", route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [‹{name: Content-Length, value: "1"}]}}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Content-Type, value: "1"}]}}]`), CodeFramingField, "remove"},
	{"framing field to remove", "httpRoutes", route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: ‹{remove: [Transfer-Encoding]}}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}]`), CodeFramingField, "remove"},
	{"port twice", "services", `{name: b, ports: [{port: 80}, ‹{port: 80}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}, {port: 81}], endpoints: [{workload: w}]}`, CodeRepeated, "remove"},
	{"port name twice", "services", `{name: b, ports: [{name: x, port: 80}, ‹{name: x, port: 81}], endpoints: [{workload: w}]}`, `{name: b, ports: [{name: x, port: 80}, {name: y, port: 81}], endpoints: [{workload: w}]}`, CodeRepeated, "rename"},
	{"endpoint twice", "services", `{name: b, ports: [{port: 80}], endpoints: [{workload: w}, ‹{workload: w, namespace: shop}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeRepeated, "weight"},
	{"endpoint port twice", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{workload: w, ports: [{port: 80, targetPort: 1}, {port: 80, targetPort: 2}]}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w, ports: [{port: 80, targetPort: 1}]}]}`, CodeRepeated, "remove"},
	{"parent twice", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}, ‹{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeRepeated, "remove"},
	{"rule name twice", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{name: x, matches: [{method: GET}], backendRefs: [{name: a, port: 80}]}, ‹{name: x, backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{name: x, matches: [{method: GET}], backendRefs: [{name: a, port: 80}]}, {name: y, backendRefs: [{name: a, port: 80}]}]}`, CodeRepeated, "rename"},
	{"header twice in a match", "httpRoutes", route(`matches: [{headers: [{name: a, value: b}, ‹{name: A, value: c}]}, {}]`), route(`matches: [{headers: [{name: a, value: b}]}, {headers: [{name: A, value: c}]}, {}]`), CodeRepeated, "OR"},
	{"query parameter twice in a match", "httpRoutes", route(`matches: [{queryParams: [{name: a, value: b}, ‹{name: a, value: c}]}, {}]`), route(`matches: [{queryParams: [{name: a, value: b}, {name: A, value: c}]}, {}]`), CodeRepeated, "OR"},
	{"header set twice", "httpRoutes", route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, ‹{name: A, value: c}]}}]`), route(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: A, value: c}]}}]`), CodeRepeated, "comma"},

	{"no such parent", "httpRoutes", `{name: r, parentRefs: [‹{kind: Service, name: aa}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeNoParent, "write a, t, g or s"},
	{"parent without kind", "httpRoutes", `{name: r, parentRefs: [‹{name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeNoParent, "kind: Service"},
	{"another waypoint", "httpRoutes", `{name: r, parentRefs: [‹{name: other}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{name: waypoint}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, CodeNoParent, "waypoint"},
	{"no such parent port", "httpRoutes", `{name: r, parentRefs: [‹{kind: Service, name: a, port: 81}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a, port: 80}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, CodeNoParentPort, "write 80"},
	{"no such backend", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [‹{name: zz, port: 80}]}]}`, route(``), CodeNoBackend, "write a, t, g or s"},
	{"backend in another namespace", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [‹{name: a, namespace: other, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, namespace: shop, port: 80}]}]}`, CodeNoBackend, "add it"},
	{"no such backend port", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [‹{name: a, port: 8080}]}]}`, route(``), CodeNoBackendPort, "write 80"},
	{"no such workload", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{workload: ww}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeNoWorkload, "write w"},
	{"address without identity", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{address: 10.9.0.1}]}`, `{name: b, ports: [{port: 80}], endpoints: [{address: 10.1.0.1}]}`, CodeNoIdentity, "protocol: TCP"},
	{"address taken", "services", `‹{name: b, addresses: [10.0.0.1], ports: [{port: 80}], endpoints: [{workload: w}]}`, `{name: b, addresses: [10.0.0.1], ports: [{port: 82}], endpoints: [{workload: w}]}`, CodeAddressTaken, "of its own"},
	{"mapped address taken", "services", `‹{name: b, addresses: ["::ffff:10.0.0.1"], ports: [{port: 80}], endpoints: [{workload: w}]}`, `{name: b, addresses: ["::ffff:10.0.0.9"], ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeAddressTaken, "of its own"},
	{"hostname taken", "services", `‹{name: b, hostnames: [a.shop.svc.cluster.local], ports: [{port: 80}], endpoints: [{workload: w}]}`, `{name: b, hostnames: [b.x], ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeHostnameTaken, "of its own"},
	{"endpoint port of no service port", "services", `{name: b, ports: [{port: 80}], endpoints: [‹{workload: w, ports: [{port: 81, targetPort: 1}]}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w, ports: [{port: 80, targetPort: 1}]}]}`, CodeEndpointPort, "write 80"},

	{"filter of later", "httpRoutes", route(`filters: [{type: ‹URLRewrite}]`), route(`filters: []`), CodeNotSupported, "RequestHeaderModifier"},
	{"field of later", "httpRoutes", route(`‹sessionPersistence: {}`), route(``), CodeNotSupported, "remove"},
	{"algorithm of later", "services", `{name: b, ports: [{port: 80}], loadBalancer: {simple: ‹RANDOM}, endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80}], loadBalancer: {simple: ROUND_ROBIN}, endpoints: [{workload: w}]}`, CodeNotSupported, "LEAST_REQUEST"},
	{"consumer route", "httpRoutes", `{name: r, namespace: other, parentRefs: [‹{kind: Service, name: a, namespace: shop}], rules: [{backendRefs: [{name: a, namespace: shop, port: 80}]}]}`, `{name: r, namespace: shop, parentRefs: [{kind: Service, name: a, namespace: shop}], rules: [{backendRefs: [{name: a, namespace: shop, port: 80}]}]}`, CodeConsumerRoute, "namespace shop"},

	{"shadowed rule", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{}], backendRefs: [{name: a, port: 80}]}, ‹{backendRefs: [{name: a, port: 80}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{matches: [{method: GET}], backendRefs: [{name: a, port: 80}]}, {backendRefs: [{name: a, port: 80}]}]}`, CodeShadowed, "more specific"},
	{"no catch-all", "httpRoutes", `{name: r, parentRefs: [‹{kind: Service, name: a}], rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeNoCatchAll, "without matches"},
	{"no backends", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [‹{}]}`, route(``), CodeNoBackends, "backendRefs"},
	{"no weight", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [‹{backendRefs: [{name: a, port: 80, weight: 0}]}]}`, `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80, weight: 0}, {name: t, port: 81}]}]}`, CodeNoWeight, "weight"},
	{"no endpoints", "services", `‹{name: b, ports: [{port: 80}]}`, `{name: b, ports: [{port: 80}], endpoints: [{workload: w}]}`, CodeNoEndpoints, "endpoints"},
	{"hostnames", "httpRoutes", `‹{name: r, hostnames: ["*.a.x"], parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeHostIgnored, "remove"},
	{"not HTTP", "httpRoutes", `{name: r, parentRefs: [‹{kind: Service, name: t}], rules: [{backendRefs: [{name: a, port: 80}]}]}`, route(``), CodeNotHTTP, "appProtocol: http"},
	{"unknown protocol", "services", `{name: b, ports: [‹{port: 80, appProtocol: htpp}], endpoints: [{workload: w}]}`, `{name: b, ports: [{port: 80, appProtocol: HTTP}], endpoints: [{workload: w}]}`, CodeUnknownProtocol, "http2"},
	{"shared address", "workloads", `‹{name: x, address: 10.1.0.1}`, `{name: x, address: 10.1.0.2}`, CodeSharedAddress, "of its own"},

	{"gRPC filter of HTTP only", "grpcRoutes", call(`filters: [{type: ‹URLRewrite}]`), call(`filters: []`), CodeEnum, "RequestHeaderModifier"},
	{"gRPC filter of later", "grpcRoutes", call(`filters: [{type: ‹RequestMirror}]`), call(`filters: []`), CodeNotSupported, "RequestHeaderModifier"},
	{"gRPC filter without settings", "grpcRoutes", call(`filters: [‹{type: RequestHeaderModifier}]`), call(`filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}]`), CodeFilter, "write requestHeaderModifier"},
	{"gRPC filter of a backend twice", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{backendRefs: [{name: g, port: 90, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {}}, ‹{type: ResponseHeaderModifier, responseHeaderModifier: {}}]}]}]}`, call(``), CodeFilter, "one filter"},
	{"gRPC method that is nothing", "grpcRoutes", call(`matches: [{method: ‹{}}, {}]`), call(`matches: [{method: {method: M}}, {}]`), CodeExclusive, "service: NAME"},
	{"gRPC service with a slash", "grpcRoutes", call(`matches: [{method: ‹{service: /a.B}}, {}]`), call(`matches: [{method: {service: a.B}}, {}]`), CodeFormat, "shop.v1.Cart"},
	{"gRPC service and method in one", "grpcRoutes", call(`matches: [{method: ‹{method: a.B/C}}, {}]`), call(`matches: [{method: {service: a.B, method: C}}, {}]`), CodeFormat, "AddItem"},
	{"gRPC regex that is none", "grpcRoutes", call(`matches: [{method: ‹{type: RegularExpression, service: "("}}, {}]`), call(`matches: [{method: {type: RegularExpression, service: "()/"}}, {}]`), CodeRegex, "RE2"},
	{"gRPC header twice in a match", "grpcRoutes", call(`matches: [{headers: [{name: a, value: b}, ‹{name: A, value: c}]}, {}]`), call(`matches: [{headers: [{name: a, value: b}]}, {headers: [{name: A, value: c}]}, {}]`), CodeRepeated, "OR"},
	{"gRPC field of HTTPRoute", "grpcRoutes", call(`matches: [{‹path: {value: /}}, {}]`), call(`matches: [{method: {service: a}}, {}]`), CodeUnknownField, "remove"},
	{"gRPC parent twice", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}, ‹{kind: Service, name: g}], rules: [{backendRefs: [{name: g, port: 90}]}]}`, call(``), CodeRepeated, "remove"},
	{"gRPC rule name twice", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{name: x, matches: [{method: {service: a}}], backendRefs: [{name: g, port: 90}]}, ‹{name: x, backendRefs: [{name: g, port: 90}]}]}`, `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{name: x, matches: [{method: {service: a}}], backendRefs: [{name: g, port: 90}]}, {name: y, backendRefs: [{name: g, port: 90}]}]}`, CodeRepeated, "rename"},
	{"gRPC backend that is not there", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{backendRefs: [‹{name: zz, port: 90}]}]}`, call(``), CodeNoBackend, "write a, t, g or s"},
	{"gRPC route for HTTP/1", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{backendRefs: [‹{name: a, port: 80}]}]}`, call(``), CodeBackendSpeaks, "appProtocol: grpc"},
	{"gRPC route for TCP", "grpcRoutes", `{name: r, parentRefs: [‹{kind: Service, name: t}], rules: [{backendRefs: [{name: g, port: 90}]}]}`, call(``), CodeNotHTTP, "appProtocol: http"},
	{"gRPC shadowed match", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{matches: [{}, {method: {service: a}, headers: [{name: x, value: y}]}], backendRefs: [{name: g, port: 90}]}, ‹{matches: [{method: {service: a}, headers: [{name: X, value: y}]}], backendRefs: [{name: g, port: 90}]}]}`, `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{matches: [{}, {method: {service: a}, headers: [{name: x, value: y}]}], backendRefs: [{name: g, port: 90}]}, {matches: [{method: {service: a, method: b}, headers: [{name: X, value: y}]}], backendRefs: [{name: g, port: 90}]}]}`, CodeShadowed, "more specific"},
	{"gRPC no catch-all", "grpcRoutes", `{name: r, parentRefs: [‹{kind: Service, name: g}], rules: [{matches: [{method: {service: a}}], backendRefs: [{name: g, port: 90}]}]}`, call(``), CodeNoCatchAll, "without matches"},
	{"gRPC no backends", "grpcRoutes", `{name: r, parentRefs: [{kind: Service, name: g}], rules: [‹{}]}`, call(``), CodeNoBackends, "backendRefs"},
	{"gRPC hostnames", "grpcRoutes", `‹{name: r, hostnames: [a.x], parentRefs: [{kind: Service, name: g}], rules: [{backendRefs: [{name: g, port: 90}]}]}`, call(``), CodeHostIgnored, "remove"},
	{"HTTP to TLS", "httpRoutes", `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [‹{name: s, port: 443}]}]}`, route(``), CodeBackendSpeaks, "the mesh encrypts"},

	{"TCP rule without backends", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [‹{}]}`, tcp(`t`), CodeMissing, "backendRefs"},
	{"TCP rule with no backend", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [{backendRefs: ‹[]}]}`, tcp(`t`), CodeRange, "1 or more"},
	{"TCP field of HTTPRoute", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [{‹matches: [], backendRefs: [{name: t, port: 81}]}]}`, tcp(`t`), CodeUnknownField, "remove"},
	{"TCP backend that is not there", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [{backendRefs: [‹{name: t, port: 80}]}]}`, tcp(`t`), CodeNoBackendPort, "write 81"},
	{"TCP wrong group", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [{backendRefs: [‹{name: t, port: 81, group: apps}]}]}`, tcp(`t`), CodeEnum, `""`},
	{"TCP no weight", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [‹{backendRefs: [{name: t, port: 81, weight: 0}]}]}`, tcp(`t`), CodeNoWeight, "weight"},
	{"TCP second rule", "tcpRoutes", `{name: r, parentRefs: [{kind: Service, name: t}], rules: [{backendRefs: [{name: t, port: 81}]}, ‹{backendRefs: [{name: t, port: 81}]}]}`, tcp(`t`), CodeShadowed, "remove"},
	{"TCP route for HTTP", "tcpRoutes", tcp(`a`), tcp(`s`), CodeNotTCP, "HTTPRoute"},

	{"TLS hostname that is none", "tlsRoutes", `{name: r, hostnames: [‹"a.*.x"], parentRefs: [{kind: Service, name: s}], rules: [{backendRefs: [{name: s, port: 443}]}]}`, tls(`["*.x"]`), CodeFormat, "first label"},
	{"TLS hostname that is an address", "tlsRoutes", `‹` + tls(`["10.0.0.1"]`), tls(`["x10.0.0.1"]`), CodeFormat, "TCPRoute"},
	{"TLS hostname twice", "tlsRoutes", `‹` + tls(`[a.x, b.x, a.x]`), tls(`[a.x, b.x, "*.x"]`), CodeRepeated, "remove"},
	{"TLS second rule", "tlsRoutes", `{name: r, hostnames: [a.x], parentRefs: [{kind: Service, name: s}], rules: [{backendRefs: [{name: s, port: 443}]}, ‹{backendRefs: [{name: s, port: 443}]}]}`, tls(`[a.x]`), CodeShadowed, "remove"},
	{"TLS route for TCP", "tlsRoutes", `{name: r, parentRefs: [‹{kind: Service, name: t}], rules: [{backendRefs: [{name: t, port: 81}]}]}`, tls(`[]`), CodeNotTCP, "appProtocol: tls"},
}

// route is a route for service a whose one rule has the parts given.
func route(parts string) string {
	if parts != "" {
		parts += ", "
	}
	return `{name: r, parentRefs: [{kind: Service, name: a}], rules: [{` + parts + `backendRefs: [{name: a, port: 80}]}]}`
}

// call is a GRPCRoute for service g whose one rule has the parts given.
func call(parts string) string {
	if parts != "" {
		parts += ", "
	}
	return `{name: r, parentRefs: [{kind: Service, name: g}], rules: [{` + parts + `backendRefs: [{name: g, port: 90}]}]}`
}

// tcp is a TCPRoute for a service, of which the mark is at the parent.
func tcp(service string) string {
	mark := ""
	if service == "a" {
		mark = "‹"
	}
	return `{name: r, parentRefs: [` + mark + `{kind: Service, name: ` + service + `}], rules: [{backendRefs: [{name: t, port: 81}]}]}`
}

// tls is a TLSRoute for service s.
func tls(hostnames string) string {
	return `{name: r, hostnames: ` + hostnames + `, parentRefs: [{kind: Service, name: s}], rules: [{backendRefs: [{name: s, port: 443}]}]}`
}

// ruleOf is a rule with n matches that are like no other.
func ruleOf(n, from int) string {
	var b strings.Builder
	b.WriteString("{matches: [")
	for i := range n {
		b.WriteString("{path: {value: /" + strings.Repeat("x", from+i+1) + "}},")
	}
	return b.String() + "], backendRefs: [{name: a, port: 80}]},"
}

// letters is n pairs for a mapping.
func letters(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + strings.Repeat("x", i) + ": v,")
	}
	return b.String()
}

// place puts an object into the base document and returns the text and where
// the mark was.
func (s *sample) place(object string) (text string, at Pos) {
	text = strings.Replace(base, "#"+s.section+"\n", "- "+object+"\n", 1)
	before, after, marked := strings.Cut(text, "‹")
	if !marked {
		return text, Pos{}
	}
	line := before[strings.LastIndexByte(before, '\n')+1:]
	// What is marked inside quotes begins with the quote.
	quote := strings.HasSuffix(line, `"`) && !strings.HasPrefix(after, `"`)
	if at = (Pos{int32(strings.Count(before, "\n") + 1), int32(len(line) + 1)}); quote {
		at.Column--
	}
	return before + after, at
}

// inspect decodes, settles and checks a document, as the command does.
func inspect(t *testing.T, text string) (*Config, []Problem) {
	t.Helper()
	c, problems := Decode(File{"test.yaml", []byte(text)})
	if c == nil {
		return nil, problems
	}
	s := Settle(nil, c)
	problems = append(problems, References(s.Config)...)
	problems = append(problems, Lint(s.Config)...)
	return c, problems
}

func lines(problems []Problem) string {
	var out []string
	for i := range problems {
		out = append(out, problems[i].String())
	}
	return "\n\t" + strings.Join(out, "\n\t")
}

func TestSamples(t *testing.T) {
	if _, problems := inspect(t, base); len(problems) > 0 {
		t.Fatalf("the base document is not clean: %s", lines(problems))
	}
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			text, at := s.place(s.bad)
			c, problems := inspect(t, text)
			if len(problems) != 1 || problems[0].Code != s.code {
				t.Fatalf("got %s\nwant only %s", lines(problems), s.code)
			}
			p := problems[0]
			if got := (Pos{int32(p.Line), int32(p.Column)}); got != at || p.File != "test.yaml" {
				t.Errorf("got %s, want line %d, column %d", p.String(), at.Line, at.Column)
			}
			if !strings.Contains(p.Fix, s.fix) {
				t.Errorf("got fix %q, want %q in it", p.Fix, s.fix)
			}
			if kind := kindOf(s.section).name; p.Object.Kind != kind {
				t.Errorf("the problem is that of %s, want a %s", p.Object, kind)
			}
			if broken := len(c.Broken) == 1; broken != (s.code.Effect() == ObjectFails) {
				t.Errorf("the object is broken: %v, want %v as the code's effect is %d", broken, !broken, s.code.Effect())
			}
			if len(c.Services) < 2 || len(c.Workloads) < 1 {
				t.Error("the other objects are not there")
			}
			text, _ = s.place(s.good)
			if c, problems = inspect(t, text); len(problems) > 0 || len(c.Objects()) != 6 {
				t.Errorf("the control has problems: %s", lines(problems))
			}
		})
	}
}

// TestEveryCodeHasASample keeps the table and the tests together. Codes of whole
// documents have tests of their own.
func TestEveryCodeHasASample(t *testing.T) {
	elsewhere := []Code{
		CodeSyntax, CodeUnreadable, CodeNotDocument, CodeNoDocument, CodeLimit, CodeNoHeader, CodeMetadata,
		CodeSection, CodeSectionShape, CodeTooMany, CodeState, CodeObjectTwice, CodeInactiveKind,
		CodeCompile, CodeOutranked,
	}
	for _, info := range codes {
		has := slices.ContainsFunc(samples, func(s sample) bool { return s.code == info.code })
		if other := slices.Contains(elsewhere, info.code); has == other {
			t.Errorf("%s (%s): sample %v, elsewhere %v", info.code, info.meaning, has, other)
		}
	}
}
