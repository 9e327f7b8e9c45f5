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

// Relieve ends up to so many of the connections that hold most: with cut at once,
// and otherwise by asking the client to go elsewhere, if it has not been asked. It
// returns how many.
func (s *Server) Relieve(most int, cut bool) (n int) {
	for _, h := range s.holders() {
		if n == most || h.held < LeastRelief {
			break
		}
		switch {
		case cut:
			s.stats.CutForMemory.Add(1)
			s.fault(h.nc, fmt.Errorf("%w: it held %d KiB, and is cut", ErrOverMemory, h.held>>10))
			h.w.Run(func(t *turn.Turn) { h.w.Abort(t, CodeCancel) })
		case h.mesh != nil && !h.mesh.Draining():
			s.stats.SentAway.Add(1)
			h.mesh.goAway()
		default:
			continue
		}
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
