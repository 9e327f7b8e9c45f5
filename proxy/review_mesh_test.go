package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

const otherClient = "spiffe://cluster.local/ns/demo/sa/other"

// A denyList is what the guard of a document refuses, by identity.
type denyList struct {
	mu  sync.Mutex
	ids []string
}

func (l *denyList) set(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = ids
}

func (l *denyList) guard(b *filters.Builder, _ string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return b.Add("test-deny", "test", filters.NewSpec(filtertest.DenySettings{IDs: l.ids}))
}

// enter connects to the service as one of the clients.
func (m *mesh) enter(mode devmesh.Mode, id string) net.Conn {
	m.t.Helper()
	for _, e := range m.Entries() {
		if e.Mode == mode && e.Identity == id {
			nc, err := net.Dial("tcp", e.Addr())
			if err != nil {
				m.t.Fatal(err)
			}
			m.t.Cleanup(func() { nc.Close() })
			nc.SetDeadline(time.Now().Add(patience))
			return nc
		}
	}
	m.t.Fatalf("no entry for %s", id)
	return nil
}

// echoes reports whether what is sent comes back.
func echoes(nc net.Conn, r *bufio.Reader) error {
	if _, err := io.WriteString(nc, "ping"); err != nil {
		return err
	}
	got := make([]byte, 4)
	_, err := io.ReadFull(r, got)
	return err
}

// TestReviewInTheMesh: over real connections, in both shapes, a client that a new
// document refuses is cut within a second, and its neighbour talks on.
func TestReviewInTheMesh(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) {
		if p, _ := r.Peek(4); string(p) == "GET " {
			if q, _ := take(r); q == nil {
				return
			}
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		}
		io.Copy(nc, r)
	})
	for _, row := range []struct{ name, doc, hello string }{
		{"TCP", portDoc(declaredTCP), ""},
		{"WebSocket", plainDoc(once), "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var deny denyList
			m := start(t, row.doc, devmesh.Options{App: a.everywhere, Guard: deny.guard, Clients: []string{devmesh.DefaultClient, otherClient}})
			m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
				deny.set()
				m.Apply(decode(t, row.doc))
				ends := map[string]*bufio.Reader{}
				conns := map[string]net.Conn{}
				for _, id := range m.Clients {
					nc := m.enter(mode, id)
					conns[id], ends[id] = nc, bufio.NewReader(nc)
					if row.hello != "" {
						io.WriteString(nc, row.hello)
						for line := "x"; line != "\r\n"; {
							var err error
							if line, err = ends[id].ReadString('\n'); err != nil {
								t.Fatal(err)
							}
						}
					}
					if err := echoes(nc, ends[id]); err != nil {
						t.Fatal(err)
					}
				}
				m.Apply(decode(t, row.doc)) // which refuses nobody
				for id, nc := range conns {
					if err := echoes(nc, ends[id]); err != nil {
						t.Fatalf("%s was cut by a document that does not refuse it: %v", id, err)
					}
				}
				deny.set(otherClient)
				began := time.Now()
				m.Apply(decode(t, row.doc))
				if _, err := ends[otherClient].ReadByte(); err == nil {
					t.Error("a byte came")
				}
				took := time.Since(began)
				if took > time.Second {
					t.Errorf("cut after %v, want a second at most", took)
				}
				if err := echoes(conns[devmesh.DefaultClient], ends[devmesh.DefaultClient]); err != nil {
					t.Errorf("the other client was cut too: %v", err)
				}
				if n := m.Waypoint(mode).Stats().Faults[fault.Revoked].Load(); n != 1 {
					t.Errorf("%d cut, want 1", n)
				}
				t.Logf("cut %v after the document came", took)
			})
		})
	}
}

// TestReviewHammer: requests and WebSockets of two clients while documents refuse
// one of them, let it in, refuse it again: the other one loses nothing, the refused
// one gets whole answers, refusals and ends, and nothing is left.
func TestReviewHammer(t *testing.T) {
	var deny denyList
	m := start(t, plainDoc(once), devmesh.Options{Guard: deny.guard, Clients: []string{devmesh.DefaultClient, otherClient}})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var served, refused atomic.Int64
	for _, e := range m.Entries() {
		for range 3 {
			clients.Go(func() {
				c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
				defer c.CloseIdleConnections()
				for {
					select {
					case <-stop:
						return
					default:
					}
					switch err := postAll(c, e.URL); {
					case err == nil:
						served.Add(1)
					case e.Identity == otherClient:
						refused.Add(1)
					default:
						t.Errorf("%s: %v", e.Mode, err)
						return
					}
				}
			})
		}
	}
	for i := range 60 {
		if i%2 == 0 {
			deny.set(otherClient)
		} else {
			deny.set()
		}
		if _, err := m.Apply(decode(t, plainDoc(once))); err != nil {
			t.Fatal(err)
		}
		want := served.Load() + 5
		eventually(t, "requests to go on", func() bool { return served.Load() > want || t.Failed() })
	}
	close(stop)
	clients.Wait()
	if refused.Load() == 0 {
		t.Error("the hammer did not hit")
	}
	for _, mode := range m.Modes {
		w := m.Waypoint(mode)
		if n := w.Stats().Panics.Load() + w.Stats().Impossible.Load(); n != 0 {
			t.Errorf("%s: %d panics and impossible events: %v", mode, n, m.panics)
		}
		for _, b := range w.Snapshot().Backends() {
			for _, e := range b.Endpoints() {
				eventually(t, "endpoints to be unused", func() bool { return e.Active() == 0 })
			}
		}
	}
	t.Logf("%d served, %d refused", served.Load(), refused.Load())
}

// postAll asks for an echo of a body, and wants all of it.
func postAll(c *http.Client, url string) error {
	r, err := c.Post(url+"/body", "text/plain", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != 200 || string(body) != "hello") {
		err = fmt.Errorf("%d %q", r.StatusCode, body)
	}
	return err
}

// A ponderer takes a while to judge each stream again.
type ponderer struct {
	takes time.Duration
	asked *atomic.Int64
}

func (ponderer) Request(*filters.Stream) *filters.Reply { return nil }
func (f ponderer) Review(s *filters.Stream) error {
	if strings.HasPrefix(string(s.Request.Path), "/body") {
		f.asked.Add(1)
		for began := time.Now(); time.Since(began) < f.takes; {
		}
	}
	return nil
}

// TestReviewOfThousands: while thousands of streams are judged again, which takes a
// while, requests of others are served, and streams that may stay do.
func TestReviewOfThousands(t *testing.T) {
	const conns, each, takes = 20, 100, 100 * time.Microsecond
	var asked atomic.Int64
	kind := filters.Kind{Name: "ponderer", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return ponderer{takes, &asked}, nil }}
	doc := strings.Replace(plainDoc(once), "appProtocol: http}", "appProtocol: http2}", 1)
	m := start(t, doc, devmesh.Options{
		Modes: []devmesh.Mode{devmesh.HBONE}, Registry: filters.NewRegistry(kind),
		Guard: func(b *filters.Builder, _ string) error { return b.Add("ponderer", "test", filters.NewSpec(nil)) },
	})
	url := m.url("a", devmesh.HBONE)
	var streams []*duplex
	for range conns {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(tr.CloseIdleConnections)
		var first sync.WaitGroup
		opened := make([]*duplex, each)
		opened[0] = openDuplex(t, tr, url) // the connection, before the others want it
		for i := 1; i < each; i++ {
			first.Go(func() { opened[i] = openDuplex(t, tr, url) })
		}
		first.Wait()
		streams = append(streams, opened...)
	}
	if t.Failed() {
		return
	}
	c := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}, Timeout: patience}
	c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer c.CloseIdleConnections()
	slowest := func(until func() bool) (worst time.Duration, n int) {
		for ; n < 20 || !until(); n++ {
			began := time.Now()
			r, err := c.Get(url + "/hello")
			if err != nil {
				t.Error(err)
				return worst, n
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			worst = max(worst, time.Since(began))
		}
		return worst, n
	}
	for round := range 5 { // a machine that is busy elsewhere may hold a request up too
		asked.Store(0)
		var over atomic.Bool
		var took time.Duration
		var applying sync.WaitGroup
		applying.Go(func() {
			began := time.Now()
			m.Apply(decode(t, doc))
			took = time.Since(began)
			over.Store(true)
		})
		during, n := slowest(over.Load)
		applying.Wait()
		t.Logf("%d streams judged in %v; beside it %d requests, the slowest %v", asked.Load(), took, n, during)
		if got := asked.Load(); got != conns*each {
			t.Errorf("%d streams were judged, want %d", got, conns*each)
		}
		if during <= took/2 {
			break
		}
		if round == 4 {
			t.Errorf("a request took %v while a review took %v: it was held up", during, took)
		}
	}
	for _, s := range streams {
		s.still(t)
	}
}

// A duplex is a request whose body comes back as it goes.
type duplex struct {
	up   *io.PipeWriter
	down io.ReadCloser
}

func openDuplex(t *testing.T, tr http.RoundTripper, url string) *duplex {
	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, "POST", url+"/body", r)
	if err != nil {
		t.Error(err)
		return nil
	}
	q.Header.Set("content-type", "application/grpc") // which is what the echo answers at once
	go io.WriteString(w, "x")
	res, err := tr.RoundTrip(q)
	if err != nil {
		t.Error(err)
		return nil
	}
	d := &duplex{w, res.Body}
	t.Cleanup(func() { d.up.Close(); d.down.Close() })
	if _, err := io.ReadFull(d.down, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	return d
}

// still wants that what goes up comes down.
func (d *duplex) still(t *testing.T) {
	t.Helper()
	go io.WriteString(d.up, "y")
	if _, err := io.ReadFull(d.down, make([]byte, 1)); err != nil {
		t.Errorf("a stream that may stay has ended: %v", err)
	}
}
