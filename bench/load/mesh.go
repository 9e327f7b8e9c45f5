package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// A mesh is one mesh connection of the load, made anew when it ends and a tunnel
// is wanted. Tunnels of some connections share it, as in a node tunnel's pool.
type mesh struct {
	run *Run

	mu   sync.Mutex
	conn *wire.Conn // nil if there is none
	h2   *h2.Conn
}

// connectFields are what ztunnel sends with CONNECT.
func (t *Target) connectFields() []h2.Field {
	return []h2.Field{
		h2.NewField(":method", "CONNECT"),
		h2.NewField(":authority", t.To),
		h2.NewField("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=load,k8s.deployment.name=load,service.name=load,service.version=v1"),
		h2.NewField("forwarded", `for="`+t.Source+`"`),
	}
}

// tunnel opens a CONNECT stream for an application's connection.
func (m *mesh) tunnel(ctx context.Context, a *attempt) (end func(), err error) {
	conn, engine, err := m.connection(ctx)
	if err != nil {
		return nil, err
	}
	for engine.Room() == 0 {
		if engine.Done() || engine.Draining() {
			return nil, errors.New("mesh connection is going away")
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, fmt.Errorf("no room for another tunnel on the mesh connection: %w", err)
		}
	}
	var s *h2.Stream
	conn.Run(func(t *turn.Turn) {
		s, err = engine.Open(t, &inTunnel{app: a.app, on: a}, m.run.connectFields, false)
	})
	if err != nil {
		return nil, fmt.Errorf("open a tunnel: %w", err)
	}
	return func() {
		conn.Run(func(t *turn.Turn) { s.Abort(t, h2.CodeCancel) })
	}, nil
}

// connection returns the mesh connection, making it if need be.
func (m *mesh) connection(ctx context.Context) (*wire.Conn, *h2.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && !m.h2.Draining() {
		return m.conn, m.h2, nil
	}
	m.conn = nil
	c, err := m.run.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	engine := h2.NewConn(c, m, h2.Options{Client: true, MaxStreams: maxConnections})
	m.run.serve(c, &meshEngine{engine, m}, engine.Start)
	for engine.Stats().SettingsIn == 0 { // they say how many streams there may be
		if err := sleep(ctx, time.Millisecond); err != nil {
			c.Abort(nil, 0)
			return nil, nil, fmt.Errorf("no SETTINGS from %s: %w", m.run.spec.Target.Addr, err)
		}
		if engine.Done() {
			return nil, nil, fmt.Errorf("%s ended the mesh connection at once", m.run.spec.Target.Addr)
		}
	}
	m.conn, m.h2 = c, engine
	return c, engine, nil
}

// A meshEngine is an h2.Conn that tells its mesh of its end.
type meshEngine struct {
	*h2.Conn
	mesh *mesh
}

// Closed is called with no lock held, but connection may wait for this very end.
func (e *meshEngine) Closed(t *turn.Turn, err error) {
	m := e.mesh
	m.run.tasks.Go(func() {
		m.mu.Lock()
		if m.h2 == e.Conn {
			m.conn = nil
		}
		m.mu.Unlock()
	})
	e.Conn.Closed(t, err)
}

// Request, GoneAway and Idle make a mesh an h2.ConnHandler.
func (*mesh) Request(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (*mesh) GoneAway(*turn.Turn, uint32, uint32, string)      {}
func (*mesh) Idle(*turn.Turn)                                  {}
