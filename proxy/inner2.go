package proxy

import (
	"io"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wheel"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

var (
	_ hbone.TunnelHandler = (*inner2)(nil)
	_ h2.ConnHandler      = (*inner2)(nil)
	_ wheel.Owner         = (*inner2)(nil)
	_ liveConn            = (*inner2)(nil)
)

// maxStreams is how many requests a client may have under way on one connection,
// as Envoy's waypoints have it.
const maxStreams = 100

// An inner2 is one inner HTTP/2 connection of a client. Its streams have lanes of
// their own; what they share is the engine, and the snapshot.
type inner2 struct {
	// Set once.
	p       *Proxy
	tun     hbone.Tunnel
	h2      *h2.Conn
	verdict sniff.Verdict // what settled that it is HTTP/2

	flooded bool // owned by the events: the client went beyond a limit

	mu sync.Mutex

	// Guarded by mu, a leaf in the lock order.
	hold  *hold // of the requests to come
	timer wheel.Timer
	since time.Time // of its being used, or unused, to a tick
	used  bool
	over  bool

	upgraded map[*stream2]struct{} // requests that became another protocol's; nil if there was none
}

// A hold is a connection's pin of a snapshot. Streams that have begun keep theirs
// when another takes its place.
type hold struct {
	snap      *snapshot.Snapshot
	svc       *snapshot.Service
	source    *measure.Source // who calls, by the snapshot
	exchanges int
}

// newInner2 makes the connection of a tunnel inside which the client speaks
// HTTP/2 from the first byte on. It takes over the pin of b's snapshot.
func newInner2(t *turn.Turn, p *Proxy, tun hbone.Tunnel, b bound, v sniff.Verdict) *inner2 {
	in := &inner2{p: p, tun: tun, verdict: v, since: t.Now(), hold: &hold{snap: b.snap, svc: b.svc, source: p.sourceOf(b.snap, tun.Peer())}}
	in.h2 = h2.NewConn(tun, in, h2.Options{MaxStreams: maxStreams, Courteous: true, ConnectProtocol: true, Counters: &p.stats.HTTP2, Tight: &p.pressure.tight})
	in.h2.Start(t)
	p.wheel.Set(&in.timer, in, tickEvery)
	p.remember(in)
	p.recheck(t, in, b.snap)
	if p.draining.Load() { // Drain may have walked them too
		in.h2.GoAway(t)
	}
	return in
}

// Opened never comes: the client opened the tunnel.
func (in *inner2) Opened(*turn.Turn) {}

// Data feeds the engine. What is held of it is bounded by the streams' windows,
// so the tunnel's credit goes back at once.
func (in *inner2) Data(t *turn.Turn, p []byte, end bool) {
	defer in.rescue(t)
	if len(p) > 0 {
		in.feed(t, p)
		in.tun.Consume(t, len(p))
	}
	if end { // HTTP/2 knows no half-closed connections
		in.h2.Closed(t, io.EOF)
		in.tun.CloseWrite(t)
	}
}

// feed is told errors that the client has been told, and that end the tunnel. What
// comes behind a flood is answered with the same.
func (in *inner2) feed(t *turn.Turn, p []byte) {
	if err := in.h2.Feed(t, p); h2.Flooded(err) && !in.flooded {
		in.flooded = true
		hbone.Flooded(t, in.tun, err)
	}
}

// Left: the client has read.
func (in *inner2) Left(t *turn.Turn) {
	defer in.rescue(t)
	in.h2.Left(t)
}

// Closed: the tunnel is over. Streams under way hear of it.
func (in *inner2) Closed(t *turn.Turn, err error) {
	defer in.rescue(t)
	in.h2.Closed(t, err)
	in.count()
	in.p.forget(in, in.letGo())
}

// letGo ends the connection's own hold, and returns the snapshot if no exchange
// has it.
func (in *inner2) letGo() *snapshot.Snapshot {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over = true
	in.p.wheel.Stop(&in.timer)
	if in.hold.exchanges > 0 {
		return nil
	}
	return in.hold.snap
}

// count adds what the engine refused by itself to the proxy's counters.
func (in *inner2) count() {
	s := in.h2.Stats()
	in.p.stats.Faults[fault.BadRequest].Add(int64(s.Malformed))
	in.p.stats.Faults[fault.HeadTooLarge].Add(int64(s.HeadsTooLarge))
}

// Expired keeps the engine's time, and ends a connection that has been unused for
// too long.
func (in *inner2) Expired(t *turn.Turn, _ *wheel.Timer) {
	defer in.rescue(t)
	if in.again(t, in.h2.Streams() > 0) || hbone.Draining(in.tun) {
		in.h2.GoAway(t)
	}
	in.h2.Tick(t)
}

// again sets the timer once more, and reports whether the connection's time is up.
func (in *inner2) again(t *turn.Turn, used bool) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		return false
	}
	in.p.wheel.Set(&in.timer, in, tickEvery)
	if used != in.used {
		in.used, in.since = used, t.Now()
	}
	d := in.p.timeouts.Idle
	return !used && d > 0 && t.Now().Sub(in.since) >= d
}

// inspect shows the connection to people.
func (in *inner2) inspect() Connection {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := Connection{Peer: in.tun.Peer(), Speaks: "HTTP/2", Busy: in.used, Since: in.since}
	if in.hold.svc != nil {
		c.Service = in.hold.svc.Name
	}
	return c
}

// GoneAway needs no answer: the client finishes its streams and leaves.
func (in *inner2) GoneAway(*turn.Turn, uint32, uint32, string) {}

// Idle needs none either.
func (in *inner2) Idle(*turn.Turn) {}

// drain asks the client to go elsewhere with its next requests.
func (in *inner2) drain(t *turn.Turn) { in.h2.GoAway(t) }

// endIdle has nothing to do: without requests the engine has ended it.
func (in *inner2) endIdle(*turn.Turn) bool { return false }

// repin takes the snapshot of the moment, so that requests to come are judged by
// it and an unused connection does not keep an old one alive. It returns what
// ConnFilters are to be asked.
func (in *inner2) repin() (c *filters.Conn, over bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.over {
		in.renew()
	}
	return &filters.Conn{Peer: in.tun.Peer(), Start: in.since}, in.over
}

// upgrade and downgrade remember the requests whose streams are a tunnel's.
func (in *inner2) upgrade(st *stream2) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.upgraded == nil {
		in.upgraded = map[*stream2]struct{}{}
	}
	in.upgraded[st] = struct{}{}
}

func (in *inner2) downgrade(st *stream2) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.upgraded, st)
}

// renew takes the snapshot of the moment for the requests to come. in.mu is held.
func (in *inner2) renew() {
	cur := in.p.snap.Load()
	for cur != in.hold.snap && !cur.Pin() { // replaced meanwhile: look again
		cur = in.p.snap.Load()
	}
	old := in.hold
	if cur == old.snap {
		return
	}
	in.hold = &hold{snap: cur, source: in.p.sourceOf(cur, in.tun.Peer())}
	in.hold.svc, _ = cur.Service(in.tun.Peer().Destination, in.tun.Peer().Host)
	if old.exchanges == 0 {
		old.snap.Unpin()
	}
}

// begin counts an exchange of the snapshot of the moment.
func (in *inner2) begin() *hold {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.p.snap.Load() != in.hold.snap {
		in.renew()
	}
	in.hold.exchanges++
	return in.hold
}

// end says that an exchange is over.
func (in *inner2) end(h *hold) {
	in.mu.Lock()
	defer in.mu.Unlock()
	h.exchanges--
	switch {
	case h.exchanges > 0:
	case h != in.hold || in.over:
		h.snap.Unpin()
	case in.p.snap.Load() != h.snap:
		in.renew() // a connection that is unused from now on keeps no old snapshot
	}
}

// rescue is the boundary at which a panic in the engine ends: it costs the
// connection, is counted and told, and the process lives.
func (in *inner2) rescue(t *turn.Turn) {
	if r := recover(); r != nil {
		in.p.panicked(r)
		in.tun.Abort(t, hbone.CodeInternal)
	}
}
