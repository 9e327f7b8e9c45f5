package records

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// A Record is how one request was decided on, for people and scripts. Times are
// in microseconds.
type Record struct {
	N         uint64    `json:"n"`
	Time      time.Time `json:"time"`
	RequestID string    `json:"request_id,omitempty"`
	Method    string    `json:"method"`
	Path      string    `json:"path"` // without the values of its query
	Authority string    `json:"authority"`
	Protocol  string    `json:"protocol"`
	Speaks    string    `json:"connection_speaks"`
	Settled   string    `json:"settled_by"`    // how that is known
	SNI       string    `json:"sni,omitempty"` // the name that a TLS client asked for

	Source  Source  `json:"source"`
	Service string  `json:"service,omitempty"` // what was asked for
	Route   *Route  `json:"route,omitempty"`
	Met     []Rule  `json:"considered,omitempty"` // in order of precedence; the first that fits is the route
	Others  int     `json:"rules_for_other_paths"`
	Note    string  `json:"note,omitempty"`
	Filters []Step  `json:"filters,omitempty"`
	Members *Counts `json:"endpoints,omitempty"`
	Tries   []Try   `json:"attempts,omitempty"`

	Status   int              `json:"status"` // 0: none was sent
	GRPC     *int             `json:"grpc_status,omitempty"`
	Flags    string           `json:"flags"`
	Details  string           `json:"details"`
	Fault    string           `json:"fault,omitempty"`
	Side     string           `json:"side,omitempty"` // where the fault arose
	Ours     bool             `json:"answered_here"`
	Received int64            `json:"received"`
	Sent     int64            `json:"sent"`
	Took     int64            `json:"took_us"`
	Stages   map[string]int64 `json:"stages_us"`
}

// A Source is who called.
type Source struct {
	Address   string `json:"address,omitempty"`
	Principal string `json:"principal,omitempty"`
	Workload  string `json:"workload,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	By        string `json:"by,omitempty"` // how the tunnel came in
}

// A Route is what the request went by.
type Route struct {
	Name    string `json:"name"`
	Rule    string `json:"rule,omitempty"`
	Backend string `json:"backend"`
}

// A Rule is one that was looked at.
type Rule struct {
	Route    string   `json:"route"`
	Rule     string   `json:"rule,omitempty"`
	Verdict  string   `json:"verdict"`
	Backends []string `json:"backends,omitempty"`
}

// A Step is what one filter did.
type Step struct {
	Chain   string `json:"chain"`
	Kind    string `json:"kind"`
	Object  string `json:"object"`
	Verdict string `json:"verdict"`
	Phase   string `json:"phase,omitempty"`
	Took    int64  `json:"took_us,omitempty"`
	Waited  int64  `json:"waited_us,omitempty"`
}

// Counts are how many endpoints there were to choose from.
type Counts struct {
	Members int `json:"members"`
	Healthy int `json:"healthy"`
}

// A Try is one attempt.
type Try struct {
	N        int    `json:"n"`
	Endpoint string `json:"endpoint"`
	Workload string `json:"workload,omitempty"`
	Status   int    `json:"status,omitempty"`
	Fault    string `json:"fault,omitempty"`
	Sent     string `json:"sent"`
	Took     int64  `json:"took_us"`
}

// record works out what the facts mean.
func (f *facts) record() *Record {
	id, _ := f.req.Header.ValueOf(message.XRequestID)
	r := &Record{
		N: f.n, Time: f.start.UTC(), RequestID: string(id),
		Method: string(f.req.Method), Path: string(message.AppendRedacted(nil, f.req.Path)),
		Authority: string(f.req.Authority), Protocol: f.req.Proto.String(),
		Speaks: f.verdict.Protocol.String(), Settled: f.verdict.Reason.String(), SNI: f.sni,
		Status: f.status, Flags: measure.Flags(f.kind(), f.exhausted), Details: f.details(),
		Ours: f.ours, Received: f.received, Sent: f.sent, Took: f.took.Microseconds(),
		Stages: map[string]int64{},
	}
	for s, took := range f.times {
		if took > 0 {
			r.Stages[filters.Stage(s).String()] = took.Microseconds()
		}
	}
	if f.grpc >= 0 {
		r.GRPC = &f.grpc
	}
	if f.fault != nil {
		r.Fault, r.Side = f.fault.Error(), f.fault.Side.String()
	}
	if f.conn {
		r.Protocol = f.verdict.Protocol.String()
	}
	f.addSource(r)
	f.addRoute(r)
	f.addFilters(r)
	f.addAttempts(r)
	return r
}

func (f *facts) kind() fault.Kind {
	if f.fault == nil {
		return measure.NoFault
	}
	return f.fault.Kind
}

func (f *facts) details() string {
	switch {
	case f.reason != "":
		return f.reason
	case f.fault != nil:
		return f.fault.Details()
	case f.ours:
		return "direct_response"
	case f.conn:
		return "-"
	}
	return "via_upstream"
}

func (f *facts) addSource(r *Record) {
	if p := f.peer; p != nil {
		r.Source = Source{Principal: p.ID.String(), By: p.How.String()}
		if a := p.Client(); a.IsValid() {
			r.Source.Address = a.String()
		}
	}
	if f.source != nil {
		r.Source.Workload, r.Source.Namespace = f.source.Workload, f.source.Namespace
	}
}

func (f *facts) addRoute(r *Record) {
	if f.service == nil {
		return
	}
	r.Service = f.service.Name
	if f.info != nil {
		r.Route = &Route{f.info.Name, f.info.Rule, f.info.Backend}
	}
	switch {
	case f.conn:
		return
	case f.cut:
		r.Note = "the head was too large to be kept, so the rules that came near are not known"
		return
	}
	f.addRules(r)
}

func (f *facts) addRules(r *Record) {
	met, others := f.service.Explain(&f.req, f.random)
	r.Others = others
	found := false
	for _, c := range met {
		verdict := c.Fails
		if verdict == "" {
			verdict = "fits, but comes later"
			if !found {
				verdict, found = "chosen", true
				if f.info == nil || f.info.Name != c.Route || f.info.Rule != c.Rule {
					r.Note = "a filter changed the head after the route was found: what follows is for the head as it went on"
				}
			}
		}
		r.Met = append(r.Met, Rule{c.Route, c.Rule, verdict, shares(c.Shares, verdict == "chosen")})
	}
}

// shares lists the backends of a rule; which was chosen is of interest where the
// rule was.
func shares(list []snapshot.Share, chosen bool) (out []string) {
	for _, s := range list {
		text := s.Backend
		if len(list) > 1 {
			text += " weight " + strconv.FormatUint(s.Weight, 10)
			if s.Chosen && chosen {
				text += ", chosen"
			}
		}
		if text != "" {
			out = append(out, text)
		}
	}
	return out
}

func (f *facts) addFilters(r *Record) {
	add := func(chain string, c *filters.Chain) {
		for _, s := range c.Steps(&f.trace) {
			r.Filters = append(r.Filters, Step{
				chain, s.Kind, s.Object, s.Verdict, s.Phase, s.Took.Microseconds(), s.Waited.Microseconds(),
			})
		}
	}
	if f.service != nil && !f.conn { // a connection's filters have no phases to tell of
		add("service", f.service.Chain)
	}
	if f.route != nil {
		add("route", f.route.Chain)
	}
}

func (f *facts) addAttempts(r *Record) {
	if f.route != nil && f.route.Backend != nil {
		r.Members = &Counts{f.members, f.healthy}
	}
	for _, a := range f.attempts {
		t := Try{N: a.N, Endpoint: a.Endpoint.String(), Status: a.Status, Sent: a.Sent.String(), Took: a.Took.Microseconds()}
		if a.Workload != nil {
			t.Workload = a.Workload.Namespace + "/" + a.Workload.Name
		}
		if a.Fault != nil {
			t.Fault = a.Fault.Error()
		}
		r.Tries = append(r.Tries, t)
	}
}

// Line is the record in one line.
func (r *Record) Line() string {
	who := cmp.Or(strings.TrimPrefix(r.Source.Principal, "spiffe://"), r.Source.Address, "-")
	what := fmt.Sprintf("%s %s %d", cmp.Or(clean(r.Method), "-"), cmp.Or(clean(r.Path), "-"), r.Status)
	if r.Method == "" && r.Status == 0 {
		what = fmt.Sprintf("%s %d/%d bytes", r.Protocol, r.Received, r.Sent)
	}
	line := fmt.Sprintf("%s %s -> %s %s %s %s %v", r.Time.Format("15:04:05.000"), who, cmp.Or(r.Service, "-"),
		what, r.Flags, r.Details, time.Duration(r.Took)*time.Microsecond)
	if n := len(r.Tries); n > 1 {
		line += fmt.Sprintf(" tries %d", n)
	}
	if r.Route != nil && r.Route.Name != "" {
		line += " route " + r.Route.Name
		if r.Route.Rule != "" {
			line += "[" + r.Route.Rule + "]"
		}
	}
	if r.RequestID != "" {
		line += " id " + clean(r.RequestID)
	}
	return line
}

// clean keeps what a client sent from doing anything to a terminal.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}

// Text is the whole record for people.
func (r *Record) Text() string {
	var b strings.Builder
	row := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s %s\n", label, fmt.Sprintf(format, args...))
	}
	b.WriteString(r.Line() + "\n")
	row("source", "%s %s, workload %s in %s, by %s", cmp.Or(r.Source.Principal, "no identity"), cmp.Or(r.Source.Address, "-"),
		cmp.Or(r.Source.Workload, "unknown"), cmp.Or(r.Source.Namespace, "unknown"), cmp.Or(r.Source.By, "-"))
	row("speaks", "%s, settled by %s%s", r.Speaks, r.Settled, joined(", name ", strings.Fields(clean(r.SNI)), ""))
	for _, m := range r.Met {
		name := m.Route
		if m.Rule != "" {
			name += "[" + m.Rule + "]"
		}
		row("rule", "%s: %s%s", cmp.Or(name, "-"), m.Verdict, joined(" (", m.Backends, ")"))
	}
	if r.Others > 0 {
		row("rules", "%d more are for other paths", r.Others)
	}
	if r.Note != "" {
		row("note", "%s", r.Note)
	}
	for _, s := range r.Filters {
		text := s.Verdict
		if s.Phase != "" {
			text += " in phase " + s.Phase
		}
		if s.Took > 0 {
			text += fmt.Sprintf(", took %dµs", s.Took)
		}
		if s.Waited > 0 {
			text += fmt.Sprintf(", waited %dµs", s.Waited)
		}
		row("filter", "%s %s of %s: %s", s.Chain, cmp.Or(s.Kind, "-"), cmp.Or(s.Object, "-"), text)
	}
	if r.Members != nil {
		row("endpoints", "%d of %d healthy", r.Members.Healthy, r.Members.Members)
	}
	for _, t := range r.Tries {
		text := fmt.Sprintf("%s %s in %dµs", t.Endpoint, cmp.Or(t.Workload, "-"), t.Took)
		if t.Status > 0 {
			text += fmt.Sprintf(", status %d", t.Status)
		}
		if t.Fault != "" {
			text += ", " + t.Fault + ", sent " + t.Sent
		}
		row(fmt.Sprint("attempt ", t.N), "%s", text)
	}
	if r.Fault != "" {
		row("fault", "%s (%s)", clean(r.Fault), r.Side)
	}
	text := ""
	for s := range filters.Stages {
		if took, ok := r.Stages[s.String()]; ok {
			text += fmt.Sprintf("%s %dµs, ", s, took)
		}
	}
	row("stages", "%stogether %dµs", text, r.Took)
	return b.String()
}

func joined(before string, list []string, after string) string {
	if len(list) == 0 {
		return ""
	}
	return before + strings.Join(list, "; ") + after
}
