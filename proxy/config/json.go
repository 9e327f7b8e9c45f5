package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A fastJSON reads JSON that is known to be valid: then its grammar needs no
// looking after, and what is left is to cut it into pieces, which takes less than
// half of what the tokens of json.Decoder take (BenchmarkParseJSON).
type fastJSON struct {
	place jsonParser // for positions
	at    int
}

// value reads the next value.
func (p *fastJSON) value(depth int) (*yaml.Node, *syntaxError) {
	begin := p.skip()
	data, at := p.place.data, p.place.place(begin)
	if depth > MaxDepth {
		return nil, &syntaxError{at: at, message: fmt.Sprintf("nested deeper than %d levels", MaxDepth), limit: true}
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: int(at.Line), Column: int(at.Column)}
	switch data[begin] {
	case '{':
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		return p.items(n, '}', depth)
	case '[':
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		return p.items(n, ']', depth)
	case '"':
		n.Tag, n.Style = "!!str", yaml.DoubleQuotedStyle
		n.Value = p.text()
		return n, nil
	}
	for p.at < len(data) && strings.IndexByte(" \t\r\n,:]}", data[p.at]) < 0 {
		p.at++
	}
	n.Value = string(data[begin:p.at])
	switch n.Value[0] {
	case 't', 'f':
		n.Tag = "!!bool"
	case 'n':
		n.Tag = "!!null"
	default:
		n.Tag = "!!int"
		if bytes.ContainsAny(data[begin:p.at], ".eE") {
			n.Tag = "!!float"
		}
	}
	return n, nil
}

// skip goes to where the next token begins, a separator being none.
func (p *fastJSON) skip() int {
	for strings.IndexByte(" \t\r\n,:", p.place.data[p.at]) >= 0 {
		p.at++
	}
	return p.at
}

// items reads what is inside an array or object.
func (p *fastJSON) items(n *yaml.Node, end byte, depth int) (*yaml.Node, *syntaxError) {
	for p.at++; p.place.data[p.skip()] != end; {
		child, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
	}
	p.at++
	return n, nil
}

// text reads a string. One with an escape, or with anything but ASCII, is
// encoding/json's to read.
func (p *fastJSON) text() string {
	data, begin, plain := p.place.data, p.at, true
	for p.at++; data[p.at] != '"'; p.at++ {
		if c := data[p.at]; c == '\\' || c >= 0x80 {
			plain = false
			if c == '\\' {
				p.at++ // what is escaped does not end it
			}
		}
	}
	p.at++
	if plain {
		return string(data[begin+1 : p.at-1])
	}
	var s string
	if err := json.Unmarshal(data[begin:p.at], &s); err != nil {
		panic(err) // the text is valid
	}
	return s
}
