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

// A talk is with a part that answers each line with a line.
type talk struct {
	proc *Process
	to   *Process // what is loaded by it
	in   *json.Encoder
	out  *bufio.Reader
}

// talk starts a part that loads p, and tells it the plan.
func (r *Rig) talk(ctx context.Context, cpu int, part string, p *Process, plan any) (*talk, error) {
	proc, out, err := r.start(part, cpu, append(r.self[:len(r.self):len(r.self)], part, "{}"))
	if err != nil {
		return nil, err
	}
	t := &talk{proc: proc, to: p, in: json.NewEncoder(proc.in.(io.Writer)), out: out}
	var ready json.RawMessage
	if err := t.ask(ctx, plan, &ready, startTime); err != nil {
		t.End()
		return nil, err
	}
	return t, nil
}

// End closes the part's connections.
func (t *talk) End() { t.proc.Stop() }

// ask hands v to the part and waits for its answer, but not for ever.
func (t *talk) ask(ctx context.Context, v, into any, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := t.in.Encode(v); err != nil {
		return fmt.Errorf("speak to the load process: %w: %s", err, t.proc.log)
	}
	type answer struct {
		line []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := t.out.ReadBytes('\n')
		got <- answer{line, err}
	}()
	select {
	case a := <-got:
		if a.err == nil {
			a.err = json.Unmarshal(a.line, into)
		}
		if a.err != nil {
			t.proc.Stop() // so that its last words are complete
			return t.blame(fmt.Errorf("load: %w: %s", a.err, t.proc.log))
		}
		return nil
	case <-ctx.Done():
		t.proc.Stop()
		return t.blame(fmt.Errorf("load does not answer: %w: %s", context.Cause(ctx), t.proc.log))
	}
}

// blame adds to an error that what was loaded has ended, if it has.
func (t *talk) blame(err error) error {
	if gone := t.to.alive(); gone != nil {
		return fmt.Errorf("%w (%w)", err, gone)
	}
	return err
}

// A Session is load in a process of its own. Its connections stand from one
// measurement to the next.
type Session struct{ *talk }

// Load starts a session that loads p, on the CPU that load has.
func (r *Rig) Load(ctx context.Context, p *Process, plan traffic.Plan) (*Session, error) {
	return r.load(ctx, loadCPU, p, plan)
}

func (r *Rig) load(ctx context.Context, cpu int, p *Process, plan traffic.Plan) (*Session, error) {
	plan.Addr, plan.PID = p.Addr, p.PID()
	t, err := r.talk(ctx, cpu, "load", p, plan)
	if err != nil {
		return nil, err
	}
	return &Session{t}, nil
}

// Measure has the load work and returns what came of it. Load that met errors
// is an error.
func (s *Session) Measure(ctx context.Context, m traffic.Measure) (*traffic.Result, error) {
	res := &traffic.Result{}
	if err := s.ask(ctx, m, res, m.Warm+m.For+startTime); err != nil {
		return nil, err
	}
	if err := res.Err(); err != nil {
		return nil, s.blame(err)
	}
	return res, nil
}
