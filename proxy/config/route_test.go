package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestRoutesAt says for each way to declare a port which of the routes at it are
// in force, and of which of the others a lint tells.
func TestRoutesAt(t *testing.T) {
	one := func(section, kind, more string) string {
		return fmt.Sprintf("%s:\n- {name: %s, parentRefs: [{kind: Service, name: a, port: 80}], %srules: [{backendRefs: [{name: b, port: 80}]}]}\n", section, kind, more)
	}
	all := map[string]string{
		"http": one("httpRoutes", "http", ""), "grpc": one("grpcRoutes", "grpc", ""),
		"tcp": one("tcpRoutes", "tcp", ""), "tls": one("tlsRoutes", "tls", "hostnames: [a.x], "),
	}
	for _, row := range []struct {
		app, routes string
		want        string // in force
		told        string // codes of warnings
	}{
		{"http", "http", "http", ""},
		{"http", "http grpc", "grpc", "WP1511"},
		{"grpc", "http grpc tcp", "grpc", "WP1511 WP1510"},
		{"tcp", "http grpc tcp tls", "tcp", "WP1507 WP1507 WP1510"},
		{"tls", "tcp", "tcp", ""},
		{"tls", "tcp tls", "tls", "WP1511"},
		{"tls", "http tls", "tls", "WP1507"},
		{`""`, "tcp tls", "tcp tls", ""},
		{`""`, "http tcp", "http tcp", ""},
		{`""`, "http grpc tcp tls", "grpc tcp tls", "WP1511"},
	} {
		t.Run(row.app+" "+row.routes, func(t *testing.T) {
			text := head + "services:\n- {name: a, ports: [{port: 80, appProtocol: " + row.app + "}]}\n- {name: b, ports: [{port: 80}], endpoints: [{workload: w}]}\nworkloads:\n- {name: w, address: 10.1.0.1}\n"
			for _, r := range strings.Fields(row.routes) {
				text += all[r]
			}
			c, problems := inspect(t, text)
			var codes, force []string
			for _, p := range problems {
				codes = append(codes, string(p.Code))
			}
			at := sameRoutes(t, c, c.Services[0])
			for name, n := range map[string]int{"http": len(at.HTTP), "grpc": len(at.GRPC), "tcp": len(at.TCP), "tls": len(at.TLS)} {
				want := 0
				if strings.Contains(" "+row.want+" ", " "+name+" ") {
					want = 1
				}
				if n != want {
					force = append(force, fmt.Sprintf("%d %ss", n, name))
				}
			}
			if len(force) > 0 {
				t.Errorf("in force are %v, want %s", force, row.want)
			}
			if got := strings.Join(codes, " "); got != row.told {
				t.Errorf("got %s\nwant %q", lines(problems), row.told)
			}
		})
	}
}

// TestClosedAt says what traffic a route without a valid version holds up.
func TestClosedAt(t *testing.T) {
	for _, row := range []struct {
		section, app string
		want         string
	}{
		{"httpRoutes", "http", "http"},
		{"grpcRoutes", "http", "http"},
		{"httpRoutes", "tcp", ""},
		{"tcpRoutes", "http", ""},
		{"tcpRoutes", "tls", "tcp tls"}, // which a TLSRoute might have outranked, nobody knows
		{"tlsRoutes", "tls", "tls"},
		{"tlsRoutes", "tcp", ""},
		{"tcpRoutes", `""`, "tcp tls"},
		{"httpRoutes", `""`, "http"},
		{"futureRoutes", `""`, "http tcp tls"},
		{"futureRoutes", "tcp", "tcp tls"},
	} {
		c, problems := Decode(file(head + "services:\n- {name: a, ports: [{port: 80, appProtocol: " + row.app + "}]}\n- {name: b, ports: [{port: 80}]}\n" +
			row.section + ":\n- {name: r, parentRefs: [{kind: Service, name: a}], rules: 1}\n"))
		if c == nil || len(problems) == 0 {
			t.Fatal(lines(problems))
		}
		c = Settle(nil, c).Config
		at := sameRoutes(t, c, c.Services[0])
		var got []string
		for i, cl := range []*Closed{at.ClosedHTTP, at.ClosedTCP, at.ClosedTLS} {
			if cl != nil {
				got = append(got, []string{"http", "tcp", "tls"}[i])
			}
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s at %s: closed are %v, want %s", row.section, row.app, got, row.want)
		}
		if at = sameRoutes(t, c, c.Services[1]); at.ClosedHTTP != nil || at.ClosedTCP != nil || at.ClosedTLS != nil {
			t.Errorf("%s at %s: the other service suffers", row.section, row.app)
		}
	}
}

func TestSpeaks(t *testing.T) {
	for _, row := range []struct {
		name, app string
		want      AppProtocol
	}{
		{"", "", AppDetect},
		{"", "unheard-of", AppDetect},
		{"http-web", "unheard-of", AppDetect}, // what is written goes before the name, known or not
		{"http-web", "", AppHTTP1},
		{"http-web", "tcp", AppTCP},
		{"httpx", "", AppDetect},
		{"http2", "", AppHTTP2},
		{"grpc-web", "", AppHTTP2},
		{"mysql-0", "", AppTCP},
		{"https", "", AppTLS},
		{"", "HTTP", AppHTTP1},
		{"", "kubernetes.io/ws", AppHTTP1},
		{"", "kubernetes.io/wss", AppTLS},
		{"", "kubernetes.io/h2c", AppHTTP2},
		{"", "GRPC-Web", AppHTTP2},
		{"", "Mongo", AppTCP},
		{"", "Redis", AppTCP},
		{"", "postgresql", AppTCP},
		{"", "TLS", AppTLS},
	} {
		if got := (&ServicePort{Name: row.name, AppProtocol: row.app}).Speaks(); got != row.want {
			t.Errorf("name %q, appProtocol %q: got %d, want %d", row.name, row.app, got, row.want)
		}
	}
}

// sameRoutes asks the document, and wants the index to answer the same.
func sameRoutes(t *testing.T, c *Config, s *Service) Routes {
	t.Helper()
	at := c.RoutesAt(s, &s.Ports[0])
	if ix := c.IndexRoutes().At(s, &s.Ports[0]); !reflect.DeepEqual(at, ix) {
		t.Errorf("%s: the document says %+v, its index %+v", s.Key(), at, ix)
	}
	return at
}

// TestRouteIndex has routes for one service, for several, for all by the Gateway's
// name, for others by another's, for one port and from other namespaces.
func TestRouteIndex(t *testing.T) {
	c := document(t, `services:
- {name: a, namespace: shop, ports: [{port: 80}, {port: 81}]}
- {name: b, namespace: shop, ports: [{port: 80}]}
- {name: a, namespace: far, ports: [{port: 80}]}
httpRoutes:
- {name: r1, namespace: shop, parentRefs: [{kind: Service, name: a}], rules: [{}]}
- {name: r2, namespace: shop, parentRefs: [{kind: Gateway, name: waypoint}], rules: [{}]}
- {name: r3, namespace: shop, parentRefs: [{kind: Service, name: b}, {kind: Service, name: a, port: 81}, {kind: Service, name: b, port: 80}], rules: [{}]}
- {name: r4, namespace: shop, parentRefs: [{kind: Gateway, name: other}], rules: [{}]}
- {name: r5, namespace: far, parentRefs: [{kind: Service, name: a, namespace: shop}], rules: [{}]}
- {name: r6, namespace: far, parentRefs: [{kind: Service, name: a}], rules: [{}]}
`)
	some := 0
	for _, s := range c.Services {
		for i := range s.Ports {
			at := c.RoutesAt(s, &s.Ports[i])
			if ix := c.IndexRoutes().At(s, &s.Ports[i]); !reflect.DeepEqual(at, ix) {
				t.Errorf("%s: the document says %+v, its index %+v", s.Key(), at, ix)
			}
			some += len(at.HTTP)
		}
	}
	if some < 6 {
		t.Errorf("%d routes attach, which shows little", some)
	}
}
