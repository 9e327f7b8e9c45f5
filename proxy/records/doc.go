// Package records keeps how the decisions on requests were made, so that why can
// be asked afterwards.
//
// A record has the route and the rules that came near, what each filter did, the
// endpoints that were tried, the fault, and where the time went. Every answer of
// our own has one, and every failure; of the others those that are watched. It
// is written nowhere: a restart forgets.
//
// # Memory
//
// A ring of Size records, each with a copy of its request's head. A head beyond
// maxHead is not kept but for its first line. Heads may hold secrets; a record
// tells no field of them, and no value of a query. What takes thought (which rules
// came near, what a filter is called) is worked out when a record is asked for.
// A record holds on to the service and the route of its time, which may be of a
// document that has been replaced.
//
// # Concurrency
//
// Keeping a record takes the lock of one place in the ring, for as long as a
// copy lasts; asking takes the same lock, for a copy too.
//
// Start reading at Ring.Observe.
package records
