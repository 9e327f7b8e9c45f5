package hbone

import (
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

var (
	_ wire.Engine    = (*clientConn)(nil)
	_ h2.ConnHandler = (*clientConn)(nil)
)

// A clientConn is a mesh connection that the pool opened.
type clientConn struct {
	*h2.Conn
	w *wire.Conn
	g *group

	// Set once.
	expiry time.Time // of the peer's certificate

	// Atomic.
	idleSince atomic.Int64 // Unix seconds; 0 while it carries streams
}

// retire lets the streams finish and then ends the connection.
func (c *clientConn) retire(t *turn.Turn) {
	c.g.drop(c)
	c.GoAway(t)
	c.closeIfDone(t)
}

func (c *clientConn) closeIfDone(t *turn.Turn) {
	if c.Streams() == 0 {
		c.w.Close(t)
	}
}

// EOF: a mesh connection is over when either side ends it.
func (c *clientConn) EOF(*turn.Turn) bool { return false }

// Tick watches over the connection, and ends it with its peer's certificate or
// when it has long been idle.
func (c *clientConn) Tick(t *turn.Turn) {
	switch {
	case t.Now().After(c.expiry):
		c.g.drop(c)
		c.Fail(t, CodeNoError, "the peer's certificate has expired")
		c.w.Close(t)
		return
	case c.Streams() > 0:
		c.idleSince.Store(0)
	case c.idleSince.Load() == 0:
		c.idleSince.Store(t.Now().Unix())
	case t.Now().Unix()-c.idleSince.Load() >= int64(IdleTimeout/time.Second):
		c.retire(t)
		return
	}
	c.Conn.Tick(t)
}

func (c *clientConn) Closed(t *turn.Turn, err error) {
	c.g.drop(c)
	c.g.pool.stats.Conns.Add(-1)
	c.Conn.Closed(t, err)
}

// Request never comes: push is off, so a server opens no streams.
func (c *clientConn) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, _ bool) {
	s.Handle(ignore{})
	s.Abort(t, CodeRefusedStream)
}

// GoneAway stops new streams; those under way go on.
func (c *clientConn) GoneAway(t *turn.Turn, _, _ uint32, _ string) {
	c.g.drop(c)
	c.closeIfDone(t)
}

// Idle ends a connection that takes no more streams.
func (c *clientConn) Idle(t *turn.Turn) {
	if c.Draining() {
		c.closeIfDone(t)
	}
}
