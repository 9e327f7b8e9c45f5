package headers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var (
	_ filters.RequestFilter  = (*requestFilter)(nil)
	_ filters.ResponseFilter = (*responseFilter)(nil)
)

// RequestKind is what configuration calls "RequestHeaderModifier".
func RequestKind() filters.Kind {
	return filters.Kind{Name: "RequestHeaderModifier", New: func(_ *filters.Builder, raw filters.Spec) (filters.Filter, error) {
		e, err := decode(raw, true)
		if err != nil {
			return nil, err
		}
		return &requestFilter{edits: e, host: e.takeHost()}, nil
	}}
}

// ResponseKind is what configuration calls "ResponseHeaderModifier".
func ResponseKind() filters.Kind {
	return filters.Kind{Name: "ResponseHeaderModifier", New: func(_ *filters.Builder, raw filters.Spec) (filters.Filter, error) {
		e, err := decode(raw, false)
		if err != nil {
			return nil, err
		}
		return &responseFilter{e}, nil
	}}
}

func decode(raw filters.Spec, request bool) (*Edits, error) {
	e := new(Edits)
	if err := raw.Decode(e); err != nil {
		return nil, err
	}
	return e, e.check(request)
}

// Edits are the settings of both kinds. They are made in this order.
type Edits struct {
	Set    []Field  `json:"set"`
	Add    []Field  `json:"add"`
	Remove []string `json:"remove"`
}

// A Field is one header field.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// check refuses what a message could not carry or what two entries contradict.
func (e *Edits) check(request bool) error {
	for _, list := range []struct {
		what   string
		fields []Field
	}{{"set", e.Set}, {"add", e.Add}} {
		seen := map[string]bool{}
		for _, f := range list.fields {
			if err := checkName(list.what, f.Name, request && list.what == "set", seen); err != nil {
				return err
			}
			if !message.ValidValue([]byte(f.Value)) {
				return fmt.Errorf("%s: the value of %s has a control character", list.what, f.Name)
			}
			if isHost(f.Name) && !message.ValidAuthority([]byte(f.Value)) {
				return fmt.Errorf("%s: %q is no host, with or without a port", list.what, f.Value)
			}
		}
	}
	seen := map[string]bool{}
	for _, name := range e.Remove {
		if err := checkName("remove", name, false, seen); err != nil {
			return err
		}
	}
	return nil
}

func checkName(what, name string, host bool, seen map[string]bool) error {
	if !message.ValidToken([]byte(name)) {
		return fmt.Errorf("%s: %q is no field name", what, name)
	}
	if message.LookupString(name).Hop() && !(host && isHost(name)) {
		return fmt.Errorf("%s: %s belongs to the connection and cannot be edited", what, name)
	}
	lower := strings.ToLower(name)
	if seen[lower] {
		return fmt.Errorf("%s: %s is listed twice", what, name)
	}
	seen[lower] = true
	return nil
}

func isHost(name string) bool { return message.LookupString(name) == message.Host }

// apply makes the edits. A failed one is impossible: check has seen every name.
func (e *Edits) apply(h *message.Header) {
	for i := range e.Set {
		h.Set(e.Set[i].Name, e.Set[i].Value)
	}
	for i := range e.Add {
		h.Add(e.Add[i].Name, e.Add[i].Value)
	}
	for _, name := range e.Remove {
		h.Del(name)
	}
}

// takeHost takes a new Host out of the edits: it is the request's Authority.
func (e *Edits) takeHost() []byte {
	for i, f := range e.Set {
		if isHost(f.Name) {
			e.Set = slices.Concat(e.Set[:i], e.Set[i+1:])
			return []byte(f.Value)
		}
	}
	return nil
}

type requestFilter struct {
	edits *Edits
	host  []byte // nil: as it was
}

func (f *requestFilter) Request(s *filters.Stream) *filters.Reply {
	if f.host != nil {
		s.Request.SetAuthority(f.host)
	}
	f.edits.apply(&s.Request.Header)
	return nil
}

type responseFilter struct{ edits *Edits }

func (f *responseFilter) Response(s *filters.Stream) *filters.Reply {
	f.edits.apply(&s.Response.Header)
	return nil
}
