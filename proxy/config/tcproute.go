package config

import "fmt"

// TCPRoute is a Gateway API TCPRoute: its spec's fields beside its name.
type TCPRoute struct {
	Route
	// The rules. There is nothing to tell connections apart by: the first takes all.
	Rules []StreamRouteRule `json:"rules" rule:"required,minItems=1,maxItems=16"`
}

// StreamRouteRule says where connections go.
type StreamRouteRule struct {
	// A name, for logs and metrics.
	Name string `json:"name,omitempty" rule:"format=name"`
	// Where connections go.
	BackendRefs []BackendRef `json:"backendRefs" rule:"required,minItems=1,maxItems=16"`

	At Pos `json:"-"`
}

func streamViews(rules []StreamRouteRule) []ruleView {
	out := make([]ruleView, len(rules))
	for i := range rules {
		out[i] = ruleView{name: rules[i].Name, at: rules[i].At}
		for j := range rules[i].BackendRefs {
			out[i].backends = append(out[i].backends, &rules[i].BackendRefs[j])
		}
	}
	return out
}

func (t *TCPRoute) views() []ruleView { return streamViews(t.Rules) }

func (t *TCPRoute) complete(*Config) { completeRoute(t) }

func (t *TCPRoute) check(r *report) { checkRoute(r, t) }

func (t *TCPRoute) refs(r *report, x *index) { refsOfRoute(r, x, t, refusedShare) }

func (t *TCPRoute) lint(r *report, x *index) { lintRoute(r, x, t) }

func (t *TCPRoute) takesAll() bool { return true }

func (t *TCPRoute) signs(i int) []sign { return []sign{{fmt.Sprintf("rules[%d]", i), ""}} }
