//lint:file-ignore SA1019 The twin is made of x/net/http2, whose tunnels may be served one connection at a time.

package stock

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

// Windows and streams are as many as ours are, so that flow control costs both
// the same.
const (
	streamWindow = 256 << 10
	connWindow   = 4 << 20
	maxStreams   = 4096
	idlePerHost  = 8192
	bufferSize   = 32 << 10
)

// Options say what a Proxy is for.
type Options struct {
	Service     string // what clients ask for, IP:port; nothing else is served
	Application string // where it listens
	Tunnel      string // the node tunnel before it; "": it is dialled without one
	Calls       bool   // HTTP/2 is spoken inside and to the application
	// Prefix begins the paths that are served: those with the field x-canary: 1
	// by one route, the others by another.
	Prefix         string
	Server, Client *tls.Config // mutual TLS on both sides; without Tunnel only Server
}

// A Proxy ends tunnels, routes requests and begins tunnels.
type Proxy struct {
	o       Options
	routes  [2]http.Handler // without and with the field
	inner   *http.Server
	inner2  *http2.Server
	tunnels *Tunnels
}

// New makes a proxy.
func New(o Options) *Proxy {
	p := &Proxy{o: o, inner2: &http2.Server{MaxConcurrentStreams: maxStreams}}
	p.tunnels = NewTunnels(o.Tunnel, o.Client)
	dial := p.dial
	var transport http.RoundTripper = &http.Transport{DialContext: dial, MaxIdleConns: idlePerHost, MaxIdleConnsPerHost: idlePerHost, DisableCompression: true}
	if o.Calls {
		transport = &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return dial(ctx, network, addr)
		}}
	}
	for i := range p.routes {
		p.routes[i] = p.route(transport)
	}
	p.inner = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	return p
}

// route is one route's reverse proxy.
func (p *Proxy) route(transport http.RoundTripper) http.Handler {
	to := &url.URL{Scheme: "http", Host: p.o.Application}
	return &httputil.ReverseProxy{
		Transport:     transport,
		BufferPool:    &buffers{},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
			r.Out.Host = r.In.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := r.In.Header[name]; ok { // Rewrite begins without them
					r.Out.Header[name] = v
				}
			}
			r.Out.Header.Del("X-Forwarded-Client-Cert")
			if r.Out.Header.Get("X-Request-Id") == "" {
				r.Out.Header.Set("X-Request-Id", newID())
			}
		},
	}
}

// newID is a random UUID.
func newID() string {
	high, low := rand.Uint64()&^0xf000|0x4000, rand.Uint64()&^(3<<62)|2<<62
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", high>>32, high>>16&0xffff, high&0xffff, low>>48, low&(1<<48-1))
}

// ServeHTTP routes a request of the service.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, p.o.Prefix) {
		http.NotFound(w, r)
		return
	}
	if r.Header.Get("X-Canary") == "1" {
		p.routes[1].ServeHTTP(w, r)
		return
	}
	p.routes[0].ServeHTTP(w, r)
}

// buffers is what ReverseProxy copies with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if v, ok := b.pool.Get().(*[]byte); ok {
		return *v
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// ServePROXY serves connections that begin with a PROXY v2 header.
func (p *Proxy) ServePROXY(l net.Listener) error {
	return p.inner.Serve(headed{l, p.o.Service})
}

// ServeHBONE serves CONNECT streams of mutual-TLS HTTP/2 connections.
func (p *Proxy) ServeHBONE(l net.Listener) error {
	ends := &ends{addr: l.Addr(), conns: make(chan net.Conn)}
	go p.inner.Serve(ends)
	handle := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodConnect:
			w.WriteHeader(http.StatusBadRequest)
			return
		case r.Host != p.o.Service:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		c, err := newServerTunnel(w, r)
		switch {
		case err != nil:
		case p.o.Calls:
			p.inner2.ServeConn(c, &http2.ServeConnOpts{Handler: p})
		default:
			ends.conns <- c
			<-c.closed
		}
	})
	outer := &http2.Server{MaxConcurrentStreams: maxStreams, MaxUploadBufferPerConnection: connWindow, MaxUploadBufferPerStream: streamWindow}
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go serveMesh(tls.Server(nc, p.o.Server), outer, handle)
	}
}

func serveMesh(c *tls.Conn, outer *http2.Server, h http.Handler) {
	defer c.Close()
	if err := c.Handshake(); err != nil {
		return // the client's side says why
	}
	outer.ServeConn(c, &http2.ServeConnOpts{Handler: h})
}

// dial connects to the application, through its node tunnel if it has one.
func (p *Proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if p.o.Tunnel == "" {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	return p.tunnels.Dial(ctx, addr)
}

// ServeMetrics tells scrapers what the process has allocated, under the names
// that Go programs use.
func ServeMetrics(l net.Listener) error {
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintf(w, "# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total %d\n", m.Mallocs)
		fmt.Fprintf(w, "# TYPE go_memstats_alloc_bytes_total counter\ngo_memstats_alloc_bytes_total %d\n", m.TotalAlloc)
	}))
}
