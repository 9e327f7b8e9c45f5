package load

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxKinds bounds a mix: each kind has a histogram in each worker.
	maxKinds = 64
	// maxMix bounds a mix's file.
	maxMix = 1 << 20
)

// mixFile is what the file of a mix has:
//
//	requests:
//	- name: list                # unique; the path if left out
//	  weight: 3                 # three of these for each with weight 1
//	  path: /items?page=1
//	  headers: {accept: application/json}
//	  expect: {status: 200, bytes: 1024}
//	- {name: buy, method: POST, path: /orders, size: 512}
type mixFile struct {
	Requests []mixKind `yaml:"requests"`
}

type mixKind struct {
	Name    string    `yaml:"name"`
	Weight  *float64  `yaml:"weight"`
	Method  string    `yaml:"method"`
	Path    string    `yaml:"path"`
	Host    string    `yaml:"host"`
	Headers yaml.Node `yaml:"headers"` // a mapping, in the order of the file
	Size    int       `yaml:"size"`
	Body    string    `yaml:"body"`
	Expect  struct {
		Status int    `yaml:"status"`
		Bytes  *int64 `yaml:"bytes"`
	} `yaml:"expect"`
}

// ParseMix reads a mix of requests; name is what errors call it. What is wrong
// with a request for some protocol is found when the run starts.
func ParseMix(name string, text []byte) ([]Kind, error) {
	kinds, err := parseMix(text)
	if err != nil {
		return nil, fmt.Errorf("mix %s: %w", name, err)
	}
	return kinds, nil
}

func parseMix(text []byte) ([]Kind, error) {
	if len(text) > maxMix {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", len(text), maxMix)
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	var f mixFile
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&mixFile{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one document")
	}
	if len(f.Requests) == 0 || len(f.Requests) > maxKinds {
		return nil, fmt.Errorf("it has %d requests, and wants 1 to %d, as a list under the word requests", len(f.Requests), maxKinds)
	}
	var kinds []Kind
	names := map[string]bool{}
	for i := range f.Requests {
		k, err := f.Requests[i].kind()
		if err == nil && names[k.Name] {
			err = errors.New("there are two of that name; give each a name of its own")
		}
		if err != nil {
			return nil, fmt.Errorf("request %d (%q): %w", i+1, k.Name, err)
		}
		names[k.Name] = true
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func (m *mixKind) kind() (Kind, error) {
	k := Kind{Name: m.Name, Weight: 1, Method: m.Method, Path: m.Path, Host: m.Host, Size: m.Size,
		Body: []byte(m.Body), Status: m.Expect.Status, Bytes: -1}
	if k.Path == "" {
		k.Path = "/"
	}
	if k.Name == "" {
		k.Name = k.Path
	}
	if m.Weight != nil {
		k.Weight = *m.Weight
	}
	if m.Expect.Bytes != nil {
		k.Bytes = *m.Expect.Bytes
	}
	switch n := &m.Headers; {
	case n.Kind == 0:
	case n.Kind != yaml.MappingNode:
		return k, fmt.Errorf("line %d: headers are a mapping of names to values", n.Line)
	default:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i+1].Kind != yaml.ScalarNode {
				return k, fmt.Errorf("line %d: the value of header %q is no text", n.Content[i+1].Line, n.Content[i].Value)
			}
			k.Fields = append(k.Fields, Field{n.Content[i].Value, n.Content[i+1].Value})
		}
	}
	if k.Weight == 0 {
		return k, errors.New("weight is 0: it must be more")
	}
	if len(k.Body) > 0 && k.Size != 0 {
		return k, errors.New("it has both a body and a size: write one of them")
	}
	check := k.withDefaults(Target{Addr: "host:1", Protocol: HTTP1})
	return k, check.check(HTTP1)
}
