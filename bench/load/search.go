package load

import (
	"context"
	"fmt"
	"math"
)

// A Search looks for the highest rate at which a condition holds.
type Search struct {
	Goal      *Condition
	From      float64 // requests a second, of the first step
	Most      float64 // that are ever asked for
	Precision float64 // the answer may be so much too low, as a share of it
	Steps     int     // at most
	// Tell hears of each step; nil for nobody.
	Tell func(Step)
}

// A Step is a run at one rate.
type Step struct {
	Rate   float64 `json:"rate"`
	Holds  bool    `json:"holds"`
	Said   string  `json:"said"` // the figures that the goal speaks of
	Bound  string  `json:"bound,omitempty"`
	Result *Result `json:"result"`
}

// Found is what a search found.
type Found struct {
	// Rate is the highest at which the goal held; 0 if it never did.
	Rate float64 `json:"rate"`
	// Above is the lowest at which it did not; 0 if it always held.
	Above float64 `json:"above,omitempty"`
	// Bound says that the generator, not the target, ended the search.
	Bound string `json:"bound,omitempty"`
	Steps []Step `json:"steps"`
}

func (g *Search) check() error {
	switch {
	case !(g.From > 0) || !(g.Most >= g.From) || g.Most > maxRate:
		return fmt.Errorf("search from %v to %v requests a second: it must begin above 0 and end at most at %d", g.From, g.Most, maxRate)
	case !(g.Precision >= 0.001) || g.Precision > 1:
		return fmt.Errorf("precision is %v: it must be 0.001 to 1", g.Precision)
	case g.Steps < 1 || g.Steps > 100:
		return fmt.Errorf("steps are %d: they must be 1 to 100", g.Steps)
	}
	return nil
}

// Find doubles the rate until the goal does not hold, and then halves the gap
// between the two rates, on a logarithmic scale, until it is small. A step at which
// the goal does not hold is made twice, so that one hiccup of the machine does not
// decide; measure makes a run at a rate.
func (g *Search) Find(ctx context.Context, measure func(ctx context.Context, rate float64) (*Result, error)) (*Found, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	f := &Found{}
	rate, again := g.From, false
	for len(f.Steps) < g.Steps {
		r, err := measure(ctx, rate)
		if err != nil {
			return f, fmt.Errorf("at %v requests a second: %w", rate, err)
		}
		st := Step{Rate: rate, Bound: r.Bound, Result: r}
		if st.Holds, st.Said, err = g.Goal.Holds(r); err != nil {
			return f, err
		}
		if st.Holds { // and so it does without what the generator added
			st.Bound = ""
		}
		f.Steps = append(f.Steps, st)
		if g.Tell != nil {
			g.Tell(st)
		}
		if !st.Holds && !again {
			again = true
			continue
		}
		again = false
		f.learn(st)
		next, more := g.next(f)
		if !more {
			break
		}
		rate = next
	}
	return f, nil
}

func (f *Found) learn(st Step) {
	if st.Holds {
		f.Rate = st.Rate
		return
	}
	f.Above, f.Bound = st.Rate, st.Bound
}

// next is the rate of the next step, if there is to be one.
func (g *Search) next(f *Found) (float64, bool) {
	switch {
	case f.Above == 0:
		return min(2*f.Rate, g.Most), f.Rate < g.Most
	case f.Rate == 0: // it did not hold at the first
		return f.Above / 2, true
	}
	return math.Sqrt(f.Rate * f.Above), f.Above/f.Rate > 1+g.Precision
}
