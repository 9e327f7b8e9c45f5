package proxy

import (
	"cmp"
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
)

// A Connection is one inner connection of a client, as it is now.
type Connection struct {
	Peer    *peer.Info
	Service string // what it is bound for
	Speaks  string
	Busy    bool      // a request is in progress
	Since   time.Time // of the request in progress, or of the idleness
}

// Connections returns every inner connection, the oldest state first. Each is
// looked at in its lane for a moment.
func (p *Proxy) Connections() []Connection {
	all := p.allLive()
	out := make([]Connection, 0, len(all))
	for _, c := range all {
		out = append(out, c.inspect())
	}
	slices.SortFunc(out, func(a, b Connection) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Peer.Source.Compare(b.Peer.Source))
	})
	return out
}

func (in *inner) inspect() Connection {
	in.Lock()
	defer in.Unlock()
	c := Connection{Peer: in.tun.Peer(), Speaks: "HTTP/1", Since: in.since.Time()}
	if in.svc != nil {
		c.Service = in.svc.Name
	}
	if x := in.x; x != nil && x.state != xNew {
		c.Busy, c.Since = true, x.stream.Start
		if x.state == xUpgraded {
			c.Speaks = string(x.req.Upgrade)
		}
	}
	return c
}

// Draining reports whether this proxy asks clients to go elsewhere.
func (p *Proxy) Draining() bool { return p.draining.Load() }

// Serves reports whether a document has been applied: before, every tunnel is
// refused.
func (p *Proxy) Serves() bool { return p.stats.Documents.Load() > 0 }
