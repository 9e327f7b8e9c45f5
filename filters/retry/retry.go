package retry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

var _ filters.RetryPolicy = (*Policy)(nil)

const (
	// Istio's defaults: attempts counts retries, not tries.
	defaultAttempts = 2
	defaultBackoff  = 25 * time.Millisecond

	// maxGrowth bounds the backoff at a multiple of the first, as Envoy does.
	maxGrowth = 10

	// MaxAttempts and MaxBackoff are the most that New takes.
	MaxAttempts = 100
	MaxBackoff  = time.Minute
)

// Statuses of gRPC that the default policy repeats, "cancelled" and
// "unavailable" in retryOn lists.
const (
	grpcCancelled   = 1
	grpcUnavailable = 14
)

// A Policy repeats what did not reach an endpoint, what an endpoint refused to
// process, a gRPC response that is only a head and says unavailable or
// cancelled, and the statuses that it was given.
type Policy struct {
	attempts int
	codes    []int // sorted
	backoff  time.Duration
	wide     bool
}

// Settings are what a route says. A nil field keeps the default.
type Settings struct {
	Attempts *int           // retries after the first try; 0 for none
	Codes    []int          // statuses after which to try again
	Backoff  *time.Duration // the least time between two tries
}

// Default returns the policy of a route that says nothing: two retries, the
// first after 25 ms. It repeats nothing that an endpoint may have processed.
func Default() *Policy { return &Policy{attempts: defaultAttempts, backoff: defaultBackoff} }

// New returns the policy of a route with a retry stanza. Such a route is also
// retried after a lost connection, a reset and an attempt that took too long
// (GEP-1731: implementations should, if a stanza is configured).
func New(s Settings) (*Policy, error) {
	p := Default()
	p.wide = true
	if s.Attempts != nil {
		p.attempts = *s.Attempts
	}
	if s.Backoff != nil {
		p.backoff = *s.Backoff
	}
	p.codes = slices.Clone(s.Codes)
	slices.Sort(p.codes)
	switch {
	case p.attempts < 0 || p.attempts > MaxAttempts:
		return nil, fmt.Errorf("attempts is %d, want 0 to %d", p.attempts, MaxAttempts)
	case p.backoff < 0 || p.backoff > MaxBackoff:
		return nil, fmt.Errorf("backoff is %s, want 0s to %s", p.backoff, MaxBackoff)
	}
	for _, c := range p.codes {
		if c < 400 || c > 599 {
			return nil, fmt.Errorf("codes has %d, want 400 to 599", c)
		}
	}
	return p, nil
}

// Next answers the engine.
func (p *Policy) Next(a *filters.Attempt) (wait time.Duration, again bool) {
	if a.Fault != nil && a.Fault.Kind.Row().Retry == fault.Stale {
		// The connection was dead before the request: not the endpoint's
		// failure, so at once, and once even where retries are off.
		if a.Idempotent || a.Sent == filters.SentNothing {
			return 0, a.N <= max(p.attempts, 1)
		}
	}
	if a.N > p.attempts || !p.wants(a) {
		return 0, false
	}
	return p.delay(a.N), true
}

func (p *Policy) wants(a *filters.Attempt) bool {
	if a.Fault == nil {
		if a.GRPC == grpcCancelled || a.GRPC == grpcUnavailable {
			return true
		}
		_, found := slices.BinarySearch(p.codes, a.Status)
		return found
	}
	switch a.Fault.Kind.Row().Retry {
	case fault.ConnectFailure, fault.Refused:
		return true
	case fault.Reset, fault.Timeout, fault.Stale: // of the last, what is not safe
		return p.wide
	}
	return false
}

// delay doubles with every try, and adds up to half of itself by chance, so that
// clients that failed together do not return together.
func (p *Policy) delay(n int) time.Duration {
	d := p.backoff
	for range n - 1 {
		if d *= 2; d >= maxGrowth*p.backoff {
			d = maxGrowth * p.backoff
			break
		}
	}
	if d < 2 {
		return d
	}
	return d + rand.N(d/2)
}
