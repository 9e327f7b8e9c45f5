package proxy_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
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
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// moody2 is an application of HTTP/2 and HTTP/1 that answers as chance has it.
func moody2(w http.ResponseWriter, r *http.Request) {
	switch rand.N(12) {
	case 0:
		panic(http.ErrAbortHandler)
	case 1:
		w.Header().Set("content-length", "100000")
		io.WriteString(w, "part")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case 2: // an answer before the request's end
		w.WriteHeader(413)
		return
	case 3:
		<-time.After(rand.N(5 * time.Millisecond))
	case 4:
		w.Header().Set("grpc-status", "14")
		return
	}
	http.NewResponseController(w).EnableFullDuplex()
	w.Header().Set("trailer", "x-n")
	n, err := io.Copy(w, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("x-n", fmt.Sprint(n))
}

// A moodyListener resets a connection now and then.
type moodyListener struct{ net.Listener }

func (l moodyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil && rand.N(2) == 0 {
		time.AfterFunc(rand.N(100*time.Millisecond), func() {
			nc.(*net.TCPConn).SetLinger(0)
			nc.Close()
		})
	}
	return nc, err
}

// protocols is HTTP/2 without TLS, and HTTP/1 if both.
func protocols(both bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	p.SetHTTP1(both)
	return p
}

// TestChaos2 is TestChaos with HTTP/2 on both sides, and between them HTTP/1 on
// either: streams that end in every way beside each other on connections that do.
func TestChaos2(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(moody2), Protocols: protocols(true), ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(moodyListener{l})
	t.Cleanup(func() { s.Close() })
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
		for _, port := range []string{"grpc", "http"} {
			t.Run(name+"/"+port, func(t *testing.T) { chaos2(t, l.Addr().String(), port, guard) })
		}
	}
}

func chaos2(t *testing.T, app, port string, guard func(*filters.Builder, string) error) {
	text := func(rule string) string {
		return strings.ReplaceAll(plainDoc(rule), "appProtocol: http}", "appProtocol: "+port+"}")
	}
	doc := text("retry: {attempts: 2, codes: [413], backoff: 1ms}\n    timeouts: {request: 1s}")
	m := start(t, doc, devmesh.Options{App: func(string) string { return app }, Guard: guard})
	docs := []*config.Config{decode(t, doc), decode(t, text(once))}
	stop, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var all sync.WaitGroup
	var whole, failed atomic.Int64
	for _, mode := range m.Modes {
		url := "http://" + m.addr("a", mode) + "/"
		for i := range 3 {
			tr := &http.Transport{Protocols: protocols(false)}
			if i == 2 { // a client of HTTP/1
				tr.Protocols = nil
			}
			for range 4 {
				all.Go(func() {
					for stop.Err() == nil {
						if ask2(url, tr) {
							whole.Add(1)
						} else {
							failed.Add(1)
						}
						if rand.N(50) == 0 {
							tr.CloseIdleConnections()
						}
					}
					tr.CloseIdleConnections()
				})
			}
		}
	}
	for i := 0; stop.Err() == nil; i++ {
		<-time.After(20 * time.Millisecond)
		m.Apply(docs[i%2])
	}
	all.Wait()
	if whole.Load() == 0 || failed.Load() == 0 {
		t.Errorf("%d whole, %d failed: no chaos", whole.Load(), failed.Load())
	}
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
		t.Logf("%s: %d requests, %d retries, %d whole, %d failed", mode, st.Requests.Load(), st.Retries.Load(), whole.Load(), failed.Load())
	}
}

// ask2 makes a request that may be given up, and checks a response that is whole.
func ask2(url string, tr *http.Transport) (whole bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if rand.N(10) == 0 {
		time.AfterFunc(rand.N(5*time.Millisecond), cancel)
	}
	body := strings.Repeat("y", rand.N(1<<rand.N(18)+1))
	q, err := http.NewRequestWithContext(ctx, "POST", url, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return false
	}
	if rand.N(2) == 0 {
		q.ContentLength = int64(len(body))
	}
	p, err := tr.RoundTrip(q)
	if err != nil {
		return false
	}
	defer p.Body.Close()
	got, err := io.ReadAll(p.Body)
	if err != nil || p.StatusCode != 200 || p.Header.Get("grpc-status") != "" {
		return false
	}
	if string(got) != body || p.Trailer.Get("x-n") != fmt.Sprint(len(body)) {
		panic(fmt.Sprintf("%s: %d bytes of %d came back, %v %d, trailer %v", p.Proto, len(got), len(body), p.Header, p.ContentLength, p.Trailer))
	}
	return true
}
