package proxy

import (
	"github.com/sandwich-mesh/sandwich/filters"
)

// guardWith puts one filter before every service.
func guardWith(kind string, settings any) func(*filters.Builder, string) error {
	return func(b *filters.Builder, _ string) error { return b.Add(kind, "test", filters.NewSpec(settings)) }
}

func kinds(list ...filters.Kind) []filters.Kind { return list }
