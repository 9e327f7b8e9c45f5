package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// moody is an application that answers, or does not, as chance has it.
func moody(nc *net.TCPConn, r *bufio.Reader) {
	for {
		if rand.N(20) == 0 { // before it has read anything
			return
		}
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		switch rand.N(12) {
		case 0:
			return
		case 1:
			reset(nc)
			return
		case 2:
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart")
			return
		case 3: // an answer before the request's end
			io.WriteString(nc, "HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
			return
		case 4:
			<-time.After(rand.N(5 * time.Millisecond))
		}
		n, err := io.Copy(io.Discard, q.Body)
		if err != nil {
			return
		}
		if rand.N(2) == 0 {
			fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", int(n)))
		} else {
			fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n+1, strings.Repeat("x", int(n+1)))
		}
	}
}

// fickle is a client's connection: it asks, and goes when it likes.
func fickle(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	for range 1 + rand.N(8) {
		n := rand.N(4)
		body := strings.Repeat("y", rand.N(1<<rand.N(18)+1))
		for range 1 + n/3 { // now and then two at once
			if _, err := fmt.Fprintf(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:len(body)/2]); err != nil {
				return
			}
			if rand.N(20) == 0 {
				reset(nc)
				return
			}
			if _, err := io.WriteString(nc, body[len(body)/2:]); err != nil {
				return
			}
		}
		for range 1 + n/3 {
			p, err := http.ReadResponse(r, nil)
			if err != nil {
				return
			}
			if rand.N(30) == 0 {
				reset(nc)
				return
			}
			if _, err := io.Copy(io.Discard, p.Body); err != nil || p.Close {
				return
			}
		}
	}
}

// TestChaos: clients and applications that go at any moment, filters that wait,
// and documents that change. Nothing is left behind: no call in progress, no
// replay budget, no goroutine and no buffer, and no event came that may not.
func TestChaos(t *testing.T) {
	a := newApp(t, moody)
	guard := func(b *filters.Builder, _ string) error {
		for _, s := range []filtertest.WaiterSettings{
			{Phase: "request", Waker: true}, {Phase: "request body"}, {Phase: "response", Delay: time.Millisecond}, {Phase: "response body", Waker: true},
		} {
			if err := b.Add("test-wait", "test", filters.NewSpec(s)); err != nil {
				return err
			}
		}
		return nil
	}
	for name, guard := range map[string]func(*filters.Builder, string) error{"plain": nil, "filters that wait": guard} {
		t.Run(name, func(t *testing.T) { chaos(t, a, guard) })
	}
}

func chaos(t *testing.T, a *rawApp, guard func(*filters.Builder, string) error) {
	doc := plainDoc("retry: {attempts: 2, codes: [413], backoff: 1ms}\n    timeouts: {request: 1s}")
	m := start(t, doc, devmesh.Options{App: a.everywhere, Guard: guard})
	docs := []*config.Config{decode(t, doc), decode(t, plainDoc(once))}
	stop := make(chan struct{})
	time.AfterFunc(1500*time.Millisecond, func() { close(stop) })
	var all sync.WaitGroup
	for _, mode := range m.Modes {
		addr := m.addr("a", mode)
		for range 6 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					nc, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						return
					}
					nc.SetDeadline(time.Now().Add(patience))
					fickle(nc)
				}
			})
		}
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
		case <-time.After(20 * time.Millisecond):
			m.Apply(docs[i%2])
			continue
		}
		break
	}
	all.Wait()
	for _, mode := range m.Modes {
		w := m.Waypoint(mode)
		eventually(t, "calls to end", func() bool {
			for _, b := range w.Snapshot().Backends() {
				for _, e := range b.Endpoints() {
					if e.Active() != 0 {
						return false
					}
				}
			}
			return true
		})
		st := w.Stats()
		if st.Impossible.Load() != 0 || st.Panics.Load() != 0 {
			t.Errorf("%s: %d impossible events, %d panics: %v", mode, st.Impossible.Load(), st.Panics.Load(), m.panics)
		}
		t.Logf("%s: %d requests, %d retries", mode, st.Requests.Load(), st.Retries.Load())
	}
}
