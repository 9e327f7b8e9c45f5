package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// EncodeJSON writes the document as JSON that Decode reads to the same
// document. What Broken and Closed list is not part of it.
func EncodeJSON(c *Config) ([]byte, error) {
	out, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return out, nil
}

// EncodeYAML writes the document as YAML, fields in the order of the types.
func EncodeYAML(c *Config) ([]byte, error) {
	text, err := EncodeJSON(c)
	if err != nil {
		return nil, err
	}
	root, bad := parseJSON(text)
	if bad != nil {
		return nil, fmt.Errorf("encode document: %w", bad)
	}
	plain(root)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(root), enc.Close()); err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return out.Bytes(), nil
}

// plain leaves quotes to the encoder, which knows where they are needed.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}
