package config

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Redacted returns the document as JSON for people: what may be a secret is a
// star. The document refers to secrets by file, so those are the few that can
// stand in it all the same: values of header fields that carry credentials, and
// what a plugin is configured with.
func (c *Config) Redacted() ([]byte, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	redact(tree)
	return json.MarshalIndent(tree, "", "  ")
}

func redact(v any) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			redact(one)
		}
	case map[string]any:
		name, _ := v["name"].(string)
		for k, one := range v {
			switch {
			case k == "pluginConfig", k == "value" && secretField(name):
				v[k] = "*"
			default:
				redact(one)
			}
		}
	}
}

// secretField reports whether a header field of that name carries credentials.
func secretField(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"auth", "cookie", "token", "secret", "password", "key"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
