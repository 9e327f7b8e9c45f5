package route

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Table is rules, prepared for finding.
type Table[T any] struct {
	index   index
	calls   *calls // in place of the index, when the rules are for gRPC
	results []T
}

// New prepares rules. The error names the first match that Check refuses, or
// one that is for gRPC among others that are not.
func New[T any](rules []Rule[T]) (*Table[T], error) {
	t := &Table[T]{index: index{exact: map[string][]candidate{}}}
	everything := Match{}
	if slices.ContainsFunc(rules, func(r Rule[T]) bool { return len(r.Matches) > 0 && r.Matches[0].Call != nil }) {
		t.calls = &calls{exact: map[string][]candidate{}, services: map[string][]candidate{}}
		everything.Call = &Call{}
	}
	for i, r := range rules {
		t.results = append(t.results, r.Result)
		matches := r.Matches
		if len(matches) == 0 {
			matches = []Match{everything}
		}
		for j := range matches {
			c, err := compile(&matches[j])
			if err != nil {
				return nil, fmt.Errorf("rule %d, match %d: %w", i, j, err)
			}
			c.index = int32(i)
			switch call := matches[j].Call; {
			case (call != nil) != (t.calls != nil):
				return nil, fmt.Errorf("rule %d, match %d: rules for gRPC and others do not mix", i, j)
			case call != nil:
				t.calls.add(call, c)
			default:
				t.index.add(&matches[j].Path, c)
			}
		}
	}
	t.index.finish()
	if t.calls != nil {
		t.calls.finish()
	}
	return t, nil
}

// Find returns the result of the rule that matches r best.
func (t *Table[T]) Find(r *message.Request) (result T, ok bool) {
	var c *candidate
	if t.calls != nil {
		c = t.calls.find(r)
	} else {
		c = t.index.find(r)
	}
	if c == nil {
		return result, false
	}
	return t.results[c.index], true
}

// Len returns how many rules there are.
func (t *Table[T]) Len() int { return len(t.results) }

// An index holds candidates by path. Lists of one path are in order of
// precedence.
type index struct {
	exact map[string][]candidate
	root  node        // the prefix "/"
	regex []candidate // in order of precedence
}

// A node is one path prefix, an element longer than its parent.
type node struct {
	children map[string]*node
	list     []candidate // of this prefix
	shorter  *node       // the nearest one above that has a list
}

func (x *index) add(p *Path, c candidate) {
	switch p.Type {
	case Exact:
		x.exact[p.Value] = append(x.exact[p.Value], c)
	case Regex:
		x.regex = append(x.regex, c)
	case Prefix:
		n := &x.root
		if path := strings.TrimSuffix(p.Value, "/"); path != "" {
			for element := range strings.SplitSeq(path[1:], "/") {
				n = n.child(element)
			}
		}
		n.list = append(n.list, c)
	}
}

func (n *node) child(element string) *node {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	if n.children[element] == nil {
		n.children[element] = new(node)
	}
	return n.children[element]
}

func (x *index) finish() {
	for _, list := range x.exact {
		slices.SortStableFunc(list, byPrecedence)
	}
	slices.SortStableFunc(x.regex, func(a, b candidate) int {
		return cmp.Or(-cmp.Compare(a.length, b.length), byPrecedence(a, b))
	})
	x.root.finish(nil)
}

func (n *node) finish(shorter *node) {
	slices.SortStableFunc(n.list, byPrecedence)
	n.shorter = shorter
	if len(n.list) > 0 {
		shorter = n
	}
	for _, c := range n.children {
		c.finish(shorter)
	}
}

// byPrecedence orders candidates of equal paths; a stable sort keeps the order
// of the table for the rest.
func byPrecedence(a, b candidate) int {
	return cmp.Or(
		-cmp.Compare(min(len(a.method), 1), min(len(b.method), 1)),
		-cmp.Compare(len(a.headers), len(b.headers)),
		-cmp.Compare(len(a.query), len(b.query)),
	)
}

func (x *index) find(r *message.Request) *candidate {
	h := head{r: r}
	var path []byte
	path, h.query, _ = bytes.Cut(r.Path, question)
	if len(x.exact) > 0 {
		if c := h.first(x.exact[string(path)]); c != nil {
			return c
		}
	}
	for n := x.deepest(path); n != nil; n = n.shorter {
		if c := h.first(n.list); c != nil {
			return c
		}
	}
	for i := range x.regex {
		if c := &x.regex[i]; h.holds(c) && c.path.Match(path) {
			return c
		}
	}
	return nil
}

var question = []byte("?")

// deepest returns the longest prefix of path in the tree.
func (x *index) deepest(path []byte) *node {
	if len(path) == 0 || path[0] != '/' {
		return nil
	}
	n := &x.root
	for rest := path[1:]; len(n.children) > 0; {
		end := bytes.IndexByte(rest, '/')
		element := rest
		if end >= 0 {
			element = rest[:end]
		}
		next := n.children[string(element)]
		if next == nil {
			break
		}
		n = next
		if end < 0 {
			break
		}
		rest = rest[end+1:]
	}
	return n
}
