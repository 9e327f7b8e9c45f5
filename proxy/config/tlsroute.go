package config

import (
	"fmt"
	"net/netip"
)

// TLSRoute is a Gateway API TLSRoute: its spec's fields beside its name. TLS
// passes through; only the name that the client asks for (SNI) is looked at.
type TLSRoute struct {
	Route
	// The names that clients ask for; *.a.example is any name under a.example. The most specific wins. Every connection when left out.
	Hostnames []string `json:"hostnames,omitempty" rule:"maxItems=1024,format=wildcardHostname"`
	// The rules. Beside the hostnames there is nothing to tell connections apart by: the first takes all.
	Rules []StreamRouteRule `json:"rules" rule:"required,minItems=1,maxItems=16"`
}

func (t *TLSRoute) views() []ruleView { return streamViews(t.Rules) }

func (t *TLSRoute) complete(*Config) { completeRoute(t) }

func (t *TLSRoute) check(r *report) {
	checkRoute(r, t)
	seen := make(map[string]bool, len(t.Hostnames))
	for i, h := range t.Hostnames {
		field := fmt.Sprintf("hostnames[%d]", i)
		if _, err := netip.ParseAddr(h); err == nil {
			r.add(CodeFormat, Pos{}, field, fmt.Sprintf("%s is an address, and clients ask for names only (RFC 6066, section 3)", h), "write a DNS name, or use a TCPRoute")
		}
		if seen[h] {
			r.add(CodeRepeated, Pos{}, field, fmt.Sprintf("%s is listed twice", h), "remove one of them")
		}
		seen[h] = true
	}
}

func (t *TLSRoute) refs(r *report, x *index) { refsOfRoute(r, x, t, refusedShare) }

func (t *TLSRoute) lint(r *report, x *index) { lintRoute(r, x, t) }

// takesAll is not asked of TLSRoutes: to name hosts is to leave others out.
func (t *TLSRoute) takesAll() bool { return true }

func (t *TLSRoute) signs(i int) []sign {
	if len(t.Hostnames) == 0 {
		return []sign{{fmt.Sprintf("rules[%d]", i), ""}}
	}
	var out []sign
	for j, h := range t.Hostnames {
		field := fmt.Sprintf("hostnames[%d]", j)
		if i > 0 {
			field = fmt.Sprintf("rules[%d]", i)
		}
		out = append(out, sign{field, h})
	}
	return out
}
