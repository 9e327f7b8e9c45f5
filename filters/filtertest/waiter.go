package filtertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var (
	_ filters.RequestFilter      = (*workWaiter)(nil)
	_ filters.RequestBodyFilter  = (*workWaiter)(nil)
	_ filters.ResponseFilter     = (*workWaiter)(nil)
	_ filters.ResponseBodyFilter = (*workWaiter)(nil)
	_ filters.Narrower           = (*workWaiter)(nil)
	_ filters.Worker             = (*workWaiter)(nil)
)

// A Gate holds filters that wait until the test opens it. A nil Gate is open.
type Gate struct {
	Entered chan struct{} // gets one value for each stream that has come to wait
	open    chan struct{}
	waiting atomic.Int64
	dropped atomic.Int64
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{Entered: make(chan struct{}, 1<<12), open: make(chan struct{})}
}

// Open lets all streams pass from now on.
func (g *Gate) Open() { close(g.open) }

// Waiting returns how many streams wait at the gate.
func (g *Gate) Waiting() int { return int(g.waiting.Load()) }

// Dropped returns how many streams were over before the gate was opened.
func (g *Gate) Dropped() int { return int(g.dropped.Load()) }

func (g *Gate) pass(ctx context.Context) {
	if g == nil {
		return
	}
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	select {
	case g.Entered <- struct{}{}:
	default: // nobody counts that many
	}
	select {
	case <-g.open:
	case <-ctx.Done():
		g.dropped.Add(1)
	}
}

// Waiter is "test-wait": a filter that waits at the gate and then for a time.
func Waiter(g *Gate) filters.Kind {
	return filters.Kind{Name: "test-wait", New: func(_ *filters.Builder, raw filters.Spec) (filters.Filter, error) {
		f := waiter{gate: g}
		if err := raw.Decode(&f.WaiterSettings); err != nil {
			return nil, err
		}
		if f.Phase == "" {
			f.Phase = filters.PhaseRequest.String()
		}
		for p := filters.PhaseRequest; p < filters.PhaseDone; p++ {
			if p.String() == f.Phase {
				f.phases = filters.PhasesOf(p)
			}
		}
		if f.phases == 0 {
			return nil, fmt.Errorf("no phase %q to wait in", f.Phase)
		}
		if f.Status != 0 {
			f.reply = &filters.Reply{Status: f.Status, Reason: "waited"}
		}
		if f.Waker {
			return &wakerWaiter{f}, nil
		}
		return &workWaiter{f}, nil
	}}
}

// WaiterSettings say where and how a Waiter waits.
type WaiterSettings struct {
	Phase  string        `json:"phase"`  // "request" if left out
	Delay  time.Duration `json:"delay"`  // after the gate
	Waker  bool          `json:"waker"`  // by a goroutine of its own that resumes, and not as a Worker
	Status int           `json:"status"` // reply with it in the end; 0: go on
}

type waiter struct {
	WaiterSettings
	gate   *Gate
	phases filters.Phases
	reply  *filters.Reply
}

func (f *waiter) Phases() filters.Phases { return f.phases }

// pause waits at the gate and for the delay, or until nobody waits any more.
func (f *waiter) pause(ctx context.Context) *filters.Reply {
	f.gate.pass(ctx)
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return f.reply
}

// workWaiter waits as a Worker.
type workWaiter struct{ waiter }

func (f *workWaiter) Request(*filters.Stream) *filters.Reply                     { return filters.Wait }
func (f *workWaiter) RequestBody(*filters.Stream, *message.Chunk) *filters.Reply { return filters.Wait }
func (f *workWaiter) Response(*filters.Stream) *filters.Reply                    { return filters.Wait }
func (f *workWaiter) ResponseBody(*filters.Stream, *message.Chunk) *filters.Reply {
	return filters.Wait
}

func (f *workWaiter) Work(ctx context.Context, _ *filters.Stream, _ filters.Phase) *filters.Reply {
	return f.pause(ctx)
}

// wakerWaiter waits for its own goroutine.
type wakerWaiter struct{ waiter }

func (f *wakerWaiter) Request(s *filters.Stream) *filters.Reply { return f.suspend(s) }
func (f *wakerWaiter) RequestBody(s *filters.Stream, _ *message.Chunk) *filters.Reply {
	return f.suspend(s)
}
func (f *wakerWaiter) Response(s *filters.Stream) *filters.Reply { return f.suspend(s) }
func (f *wakerWaiter) ResponseBody(s *filters.Stream, _ *message.Chunk) *filters.Reply {
	return f.suspend(s)
}

func (f *wakerWaiter) suspend(s *filters.Stream) *filters.Reply {
	go f.resume(s.Context(), s.Suspend())
	return filters.Wait
}

func (f *wakerWaiter) resume(ctx context.Context, w filters.Waker) { w.Resume(f.pause(ctx)) }
