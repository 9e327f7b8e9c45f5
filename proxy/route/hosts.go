package route

import "strings"

// maxHost is how long a name in the DNS can be.
const maxHost = 255

// Hosts finds results by the name that a client asks for. It is made with Add
// and not changed after that; finding allocates nothing.
type Hosts[T any] struct {
	exact  map[string]T
	suffix map[string]T // ".a.example" for *.a.example
	every  *T
}

// Add makes a name find a result; *.a.example stands for every name under
// a.example, and "" for every name and none. The first result for a name stays.
func (h *Hosts[T]) Add(name string, result T) {
	if h.exact == nil {
		h.exact, h.suffix = map[string]T{}, map[string]T{}
	}
	suffix, wild := strings.CutPrefix(name, "*")
	switch {
	case name == "" && h.every == nil:
		h.every = &result
	case name == "":
	case wild:
		setFirst(h.suffix, suffix, result)
	default:
		setFirst(h.exact, name, result)
	}
}

func setFirst[T any](m map[string]T, name string, v T) {
	name = strings.ToLower(name)
	if _, taken := m[name]; !taken {
		m[name] = v
	}
}

// Find returns the result of the most specific name that fits: the name itself,
// the longest wildcard, then what was added for every name. Letter case does not
// count.
func (h *Hosts[T]) Find(name []byte) (result T, ok bool) {
	var lower [maxHost]byte
	if n := len(name); n > 0 && n <= len(lower) {
		for i, c := range name {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			lower[i] = c
		}
		if result, ok = h.exact[string(lower[:n])]; ok {
			return result, true
		}
		for i := 1; i < n && len(h.suffix) > 0; i++ {
			if lower[i] != '.' {
				continue
			}
			if result, ok = h.suffix[string(lower[i:n])]; ok {
				return result, true
			}
		}
	}
	if h.every == nil {
		return result, false
	}
	return *h.every, true
}
