package config

import _ "embed"

//go:embed schema.json
var schema string

// Schema returns the JSON Schema of documents (draft 2020-12), for editors.
//
// It is generated from the types: names, types, bounds and defaults from the
// tags that the decoder reads, descriptions from the comments on the fields.
// A test fails when it is stale.
func Schema() string { return schema }
