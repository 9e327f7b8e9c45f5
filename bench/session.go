package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// A Session is load in a process of its own. Its connections stand from one
// measurement to the next.
type Session struct {
	proc *Process
	to   *Process // what is loaded
	in   *json.Encoder
	out  *bufio.Reader
}

// Load starts a session that loads p, on the CPU that load has.
func (r *Rig) Load(ctx context.Context, p *Process, plan traffic.Plan) (*Session, error) {
	return r.load(ctx, loadCPU, p, plan)
}

func (r *Rig) load(ctx context.Context, cpu int, p *Process, plan traffic.Plan) (*Session, error) {
	plan.Addr, plan.PID = p.Addr, p.PID()
	proc, out, err := r.start("load", cpu, append(r.self[:len(r.self):len(r.self)], "load", "{}"))
	if err != nil {
		return nil, err
	}
	s := &Session{proc: proc, to: p, in: json.NewEncoder(proc.in.(io.Writer)), out: out}
	if _, err := s.call(ctx, plan, startTime); err != nil {
		s.End()
		return nil, err
	}
	return s, nil
}

// Measure has the load work and returns what came of it. Load that met errors
// is an error.
func (s *Session) Measure(ctx context.Context, m traffic.Measure) (*traffic.Result, error) {
	res, err := s.call(ctx, m, m.Warm+m.For+startTime)
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		if gone := s.to.alive(); gone != nil {
			return nil, fmt.Errorf("%w (%w)", err, gone)
		}
		return nil, err
	}
	return res, nil
}

// End closes the session's connections.
func (s *Session) End() { s.proc.Stop() }

// call hands v to the load process and waits for its answer, but not for ever.
func (s *Session) call(ctx context.Context, v any, limit time.Duration) (*traffic.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.in.Encode(v); err != nil {
		return nil, fmt.Errorf("speak to the load process: %w: %s", err, s.proc.log)
	}
	type answer struct {
		res traffic.Result
		err error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		line, err := s.out.ReadBytes('\n')
		if a.err = err; err == nil {
			a.err = json.Unmarshal(line, &a.res)
		}
		got <- a
	}()
	select {
	case a := <-got:
		if a.err != nil {
			s.proc.Stop() // so that its last words are complete
			return nil, fmt.Errorf("load: %w: %s", a.err, s.proc.log)
		}
		return &a.res, nil
	case <-ctx.Done():
		s.proc.Stop()
		return nil, fmt.Errorf("load does not answer: %w: %s", context.Cause(ctx), s.proc.log)
	}
}
