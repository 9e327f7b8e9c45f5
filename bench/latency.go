package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

// latencyRate is how many requests a second latency is measured at: few enough
// that nobody queues, as in Istio's published figures.
const latencyRate = 1000

// Each measurement of latency has a begin that does not count, and no more time
// than a thousand requests take. It is not repeated as often as CPU time is: what
// counts is the quietest round.
const (
	latencyWarm   = 200 * time.Millisecond
	latencyMost   = time.Second
	latencyRounds = 7
)

// latencyTime is longer than a round, for a p99 to stand on some requests.
func (r *Rig) latencyTime() time.Duration { return min(2*r.For, latencyMost) }

func (r *Rig) latencyRounds() int { return min(r.Rounds, latencyRounds) }

// A pace is what came of load at a fixed rate.
type pace struct {
	P50, P99 time.Duration // from the time at which a request was to be sent
	Done     int64
	Failed   int64
	Why      []string
}

// pacePart reads a load, connects and says so; then it answers each line with
// what came of making the load once, until in ends.
func pacePart(ctx context.Context, in io.Reader, out io.Writer) error {
	lines, answers := json.NewDecoder(in), json.NewEncoder(out)
	var spec load.Spec
	if err := lines.Decode(&spec); err != nil {
		return fmt.Errorf("read the load: %w", err)
	}
	run, err := load.Start(ctx, spec, load.Options{})
	if err != nil {
		return err
	}
	if err := answers.Encode(pace{}); err != nil {
		return err
	}
	for {
		var again bool
		if err := lines.Decode(&again); err != nil {
			os.Exit(0) // in ended; connections end with the process
		}
		res, err := run.Measure(ctx)
		if err != nil {
			return err
		}
		p := pace{res.Latency.P50, res.Latency.P99, res.Done, res.Failed, res.Why}
		if err := answers.Encode(p); err != nil {
			return err
		}
	}
}

// paceOf is load at the fixed rate through p, or straight to the answering end.
func (r *Rig) paceOf(w Work, p *Process, direct bool) load.Spec {
	t := load.Target{Addr: p.Addr, Via: load.ViaProxy, Protocol: load.HTTP1, To: vip, Identities: []string{clientID}}
	switch {
	case w.Mesh:
		t.Via, t.Identities, t.Certs = load.ViaHBONE, nil, r.certs["curl"]
	case direct:
		t.Via, t.Identities, t.To = load.ViaTCP, nil, ""
	}
	fields := []load.Field{
		{Name: "user-agent", Value: "bars/1.0"}, {Name: "accept", Value: "*/*"}, {Name: "x-canary", Value: "0"},
		{Name: "authorization", Value: "Bearer abcdefghijklmnopqrstuvwxyz0123456789"},
		{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		{Name: "x-echo", Value: "0000000000000000"},
	}
	return load.Spec{
		Target: t, Schedule: load.Schedule{Shape: load.Constant, Rate: latencyRate},
		Mix:         []load.Kind{{Path: routePrefix + "/items?bytes=1024", Host: "svc.bench", Fields: fields, Bytes: 1024}},
		Connections: w.Streams, Mesh: w.Conns, Workers: 1, Warm: latencyWarm, For: r.latencyTime(),
	}
}

// A paced process is under load at the fixed rate, again and again.
type paced struct {
	*talk
	p50, p99 []float64 // µs, of each round
}

func (r *Rig) pace(ctx context.Context, w Work, p *Process, direct bool) (*paced, error) {
	t, err := r.talk(ctx, loadCPU, "pace", p, r.paceOf(w, p, direct))
	if err != nil {
		return nil, err
	}
	return &paced{talk: t}, nil
}

// measure makes the load once.
func (s *paced) measure(ctx context.Context, length time.Duration) error {
	var p pace
	if err := s.ask(ctx, true, &p, length+latencyWarm+startTime); err != nil {
		return err
	}
	switch {
	case p.Failed > 0:
		return fmt.Errorf("%d of %d requests failed, first: %v", p.Failed, p.Failed+p.Done, p.Why)
	case p.Done == 0:
		return errors.New("no request was answered")
	}
	s.p50 = append(s.p50, float64(p.P50)/1000)
	s.p99 = append(s.p99, float64(p.P99)/1000)
	return nil
}

// added measures what each adds to the latency of the path without a proxy,
// round by round.
func (r *Rig) added(ctx context.Context, c *Contest, end *Process, ran []*Entry) error {
	var all []*paced
	defer func() {
		for _, s := range all {
			s.End()
		}
	}()
	for i := range len(ran) + 1 {
		p, name := end, "without a proxy"
		if i > 0 {
			p, name = ran[i-1].proc, ran[i-1].Name
		}
		s, err := r.pace(ctx, c.Work, p, i == 0)
		if err != nil {
			return fmt.Errorf("latency of %s: %w", name, err)
		}
		all = append(all, s)
	}
	for round := range r.latencyRounds() {
		for i := range all {
			at := (round + i) % len(all)
			if err := all[at].measure(ctx, r.latencyTime()); err != nil {
				return fmt.Errorf("latency, round %d: %w", round+1, err)
			}
		}
		for i, e := range ran {
			r.logf("  latency, round %d  %-26s  p50 %+6.0f µs, p99 %+6.0f µs", round+1, e.Name,
				all[i+1].p50[round]-all[0].p50[round], all[i+1].p99[round]-all[0].p99[round])
		}
	}
	direct := all[0]
	c.Direct = &Direct{P50: spread(direct.p50), P99: spread(direct.p99)}
	for i, e := range ran {
		e.P50, e.P99 = more(all[i+1].p50, direct.p50), more(all[i+1].p99, direct.p99)
	}
	return nil
}

// Direct is the latency of the path without a proxy, in µs.
type Direct struct {
	P50 Spread `json:"p50"`
	P99 Spread `json:"p99"`
}

// A machine is busy if others use more than a twentieth of it, or if the path
// without a proxy mostly takes twice what it takes in the quietest round.
const (
	busyOthers = 0.05
	busyDirect = 2
)

// busy reports whether neighbours had so much of the machine that latency says
// more about them than about proxies.
func (c *Contest) busy() bool {
	return c.Neighbours > busyOthers || c.Direct != nil && c.Direct.P50.Median > busyDirect*c.Direct.P50.Low
}

// Added is what a proxy adds to a latency, in µs.
type Added struct {
	// Quiet compares the quietest round of each: what disturbs a machine only adds.
	Quiet  float64 `json:"quiet"`
	Rounds Spread  `json:"rounds"` // round by round
}

// more is how much more some latencies are than others.
func more(of, to []float64) *Added {
	var s []float64
	for i := range of {
		s = append(s, of[i]-to[i])
	}
	return &Added{slices.Min(of) - slices.Min(to), spread(s)}
}
