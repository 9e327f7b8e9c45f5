package filters

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A Level tells the two chains of a stream apart.
type Level uint8

// The two levels. The service's chain runs first, before anything can answer
// 404; the route's holds the filters of a rule and of its backend.
const (
	ServiceLevel Level = iota
	RouteLevel
	levels
)

// A Chain is the filters of one service or route, sorted by phase. It is
// immutable, but for what it has learned of its filters' cost.
type Chain struct {
	conn         []connStep
	request      []requestStep
	requestBody  []requestBodyStep
	response     []responseStep // last filter first, as are the next two
	responseBody []responseBodyStep
	done         []doneStep
	review       []reviewStep
	len, slots   uint8
	level        Level
	names        []Name      // of its filters, if a Builder made it
	held         []io.Closer // what its filters share with other chains
}

// A step is one filter in one phase.
type (
	connStep   struct{ filter ConnFilter }
	reviewStep struct{ filter ReviewFilter }
	doneStep   struct {
		filter DoneFilter
		at     uint8
	}
	requestStep struct {
		filter RequestFilter
		meta
	}
	requestBodyStep struct {
		filter RequestBodyFilter
		meta
	}
	responseStep struct {
		filter ResponseFilter
		meta
	}
	responseBodyStep struct {
		filter ResponseBodyFilter
		meta
	}
)

func (st *requestStep) call(s *Stream) *Reply      { return st.filter.Request(s) }
func (st *requestBodyStep) call(s *Stream) *Reply  { return st.filter.RequestBody(s, s.chunk) }
func (st *responseStep) call(s *Stream) *Reply     { return st.filter.Response(s) }
func (st *responseBodyStep) call(s *Stream) *Reply { return st.filter.ResponseBody(s, s.chunk) }

// MaxFilters is how many filters one chain may have, and how many slots.
const MaxFilters = math.MaxUint8

// NewChain sorts filters, in their configured order, into one list per phase.
func NewChain(l Level, list ...Filter) (*Chain, error) {
	if len(list) > MaxFilters {
		return nil, fmt.Errorf("the chain has %d filters, at most %d are possible", len(list), MaxFilters)
	}
	c := &Chain{level: l, len: uint8(len(list))}
	for i, f := range list {
		if !c.sort(f, uint8(i)) {
			return nil, fmt.Errorf("%T has no phase", f)
		}
	}
	slices.Reverse(c.response)
	slices.Reverse(c.responseBody)
	slices.Reverse(c.done)
	return c, nil
}

// sort adds f to the phases it has and reports whether its type has any.
func (c *Chain) sort(f Filter, at uint8) (has bool) {
	want := ^Phases(0)
	if n, ok := f.(Narrower); ok {
		want = n.Phases()
	}
	worker, _ := f.(Worker)
	if p, ok := f.(ConnFilter); ok {
		if has = true; want.Has(PhaseConn) {
			c.conn = append(c.conn, connStep{p})
		}
	}
	if p, ok := f.(RequestFilter); ok {
		if has = true; want.Has(PhaseRequest) {
			c.request = append(c.request, requestStep{filter: p, meta: meta{at: at, worker: worker}})
		}
	}
	if p, ok := f.(RequestBodyFilter); ok {
		if has = true; want.Has(PhaseRequestBody) {
			c.requestBody = append(c.requestBody, requestBodyStep{filter: p, meta: meta{at: at, worker: worker}})
		}
	}
	if p, ok := f.(ResponseFilter); ok {
		if has = true; want.Has(PhaseResponse) {
			c.response = append(c.response, responseStep{filter: p, meta: meta{at: at, worker: worker}})
		}
	}
	if p, ok := f.(ResponseBodyFilter); ok {
		if has = true; want.Has(PhaseResponseBody) {
			c.responseBody = append(c.responseBody, responseBodyStep{filter: p, meta: meta{at: at, worker: worker}})
		}
	}
	if p, ok := f.(DoneFilter); ok {
		if has = true; want.Has(PhaseDone) {
			c.done = append(c.done, doneStep{p, at})
		}
	}
	if p, ok := f.(ReviewFilter); ok {
		if has = true; want.Has(PhaseReview) {
			c.review = append(c.review, reviewStep{p})
		}
	}
	return has
}

// Conn asks every ConnFilter, first one first, up to the first refusal.
func (c *Chain) Conn(conn *Conn) error {
	for i := range c.conn {
		if err := c.conn[i].filter.Conn(conn); err != nil {
			return err
		}
	}
	return nil
}

// Request runs the request phase, first filter first, up to the first Reply.
func (c *Chain) Request(s *Stream) *Reply {
	if c.len == 0 {
		return nil
	}
	run := c.enter(s, PhaseRequest)
	sample := s.sample() || s.Watched
	for i := int(run.next[PhaseRequest]); i < len(c.request); i++ {
		st := &c.request[i]
		run.next[PhaseRequest] = uint8(i + 1)
		run.entered, run.repliedAt = st.at+1, st.at
		var r *Reply
		if sample || st.cost.heavy.Load() {
			r = s.special(st, &st.meta)
		} else {
			r = st.filter.Request(s)
		}
		if r == Wait {
			r = s.hold(&st.meta)
		}
		if r != nil {
			return s.answered(st.at, r)
		}
	}
	run.entered, run.repliedAt = c.len, c.len
	return nil
}

// RequestBody runs the request body phase on b. Until it has answered nil, or a
// Reply, for one chunk it must not be called with another.
func (c *Chain) RequestBody(s *Stream, b *message.Chunk) *Reply {
	run := c.enter(s, PhaseRequestBody)
	s.chunk = b
	sample := s.sample()
	for i := int(run.next[PhaseRequestBody]); i < len(c.requestBody) && passes(b); i++ {
		st := &c.requestBody[i]
		run.next[PhaseRequestBody] = uint8(i + 1)
		run.before, run.repliedAt = run.repliedAt, st.at
		var r *Reply
		if sample || st.cost.heavy.Load() {
			r = s.special(st, &st.meta)
		} else {
			r = st.filter.RequestBody(s, b)
		}
		if r == Wait {
			r = s.hold(&st.meta)
		}
		if r != nil {
			return s.answered(st.at, r)
		}
		run.repliedAt = run.before
	}
	run.next[PhaseRequestBody], s.chunk = 0, nil
	return nil
}

// Response runs the response phase on s.Response, last filter first, for the
// filters before the one that replied. After a Reply the engine makes it the
// response and calls Response again, for both chains if it was the service's.
//
// Every filter sees one response at most. A chain that has been through with
// one lets another, which replaces it, pass unseen, body included.
func (c *Chain) Response(s *Stream) *Reply {
	if c.len == 0 {
		return nil
	}
	run := c.enter(s, PhaseResponse)
	if run.responded {
		run.repliedAt = 0
		return nil
	}
	sample := s.sample() || s.Watched
	for i := int(run.next[PhaseResponse]); i < len(c.response); i++ {
		st := &c.response[i]
		run.next[PhaseResponse] = uint8(i + 1)
		if st.at >= run.repliedAt {
			continue
		}
		run.before, run.repliedAt = run.repliedAt, st.at
		var r *Reply
		if sample || st.cost.heavy.Load() {
			r = s.special(st, &st.meta)
		} else {
			r = st.filter.Response(s)
		}
		if r == Wait {
			r = s.hold(&st.meta)
		}
		if r != nil {
			return s.answered(st.at, r)
		}
		run.repliedAt = run.before
	}
	run.responded = true
	return nil
}

// ResponseBody runs the response body phase on b, as RequestBody does, last
// filter first, for the filters that saw the head of this response.
func (c *Chain) ResponseBody(s *Stream, b *message.Chunk) *Reply {
	run := c.enter(s, PhaseResponseBody)
	s.chunk = b
	sample := s.sample()
	for i := int(run.next[PhaseResponseBody]); i < len(c.responseBody) && passes(b); i++ {
		st := &c.responseBody[i]
		run.next[PhaseResponseBody] = uint8(i + 1)
		if st.at >= run.repliedAt {
			continue
		}
		var r *Reply
		if sample || st.cost.heavy.Load() {
			r = s.special(st, &st.meta)
		} else {
			r = st.filter.ResponseBody(s, b)
		}
		if r == Wait {
			r = s.hold(&st.meta)
		}
		if r != nil {
			return s.answered(st.at, r)
		}
	}
	run.next[PhaseResponseBody], s.chunk = 0, nil
	return nil
}

// Done tells every filter that was entered that the stream is over. A second
// call does nothing.
func (c *Chain) Done(s *Stream) {
	if c.len == 0 {
		return
	}
	run := c.enter(s, PhaseDone)
	if run.told {
		return
	}
	run.told = true
	for i := range c.done {
		if c.done[i].at < run.entered {
			c.done[i].filter.Done(s)
		}
	}
}

// Review asks every ReviewFilter about a request that is under way, first one
// first, up to the first refusal. s is not the request's stream.
func (c *Chain) Review(s *Stream) error {
	c.enter(s, PhaseReview)
	for i := range c.review {
		if err := c.review[i].filter.Review(s); err != nil {
			return err
		}
	}
	return nil
}

// SeesRequest reports whether a filter may have changed the head: then the
// engine looks the route up again.
func (c *Chain) SeesRequest() bool { return len(c.request) > 0 }

// SeesResponse reports whether a filter looks at response heads.
func (c *Chain) SeesResponse() bool { return len(c.response) > 0 }

// SeesRequestBody tells the engine whether to ask the chain.
func (c *Chain) SeesRequestBody() bool { return len(c.requestBody) > 0 }

// SeesResponseBody tells the engine whether to ask the chain.
func (c *Chain) SeesResponseBody() bool { return len(c.responseBody) > 0 }

// SeesConn reports whether a ConnFilter is among the filters.
func (c *Chain) SeesConn() bool { return len(c.conn) > 0 }

// SeesReview reports whether a ReviewFilter is among the filters.
func (c *Chain) SeesReview() bool { return len(c.review) > 0 }

// Close gives up what the chain's filters share with others, when no stream
// uses the chain any more. The error is the first of what was closed by that.
func (c *Chain) Close() error {
	var first error
	for _, h := range c.held {
		if err := h.Close(); err != nil && first == nil {
			first = err
		}
	}
	c.held = nil
	return first
}

// enter notes which phase runs, and on first use makes room for the slots.
func (c *Chain) enter(s *Stream, p Phase) *run {
	if buf.Check {
		s.mustBeFree()
	}
	s.level, s.phase, s.entered = c.level, p, true
	run := &s.runs[c.level]
	if len(run.slots) < int(c.slots) {
		run.slots = slices.Grow(run.slots[:0], int(c.slots))[:c.slots]
	}
	return run
}

// passes reports whether a chunk goes on to the next filter: bytes do, and the
// end does.
func passes(b *message.Chunk) bool { return len(b.Data) > 0 || b.End }
