package route

import (
	"bytes"
	"iter"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Considered is a match that was looked at for a request: its path fits.
type Considered[T any] struct {
	Result T
	// Fails is what of the match does not hold; "" if all does. The first of
	// those wins.
	Fails string
}

// Explain says which matches a request has met, in order of precedence, and how
// many others are for other paths. It is for people, and allocates.
func (t *Table[T]) Explain(r *message.Request) (met []Considered[T], others int) {
	h := head{r: r}
	var path []byte
	path, h.query, _ = bytes.Cut(r.Path, question)
	list := t.index.candidates(path)
	all := t.index.count()
	if t.calls != nil {
		list, all = t.calls.candidates(path), t.calls.count()
	}
	for c := range list {
		met = append(met, Considered[T]{t.results[c.index], h.fails(c)})
	}
	return met, all - len(met)
}

// candidates yields what find looks at, in its order.
func (x *index) candidates(path []byte) iter.Seq[*candidate] {
	return func(yield func(*candidate) bool) {
		if !each(x.exact[string(path)], yield) {
			return
		}
		for n := x.deepest(path); n != nil; n = n.shorter {
			if !each(n.list, yield) {
				return
			}
		}
		for i := range x.regex {
			if c := &x.regex[i]; c.path.Match(path) && !yield(c) {
				return
			}
		}
	}
}

func (x *calls) candidates(path []byte) iter.Seq[*candidate] {
	return func(yield func(*candidate) bool) {
		service, method := called(path)
		if !each(x.exact[string(path)], yield) || !each(x.services[string(service)], yield) {
			return
		}
		for i := range x.rest {
			if c := &x.rest[i]; c.call.fits(service, method) && !yield(c) {
				return
			}
		}
	}
}

func each(list []candidate, yield func(*candidate) bool) bool {
	for i := range list {
		if !yield(&list[i]) {
			return false
		}
	}
	return true
}

func (x *index) count() int {
	n := len(x.regex) + x.root.count()
	for _, list := range x.exact {
		n += len(list)
	}
	return n
}

func (n *node) count() int {
	sum := len(n.list)
	for _, c := range n.children {
		sum += c.count()
	}
	return sum
}

func (x *calls) count() int {
	n := len(x.rest)
	for _, list := range x.exact {
		n += len(list)
	}
	for _, list := range x.services {
		n += len(list)
	}
	return n
}

// fails is holds in words. It names no value: that may be a secret.
func (h *head) fails(c *candidate) string {
	if c.method != "" && c.method != string(h.r.Method) {
		return "the method is not " + c.method
	}
	for i := range c.headers {
		if !h.header(&c.headers[i]) {
			return "header " + c.headers[i].name + " does not fit"
		}
	}
	for i := range c.query {
		if !h.parameter(&c.query[i]) {
			return "query parameter " + c.query[i].name + " does not fit"
		}
	}
	return ""
}
