package traffic

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// openTime bounds how long all CONNECTs together may take.
const openTime = 20 * time.Second

// A mesh is one mesh connection of the load.
type mesh struct {
	run    *Run
	conn   *wire.Conn
	engine *h2.Conn

	mu     sync.Mutex
	parked []sleeper
	opened int
}

// A sleeper is a stream, or a caller of a channel, that rests.
type sleeper interface {
	// wake has it ask.
	wake(t *turn.Turn, now time.Time)
}

// A stream is a client inside a CONNECT stream.
type stream struct {
	*client
	mesh *mesh
	s    *h2.Stream

	turn.Lane // what follows: a resumed stream works on another goroutine than the reader's

	body sending // of the request
	open bool
	idle time.Time // when a slow reader will have read what it has got
}

// connectMesh opens the plan's mesh connections, and its streams evenly on
// them: they are all open and rest when it returns.
func (r *Run) connectMesh(ctx context.Context) error {
	_, config, err := r.plan.Certs.TLS()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	for range max(r.plan.Conns, 1) {
		m, err := r.dialMesh(ctx, config)
		if err != nil {
			return err
		}
		r.meshes = append(r.meshes, m)
	}
	fields := []h2.Field{
		h2.NewField(":method", "CONNECT"),
		h2.NewField(":authority", r.plan.To),
		h2.NewField("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=curl,service.name=curl,service.version=v1"),
		h2.NewField("forwarded", `for="`+source.String()+`"`),
	}
	var all []*client
	for _, g := range r.groups {
		all = append(all, g.clients...)
	}
	each := max(r.plan.Calls, 1)
	for i := 0; i < len(all); i += each {
		m := r.meshes[i/each%len(r.meshes)]
		if err := m.openStream(ctx, m.tenant(all[i:min(i+each, len(all))]), fields); err != nil {
			return err
		}
	}
	for _, m := range r.meshes {
		if err := m.allOpen(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) dialMesh(ctx context.Context, config *tls.Config) (*mesh, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	nc, err := dialer.DialContext(ctx, "tcp", r.plan.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the proxy: %w", err)
	}
	m := &mesh{run: r}
	m.conn = wire.NewTLS(nc, func(nc net.Conn) *tls.Conn { return tls.Client(nc, config) }, wire.Options{})
	if err := m.conn.Handshake(ctx); err != nil {
		return nil, fmt.Errorf("TLS with the proxy: %w", err)
	}
	m.engine = h2.NewConn(m.conn, m, h2.Options{Client: true, MaxStreams: manyStreams})
	m.conn.Run(m.engine.Start)
	r.atEnd(func() { m.conn.Abort(nil, h2.CodeNoError) })
	r.wg.Go(func() {
		m.conn.Serve(m.engine)
		m.conn.Wait()
	})
	for m.engine.Stats().SettingsIn == 0 { // they say how many streams there may be
		if err := m.wait(ctx); err != nil {
			return nil, fmt.Errorf("SETTINGS of the proxy: %w", err)
		}
	}
	return m, nil
}

// wait is one look's distance, if nothing has gone wrong.
func (m *mesh) wait(ctx context.Context) error {
	if err := m.run.firstError(); err != nil {
		return err
	}
	return sleep(ctx, time.Millisecond)
}

// tenant is who works in a CONNECT stream: one client, or several that call.
func (m *mesh) tenant(clients []*client) h2.StreamHandler {
	if m.run.plan.Calls > 0 {
		return newChannel(m, clients)
	}
	x := &stream{client: clients[0], mesh: m}
	x.once = func() { m.askOnce(x) }
	return x
}

// openStream sends CONNECT for h as soon as the peer's limit of streams allows.
func (m *mesh) openStream(ctx context.Context, h h2.StreamHandler, fields []h2.Field) error {
	for m.engine.Room() == 0 {
		if err := m.wait(ctx); err != nil {
			return fmt.Errorf("no room for another stream: %w", err)
		}
	}
	var err error
	m.conn.Run(func(t *turn.Turn) { _, err = m.engine.Open(t, h, fields, false) })
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	return nil
}

// allOpen waits until every stream has its 200.
func (m *mesh) allOpen(ctx context.Context) error {
	for {
		m.mu.Lock()
		opened := m.opened
		m.mu.Unlock()
		if opened >= m.engine.Streams() {
			return nil
		}
		if err := m.wait(ctx); err != nil {
			return fmt.Errorf("%d of %d streams were accepted: %w", opened, m.engine.Streams(), err)
		}
	}
}

// firstError is an error that came up while connecting.
func (r *Run) firstError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.why) > 0 {
		return fmt.Errorf("connect: %s", r.why[0])
	}
	return nil
}

// resume has all that is parked ask, each connection's in one turn.
func (m *mesh) resume() {
	m.mu.Lock()
	parked := m.parked
	m.parked = nil
	m.mu.Unlock()
	m.conn.Run(func(t *turn.Turn) {
		now := time.Now()
		for _, x := range parked {
			x.wake(t, now)
		}
	})
}

// askOnce has one that is parked ask.
func (m *mesh) askOnce(x sleeper) {
	m.mu.Lock()
	m.parked = slices.DeleteFunc(m.parked, func(p sleeper) bool { return p == x })
	m.mu.Unlock()
	m.conn.Run(func(t *turn.Turn) { x.wake(t, time.Now()) })
}

// park keeps x if the run rests, and reports whether it did.
func (m *mesh) park(x sleeper) bool {
	r := m.run
	if r.phase.Load() != resting {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.phase.Load() != resting { // resume has been by
		return false
	}
	m.parked = append(m.parked, x)
	r.active.Add(-1)
	return true
}

// isOpen notes that a CONNECT was accepted, and who rests in its stream.
func (m *mesh) isOpen(who ...sleeper) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
	m.parked = append(m.parked, who...)
}

func (x *stream) wake(t *turn.Turn, now time.Time) {
	if x.group.Rate == 0 { // rest does not wait for slow readers
		x.run.active.Add(1)
	}
	x.Lock()
	x.send(t, now)
	x.Unlock()
}

// next goes on with the stream, or parks it if the run rests. x is locked.
func (x *stream) next(t *turn.Turn, now time.Time) {
	if x.group.Rate > 0 || !x.mesh.park(x) {
		x.send(t, now)
	}
}

func (x *stream) send(t *turn.Turn, now time.Time) {
	x.s.Write(t, x.ask(now))
	if x.group.Upload > 0 {
		x.body = sending{size: x.group.Upload}
		x.body.pump(t, x.s)
	}
}

// Request, GoneAway and Idle make a mesh an h2.ConnHandler.
func (m *mesh) Request(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (m *mesh) GoneAway(_ *turn.Turn, _, code uint32, debug string) {
	m.run.fail("proxy says GOAWAY, %s %s", h2.CodeName(code), debug)
}
func (m *mesh) Idle(*turn.Turn) {}

// Headers brings the answer to CONNECT.
func (x *stream) Headers(t *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	if status := h2.Status(fields); x.open || status != 200 || end {
		x.run.fail("stream %d (%s): CONNECT was answered with %d", x.id, x.group.Name, status)
		s.Abort(t, h2.CodeCancel)
		return
	}
	x.open, x.s = true, s
	x.mesh.isOpen(x)
}

// Data brings bytes of an answer.
func (x *stream) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	x.Lock()
	defer x.Unlock()
	if x.group.Rate > 0 {
		x.readLater(len(p))
	} else {
		s.Consume(t, len(p))
	}
	done, err := x.got(p)
	if err == nil && end {
		err = fmt.Errorf("tunnel was ended under request %d", x.seq)
	}
	if err != nil {
		x.run.fail("stream %d (%s): %v", x.id, x.group.Name, err)
		s.Abort(t, h2.CodeCancel)
		return
	}
	if done {
		now := time.Now()
		x.complete(now)
		x.next(t, now)
	}
}

// readLater gives back credit at the pace of a slow reader.
func (x *stream) readLater(n int) {
	now := time.Now()
	if x.idle.Before(now) {
		x.idle = now
	}
	x.idle = x.idle.Add(time.Duration(float64(n) / float64(x.group.Rate) * float64(time.Second)))
	time.AfterFunc(x.idle.Sub(now), func() {
		x.mesh.conn.Run(func(t *turn.Turn) { x.s.Consume(t, n) })
	})
}

// Left goes on with a request's body.
func (x *stream) Left(t *turn.Turn, s *h2.Stream) {
	x.Lock()
	x.body.pump(t, s)
	x.Unlock()
}

// Closed is an error while the run lasts: no stream ends by itself.
func (x *stream) Closed(_ *turn.Turn, _ *h2.Stream, err error) {
	x.run.fail("stream %d (%s): tunnel closed: %v", x.id, x.group.Name, err)
}
