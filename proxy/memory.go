package proxy

import (
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

const (
	// lookEvery is how often memory is looked at.
	lookEvery = 250 * time.Millisecond
	// sendAway is how many connections are asked to go elsewhere at each look, and
	// cutOff how many are cut: few, because what they held is free only later.
	sendAway = 4
	cutOff   = 4
)

// A pressure is how short memory is, and what is done about it.
type pressure struct {
	// Atomic: read by those who would take more.
	tight atomic.Bool // windows are small
	full  atomic.Bool // nobody new comes in

	// Atomic: for people.
	use     atomic.Uint64
	step    atomic.Int32
	reached [memory.Steps]atomic.Int64 // how often each step was reached

	// Owned by watchMemory.
	ladder memory.Ladder
	gauge  func() uint64
}

// startPressure begins to look at memory, if there is a limit.
func (p *Proxy) startPressure() {
	m := &p.pressure
	if m.ladder.Limit = p.MemoryLimit; m.ladder.Limit == 0 {
		return
	}
	if m.gauge = p.MemoryUse; m.gauge == nil {
		g := memory.NewGauge(buf.Lent)
		m.gauge = func() uint64 { return g.Use(m.short) }
	}
	go p.watchMemory()
}

// short reports whether a use is one that the ladder answers.
func (m *pressure) short(use uint64) bool { return use >= m.ladder.Limit/100*memory.TightAt }

func (p *Proxy) watchMemory() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.lookAtMemory()
		}
	}
}

// lookAtMemory measures, and does what the step that is reached asks for.
func (p *Proxy) lookAtMemory() {
	m := &p.pressure
	use := m.gauge()
	was := memory.Step(m.step.Load())
	step := m.ladder.Look(use)
	m.use.Store(use)
	m.step.Store(int32(step))
	for s := was + 1; s <= step; s++ {
		m.reached[s].Add(1)
	}
	m.tight.Store(step >= memory.Tight)
	m.full.Store(step >= memory.Full)
	if step != was && p.OnMemory != nil {
		p.OnMemory(step, use)
	}
	switch {
	case step >= memory.Cut:
		p.server.Relieve(cutOff, true)
	case step >= memory.Crowded:
		p.server.Relieve(sendAway, false)
	}
}

// errFull refuses a tunnel or a request because memory is short.
var errFull = fault.Wrap(fault.Overload, fault.Local, nil)
