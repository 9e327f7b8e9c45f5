package config

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestRedacted(t *testing.T) {
	c, problems := Decode(File{Name: "a.yaml", Data: []byte(`
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: shop}
services: [{name: a, addresses: [10.96.0.1], ports: [{port: 80}]}]
httpRoutes:
- name: r
  parentRefs: [{kind: Service, name: a}]
  rules:
  - matches: [{headers: [{name: x-api-key, value: hunter2}, {name: x-tier, value: gold}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Authorization, value: Bearer hunter2}]}}]
    backendRefs: [{name: a, port: 80}]
`)})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got, err := c.Redacted()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(got) || bytes.Contains(got, []byte("hunter2")) || !bytes.Contains(got, []byte(`"gold"`)) || strings.Count(string(got), `"*"`) != 2 {
		t.Errorf("got %s", got)
	}
	plugin := map[string]any{"pluginConfig": map[string]any{"h": "hunter2"}, "url": "x"}
	if redact(plugin); plugin["pluginConfig"] != "*" || plugin["url"] != "x" {
		t.Errorf("got %v", plugin)
	}
}
