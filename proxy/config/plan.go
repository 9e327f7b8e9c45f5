package config

import (
	"reflect"
	"strconv"
	"strings"
)

// A plan is what the tags of a struct type say about its fields:
//
//	json:"name,omitempty"     the name in the document
//	rule:"required,max=64"    what is allowed; on a list the items are meant,
//	                          but for minItems and maxItems
//	default:"80"              what an absent field means
//	aka:"hostname"            wrong names for which this one is suggested
//	soon:"name"               a known field that is not supported yet; on a
//	                          blank field
//
// The decoder and the schema both read plans, so that they cannot disagree.
type plan struct {
	fields []field
	at     []int // where the position is kept, or nil
}

type field struct {
	name  string
	index []int // nil: known, not supported yet
	typ   reflect.Type
	rule  rule
	aka   []string
}

type rule struct {
	required           bool
	min, max           *int64 // of a number, or of a string's length
	minItems, maxItems int    // 0: no bound
	enum, soon         []string
	format             string
	preset             *string // the default
}

var posType = reflect.TypeFor[Pos]()

// planOf reads the tags of t. A tag that is not understood is a bug here, and
// panics in the first test.
func planOf(t reflect.Type) *plan {
	p := &plan{}
	p.addFields(t, nil)
	return p
}

func (p *plan) addFields(t reflect.Type, outer []int) {
	for i := range t.NumField() {
		sf := t.Field(i)
		index := append(append([]int{}, outer...), i)
		if soon := sf.Tag.Get("soon"); soon != "" {
			p.fields = append(p.fields, field{name: soon})
			continue
		}
		if sf.Anonymous {
			p.addFields(sf.Type, index)
			continue
		}
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Type == posType {
			p.at = index
			continue
		}
		if name == "-" || name == "" {
			continue
		}
		f := field{name: name, index: index, typ: sf.Type, rule: parseRule(sf.Tag.Get("rule"))}
		if preset, ok := sf.Tag.Lookup("default"); ok {
			f.rule.preset = &preset
		}
		if aka := sf.Tag.Get("aka"); aka != "" {
			f.aka = strings.Split(aka, ",")
		}
		p.fields = append(p.fields, f)
	}
}

func parseRule(tag string) rule {
	var r rule
	for part := range strings.SplitSeq(tag, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "":
		case "required":
			r.required = true
		case "min":
			r.min = number(value)
		case "max":
			r.max = number(value)
		case "minItems":
			r.minItems = int(*number(value))
		case "maxItems":
			r.maxItems = int(*number(value))
		case "enum":
			r.enum = strings.Split(value, "|")
		case "soon":
			r.soon = strings.Split(value, "|")
		case "format":
			if _, ok := formats[value]; !ok {
				panic("config: no format " + value)
			}
			r.format = value
		default:
			panic("config: rule " + part + " is not understood")
		}
	}
	return r
}

func number(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic("config: rule with " + s)
	}
	return &n
}

func (p *plan) field(name string) *field {
	for i := range p.fields {
		if p.fields[i].name == name {
			return &p.fields[i]
		}
	}
	return nil
}

// suggest returns the field that was probably meant by an unknown name.
func (p *plan) suggest(name string) string {
	var names []string
	for i := range p.fields {
		f := &p.fields[i]
		for _, wrong := range f.aka {
			if strings.EqualFold(wrong, name) {
				return f.name
			}
		}
		if f.index != nil {
			names = append(names, f.name)
		}
	}
	return nearest(name, names)
}
