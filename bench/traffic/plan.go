package traffic

import (
	"fmt"
	"time"
)

// Ways to reach the proxy.
const (
	ViaPlain = "plain" // HTTP/1.1 over TCP
	ViaProxy = "proxy" // the same behind a PROXY v2 header
	ViaHBONE = "hbone" // in CONNECT streams of mutual-TLS HTTP/2 connections
)

// A Plan says what load to make. It crosses process borders as JSON.
type Plan struct {
	Addr string // of the proxy
	Via  string
	// Conns is how many mesh connections carry the streams of all groups.
	// Other ways have one connection for each stream.
	Conns int
	// Calls is how many gRPC calls go on at once in each CONNECT stream, on one
	// HTTP/2 connection inside it. 0 is HTTP/1.1, one request at a time.
	Calls    int
	Groups   []Group
	To       string // what CONNECT or the PROXY header is bound for, IP:port
	Identity string // the source's, in the PROXY header
	Certs    Certs  // for HBONE
	PID      int    // the process whose CPU time is taken along; 0: none
}

// check says what cannot be planned.
func (p *Plan) check() error {
	if p.Via != ViaPlain && p.Via != ViaProxy && p.Via != ViaHBONE {
		return fmt.Errorf("plan goes via %q, which is unknown", p.Via)
	}
	for _, g := range p.Groups {
		if p.Calls > 0 && (p.Via != ViaHBONE || g.Upload > 0 || g.Rate > 0) {
			return fmt.Errorf("plan of gRPC calls: group %s: they go via %s, and neither upload nor read slowly", g.Name, ViaHBONE)
		}
	}
	return nil
}

// A Group is a number of streams that behave alike. Each asks again as soon as
// it has its answer.
type Group struct {
	Name    string
	Streams int
	Answer  int64 // bytes of each answer's body
	Upload  int64 // bytes of each request's body
	// Rate slows the reader to so many bytes a second and stream. Slow readers
	// never rest. For HBONE only.
	Rate int64
}

// A Measure is one measurement of a run.
type Measure struct {
	Warm time.Duration // load that is not counted
	For  time.Duration // load that is
	Stay bool          // the streams go on afterwards instead of resting
	// Whole counts from rest to rest, so that every answer that is counted was
	// asked for in that time and the other way round. There is no load before it.
	// Where requests take as long as a measurement does, nothing else is exact.
	Whole bool
	// Each has every stream ask once, one after the other, and measures nothing:
	// so that many streams are idle that have been used.
	Each bool
}

// A Result is what came of a Measure.
type Result struct {
	Elapsed time.Duration
	CPU     time.Duration // of the process PID
	Own     time.Duration // of the load process
	Groups  []GroupResult
	Total   int64    // answers since the run began, counted or not
	Errors  int64    // since the run began
	Why     []string // the first few of them
}

// A GroupResult counts what a group got in the time that counts.
type GroupResult struct {
	Name          string
	Requests      int64
	Bytes         int64 // of answers' bodies
	P50, P99, Max time.Duration
	Stalled       int // streams that got nothing in that time
}

// Requests sums over groups.
func (r *Result) Requests() (n int64) {
	for _, g := range r.Groups {
		n += g.Requests
	}
	return n
}

// PerRequest is the CPU time of the watched process per request.
func (r *Result) PerRequest() time.Duration {
	return time.Duration(float64(r.CPU) / float64(max(r.Requests(), 1)))
}

// Err reports load that did not go as it should. A result with errors measures
// something else than was asked for, however good its figures are.
func (r *Result) Err() error {
	if r.Errors > 0 {
		return fmt.Errorf("%d errors under load, first: %v", r.Errors, r.Why)
	}
	return nil
}
