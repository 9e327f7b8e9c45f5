package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/sandwich-mesh/sandwich/proxy"
)

// timeFlags say how long things may take, and what may be switched to.
type timeFlags struct {
	set      proxy.Timeouts
	upgrades []string
}

// limits are the flags of the timeouts. In a flag 0 is never.
func (f *timeFlags) limits() []struct {
	name  string
	to    *time.Duration
	usual time.Duration
	what  string
} {
	return []struct {
		name  string
		to    *time.Duration
		usual time.Duration
		what  string
	}{
		{"timeout-head", &f.set.Head, 10 * time.Second, "for a request's head, or a ClientHello"},
		{"timeout-body", &f.set.Body, 0, "for a whole request; 0 for ever"},
		{"timeout-idle", &f.set.Idle, time.Hour, "without a request on a client's connection"},
		{"timeout-stream", &f.set.Stream, 0, "without a byte of a request or response under way; 0 for ever"},
		{"timeout-upgraded", &f.set.Upgraded, 0, "without a byte of a WebSocket; 0 for ever"},
		{"timeout-tcp", &f.set.TCP, time.Hour, "without a byte of an opaque connection; 0 for ever"},
		{"timeout-detect", &f.set.Detect, time.Second, "for first bytes that leave it open what is spoken"},
	}
}

func (f *timeFlags) add(fl *pflag.FlagSet) {
	for _, l := range f.limits() {
		fl.DurationVar(l.to, l.name, l.usual, l.what)
	}
	fl.StringSliceVar(&f.upgrades, "upgrade", []string{"websocket"}, "what clients may switch a connection to; empty for nothing")
}

// timeouts returns what the flags say in the engine's words, where 0 is the
// default and less is never.
func (f *timeFlags) timeouts() (proxy.Timeouts, error) {
	for _, l := range f.limits() {
		switch {
		case *l.to < 0:
			return proxy.Timeouts{}, fmt.Errorf("--%s %v: write a duration, or 0 for never", l.name, *l.to)
		case *l.to == 0:
			*l.to = -1
		}
	}
	return f.set, nil
}

// offers returns the list of upgrades; not nil, for that is the default.
func (f *timeFlags) offers() []string { return append([]string{}, nonEmpty(f.upgrades)...) }
