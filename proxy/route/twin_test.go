package route

import (
	"regexp"
	"strings"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// slowFind is the specification, written down rule by rule. It returns the
// place of the rule that wins, or -1.
func slowFind(rules []Rule[int], r *message.Request) int {
	best, bestRank := -1, []int(nil)
	for i, rule := range rules {
		matches := rule.Matches
		if len(matches) == 0 {
			matches = []Match{{}}
		}
		for _, m := range matches {
			if rank := slowRank(&m, r); rank != nil && (best < 0 || less(bestRank, rank)) {
				best, bestRank = i, rank // equal ranks: the earlier one stays
			}
		}
	}
	return best
}

func less(a, b []int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// slowRank returns nil if m does not hold, else its precedence, widest first.
func slowRank(m *Match, r *message.Request) []int {
	path, query, _ := strings.Cut(string(r.Path), "?")
	var kind, length int
	switch m.Path.Type {
	case Exact:
		if path != m.Path.Value {
			return nil
		}
		kind = 3
	case Prefix:
		prefix := m.Path.Value
		if prefix == "" {
			prefix = "/"
		}
		prefix = strings.TrimSuffix(prefix, "/")
		if !strings.HasPrefix(path, "/") || path != prefix && !strings.HasPrefix(path, prefix+"/") {
			return nil
		}
		kind, length = 2, len(prefix)
	case Regex:
		if !slowWhole(m.Path.Value, path) {
			return nil
		}
		kind, length = 1, len(m.Path.Value)
	}
	method := 0
	if m.Method != "" {
		if m.Method != string(r.Method) {
			return nil
		}
		method = 1
	}
	headers := slowFirst(m.Headers, strings.ToLower)
	for _, h := range headers {
		if v, ok := slowHeader(r, h.Name); !ok || !slowFits(h, v) {
			return nil
		}
	}
	params := slowFirst(m.Query, func(s string) string { return s })
	for _, q := range params {
		if v, ok := slowParam(query, q.Name); !ok || !slowFits(q, v) {
			return nil
		}
	}
	return []int{kind, length, method, len(headers), len(params)}
}

func slowWhole(expr, s string) bool {
	return regexp.MustCompile("^(?:" + expr + ")$").MatchString(s)
}

func slowFits(v Value, s string) bool {
	if v.Regex {
		return slowWhole(v.Value, s)
	}
	return s == v.Value
}

func slowFirst(list []Value, key func(string) string) (out []Value) {
	seen := map[string]bool{}
	for _, v := range list {
		if !seen[key(v.Name)] {
			out = append(out, v)
		}
		seen[key(v.Name)] = true
	}
	return out
}

func slowHeader(r *message.Request, name string) (string, bool) {
	if strings.EqualFold(name, "host") {
		return string(r.Authority), true
	}
	if strings.EqualFold(name, "upgrade") {
		return string(r.Upgrade), len(r.Upgrade) > 0
	}
	var values []string
	for n, v := range r.Header.All() {
		if strings.EqualFold(string(n), name) {
			values = append(values, string(v))
		}
	}
	return strings.Join(values, ","), values != nil
}

func slowParam(query, name string) (string, bool) {
	for _, pair := range strings.Split(query, "&") {
		n, v, _ := strings.Cut(pair, "=")
		if pair != "" && slowDecode(n) == name {
			return slowDecode(v), true
		}
	}
	return "", false
}

var escape = regexp.MustCompile(`\+|%[0-9a-fA-F]{2}`)

func slowDecode(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		if e == "+" {
			return " "
		}
		digits := "0123456789abcdef"
		e = strings.ToLower(e)
		return string([]byte{byte(strings.IndexByte(digits, e[1])<<4 | strings.IndexByte(digits, e[2]))})
	})
}
