package filters

import (
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A Name says which filter of a chain one is.
type Name struct {
	Kind   string // its sort
	Object string // the document's object that asks for it
}

// A Trace is what a stream remembers of its filters, apart from the stream. The
// zero Trace is empty; one may be filled again and again.
type Trace struct {
	entered [levels]uint8
	by      answer
	timings []timing
}

// An answer is where a Reply came from.
type answer struct {
	given bool
	level Level
	phase Phase
	at    uint8
}

// A timing is how long one filter took in one phase, all calls together.
type timing struct {
	level  Level
	phase  Phase
	at     uint8
	waited bool // it waited, off the turn
	took   time.Duration
}

// maxTimings bounds what a stream remembers.
const maxTimings = 64

// A Step is what one filter did with a stream.
type Step struct {
	Name
	Verdict string        // passed, answered, or not reached
	Phase   string        // in which it answered
	Took    time.Duration // in its phases, of streams that are watched
	Waited  time.Duration // off the turn
}

// Trace copies what the stream remembers of its filters into t.
func (s *Stream) Trace(t *Trace) {
	for l := range s.runs {
		t.entered[l] = s.runs[l].entered
	}
	t.by = s.by
	t.timings = append(t.timings[:0], s.timings...)
}

// Clone returns a copy of t that shares nothing with it.
func (t *Trace) Clone() Trace {
	c := *t
	c.timings = slices.Clone(t.timings)
	return c
}

// Steps says what each filter of the chain did, in order, by a trace of a stream
// that went through it.
func (c *Chain) Steps(t *Trace) []Step {
	out := make([]Step, c.len)
	for i := range out {
		if i < len(c.names) {
			out[i].Name = c.names[i]
		}
		switch {
		case t.by.given && t.by.level == c.level && int(t.by.at) == i:
			out[i].Verdict, out[i].Phase = "answered", t.by.phase.String()
		case i < int(t.entered[c.level]):
			out[i].Verdict = "passed"
		default:
			out[i].Verdict = "not reached"
		}
	}
	for _, one := range t.timings {
		if one.level != c.level || int(one.at) >= len(out) {
			continue
		}
		if one.waited {
			out[one.at].Waited += one.took
		} else {
			out[one.at].Took += one.took
		}
	}
	return out
}

// answered notes who gave a phase's answer, and passes it on.
func (s *Stream) answered(at uint8, r *Reply) *Reply {
	if r == Wait {
		s.waitsAt, s.waitsSince = at, turn.TickOf(time.Now())
	} else {
		s.by = answer{true, s.level, s.phase, at}
	}
	return r
}

// waited notes the end of a wait, and how it ended.
func (s *Stream) waited(r *Reply) {
	s.note(timing{s.level, s.phase, s.waitsAt, true, s.waitsSince.Ago()})
	if r != nil {
		s.by = answer{true, s.level, s.phase, s.waitsAt}
	}
}

func (s *Stream) note(t timing) {
	i := slices.IndexFunc(s.timings, func(o timing) bool {
		return o.level == t.level && o.phase == t.phase && o.at == t.at && o.waited == t.waited
	})
	switch {
	case i >= 0:
		s.timings[i].took += t.took
	case len(s.timings) < maxTimings:
		s.timings = append(s.timings, t)
	}
}
