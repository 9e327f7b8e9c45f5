package load

import (
	"os"
	"runtime"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
)

// A Running is a measurement as it stands, for progress.
type Running struct {
	Spec    *Spec
	Elapsed time.Duration // of the warm-up while that lasts, else of the part that counts
	Done    int64
	Failed  int64
	Waited  int64
}

// A book collects what workers record, second by second. It belongs to the
// goroutine that measures.
type book struct {
	run    *Run
	window window
	began  bool // the part that counts
	at     int64
	total  *record
	second *record // of all workers
	empty  *record
	points []Point

	own, target          usage // when the part that counts began
	lastOwn, lastTarget  usage
	memory               int64
	done                 int64 // answers within the time
	elapsed, ownCPU, cpu time.Duration
	looked               time.Duration // from the first look at processes to the last
}

// A usage is what a process has used so far.
type usage struct{ sample account.Sample }

func readUsage(pid int) (u usage, err error) {
	u.sample, err = account.Meter{PID: pid}.Read()
	return u, err
}

// since is the CPU time from one look to the next. When threads have ended the
// kernel's coarser count is right.
func (u usage) since(from usage) time.Duration {
	d, err := account.Between(from.sample, u.sample)
	if err != nil {
		return u.sample.Coarse - from.sample.Coarse
	}
	return d
}

// look reads what both processes have used.
func (b *book) look() (own, target usage, memory int64, err error) {
	if own, err = readUsage(os.Getpid()); err != nil {
		return own, target, 0, err
	}
	pid := b.run.spec.Target.PID
	if pid == 0 {
		return own, target, 0, nil
	}
	if target, err = readUsage(pid); err != nil {
		return own, target, 0, err
	}
	memory, err = account.Resident(pid)
	return own, target, memory, err
}

// keep closes a second if it is over.
func (b *book) keep(now int64) error {
	if !b.began {
		if now < b.window.from {
			if now-b.at >= int64(time.Second) {
				b.at = now
				b.tell(Point{Warm: true}, time.Duration(now-b.window.start))
			}
			return nil
		}
		b.began, b.at = true, now
		var err error
		b.own, b.target, b.memory, err = b.look()
		b.lastOwn, b.lastTarget = b.own, b.target
		return err
	}
	if now-b.at < int64(time.Second) {
		return nil
	}
	return b.point(now)
}

// point ends a second.
func (b *book) point(now int64) error {
	own, target, memory, err := b.look()
	if err != nil {
		return err
	}
	second := b.collect()
	secs := max(time.Duration(now-b.at), time.Microsecond).Seconds()
	p := Point{
		At:     time.Duration(now - b.window.from).Seconds(),
		Rate:   float64(second.ended) / secs,
		Sent:   float64(second.sent) / secs,
		Failed: second.failed(),
		P50:    time.Duration(second.corrected.ValueAtPercentile(50)),
		P99:    time.Duration(second.corrected.ValueAtPercentile(99)),
		Max:    time.Duration(second.corrected.Max()),
		Lag:    time.Duration(second.lag.ValueAtPercentile(99)),
		Own:    own.since(b.lastOwn).Seconds() / secs,
	}
	if b.run.spec.Target.PID != 0 {
		p.Cores, p.Memory = target.since(b.lastTarget).Seconds()/secs, memory
		b.memory = max(b.memory, memory)
	}
	b.lastOwn, b.lastTarget, b.at = own, target, now
	b.points = append(b.points, p)
	b.total.merge(second)
	b.tell(p, time.Duration(now-b.window.from))
	return nil
}

// collect takes what all workers have recorded since the last time.
func (b *book) collect() *record {
	b.second.reset()
	for _, w := range b.run.workers {
		b.empty.reset()
		got := w.swap(b.empty)
		b.second.merge(got)
		b.empty = got
	}
	return b.second
}

func (b *book) tell(p Point, elapsed time.Duration) {
	if f := b.run.progress; f != nil {
		f(p, &Running{Spec: &b.run.spec, Elapsed: elapsed, Done: b.total.done, Failed: b.total.failed(), Waited: b.total.waited})
	}
}

// close ends the part that counts; spent says that all requests have been made,
// and so that it ended with the last of them.
func (b *book) close(now int64, spent bool) error {
	if !b.began {
		return errNothing
	}
	if err := b.lastPoint(now); err != nil {
		return err
	}
	if spent {
		now = b.total.last
	}
	b.elapsed = max(time.Duration(now-b.window.from), time.Microsecond)
	b.done = b.total.ended
	b.looked = max(time.Duration(b.at-b.window.from), time.Microsecond)
	b.ownCPU, b.cpu = b.lastOwn.since(b.own), b.lastTarget.since(b.target)
	return nil
}

// lastPoint ends the last second. What little there is after a whole one makes no
// point.
func (b *book) lastPoint(now int64) (err error) {
	if len(b.points) == 0 || now-b.at > int64(time.Second)/4 {
		return b.point(now)
	}
	b.total.merge(b.collect())
	var memory int64
	b.lastOwn, b.lastTarget, memory, err = b.look()
	b.at = now
	b.memory = max(b.memory, memory)
	return err
}

// sweep adds what was on its way when the part that counts ended.
func (b *book) sweep() { b.total.merge(b.collect()) }

func (b *book) result() (*Result, error) {
	t, s := b.total, b.run.spec
	if t.sent == 0 && t.failed() == 0 {
		return nil, errNothing
	}
	r := &Result{Schema: schema, Began: b.run.base.UTC().Truncate(time.Millisecond).Add(time.Duration(b.window.start)), Machine: machine(), Spec: s,
		Elapsed: b.elapsed, Sent: t.sent, Done: t.done, Failed: t.failed(), Failures: map[string]int64{}, Statuses: t.statuses,
		Why: t.why, Bytes: t.bytes, Waited: t.waited, Lost: t.lost, Refused: t.refused, Points: b.points,
		Rate: float64(b.done) / b.elapsed.Seconds()}
	// Requests that were given up before they were sent count as well.
	r.Sent = r.Done + r.Failed
	for f, n := range t.failures {
		if n > 0 {
			r.Failures[Failure(f).String()] = n
		}
	}
	if !b.run.closed {
		r.Offered = float64(r.Sent) / min(b.elapsed, s.For).Seconds()
	}
	if err := r.summarize(t); err != nil {
		return nil, err
	}
	cores := float64(min(runtime.GOMAXPROCS(0), runtime.NumCPU(), 2*s.Workers))
	r.Generator = b.used(os.Getpid(), b.ownCPU)
	r.Generator.Share = r.Generator.Cores / cores
	if s.Target.PID != 0 {
		u := b.used(s.Target.PID, b.cpu)
		u.Memory = b.memory
		r.Target = &u
	}
	r.Bound = r.bound()
	return r, nil
}

func (b *book) used(pid int, cpu time.Duration) Usage {
	return Usage{PID: pid, CPU: cpu, Cores: cpu.Seconds() / b.looked.Seconds(), PerRequest: cpu / time.Duration(max(b.done, 1))}
}

func (r *Result) summarize(t *record) (err error) {
	if r.Latency, err = summarize(t.corrected); err != nil {
		return err
	}
	if r.Service = r.Latency; !t.closed {
		if r.Service, err = summarize(t.service); err != nil {
			return err
		}
	}
	if r.Lag, err = summarize(t.lag); err != nil {
		return err
	}
	for i, k := range t.kinds {
		if k.corrected == nil {
			break
		}
		kr := KindResult{Name: r.Spec.Mix[i].Name, Done: k.done, Failed: k.failed}
		if kr.Latency, err = summarize(k.corrected); err != nil {
			return err
		}
		r.Kinds = append(r.Kinds, kr)
	}
	return nil
}
