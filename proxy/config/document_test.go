package config

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func file(text string) File { return File{"test.yaml", []byte(text)} }

// TestDocuments has what concerns the document as a whole. Each bad one differs
// from a good one by one thing.
func TestDocuments(t *testing.T) {
	service := "services:\n- {name: a, ports: [{port: 80}]}\n"
	deep := func(n int) string { // under labels, with three levels above
		return service + "workloads:\n- {name: w, address: 10.0.0.1, labels: " + strings.Repeat("[", n) + strings.Repeat("]", n) + "}\n"
	}
	for _, row := range []struct {
		name string
		text string
		code Code   // of the first problem; none if empty
		want string // part of it
		line int
	}{
		{"good", head + service, "", "", 0},
		{"good, after an empty document", "---\n---\n" + head + service, "", "", 0},
		{"good, an empty section", head + service + "workloads:\n", "", "", 0},
		{"broken YAML", head + "services: }\n", CodeSyntax, "", 3},
		{"broken YAML in the second document", head + service + "---\n" + head + "services: }\n", CodeSyntax, "", 8},
		{"a list among fields", head + "- a\n", CodeSyntax, "", 3},
		{"a colon too many", head + "services: a: b\n", CodeSyntax, "mapping values", 3},
		{"a tab", head + "services:\n\t- a\n", CodeSyntax, "", 4},
		{"an open bracket", head + "services: [\n", CodeSyntax, "", 0},
		{"no such alias", head + service + "workloads: *a\n", CodeSyntax, "unknown anchor", 5},
		{"nothing", "", CodeNoDocument, "apiVersion", 1},
		{"a comment", "# nothing\n", CodeNoDocument, "apiVersion", 1},
		{"a list", "- a\n", CodeNotDocument, "a list", 1},
		{"a word", "a\n", CodeNotDocument, "the text", 1},
		{"a Kubernetes object", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n", CodeNotDocument, "httpRoutes", 1},
		{"another kind", "apiVersion: sandwich-mesh.io/v1alpha1\nkind: Sandwich\n", CodeNotDocument, "kind", 2},
		{"a later version", "apiVersion: sandwich-mesh.io/v2\nkind: Waypoint\n" + service, CodeNotDocument, "sandwich-mesh.io/v2", 1},
		{"no apiVersion", "kind: Waypoint\n" + service, CodeNoHeader, "apiVersion", 1},
		{"no kind", "apiVersion: sandwich-mesh.io/v1alpha1\n" + service, CodeNoHeader, "kind", 1},
		{"a namespace that is none", head + "metadata: {namespace: A}\n" + service, CodeMetadata, "lower case", 3},
		{"a namespace that is a list", head + "metadata: {namespace: []}\n" + service, CodeMetadata, "text", 3},
		{"metadata with more", head + "metadata: {labels: {}}\n" + service, CodeUnknownField, "labels", 3},
		{"two names", head + "metadata: {name: x}\n" + service + "---\n" + head + "metadata: {name: y}\n", CodeMetadata, "test.yaml:3", 9},
		{"one name, said twice", head + "metadata: {name: x}\n" + service + "---\n" + head + "metadata: {name: x, namespace: y}\n", "", "", 0},
		{"unknown section", head + service + "gadgets: []\n", CodeSection, "remove it", 5},
		{"mistyped section", head + service + "htpRoutes: []\n", CodeSection, `"httpRoutes"`, 5},
		{"a section that is a mapping", head + "services: {a: {ports: [{port: 80}]}}\n", CodeSectionShape, "- name", 3},
		{"a section twice", head + service + service, CodeFieldTwice, "line 3", 5},
		{"a section named by a list", head + service + "[a]: []\n", CodeWrongType, "a list", 5},
		{"as deep as can be", head + deep(MaxDepth-3), CodeWrongType, "labels", 6},
		{"deeper", head + deep(MaxDepth-2), CodeLimit, "nested", 6},
		{"an alias", head + "services:\n- {name: a, ports: &p [{port: 80}]}\n- {name: b, ports: *p}\n", "", "", 0},
		{"an alias in itself", head + "services:\n- {name: a, ports: &p [*p]}\n", CodeLimit, "nested", 4},
		{"aliases as allowed", head + service + "workloads: [&a {}" + strings.Repeat(", *a", MaxAliases) + "]\n", CodeMissing, "", 5},
		{"one alias too many", head + service + "workloads: [&a {}" + strings.Repeat(", *a", MaxAliases+1) + "]\n", CodeLimit, "aliases", 5},
		{"aliases of aliases", head + "x: [&a [1,1,1,1,1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b], &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d], [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]]\n", CodeLimit, "stand for", 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, problems := Decode(file(row.text))
			if row.code == "" {
				if c == nil || len(problems) > 0 {
					t.Fatalf("got %s, want none", lines(problems))
				}
				return
			}
			if len(problems) == 0 || problems[0].Code != row.code || !strings.Contains(problems[0].String(), row.want) {
				t.Fatalf("got %s\nwant %s with %q", lines(problems), row.code, row.want)
			}
			if p := problems[0]; p.Line < 1 || row.line > 0 && p.Line != row.line {
				t.Errorf("got line %d, want %d", p.Line, row.line)
			}
			if (c == nil) != Fatal(problems) || (c == nil) != (row.code.Effect() == Rejected) {
				t.Errorf("document taken: %v, for %s", c != nil, lines(problems))
			}
		})
	}
}

// TestSizeIsBounded decodes a document of the size allowed and one byte more.
func TestSizeIsBounded(t *testing.T) {
	text := head + "services:\n- {name: a, ports: [{port: 80}]}\n"
	text += "#" + strings.Repeat("x", MaxBytes-len(text)-1)
	if c, problems := Decode(file(text)); c == nil {
		t.Errorf("%d bytes were refused: %s", len(text), lines(problems))
	}
	for _, files := range [][]File{{file(text + "x")}, {file(text), file("x")}} {
		c, problems := Decode(files...)
		if c != nil || len(problems) != 1 || problems[0].Code != CodeLimit {
			t.Errorf("%d bytes were not refused: %s", len(text)+1, lines(problems))
		}
	}
	many := make([]File, MaxFiles)
	for i := range many {
		many[i] = File{fmt.Sprintf("f%d.yaml", i), []byte(head)}
	}
	if c, _ := Decode(many...); c == nil {
		t.Errorf("%d files were refused", len(many))
	}
	if c, _ := Decode(append(many, file(head))...); c != nil {
		t.Errorf("%d files were not refused", len(many)+1)
	}
}

func TestObjectsAreBounded(t *testing.T) {
	text := head + "x:\nworkloads:\n" + strings.Repeat("- \n", MaxObjects)
	if c, problems := Decode(file(text)); c == nil {
		t.Errorf("%d objects were refused: %s", MaxObjects, lines(problems[:1]))
	}
	c, problems := Decode(file(text + "- \n"))
	if c != nil || !Fatal(problems) {
		t.Errorf("%d objects were not refused", MaxObjects+1)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(head + "services:\n- {name: a, ports: [{port: 80}]}\n- {name: b, ports: [{port: 80}]")
	for i := range maxPerObject + 5 {
		fmt.Fprintf(&b, ", zz%d: 1", i)
	}
	c, problems := Decode(file(b.String() + "}\n"))
	if len(problems) != maxPerObject+1 || problems[maxPerObject].Code != CodeTooMany || !strings.HasPrefix(problems[maxPerObject].Message, "5 more") {
		t.Errorf("got %d problems, want %d and a last one for 5 more", len(problems), maxPerObject)
	}
	if len(c.Services) != 1 || len(c.Broken) != 1 {
		t.Errorf("got %d services and %d broken, want 1 and 1", len(c.Services), len(c.Broken))
	}
	text := head + "workloads:\n" + strings.Repeat("- {}\n", maxPerDocument+1)
	c, problems = Decode(file(text))
	if len(problems) != maxPerDocument+1 || len(c.Broken) != maxPerDocument+1 {
		t.Errorf("got %d problems of %d broken objects, want %d of %d", len(problems), len(c.Broken), maxPerDocument+1, maxPerDocument+1)
	}
}

// TestMemoryIsBounded decodes the densest text there is: what is allocated is a
// fixed multiple of its size.
func TestMemoryIsBounded(t *testing.T) {
	if raceBuild {
		t.Skip("the race detector makes pools forget")
	}
	const most = 600 // bytes allocated per byte read
	for name, text := range map[string]string{
		"numbers": head + "x: [" + strings.Repeat("1,", 1<<18) + "]\n",
		"lists":   head + "x: [" + strings.Repeat("[],", 1<<18) + "]\n",
		"objects": head + "workloads: [" + strings.Repeat("{},", 50_000) + "]\n",
		"fields":  head + "services: [{" + strings.Repeat("a: 1,", 1<<17) + "}]\n",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		Decode(file(text))
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); got > most {
			t.Errorf("%s: %d bytes allocated per byte of text, want at most %d", name, got, most)
		} else {
			t.Logf("%s: %d bytes allocated per byte of text", name, got)
		}
	}
}

func TestDirectoryMerges(t *testing.T) {
	c, problems := Decode(
		File{"a.yaml", []byte(head + "services:\n- {name: a, ports: [{port: 80}]}\n---\n" + head + "services:\n- {name: b, ports: [{port: 80}]}\n")},
		File{"b.json", []byte(`{"apiVersion": "sandwich-mesh.io/v1alpha1", "kind": "Waypoint", "metadata": {"namespace": "shop"}, "services": [{"name": "c", "ports": [{"port": 80}]}]}`)},
	)
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	var got []string
	for _, s := range c.Services {
		got = append(got, fmt.Sprintf("%s %s:%d", s.Key(), s.File, s.At.Line))
	}
	if want := "shop/a a.yaml:4 shop/b a.yaml:9 shop/c b.json:1"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestDoublesAreNobody gives one name twice, and a third time: all are refused
// and each problem names another place.
func TestDoublesAreNobody(t *testing.T) {
	one := File{"a.yaml", []byte(head + "services:\n- {name: a, ports: [{port: 80}]}\n- {name: b, ports: [{port: 80}]}\n")}
	two := File{"b.yaml", []byte(head + "services:\n- {name: a, ports: [{port: 81}]}\n- {name: a, namespace: default, ports: [{port: 82}]}\n- {name: a, namespace: other, ports: [{port: 80}]}\n")}
	c, problems := Decode(one, two)
	if len(c.Services) != 2 || len(c.Broken) != 3 || len(problems) != 3 {
		t.Fatalf("got %d services, %d broken: %s", len(c.Services), len(c.Broken), lines(problems))
	}
	for i, want := range []string{"a.yaml:4:3: error WP1106: Service default/a: there is another Service default/a at b.yaml:4", "b.yaml:4:3: error WP1106: Service default/a: there is another Service default/a at a.yaml:4", "b.yaml:5:3: error WP1106: Service default/a: there is another Service default/a at a.yaml:4"} {
		if !strings.HasPrefix(problems[i].String(), want) {
			t.Errorf("got  %s\nwant %s", problems[i].String(), want)
		}
	}
}

// TestJSONIsRead has what the YAML parser would not read as JSON does.
func TestJSONIsRead(t *testing.T) {
	doc := func(rest string) File {
		return File{"test.JSON", []byte(`{"apiVersion": "sandwich-mesh.io/v1alpha1", "kind": "Waypoint",` + "\n" + rest + "}")}
	}
	long := strings.Repeat("k", 2000)
	c, problems := Decode(doc(`	"workloads": [{"name": "w", "address": "10.1.0.1", "weight": 3, "labels": {"a": "\ud83d\ude00\/", "` + long + `": "x"}}]`))
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	if w := c.Workloads[0]; w.Labels["a"] != "😀/" || w.Labels[long] != "x" || *w.Weight != 3 {
		t.Errorf("got %+v", w)
	}
	for _, row := range []struct {
		name, rest string
		code       Code
		line, col  int
	}{
		{"unknown field", `  "workloads": [{"name": "w",` + "\n" + `"address": "10.1.0.1", "x": 1}]`, CodeUnknownField, 3, 24},
		{"field twice", `"workloads": [{"name": "w", "name": "w", "address": "10.1.0.1"}]`, CodeFieldTwice, 2, 29},
		{"comment", `"workloads": [] // none`, CodeSyntax, 2, 17},
		{"trailing comma", `"workloads": [],`, CodeSyntax, 2, 17},
		{"more behind it", `"workloads": []} {`, CodeSyntax, 2, 18},
		{"cut off", `"workloads": [`, CodeSyntax, 2, 15},
		{"deep", `"workloads": ` + strings.Repeat("[", 70) + strings.Repeat("]", 70), CodeLimit, 2, 77},
		{"null", `"workloads": [null]`, CodeWrongType, 2, 15},
		{"fraction", `"workloads": [{"name": "w", "address": "10.1.0.1", "weight": 1.0}]`, CodeWrongType, 2, 62},
		{"number for text", `"workloads": [{"name": 1, "address": "10.1.0.1"}]`, CodeWrongType, 2, 24},
		{"truth value for text", `"workloads": [{"name": true, "address": "10.1.0.1"}]`, CodeWrongType, 2, 24},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, problems := Decode(doc(row.rest))
			if len(problems) != 1 || problems[0].Code != row.code || problems[0].Line != row.line || problems[0].Column != row.col {
				t.Errorf("got %s\nwant %s at %d:%d", lines(problems), row.code, row.line, row.col)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	c, problems := Decode(file(head + `
services:
- {name: a, ports: [{port: 80}], endpoints: [{workload: w}]}
workloads:
- {name: w, namespace: x, address: "::ffff:10.1.0.1"}
httpRoutes:
- {name: r, parentRefs: [{name: waypoint}], rules: [{matches: [{method: GET}], backendRefs: [{name: a, port: 80}]}]}
`))
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	s, w, r := c.Services[0], c.Workloads[0], c.HTTPRoutes[0]
	b := r.Rules[0].BackendRefs[0]
	for _, row := range []struct{ what, got, want string }{
		{"the waypoint", c.Metadata.Namespace + "/" + c.Metadata.Name, "default/waypoint"},
		{"hostname", s.Hostnames[0], "a.default.svc.cluster.local"},
		{"target port", fmt.Sprint(s.Ports[0].TargetPort), "80"},
		{"load balancing", string(s.LoadBalancer.Simple), "LEAST_REQUEST"},
		{"endpoint", s.Endpoints[0].Namespace, "default"},
		{"identity", w.Identity(), "spiffe://cluster.local/ns/x/sa/default"},
		{"addresses", fmt.Sprint(w.Addresses, w.Address.IsValid()), "[10.1.0.1] false"},
		{"workload", fmt.Sprint(*w.Weight, w.Protocol, w.Health), "1 HBONE HEALTHY"},
		{"parent", r.ParentRefs[0].Kind + " " + r.ParentRefs[0].Namespace, "Gateway default"},
		{"match", fmt.Sprint(r.Rules[0].Matches[0].Path.Type, r.Rules[0].Matches[0].Path.Value), "PathPrefix/"},
		{"backend", fmt.Sprint(b.Kind, b.Namespace, *b.Weight), "Service default 1"},
	} {
		if row.got != strings.ReplaceAll(row.want, " ", " ") && strings.ReplaceAll(row.got, " ", "") != strings.ReplaceAll(row.want, " ", "") {
			t.Errorf("%s: got %q, want %q", row.what, row.got, row.want)
		}
	}
}

func TestOriginIsNamed(t *testing.T) {
	_, problems := Decode(file(head + "workloads:\n- {name: w, zz: 1, address: 10.1.0.1, origin: {kind: Pod, namespace: shop, name: web-6f, generation: 4}}\n"))
	if len(problems) != 1 || !strings.Contains(problems[0].String(), "Pod shop/web-6f") {
		t.Errorf("got %s, want the origin named", lines(problems))
	}
}
