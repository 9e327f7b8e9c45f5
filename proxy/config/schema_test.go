package config

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type object = map[string]any

// schemaMaker writes the schema from plans and comments.
type schemaMaker struct {
	docs map[string]string // of "Type" and "Type.Field"
	defs object
}

func makeSchema(t *testing.T) []byte {
	t.Helper()
	m := &schemaMaker{docs: comments(t), defs: object{}}
	root := m.ofStruct(reflect.TypeFor[Config]())
	m.sections(root["properties"].(object))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://sandwich-mesh.io/schema/v1alpha1/waypoint.json"
	root["title"] = DocumentKind
	root["$defs"] = m.defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// comments reads the package's own comments: what a person reads about a field
// in the code, an editor shows.
func comments(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			gen, ok := n.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				return true
			}
			spec := gen.Specs[0].(*ast.TypeSpec)
			out[spec.Name.Name] = strings.Join(strings.Fields(gen.Doc.Text()), " ")
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, id := range field.Names {
						out[spec.Name.Name+"."+id.Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
					}
				}
			}
			return true
		})
	}
	return out
}

func (m *schemaMaker) ofStruct(t reflect.Type) object {
	p := planOf(t)
	properties := object{}
	required := []string{}
	for i := range p.fields {
		f := &p.fields[i]
		if f.index == nil {
			properties[f.name] = object{"not": object{}, "description": "Known, and not supported in this version."}
			continue
		}
		s := m.ofType(f.typ, &f.rule)
		s["description"] = m.describe(t, f.index)
		if f.rule.preset != nil {
			s["default"] = *f.rule.preset
			if n, err := strconv.Atoi(*f.rule.preset); err == nil {
				s["default"] = n
			}
		}
		properties[f.name] = s
		if f.rule.required {
			required = append(required, f.name)
		}
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false, "description": m.docs[t.Name()]}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// describe finds the comment of a field, also of an embedded one.
func (m *schemaMaker) describe(t reflect.Type, index []int) string {
	for ; len(index) > 1; index = index[1:] {
		t = t.Field(index[0]).Type
	}
	return m.docs[t.Name()+"."+t.Field(index[0]).Name]
}

func (m *schemaMaker) ofType(t reflect.Type, r *rule) object {
	switch t {
	case reflect.TypeFor[Duration]():
		return object{"type": "string", "pattern": `^([0-9]{1,5}(h|m|s|ms)){1,4}$`}
	case reflect.TypeFor[netip.Addr]():
		return object{"type": "string", "anyOf": []any{object{"format": "ipv4"}, object{"format": "ipv6"}}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return m.ofType(t.Elem(), r)
	case reflect.Struct:
		if m.defs[t.Name()] == nil {
			m.defs[t.Name()] = object{} // before its fields, which may lead back here
			m.defs[t.Name()] = m.ofStruct(t)
		}
		return object{"$ref": "#/$defs/" + t.Name()}
	case reflect.Slice:
		out := object{"type": "array", "items": m.ofType(t.Elem(), r)}
		bound(out, "minItems", r.minItems)
		bound(out, "maxItems", r.maxItems)
		return out
	case reflect.Map:
		out := object{"type": "object", "additionalProperties": object{"type": "string"}}
		bound(out, "maxProperties", r.maxItems)
		return out
	case reflect.String:
		return ofString(r)
	}
	out := object{"type": "integer"}
	if r.min != nil {
		out["minimum"] = *r.min
	}
	if r.max != nil {
		out["maximum"] = *r.max
	}
	return out
}

func bound(out object, name string, n int) {
	if n > 0 {
		out[name] = n
	}
}

func ofString(r *rule) object {
	out := object{"type": "string"}
	if r.enum != nil {
		out["enum"] = r.enum
		return out
	}
	if r.required || r.min != nil {
		out["minLength"] = 1
	}
	if r.format != "" {
		f := formats[r.format]
		out["pattern"], out["maxLength"] = f.pattern.String(), f.max
	}
	if r.max != nil {
		out["maxLength"] = *r.max
	}
	return out
}

// sections adds the kinds that are known and not active, and what an editor of
// JSON writes.
func (m *schemaMaker) sections(properties object) {
	for i := range kinds {
		k := &kinds[i]
		if !k.active() {
			properties[k.section] = object{
				"type": "array", "items": object{"type": "object"}, "deprecated": true,
				"description": k.name + ": known, and not active in this version" + consequence[k.role] + ".",
			}
		}
	}
	properties["apiVersion"] = object{"const": APIVersion, "description": m.docs["Config.APIVersion"]}
	properties["kind"] = object{"const": DocumentKind, "description": m.docs["Config.Kind"]}
	properties["$schema"] = object{"type": "string", "description": "Where this schema is, for editors."}
}

func TestSchemaIsCurrent(t *testing.T) { golden(t, "schema.json", makeSchema(t)) }

// TestEverythingIsDescribed keeps fields from coming in without a word.
func TestEverythingIsDescribed(t *testing.T) {
	walk := func(path string, s object) {
		for name, p := range s["properties"].(object) {
			if d, _ := p.(object)["description"].(string); !strings.HasSuffix(d, ".") {
				t.Errorf("%s.%s has the description %q, want a sentence", path, name, d)
			}
		}
	}
	var root object
	if err := json.Unmarshal([]byte(Schema()), &root); err != nil {
		t.Fatal(err)
	}
	walk("document", root)
	for name, def := range root["$defs"].(object) {
		walk(name, def.(object))
	}
}

// validator is as much of JSON Schema as ours uses.
type validator struct{ root object }

func (v *validator) check(path string, s object, x any) error {
	if ref, ok := s["$ref"].(string); ok {
		return v.check(path, v.root["$defs"].(object)[strings.TrimPrefix(ref, "#/$defs/")].(object), x)
	}
	if s["not"] != nil {
		return fmt.Errorf("%s is not allowed", path)
	}
	if c := s["const"]; c != nil && c != x {
		return fmt.Errorf("%s is %v", path, x)
	}
	switch x := x.(type) {
	case object:
		return v.object(path, s, x)
	case []any:
		if s["type"] != "array" || !within(s, "minItems", "maxItems", float64(len(x))) {
			return fmt.Errorf("%s is a list of %d", path, len(x))
		}
		for i, item := range x {
			if err := v.check(fmt.Sprintf("%s[%d]", path, i), s["items"].(object), item); err != nil {
				return err
			}
		}
	case string:
		enum, _ := s["enum"].([]any)
		pattern, _ := s["pattern"].(string)
		if s["const"] == nil && s["type"] != "string" || !within(s, "minLength", "maxLength", float64(len(x))) ||
			enum != nil && !slices.Contains(enum, any(x)) || !regexp.MustCompile(pattern).MatchString(x) {
			return fmt.Errorf("%s is %q", path, x)
		}
	case int:
		if s["type"] != "integer" || !within(s, "minimum", "maximum", float64(x)) {
			return fmt.Errorf("%s is %d", path, x)
		}
	default:
		return fmt.Errorf("%s is %v", path, x)
	}
	return nil
}

func within(s object, low, high string, n float64) bool {
	least, _ := s[low].(float64)
	most, ok := s[high].(float64)
	if !ok {
		most = math.MaxInt64
	}
	return n >= least && n <= most
}

func (v *validator) object(path string, s object, x object) error {
	if s["type"] != "object" || !within(s, "minProperties", "maxProperties", float64(len(x))) {
		return fmt.Errorf("%s is an object", path)
	}
	required, _ := s["required"].([]any)
	for _, name := range required {
		if x[name.(string)] == nil {
			return fmt.Errorf("%s has no %s", path, name)
		}
	}
	properties, _ := s["properties"].(object)
	for name, value := range x {
		sub, ok := properties[name].(object)
		if !ok && s["additionalProperties"] == false {
			return fmt.Errorf("%s.%s is unknown", path, name)
		}
		if !ok {
			if sub, ok = s["additionalProperties"].(object); !ok {
				continue
			}
		}
		if err := v.check(path+"."+name, sub, value); err != nil {
			return err
		}
	}
	return nil
}

func (v *validator) document(t *testing.T, text string) error {
	t.Helper()
	var x object
	if err := yaml.Unmarshal([]byte(text), &x); err != nil {
		return err
	}
	for name, value := range x {
		if value == nil {
			delete(x, name) // a heading with nothing under it yet
		}
	}
	return v.check("document", v.root, x)
}

// TestSchemaAgreesWithDecoder holds both against the same samples: what one
// takes the other takes, as far as a schema can say it.
func TestSchemaAgreesWithDecoder(t *testing.T) {
	v := &validator{}
	if err := json.Unmarshal([]byte(Schema()), &v.root); err != nil {
		t.Fatal(err)
	}
	for _, s := range samples {
		text, _ := s.place(s.good)
		if err := v.document(t, text); err != nil {
			t.Errorf("%s: the schema refuses what is right: %v", s.name, err)
		}
		if s.code >= CodeFieldTwice && s.code != CodeNotSupported {
			continue // no business of a schema, or not only
		}
		unsaid := []string{"workload without address", "wrong group", "TCP wrong group"} // one field depends on another
		text, _ = s.place(s.bad)
		if err := v.document(t, text); err == nil && !slices.Contains(unsaid, s.name) {
			// A plain parser does not tell 0120 from 80.
			if s.name != "octal number" {
				t.Errorf("%s: the schema takes what is wrong", s.name)
			}
		}
	}
	for _, name := range []string{"full.yaml", "minimal.yaml", "routes.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", "v0", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.document(t, string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
