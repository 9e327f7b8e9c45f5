package hbone

import (
	"context"
	"net"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

const (
	// queueTime bounds how long a listener's queue is emptied before it closes.
	// To close it with connections in the queue resets them.
	queueTime = 100 * time.Millisecond
	// queueWait of silence says that the queue is empty.
	queueWait = 5 * time.Millisecond
	// cutTime bounds how long Shutdown waits for what it has cut.
	cutTime = time.Second
)

// Drain takes what waits in the listeners' queues, closes them, and tells every
// mesh connection to finish: GOAWAY, and the streams under way go on, as do those
// that a client opens before it can have heard. Connections that are being made
// are let in, and told the same.
func (s *Server) Drain() {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing = true
	close(s.leaving)
	for l := range s.listeners { // whose Accept returns
		if d, ok := l.(interface{ SetDeadline(time.Time) error }); !ok || d.SetDeadline(time.Now()) != nil {
			l.Close()
		}
	}
	s.maybeIdle()
	s.mu.Unlock()
	for _, c := range s.meshConns() {
		go c.goAway()
	}
}

// empty lets in what waits in the queue of a listener that is to close.
func (s *Server) empty(l net.Listener, start func(net.Conn)) {
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	for until := time.Now().Add(queueTime); ok && time.Now().Before(until) && d.SetDeadline(time.Now().Add(queueWait)) == nil; {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		s.let(nc, start)
	}
}

// draining reports whether connections are told to go from the beginning.
func (s *Server) draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// maybeIdle is called with mu held.
func (s *Server) maybeIdle() {
	if s.closing && !s.over && len(s.listeners)+len(s.conns) == 0 {
		s.over = true
		close(s.idle)
	}
}

// Shutdown drains, waits until the last connection has gone or ctx ends, and
// cuts what is left then. It returns how many it cut.
func (s *Server) Shutdown(ctx context.Context) int {
	s.Drain()
	select {
	case <-s.idle:
		return 0
	case <-ctx.Done():
	}
	n := s.cut()
	late := time.NewTimer(cutTime)
	defer late.Stop()
	select {
	case <-s.idle:
	case <-late.C:
	}
	return n
}

// cut ends every connection at once and returns how many there were.
func (s *Server) cut() int {
	s.mu.Lock()
	s.cutting = true
	for l := range s.listeners {
		l.Close()
	}
	var left []*wire.Conn
	n := len(s.conns)
	for nc, a := range s.conns {
		if a.w == nil {
			nc.Close() // which ends its handshake
		} else {
			left = append(left, a.w)
		}
	}
	s.mu.Unlock()
	for _, w := range left {
		w.Run(func(tn *turn.Turn) { w.Abort(tn, CodeCancel) })
	}
	return n
}
