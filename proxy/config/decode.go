package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A File is one file of a document.
type File struct {
	Name string // as problems show it; JSON if it ends in .json, else YAML
	Data []byte
}

func (f *File) isJSON() bool { return strings.EqualFold(filepath.Ext(f.Name), ".json") }

// Decode reads files as one document, gives every field its default and checks
// every object by itself. Objects with a problem are listed in Broken and left
// out of the lists.
//
// The Config is nil if the document is rejected, which the last problem says.
func Decode(files ...File) (*Config, []Problem) { return decode(files, MaxBytes) }

func decode(files []File, maxBytes int) (*Config, []Problem) {
	d := &decoder{
		c: &Config{APIVersion: APIVersion, Kind: DocumentKind},
		r: &report{},
	}
	d.values = values{report: d.r, plans: make(map[reflect.Type]*plan)}
	total := 0
	for i := range files {
		total += len(files[i].Data)
	}
	if total > maxBytes || len(files) > MaxFiles {
		d.begin(&files[0], Pos{1, 1})
		d.r.add(CodeLimit, Pos{}, "", fmt.Sprintf("%d bytes in %d files are more than %d or %d", total, len(files), maxBytes, MaxFiles), "split the configuration over several waypoints")
		return nil, d.r.problems()
	}
	for i := range files {
		if !d.decodeFile(&files[i]) {
			return nil, d.r.problems()
		}
	}
	if d.read == 0 {
		d.r.begin(ID{Kind: DocumentKind}, nil, "", Pos{})
		if len(files) > 0 {
			d.begin(&files[0], Pos{1, 1})
		}
		d.r.add(CodeNoDocument, Pos{}, "", "there is no document here", "write apiVersion: "+APIVersion+" and kind: "+DocumentKind+" at the top of one")
		return nil, d.r.problems()
	}
	d.finish()
	return d.c, d.r.problems()
}

// decoder is one Decode.
type decoder struct {
	values
	c       *Config
	r       *report
	file    *File
	read    int // documents
	objects int
	namedIn string // the file that gave metadata first
	stop    bool   // the document is rejected
	drafts  []*draft
}

// draft is an object that was read and not yet completed.
type draft struct {
	kind   *kind
	object Object // nil if nothing can be made of it
	broken Broken // what becomes of it if it has failed
	failed bool
	twice  bool // that it has a double was reported
}

// begin turns the report to the document itself.
func (d *decoder) begin(f *File, at Pos) {
	d.r.begin(ID{Kind: DocumentKind}, nil, f.Name, at)
}

// decodeFile reports whether the document may still be taken.
func (d *decoder) decodeFile(f *File) bool {
	d.file = f
	err := documents(f, func(root *yaml.Node) {
		if !d.stop {
			d.read++
			d.document(root)
		}
	})
	if err == nil {
		return !d.stop
	}
	d.begin(f, err.at)
	code, fix := CodeSyntax, "mend the syntax; the whole document waits for it"
	if err.limit {
		code, fix = CodeLimit, "write it out flatter and without aliases"
	}
	d.r.add(code, err.at, "", err.message, fix)
	return false
}

// document reads one YAML document or JSON text.
func (d *decoder) document(root *yaml.Node) {
	at := posOf(root)
	d.begin(d.file, at)
	if root.Kind != yaml.MappingNode {
		d.reject(root, "this is "+kindWord(root)+", not a document")
		return
	}
	if !d.header(root) {
		return
	}
	seen := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := follow(root.Content[i]), follow(root.Content[i+1])
		d.begin(d.file, posOf(key))
		if !d.fieldName(key, seen) {
			d.unreadable(kindOf(key.Value), key)
			continue
		}
		seen[key.Value] = key
		switch key.Value {
		case "apiVersion", "kind", "$schema": // the last is for editors of JSON
		case "metadata":
			d.metadata(value)
		default:
			d.section(key, value)
		}
		if d.stop {
			return
		}
	}
}

func (d *decoder) reject(n *yaml.Node, message string) {
	d.r.add(CodeNotDocument, posOf(n), "", message, "write apiVersion: "+APIVersion+" and kind: "+DocumentKind+"; objects go into lists such as services and httpRoutes, each with its name and spec")
	d.stop = true
}

// header checks what the document says it is.
func (d *decoder) header(root *yaml.Node) bool {
	for _, want := range []struct{ field, value string }{{"apiVersion", APIVersion}, {"kind", DocumentKind}} {
		n := lookup(root, want.field)
		switch {
		case n == nil:
			d.r.add(CodeNoHeader, posOf(root), "", want.field+" is missing", "write "+want.field+": "+want.value)
		case n.Kind != yaml.ScalarNode || n.Value != want.value:
			d.reject(n, fmt.Sprintf("%s is %q", want.field, short(n.Value)))
			return false
		}
	}
	return true
}

// lookup returns a mapping's value of that name, or nil.
func lookup(n *yaml.Node, name string) *yaml.Node {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := follow(n.Content[i]); key.Kind == yaml.ScalarNode && key.Value == name {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

// text returns a mapping's text of that name, or "".
func text(n *yaml.Node, name string) string {
	if v := lookup(n, name); v != nil && v.Kind == yaml.ScalarNode && v.ShortTag() == "!!str" {
		return v.Value
	}
	return ""
}

// metadata reads the document's name. Without it no object can be named, so
// what cannot be read rejects the document.
func (d *decoder) metadata(n *yaml.Node) {
	var m Metadata
	before := len(d.r.list)
	d.path = append(d.path[:0], "metadata")
	d.values.object(n, reflect.ValueOf(&m).Elem())
	d.path = d.path[:0]
	for i := before; i < len(d.r.list); i++ {
		if p := &d.r.list[i]; p.Code != CodeUnknownField && p.Code != CodeNotSupported {
			p.Code = CodeMetadata
			d.stop = true
		}
	}
	known := &d.c.Metadata
	if known.At == (Pos{}) {
		known.At, d.namedIn = m.At, d.file.Name
	}
	for _, f := range []struct {
		name       string
		have, want *string
	}{{"name", &m.Name, &known.Name}, {"namespace", &m.Namespace, &known.Namespace}} {
		if *f.want == "" {
			*f.want = *f.have
		}
		if *f.have != "" && *f.have != *f.want {
			d.r.add(CodeMetadata, posOf(n), "metadata."+f.name,
				fmt.Sprintf("this is %q, and %q in %s:%d", *f.have, *f.want, d.namedIn, known.At.Line),
				"give one document one name; objects may have a namespace each")
			d.stop = true
		}
	}
}

// section reads one list of objects.
func (d *decoder) section(key, value *yaml.Node) {
	k := kindOf(key.Value)
	if k == nil {
		k = d.unknownSection(key, value)
		if k == nil {
			return
		}
	}
	if value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null" {
		return // a heading with nothing under it yet
	}
	if value.Kind != yaml.SequenceNode {
		d.r.add(CodeSectionShape, posOf(value), key.Value, "this is "+kindWord(value)+", and a list of objects is wanted", "begin each object with '- name: …'")
		d.unreadable(k, key)
		return
	}
	for i, item := range value.Content {
		if d.objects++; d.objects > MaxObjects {
			d.begin(d.file, posOf(item))
			d.r.add(CodeLimit, posOf(item), "", fmt.Sprintf("more than %d objects", MaxObjects), "split the configuration over several waypoints")
			d.stop = true
			return
		}
		d.object(k, follow(item), fmt.Sprintf("%s[%d]", key.Value, i), key.Value != k.section)
	}
}

// unreadable notes that no object of the kind could be read.
func (d *decoder) unreadable(k *kind, at *yaml.Node) {
	if k == nil {
		return
	}
	d.drafts = append(d.drafts, &draft{kind: k, failed: true, broken: Broken{
		ID: ID{Kind: k.name}, File: d.file.Name, At: posOf(at), Section: true, Inactive: !k.active(), Role: k.role,
	}})
}

// unknownSection reports a section that this version does not know. Objects
// that were probably meant for a known one are not lost silently: a policy
// under a mistyped heading must not open what it guards.
func (d *decoder) unknownSection(key, value *yaml.Node) *kind {
	var names []string
	for i := range kinds {
		names = append(names, kinds[i].section)
	}
	fix := "remove it, or use a version that knows it"
	guess := nearest(key.Value, names)
	if guess != "" {
		fix = fmt.Sprintf("did you mean %q? Its objects count as broken", guess)
	}
	d.r.add(CodeSection, posOf(key), "", fmt.Sprintf("unknown section %q", short(key.Value)), fix)
	if guess != "" {
		return kindOf(guess)
	}
	return guessKind(key.Value, value)
}

// guessKind makes a kind of a section of a later version, by how its objects
// attach to others; nil if they do not.
func guessKind(section string, list *yaml.Node) *kind {
	if list.Kind != yaml.SequenceNode {
		return nil
	}
	name := cmp.Or(short(section), `""`) // the best word there is for it
	for _, item := range list.Content {
		switch {
		case lookup(item, "targetRefs") != nil || lookup(item, "targetRef") != nil:
			return &kind{name: name, section: section, role: RolePolicy}
		case lookup(item, "parentRefs") != nil:
			return &kind{name: name, section: section, role: RoleRoute}
		}
	}
	return nil
}

// object reads one object. Under a mistyped heading it is broken however well
// it is formed.
func (d *decoder) object(k *kind, n *yaml.Node, at string, misplaced bool) {
	b := Broken{
		ID:   ID{Kind: k.name, Namespace: text(n, "namespace"), Name: text(n, "name")},
		File: d.file.Name, At: posOf(n), Role: k.role, Inactive: !k.active(), Targets: targetsOf(k, n),
	}
	if o := lookup(n, "origin"); o != nil && text(o, "kind") != "" && text(o, "name") != "" {
		b.Origin = &Origin{Kind: text(o, "kind"), Namespace: text(o, "namespace"), Name: text(o, "name")}
	}
	dr := &draft{kind: k, broken: b}
	d.r.begin(b.ID, b.Origin, b.File, b.At)
	switch {
	case misplaced:
		d.r.failed = true // CodeSection was reported
	case !k.active():
		d.r.add(CodeInactiveKind, b.At, "", k.name+" is not active in this version"+consequence[k.role], "remove it, or use a version that runs it")
	default:
		dr.object = k.fresh()
		if b.ID.Name == "" {
			d.path = append(d.path[:0], at)
		}
		d.values.object(n, reflect.ValueOf(dr.object).Elem())
		d.path = d.path[:0]
		dr.object.Head().File = b.File
	}
	dr.failed = d.r.failed
	d.drafts = append(d.drafts, dr)
}

// consequence says what it means that an object of a role is not in force.
var consequence = [...]string{
	RolePlain:  "; it has no effect",
	RoleRoute:  "; requests for its parents that no other route takes are refused",
	RolePolicy: "; the services it guards fail closed, all requests are denied",
}

// targetsOf reads what an object attaches to, however broken the rest of it is.
// It is nil when that cannot be told.
func targetsOf(k *kind, n *yaml.Node) []Target {
	list, preset := lookup(n, "parentRefs"), "Gateway"
	if k.role != RoleRoute {
		list, preset = lookup(n, "targetRefs"), ""
		if one := lookup(n, "targetRef"); list == nil && one != nil {
			list = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{one}}
		}
	}
	if list == nil && lookup(n, "selector") != nil {
		return []Target{} // for workloads: a node tunnel's business, never ours
	}
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) > MaxAliases {
		return nil
	}
	var out []Target
	for _, item := range list.Content {
		t := Target{Kind: cmp.Or(text(item, "kind"), preset), Namespace: text(item, "namespace"), Name: text(item, "name")}
		if t.Name == "" || t.Kind == "" {
			return nil
		}
		out = append(out, t)
	}
	return out
}
