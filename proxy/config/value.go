package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// values decodes syntax trees into the document's types, by their plans. It
// goes on after a problem, so that one run shows all of them.
type values struct {
	report *report
	plans  map[reflect.Type]*plan
	path   []string // of the value at hand; items are "[3]"
}

func (d *values) plan(t reflect.Type) *plan {
	p := d.plans[t]
	if p == nil {
		p = planOf(t)
		d.plans[t] = p
	}
	return p
}

func posOf(n *yaml.Node) Pos { return Pos{int32(n.Line), int32(n.Column)} }

func (d *values) problem(code Code, n *yaml.Node, message, fix string) {
	d.report.add(code, posOf(n), joinPath(d.path), message, fix)
}

func joinPath(steps []string) string {
	var b strings.Builder
	for _, s := range steps {
		if b.Len() > 0 && s[0] != '[' {
			b.WriteByte('.')
		}
		b.WriteString(s)
	}
	return b.String()
}

// follow returns what an alias stands for. Depth and number of aliases have
// been bounded before.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// object decodes a mapping into the struct that v is.
func (d *values) object(n *yaml.Node, v reflect.Value) {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, "a mapping of fields")
		return
	}
	p := d.plan(v.Type())
	if p.at != nil {
		v.FieldByIndex(p.at).Set(reflect.ValueOf(posOf(n)))
	}
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := follow(n.Content[i]), n.Content[i+1]
		if !d.fieldName(key, seen) {
			continue
		}
		seen[key.Value] = key
		d.path = append(d.path, step(key.Value))
		d.field(p, key, value, v)
		d.path = d.path[:len(d.path)-1]
	}
	d.absent(p, n, v, seen)
}

// step is a field's name as a path shows it.
func step(name string) string {
	if name == "" || strings.ContainsAny(name, ".[] \n") {
		return strconv.Quote(short(name))
	}
	return short(name)
}

// fieldName reports whether the key is a name that was not there before.
func (d *values) fieldName(key *yaml.Node, seen map[string]*yaml.Node) bool {
	if key.Kind != yaml.ScalarNode {
		d.problem(CodeWrongType, key, "the name of a field is "+kindWord(key), "write a word")
		return false
	}
	if key.ShortTag() == "!!merge" {
		d.problem(CodeYAMLFeature, key, "merge keys (<<) are not used in documents", "write the fields out")
		return false
	}
	if before, ok := seen[key.Value]; ok {
		d.problem(CodeFieldTwice, key,
			fmt.Sprintf("%q is written twice, here and in line %d", short(key.Value), before.Line), "remove one of them")
		return false
	}
	return true
}

// field decodes one field that is present.
func (d *values) field(p *plan, key, value *yaml.Node, v reflect.Value) {
	f := p.field(key.Value)
	switch {
	case f == nil:
		fix := "remove it"
		if guess := p.suggest(key.Value); guess != "" {
			fix = fmt.Sprintf("did you mean %q?", guess)
		}
		d.problem(CodeUnknownField, key, "unknown field", fix)
	case f.index == nil:
		d.problem(CodeNotSupported, key, "not supported in this version", "remove it")
	default:
		d.value(value, v.FieldByIndex(f.index), &f.rule)
	}
}

// absent deals with the fields that are not there.
func (d *values) absent(p *plan, n *yaml.Node, v reflect.Value, seen map[string]*yaml.Node) {
	for i := range p.fields {
		f := &p.fields[i]
		if f.index == nil || seen[f.name] != nil {
			continue
		}
		if f.rule.required {
			if n == nil {
				continue // of a struct that is not there either
			}
			d.problem(CodeMissing, n, f.name+" is missing", "write "+f.name+": …")
			continue
		}
		d.preset(f, v.FieldByIndex(f.index))
	}
}

// preset gives an absent field its default; an absent struct gets those of its
// fields.
func (d *values) preset(f *field, v reflect.Value) {
	if f.rule.preset != nil {
		text := &yaml.Node{Kind: yaml.ScalarNode, Value: *f.rule.preset}
		d.value(text, v, &f.rule)
		return
	}
	if v.Kind() == reflect.Struct && !isText(v.Type()) {
		d.absent(d.plan(v.Type()), nil, v, nil)
	}
}

// value decodes n into v.
func (d *values) value(n *yaml.Node, v reflect.Value, r *rule) {
	n = follow(n)
	if isText(v.Type()) {
		d.text(n, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		d.value(n, fresh.Elem(), r)
		v.Set(fresh)
	case reflect.Struct:
		d.object(n, v)
	case reflect.Slice:
		d.slice(n, v, r)
	case reflect.Map:
		d.stringMap(n, v, r)
	case reflect.String:
		if s, ok := d.stringOf(n); ok && d.checkString(n, s, r) {
			v.SetString(s)
		}
	case reflect.Int32, reflect.Int64:
		if i, ok := d.intOf(n); ok && d.checkInt(n, i, v.Type().Bits(), r) {
			v.SetInt(i)
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
			d.wrongType(n, "true or false")
			return
		}
		v.SetBool(n.Value == "true")
	default:
		panic("config: no decoding for " + v.Type().String())
	}
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// isText reports whether values of the type are written as text of their own.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// text decodes what reads itself: addresses and durations.
func (d *values) text(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Style&yaml.TaggedStyle != 0 {
		want := "an IP address"
		if v.Type() == reflect.TypeFor[Duration]() {
			want = "a duration such as 25ms"
		}
		d.wrongType(n, want)
		return
	}
	s := n.Value
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		if err != nil || !x.IsValid() || x.Zone() != "" {
			d.problem(CodeFormat, n, fmt.Sprintf("%q is not an IP address", short(s)), "write one such as 10.1.0.11 or fd00::11, without port and zone")
			return
		}
		*x = x.Unmap()
	default:
		if err != nil {
			d.problem(CodeFormat, n, short(err.Error()), "write one such as 25ms, 10s or 1h30m: whole numbers with h, m, s or ms")
		}
	}
}

func (d *values) slice(n *yaml.Node, v reflect.Value, r *rule) {
	if n.Kind != yaml.SequenceNode {
		d.wrongType(n, "a list")
		return
	}
	if r.maxItems > 0 && len(n.Content) > r.maxItems {
		d.problem(CodeRange, n, fmt.Sprintf("%d items are more than the %d allowed", len(n.Content), r.maxItems), "split the object")
		return
	}
	if len(n.Content) < r.minItems {
		d.problem(CodeRange, n, "the list is empty", fmt.Sprintf("write %d or more items", r.minItems))
		return
	}
	if len(n.Content) == 0 {
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.path = append(d.path, "["+strconv.Itoa(i)+"]")
		d.value(item, out.Index(i), r)
		d.path = d.path[:len(d.path)-1]
	}
	v.Set(out)
}

func (d *values) stringMap(n *yaml.Node, v reflect.Value, r *rule) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, "a mapping of words to words")
		return
	}
	if r.maxItems > 0 && len(n.Content)/2 > r.maxItems {
		d.problem(CodeRange, n, fmt.Sprintf("%d items are more than the %d allowed", len(n.Content)/2, r.maxItems), "leave some out")
		return
	}
	out := make(map[string]string, len(n.Content)/2)
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := follow(n.Content[i])
		if !d.fieldName(key, seen) {
			continue
		}
		seen[key.Value] = key
		d.path = append(d.path, step(key.Value))
		if s, ok := d.stringOf(follow(n.Content[i+1])); ok {
			out[key.Value] = s
		}
		d.path = d.path[:len(d.path)-1]
	}
	if len(out) > 0 {
		v.Set(reflect.ValueOf(out))
	}
}

// stringOf takes a scalar for text. A plain 1 or true is refused: what reads
// the value next might take it for a number.
func (d *values) stringOf(n *yaml.Node) (string, bool) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!str", "!!timestamp":
			if n.Style&yaml.TaggedStyle == 0 {
				return n.Value, true
			}
		case "!!int", "!!float", "!!bool":
			d.problem(CodeWrongType, n, "this is "+kindWord(n)+", and text is wanted", "write it in quotes: "+strconv.Quote(short(n.Value)))
			return "", false
		}
	}
	d.wrongType(n, "text")
	return "", false
}

// intOf takes a scalar for a whole number: decimal, as JSON has it. YAML would
// take 0120 for 80.
func (d *values) intOf(n *yaml.Node) (int64, bool) {
	digits := strings.TrimPrefix(n.Value, "-")
	plain := digits == "0" || digits != "" && strings.Trim(digits, "0123456789") == "" && digits[0] != '0'
	switch {
	case n.Kind != yaml.ScalarNode || n.Style&yaml.TaggedStyle != 0 || !plain:
		d.wrongType(n, "a whole number")
		return 0, false
	case n.ShortTag() == "!!str":
		d.problem(CodeWrongType, n, "this is "+kindWord(n)+", and a whole number is wanted", "remove the quotes")
		return 0, false
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		d.problem(CodeRange, n, short(n.Value)+" is out of range", "write a smaller number")
	}
	return i, err == nil
}

func (d *values) wrongType(n *yaml.Node, want string) {
	if n.Style&yaml.TaggedStyle != 0 {
		d.problem(CodeYAMLFeature, n, "the tag "+short(n.Tag)+" is not used in documents", "remove it")
		return
	}
	d.problem(CodeWrongType, n, "this is "+kindWord(n)+", and "+want+" is wanted", "write "+want)
}

func kindWord(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + short(n.Value)
	case "!!bool":
		return "the truth value " + short(n.Value)
	}
	return "the text " + strconv.Quote(short(n.Value))
}

func (d *values) checkString(n *yaml.Node, s string, r *rule) bool {
	for _, word := range r.soon {
		if s == word {
			d.problem(CodeNotSupported, n, s+" is known and not supported in this version", "write "+oneOf(r.enum)+", or leave it out")
			return false
		}
	}
	if r.enum != nil {
		return d.checkEnum(n, s, r.enum)
	}
	if r.max != nil && int64(utf8.RuneCountInString(s)) > *r.max {
		d.problem(CodeRange, n, fmt.Sprintf("%d characters are more than the %d allowed", utf8.RuneCountInString(s), *r.max), "write less")
		return false
	}
	if s == "" && (r.min != nil && *r.min > 0 || r.required) {
		d.problem(CodeFormat, n, "the text is empty", "write something, or leave the field out")
		return false
	}
	if r.format != "" {
		f := formats[r.format]
		if !f.fits(s) {
			d.problem(CodeFormat, n, fmt.Sprintf("%q is not allowed here", short(s)), fmt.Sprintf("write %s, at most %d", f.want, f.max))
			return false
		}
	}
	return true
}

func (d *values) checkEnum(n *yaml.Node, s string, words []string) bool {
	for _, word := range words {
		if s == word {
			return true
		}
	}
	fix := "write " + oneOf(words)
	if guess := nearest(s, words); guess != "" && len(words) > 2 {
		fix = fmt.Sprintf("did you mean %s? It is one of %s", guess, oneOf(words))
	}
	d.problem(CodeEnum, n, fmt.Sprintf("%q is not one of the values allowed", short(s)), fix)
	return false
}

func (d *values) checkInt(n *yaml.Node, i int64, bits int, r *rule) bool {
	lo, hi := int64(-1)<<(bits-1), int64(1)<<(bits-1)-1
	if r.min != nil {
		lo = *r.min
	}
	if r.max != nil {
		hi = *r.max
	}
	if i < lo || i > hi {
		d.problem(CodeRange, n, fmt.Sprintf("%d is out of range", i), fmt.Sprintf("write a number from %d to %d", lo, hi))
		return false
	}
	return true
}
