package filters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A probe has every phase, writes down what it is asked, and answers what it is
// told to.
type probe struct {
	name   string
	log    *[]string
	answer map[Phase]*Reply
	work   func(s *Stream, p Phase) *Reply
}

func (p *probe) say(ph Phase) *Reply {
	*p.log = append(*p.log, p.name+" "+ph.String())
	return p.answer[ph]
}

func (p *probe) Conn(*Conn) error {
	if r := p.say(PhaseConn); r != nil {
		return r.Fault
	}
	return nil
}
func (p *probe) Request(*Stream) *Reply                          { return p.say(PhaseRequest) }
func (p *probe) RequestBody(*Stream, *message.Chunk) *Reply      { return p.say(PhaseRequestBody) }
func (p *probe) Response(*Stream) *Reply                         { return p.say(PhaseResponse) }
func (p *probe) ResponseBody(_ *Stream, _ *message.Chunk) *Reply { return p.say(PhaseResponseBody) }
func (p *probe) Done(*Stream)                                    { p.say(PhaseDone) }

// worker is a probe that is a Worker too.
type worker struct{ *probe }

func (w worker) Work(_ context.Context, s *Stream, p Phase) *Reply {
	*w.log = append(*w.log, w.name+" work on "+p.String())
	if w.work == nil {
		return nil
	}
	return w.work(s, p)
}

// A rig is a chain of probes a, b, c … and what they wrote down.
type rig struct {
	t      *testing.T
	log    []string
	probes map[string]*probe
	chain  *Chain
	s      Stream
}

func newRig(t *testing.T, names string) *rig {
	t.Helper()
	r := &rig{t: t, probes: map[string]*probe{}}
	var list []Filter
	for name := range strings.FieldsSeq(names) {
		p := &probe{name: strings.Trim(name, "*"), log: &r.log, answer: map[Phase]*Reply{}}
		r.probes[p.name] = p
		if strings.HasSuffix(name, "*") {
			list = append(list, worker{p})
		} else {
			list = append(list, p)
		}
	}
	c, err := NewChain(RouteLevel, list...)
	if err != nil {
		t.Fatal(err)
	}
	r.chain = c
	return r
}

func (r *rig) answers(name string, p Phase, reply *Reply) { r.probes[name].answer[p] = reply }

// want compares what was written down since the last want.
func (r *rig) want(lines ...string) {
	r.t.Helper()
	if !slices.Equal(r.log, lines) {
		r.t.Errorf("got  %q\nwant %q", r.log, lines)
	}
	r.log = nil
}

func (r *rig) wantReply(got, want *Reply) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("got reply %+v, want %+v", got, want)
	}
}

// body runs one chunk through a phase.
func body(f func(*Stream, *message.Chunk) *Reply, s *Stream) *Reply {
	return f(s, &message.Chunk{Data: []byte("x")})
}

var (
	denied   = &Reply{Status: 403, Reason: "denied"}
	replaced = &Reply{Status: 502, Reason: "replaced"}
)

func TestEveryPhaseInItsOrder(t *testing.T) {
	r := newRig(t, "a b")
	if err := r.chain.Conn(&Conn{}); err != nil {
		t.Error(err)
	}
	r.want("a conn", "b conn")
	r.wantReply(r.chain.Request(&r.s), nil)
	r.want("a request", "b request")
	r.wantReply(body(r.chain.RequestBody, &r.s), nil)
	r.wantReply(body(r.chain.RequestBody, &r.s), nil)
	r.want("a request body", "b request body", "a request body", "b request body")
	r.wantReply(r.chain.Response(&r.s), nil)
	r.want("b response", "a response")
	r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
	r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
	r.want("b response body", "a response body", "b response body", "a response body")
	r.chain.Done(&r.s)
	r.want("b done", "a done")
	r.chain.Done(&r.s)
	r.want()
}

func TestConnRefusalStops(t *testing.T) {
	r := newRig(t, "a b c")
	f := fault.Wrap(fault.PolicyDenied, fault.Downstream, nil)
	r.answers("b", PhaseConn, Fail(f))
	if err := r.chain.Conn(&Conn{}); !errors.Is(err, f) {
		t.Errorf("got %v, want %v", err, f)
	}
	r.want("a conn", "b conn")
}

func TestReplyInRequest(t *testing.T) {
	r := newRig(t, "a b c")
	r.answers("b", PhaseRequest, denied)
	r.wantReply(r.chain.Request(&r.s), denied)
	r.want("a request", "b request")
	r.wantReply(r.chain.Response(&r.s), nil)
	r.want("a response")
	r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
	r.want("a response body")
	r.chain.Done(&r.s)
	r.want("b done", "a done")
}

func TestReplyOfTheFirst(t *testing.T) {
	r := newRig(t, "a b")
	r.answers("a", PhaseRequest, denied)
	r.wantReply(r.chain.Request(&r.s), denied)
	r.wantReply(r.chain.Response(&r.s), nil)
	r.chain.Done(&r.s)
	r.want("a request", "a done")
}

func TestReplyInRequestBody(t *testing.T) {
	r := newRig(t, "a b c")
	r.chain.Request(&r.s)
	r.log = nil
	r.answers("b", PhaseRequestBody, denied)
	r.wantReply(body(r.chain.RequestBody, &r.s), denied)
	r.wantReply(r.chain.Response(&r.s), nil)
	r.chain.Done(&r.s)
	r.want("a request body", "b request body", "a response", "c done", "b done", "a done")
}

func TestReplyInResponse(t *testing.T) {
	r := newRig(t, "a b c d")
	r.chain.Request(&r.s)
	r.log = nil
	r.answers("c", PhaseResponse, replaced)
	r.wantReply(r.chain.Response(&r.s), replaced)
	r.want("d response", "c response")
	r.answers("b", PhaseResponse, denied)
	r.wantReply(r.chain.Response(&r.s), denied) // the engine made replaced the response
	r.want("b response")
	r.wantReply(r.chain.Response(&r.s), nil)
	r.want("a response")
	r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
	r.want("a response body")
	r.chain.Done(&r.s)
	r.want("d done", "c done", "b done", "a done")
}

func TestReplyInResponseBody(t *testing.T) {
	r := newRig(t, "a b c")
	r.chain.Request(&r.s)
	r.chain.Response(&r.s)
	r.log = nil
	r.answers("b", PhaseResponseBody, denied)
	r.wantReply(body(r.chain.ResponseBody, &r.s), denied)
	r.want("c response body", "b response body")
}

// A stream that the engine ends while a filter is busy (it panicked, or it
// waits) counts as replied at that filter.
func TestEndWhileAFilterIsBusy(t *testing.T) {
	r := newRig(t, "a b* c")
	r.answers("b", PhaseRequest, Wait)
	r.wantReply(r.chain.Request(&r.s), Wait)
	if !r.s.Abandon() {
		t.Fatal("nobody holds the stream, and Abandon was refused")
	}
	r.wantReply(r.chain.Response(&r.s), nil)
	r.chain.Done(&r.s)
	r.want("a request", "b request", "a response", "b done", "a done")
}

func TestAChainThatWasNotEnteredSaysNothing(t *testing.T) {
	r := newRig(t, "a b")
	r.wantReply(r.chain.Response(&r.s), nil)
	r.chain.Done(&r.s)
	r.want()
}

func TestTwoChainsKeepTheirPlaces(t *testing.T) {
	r := newRig(t, "a b")
	guard := newRig(t, "x y")
	guard.chain.level = ServiceLevel
	guard.wantReply(guard.chain.Request(&r.s), nil)
	r.answers("b", PhaseRequest, denied)
	r.wantReply(r.chain.Request(&r.s), denied)
	r.wantReply(r.chain.Response(&r.s), nil)
	guard.wantReply(guard.chain.Response(&r.s), nil)
	r.want("a request", "b request", "a response")
	guard.want("x request", "y request", "y response", "x response")
}

// Every filter sees one response head at most: what the service's chain, or the
// engine, puts in the place of a response passes the route's filters unseen.
func TestReplacedResponse(t *testing.T) {
	r := newRig(t, "a b")
	guard := newRig(t, "x y")
	guard.chain.level = ServiceLevel
	guard.chain.Request(&r.s)
	r.chain.Request(&r.s)
	guard.answers("y", PhaseResponse, replaced)
	r.wantReply(r.chain.Response(&r.s), nil)
	guard.wantReply(guard.chain.Response(&r.s), replaced)
	r.log, guard.log = nil, nil
	r.wantReply(r.chain.Response(&r.s), nil) // the engine goes through both again
	guard.wantReply(guard.chain.Response(&r.s), nil)
	r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
	guard.wantReply(body(guard.chain.ResponseBody, &r.s), nil)
	r.chain.Done(&r.s)
	r.want("b done", "a done")
	guard.want("x response", "x response body")
}

func TestEndWhileAFilterIsBusyWithTheResponse(t *testing.T) {
	for name, answer := range map[string]*Reply{"waits": Wait, "panics": nil} {
		r := newRig(t, "a b* c")
		r.chain.Request(&r.s)
		r.log = nil
		if answer == nil {
			r.chain.response[1].filter = panics{}
		}
		r.answers("b", PhaseResponse, answer)
		func() {
			defer func() { recover() }()
			r.chain.Response(&r.s)
		}()
		r.s.Abandon()
		r.log = nil
		r.wantReply(r.chain.Response(&r.s), nil) // the engine's own response
		r.wantReply(body(r.chain.ResponseBody, &r.s), nil)
		if want := []string{"a response", "a response body"}; !slices.Equal(r.log, want) {
			t.Errorf("%s: got %q, want %q", name, r.log, want)
		}
	}
}

type panics struct{}

func (panics) Response(*Stream) *Reply { panic("a bug") }

// A chunk from which a filter took every byte goes no further, unless it ends
// the body: then all must hear of the end.
func TestHeldBytesGoNoFurther(t *testing.T) {
	var seen []string
	hold := &bodyFunc{func(c *message.Chunk) { seen = append(seen, "first"); c.Data = nil }}
	next := &bodyFunc{func(c *message.Chunk) { seen = append(seen, fmt.Sprint("second, end ", c.End)) }}
	c, _ := NewChain(RouteLevel, hold, next)
	var s Stream
	c.Request(&s)
	c.RequestBody(&s, &message.Chunk{Data: []byte("x")})
	c.RequestBody(&s, &message.Chunk{Data: []byte("x"), End: true})
	if got, want := seen, []string{"first", "first", "second, end true"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.Chunk() != nil {
		t.Error("the stream keeps the chunk after the phase")
	}
}

type bodyFunc struct{ f func(*message.Chunk) }

func (b *bodyFunc) RequestBody(_ *Stream, c *message.Chunk) *Reply { b.f(c); return nil }

type narrow struct {
	probe
	phases Phases
}

func (n *narrow) Phases() Phases { return n.phases }

func TestNarrower(t *testing.T) {
	var log []string
	n := &narrow{probe{name: "n", log: &log}, PhasesOf(PhaseRequest, PhaseDone)}
	c, err := NewChain(RouteLevel, n)
	if err != nil {
		t.Fatal(err)
	}
	if c.SeesConn() || c.SeesRequestBody() || c.SeesResponseBody() {
		t.Error("the chain has phases that the filter gave up")
	}
	var s Stream
	c.Request(&s)
	c.Response(&s)
	c.Done(&s)
	if want := []string{"n request", "n done"}; !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
	full, _ := NewChain(RouteLevel, &n.probe) // the control: the type has them all
	if !full.SeesConn() || !full.SeesRequestBody() || !full.SeesResponseBody() {
		t.Error("the probe lacks phases")
	}
}

// A reviewer is asked again, and leaves word for the next.
type reviewer struct {
	slot Slot[string]
	log  *[]string
	err  error
}

func (f *reviewer) Review(s *Stream) error {
	word := "nobody before"
	if p := f.slot.Get(s); p != nil {
		word = *p
	}
	*f.log = append(*f.log, word)
	mine := "somebody before"
	f.slot.Set(s, &mine)
	return f.err
}

// TestReview: filters that have the phase are asked in their order up to the first
// refusal, share slots, and can give the phase up.
func TestReview(t *testing.T) {
	var log []string
	b := NewBuilder(Env{Level: ServiceLevel})
	slot := NewSlot[string](b)
	refusal := errors.New("no")
	yes, no := &reviewer{slot, &log, nil}, &reviewer{slot, &log, refusal}
	c, err := NewChain(ServiceLevel, yes, &probe{log: &log}, no, yes)
	if err != nil {
		t.Fatal(err)
	}
	c.slots = 1
	if !c.SeesReview() {
		t.Error("nobody asks for a review")
	}
	var s Stream
	for range 2 {
		log = nil
		if err := c.Review(&s); err != refusal {
			t.Errorf("got %v", err)
		}
		if want := []string{"nobody before", "somebody before"}; !slices.Equal(log, want) {
			t.Errorf("asked %q, want %q", log, want)
		}
		s.Reset()
	}
	without, _ := NewChain(ServiceLevel, &probe{log: &log}, &narrowReviewer{yes})
	if without.SeesReview() || without.Review(&s) != nil {
		t.Error("a filter that gave the phase up is asked")
	}
}

type narrowReviewer struct{ *reviewer }

func (*narrowReviewer) Phases() Phases { return 0 }

func TestChainsThatCannotBe(t *testing.T) {
	if _, err := NewChain(RouteLevel, struct{}{}); err == nil {
		t.Error("a filter without a phase was taken")
	}
	var log []string
	list := slices.Repeat([]Filter{&probe{log: &log}}, MaxFilters)
	if _, err := NewChain(RouteLevel, list...); err != nil {
		t.Error(err)
	}
	if _, err := NewChain(RouteLevel, append(list, list[0])...); err == nil {
		t.Error("a chain beyond the limit was taken")
	}
}

func TestPhaseNames(t *testing.T) {
	for p := range phases {
		if p.String() == "" || p.String() == "unknown phase" {
			t.Errorf("phase %d has no name", p)
		}
	}
	if got := Phase(99).String(); got != "unknown phase" {
		t.Errorf("got %q", got)
	}
}
