package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/config"
)

const clean = `apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {namespace: shop}
services:
- {name: a, addresses: [10.0.0.1], ports: [{port: 80, appProtocol: http}], endpoints: [{workload: w}]}
workloads:
- {name: w, address: 10.1.0.1}
`

// runCheck writes the document into a directory of its own and checks it there.
func runCheck(t *testing.T, text string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("shop.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = run(append([]string{"check"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestCheckExitCodes(t *testing.T) {
	for _, row := range []struct {
		name, text string
		args       []string
		code       int
		want       string // part of what is shown
	}{
		{"clean", clean, []string{"--config", "shop.yaml"}, 0, "2 of 2 objects active, 0 errors, 0 warnings\n"},
		{"a directory", clean, []string{"--config", "."}, 0, "2 of 2 objects active"},
		{"a warning", clean + "- {name: x, address: 10.1.0.1}\n", []string{"-c", "shop.yaml"}, 0, "3 of 3 objects active, 0 errors, 1 warning\n"},
		{"an error", clean + "- {name: x}\n", []string{"-c", "shop.yaml"}, 1, "2 of 3 objects active, 1 error, 0 warnings\n"},
		{"an error as JSON", clean + "- {name: x}\n", []string{"-c", "shop.yaml", "-o", "json"}, 1, `"WP1103"`},
		{"broken YAML", clean + "}", []string{"-c", "shop.yaml"}, 1, "WP1001"},
		{"no such file", clean, []string{"-c", "shop.yml"}, 2, "WP1002"},
		{"no such file as JSON", clean, []string{"-c", "shop.yml", "-o", "json"}, 2, "WP1002"},
		{"no document named", clean, nil, 2, "write --config"},
		{"no flag before the name", clean, []string{"shop.yaml"}, 2, "write --config shop.yaml"},
		{"unknown flag", clean, []string{"--conf", "shop.yaml"}, 2, "--conf"},
		{"unknown output", clean, []string{"-c", "shop.yaml", "-o", "yaml"}, 2, "-o json"},
	} {
		t.Run(row.name, func(t *testing.T) {
			code, stdout, stderr := runCheck(t, row.text, row.args...)
			if code != row.code || !strings.Contains(stdout+stderr, row.want) {
				t.Errorf("got exit code %d, want %d, and %q in:\n%s%s", code, row.code, row.want, stdout, stderr)
			}
		})
	}
}

func TestCheckTable(t *testing.T) {
	_, got, _ := runCheck(t, clean+`- {name: x, adress: 10.1.0.2, origin: {kind: Pod, namespace: shop, name: x-5}}
authorizationPolicies:
- {name: p, targetRefs: [{kind: Service, name: a}]}
`, "-c", "shop.yaml")
	want := `SEVERITY  CODE    WHERE           OBJECT
error     WP1101  shop.yaml:8:13  Pod shop/x-5
          adress: unknown field
          fix: did you mean "address"?
error     WP1401  shop.yaml:10:3  AuthorizationPolicy shop/p
          AuthorizationPolicy is not active in this version; the services it guards fail closed, all requests are denied
          fix: remove it, or use a version that runs it
closed: Service shop/a, because of AuthorizationPolicy shop/p: all requests are denied

2 of 4 objects active, 2 errors, 0 warnings
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestCheckKnowsEveryRoute has a clean document with all of them, and one in
// which each is broken.
func TestCheckKnowsEveryRoute(t *testing.T) {
	ports := strings.Replace(clean, "ports: [{port: 80, appProtocol: http}]", "ports: [{port: 80, appProtocol: http}, {port: 90, appProtocol: grpc}, {port: 81, appProtocol: tcp}, {port: 443, appProtocol: tls}]", 1)
	routes := ""
	for _, r := range [][2]string{{"http", "80"}, {"grpc", "90"}, {"tcp", "81"}, {"tls", "443"}} {
		routes += r[0] + "Routes:\n- {name: r, parentRefs: [{kind: Service, name: a, port: " + r[1] + "}], rules: [{backendRefs: [{name: a, port: " + r[1] + "}]}]}\n"
	}
	if code, got, _ := runCheck(t, ports+routes, "-c", "shop.yaml"); code != 0 || !strings.Contains(got, "6 of 6 objects active, 0 errors, 0 warnings") {
		t.Errorf("got exit code %d and\n%s", code, got)
	}
	_, got, _ := runCheck(t, ports+strings.ReplaceAll(routes, "rules:", "ruels:"), "-c", "shop.yaml")
	for _, want := range []string{
		`did you mean "rules"?`,
		"closed: Service shop/a, because of HTTPRoute shop/r: requests that no other route takes are answered 500",
		"closed: Service shop/a, because of GRPCRoute shop/r: requests that no other route takes are answered 500",
		"closed: Service shop/a, because of TCPRoute shop/r: connections that no other route takes are refused",
		"closed: Service shop/a, because of TLSRoute shop/r: connections that no other route takes are refused",
		"2 of 6 objects active, 8 errors, 0 warnings",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestCheckJSON(t *testing.T) {
	_, text, _ := runCheck(t, clean+"- {name: x, adress: 10.1.0.2}\nhttpRoutes:\n- {name: r, parentRefs: [{kind: Service, name: a}], rules: [{zz: 1}]}\n", "-c", "shop.yaml", "-o", "json")
	var got findings
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if got.Errors != 2 || got.Warnings != 0 || got.Objects != (objects{2, 4}) || got.Config != "shop.yaml" || len(got.Closed) != 1 {
		t.Errorf("got %+v", got)
	}
	want := config.Problem{
		Code: config.CodeUnknownField, File: "shop.yaml", Line: 8, Column: 13,
		Object: config.ID{Kind: "Workload", Namespace: "shop", Name: "x"},
		Field:  "adress", Message: "unknown field", Fix: `did you mean "address"?`,
	}
	if len(got.Problems) != 2 || got.Problems[0] != want {
		t.Errorf("got %+v, want %+v first", got.Problems, want)
	}
	_, text, _ = runCheck(t, clean, "-c", "shop.yaml", "-o", "json")
	if !strings.Contains(text, `"problems": []`) || !strings.Contains(text, `"closed": []`) {
		t.Errorf("lists without items are not lists: %s", text)
	}
}

// TestCheckPrintsNoEscapes checks a document that would paint the terminal.
func TestCheckPrintsNoEscapes(t *testing.T) {
	for _, output := range []string{"table", "json"} {
		_, got, _ := runCheck(t, clean+`- {name: "\e[31mx", "\e[2J": 1, address: "\e[0m"}`+"\n", "-c", "shop.yaml", "-o", output)
		if strings.Contains(got, "\x1b") || !strings.Contains(got, "[31mx") {
			t.Errorf("-o %s: got %q, want the words without the escapes", output, got)
		}
	}
}

func TestCheckOrdersByPlace(t *testing.T) {
	t.Chdir(t.TempDir())
	head, body, _ := strings.Cut(clean, "workloads:")
	bad := strings.Replace(head, "{workload: w}", "{workload: ww}", 1)
	for name, text := range map[string]string{"b.yaml": bad, "a.yaml": strings.Replace(head, "services:\n- {name: a", "services:\n- {zz: 1, name: b", 1) + "workloads:" + body} {
		if err := os.WriteFile(filepath.Join(".", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	code := run([]string{"check", "-c", "."}, &out, &out)
	first, second := strings.Index(out.String(), "a.yaml:5"), strings.Index(out.String(), "b.yaml:5")
	if code != 1 || first < 0 || second < first {
		t.Errorf("got %d and\n%s", code, out.String())
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"version"}, &out, &out); code != 0 || strings.TrimSpace(out.String()) == "" {
		t.Errorf("got %d, %q", code, out.String())
	}
}
