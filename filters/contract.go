package filters

import (
	"context"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Filter is built once for each place it is configured and serves every
// stream there, so it keeps per-stream state in a Slot and not in itself.
//
// It implements any of the phases below. NewChain sorts filters into one list
// per phase: a phase nobody implements costs nothing, and a body phase nobody
// implements lets the bytes through unseen.
//
// Calls for one stream never overlap, so a Slot needs no lock. A phase runs
// inside a turn and must not block; a filter that may have to wait returns Wait.
type Filter any

// RequestFilter sees the request head, before an endpoint is picked, once
// however often the request is tried. Returning a Reply answers the client now;
// later filters are not entered and nothing goes upstream.
type RequestFilter interface{ Request(s *Stream) *Reply }

// RequestBodyFilter sees each run of request body bytes. To hold bytes back it
// keeps a copy and sets c.Data to nil; a chunk without bytes goes no further
// unless it ends the body. To send other bytes it points c.Data at memory of its
// own that stays put until its next call. Who changes the size of a body sets
// Request.Length to message.UnknownLength in the head phase.
type RequestBodyFilter interface {
	RequestBody(s *Stream, c *message.Chunk) *Reply
}

// ResponseFilter sees the response head, the upstream's or a Reply's, last
// filter first, and only if an earlier filter did not reply in its place.
// Returning a Reply replaces the response for the filters still to come.
type ResponseFilter interface{ Response(s *Stream) *Reply }

// ResponseBodyFilter sees each run of response body bytes, last filter first.
// The head has gone by then, so a Reply can only cut the response short.
type ResponseBodyFilter interface {
	ResponseBody(s *Stream, c *message.Chunk) *Reply
}

// DoneFilter is told once, when a stream it entered is over, however it ended;
// last filter first.
type DoneFilter interface{ Done(s *Stream) }

// ConnFilter judges a whole inner connection before a byte of it is parsed. It
// is the only phase that opaque TCP has. A refusal wraps a fault; any other
// error counts as a bug.
type ConnFilter interface{ Conn(c *Conn) error }

// ReviewFilter judges a request again that is under way when a new document
// becomes current: a stream of messages, a long body, a WebSocket. The filters of
// the new document are asked, in their order, about a stream of its own: it has
// the request's head as the client sent it, the peer, the start and the route of
// the new document, and its slots are empty. A filter that others look at fills
// its slots as it does in the request phase. A refusal ends the request; it wraps
// a fault, and any other error counts as a bug.
//
// A filter without it is not asked, and what it decided stands. Review must not
// wait, has no Done, and changes nothing that anybody sees.
type ReviewFilter interface{ Review(s *Stream) error }

// Wait may be returned from any phase but Conn, Done and Review: the engine releases
// the lane and holds the stream. A filter that took a Waker with Suspend
// resumes by itself; otherwise it must be a Worker.
var Wait = &Reply{Reason: "wait"}

// A Worker does off the turn what would block or take long. Work is called on a
// goroutine of a bounded pool, with exclusive use of the stream, after the
// phase p of the same filter has returned Wait. Its result is the phase's. In a
// body phase Stream.Chunk is the chunk. What is still to come is the codec's:
// the Trailer of a body that has not ended must not be looked at. ctx ends when the client goes away or
// the deadline passes; Work should then return soon.
type Worker interface {
	Work(ctx context.Context, s *Stream, p Phase) *Reply
}

// Narrower is for a filter that learns while it is built that it needs fewer
// phases than its type has, as a Wasm plugin without a body callback does.
type Narrower interface{ Phases() Phases }

// A Phase is one step in the life of a stream.
type Phase uint8

// The phases, in the order of a stream's life.
const (
	PhaseConn Phase = iota
	PhaseRequest
	PhaseRequestBody
	PhaseResponse
	PhaseResponseBody
	PhaseDone
	PhaseReview // at any time after the request phase, on a stream of its own
	phases
)

func (p Phase) String() string {
	if p >= phases {
		return "unknown phase"
	}
	return [phases]string{"conn", "request", "request body", "response", "response body", "done", "review"}[p]
}

// Phases is a set of phases.
type Phases uint8

// PhasesOf returns the set of those phases.
func PhasesOf(list ...Phase) Phases {
	var set Phases
	for _, p := range list {
		set |= 1 << p
	}
	return set
}

// Has reports whether p is in the set.
func (set Phases) Has(p Phase) bool { return set&(1<<p) != 0 }

// A Reply answers a stream without its upstream. Replies are immutable, so a
// fixed one (401, 429) is built once with its filter.
type Reply struct {
	Status int
	Header []Field
	Body   []byte
	Reason string       // for the access log, e.g. "jwt_expired"
	Fault  *fault.Fault // set when the filter itself failed
}

// A Field is a header field of a Reply.
type Field struct{ Name, Value string }

// Fail returns the Reply of a filter that could not do its work.
func Fail(f *fault.Fault) *Reply {
	return &Reply{Status: f.Status(), Reason: f.Details(), Fault: f}
}

// A Conn is an inner connection as ConnFilters see it. It is the caller's and
// must not be kept.
//
// Where it takes bytes to know what is spoken, filters are asked twice: before
// the first byte, and once it is known that the connection is opaque.
type Conn struct {
	Peer    *peer.Info
	Service string // what the tunnel is bound for, by name
	Start   time.Time
	// Opaque says that no request of it will ever be seen: a rule that asks for
	// one does not hold.
	Opaque bool
	// SNI is the name that a TLS client asks for, if somebody had to know it.
	SNI string
}

// A Backend is a filter's way to call out (mirror, plugin call-outs), filled by
// the snapshot: Builder.Backend(name).
type Backend interface {
	// Start sends r with body and returns at once. Both may be reused as soon
	// as it has returned. done is called once, on any goroutine, unless cancel
	// was called first; what it is handed dies when it returns.
	Start(r *message.Request, body []byte, done func(*Result)) (cancel func())
}

// A Result is how a call to a Backend went.
type Result struct {
	Response *message.Response // nil if there is none
	Body     []byte
	Fault    *fault.Fault // set if the call failed
}
