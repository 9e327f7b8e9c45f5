package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/stock"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

const (
	// patronTime bounds a request of a patron, and whatever it waits for.
	patronTime = 20 * time.Second
	// answerSize is how long the answers are that patrons ask for.
	answerSize = 256
	// uploadSize is how long the body is that every fourth of their requests has.
	uploadSize = 512
	// refusedWait is how long a patron waits whose connection was refused.
	refusedWait = 5 * time.Millisecond
	// maxFailures is of how many failures the beginnings are remembered.
	maxFailures = 1000
)

// Patrons are clients that come again and again, made of Go's libraries: some in
// HTTP/1 and some in HTTP/2 inside tunnels, some in HTTP/1 behind a PROXY header.
// They do as they are told, to go elsewhere or to close, and try nothing twice.
type Patrons struct {
	hbone, proxy string
	config       *tls.Config

	// Atomic.
	asked   atomic.Int64 // requests
	failed  atomic.Int64 // those without the right answer
	refused atomic.Int64 // connections; their requests were not made
	version atomic.Int64 // of the document by which the last answer was made
	why     atomic.Pointer[error]

	mu    sync.Mutex
	began []time.Time // of those that failed, the first of them

	stop chan struct{}
	wg   sync.WaitGroup
}

// A patronage says how many patrons there are of each sort.
type patronage struct {
	Meshes  int // mesh connections of the first two sorts
	Tunnels int // one at a time in HTTP/1, each in its tunnel
	Calls   int // in HTTP/2, on one inner connection for each mesh connection
	Headed  int // behind a PROXY header
}

// patrons come to a waypoint.
func (r *Rig) patrons(hbone, proxy string, n patronage) (*Patrons, error) {
	_, config, err := r.certs["curl"].TLS()
	if err != nil {
		return nil, err
	}
	p := &Patrons{hbone: hbone, proxy: proxy, config: config, stop: make(chan struct{})}
	var id uint32
	for i := range max(n.Meshes, 1) {
		tunnels := stock.NewTunnels(hbone, config)
		for k := i; k < n.Tunnels; k += n.Meshes {
			id++
			p.wg.Add(1)
			go p.serially(id, func(ctx context.Context) (net.Conn, error) { return tunnels.Dial(ctx, vip) })
		}
		calls := &http.Transport{
			Protocols:   new(http.Protocols),
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return tunnels.Dial(ctx, vip) },
		}
		calls.Protocols.SetUnencryptedHTTP2(true)
		for k := i; k < n.Calls; k += n.Meshes {
			id++
			p.wg.Add(1)
			go p.call(id, calls)
		}
	}
	for range n.Headed {
		id++
		p.wg.Add(1)
		go p.serially(id, p.headed)
	}
	return p, nil
}

// headed connects behind a PROXY header.
func (p *Patrons) headed(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", p.proxy)
	if err != nil {
		return nil, err
	}
	if _, err := nc.Write(traffic.ProxyHeader(netip.MustParseAddrPort("10.1.0.5:40000"), netip.MustParseAddrPort(vip), clientID)); err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nil
}

func (p *Patrons) told() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// serially asks on one connection after the other.
func (p *Patrons) serially(id uint32, open func(context.Context) (net.Conn, error)) {
	defer p.wg.Done()
	var nc net.Conn
	var in *bufio.Reader
	for seq := uint32(0); !p.told(); seq++ {
		begun := time.Now()
		if nc == nil {
			ctx, cancel := context.WithTimeout(context.Background(), patronTime)
			c, err := open(ctx)
			cancel()
			if err != nil {
				p.lost(begun, err)
				continue
			}
			nc, in = c, bufio.NewReader(c)
		}
		again, err := p.ask(nc, in, number(id, seq))
		p.note(begun, err)
		if err != nil || !again {
			nc.Close()
			nc = nil
		}
	}
	if nc != nil {
		nc.Close()
	}
}

// lost counts a connection that there was not.
func (p *Patrons) lost(begun time.Time, err error) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		p.refused.Add(1)
		<-time.After(refusedWait)
		return
	}
	p.note(begun, fmt.Errorf("connect: %w", err))
}

func (p *Patrons) note(begun time.Time, err error) {
	p.asked.Add(1)
	if err == nil {
		return
	}
	p.failed.Add(1)
	p.why.CompareAndSwap(nil, &err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.began) < maxFailures {
		p.began = append(p.began, begun)
	}
}

// failedSince counts the failures, among the first thousand, of what began after a
// time.
func (p *Patrons) failedSince(t time.Time) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, begun := range p.began {
		if begun.After(t) {
			n++
		}
	}
	return n
}

func number(id, seq uint32) string { return fmt.Sprintf("%08x%08x", id, seq) }

// ask makes one request in HTTP/1, and says whether there may be another one.
func (p *Patrons) ask(nc net.Conn, in *bufio.Reader, number string) (again bool, err error) {
	late := time.AfterFunc(patronTime, func() { nc.Close() }) // tunnels keep no deadlines
	defer late.Stop()
	method, length, body := "GET", "", ""
	if uploads(number) {
		method, length, body = "POST", fmt.Sprintf("content-length: %d\r\n", uploadSize), strings.Repeat("u", uploadSize)
	}
	head := fmt.Sprintf("%s /api/items?bytes=%d HTTP/1.1\r\nhost: svc.bench\r\n%sx-echo: %s\r\n\r\n", method, answerSize, length, number)
	if _, err := io.WriteString(nc, head+body); err != nil {
		return false, fmt.Errorf("ask: %w", err)
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	return !res.Close, p.check(res, number)
}

// uploads reports whether a request has a body.
func uploads(number string) bool { return number[len(number)-1]%4 == 0 }

// check reads an answer and wants it whole and right.
func (p *Patrons) check(res *http.Response, number string) error {
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	switch {
	case err != nil:
		return fmt.Errorf("read the answer's body: %w", err)
	case res.StatusCode != 200:
		return fmt.Errorf("status %d", res.StatusCode)
	case res.Header.Get("x-echo") != number || n != answerSize:
		return fmt.Errorf("answer %s of %d bytes to request %s", res.Header.Get("x-echo"), n, number)
	}
	var v int64
	if _, err := fmt.Sscan(res.Header.Get("x-version"), &v); err == nil {
		p.version.Store(v)
	}
	return nil
}

// call asks in HTTP/2. It is net/http's to open connections, and to repeat what
// the other side has said that it did not begin.
func (p *Patrons) call(id uint32, t *http.Transport) {
	defer p.wg.Done()
	defer t.CloseIdleConnections()
	for seq := uint32(0); !p.told(); seq++ {
		begun := time.Now()
		if err := p.callOnce(t, number(id, seq)); errors.Is(err, syscall.ECONNREFUSED) {
			p.lost(begun, err)
		} else {
			p.note(begun, err)
		}
	}
}

func (p *Patrons) callOnce(t *http.Transport, number string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patronTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://svc.bench/api/items?bytes=%d", answerSize), nil)
	if err != nil {
		return err
	}
	r.Header.Set("x-echo", number)
	res, err := t.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("call: %w", err)
	}
	return p.check(res, number)
}

// until waits for something that the patrons see.
func (p *Patrons) until(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 6*patronTime)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not in time; %d requests, %d failed, %d connections refused", what, p.asked.Load(), p.failed.Load(), p.refused.Load())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// Leave ends them, and returns the first failure.
func (p *Patrons) Leave() error {
	close(p.stop)
	p.wg.Wait()
	if e := p.why.Load(); e != nil {
		return *e
	}
	return nil
}
