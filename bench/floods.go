package bench

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// neighbourBar is how many times longer a neighbour's p99 may be.
const neighbourBar = 2

// floods attacks the proxy with frames that nobody sends in good faith: each is to
// be ended soon, or held at little memory, to cost the proxy little more than the
// attacker, and to leave a neighbour alone.
//
// The proxy paces addresses from which floods came. So that an attack is seen often
// enough, each connection comes from another address, but for the neighbour's part:
// there one attacker has one address and comes again and again, in each slice from
// another one, so that what is seen is always its beginning, when the pace is fastest.
func floods(inner bool) Scenario {
	where := "mesh"
	if inner {
		where = "inner"
	}
	name := func(what string) string { return "flood-" + where + "-" + what }
	bars := []Bar{
		{Name: name("ended-within"), Unit: "ms", Most: 100},
		{Name: name("cpu-vs-attacker"), Most: 10},
		{Name: name("neighbour-p99"), Most: neighbourBar},
		{Name: name("memory"), Unit: "MiB", Most: 8},
	}
	return Scenario{
		Bars: bars,
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			var all []flooded
			for _, a := range traffic.Attacks() {
				one, err := r.flooded(ctx, a, inner)
				if err != nil {
					return fmt.Errorf("%s: %w", a.Name, err)
				}
				all = append(all, *one)
				r.Clear()
			}
			const scattered = "each connection from another address"
			for i, row := range []struct {
				of  func(*flooded) float64
				how string
			}{
				{(*flooded).ended, scattered},
				{(*flooded).cost, scattered},
				{(*flooded).neighbour, "from one address, again at once: " + again(all)},
				{(*flooded).memory, scattered},
			} {
				f[bars[i].Name] = hardest(all, row.of, row.how)
			}
			return nil
		},
	}
}

// A flooded is what came of one attack.
type flooded struct {
	attack string
	result traffic.FloodResult
	p99    Spread
	again  []int // connections in each slice beside the neighbour
	grown  int64 // bytes of memory
	held   bool  // it was not to be ended
}

// ended is when the server ended the attack. If it never did, that is as long as the
// attack went on.
func (f *flooded) ended() float64 {
	if !f.held && f.result.Ended < f.result.Conns {
		return traffic.FloodTime.Seconds() * 1000
	}
	return f.result.Median.Seconds() * 1000
}

func (f *flooded) cost() float64      { return float64(f.result.CPU) / float64(f.result.Own) }
func (f *flooded) neighbour() float64 { return f.p99.Median }
func (f *flooded) memory() float64    { return float64(f.grown) / (1 << 20) }

// again says how often an attacker with one address got in beside the neighbour.
func again(all []flooded) string {
	var n []int
	for i := range all {
		n = append(n, all[i].again...)
	}
	return fmt.Sprintf("%d to %d connections begun in %v", slices.Min(n), slices.Max(n), besideSlice)
}

// hardest is the figure of the attack that came out worst, and says which.
func hardest(all []flooded, of func(*flooded) float64, how string) Figure {
	var v float64
	var each []string
	for i := range all {
		one := of(&all[i])
		v = max(v, one)
		each = append(each, fmt.Sprintf("%s %.2f", all[i].attack, one))
	}
	return Figure{Spread: Spread{v, v, v}, Note: how + ": " + strings.Join(each, ", ")}
}

// flooded makes one attack on a proxy of its own.
func (r *Rig) flooded(ctx context.Context, a traffic.Attack, inner bool) (*flooded, error) {
	end, err := r.Part("tunnel", loadCPU, PartOptions{Certs: r.certs["echo"]})
	if err != nil {
		return nil, err
	}
	way, err := r.waypoint(ctx, proxyCPU, upstream{Tunnel: end.Addr})
	if err != nil {
		return nil, err
	}
	neighbour, err := r.Load(ctx, way.hbone, r.meshPlan(1, small(8)))
	if err != nil {
		return nil, err
	}
	defer neighbour.End()
	flooder, err := r.flooder(ctx, way.hbone)
	if err != nil {
		return nil, err
	}
	defer flooder.End()
	one := &flooded{attack: a.Name, held: a.Limit == 0}
	if _, err := neighbour.Measure(ctx, traffic.Measure{Warm: slice, For: 3 * slice}); err != nil {
		return nil, err
	}
	order := traffic.Flood{Attack: a.Name, Inner: inner, For: 5 * slice, Apart: true, From: loopback(1), Scatter: true}
	if one.grown, err = peak(ctx, way.hbone, func() error {
		return flooder.ask(ctx, order, &one.result, order.For+startTime)
	}); err != nil {
		return nil, err
	}
	order.Apart, order.Scatter, order.For, order.Pause, order.Pace = false, false, besideSlice, 10*time.Millisecond, time.Millisecond
	if err := one.besides(ctx, r, neighbour, flooder, order); err != nil {
		return nil, err
	}
	res := &one.result
	per := func(d time.Duration) time.Duration { return (d / time.Duration(res.Conns)).Round(time.Microsecond) }
	r.logf("  %-20s %4d of %4d ended, after %8v (worst %8v), %6d frames each; CPU %8v vs %8v (%.2f), of them after the handshake %8v vs %8v (%.2f); neighbour's p99 %.2f, beside %v connections; %+.2f MiB; %s",
		a.Name, res.Ended, res.Conns, res.Median.Round(time.Microsecond), res.Worst.Round(time.Microsecond), res.Units/int64(res.Conns),
		per(res.CPU), per(res.Own), one.cost(), per(res.CPUApart), per(res.OwnApart), float64(res.CPUApart)/float64(res.OwnApart), one.p99.Median, one.again, one.memory(), res.Why)
	return one, nil
}

// loopback is the first of many addresses of loopback, of which only Linux has more
// than one: with others an attacker has the one of all.
func loopback(net byte) netip.Addr {
	if runtime.GOOS != "linux" {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{127, net, 0, 1})
}

// besideSlice is long enough for an attacker to come again some times.
const besideSlice = 5 * slice

// tries is how often a neighbour is looked at anew: what else the machine does can
// only make a figure worse.
const tries = 3

// besides compares a neighbour's p99 under attack with that at peace.
func (f *flooded) besides(ctx context.Context, r *Rig, neighbour *Session, flooder *talk, order traffic.Flood) error {
	for n := range tries {
		order.From = loopback(byte(2 + n))
		s, again, err := r.beside(ctx, neighbour, flooder, order)
		if err != nil {
			return err
		}
		if n == 0 || s.Median < f.p99.Median {
			f.p99, f.again = s, again
		}
		if f.p99.Median <= neighbourBar {
			break
		}
	}
	return nil
}

// beside compares the medians of slices' p99, with and without. It says how many
// connections the attacker made in each slice with.
func (r *Rig) beside(ctx context.Context, neighbour *Session, flooder *talk, order traffic.Flood) (p Spread, again []int, err error) {
	var got [2][]float64
	for range r.Rounds {
		for i := range got {
			attack := make(chan error, 1)
			var res traffic.FloodResult
			if i == 1 {
				go func(order traffic.Flood) {
					time.Sleep(sliceWarm) // the first connection, too, is to meet what is measured
					attack <- flooder.ask(ctx, order, &res, order.For+startTime)
				}(order)
			} else {
				attack <- nil
			}
			m, err := neighbour.Measure(ctx, traffic.Measure{Warm: sliceWarm, For: order.For})
			if err2 := <-attack; err == nil {
				err = err2
			}
			if err != nil {
				return Spread{}, nil, err
			}
			got[i] = append(got[i], p99(m))
			if i == 1 {
				order.From = order.From.Next()
				again = append(again, res.Conns)
			}
		}
	}
	v := spread(got[1]).Median / spread(got[0]).Median
	return Spread{v, v, v}, again, nil
}

// peak says how much more memory a process had at most while do went on.
func peak(ctx context.Context, p *Process, do func() error) (grown int64, err error) {
	before, err := account.Resident(p.PID())
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan int64)
	go func() {
		var most int64
		for ctx.Err() == nil {
			if now, err := account.Resident(p.PID()); err == nil {
				most = max(most, now)
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
		done <- most
	}()
	err = do()
	stop()
	return <-done - before, err
}

// attacker is the part that floods.
const attacker = "flood"

// flooder starts a process that attacks p. It stands back behind the neighbour's
// client, with which it shares a CPU: what that waits for is to be the proxy.
func (r *Rig) flooder(ctx context.Context, p *Process) (*talk, error) {
	return r.talk(ctx, loadCPU, attacker, p, traffic.FloodPlan{Addr: p.Addr, To: vip, Certs: r.certs["curl"], PID: p.PID()})
}
