package load

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/buf"
)

// TestAllocations: requests of a run cost no heap objects, but what crypto/tls
// and new streams of HTTP/2 do.
func TestAllocations(t *testing.T) {
	answer := []byte("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello")
	echo := listen(t)
	go serveEcho(echo)
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	tunnels := listen(t)
	go traffic.ServeTunnels(context.Background(), tunnels, server)
	for name, s := range map[string]Spec{
		"http1": short(Target{Addr: answering(t, func(c net.Conn, _ int) { c.Write(answer) })}, Kind{Bytes: 5}),
		"tcp":   short(Target{Addr: echo.Addr().String(), Protocol: Echo}, Kind{Size: 100}),
		"hbone": short(Target{Addr: tunnels.Addr().String(), Via: ViaHBONE, To: "10.96.0.10:80", Certs: c}, Kind{Path: "/api/items?bytes=10", Bytes: 10, Fields: number}),
	} {
		s.Schedule, s.Requests, s.Connections = Schedule{Shape: Closed}, 0, 8
		if s.Mesh = 0; name == "hbone" {
			s.Mesh = 1
		}
		few, many := objects(t, s, 1000), objects(t, s, 21_000)
		most := 0.05
		if raceEnabled || buf.Check { // pools forget, and buffers are new each time
			most = 4
		}
		if name == "hbone" {
			most += 1.5 // both ends of the mesh connection are in this process, one object for each read of a socket
		}
		if each := (many - few) / 20_000; each > most {
			t.Errorf("%s: %.3f objects a request, want %v at most", name, each, most)
		}
	}
}

// objects is how many heap objects a run of so many requests makes.
func objects(t *testing.T, s Spec, requests int64) float64 {
	t.Helper()
	s.Requests = requests
	r, err := Start(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := r.gather(t.Context())
	runtime.ReadMemStats(&after)
	if err != nil || b.total.done != requests {
		t.Fatalf("%d answered of %d, %v", b.total.done, requests, err)
	}
	return float64(after.Mallocs - before.Mallocs)
}

// BenchmarkResponse is what reading an answer costs.
func BenchmarkResponse(b *testing.B) {
	p := []byte("HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: application/json\r\ncontent-length: 1024\r\nx-echo: 0123456789abcdef\r\n\r\n" + string(make([]byte, 1024)))
	for _, name := range []string{"new", "seen"} {
		b.Run(name, func(b *testing.B) {
			var r response
			b.ReportAllocs()
			for b.Loop() {
				if name == "new" {
					r.last.head = r.last.head[:0]
				}
				r.expect(false)
				if _, done, err := r.feed(p); !done || err != nil {
					b.Fatal(io.ErrUnexpectedEOF)
				}
			}
		})
	}
}
