package hbone

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

const (
	// maxConns is how many mesh connections one destination may have: at 100
	// streams each it is more than a node has sockets for.
	maxConns = 64
	// spreadAt is how many streams a connection carries before the next stream
	// may have another one. Up to there a second connection halves the batches
	// and costs half as much again, from there on it costs nothing and may use
	// a second core: BenchmarkSpread.
	spreadAt = 128
	// growAgain is how long a further connection is not tried after it could
	// not be made.
	growAgain = 10 * time.Second
	// assumedStreams is how many streams a connection is taken to carry before
	// its SETTINGS are known: what node tunnels and Envoy allow.
	assumedStreams = 100
)

// A group is the mesh connections of one destination.
type group struct {
	// Set once.
	pool   *Pool
	key    destKey
	expect []peer.ID

	// Guarded by mu. The slice is replaced, never edited, so that it can be
	// walked without mu: a connection's own lock comes before it.
	mu      sync.Mutex
	conns   []*clientConn
	version uint64 // of conns
	waiters []waiting
	dialing int
	growAt  time.Time // no further connection before
	purged  bool
}

// waiting is a tunnel for which a mesh connection is being made.
type waiting struct {
	tun    *streamTunnel
	fields []h2.Field
}

func (g *group) current() ([]*clientConn, uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conns, g.version
}

// open opens tunnels, or queues them until there is a connection. It reports
// false if the group has been given up, and then it did nothing.
func (g *group) open(t *turn.Turn, ws []waiting) bool {
	for len(ws) > 0 {
		conns, version := g.current()
		if g.attach(t, conns, ws[0]) {
			ws = ws[1:]
			continue
		}
		queued, ok := g.wait(t, version, ws)
		if queued || !ok {
			return ok
		}
	}
	return true
}

// attach opens the tunnel's stream on a connection with room: the first that is
// not crowded, or the least crowded. A crowd calls for a second connection, up
// to one for each core.
func (g *group) attach(t *turn.Turn, conns []*clientConn, w waiting) bool {
	best, least := -1, 0
	for i, c := range conns {
		if c.Room() == 0 {
			continue
		}
		if n := c.Streams(); best < 0 || n < least {
			best, least = i, n
		}
		if least < spreadAt {
			break
		}
	}
	if best < 0 {
		return false
	}
	if err := w.tun.attach(t, conns[best], w.fields); err != nil {
		return slices.ContainsFunc(conns, func(c *clientConn) bool { return w.tun.attach(t, c, w.fields) == nil })
	}
	if least >= spreadAt && len(conns) < runtime.GOMAXPROCS(0) {
		g.grow(t)
	}
	return true
}

// grow dials one more connection unless one is under way or has just failed.
func (g *group) grow(t *turn.Turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dialing == 0 && !g.purged && len(g.conns) < runtime.GOMAXPROCS(0) && !t.Now().Before(g.growAt) {
		g.dial()
	}
}

// dial begins to make one more connection. g.mu is held.
func (g *group) dial() {
	g.dialing++
	go g.connect()
}

// wait queues tunnels until a connection has been made for them. It is not
// queued if the connections have changed since version: then they are to be
// looked at again, or else a dial that has just succeeded would be repeated.
func (g *group) wait(t *turn.Turn, version uint64, ws []waiting) (queued, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.purged:
		return false, false
	case g.version != version:
		return false, true
	case g.dialing == 0 && len(g.conns) >= maxConns:
		g.pool.stats.Full.Add(int64(len(ws)))
		for _, w := range ws {
			w.tun.fail(t, fmt.Errorf("%d mesh connections to %s are full", len(g.conns), g.key.addr))
		}
		return true, true
	}
	g.waiters = append(g.waiters, ws...)
	need := (len(g.waiters) + assumedStreams - 1) / assumedStreams
	for g.dialing < need && len(g.conns)+g.dialing < maxConns {
		g.dial()
	}
	return true, true
}

// connect makes a mesh connection and gives it to those who wait.
func (g *group) connect() {
	g.pool.watch.Do(func() { go g.pool.Certificates.watch(g.pool.done, g.pool.recheck) })
	c, err := g.handshake()
	if err != nil {
		g.failed(err)
		return
	}
	g.pool.stats.Conns.Add(1)
	c.w.Run(func(t *turn.Turn) {
		c.Start(t)
		g.ready(t, c)
	})
	if g.pool.Certificates.Current() != c.trusted { // changed while this one was not yet known
		c.recheck()
	}
	go c.w.Serve(c)
}

// handshake dials and makes the TLS handshake, both within ConnectTimeout.
func (g *group) handshake() (*clientConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ConnectTimeout)
	defer cancel()
	nc, err := g.pool.dial(ctx, g.key.addr)
	if err != nil {
		return nil, err
	}
	trusted := g.pool.Certificates.Current()
	cfg := g.pool.Certificates.ClientConfig(g.expect)
	w := wire.NewTLS(nc, func(c net.Conn) *tls.Conn { return tls.Client(c, cfg) }, g.pool.Wire)
	if err := w.Handshake(ctx); err != nil {
		return nil, g.noHandshake(err)
	}
	p, err := PeerOf(w.ConnectionState())
	if err != nil {
		w.Discard()
		return nil, g.noHandshake(err)
	}
	c := &clientConn{w: w, g: g, cert: p, trusted: trusted, leaveAt: leaveAt(p, trusted, time.Now())}
	o := meshOptions(true)
	o.Counters, o.Tight = &g.pool.stats.HTTP2, g.pool.Tight
	c.Conn = h2.NewConn(w, c, o)
	return c, nil
}

// noHandshake counts a handshake that failed, and says why.
func (g *group) noHandshake(err error) error {
	g.pool.stats.DialErrors.Add(1)
	return &HandshakeError{g.key.addr.String(), g.pool.stats.TLS.Explain(err)}
}

// failed tells those who wait that there is no connection for them, unless
// another is being made or there is room after all.
func (g *group) failed(err error) {
	var t turn.Turn
	g.mu.Lock()
	g.dialing--
	g.growAt = t.Now().Add(growAgain)
	var ws []waiting
	if g.dialing == 0 {
		ws, g.waiters = g.waiters, nil
	}
	conns := g.conns
	g.mu.Unlock()
	for _, w := range ws {
		if !g.attach(&t, conns, w) {
			w.tun.fail(&t, err)
		}
	}
	t.End()
	g.pool.forget(g)
}

// ready adds a connection and opens the streams that waited for it.
func (g *group) ready(t *turn.Turn, c *clientConn) {
	g.mu.Lock()
	g.dialing--
	if g.purged {
		g.mu.Unlock()
		c.retire(t)
		return
	}
	g.conns = append(slices.Clone(g.conns), c)
	g.version++
	ws := g.waiters
	g.waiters = nil
	g.mu.Unlock()
	if !g.open(t, ws) {
		for _, w := range ws { // those that were opened before take no notice
			w.tun.fail(t, ErrClosed)
		}
	}
}

// drop takes a connection out, so that no new stream is opened on it.
func (g *group) drop(c *clientConn) {
	g.mu.Lock()
	i := slices.Index(g.conns, c)
	if i >= 0 {
		g.conns = slices.Delete(slices.Clone(g.conns), i, i+1)
		g.version++
	}
	empty := len(g.conns)+len(g.waiters)+g.dialing == 0
	g.mu.Unlock()
	if empty {
		g.pool.forget(g)
	}
}

// purge retires every connection: streams under way finish, or are found dead
// by PING.
func (g *group) purge() {
	g.mu.Lock()
	g.purged = true
	conns, ws := g.conns, g.waiters
	g.conns, g.waiters = nil, nil
	g.mu.Unlock()
	var t turn.Turn
	for _, w := range ws {
		w.tun.fail(&t, ErrClosed)
	}
	for _, c := range conns {
		c.retire(&t)
	}
	t.End()
}
