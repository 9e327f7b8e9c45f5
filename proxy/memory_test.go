package proxy

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// TestMemoryLadder sets the use and looks at what each step does, on the way up and
// on the way down.
func TestMemoryLadder(t *testing.T) {
	var use atomic.Uint64
	var told []string
	inFakeTime(t, rigOptions{more: func(o *Options) {
		o.MemoryLimit, o.MemoryUse = 1000, use.Load
		o.OnMemory = func(s memory.Step, _ uint64) { told = append(told, s.String()) }
	}}, echo, func(r *rig) {
		const question = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
		c := r.open(serviceA)
		for _, tt := range []struct {
			use    uint64
			step   memory.Step
			refuse bool
		}{
			{100, memory.Calm, false}, {500, memory.Tight, false}, {600, memory.Crowded, false},
			{700, memory.Full, true}, {800, memory.Cut, true}, {690, memory.Full, true},
			{590, memory.Crowded, false}, {490, memory.Tight, false}, {390, memory.Calm, false},
		} {
			use.Store(tt.use)
			time.Sleep(lookEvery)
			synctest.Wait()
			if got := memory.Step(r.p.pressure.step.Load()); got != tt.step {
				t.Errorf("use %d: step %v, want %v", tt.use, got, tt.step)
			}
			if got := r.p.pressure.tight.Load(); got != (tt.step >= memory.Tight) {
				t.Errorf("%v: windows are small: %v", tt.step, got)
			}
			c.send(question)
			want, status := fault.Kinds, 200
			if tt.refuse {
				want, status = fault.Overload, 503
			}
			if o := r.outcome(); o.kind != want || o.status != status {
				t.Errorf("%v: a request ends with %v, want %d", tt.step, o, status)
			}
			_, err := r.tryOpen(serviceA)
			refusal, refused := errors.AsType[*hbone.Refusal](err)
			if refused != tt.refuse || refused && (refusal.Status != 503 || !strings.Contains(refusal.Reason, "overload")) {
				t.Errorf("%v: a tunnel is answered with %v", tt.step, err)
			}
		}
		if got, want := strings.Join(told, " "), "tight crowded full cut full crowded tight calm"; got != want {
			t.Errorf("told of %s, want %s", got, want)
		}
		if n := r.p.stats.Faults[fault.Overload].Load(); n != 6 {
			t.Errorf("%d refusals are counted, want 3 requests and 3 tunnels", n)
		}
		for step, want := range map[memory.Step]float64{memory.Tight: 1, memory.Cut: 1} {
			if got := r.p.pressure.reached[step].Load(); float64(got) != want {
				t.Errorf("%v was reached %d times", step, got)
			}
		}
		if got := r.series("waypoint_memory_steps_total"); got != 4 {
			t.Errorf("the metrics tell of %v steps, want 4", got)
		}
	})
}

// Without a limit nobody looks.
func TestNoMemoryLimit(t *testing.T) {
	inFakeTime(t, rigOptions{more: func(o *Options) {
		o.MemoryUse = func() uint64 { t.Error("memory is looked at"); return 1 << 40 }
	}}, echo, func(r *rig) {
		time.Sleep(10 * lookEvery)
		c := r.open(serviceA)
		c.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
		if o := r.outcome(); o.status != 200 {
			t.Errorf("a request ends with %v", o)
		}
	})
}
