package hbone

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/internal/wire"
)

// LeastRelief is what a connection holds at least to be asked to go, or to be cut,
// because memory is short: to end one that holds less would help nobody.
const LeastRelief = 256 << 10

// A holder is a connection and how many bytes it holds.
type holder struct {
	nc   net.Conn
	w    *wire.Conn
	mesh *serverConn // nil for a TCP tunnel
	held int
}

// SendAway asks up to so many of the clients that hold most to go elsewhere, those
// that have not been asked, and returns how many.
func (s *Server) SendAway(most int) (n int) {
	for _, h := range s.holders() {
		if n == most || h.held < LeastRelief {
			break
		}
		if h.mesh != nil && !h.mesh.Draining() {
			s.stats.SentAway.Add(1)
			h.mesh.goAway()
			n++
		}
	}
	return n
}

// CutHeaviest cuts the connections that hold most, until so many bytes were held by
// them, and returns how many.
func (s *Server) CutHeaviest(bytes int64) (n int) {
	for _, h := range s.holders() {
		if bytes <= 0 || h.held < LeastRelief {
			break
		}
		bytes -= int64(h.held)
		s.stats.CutForMemory.Add(1)
		s.fault(h.nc, fmt.Errorf("%w: it held %d KiB, and is cut", ErrOverMemory, h.held>>10))
		h.w.Run(func(t *turn.Turn) { h.w.Abort(t, CodeCancel) })
		n++
	}
	return n
}

// holders are the connections, those that hold most first.
func (s *Server) holders() []holder {
	s.mu.Lock()
	all := make([]holder, 0, len(s.conns))
	for nc, a := range s.conns {
		if a.w != nil {
			all = append(all, holder{nc: nc, w: a.w, mesh: a.mesh})
		}
	}
	s.mu.Unlock()
	for i := range all {
		h := &all[i]
		if h.held = h.w.Buffered(); h.mesh != nil {
			h.held = max(h.held, h.mesh.Held())
		}
	}
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.held, a.held) })
	return all
}
