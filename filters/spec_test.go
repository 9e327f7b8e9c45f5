package filters

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Name string `json:"name"`
	N    int8   `json:"n"`
}

type settings struct {
	Requests int               `json:"requests"`
	Per      time.Duration     `json:"per"`
	Ratio    float64           `json:"ratio"`
	Big      uint16            `json:"big"`
	On       bool              `json:"on"`
	List     []inner           `json:"list"`
	Maybe    *inner            `json:"maybe"`
	Labels   map[string]string `json:"labels"`
	Addr     netip.Addr        `json:"addr"`
	Any      any               `json:"any"`
	Plain    string
	hidden   int
}

func TestDecode(t *testing.T) {
	const text = `{"requests": 5, "per": "1m30s", "ratio": 0.5, "big": 65535, "on": true,
		"list": [{"name": "a", "n": -128}, {}], "maybe": {"name": "b"}, "labels": {"k": "v"},
		"addr": "10.0.0.1", "any": "x", "Plain": "p"}`
	want := settings{Requests: 5, Per: 90 * time.Second, Ratio: 0.5, Big: 65535, On: true,
		List: []inner{{"a", -128}, {}}, Maybe: &inner{Name: "b"}, Labels: map[string]string{"k": "v"},
		Addr: netip.MustParseAddr("10.0.0.1"), Any: "x", Plain: "p"}
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	m["requests"], m["big"] = 5, uint64(65535) // as YAML decoders deliver them
	for name, spec := range map[string]Spec{
		"map": NewSpec(m), "json": NewSpec(json.RawMessage(text)), "typed": NewSpec(want), "typed pointer": NewSpec(&want),
	} {
		var got settings
		if err := spec.Decode(&got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestDecodeKeepsDefaults(t *testing.T) {
	for name, spec := range map[string]Spec{"zero": {}, "empty": NewSpec(map[string]any{}), "null": NewSpec(map[string]any{"per": nil})} {
		got := settings{Per: time.Second, Requests: 3}
		if err := spec.Decode(&got); err != nil || got.Per != time.Second || got.Requests != 3 {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		`{"requets": 5}`:             `requets: unknown field, want one of ["Plain" "addr"`,
		`{"hidden": 5}`:              "hidden: unknown field",
		`{"requests": "5"}`:          "requests is 5, want a number",
		`{"requests": 1.5}`:          "requests is 1.5, want int",
		`{"requests": 1e300}`:        "requests is 1e300, want int",
		`{"big": 65536}`:             "big is 65536, want uint16",
		`{"big": -1}`:                "big is -1, want uint16",
		`{"per": 5}`:                 `per is 5, want a duration such as "1s"`,
		`{"per": "-1s"}`:             `per is -1s, want a duration such as "1s"`,
		`{"on": "true"}`:             "on is true, want true or false",
		`{"list": {}}`:               "list is map[], want a list",
		`{"list": [{}, {"n": 128}]}`: "list[1].n is 128, want int8",
		`{"maybe": {"x": 1}}`:        "maybe.x: unknown field",
		`{"maybe": 1}`:               "maybe is 1, want fields",
		`{"labels": {"k": 1}}`:       "labels.k is 1, want a string",
		`{"labels": []}`:             "labels is [], want map[string]string",
		`{"addr": "ten"}`:            "addr: ",
		`{"addr": 10}`:               "addr is 10, want a string",
		`[]`:                         "the settings is [], want fields",
		`{} {}`:                      "more than one JSON value",
		`{`:                          "unexpected EOF",
		`{"Plain": {"a": ["long"]}}`: "want a string",
	} {
		var got settings
		err := NewSpec(json.RawMessage(text)).Decode(&got)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	if (settings{}).hidden != 0 {
		t.Error("an unexported field was set")
	}
	if err := NewSpec(map[string]any{}).Decode(settings{}); err == nil {
		t.Error("decoded into a value that is no pointer")
	}
}
