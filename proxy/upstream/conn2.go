package upstream

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

var (
	_ hbone.TunnelHandler = (*conn2)(nil)
	_ h2.ConnHandler      = (*conn2)(nil)
)

const (
	// IdleTimeout2 is how long an HTTP/2 connection without calls is kept, as
	// Istio's connection pools do.
	IdleTimeout2 = time.Hour
	// crowd is how many calls a connection carries before there should be another
	// one, up to one for each core: what comes on a connection is handled on one
	// core, and the fewer there are the larger are the batches.
	crowd = 128
	// maxConns2 is how many HTTP/2 connections an endpoint may have.
	maxConns2 = 64
	// maxStreams2 is how many calls are made on a connection at a time if the
	// endpoint allows as many.
	maxStreams2 = 1 << 16
)

// A conn2 is an inner HTTP/2 connection to an endpoint. Each of its calls has the
// lane of its exchange; what they share is the engine.
type conn2 struct {
	// Set once.
	ep  *Endpoint
	tun hbone.Tunnel
	h2  *h2.Conn

	// Atomic. The state is written with mu held; who sees another than opening
	// sees the fields above.
	state     atomic.Uint32 // opening, serving or over
	heard     atomic.Uint32 // how often something was received
	served    atomic.Uint32 // calls
	idleSince atomic.Int64  // a turn.Tick; 0 while it is used
	known     atomic.Bool   // the endpoint's SETTINGS have come
	leaving   atomic.Bool   // it takes no new calls, and ends with those that it has

	mu sync.Mutex // comes behind the lanes and before the engine's

	// Guarded by mu.
	waiting []*call2 // for it to be open
	unsure  []*call2 // for the endpoint's SETTINGS
}

func (c *conn2) is(s connState) bool { return connState(c.state.Load()) == s }

// OpenHTTP2 is Open for a call on a connection that speaks HTTP/2, which it shares
// with other calls: on the first that is not crowded. A crowd calls for another
// connection; while that is being made calls go on with those there are.
func (e *Endpoint) OpenHTTP2(t *turn.Turn, lane *turn.Lane, h CallHandler) (c Call, ready bool) {
	e.active.Add(1)
	k := e.newCall2(lane, h)
	switch {
	case k.attach(t, serving, crowd):
	case k.attach(t, serving, maxStreams2):
		e.grow2(t, runtime.GOMAXPROCS(0), nil)
	case k.attach(t, opening, maxStreams2):
	case !e.grow2(t, maxConns2, k):
		k.failLater(t, fault.Overflow, errFull2)
	}
	return k, k.c != nil && !k.waits
}

var errFull2 = errors.New("all its connections are full")

// attach takes a place on the first connection of a state that has one and fewer
// calls than most. On one that is being opened, if it still is, the call waits.
func (k *call2) attach(t *turn.Turn, state connState, most int) bool {
	for _, c := range k.ep.all2() {
		if c.is(state) && !c.leaving.Load() && c.take(t, k, most) {
			return true
		}
	}
	return false
}

func (c *conn2) take(t *turn.Turn, k *call2, most int) bool {
	if !c.is(serving) {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	switch { // it may have been opened just now
	case c.is(over):
		return false
	case c.is(serving) && hbone.Draining(c.tun):
		// Its mesh connection is to end, and must not wait for more than the calls
		// that it has.
		c.retire(t)
		return false
	case !c.h2.Reserve(most):
		return false
	}
	c.give(k)
	return true
}

// give gives a call the place that was reserved. While the connection is being
// opened c.mu is held, and the call waits.
func (c *conn2) give(k *call2) {
	k.c = c
	k.reused = c.served.Add(1) > 1
	if c.is(opening) {
		k.waits = true
		c.waiting = append(c.waiting, k)
	}
}

// grow2 opens one more connection, with a place for k from its birth on: it may be
// over before anybody has looked. It reports false if there are as many as most
// already, or if no call needs it and one is being opened.
func (e *Endpoint) grow2(t *turn.Turn, most int, k *call2) bool {
	c := &conn2{ep: e}
	c.mu.Lock() // who finds it waits until it is set up; so does Opened
	defer c.mu.Unlock()
	if !e.put2(c, most, k == nil) {
		return false
	}
	c.tun = e.pool.Open(t, e.dest, c)
	c.h2 = h2.NewConn(c.tun, c, h2.Options{Client: true, MaxStreams: maxStreams2, Courteous: true, Counters: &e.pool.Stats().Inner, Tight: e.pool.Tight})
	if k != nil && c.h2.Reserve(maxStreams2) {
		c.give(k)
	}
	return true
}

func (e *Endpoint) put2(c *conn2, most int, enough bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, other := range e.conns2 {
		switch {
		case other.leaving.Load() || other.is(over):
		case enough && other.is(opening):
			return false
		default:
			n++
		}
	}
	if n >= most {
		return false
	}
	e.conns2 = append(slices.Clone(e.conns2), c) // replaced, never edited: it is walked without mu
	return true
}

// all2 returns the connections; the slice must not be changed.
func (e *Endpoint) all2() []*conn2 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conns2
}

// drop2 forgets a connection that has ended.
func (e *Endpoint) drop2(c *conn2) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.conns2, c); i >= 0 {
		e.conns2 = slices.Delete(slices.Clone(e.conns2), i, i+1)
	}
}

func (e *Endpoint) hasLeft() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.left
}

// retire lets a connection end with the calls that it has.
func (c *conn2) retire(t *turn.Turn) {
	c.leaving.Store(true)
	c.leave(t)
}

// leave ends a connection that is to end and has no call any more. At an endpoint
// that has left, nobody would see to the far end's closing it too.
func (c *conn2) leave(t *turn.Turn) {
	switch {
	case !c.leaving.Load() || !c.is(serving) || !c.h2.Unused():
	case c.ep.hasLeft():
		c.tun.Abort(t, hbone.CodeNoError)
	default:
		c.h2.GoAway(t)
	}
}

// tick keeps the engine's time, and lets a connection go that has been unused
// since a time. The sweep calls it.
func (c *conn2) tick(t *turn.Turn, since time.Time) {
	if !c.is(serving) {
		return
	}
	switch idle := c.idleSince.Load(); {
	case hbone.Draining(c.tun):
		c.retire(t)
	case !c.h2.Unused():
		c.idleSince.Store(0)
	case idle == 0:
		c.idleSince.Store(int64(t.Tick()))
	case idle < int64(turn.TickOf(since)):
		c.retire(t)
	}
	c.h2.Tick(t)
}

// Opened: the far end took the tunnel.
func (c *conn2) Opened(t *turn.Turn) {
	c.mu.Lock()
	c.h2.Start(t)
	c.state.Store(uint32(serving))
	calls := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, k := range calls {
		k.opened(t)
	}
	c.leave(t)
}

// Data feeds the engine. What is held of it is bounded by the streams' windows,
// so the tunnel's credit goes back at once.
func (c *conn2) Data(t *turn.Turn, p []byte, end bool) {
	if len(p) > 0 {
		c.heard.Add(1)
		if err := c.h2.Feed(t, p); err != nil { // the far end has been told
			c.retire(t)
		}
		if !c.known.Load() {
			c.settled(t)
		}
		c.tun.Consume(t, len(p))
	}
	if end { // HTTP/2 knows no half-closed connections
		c.state.Store(uint32(over))
		c.h2.Closed(t, io.EOF)
		c.tun.CloseWrite(t)
	}
}

func (c *conn2) Left(t *turn.Turn) { c.h2.Left(t) }

// settle reports whether the endpoint's SETTINGS have not come yet; then the call
// hears when they have.
func (c *conn2) settle(k *call2) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sure() {
		return false
	}
	c.unsure = append(c.unsure, k)
	return true
}

func (c *conn2) sure() bool {
	if !c.known.Load() && (c.is(over) || c.h2.Stats().SettingsIn > 0) {
		c.known.Store(true)
	}
	return c.known.Load()
}

// settled tells the calls that wait for SETTINGS, if these have come or cannot
// come any more.
func (c *conn2) settled(t *turn.Turn) {
	c.mu.Lock()
	var calls []*call2
	if c.sure() {
		calls, c.unsure = c.unsure, nil
	}
	c.mu.Unlock()
	for _, k := range calls {
		k.settled(t)
	}
}

// Closed: the tunnel is over, or never came to be.
func (c *conn2) Closed(t *turn.Turn, err error) {
	c.mu.Lock()
	was := connState(c.state.Swap(uint32(over)))
	calls := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	c.ep.drop2(c)
	for _, k := range calls {
		k.notOpened(t, err)
	}
	if was != opening {
		c.h2.Closed(t, err)
		c.settled(t)
	}
}

// Request never comes: push is off, so a server opens no streams.
func (c *conn2) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, _ bool) {
	s.Abort(t, h2.CodeRefusedStream)
}

// GoneAway: the endpoint takes no more calls here. Those that it will not process
// have been told.
func (c *conn2) GoneAway(t *turn.Turn, _, _ uint32, _ string) { c.retire(t) }

// Idle: the last call is over.
func (c *conn2) Idle(t *turn.Turn) {
	c.idleSince.Store(int64(t.Tick()))
	if hbone.Draining(c.tun) || c.ep.hasLeft() {
		c.leaving.Store(true)
	}
	c.leave(t)
}
