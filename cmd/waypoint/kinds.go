package main

import (
	"syscall"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/headers"
)

// kinds says which filters this binary contains.
func kinds() filters.Registry {
	return filters.NewRegistry(headers.RequestKind(), headers.ResponseKind())
}

// defaultMaxConns is 45 % of the descriptor limit: each client's connection may
// need another one upstream, and the rest is for everything else.
func defaultMaxConns() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur == 0 {
		return 1024
	}
	return int(min(l.Cur, 1<<24) * 45 / 100)
}
