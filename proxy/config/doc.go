// Package config is the configuration document: its types, its strict
// decoding, its defaults, and every check that needs no engine.
//
// A document lists objects. Each is a name plus the spec that the Gateway API
// or Istio gives it, with upstream field names and meaning, as light types of
// our own. The package does not compile: what a route costs, which filter
// serves it and whether a key set can be fetched is known to proxy/snapshot.
// It imports no Kubernetes and opens no sockets.
//
// # Objects stand alone
//
// A Problem belongs to its object, and only that object is left out: Decode
// lists it under Config.Broken, and Settle keeps the version that was good
// before, or closes what it guarded. Only text that is no document at all is
// rejected whole.
//
// # Memory
//
// Decode keeps nothing of its input. Syntax trees live as long as one YAML
// document is being read. What Limits allows bounds size, depth and aliases.
//
// # Concurrency
//
// A Config is immutable once Decode or Settle has returned it, and may be
// shared. State belongs to one goroutine at a time.
//
// Start reading at Config, then Decode in decode.go; a kind is one file, of
// which service.go is the shortest.
package config
