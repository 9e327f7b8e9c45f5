package http1

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"testing"
)

// A payload is one raw request of the collection in ../shared/testdata/http1.
type payload struct {
	Src, Name, B64, Type string
	Error                bool
	raw                  []byte
}

// payloads returns the collection, or nothing where it is absent.
func payloads(t testing.TB) []payload {
	t.Helper()
	b, err := os.ReadFile("../../../shared/testdata/http1/payloads.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []payload
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].raw, err = base64.StdEncoding.DecodeString(list[i].B64); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
