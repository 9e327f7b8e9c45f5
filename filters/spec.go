package filters

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Spec is a filter's settings as the document has them. The zero Spec is no
// settings at all.
type Spec struct{ raw any }

// NewSpec returns a Spec of decoded YAML or JSON (maps, lists, strings, numbers,
// booleans), of a json.RawMessage, or of a filter's own settings type.
func NewSpec(raw any) Spec { return Spec{raw} }

// Decode fills *v, a struct, strictly: a field that v does not have, a value of
// another type and a number that does not fit are errors that name the field.
// Field names come from json tags; a time.Duration is written as "1s". What the
// Spec does not mention keeps its value, so defaults are set before. A Spec of
// v's own type replaces all of it.
func (s Spec) Decode(v any) error {
	dst := reflect.ValueOf(v)
	if dst.Kind() != reflect.Pointer || dst.IsNil() {
		return fmt.Errorf("decode into %T: want a pointer", v)
	}
	raw := s.raw
	switch r := raw.(type) {
	case nil:
		return nil
	case json.RawMessage:
		var err error
		if raw, err = decodeJSON(r); err != nil {
			return err
		}
	default:
		if src := reflect.ValueOf(raw); src.Type() == dst.Type() && !src.IsNil() {
			src = src.Elem()
			dst.Elem().Set(src)
			return nil
		} else if src.Type() == dst.Type().Elem() && src.Kind() == reflect.Struct {
			dst.Elem().Set(src)
			return nil
		}
	}
	return decode("", raw, dst.Elem())
}

func decodeJSON(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}

var durationType = reflect.TypeFor[time.Duration]()

// decode sets dst from raw, which stands at path in the document.
func decode(path string, raw any, dst reflect.Value) error {
	if raw == nil {
		return nil // "field:" with nothing after it keeps the default
	}
	if dst.Type() == durationType {
		return decodeDuration(path, raw, dst)
	}
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		text, ok := raw.(string)
		if !ok {
			return mismatch(path, raw, "a string")
		}
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%s: %w", at(path), err)
		}
		return nil
	}
	switch dst.Kind() {
	case reflect.Pointer:
		p := reflect.New(dst.Type().Elem())
		if err := decode(path, raw, p.Elem()); err != nil {
			return err
		}
		dst.Set(p)
	case reflect.Struct:
		return decodeStruct(path, raw, dst)
	case reflect.Slice:
		return decodeSlice(path, raw, dst)
	case reflect.Map:
		return decodeMap(path, raw, dst)
	case reflect.String:
		v, ok := raw.(string)
		if !ok {
			return mismatch(path, raw, "a string")
		}
		dst.SetString(v)
	case reflect.Bool:
		v, ok := raw.(bool)
		if !ok {
			return mismatch(path, raw, "true or false")
		}
		dst.SetBool(v)
	case reflect.Interface:
		if !reflect.TypeOf(raw).AssignableTo(dst.Type()) {
			return mismatch(path, raw, dst.Type().String())
		}
		dst.Set(reflect.ValueOf(raw))
	default:
		return decodeNumber(path, raw, dst)
	}
	return nil
}

func decodeStruct(path string, raw any, dst reflect.Value) error {
	m, ok := raw.(map[string]any)
	if !ok {
		return mismatch(path, raw, "fields")
	}
	fields := map[string]int{}
	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "-" {
			if name == "" {
				name = f.Name
			}
			fields[name] = i
		}
	}
	for _, name := range sortedKeys(m) {
		i, ok := fields[name]
		if !ok {
			return fmt.Errorf("%s: unknown field, want one of %q", at(join(path, name)), sortedKeys(fields))
		}
		if err := decode(join(path, name), m[name], dst.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func decodeSlice(path string, raw any, dst reflect.Value) error {
	list, ok := raw.([]any)
	if !ok {
		return mismatch(path, raw, "a list")
	}
	out := reflect.MakeSlice(dst.Type(), len(list), len(list))
	for i, v := range list {
		if err := decode(fmt.Sprintf("%s[%d]", path, i), v, out.Index(i)); err != nil {
			return err
		}
	}
	dst.Set(out)
	return nil
}

func decodeMap(path string, raw any, dst reflect.Value) error {
	m, ok := raw.(map[string]any)
	if !ok || dst.Type().Key().Kind() != reflect.String {
		return mismatch(path, raw, dst.Type().String())
	}
	out := reflect.MakeMapWithSize(dst.Type(), len(m))
	for _, name := range sortedKeys(m) {
		v := reflect.New(dst.Type().Elem()).Elem()
		if err := decode(join(path, name), m[name], v); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(name).Convert(dst.Type().Key()), v)
	}
	dst.Set(out)
	return nil
}

func decodeDuration(path string, raw any, dst reflect.Value) error {
	text, ok := raw.(string)
	if !ok {
		return mismatch(path, raw, `a duration such as "1s"`)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return mismatch(path, raw, `a duration such as "1s"`)
	}
	dst.SetInt(int64(d))
	return nil
}

// decodeNumber takes every form in which decoders deliver numbers, and nothing
// that would change its value.
func decodeNumber(path string, raw any, dst reflect.Value) error {
	var n float64
	switch v := raw.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return mismatch(path, raw, "a number")
		}
		n = f
	case int:
		n = float64(v)
	case int64:
		n = float64(v)
	case uint64:
		n = float64(v)
	case float64:
		n = v
	default:
		return mismatch(path, raw, "a number")
	}
	whole := n == math.Trunc(n) && math.Abs(n) <= 1<<53 // what a float64 holds exactly
	switch {
	case dst.CanFloat():
		dst.SetFloat(n)
	case dst.CanInt() && whole && !dst.OverflowInt(int64(n)):
		dst.SetInt(int64(n))
	case dst.CanUint() && whole && n >= 0 && !dst.OverflowUint(uint64(n)):
		dst.SetUint(uint64(n))
	default:
		return mismatch(path, raw, dst.Type().String())
	}
	return nil
}

func mismatch(path string, raw any, want string) error {
	return fmt.Errorf("%s is %.60s, want %s", at(path), fmt.Sprintf("%v", raw), want)
}

func at(path string) string {
	if path == "" {
		return "the settings"
	}
	return path
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
