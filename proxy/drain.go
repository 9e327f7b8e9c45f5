package proxy

import (
	"context"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// lastWord is how long connections that wait for a request have to end, when the
// time for draining is up, before they are cut with the rest.
const lastWord = 500 * time.Millisecond

// Leave makes this proxy not ready and changes nothing else: whoever sends traffic
// here finds out, and sends it elsewhere, before anybody is asked to go.
func (p *Proxy) Leave() { p.leaving.Store(true) }

// Drain stops accepting, and asks clients to go elsewhere: GOAWAY on mesh
// connections and on inner HTTP/2 ones, and Connection: close on the next response
// of each other one. What they send meanwhile is served.
func (p *Proxy) Drain() {
	p.draining.Store(true)
	for _, c := range p.allLive() {
		var t turn.Turn
		c.drain(&t)
		t.End()
	}
	p.server.Drain()
}

// Shutdown drains, waits for what is under way until ctx ends, and cuts the
// rest. It returns how many connections it cut.
func (p *Proxy) Shutdown(ctx context.Context) int {
	p.Drain()
	waits, cutNow := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		p.endIdle(waits)
		p.cutting.Store(true) // what ends from here on is cut, and known to be
		cutNow()
	})
	cut := p.server.Shutdown(waits)
	stop()
	cutNow()
	p.stopped.Do(func() { close(p.stop) })
	p.snap.Swap(snapshot.Empty()).Retire()
	p.pool.Close()
	p.workers.close()
	p.wheel.Close()
	return cut
}

// endIdle ends the connections that wait for a request, and gives them a moment.
// It is done as late as this because a request may be on its way on any of them.
func (p *Proxy) endIdle(ctx context.Context) {
	some := false
	for _, c := range p.allLive() {
		var t turn.Turn
		some = c.endIdle(&t) || some
		p.endTurn(&t)
	}
	if !some {
		return
	}
	late := time.NewTimer(lastWord)
	defer late.Stop()
	select {
	case <-late.C:
	case <-ctx.Done():
	}
}
