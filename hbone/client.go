package hbone

import (
	"errors"
	"fmt"
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
	cert    *PeerCertificate // with which the connection ends
	trusted *Credentials     // the set that cert was checked against, or an older one
	leaveAt time.Time        // …and with which it takes no new tunnels

	// Atomic.
	idleSince atomic.Int64 // a turn.Tick; 0 while it carries streams
	ended     atomic.Bool  // with its peer's certificate
	draining  atomic.Bool  // no new tunnel; it ends with those that it has
}

// retire lets the streams finish and then ends the connection.
func (c *clientConn) retire(t *turn.Turn) {
	c.draining.Store(true)
	c.g.drop(c)
	c.GoAway(t)
	closeDone(t, c.Conn, c.w)
}

// recheck ends the connection if its peer would not be accepted any more.
func (c *clientConn) recheck() {
	if err := c.g.pool.Certificates.Recheck(c.cert); err != nil {
		c.w.Run(func(t *turn.Turn) { c.distrust(t, err) })
	}
}

// distrust ends the connection with its peer's certificate: GOAWAY, and its
// streams end at once.
func (c *clientConn) distrust(t *turn.Turn, err error) {
	if c.ended.Swap(true) {
		return
	}
	c.g.pool.stats.Distrusted.Add(1)
	c.g.drop(c)
	c.Fail(t, CodeNoError, err.Error())
	closeDone(t, c.Conn, c.w)
}

// Feed hands on what the engine still has to say before its error ends the
// connection.
func (c *clientConn) Feed(t *turn.Turn, p []byte) error {
	err := c.Conn.Feed(t, p)
	if err != nil {
		c.Flush(t)
	}
	return err
}

// EOF: a mesh connection is over when either side ends it.
func (c *clientConn) EOF(*turn.Turn) bool { return false }

// Tick watches over the connection. A while before its certificates end it takes
// no new tunnels, and with its peer's it ends, or when it has long been idle.
func (c *clientConn) Tick(t *turn.Turn) {
	switch {
	case t.Now().After(c.cert.NotAfter):
		c.distrust(t, c.cert.expired())
	case t.Now().After(c.leaveAt) && !c.draining.Load():
		c.retire(t)
	case c.Streams() > 0:
		c.idleSince.Store(0)
	case c.idleSince.Load() == 0:
		c.idleSince.Store(int64(t.Tick()))
	case t.Tick().Sub(turn.Tick(c.idleSince.Load())) >= c.g.pool.idleTimeout(c.g.key):
		c.retire(t)
	}
	c.Conn.Tick(t)
}

func (c *clientConn) Closed(t *turn.Turn, err error) {
	c.g.drop(c)
	c.g.pool.stats.Conns.Add(-1)
	if c.Stats().SettingsIn == 0 && !c.Draining() {
		err = c.refused(err)
	}
	c.Conn.Closed(t, err)
}

var errSilent = errors.New("closed by the peer")

// refused explains the end of a connection on which the peer has said nothing.
// Under TLS 1.3 the client's part of the handshake is over before the server
// looks at its certificate, so that is where a refusal shows.
func (c *clientConn) refused(err error) error {
	if err == nil {
		err = errSilent
	}
	if ReasonOf(err) == TLSOther {
		err = fmt.Errorf("closed before the peer said anything, which is how some refuse a certificate: %w", err)
	}
	return c.g.noHandshake(err)
}

// Request never comes: push is off, so a server opens no streams.
func (c *clientConn) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, _ bool) {
	s.Handle(ignore{})
	s.Abort(t, CodeRefusedStream)
}

// GoneAway stops new streams; those under way go on.
func (c *clientConn) GoneAway(t *turn.Turn, _, _ uint32, _ string) {
	c.draining.Store(true)
	c.g.drop(c)
	closeDone(t, c.Conn, c.w)
}

// Idle ends a connection that takes no more streams.
func (c *clientConn) Idle(t *turn.Turn) { closeDone(t, c.Conn, c.w) }
