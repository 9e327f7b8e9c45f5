package filters

import (
	"context"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Stream is one request and its response. The engine owns it and reuses it:
// nothing reached through a Stream may be kept after Done.
type Stream struct {
	Request  *message.Request
	Response *message.Response // nil until the Response phase
	Peer     *peer.Info
	Route    *RouteInfo   // provisional while the service's chain runs; nil if nothing matched
	Attempts []Attempt    // what was tried upstream
	Fault    *fault.Fault // why the stream failed, if it did
	Upgraded bool         // the body phases are over; bytes are relayed
	Watched  bool         // a sample: each filter is timed, and the decision recorded

	// Guarded by the lane, or by who holds the stream for it (a Worker).
	tick    uint8 // calls until the next one that is timed
	level   Level // the chain that is running, or did last,
	phase   Phase // and its phase
	touched bool  // something guarded by mu is not as Reset leaves it
	entered bool  // a chain with filters was: runs are not as Reset leaves them

	spent    time.Duration // since Start: what Times has
	Times    Times         // where the time since Start went
	engine   Engine
	Start    time.Time
	Deadline time.Time      // when the engine gives up; zero: never
	chunk    *message.Chunk // what a body phase works on
	runs     [levels]run

	// For people.
	by         answer // who answered in place of the endpoint
	waitsAt    uint8  // the filter that waits, or did last
	waitsSince turn.Tick
	timings    []timing

	// Guarded by mu: a Waker and a cancelled deadline come from anywhere.
	mu     sync.Mutex
	wait   wait
	ctx    context.Context
	cancel context.CancelCauseFunc
	over   error // why ctx ended, or will be born ended
}

// A run is where a stream stands in one of its two chains.
type run struct {
	slots     []any         // as many as the chain reserved
	next      [phases]uint8 // per phase: where it goes on when called again
	entered   uint8         // filters before this place were entered
	repliedAt uint8         // the place of the filter that replied or is busy, or the chain's length
	before    uint8         // what repliedAt was before the filter became busy
	responded bool          // the response phase is through
	told      bool          // Done has been called
}

// A RouteInfo is what a stream's route tells filters, logs and the engine. It
// is immutable.
type RouteInfo struct {
	Service string   // the service that the request came for
	Name    string   // the route object
	Rule    string   // the rule's name or number
	Backend string   // the chosen backend
	To      *Service // whose that is; nil if nobody knows

	Retry      RetryPolicy   // nil: a failed attempt is final
	Timeout    time.Duration // for the request; 0: none
	TryTimeout time.Duration // for one attempt; 0: none
}

// A Service is one port of a service as filters, metrics and records name it. It
// is immutable.
type Service struct {
	Namespace, Name string
	Host            string // as clusters know it: reviews.shop.svc.cluster.local
	Port            uint16
}

// An Engine runs streams.
type Engine interface {
	// Resume says that a stream that waited may go on. It is called on any
	// goroutine with no lock held; the engine takes the lane and asks Resumed.
	Resume(s *Stream, gen uint64)
}

// Bind gives an idle stream its engine; Reset takes it away again. A stream
// without engine (a literal in a test) runs every filter in place.
func (s *Stream) Bind(e Engine) { s.engine = e }

// Reset makes the stream ready for the next request. No Worker may hold it
// (Abandon); every Waker of it is stale from here on. Slots, attempts and the
// count of timed calls keep their memory.
//
// Most streams have never waited and have no Context, and many meet no filter: then
// what is guarded by mu, or of a chain, is as it was. BenchmarkReset: 23 → 13 ns.
func (s *Stream) Reset() {
	if s.touched {
		s.forget()
	}

	s.Request, s.Response, s.Peer, s.Route = nil, nil, nil, nil
	s.Start, s.Deadline = time.Time{}, time.Time{}
	clear(s.Attempts)
	s.Attempts, s.Fault, s.Upgraded = s.Attempts[:0], nil, false
	s.Watched, s.Times, s.spent = false, Times{}, 0
	s.engine, s.chunk = nil, nil
	if !s.entered {
		return
	}
	s.entered = false
	s.by, s.timings = answer{}, s.timings[:0]
	for i := range s.runs {
		r := &s.runs[i]
		clear(r.slots)
		*r = run{slots: r.slots[:0]}
	}
}

// forget ends the waits and the Context of the request that is over.
func (s *Stream) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait = wait{gen: s.wait.gen + 1}
	if s.cancel != nil {
		s.cancel(context.Canceled)
	}
	s.ctx, s.cancel, s.over, s.touched = nil, nil, nil, false
}

// Context is cancelled when the client goes away or the deadline passes. It is
// made on first use: a stream whose filters never wait has none.
func (s *Stream) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.touched = true
		parent, stop := context.Background(), context.CancelFunc(func() {})
		if !s.Deadline.IsZero() {
			parent, stop = context.WithDeadline(parent, s.Deadline)
		}
		ctx, cancel := context.WithCancelCause(parent)
		s.ctx, s.cancel = ctx, func(cause error) { cancel(cause); stop() }
		if s.over != nil {
			s.cancel(s.over)
		}
	}
	return s.ctx
}

// Cancel ends the stream's Context; the engine calls it when nobody waits for
// the stream any more. Only the first cause counts.
func (s *Stream) Cancel(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return
	}
	s.over, s.touched = cause, true
	if s.cancel != nil {
		s.cancel(cause)
	}
}

// Chunk is what the present body phase works on; nil in the other phases.
func (s *Stream) Chunk() *message.Chunk { return s.chunk }

// Hold says where the chunk of a waiting body phase lives from now on: its
// bytes are a view that dies with the turn, so the engine has copied them.
func (s *Stream) Hold(c *message.Chunk) { s.chunk = c }

// A Slot is room for one filter's state on each stream of its chain.
type Slot[T any] struct {
	level Level
	i     uint8
}

// NewSlot reserves a slot; it is called while the filter is built.
func NewSlot[T any](b *Builder) Slot[T] {
	k := Slot[T]{b.env.Level, uint8(b.slots)}
	b.slots++ // Chain refuses more than the index can tell
	return k
}

// Get returns what Set put there on this stream, or nil.
func (k Slot[T]) Get(s *Stream) *T {
	slots := s.runs[k.level].slots
	if int(k.i) >= len(slots) {
		return nil
	}
	v, _ := slots[k.i].(*T)
	return v
}

// Set keeps v until the stream is over.
func (k Slot[T]) Set(s *Stream, v *T) { s.runs[k.level].slots[k.i] = v }
