package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// A Variant is one way to do the same work: the proxy, a relay, a peer.
type Variant struct {
	Name string
	Proc *Process
	Plan traffic.Plan // without address and PID, which the rounds fill in
}

// Costs are a variant's CPU times per request, one for each round.
type Costs struct {
	Name  string
	Costs []float64      // µs
	Rates []float64      // requests a second, for the record only
	Held  account.Memory // the most of each at the end of a round, connections standing
}

// A round's time is cut into slices, so that what disturbs the machine for some
// tenths of a second meets every variant: with whole rounds side by side the
// ratio of a relay to itself spread from 0.8 to 1.2, with slices from 0.95 to 1.01.
const (
	slice     = 100 * time.Millisecond
	sliceWarm = 30 * time.Millisecond
)

// A cut says how rounds are cut.
type cut struct {
	slice, warm time.Duration
	whole       bool // every request that is begun in a slice is counted in it
}

var (
	// barsCut is for those that cost about the same.
	barsCut = cut{slice: slice, warm: sliceWarm}
	// contestCut is for those that do not: on a busy machine a request through the
	// dearest takes as long as a slice, and what stands at its borders would count
	// for more than what lies between. As nothing is lost at borders so, slices are
	// short: what slows a machine lasts for tenths of a second, and has to meet all.
	contestCut = cut{slice: slice / 2, whole: true}
)

// count is how many slices make a round for one variant.
func (c cut) count(round time.Duration) int { return max(1, int(round/c.slice)) }

func (c cut) measure() traffic.Measure {
	return traffic.Measure{Warm: c.warm, For: c.slice, Whole: c.whole}
}

// A field starts all that a round needs, and returns those that take part.
type field func() ([]Variant, error)

// Compare runs rounds, each with processes of its own, in which every variant has
// its turn, each slice beginning with another one.
//
// Where the pages of a process happen to lie is part of what it costs, for as long as
// it lives: one process for all rounds would be one draw.
func (r *Rig) Compare(ctx context.Context, start field) (all []Costs, err error) {
	for round := range r.Rounds {
		variants, err := start()
		if err != nil {
			return nil, err
		}
		if all, err = r.round(ctx, round, variants, barsCut, all); err != nil {
			return nil, err
		}
		r.Clear()
	}
	return all, nil
}

// round runs one and adds what the variants cost to what they did before.
func (r *Rig) round(ctx context.Context, round int, variants []Variant, c cut, all []Costs) ([]Costs, error) {
	if all == nil {
		all = make([]Costs, len(variants))
	}
	sessions, err := r.sessions(ctx, variants)
	if err != nil {
		return nil, err
	}
	for _, s := range sessions {
		defer s.End()
	}
	sums := make([]tally, len(variants))
	for n := range c.count(r.For) {
		for i := range variants {
			at := (n + i) % len(variants)
			res, err := sessions[at].Measure(ctx, c.measure())
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", variants[at].Name, round+1, err)
			}
			sums[at].add(res)
		}
	}
	for i, v := range variants {
		if sums[i].requests == 0 { // a slice may pass so when neighbours keep the CPU, a round may not
			return nil, fmt.Errorf("%s, round %d: no request was answered", v.Name, round+1)
		}
		all[i].Name = v.Name
		all[i].add(&sums[i])
		if err := all[i].hold(v.Proc); err != nil {
			return nil, err
		}
		r.logf("  round %d  %-26s %s", round+1, v.Name, &sums[i])
	}
	return all, nil
}

// sessions begin load on every variant, and bring it to where it is measured:
// streams ask one after the other, and then at once. A proxy that is asked by all at
// once before it knows anybody may keep what it did then: Envoy opened a connection
// for each of 256 tunnels to one node so.
//
// What is done one after the other waits more than it works, so all variants do it
// side by side.
func (r *Rig) sessions(ctx context.Context, variants []Variant) ([]*Session, error) {
	sessions, errs := make([]*Session, len(variants)), make([]error, len(variants))
	var begun sync.WaitGroup
	for i, v := range variants {
		begun.Go(func() {
			s, err := r.Load(ctx, v.Proc, v.Plan)
			if err == nil {
				sessions[i] = s
				_, err = s.Measure(ctx, traffic.Measure{Each: true})
			}
			errs[i] = err
		})
	}
	begun.Wait()
	for i, v := range variants {
		if errs[i] == nil {
			_, errs[i] = sessions[i].Measure(ctx, traffic.Measure{For: slice, Whole: true})
		}
		if errs[i] == nil {
			continue
		}
		for _, s := range sessions {
			if s != nil {
				s.End()
			}
		}
		return nil, fmt.Errorf("%s: %w", v.Name, errs[i])
	}
	return sessions, nil
}

// A tally sums slices.
type tally struct {
	cpu, own, elapsed, p99 time.Duration
	requests               int64
}

func (t *tally) add(r *traffic.Result) {
	t.cpu += r.CPU
	t.own += r.Own
	t.elapsed += r.Elapsed
	t.requests += r.Requests()
	t.p99 = max(t.p99, r.Groups[0].P99)
}

func (t *tally) String() string {
	n := float64(t.requests) * 1000
	return fmt.Sprintf("%7.2f µs CPU a request, %6.0f/s, p99 %v, load %.2f µs", float64(t.cpu)/n,
		float64(t.requests)/t.elapsed.Seconds(), t.p99, float64(t.own)/n)
}

func (c *Costs) add(t *tally) {
	c.Costs = append(c.Costs, float64(t.cpu)/float64(t.requests)/1000)
	c.Rates = append(c.Rates, float64(t.requests)/t.elapsed.Seconds())
}

// hold notes what the variant's process has in RAM.
func (c *Costs) hold(p *Process) error {
	m, err := account.Held(p.PID())
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", c.Name, err), p.alive())
	}
	c.Held.RSS, c.Held.Anon = max(c.Held.RSS, m.RSS), max(c.Held.Anon, m.Anon)
	return nil
}

// Ratio compares two variants round by round.
func Ratio(of, to Costs) Spread {
	var s []float64
	for i := range min(len(of.Costs), len(to.Costs)) {
		s = append(s, of.Costs[i]/to.Costs[i])
	}
	return spread(s)
}

// A Spread is the median of some figures and how far they lie apart.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func spread(s []float64) Spread {
	if len(s) == 0 {
		return Spread{}
	}
	s = slices.Sorted(slices.Values(s))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (s[len(s)/2-1] + m) / 2
	}
	return Spread{m, s[0], s[len(s)-1]}
}
