package wire

import "sync/atomic"

// Counters count what should be rare. Connections of one owner share them.
type Counters struct {
	Panics atomic.Int64 // engines that panicked
	Drains atomic.Int64 // times a socket was full
	Parks  atomic.Int64 // times a reader paused for its engine
	Sheds  atomic.Int64 // times an idle reader went on in a fresh goroutine
	Unread atomic.Int64 // connections closed before the peer had read everything
}

// Stats are what a connection has done so far.
type Stats struct {
	Reads, Writes     int64 // system calls, those that found nothing included
	BytesIn, BytesOut int64 // on the transport
	// TLSReads counts reads that crypto/tls made of its transport. It makes one
	// allocation for each, and these are all it makes per turn.
	TLSReads int64
}

type stats struct {
	reads, writes, bytesIn, bytesOut, tlsReads atomic.Int64
}

// Stats may be called from any goroutine.
func (c *Conn) Stats() Stats {
	s := &c.stats
	return Stats{
		Reads: s.reads.Load(), Writes: s.writes.Load(),
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		TLSReads: s.tlsReads.Load(),
	}
}
