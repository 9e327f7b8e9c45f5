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
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
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
	// Every is how many opaque connections that did not fail share one record; 0
	// means that none has one.
	Every uint32

	conns atomic.Uint32 // that did not fail
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

	conn    bool // an opaque connection: there is no request
	verdict sniff.Verdict
	sni     string
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
	if s, n := r.place(); s != nil {
		s.fill(n, o)
		s.mu.Unlock()
	}
}

// ObserveConn keeps a record of an opaque connection, or not.
func (r *Ring) ObserveConn(o *proxy.ConnOutcome) {
	if o.Fault == nil && (r.Every == 0 || r.conns.Add(1)%r.Every != 0) {
		return
	}
	if s, n := r.place(); s != nil {
		s.fillConn(n, o)
		s.mu.Unlock()
	}
}

// place returns the slot of the next record, locked; nil if somebody who came
// later was quicker.
func (r *Ring) place() (*slot, uint64) {
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
	if s.n > n {
		s.mu.Unlock()
		return nil, n
	}
	return s, n
}

func (f *facts) fill(n uint64, o *proxy.Outcome) {
	s := o.Stream
	f.n, f.start, f.took, f.times = n, s.Start, o.Duration, s.Times
	f.conn, f.verdict, f.sni = false, o.Verdict, ""
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

func (f *facts) fillConn(n uint64, o *proxy.ConnOutcome) {
	req, attempts := f.req, append(f.attempts[:0], o.Attempts...)
	req.Reset()
	*f = facts{
		n: n, start: o.Start, took: o.Duration, conn: true, verdict: o.Verdict, sni: o.SNI, req: req,
		peer: o.Peer, source: o.Source, service: o.Service, info: o.Route, attempts: attempts,
		grpc: -1, fault: o.Fault, ours: o.Fault != nil, received: o.Received, sent: o.Sent,
	}
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
