// Package filters is the contract between the engine and what is configured on
// a route: phases, Stream, Reply, Chain, Registry, RetryPolicy, and the ports
// through which a filter reaches what lies beyond its floor.
//
// It runs no stream by itself and knows no filter: kinds live in packages of
// their own and are handed to a Registry by main; package proxy is the engine.
//
// # What the engine does
//
// Two chains guard a stream, that of the service and that of the route, each
// with a place of its own in the Stream. The engine binds a Stream, then calls
// the chains' phases. A phase answers nil (go on), Wait, or a Reply:
//
//	r := chain.Request(s)          // nil: every filter agreed
//	if r == filters.Wait {
//		gen, work := s.Waiting()   // copy what dies with the turn, release the lane;
//		...                        // if work: call s.RunWork(gen) on a bounded pool
//	}
//	// Engine.Resume(s, gen), later, on any goroutine: take the lane again, then
//	r, ok := s.Resumed(gen)        // !ok: stale, nothing to do
//	if ok && r == nil {
//		r = chain.Request(s)       // goes on behind the filter that waited
//	}
//
// Calling a phase again always goes on behind the place where it stopped. That
// holds for Response after a Reply too: the engine makes the Reply the response
// and calls Response again for the filters still to come. A stream that ends
// while a filter waits is given up with Abandon.
//
// # Reply order
//
// If filter i replies, Response runs for the filters before i, last first, and
// Done for those and for i. Filters after i never hear of the stream. If filter
// j replies in Response, the filters before j see the new response, and only
// they see its body. A filter that was busy when the engine ended the stream (it
// waited, or it panicked) counts as the one that replied.
//
// # Documents that come meanwhile
//
// A stream keeps the chains with which it began. When a new document becomes
// current, its chains' Review is asked about the streams under way: filters that
// have that phase judge the head as it came, on a stream of its own, and a
// refusal ends the request. Only what asks is asked.
//
// # Cost
//
// One call in about 64 of every phase of every filter is timed. A filter whose
// average is above 20 µs is run like a Worker, off the turn, until it is below
// 10 µs again, so that one connection's requests may use every core.
//
// # Memory
//
// A Stream belongs to the engine, which uses it again; nothing reached through
// it may be kept after Done. Chains, filters and fixed Replies are immutable
// and shared. Running a chain allocates nothing.
//
// # Concurrency
//
// Calls for one stream never overlap, so a Slot needs no lock. Chains and
// filters serve many streams at once. A Waker may be used from any goroutine.
//
// Start reading at Filter in contract.go, then Chain.Request.
package filters
