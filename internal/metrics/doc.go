// Package metrics counts, without locks and without knowing who reads.
//
// It knows no names: who counts chooses them. Expose writes every series in the
// text formats of Prometheus and of OpenMetrics; who serves it is elsewhere.
//
// # Memory
//
// A series lives as long as its Registry. A Registry holds at most MaxSeries;
// beyond that all new series of a family share one, labelled overflow="true",
// so that no client can grow the process by varying a label. A Collector bounds
// its own.
//
// # Concurrency
//
// Counting is atomic and never locks. Making a series locks the Registry and
// looks into a map: do it while building, not per request.
//
// Start reading at Registry.Counter.
package metrics
