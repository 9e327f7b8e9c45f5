package records

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

const (
	// Size is how many records are kept.
	Size = 512
	// maxHead is how large a request's head may be to be kept whole: 2 MiB for
	// all, and a client that sends larger ones gets no more of our memory.
	maxHead = 4 << 10
	// maxLine is how much of a path is kept of a head that is not.
	maxLine = 256
)

// A Ring keeps the latest records.
type Ring struct {
	next  atomic.Uint64 // how many were kept so far
	slots [Size]atomic.Pointer[slot]
}

// A slot is one place in the ring, made when it is first needed.
type slot struct {
	mu sync.Mutex
	facts
}

// facts are what is copied of an outcome.
type facts struct {
	n     uint64 // of the record, from 1
	start time.Time
	took  time.Duration
	times filters.Times

	req     message.Request
	cut     bool // req is only the first line, or the beginning of it
	peer    *peer.Info
	source  *measure.Source
	service *snapshot.Service
	route   *snapshot.Route
	info    *filters.RouteInfo
	random  uint32

	attempts         []filters.Attempt
	trace            filters.Trace
	members, healthy int

	status, grpc   int
	fault          *fault.Fault
	reason         string
	ours           bool
	exhausted      bool
	watched        bool
	received, sent int64
}

// Wants reports whether a request gets a record.
func Wants(o *proxy.Outcome) bool { return o.Stream.Watched || o.Ours || o.Failed() }

// Observe keeps a record of a request, or not.
func (r *Ring) Observe(o *proxy.Outcome) {
	if !Wants(o) {
		return
	}
	n := r.next.Add(1)
	at := &r.slots[n%Size]
	s := at.Load()
	if s == nil {
		s = new(slot)
		if !at.CompareAndSwap(nil, s) {
			s = at.Load()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n < n { // and nobody who came later was quicker
		s.fill(n, o)
	}
}

func (f *facts) fill(n uint64, o *proxy.Outcome) {
	s := o.Stream
	f.n, f.start, f.took, f.times = n, s.Start, o.Duration, s.Times
	f.copyHead(s.Request)
	f.peer, f.source, f.service, f.route, f.info, f.random = s.Peer, o.Source, o.Service, o.Route, s.Route, o.Random
	f.attempts = append(f.attempts[:0], s.Attempts...)
	s.Trace(&f.trace)
	f.members, f.healthy = 0, 0
	if f.route != nil && f.route.Backend != nil {
		f.members, f.healthy = f.route.Backend.Size()
	}
	f.status, f.grpc, f.fault, f.reason = o.Status, o.GRPC, s.Fault, o.Reason
	f.ours, f.exhausted, f.watched = o.Ours, o.Exhausted, s.Watched
	f.received, f.sent = o.Received, o.Sent
}

func (f *facts) copyHead(r *message.Request) {
	if f.cut = r.Header.Size() > maxHead || r.Trailer.Len() > 0; !f.cut {
		f.req.CopyFrom(r)
		return
	}
	f.req.Reset()
	f.req.Proto = r.Proto
	f.req.SetMethod(r.Method[:min(len(r.Method), maxLine)])
	f.req.SetPath(r.Path[:min(len(r.Path), maxLine)])
	f.req.SetAuthority(r.Authority[:min(len(r.Authority), maxLine)])
	if id, ok := r.Header.ValueOf(message.XRequestID); ok {
		f.req.Header.AddBytes(requestID, id[:min(len(id), maxLine)])
	}
}

var requestID = []byte("x-request-id")

// copyTo copies the facts for somebody who takes his time.
func (s *slot) copyTo(to *facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = s.facts
	to.req = message.Request{}
	to.req.CopyFrom(&s.req)
	to.attempts = append([]filters.Attempt(nil), s.attempts...)
	to.trace = s.trace.Clone()
}

// Kept returns how many records were kept so far.
func (r *Ring) Kept() uint64 { return r.next.Load() }

// Since returns the records behind the n-th, the oldest first.
func (r *Ring) Since(n uint64) []*Record {
	last := r.next.Load()
	first := n + 1
	if last > Size {
		first = max(first, last-Size+1)
	}
	var out []*Record
	for i := first; i <= last; i++ {
		s := r.slots[i%Size].Load()
		if s == nil {
			continue
		}
		var f facts
		if s.copyTo(&f); f.n == i { // it may not be written yet, or not be there any more
			out = append(out, f.record())
		}
	}
	return out
}
