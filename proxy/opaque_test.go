package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

// harbour is the document of what is no HTTP, or not declared to be.
const harbour = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: waypoint, namespace: shop}
services:
- {name: tcp, addresses: [10.96.1.1], ports: [{port: 6379, appProtocol: tcp}], endpoints: [{workload: a-1}, {workload: a-2}]}
- {name: guess, addresses: [10.96.1.2], ports: [{port: 7000}], endpoints: [{workload: a-1}]}
- {name: secure, addresses: [10.96.1.3], ports: [{port: 443, appProtocol: tls}], endpoints: [{workload: a-1}]}
- {name: plaintls, addresses: [10.96.1.4], ports: [{port: 443, appProtocol: tls}], endpoints: [{workload: a-1}]}
- {name: none, addresses: [10.96.1.5], ports: [{port: 1, appProtocol: tcp}, {port: 2}]}
- {name: split, addresses: [10.96.1.6], ports: [{port: 1, appProtocol: tcp}], endpoints: [{workload: a-1}]}
- {name: named, addresses: [10.96.1.7], ports: [{port: 9}], endpoints: [{workload: a-1}]}
- {name: one, ports: [{port: 1, targetPort: 1001}], endpoints: [{workload: a-1}]}
- {name: two, ports: [{port: 1, targetPort: 1002}], endpoints: [{workload: a-1}]}
workloads:
- {name: a-1, address: 10.1.0.1, serviceAccount: a}
- {name: a-2, address: 10.1.0.2, serviceAccount: a}
tcpRoutes:
- {name: split, parentRefs: [{kind: Service, name: split}], rules: [{backendRefs: [{name: one, port: 1, weight: 3}, {name: two, port: 1}]}]}
tlsRoutes:
- {name: one, hostnames: [one.example], parentRefs: [{kind: Service, name: secure}, {kind: Service, name: named}], rules: [{backendRefs: [{name: one, port: 1}]}]}
- {name: two, hostnames: ["*.two.example"], parentRefs: [{kind: Service, name: secure}, {kind: Service, name: named}], rules: [{backendRefs: [{name: two, port: 1}]}]}
`

const (
	tcpService   = "10.96.1.1:6379"
	guessService = "10.96.1.2:7000"
	tlsByName    = "10.96.1.3:443"
	tlsService   = "10.96.1.4:443"
	tcpNone      = "10.96.1.5:1"
	guessNone    = "10.96.1.5:2"
	tcpSplit     = "10.96.1.6:1"
	guessNamed   = "10.96.1.7:9"
)

// parrot sends everything back, and ends when the client does.
func parrot(a *app) {
	defer a.Close()
	io.Copy(a.Conn, a.r)
	a.CloseWrite()
}

// TestTCP: bytes both ways; the client is answered when its endpoint is
// connected, and the connection is told of once, at its end.
func TestTCP(t *testing.T) {
	o := rigOptions{doc: harbour}
	inFakeTime(t, o, parrot, func(r *rig) {
		r.dial = func(string) error { <-time.After(time.Second); return nil }
		c := r.open(tcpService)
		if _, ok := c.answer(); ok {
			t.Error("answered before the endpoint was connected")
		}
		c.send("early ")
		pass(time.Second)
		if err, ok := c.answer(); !ok || err != nil {
			t.Errorf("answered %v, %v", ok, err)
		}
		c.send("GET / HTTP/1.1\r\n\r\n")
		if got := c.take(); got != "early GET / HTTP/1.1\r\n\r\n" {
			t.Errorf("got %q", got)
		}
		pass(time.Minute)
		c.end()
		if !c.fin.Load() || c.aborted.Load() {
			t.Errorf("fin %v, aborted %v", c.fin.Load(), c.aborted.Load())
		}
		got := r.conn()
		if got.Kind() != measure.NoFault || got.Received != 24 || got.Sent != 24 || got.Duration != 61*time.Second || len(got.Attempts) != 1 ||
			got.Verdict != (sniff.Verdict{Protocol: sniff.Opaque, Reason: sniff.Declared}) || got.Service.Name != "shop/tcp:6379" {
			t.Errorf("got %+v", got)
		}
		if r.p.stats.Opaque.Load() != 1 || len(r.p.live) != 0 || r.p.stats.Requests.Load() != 0 {
			t.Errorf("%d connections counted, %d live", r.p.stats.Opaque.Load(), len(r.p.live))
		}
	})
}

// TestTCPHalfClose: the matrix of who ends first, and when.
func TestTCPHalfClose(t *testing.T) {
	read := make(chan string, 1)
	for _, row := range []struct {
		name   string
		server func(a *app)
		dial   time.Duration
		sends  string // by the client, behind a second
		want   string // what the client gets
		heard  string // what the server gets
	}{
		{"client first", func(a *app) {
			got, _ := io.ReadAll(a.r)
			a.send("late")
			a.CloseWrite()
			read <- string(got)
		}, 0, "up", "late", "up"},
		{"server first", func(a *app) {
			a.send("bye")
			a.CloseWrite()
			got, _ := io.ReadAll(a.r)
			read <- string(got)
		}, 0, "still here", "bye", "still here"},
		{"both at once", func(a *app) {
			a.CloseWrite()
			got, _ := io.ReadAll(a.r)
			read <- string(got)
		}, 0, "", "", ""},
		{"before it is connected", func(a *app) {
			got, _ := io.ReadAll(a.r)
			a.send("late")
			a.CloseWrite()
			read <- string(got)
		}, 2 * time.Second, "x", "late", "x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{doc: harbour}, row.server, func(r *rig) {
				r.dial = func(string) error { <-time.After(row.dial); return nil }
				c := r.open(tcpService)
				pass(time.Second)
				if first := strings.HasPrefix(row.name, "server"); c.fin.Load() != first && row.sends != "" {
					t.Errorf("the server's end has come: %v", !first)
				}
				if row.sends != "" {
					c.send(row.sends)
				}
				c.end()
				pass(2 * time.Second)
				if heard := <-read; heard != row.heard {
					t.Errorf("the server got %q, want %q", heard, row.heard)
				}
				if got := c.take(); got != row.want || !c.fin.Load() || c.aborted.Load() {
					t.Errorf("the client got %q, ended %v, aborted %v", got, c.fin.Load(), c.aborted.Load())
				}
				if o := r.conn(); o.Kind() != measure.NoFault {
					t.Errorf("got %v", o.Fault)
				}
			})
		})
	}
}

// TestTCPReset: a reset of one side is one of the other, and says whose it was.
func TestTCPReset(t *testing.T) {
	gone := make(chan error, 1)
	app := func(a *app) {
		line, err := a.r.ReadString('\n')
		if line == "die\n" {
			a.Reset()
		}
		gone <- err
	}
	inFakeTime(t, rigOptions{doc: harbour}, app, func(r *rig) {
		c := r.open(tcpService)
		c.send("half")
		c.reset()
		if err := <-gone; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the endpoint read %v", err)
		}
		if o := r.conn(); o.Kind() != fault.ClientGone {
			t.Errorf("got %v", o.Fault)
		}
		c = r.open(tcpService)
		c.send("die\n")
		<-gone
		synctest.Wait()
		if !c.aborted.Load() || c.code != hbone.CodeConnect {
			t.Errorf("aborted %v with %d", c.aborted.Load(), c.code)
		}
		if o := r.conn(); o.Kind() != fault.UpstreamResetMidResponse {
			t.Errorf("got %v", o.Fault)
		}
		if n := r.p.stats.Faults[fault.UpstreamResetMidResponse].Load(); n != 1 {
			t.Errorf("%d counted", n)
		}
	})
}

// TestTCPAttempts: nothing was sent, so another endpoint is tried; if there is
// none the CONNECT is answered 503, once.
func TestTCPAttempts(t *testing.T) {
	for _, row := range []struct {
		dest     string
		fails    int32 // of the dials
		attempts int
		kind     fault.Kind
	}{
		{tcpService, 0, 1, measure.NoFault},
		{tcpService, 1, 2, measure.NoFault},
		{tcpService, 2, 3, measure.NoFault},
		{tcpService, 9, 3, fault.ConnectFailed},
		{tcpNone, 0, 0, fault.NoEndpoint},
	} {
		inFakeTime(t, rigOptions{doc: harbour}, parrot, func(r *rig) {
			var dials atomic.Int32
			r.dial = func(string) error {
				if dials.Add(1) <= row.fails {
					return syscall.ECONNREFUSED
				}
				return nil
			}
			c := r.open(row.dest)
			c.send("hello")
			pass(5 * time.Second)
			err, ok := c.answer()
			if ok, want := ok && err == nil, row.kind == measure.NoFault; ok != want {
				t.Errorf("%d failures: opened %v, want %v (%v)", row.fails, ok, want, err)
			}
			if row.kind == measure.NoFault {
				if got := c.take(); got != "hello" {
					t.Errorf("%d failures: got %q", row.fails, got)
				}
				c.end()
			} else {
				var f *hbone.Refusal
				if !errors.As(err, &f) || f.Status != 503 || !strings.Contains(f.Reason, row.kind.String()) {
					t.Errorf("answered %v", err)
				}
			}
			o := r.conn()
			if o.Kind() != row.kind || len(o.Attempts) != row.attempts {
				t.Errorf("%d failures: %v after %d attempts", row.fails, o.Fault, len(o.Attempts))
			}
			if len(o.Attempts) > 1 && o.Attempts[0].Endpoint == o.Attempts[1].Endpoint {
				t.Error("the same endpoint was tried again beside another")
			}
			for _, b := range r.p.snap.Load().Backends() {
				for _, e := range b.Endpoints() {
					if e.Active() != 0 {
						t.Errorf("%d connections to %s are in use", e.Active(), e.Addr())
					}
				}
			}
		})
	}
}

// TestTCPClientGoneWhileConnecting: the dial is given up, and nobody is retried.
func TestTCPClientGoneWhileConnecting(t *testing.T) {
	inFakeTime(t, rigOptions{doc: harbour}, parrot, func(r *rig) {
		var dials atomic.Int32
		r.dial = func(string) error { dials.Add(1); return os.ErrDeadlineExceeded }
		c := r.open(tcpService)
		c.send("x")
		pass(time.Second)
		c.reset()
		if o := r.conn(); o.Kind() != fault.ClientGone || dials.Load() != 1 {
			t.Errorf("%v after %d dials", o.Fault, dials.Load())
		}
	})
}

// TestTCPIdle: an hour without a byte in either direction, and not before.
func TestTCPIdle(t *testing.T) {
	for _, limit := range []time.Duration{0, -1, time.Minute} {
		o := rigOptions{doc: harbour, more: func(o *Options) { o.Timeouts.TCP = limit }}
		inFakeTime(t, o, parrot, func(r *rig) {
			c := r.open(tcpService)
			idle := limit
			if limit <= 0 {
				idle = time.Hour
			}
			for range 2 {
				pass(idle - time.Second)
				c.send("x")
				if c.take() != "x" {
					t.Fatalf("limit %v: it has ended", limit)
				}
			}
			pass(idle + time.Second)
			if ended := c.aborted.Load(); ended != (limit >= 0) {
				t.Fatalf("limit %v: ended %v", limit, ended)
			}
			if limit < 0 {
				c.end()
				return
			}
			if o := r.conn(); o.Kind() != fault.StreamIdle {
				t.Errorf("got %v", o.Fault)
			}
		})
	}
}

// TestTCPWeights: a TCPRoute shares connections out.
func TestTCPWeights(t *testing.T) {
	where := func(a *app) { a.send(a.addr[strings.LastIndex(a.addr, ":"):]); a.Close() }
	inFakeTime(t, rigOptions{doc: harbour}, where, func(r *rig) {
		seen := map[string]int{}
		for range 400 {
			c := r.open(tcpSplit)
			synctest.Wait()
			seen[c.take()]++
			c.end()
		}
		if n := seen[":1002"]; n < 50 || n > 160 || n+seen[":1001"] != 400 { // 100 are expected
			t.Errorf("3 to 1 became %v", seen)
		}
	})
}

// sniHello is a ClientHello as crypto/tls sends it.
func sniHello(t *testing.T, name string) string {
	t.Helper()
	var hello string
	c := tls.Client(&helloCatcher{hello: &hello}, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	c.Handshake()
	if hello == "" {
		t.Fatal("no ClientHello")
	}
	return hello
}

// A helloCatcher keeps the first flight and ends.
type helloCatcher struct {
	net.Conn
	hello *string
}

func (c *helloCatcher) Write(p []byte) (int, error)      { *c.hello += string(p); return len(p), nil }
func (c *helloCatcher) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *helloCatcher) SetWriteDeadline(time.Time) error { return nil }
func (c *helloCatcher) Close() error                     { return nil }

// TestTLSByName: the name in the ClientHello chooses the route, whatever the cut,
// and the endpoint gets every byte.
func TestTLSByName(t *testing.T) {
	got := make(chan string, 1000)
	app := func(a *app) {
		b, _ := io.ReadAll(a.r)
		a.send("answer")
		a.Close()
		got <- a.addr + " " + string(b)
	}
	for _, row := range []struct{ dest, name, want string }{
		{tlsByName, "one.example", "10.1.0.1:1001"},
		{tlsByName, "a.two.example", "10.1.0.1:1002"},
		{tlsByName, "three.example", ""},
		{tlsByName, "", ""},
		{tlsService, "three.example", "10.1.0.1:443"},
		{guessNamed, "one.example", "10.1.0.1:1001"},
		{guessNamed, "three.example", ""},
		{guessService, "three.example", "10.1.0.1:7000"},
	} {
		for _, cut := range []int{1, 7, 1 << 20} {
			inFakeTime(t, rigOptions{doc: harbour}, app, func(r *rig) {
				hello := sniHello(t, row.name)
				c := r.open(row.dest)
				for rest := hello; rest != ""; rest = rest[min(cut, len(rest)):] {
					c.send(rest[:min(cut, len(rest))])
				}
				if row.want == "" {
					if o := r.conn(); o.Kind() != fault.NoRoute || !c.aborted.Load() || o.SNI != row.name {
						t.Errorf("%s: %v, aborted %v, name %q", row.name, o.Fault, c.aborted.Load(), o.SNI)
					}
					return
				}
				c.send("more")
				c.end()
				var heard string
				for heard = <-got; !strings.HasPrefix(heard, row.want); heard = <-got { // the default endpoint was connected too
				}
				if heard != row.want+" "+hello+"more" {
					t.Errorf("%s in runs of %d: the endpoint heard %d bytes at %.15s", row.name, cut, len(heard), heard)
				}
				if c.take() != "answer" {
					t.Error("no answer")
				}
				if o := r.conn(); o.Kind() != measure.NoFault || o.Verdict.Protocol != sniff.TLS || row.dest == tlsByName && o.SNI != row.name {
					t.Errorf("got %+v", o)
				}
			})
		}
	}
}

// TestTLSNameLate: a client that does not say its name is not waited for.
func TestTLSNameLate(t *testing.T) {
	inFakeTime(t, rigOptions{doc: harbour}, parrot, func(r *rig) {
		c := r.open(tlsByName)
		c.send(sniHello(t, "one.example")[:20])
		pass(9 * time.Second)
		if c.aborted.Load() {
			t.Error("ended too early")
		}
		pass(2 * time.Second)
		if o := r.conn(); o.Kind() != fault.HeaderTimeout || !c.aborted.Load() {
			t.Errorf("got %v", o.Fault)
		}
	})
}

// A connJudge is a ConnFilter that remembers what it was asked.
type connJudge struct {
	asked  []string
	refuse func(*filters.Conn) bool
}

func (j *connJudge) Conn(c *filters.Conn) error {
	j.asked = append(j.asked, fmt.Sprintf("%v %q", c.Opaque, c.SNI))
	if j.refuse != nil && j.refuse(c) {
		return fault.Wrap(fault.PolicyDenied, fault.Local, nil)
	}
	return nil
}

func judged(j *connJudge, doc string) rigOptions {
	kind := filters.Kind{Name: "judge", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return j, nil }}
	return rigOptions{doc: doc, registry: []filters.Kind{kind}, guard: func(b *filters.Builder, _ string) error { return b.Add("judge", "test", filters.NewSpec(nil)) }}
}

// TestOpaqueIsJudged: ConnFilters are asked before the first byte, and again when
// it is known that no request will be seen.
func TestOpaqueIsJudged(t *testing.T) {
	for _, row := range []struct{ dest, sends, want string }{
		{tcpService, "x", `[true ""]`},
		{tlsService, "x", `[true ""]`},
		{guessService, "\x00", `[false "" true ""]`},
		{guessService, get("/"), `[false ""]`},
		{tlsByName, "hello", `[false "" true "one.example"]`},
	} {
		j := &connJudge{}
		inFakeTime(t, judged(j, harbour), parrot, func(r *rig) {
			if row.sends == "hello" {
				row.sends = sniHello(t, "one.example")
			}
			c := r.open(row.dest)
			c.send(row.sends)
			if got := fmt.Sprint(j.asked); got != row.want {
				t.Errorf("%s: asked %s, want %s", row.dest, got, row.want)
			}
		})
		j = &connJudge{refuse: func(c *filters.Conn) bool { return c.Opaque }}
		if !strings.Contains(row.want, "false") || !strings.Contains(row.want, "true") {
			continue
		}
		inFakeTime(t, judged(j, harbour), parrot, func(r *rig) {
			c := r.open(row.dest)
			c.send(row.sends)
			if o := r.conn(); o.Kind() != fault.PolicyDenied || !c.aborted.Load() || c.take() != "" {
				t.Errorf("%s: %v, aborted %v", row.dest, o.Fault, c.aborted.Load())
			}
		})
	}
}

// TestOpaqueAndApply: a live connection lives on through new documents, on the
// new snapshot, until one of them would refuse it.
func TestOpaqueAndApply(t *testing.T) {
	j := &connJudge{}
	var deny atomic.Bool
	j.refuse = func(*filters.Conn) bool { return deny.Load() }
	inFakeTime(t, judged(j, harbour), parrot, func(r *rig) {
		c := r.open(tcpService)
		first := r.p.snap.Load()
		for i := range 3 {
			r.apply(strings.Replace(harbour, "10.1.0.2", fmt.Sprintf("10.1.0.%d", i+3), 1))
			c.send("x")
			if c.take() != "x" {
				t.Fatal("it has ended")
			}
		}
		if first.Pin() {
			t.Error("the first snapshot is held")
		}
		r.apply(strings.Replace(harbour, "10.96.1.1", "10.96.9.9", 1)) // its service has gone
		c.send("y")
		if c.take() != "y" {
			t.Fatal("it has ended with its service")
		}
		deny.Store(true)
		r.apply(harbour)
		synctest.Wait()
		if o := r.conn(); o.Kind() != fault.Revoked || !c.aborted.Load() {
			t.Errorf("%v, aborted %v", o.Fault, c.aborted.Load())
		}
	})
}

// TestOpaqueBytesAreCountedLive: long connections show in the mesh's metrics
// before they end.
func TestOpaqueBytesAreCountedLive(t *testing.T) {
	inFakeTime(t, rigOptions{doc: harbour}, parrot, func(r *rig) {
		c := r.open(tcpService)
		c.send(strings.Repeat("x", 1000))
		pass(reportEvery + time.Second)
		if got := r.series("istio_tcp_received_bytes_total"); got != 1000 {
			t.Errorf("%v bytes are counted", got)
		}
		if opened, closed := r.series("istio_tcp_connections_opened_total"), r.series("istio_tcp_connections_closed_total"); opened != 1 || closed != 0 {
			t.Errorf("%v opened, %v closed", opened, closed)
		}
		c.end()
		if closed := r.series("istio_tcp_connections_closed_total"); closed != 1 {
			t.Errorf("%v closed", closed)
		}
	})
}

// series is the sum of a metric.
func (r *rig) series(name string) (sum float64) {
	synctest.Wait()
	r.p.Metrics.Each(func(s *metrics.Series) {
		if s.Name == name {
			sum += s.Value()
		}
	})
	return sum
}
