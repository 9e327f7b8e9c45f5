package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
)

const (
	resting  int32 = iota // streams wait for the next measurement
	warming               // load that is not counted
	counting              // load that is
	stopping              // connections are being closed
)

// parkTime bounds how long streams may take to finish what they have begun.
const parkTime = 10 * time.Second

// A Run is a Plan in progress: its connections stand until Close, and its
// streams rest between measurements.
type Run struct {
	plan   *Plan
	groups []*group
	meshes []*mesh
	phase  atomic.Int32
	errs   atomic.Int64
	active atomic.Int32 // streams that are not parked

	mu      sync.Mutex
	why     []string
	closers []func()
	gate    chan struct{} // closed to let parked plain streams go
	wg      sync.WaitGroup
}

type group struct {
	Group
	clients []*client
	hist    *histogram // of the measurement in progress
}

// A client is one stream's side of the load. Its owner is whoever reads the
// stream.
type client struct {
	run   *Run
	group *group
	id    uint32
	seq   uint32
	req   request
	ans   answer
	began time.Time
	once  func() // has the parked stream ask

	// Read by Measure at any time.
	done  atomic.Int64
	bytes atomic.Int64
}

// Start opens the connections that plan wants. It takes some seconds at most.
func Start(ctx context.Context, plan *Plan) (*Run, error) {
	r := &Run{plan: plan, gate: make(chan struct{})}
	id := uint32(0)
	for _, g := range plan.Groups {
		gr := &group{Group: g, hist: newHistogram()}
		for range g.Streams {
			c := &client{run: r, group: gr, id: id, req: newRequest(g.Answer, g.Upload)}
			if plan.Calls > 0 {
				c.req, c.ans.call = newCall(g.Answer), true
			}
			gr.clients = append(gr.clients, c)
			id++
		}
		r.groups = append(r.groups, gr)
	}
	err := plan.check()
	switch {
	case err != nil:
	case plan.Via == ViaPlain, plan.Via == ViaProxy:
		err = r.connectPlain(ctx)
	default:
		err = r.connectMesh(ctx)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close ends all connections.
func (r *Run) Close() {
	r.phase.Store(stopping)
	r.mu.Lock()
	closers := r.closers
	r.closers = nil
	close(r.gate)
	r.gate = make(chan struct{})
	r.mu.Unlock()
	for _, f := range closers {
		f()
	}
	r.wg.Wait()
}

// ask returns the bytes of the next request's head.
func (c *client) ask(now time.Time) []byte {
	c.seq++
	c.began = now
	c.ans.expect(c.req.next(c.id, c.seq), c.group.Answer)
	return c.req.bytes
}

// got takes received bytes and reports whether the answer is complete.
func (c *client) got(p []byte) (done bool, err error) {
	before := c.ans.off
	done, err = c.ans.feed(p)
	if err != nil {
		return false, err
	}
	c.bytes.Add(c.ans.off - before)
	return done, nil
}

// complete counts an answer.
func (c *client) complete(now time.Time) {
	c.done.Add(1)
	if c.run.phase.Load() == counting {
		c.group.hist.add(now.Sub(c.began))
	}
}

// fail counts an error, unless the run is over and its connections are being
// closed.
func (r *Run) fail(format string, args ...any) {
	if r.phase.Load() == stopping {
		return
	}
	r.errs.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.why) < 3 {
		r.why = append(r.why, fmt.Sprintf(format, args...))
	}
}

// atEnd has f called when the run stops. f must end what it is about.
func (r *Run) atEnd(f func()) {
	r.mu.Lock()
	r.closers = append(r.closers, f)
	r.mu.Unlock()
}

// opened is the gate that a stream which has to rest waits at.
func (r *Run) opened() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gate
}

// resume lets every parked stream ask.
func (r *Run) resume() {
	r.phase.Store(warming)
	r.mu.Lock()
	close(r.gate)
	r.gate = make(chan struct{})
	r.mu.Unlock()
	for _, m := range r.meshes {
		m.resume()
	}
}

// rest has every stream park after the answer it waits for, but for slow
// readers: they go on.
func (r *Run) rest(ctx context.Context) error {
	r.phase.Store(resting)
	for end := time.Now().Add(parkTime); r.active.Load() > 0; {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d streams do not finish what they have begun", r.active.Load())
		}
	}
	return nil
}

// counts of every client at one moment.
type counts struct{ done, bytes []int64 }

func (r *Run) counts() (c counts) {
	for _, g := range r.groups {
		for _, cl := range g.clients {
			c.done = append(c.done, cl.done.Load())
			c.bytes = append(c.bytes, cl.bytes.Load())
		}
	}
	return c
}

// Measure has the streams work for a while, counts from one moment to another,
// and reads the CPU time of the watched process at the same two moments.
func (r *Run) Measure(ctx context.Context, m Measure) (*Result, error) {
	if m.Each {
		return r.each(ctx)
	}
	for _, g := range r.groups {
		g.hist.reset()
	}
	var s span
	var err error
	if m.Whole {
		s, err = r.whole(ctx, m)
	} else {
		s, err = r.between(ctx, m)
	}
	if err != nil {
		return nil, err
	}
	res := &Result{Elapsed: s.end.at.Sub(s.begin.at)}
	if res.Own, err = account.Between(s.begin.cpu.own, s.end.cpu.own); err != nil {
		return nil, err
	}
	if res.CPU, err = account.Between(s.begin.cpu.watched, s.end.cpu.watched); err != nil {
		return nil, err
	}
	r.fill(res, s.begin.counts, s.end.counts, m.Stay)
	return res, nil
}

// A moment is what was used and done up to then.
type moment struct {
	at     time.Time
	cpu    cpuTime
	counts counts
}

// A span is from one moment to another.
type span struct{ begin, end moment }

func (r *Run) moment() (m moment, err error) {
	m.cpu, err = r.cpu()
	m.counts, m.at = r.counts(), time.Now()
	return m, err
}

// between counts in the middle of load.
func (r *Run) between(ctx context.Context, m Measure) (s span, err error) {
	if r.phase.Load() == resting {
		r.resume()
	}
	if err = sleep(ctx, m.Warm); err != nil {
		return s, err
	}
	if s.begin, err = r.moment(); err != nil {
		return s, err
	}
	r.phase.Store(counting)
	if err = sleep(ctx, m.For); err != nil {
		return s, err
	}
	if s.end, err = r.moment(); err != nil {
		return s, err
	}
	r.phase.Store(warming)
	if !m.Stay {
		err = r.rest(ctx)
	}
	return s, err
}

// whole counts from rest to rest.
func (r *Run) whole(ctx context.Context, m Measure) (s span, err error) {
	if r.phase.Load() != resting || m.Stay || m.Warm > 0 {
		return s, errors.New("a whole measurement begins and ends at rest")
	}
	if s.begin, err = r.moment(); err != nil {
		return s, err
	}
	r.resume()
	r.phase.Store(counting)
	if err = sleep(ctx, m.For); err != nil {
		return s, err
	}
	if err = r.rest(ctx); err != nil {
		return s, err
	}
	s.end, err = r.moment()
	return s, err
}

// each has every stream ask once. They rest before and afterwards.
func (r *Run) each(ctx context.Context) (*Result, error) {
	for _, g := range r.groups {
		for _, c := range g.clients {
			before := c.done.Load()
			c.once()
			for c.done.Load() == before && r.errs.Load() == 0 {
				if err := sleep(ctx, 50*time.Microsecond); err != nil {
					return nil, fmt.Errorf("stream %d (%s): %w", c.id, g.Name, err)
				}
			}
		}
	}
	if err := r.rest(ctx); err != nil {
		return nil, err
	}
	res, now := &Result{}, r.counts()
	r.fill(res, now, now, false)
	return res, nil
}

// fill puts the clients' counts into res. Streams that got nothing are errors
// if they stay: those that rest have been seen to finish.
func (r *Run) fill(res *Result, from, to counts, stay bool) {
	i := 0
	for _, g := range r.groups {
		gr := GroupResult{Name: g.Name, P50: g.hist.quantile(.5), P99: g.hist.quantile(.99), Max: g.hist.quantile(1)}
		for _, c := range g.clients {
			gr.Requests += to.done[i] - from.done[i]
			gr.Bytes += to.bytes[i] - from.bytes[i]
			if to.done[i] == from.done[i] && to.bytes[i] == from.bytes[i] {
				gr.Stalled++
				if stay {
					r.fail("stream %d (%s) got nothing", c.id, g.Name)
				}
			}
			i++
		}
		res.Groups = append(res.Groups, gr)
	}
	for _, n := range r.counts().done {
		res.Total += n
	}
	r.mu.Lock()
	res.Errors, res.Why = r.errs.Load(), append([]string(nil), r.why...)
	r.mu.Unlock()
}

// A cpuTime is what this process and the watched one have used so far.
type cpuTime struct{ own, watched account.Sample }

func (r *Run) cpu() (t cpuTime, err error) {
	if t.own, err = (account.Meter{PID: os.Getpid()}).Read(); err != nil {
		return t, err
	}
	if r.plan.PID != 0 {
		t.watched, err = account.Meter{PID: r.plan.PID}.Read()
	}
	return t, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
