package config

import (
	"fmt"
	"slices"
	"strings"
)

// HTTPRouteFilter is one step of what is done to requests and responses.
type HTTPRouteFilter struct {
	// The sort of filter; the field of the same name holds its settings.
	Type HTTPRouteFilterType `json:"type" rule:"required,enum=RequestHeaderModifier|ResponseHeaderModifier,soon=RequestMirror|RequestRedirect|URLRewrite|CORS|ExternalAuth|ExtensionRef"`
	// Edits of the request's header.
	RequestHeaderModifier *HTTPHeaderFilter `json:"requestHeaderModifier,omitempty"`
	// Edits of the response's header.
	ResponseHeaderModifier *HTTPHeaderFilter `json:"responseHeaderModifier,omitempty"`

	_ struct{} `soon:"requestMirror"`
	_ struct{} `soon:"requestRedirect"`
	_ struct{} `soon:"urlRewrite"`
	_ struct{} `soon:"cors"`
	_ struct{} `soon:"externalAuth"`
	_ struct{} `soon:"extensionRef"`

	At Pos `json:"-"`
}

// HTTPRouteFilterType is a sort of filter.
type HTTPRouteFilterType string

// Filters of this version.
const (
	FilterRequestHeaderModifier  HTTPRouteFilterType = "RequestHeaderModifier"
	FilterResponseHeaderModifier HTTPRouteFilterType = "ResponseHeaderModifier"
)

// HTTPHeaderFilter edits a header: set, then add, then remove.
type HTTPHeaderFilter struct {
	// Fields that replace those of the same name.
	Set []HTTPHeader `json:"set,omitempty" rule:"maxItems=16"`
	// Fields that come beside those of the same name.
	Add []HTTPHeader `json:"add,omitempty" rule:"maxItems=16"`
	// Names of fields that are dropped.
	Remove []string `json:"remove,omitempty" rule:"maxItems=16,format=header"`

	At Pos `json:"-"`
}

// HTTPHeader is a header field.
type HTTPHeader struct {
	// The name, in any case.
	Name string `json:"name" rule:"required,format=header"`
	// The value.
	Value string `json:"value" rule:"required,min=1,max=4096,format=headerValue"`

	At Pos `json:"-"`
}

func checkFilters(r *report, filters []HTTPRouteFilter, field string) {
	seen := make(map[HTTPRouteFilterType]bool, len(filters))
	for i := range filters {
		f := &filters[i]
		at := fmt.Sprintf("%s.filters[%d]", field, i)
		if seen[f.Type] {
			r.add(CodeFilter, f.At, at, fmt.Sprintf("%s is in the list twice", f.Type), "make one filter of them")
		}
		seen[f.Type] = true
		for _, part := range []struct {
			typ   HTTPRouteFilterType
			name  string
			edits *HTTPHeaderFilter
		}{
			{FilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier},
			{FilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier},
		} {
			switch {
			case part.typ == f.Type && part.edits == nil:
				r.add(CodeFilter, f.At, at, part.name+" is missing", fmt.Sprintf("write %s: {set: …}", part.name))
			case part.typ != f.Type && part.edits != nil:
				r.add(CodeFilter, f.At, at, fmt.Sprintf("%s is in a filter of type %s", part.name, f.Type), "make it a filter of its own")
			case part.edits != nil:
				part.edits.check(r, at+"."+part.name)
			}
		}
	}
}

// ownedFields belong to one connection (RFC 9110, section 7.6.1) or frame the
// message. They are rebuilt for each side, so an edit would be without effect.
var ownedFields = []string{"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func (f *HTTPHeaderFilter) check(r *report, field string) {
	for _, list := range []struct {
		name   string
		fields []HTTPHeader
	}{{"set", f.Set}, {"add", f.Add}} {
		seen := make(map[string]bool, len(list.fields))
		for i := range list.fields {
			h := &list.fields[i]
			at := fmt.Sprintf("%s.%s[%d]", field, list.name, i)
			name := strings.ToLower(h.Name)
			if seen[name] {
				r.add(CodeRepeated, h.At, at, fmt.Sprintf("header %q is in the list twice", h.Name), "write both values in one, with a comma")
			}
			seen[name] = true
			checkOwned(r, h.At, at, name)
		}
	}
	for i, name := range f.Remove {
		checkOwned(r, f.At, fmt.Sprintf("%s.remove[%d]", field, i), strings.ToLower(name))
	}
}

func checkOwned(r *report, at Pos, field, name string) {
	if slices.Contains(ownedFields, name) {
		r.add(CodeFramingField, at, field, fmt.Sprintf("%q belongs to the connection, which the proxy writes itself", name), "remove it")
	}
}
