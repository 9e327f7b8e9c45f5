package proxy

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// An Outcome is what became of one request. It and what its Stream refers to
// die when the observer returns.
type Outcome struct {
	Stream   *filters.Stream
	Status   int    // 0 if no head was sent
	Reason   string // why a filter or this proxy answered; "" if the endpoint did
	Sent     int64  // response body bytes
	Duration time.Duration
}

// observe turns the facts that the events left into counts and a record. It is
// the only place that does.
func (x *exchange) observe(*turn.Turn) {
	p := x.p
	p.stats.Requests.Add(1)
	if f := x.stream.Fault; f != nil {
		p.stats.Faults[f.Kind].Add(1)
	}
	if p.Observe == nil {
		return
	}
	p.Observe(&Outcome{
		Stream:   &x.stream,
		Status:   x.response.status,
		Reason:   x.reason,
		Sent:     x.response.bytes,
		Duration: time.Since(x.stream.Start),
	})
}

// panicked counts and tells a panic that was caught at an exchange's boundary.
func (p *Proxy) panicked(v any) {
	p.stats.Panics.Add(1)
	if p.OnPanic != nil {
		p.OnPanic(fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
	}
}
