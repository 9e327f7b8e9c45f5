package hbone

import (
	"context"
	"errors"
	"net"
	"net/netip"
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
	// unheldTimeout is the same for one to where no endpoint is known to be.
	unheldTimeout = time.Minute
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
		fields: []h2.Field{h2.NewField(":method", "CONNECT"), h2.NewField(":authority", authority.String())},
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

	watch sync.Once
	done  chan struct{} // closed by Close

	mu     sync.Mutex
	groups map[destKey]*group
	held   map[destKey]int
	closed bool
}

// PoolOptions say what a Pool needs to know.
type PoolOptions struct {
	// Certificates prove who we are, and whom we trust. Without them only plain
	// destinations can be opened.
	Certificates *Certificates
	// Tight, if not nil, says that memory is short and windows are to be small.
	Tight *atomic.Bool
	// Wire says how connections are driven; ticks are needed.
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
	Distrusted atomic.Int64 // mesh connections ended with their peer's certificate
	Tunnels    atomic.Int64 // tunnels asked for
	Plain      atomic.Int64 // …of them in plain text
	Full       atomic.Int64 // tunnels refused because maxConns connections were full

	// HTTP2 counts the limits that node tunnels met on mesh connections, and Inner
	// those of endpoints inside, counted by who makes connections there.
	HTTP2, Inner h2.Counters
}

// NewPool returns an empty pool.
func NewPool(o PoolOptions) *Pool {
	if o.Dial == nil {
		o.Dial = dialTCP
	}
	return &Pool{PoolOptions: o, done: make(chan struct{}), groups: map[destKey]*group{}, held: map[destKey]int{}}
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
	if !p.closed {
		p.closed = true
		close(p.done)
	}
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
		return p.openPlain(d, h)
	}
	tun := &streamTunnel{peer: d.info, client: true}
	tun.h.begin(h)
	if p.Certificates == nil {
		tun.fail(t, &HandshakeError{d.key.addr.String(), p.stats.TLS.Explain(errNoCertificates)})
		return tun
	}
	for {
		g := p.group(d)
		if g == nil {
			tun.fail(t, ErrClosed)
			return tun
		}
		if g.open(t, []waiting{{tun, d.fields}}) {
			return tun
		}
	}
}

var errNoCertificates = tlsErrorf(TLSOwnCertificate, "this end has no certificates, so it can open no mesh connection")

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

// forget gives up a group that has nothing left. Who has just found it there
// sees so and looks again.
func (p *Pool) forget(g *group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.conns)+len(g.waiters)+g.dialing == 0 && p.groups[g.key] == g {
		g.purged = true
		delete(p.groups, g.key)
	}
}

// idleTimeout says how long a connection to key may be unused.
func (p *Pool) idleTimeout(key destKey) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[key] > 0 {
		return IdleTimeout
	}
	return unheldTimeout
}

// recheck ends the mesh connections whose peers are not trusted any more.
func (p *Pool) recheck() {
	p.mu.Lock()
	var all []*clientConn
	for _, g := range p.groups {
		conns, _ := g.current()
		all = append(all, conns...)
	}
	p.mu.Unlock()
	for _, c := range all {
		c.recheck()
	}
}

// openPlain asks for a bare TCP connection, which is dialled on a goroutine that
// ends with the dial: the reader's begins with a small stack.
func (p *Pool) openPlain(d *Dest, h TunnelHandler) Tunnel {
	p.stats.Plain.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), ConnectTimeout)
	tun := &tcpTunnel{peer: d.info, cancel: cancel}
	tun.h.begin(h)
	go p.dialPlain(ctx, d, tun)
	return tun
}

func (p *Pool) dialPlain(ctx context.Context, d *Dest, tun *tcpTunnel) {
	defer tun.cancel()
	nc, err := p.dial(ctx, d.key.addr)
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
		w.Discard()
		return
	}
	tun.opened.Store(true)
	go tun.serveDialled()
}

func (t *tcpTunnel) serveDialled() {
	t.w.Run(func(tn *turn.Turn) { t.h.get().Opened(tn) })
	t.w.Serve(t)
}

func (p *Pool) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	p.stats.Dials.Add(1)
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
