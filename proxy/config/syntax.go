package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits on what is read. All are far above what a mesh needs: 8 MiB hold
// about 60,000 workloads.
const (
	MaxBytes   = 8 << 20 // of all files of a document
	MaxFiles   = 1000
	MaxDepth   = 64      // of nesting
	MaxObjects = 100_000 // of a document
	MaxAliases = 1000    // of one YAML document
	// MaxAliased is how many values may be reached through aliases in one YAML
	// document, so that a few lines cannot stand for gigabytes.
	MaxAliased = 100_000
)

// A syntaxError is why a file could not be read as YAML or JSON.
type syntaxError struct {
	at      Pos
	message string
	limit   bool
}

func (e *syntaxError) Error() string { return e.message }

// documents calls each with the root of every document in the file, one after
// the other, so that one tree is held at a time.
func documents(f *File, each func(root *yaml.Node)) *syntaxError {
	if f.isJSON() {
		root, err := parseJSON(f.Data)
		if err == nil && root != nil {
			each(root)
		}
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(f.Data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return yamlError(err, f.Data)
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
			continue
		}
		root := doc.Content[0]
		if err := measure(root); err != nil {
			return err
		}
		if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
			continue // nothing between two ---
		}
		each(root)
	}
}

var (
	yamlLine   = regexp.MustCompile(`^line (\d+): `)
	yamlAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// yamlError reads the line out of the parser's message, the only place where
// it is. What its grammar refuses it counts from 0, what its scanner refuses
// from 1, and the first line it leaves out.
func yamlError(err error, text []byte) *syntaxError {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := Pos{1, 1}
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		if line, err := strconv.Atoi(m[1]); err == nil && line > 0 {
			at.Line = int32(line)
			if strings.HasPrefix(message, "did not find expected ") {
				at.Line++
			}
		}
	}
	if m := yamlAnchor.FindStringSubmatch(message); m != nil {
		before, _, _ := bytes.Cut(text, []byte("*"+m[1]))
		at.Line += int32(bytes.Count(before, []byte("\n")))
	}
	return &syntaxError{at: at, message: message}
}

// measure refuses trees that are too deep, and aliases that stand for too much.
// An alias inside what it stands for is too deep by nature.
func measure(root *yaml.Node) *syntaxError {
	m := meter{}
	m.walk(root, 1, false)
	return m.err
}

type meter struct {
	aliases, aliased int
	err              *syntaxError
}

func (m *meter) walk(n *yaml.Node, depth int, aliased bool) {
	if n.Kind == yaml.AliasNode {
		if !aliased {
			m.aliases++
		}
		if m.aliases > MaxAliases {
			m.fail(n, fmt.Sprintf("more than %d aliases", MaxAliases))
			return
		}
		n, aliased = n.Alias, true
	}
	if aliased {
		if m.aliased++; m.aliased > MaxAliased {
			m.fail(n, fmt.Sprintf("aliases stand for more than %d values", MaxAliased))
			return
		}
	}
	if depth > MaxDepth {
		m.fail(n, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
		return
	}
	for _, child := range n.Content {
		if m.err != nil {
			return
		}
		m.walk(child, depth+1, aliased)
	}
}

func (m *meter) fail(n *yaml.Node, message string) {
	if m.err == nil {
		m.err = &syntaxError{at: posOf(n), message: message, limit: true}
	}
}

// parseJSON reads a JSON text into the tree that YAML gives. The YAML parser
// reads most JSON, but not surrogate pairs or names beyond 1 KiB.
func parseJSON(data []byte) (*yaml.Node, *syntaxError) {
	if json.Valid(data) {
		p := fastJSON{place: jsonParser{data: data, line: 1}}
		return p.value(1)
	}
	return parseSlowly(data)
}

// parseSlowly is parseJSON for what has errors, which it can place, and the slow twin
// of fastJSON.
func parseSlowly(data []byte) (*yaml.Node, *syntaxError) {
	p := jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.dec.UseNumber()
	root, err := p.value(1)
	if errors.Is(err, io.EOF) && root == nil && len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	if err == nil {
		if _, at, more := p.next(); !errors.Is(more, io.EOF) {
			err = &syntaxError{at: at, message: "there is more after the end of the document"}
		}
	}
	if err == nil {
		return root, nil
	}
	var known *syntaxError
	if errors.As(err, &known) {
		return nil, known
	}
	return nil, p.failure(err)
}

// jsonParser follows the decoder's offset with a line count, forwards only.
type jsonParser struct {
	data            []byte
	dec             *json.Decoder
	seen            int // up to here lines are counted
	line, lineStart int
}

func (p *jsonParser) failure(err error) *syntaxError {
	offset := p.dec.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = max(offset, syntax.Offset-1) // of the last byte read, from 1
	}
	message := err.Error()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		message = "the text ends too early"
	}
	return &syntaxError{at: p.place(int(offset)), message: message}
}

// place returns the position of an offset not before the last one asked for.
func (p *jsonParser) place(offset int) Pos {
	offset = min(offset, len(p.data))
	for ; p.seen < offset; p.seen++ {
		if p.data[p.seen] == '\n' {
			p.line, p.lineStart = p.line+1, p.seen+1
		}
	}
	return Pos{int32(p.line), int32(max(offset-p.lineStart, 0) + 1)}
}

// next returns the next token and where it begins.
func (p *jsonParser) next() (json.Token, Pos, error) {
	begin := int(p.dec.InputOffset())
	for begin < len(p.data) && strings.IndexByte(" \t\r\n,:", p.data[begin]) >= 0 {
		begin++
	}
	at := p.place(begin)
	tok, err := p.dec.Token()
	return tok, at, err
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	tok, at, err := p.next()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: int(at.Line), Column: int(at.Column)}
	if depth > MaxDepth {
		return nil, &syntaxError{at: at, message: fmt.Sprintf("nested deeper than %d levels", MaxDepth), limit: true}
	}
	switch x := tok.(type) {
	case json.Delim:
		return p.items(n, x, depth)
	case string:
		n.Tag, n.Value, n.Style = "!!str", x, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!int", x.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(x)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

// items reads what is in a list or mapping, and its end.
func (p *jsonParser) items(n *yaml.Node, open json.Delim, depth int) (*yaml.Node, error) {
	n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	if open == '{' {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	for p.dec.More() {
		child, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
	}
	_, _, err := p.next()
	return n, err
}
