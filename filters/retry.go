package filters

import (
	"net/netip"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// RetryPolicy decides; the engine acts. The engine asks only when another
// attempt would be safe: no byte of a response has gone downstream and the
// request can be replayed in full. No policy can override that.
type RetryPolicy interface {
	// Next is asked after each attempt that did not end the request.
	Next(a *Attempt) (wait time.Duration, again bool)
}

// An Attempt is the record of one try at one endpoint.
type Attempt struct {
	N        int // 1 for the first
	Endpoint netip.AddrPort
	Workload *Workload     // who that is; nil if nobody knows
	Status   int           // 0 if no response head arrived
	GRPC     int           // grpc-status in the response's head; 0 if there was none
	Fault    *fault.Fault  // nil if a head arrived
	Took     time.Duration // from the pick to the response head or the fault
	Sent     Progress      // SentNothing is safe to retry whatever the method

	// Idempotent says that the request's method may be repeated without harm
	// even if the endpoint has acted on it (RFC 9110, section 9.2.2).
	Idempotent bool
}

// Progress is how far a request has got on its upstream connection.
type Progress uint8

// The steps of Progress. A refused CONNECT, REFUSED_STREAM and a stream above
// GOAWAY's last id are SentNothing.
const (
	SentNothing Progress = iota // the endpoint cannot have seen any of it
	SentHead
	SentBody
)

func (p Progress) String() string {
	switch p {
	case SentNothing:
		return "nothing"
	case SentHead:
		return "head"
	case SentBody:
		return "body"
	}
	return "unknown progress"
}

// A Workload is what is known of who serves an endpoint, for filters, metrics
// and records. It is immutable.
type Workload struct {
	Name, Namespace       string
	ID                    peer.ID // zero if it has none
	Cluster, Network      string
	Region, Zone, Subzone string
	Labels                map[string]string
}
