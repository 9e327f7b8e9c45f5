package filtertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

var (
	_ filters.ConnFilter    = (*denier)(nil)
	_ filters.RequestFilter = (*burner)(nil)
	_ filters.RequestFilter = (*panicker)(nil)
)

// Deny is "test-deny": a ConnFilter that refuses clients by identity.
func Deny() filters.Kind {
	return filters.Kind{Name: "test-deny", New: func(_ *filters.Builder, raw filters.Spec) (filters.Filter, error) {
		f := new(denier)
		return f, raw.Decode(&f.DenySettings)
	}}
}

// DenySettings name whom Deny refuses.
type DenySettings struct {
	IDs []string `json:"ids"` // SPIFFE IDs; "" is a client without identity
}

type denier struct{ DenySettings }

func (f *denier) Conn(c *filters.Conn) error {
	if id := c.Peer.ID.String(); slices.Contains(f.IDs, id) {
		return fault.Wrap(fault.PolicyDenied, fault.Downstream, fmt.Errorf("%q may not connect to %s", id, c.Service))
	}
	return nil
}

// Burn is "test-burn": a filter that computes for a while, in its request phase.
func Burn() filters.Kind {
	return filters.Kind{Name: "test-burn", New: func(_ *filters.Builder, raw filters.Spec) (filters.Filter, error) {
		f := new(burner)
		return f, raw.Decode(&f.BurnSettings)
	}}
}

// BurnSettings say how long Burn computes.
type BurnSettings struct {
	For time.Duration `json:"for"`
}

type burner struct{ BurnSettings }

func (f *burner) Request(*filters.Stream) *filters.Reply {
	for start := time.Now(); time.Since(start) < f.For; {
	}
	return nil
}

// Panic is "test-panic": a filter with a bug, in its request phase.
func Panic() filters.Kind {
	return filters.Kind{Name: "test-panic", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) {
		return new(panicker), nil
	}}
}

type panicker struct{}

func (*panicker) Request(*filters.Stream) *filters.Reply { panic("test-panic: a bug in a filter") }
