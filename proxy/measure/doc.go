// Package measure counts requests and connections in the mesh's standard metrics.
//
// It knows the names, labels and buckets that dashboards of the mesh look for,
// and turns who called, what was called and how it went into one of their
// series. It keeps no request, decides nothing, and serves nothing: an
// exposition asks it as a Collector.
//
// # Memory
//
// One set of series, for the metrics of one kind of request, is a struct and one
// list of labels; a Meter has at most MaxSets. Beyond that requests are counted
// in sets labelled "overflow", by class of status, so that totals stay right.
// A set that nobody touched for an hour is given up when it is next looked at.
//
// # Concurrency
//
// Counting takes one look into a table of atomic pointers, and a few additions:
// no lock and no allocation, but for the first request of its kind. Sources and
// sets may be shared by all goroutines.
//
// Start reading at Meter.Request.
package measure
