// Package house holds the tests that keep the rules of this house; it has no
// code.
//
// It does not look at behaviour: that is what each package's own tests are for.
// It reads the tree as text and syntax, in process, and never asks the go
// command, whose test cache would answer after an edit that breaks a rule.
//
// # Memory
//
// The whole tree is parsed once for each test binary and kept until it ends.
//
// # Concurrency
//
// The tree is read-only once loaded; tests share it.
//
// Start reading at rules in house_test.go, then at floors in floors_test.go.
package house
