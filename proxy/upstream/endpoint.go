package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

const (
	// IdleTimeout is how long an unused inner connection is kept. Applications
	// close theirs after 5 s (Node) to 75 s (nginx); a call that meets such an
	// end before a byte of its response is repeated.
	IdleTimeout = 60 * time.Second
	// maxIdle is how many unused inner connections an endpoint keeps.
	maxIdle = 1024
	// lingerTime is how long the far end may take to close a connection that
	// we have closed.
	lingerTime = 10 * time.Second
)

// An endpointKey is what makes two addresses the same endpoint.
type endpointKey struct {
	addr, tunnel netip.AddrPort
	expect       string
}

func keyOf(a *Address) endpointKey {
	ids := make([]string, len(a.Expect))
	for i, id := range a.Expect {
		ids[i] = id.String()
	}
	slices.Sort(ids)
	return endpointKey{a.Addr, a.Tunnel, strings.Join(ids, ",")}
}

// An Endpoint is one member of a backend.
type Endpoint struct {
	// Set once.
	key  endpointKey
	dest *hbone.Dest
	pool *hbone.Pool

	// Atomic.
	workload atomic.Pointer[filters.Workload]
	active   atomic.Int32 // calls in progress

	calls sync.Pool // of *call2

	// rest is the lane of all connections that serve no call; a call's comes before
	// it. It guards:
	rest turn.Lane
	idle []*conn // unused inner connections, the latest last

	// Guarded by mu, a leaf in the lock order.
	mu     sync.Mutex
	left   bool     // it is no member any more; written with rest held too
	born   []*conn  // inner connections that are being opened for nobody
	ends   []*conn  // connections closed here and not yet by the far end
	conns2 []*conn2 // HTTP/2 connections; the slice is replaced, never edited
}

func newEndpoint(pool *hbone.Pool, k endpointKey, expect []peer.ID) *Endpoint {
	e := &Endpoint{key: k, pool: pool}
	if k.tunnel.IsValid() {
		e.dest = hbone.NewDest(k.tunnel, k.addr, expect)
	} else {
		e.dest = hbone.NewPlainDest(k.addr)
	}
	pool.Hold(e.dest)
	return e
}

// Addr returns where the endpoint's application listens.
func (e *Endpoint) Addr() netip.AddrPort { return e.key.addr }

// Plain reports whether the endpoint is dialled as plain TCP.
func (e *Endpoint) Plain() bool { return e.dest.Plain() }

// Workload says whose endpoint it is now; nil if nobody knows.
func (e *Endpoint) Workload() *filters.Workload { return e.workload.Load() }

// Active returns how many calls are in progress.
func (e *Endpoint) Active() int { return int(e.active.Load()) }

// Open begins one call for h, whose lane is held. When an unused connection
// serves it, ready is true and the call may be written to; otherwise Ready or
// Failed follows, never inside Open.
func (e *Endpoint) Open(t *turn.Turn, lane *turn.Lane, h CallHandler) (c Call, ready bool) {
	e.active.Add(1)
	if c := e.takeIdle(t, lane, h); c != nil {
		return c, true
	}
	if c := e.takeBorn(lane, h); c != nil {
		return c, false
	}
	return e.dial(t, lane, h), false
}

// Dial opens a tunnel for h that carries no calls. The endpoint counts it as in
// use until Release.
func (e *Endpoint) Dial(t *turn.Turn, h hbone.TunnelHandler) hbone.Tunnel {
	e.active.Add(1)
	return e.pool.Open(t, e.dest, h)
}

// Release says that a tunnel of Dial, or of a Call's Upgrade, is over.
func (e *Endpoint) Release() { e.active.Add(-1) }

// OpenFault names why a tunnel of Dial was not opened.
func (e *Endpoint) OpenFault(err error) *fault.Fault {
	kind := openKind(err)
	if u, ok := errors.AsType[*hbone.UnprocessedError](err); ok {
		kind = unprocessedKind(u)
	}
	return fault.Wrap(kind, fault.Upstream, fmt.Errorf("endpoint %s: %w", e.key.addr, err))
}

// CloseFault names why a tunnel that was open ended out of order.
func (e *Endpoint) CloseFault(err error) *fault.Fault {
	kind := fault.UpstreamClosedMidResponse
	if wasReset(err) {
		kind = fault.UpstreamResetMidResponse
	}
	return fault.Wrap(kind, fault.Upstream, fmt.Errorf("endpoint %s: %w", e.key.addr, err))
}

// dial opens a new inner connection in h's lane.
func (e *Endpoint) dial(t *turn.Turn, lane *turn.Lane, h CallHandler) *conn {
	c := &conn{ep: e, h: h, state: opening}
	c.lane.Store(lane)
	c.tun = e.pool.Open(t, e.dest, c)
	c.codec.Init(c.tun, c, nil)
	return c
}

// takeIdle takes the connection used last into the lane of its next call: it is
// the likeliest to be alive. One whose mesh connection is to go away is not used
// again, or it would hold that up.
func (e *Endpoint) takeIdle(t *turn.Turn, lane *turn.Lane, h CallHandler) *conn {
	e.rest.Lock()
	defer e.rest.Unlock()
	for n := len(e.idle) - 1; n >= 0; n-- {
		c := e.idle[n]
		e.idle[n] = nil
		e.idle = e.idle[:n]
		if !hbone.Draining(c.tun) {
			c.adopt(lane, h)
			return c
		}
		c.close(t)
	}
	return nil
}

// takeBorn takes a connection that is being opened and that nobody waits for.
func (e *Endpoint) takeBorn(lane *turn.Lane, h CallHandler) *conn {
	for {
		e.mu.Lock()
		n := len(e.born)
		if n == 0 {
			e.mu.Unlock()
			return nil
		}
		c := e.born[n-1]
		e.born[n-1] = nil
		e.born = e.born[:n-1]
		e.mu.Unlock()
		if c.await(lane, h) {
			return c
		}
	}
}

func (e *Endpoint) putBorn(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.born = append(e.born, c)
}

// dropBorn forgets a connection that has been opened, or will not be.
func (e *Endpoint) dropBorn(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.born, c); i >= 0 {
		e.born = slices.Delete(e.born, i, i+1)
	}
}

// Adopt takes the far tunnel of a relay, which Dial opened or is opening, for
// calls: its bytes turned out to be HTTP. One that the endpoint said something on
// is of no use, and one beside others that are unused is not needed.
func (e *Endpoint) Adopt(t *turn.Turn, r *hbone.Relay) {
	open := r.FarOpen()
	c := &conn{ep: e}
	e.rest.Lock()
	defer e.rest.Unlock()
	c.lane.Store(&e.rest)
	d := r.LetFar(c)
	c.tun = d.Tunnel
	c.codec.Init(c.tun, c, nil)
	useless := len(d.Held) > 0 || d.Ended || len(e.idle) > 0
	buf.Put(d.Held)
	e.Release()
	switch {
	case useless:
		c.state = over
		c.codec.Release()
		c.tun.Abort(t, hbone.CodeCancel)
	case open:
		e.putIdle(t, c)
	default:
		e.putBorn(c)
	}
}

// putIdle keeps a connection for the next call, or closes it. rest is held, and the
// lane that the connection is in if that is another.
func (e *Endpoint) putIdle(t *turn.Turn, c *conn) {
	if e.left || len(e.idle) >= maxIdle {
		c.close(t)
		return
	}
	c.state, c.h = unused, nil
	c.idleSince = t.Tick()
	e.idle = append(e.idle, c)
	c.lane.Store(&e.rest)
}

// dropIdle forgets an unused connection that has ended. rest is held.
func (e *Endpoint) dropIdle(c *conn) {
	if i := slices.Index(e.idle, c); i >= 0 {
		e.idle = slices.Delete(e.idle, i, i+1)
	}
}

// linger remembers a connection until the far end has closed it too, and
// reports whether it did: nobody looks after an endpoint that has left.
func (e *Endpoint) linger(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.left {
		e.ends = append(e.ends, c)
	}
	return !e.left
}

// forget drops a connection that has ended on both sides.
func (e *Endpoint) forget(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.ends, c); i >= 0 {
		e.ends = slices.Delete(e.ends, i, i+1)
	}
}

// Idle returns how many unused connections the endpoint keeps.
func (e *Endpoint) Idle() int {
	e.rest.Lock()
	defer e.rest.Unlock()
	return len(e.idle)
}

// Sweep ends connections that have been unused for too long, and cuts those
// that the far end does not close.
func (e *Endpoint) Sweep(t *turn.Turn) {
	e.sweep(t, t.Tick().Add(-IdleTimeout), t.Tick().Add(-lingerTime))
	for _, c := range e.all2() {
		c.tick(t, t.Now().Add(-IdleTimeout2))
	}
}

func (e *Endpoint) sweep(t *turn.Turn, unusedSince, closedSince turn.Tick) {
	e.rest.Lock()
	defer e.rest.Unlock()
	for _, c := range takeBefore(&e.idle, unusedSince) {
		c.close(t)
	}
	e.mu.Lock()
	late := takeBefore(&e.ends, closedSince)
	e.mu.Unlock()
	for _, c := range late {
		c.cut(t)
	}
}

// takeBefore takes the connections off a list, oldest first, that were put
// there before a time.
func takeBefore(list *[]*conn, before turn.Tick) []*conn {
	n := 0
	for n < len(*list) && (*list)[n].idleSince < before {
		n++
	}
	if n == 0 {
		return nil
	}
	old := slices.Clone((*list)[:n])
	*list = slices.Delete(*list, 0, n)
	return old
}

// leave ends the endpoint's membership: unused connections end now, calls in
// progress finish, and mesh connections that nobody else needs retire.
func (e *Endpoint) leave() {
	e.rest.Lock()
	e.mu.Lock()
	e.left = true
	e.mu.Unlock()
	e.rest.Unlock()
	var t turn.Turn
	always := t.Tick().Add(time.Hour)
	e.sweep(&t, always, always)
	for _, c := range e.all2() {
		c.retire(&t)
	}
	t.End()
	e.pool.Release(e.dest)
}
