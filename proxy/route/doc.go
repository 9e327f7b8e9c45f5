// Package route matches a request head to a rule, and the name that a TLS client
// asks for to a result, by Gateway API precedence.
//
// It knows no document and no backends: a rule is its conditions and a result
// of the caller's type. It finds no service, and never looks at the Host unless
// a rule does. It normalises nothing: a path is matched as it was received, so
// that "//", "/./" and "%2F" are what they are; who wants them folded does that
// before.
//
// # Precedence
//
// Of the matches that hold for a request, the one wins that has, in this order:
// an exact path; the longest path prefix; a regular expression for the path,
// the longer one first; a method; more header conditions; more query
// conditions; the earlier place in the table. Callers list rules by the age of
// their route, then its name, then the rule's place in it.
//
// Of matches for gRPC calls, which have a table of their own: an exact service
// and method; an exact service; of the rest, regular expressions among them, the
// longer service, then the longer method; more header conditions; the earlier
// place.
//
// # Memory
//
// A Table is immutable, and shares nothing with the rules it was made of.
// Finding a rule allocates nothing, with two exceptions: a regular expression
// over a header that is repeated, and over a query value with an escape in it.
//
// # Concurrency
//
// A Table may be used from any goroutine.
//
// Start reading at Table.Find.
package route
