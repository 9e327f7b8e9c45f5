package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Rule is a result and when it applies: if any of its matches holds, or
// always, if it has none.
type Rule[T any] struct {
	Matches []Match
	Result  T
}

// A Match is a condition: all of its parts must hold. The zero Match holds for
// every request with a path.
type Match struct {
	Path    Path
	Method  string // "" is any
	Headers []Value
	Query   []Value
	Call    *Call // in place of Path, Method and Query
}

// A Call is a condition on what a gRPC request calls. Its path is the service,
// with its package, and the method: /shop.v1.Cart/AddItem. The zero Call holds
// for every request.
type Call struct {
	Service, Method string // "" is any
	Regex           bool   // both are regular expressions (RE2) for the whole name
}

// A Path is a condition on the path, without the query. The zero Path is the
// prefix "/".
type Path struct {
	Type  PathType
	Value string
}

// A PathType says how paths are compared.
type PathType uint8

// Path types. A prefix is compared element by element: /foo is a prefix of /foo
// and /foo/bar and not of /foobar; a slash at its end is ignored. A regular
// expression (RE2) must cover the whole path.
const (
	Prefix PathType = iota
	Exact
	Regex
)

// A Value is a condition on a header field or on a query parameter.
//
// A header's name has no letter case; the values of a repeated field are joined
// with commas (RFC 9110, section 5.3). "host" is the request's authority.
//
// A parameter's name has case, and the first of that name counts. Names and
// values are compared after decoding: %XX is that byte, + is a space, and a %
// without two hexadecimal digits is itself. Parameters are separated by &.
//
// Of two conditions on one name the first counts.
type Value struct {
	Name, Value string
	Regex       bool // Value is a regular expression (RE2) for the whole value
}

// Check says what is wrong with a match, nil if nothing is.
func (m *Match) Check() error {
	_, err := compile(m)
	return err
}

// A candidate is a match, compiled.
type candidate struct {
	method  string
	headers []condition
	query   []condition
	path    *regexp.Regexp // of Regex
	length  int            // of the path as written, for the order of regular expressions
	call    call           // of Call
	index   int32          // of the rule, in the order given
}

// A call is a Call, compiled.
type call struct {
	service, method condition
	lengths         [2]int // of both as written, for the order
}

// A condition is a Value, compiled.
type condition struct {
	name  string
	value string
	regex *regexp.Regexp // nil: value, exactly
	field field
	known message.Known // of a header field's name
}

// A field says where a header condition looks.
type field uint8

const (
	inHeader field = iota
	authority
	upgrade
)

func compile(m *Match) (candidate, error) {
	if m.Call != nil {
		return compileCall(m)
	}
	c := candidate{method: m.Method, length: len(m.Path.Value)}
	if m.Method != "" && !message.ValidMethod([]byte(m.Method)) {
		return c, fmt.Errorf("method: %q is none", m.Method)
	}
	switch m.Path.Type {
	case Prefix, Exact:
		if v := m.Path.Value; v != "" && !message.ValidPath([]byte(v)) || v == "*" || strings.Contains(v, "?") || v == "" && m.Path.Type == Exact {
			return c, fmt.Errorf("path: %q is no path", v)
		}
	case Regex:
		re, err := whole(m.Path.Value)
		if err != nil {
			return c, fmt.Errorf("path: %w", err)
		}
		c.path = re
	default:
		return c, fmt.Errorf("path: unknown type %d", m.Path.Type)
	}
	var err error
	if c.headers, err = compileValues(m.Headers, compileHeader); err != nil {
		return c, fmt.Errorf("header %w", err)
	}
	if c.query, err = compileValues(m.Query, func(*condition) error { return nil }); err != nil {
		return c, fmt.Errorf("query parameter %w", err)
	}
	return c, nil
}

func compileCall(m *Match) (c candidate, err error) {
	if m.Path != (Path{}) || m.Method != "" || m.Query != nil {
		return c, errors.New("call: it stands in place of path, method and query")
	}
	c.call.lengths = [2]int{len(m.Call.Service), len(m.Call.Method)}
	for _, part := range []struct {
		to   *condition
		name string
	}{{&c.call.service, m.Call.Service}, {&c.call.method, m.Call.Method}} {
		switch part.to.value = part.name; {
		case part.name == "":
		case m.Call.Regex:
			if part.to.regex, err = whole(part.name); err != nil {
				return c, fmt.Errorf("call: %w", err)
			}
		case strings.Contains(part.name, "/"):
			return c, fmt.Errorf("call: %q has a slash", part.name)
		}
	}
	if c.headers, err = compileValues(m.Headers, compileHeader); err != nil {
		return c, fmt.Errorf("header %w", err)
	}
	return c, nil
}

// compileValues compiles the first condition on each name.
func compileValues(list []Value, fit func(*condition) error) ([]condition, error) {
	var out []condition
	seen := map[string]bool{}
	for _, v := range list {
		c := condition{name: v.Name, value: v.Value}
		if err := fit(&c); err != nil {
			return nil, err
		}
		if seen[c.name] {
			continue
		}
		seen[c.name] = true
		if v.Regex {
			re, err := whole(v.Value)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", v.Name, err)
			}
			c.regex = re
		}
		out = append(out, c)
	}
	return out, nil
}

// compileHeader finds where the field is: codecs keep Host and Upgrade apart,
// and no other field of the connection at all.
func compileHeader(c *condition) error {
	if !message.ValidToken([]byte(c.name)) {
		return fmt.Errorf("%q: no field has that name", c.name)
	}
	c.name = strings.ToLower(c.name)
	c.known = message.LookupString(c.name)
	switch {
	case c.known == message.Host:
		c.field = authority
	case c.known == message.Upgrade:
		c.field = upgrade
	case c.known.Hop():
		return fmt.Errorf("%q: it belongs to the connection and cannot be matched", c.name)
	}
	return nil
}

func whole(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err // the parentheses below could balance what is not
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}
