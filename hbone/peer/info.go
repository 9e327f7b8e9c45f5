package peer

import "net/netip"

// How is the way a tunnel came in.
type How uint8

// The three ways in. They differ in what an Info holds.
const (
	// HBONE is a CONNECT on a mesh connection: everything may be known.
	HBONE How = iota + 1
	// PROXY is a TCP connection that began with a PROXY header: addresses, and
	// the identity if a node tunnel wrote the header.
	PROXY
	// NONE is a bare TCP connection: only its own addresses are known.
	NONE
)

func (h How) String() string {
	switch h {
	case HBONE:
		return "HBONE"
	case PROXY:
		return "PROXY"
	case NONE:
		return "NONE"
	}
	return "unknown"
}

// An Info says who opened a tunnel and what it is bound for.
type Info struct {
	How How

	// ID is the client's identity, zero if it has none: proved by its
	// certificate (HBONE), or told by the node tunnel that checked it (PROXY).
	ID ID

	// Source is where the tunnel came from: the far end of the mesh connection
	// (HBONE), the header's source (PROXY), the far end of the TCP connection
	// (NONE). Its port belongs to a mesh connection that many tunnels share, so
	// it is no key for anything.
	Source netip.AddrPort

	// Destination is what the tunnel is bound for: a service address or a pod.
	// If Host is set only the port of it is valid.
	Destination netip.AddrPort

	// Host is the destination when it was named and not numbered: lower case,
	// without a trailing dot.
	Host string

	// Local is our own end of the transport connection.
	Local netip.AddrPort

	// What the CONNECT said besides; zero where it said nothing. The peer says
	// so about itself, and its identity is the only proof of it.
	Forwarded   Forwarded
	Baggage     Baggage
	Traceparent Traceparent
	Network     string // x-forwarded-network: set if the client is in another network
}

// Dest returns what the tunnel is bound for in the form of an authority.
func (i *Info) Dest() string {
	return string(AppendAuthority(make([]byte, 0, 64), i.Destination, i.Host))
}

// Client returns the application's own address as far as it is known:
// forwarded's if there is one, else Source.
func (i *Info) Client() netip.AddrPort {
	if i.Forwarded.For.IsValid() {
		return i.Forwarded.For
	}
	return i.Source
}
