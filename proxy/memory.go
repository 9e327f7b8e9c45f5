package proxy

import (
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

const (
	// lookEvery is how often memory is looked at while it is not short, and
	// glanceEvery how often what buffers hold is: a client with a fast network fills
	// a small container in less than a look's distance.
	lookEvery   = 250 * time.Millisecond
	glanceEvery = 20 * time.Millisecond
	// sendAway is how many connections are asked to go elsewhere every lookEvery: few,
	// because what they hold is free only later.
	sendAway = 4
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
	looked time.Time
	lent   int64     // then
	sent   time.Time // clients were asked to go
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
	tick := time.NewTicker(glanceEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			if m := &p.pressure; m.hurries() || now.Sub(m.looked) >= lookEvery {
				m.looked, m.lent = now, buf.Lent()
				p.lookAtMemory()
			}
		}
	}
}

// hurries reports whether memory is short, or what was lent since the last look may
// have made it so.
func (m *pressure) hurries() bool {
	return m.step.Load() > int32(memory.Calm) || m.short(m.use.Load()+uint64(max(0, buf.Lent()-m.lent)))
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
		p.server.CutHeaviest(int64(use - m.ladder.Limit/100*(memory.CutAt-memory.StepBack)))
	case step >= memory.Crowded && m.looked.Sub(m.sent) >= lookEvery:
		m.sent = m.looked
		p.server.SendAway(sendAway)
	}
}

// errFull refuses a tunnel or a request because memory is short.
var errFull = fault.Wrap(fault.Overload, fault.Local, nil)
