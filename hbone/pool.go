package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// Limits of the dialling side.
const (
	// ConnectTimeout bounds TCP and TLS together, as node tunnels and Istio's
	// mesh default do.
	ConnectTimeout = 10 * time.Second
	// IdleTimeout is how long a mesh connection without streams is kept
	// (MeshConfig hboneIdleTimeout).
	IdleTimeout = time.Hour
	// maxConns is how many mesh connections one destination may have: at 100
	// streams each it is more than a node has sockets for.
	maxConns = 64
	// spreadAt is how many streams a connection carries before a second core
	// is worth a second connection. Few connections batch better: 15.8 µs a
	// request on one each, 2.8 µs shared (performance study, section 5.1).
	spreadAt = 128
)

// A Dest says where a tunnel goes. It is made once for each endpoint with
// NewDest, and may be used by any number of tunnels at once.
type Dest struct {
	key    destKey
	plain  bool
	expect []peer.ID
	fields []h2.Field
	info   *peer.Info
}

// A destKey is what tunnels must agree in to share a mesh connection: the
// address, and who must answer there.
type destKey struct {
	addr   netip.AddrPort
	expect string
}

// NewDest returns the destination of tunnels to authority (an address with
// port) through the node tunnel at addr, which must prove one of the expected
// identities.
func NewDest(addr netip.AddrPort, authority netip.AddrPort, expect []peer.ID) *Dest {
	ids := make([]string, len(expect))
	for i, id := range expect {
		ids[i] = id.String()
	}
	slices.Sort(ids)
	return &Dest{
		key:    destKey{addr, strings.Join(ids, ",")},
		expect: expect,
		fields: []h2.Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: authority.String()}},
		info:   &peer.Info{How: peer.HBONE, Destination: authority},
	}
}

// NewPlainDest returns the destination of bare TCP connections to addr.
func NewPlainDest(addr netip.AddrPort) *Dest {
	return &Dest{key: destKey{addr: addr}, plain: true, info: &peer.Info{How: peer.NONE, Destination: addr}}
}

// Plain reports whether tunnels to d are bare TCP.
func (d *Dest) Plain() bool { return d.plain }

// A Pool opens tunnels, and keeps the few mesh connections that they share.
type Pool struct {
	PoolOptions
	stats PoolStats

	mu     sync.Mutex
	groups map[destKey]*group
	held   map[destKey]int
	closed bool
}

// PoolOptions say what a Pool needs to know.
type PoolOptions struct {
	// TLS returns the configuration for a connection to one of the identities;
	// see Identity.ClientConfig. Without it only plain destinations can be
	// opened.
	TLS func(expect []peer.ID) *tls.Config
	// Wire drives connections.
	Wire wire.Options
	// Dial replaces the dialler, in tests.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// PoolStats count what a Pool did. They only grow, but for Conns.
type PoolStats struct {
	Conns      atomic.Int64 // mesh connections now
	Dials      atomic.Int64 // TCP dials begun
	DialErrors atomic.Int64 // TCP dials and TLS handshakes that failed
	TLS        TLSFaults    // …why handshakes did
	Tunnels    atomic.Int64 // tunnels asked for
	Full       atomic.Int64 // tunnels refused because maxConns connections were full
}

// NewPool returns an empty pool.
func NewPool(o PoolOptions) *Pool {
	if o.Dial == nil {
		o.Dial = dialTCP
	}
	return &Pool{PoolOptions: o, groups: map[destKey]*group{}, held: map[destKey]int{}}
}

// Stats returns the pool's counters.
func (p *Pool) Stats() *PoolStats { return &p.stats }

// dialTCP dials with the keep-alive of node tunnels (180 s, 9 probes).
func dialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 180 * time.Second, Interval: 180 * time.Second, Count: 9}}
	return d.DialContext(ctx, "tcp", addr.String())
}

// Hold says that an endpoint at d exists; Release that it has left.
func (p *Pool) Hold(d *Dest) {
	p.mu.Lock()
	p.held[d.key]++
	p.mu.Unlock()
}

// Release purges d's mesh connections when no endpoint there is left: pod
// addresses are given to others, and a tunnel to a pod that has gone hangs.
func (p *Pool) Release(d *Dest) {
	p.mu.Lock()
	p.held[d.key]--
	if p.held[d.key] > 0 {
		p.mu.Unlock()
		return
	}
	delete(p.held, d.key)
	g := p.groups[d.key]
	delete(p.groups, d.key)
	p.mu.Unlock()
	if g != nil {
		g.purge()
	}
}

// Close ends every mesh connection after its streams.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	groups := p.groups
	p.groups = map[destKey]*group{}
	p.mu.Unlock()
	for _, g := range groups {
		g.purge()
	}
}

// Open asks for a tunnel to d. It returns at once; Opened or Closed follow,
// never inside Open. Until Opened the tunnel may only be aborted.
func (p *Pool) Open(t *turn.Turn, d *Dest, h TunnelHandler) Tunnel {
	p.stats.Tunnels.Add(1)
	if d.plain {
		tun := &tcpTunnel{peer: d.info, h: h}
		go p.dialPlain(d, tun)
		return tun
	}
	tun := &streamTunnel{peer: d.info, h: h, client: true}
	g := p.group(d)
	if g == nil {
		tun.fail(t, ErrClosed)
		return tun
	}
	if !g.attach(t, tun, d.fields) {
		g.wait(t, waiting{tun, d.fields})
	}
	return tun
}

func (p *Pool) group(d *Dest) *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	g := p.groups[d.key]
	if g == nil {
		g = &group{pool: p, key: d.key, expect: d.expect}
		p.groups[d.key] = g
	}
	return g
}

// dialPlain connects a plain tunnel. Its goroutine ends with the dial; the
// reader's begins with a small stack.
func (p *Pool) dialPlain(d *Dest, tun *tcpTunnel) {
	nc, err := p.dial(d.key.addr)
	if err != nil {
		var t turn.Turn
		tun.fail(&t, err)
		t.End()
		return
	}
	o := p.Wire
	o.Park = parkAt
	w := wire.New(nc, o)
	if !tun.attach(w) {
		nc.Close()
		return
	}
	tun.opened.Store(true)
	go tun.serveDialled()
}

func (t *tcpTunnel) serveDialled() {
	t.w.Run(func(tn *turn.Turn) { t.h.Opened(tn) })
	t.w.Serve(t)
}

func (p *Pool) dial(addr netip.AddrPort) (net.Conn, error) {
	p.stats.Dials.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), ConnectTimeout)
	defer cancel()
	nc, err := p.Dial(ctx, addr)
	if err != nil {
		p.stats.DialErrors.Add(1)
		timeout := errors.Is(err, context.DeadlineExceeded)
		if ne, ok := errors.AsType[net.Error](err); ok {
			timeout = timeout || ne.Timeout()
		}
		return nil, &DialError{Addr: addr.String(), Timeout: timeout, Err: err}
	}
	return nc, nil
}

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
	waiters []waiting
	dialing int
	purged  bool
}

// waiting is a tunnel for which a mesh connection is being made.
type waiting struct {
	tun    *streamTunnel
	fields []h2.Field
}

// attach opens the tunnel's stream on a connection with room. The first one
// that is not crowded serves; a crowd calls for a second connection, up to one
// for each core.
func (g *group) attach(t *turn.Turn, tun *streamTunnel, fields []h2.Field) bool {
	g.mu.Lock()
	conns := g.conns
	g.mu.Unlock()
	best := -1
	for i, c := range conns {
		if c.Room() == 0 {
			continue
		}
		if best < 0 || c.Streams() < conns[best].Streams() {
			best = i
		}
		if c.Streams() < spreadAt {
			break
		}
	}
	if best < 0 || tun.attach(t, conns[best].Conn, fields) != nil {
		return false
	}
	if conns[best].Streams() >= spreadAt && len(conns) < runtime.GOMAXPROCS(0) {
		g.grow()
	}
	return true
}

// grow dials one more connection unless one is under way.
func (g *group) grow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dialing == 0 && !g.purged {
		g.dialing++
		go g.connect()
	}
}

// wait queues a tunnel until a connection has been made for it.
func (g *group) wait(t *turn.Turn, ws ...waiting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.purged || len(g.conns)+g.dialing >= maxConns && g.dialing == 0 {
		err := fmt.Errorf("%d mesh connections to %s are full", len(g.conns), g.key.addr)
		if g.purged {
			err = ErrClosed
		} else {
			g.pool.stats.Full.Add(int64(len(ws)))
		}
		for _, w := range ws {
			w.tun.fail(t, err)
		}
		return
	}
	g.waiters = append(g.waiters, ws...)
	if need := (len(g.waiters) + assumedStreams - 1) / assumedStreams; g.dialing < need && len(g.conns)+g.dialing < maxConns {
		g.dialing++
		go g.connect()
	}
}

// assumedStreams is how many streams a connection is taken to carry before its
// SETTINGS are known: what node tunnels and Envoy allow.
const assumedStreams = 100

// connect makes a mesh connection and gives it to those who wait.
func (g *group) connect() {
	c, err := g.handshake()
	if err != nil {
		g.mu.Lock()
		g.dialing--
		ws := g.waiters
		g.waiters = nil
		g.mu.Unlock()
		var t turn.Turn
		for _, w := range ws {
			w.tun.fail(&t, err)
		}
		t.End()
		return
	}
	g.pool.stats.Conns.Add(1)
	c.w.Run(func(t *turn.Turn) {
		c.Start(t)
		g.ready(t, c)
	})
	go c.w.Serve(c)
}

func (g *group) handshake() (*clientConn, error) {
	nc, err := g.pool.dial(g.key.addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), ConnectTimeout)
	defer cancel()
	cfg := g.pool.TLS(g.expect)
	w := wire.NewTLS(nc, func(c net.Conn) *tls.Conn { return tls.Client(c, cfg) }, g.pool.Wire)
	if err := w.Handshake(ctx); err != nil {
		return nil, g.noHandshake(nc, err)
	}
	p, err := PeerOf(w.ConnectionState())
	if err != nil {
		return nil, g.noHandshake(nc, err)
	}
	c := &clientConn{w: w, g: g, expiry: p.NotAfter}
	c.Conn = h2.NewConn(w, c, meshOptions(true))
	return c, nil
}

func (g *group) noHandshake(nc net.Conn, err error) error {
	nc.Close()
	g.pool.stats.DialErrors.Add(1)
	return &HandshakeError{g.key.addr.String(), g.pool.stats.TLS.Explain(err)}
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
	ws := g.waiters
	g.waiters = nil
	g.mu.Unlock()
	for i, w := range ws {
		if w.tun.attach(t, c.Conn, w.fields) != nil {
			g.wait(t, ws[i:]...)
			return
		}
	}
}

// drop takes a connection out, so that no new stream is opened on it.
func (g *group) drop(c *clientConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.conns, c); i >= 0 {
		g.conns = slices.Delete(slices.Clone(g.conns), i, i+1)
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
