package proxy

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Listeners say where tunnels come in. Each may be empty.
type Listeners struct {
	HBONE []net.Listener // mutual TLS, HTTP/2 CONNECT; Istio's port is 15008
	Proxy []net.Listener // PROXY header; by convention port 15088, on loopback
	Plain []net.Listener // no header: the destination is the address dialled
}

// Serve accepts on every listener until ctx ends, and then drains, or until one
// of them fails.
func (p *Proxy) Serve(ctx context.Context, l Listeners) error {
	asked := ctx // whoever ends it, by whatever cause, asked for it: that is no error
	ctx, cancel := context.WithCancelCause(asked)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(serve func(net.Listener) error, list []net.Listener) {
		for _, one := range list {
			wg.Go(func() {
				if err := serve(one); err != nil {
					cancel(fmt.Errorf("listener %s: %w", one.Addr(), err))
				}
			})
		}
	}
	run(p.serveHBONE, l.HBONE)
	run(p.serveProxyProto, l.Proxy)
	run(p.server.ServePlain, l.Plain)
	p.listening.Store(true)
	<-ctx.Done()
	if asked.Err() != nil {
		p.Drain()
		wg.Wait()
		return nil
	}
	for _, list := range [][]net.Listener{l.HBONE, l.Proxy, l.Plain} {
		for _, one := range list {
			one.Close()
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}

// serveHBONE and serveProxyProto differ in how a tunnel begins. Both end in
// openTunnel, and from there nobody can tell them apart.
func (p *Proxy) serveHBONE(l net.Listener) error      { return p.server.ServeHBONE(l) }
func (p *Proxy) serveProxyProto(l net.Listener) error { return p.server.ServeProxy(l) }
