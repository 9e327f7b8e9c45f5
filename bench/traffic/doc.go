// Package traffic makes load and answers it: a closed-loop client that checks
// every byte it gets, and the ends that it talks to.
//
// It decides nothing about what is good or bad; package bench does. Requests and
// responses are of one fixed shape, so both ends stay cheap next to the proxy
// between them: a request of about 250 bytes with 7 fields, an answer with 4
// fields and a body that follows a pattern. Each answer carries its request's
// number back, so a mixed-up answer is an error and not a success. gRPC calls
// carry number and pattern in their messages.
//
// # Memory
//
// A stream keeps its request and, while a head is incomplete, what it has of
// it. Bodies are compared in place against the pattern and never kept.
//
// # Concurrency
//
// Plain connections have a goroutine each. Mesh connections run to completion
// in their read loop. Counters are atomic, so Run may read them at any time.
//
// Start reading at Run.
package traffic
