package proxy

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// offerOf asks for a switch to a protocol.
func offerOf(protocol string) string {
	return "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: " + protocol + "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// mirror takes the offer and sends everything back.
func mirror(a *app) {
	defer a.Close()
	if q, _ := a.request(); q != nil {
		a.send(switching)
		io.Copy(a.Conn, a.r)
		a.CloseWrite()
	}
}

// wantSwitch takes a 101 and returns what came behind it.
func (c *client) wantSwitch() string {
	c.r.t.Helper()
	got := c.take()
	head, rest, ok := strings.Cut(got, "\r\n\r\n")
	if !ok || !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(strings.ToLower(head), "\nconnection: upgrade\r\nupgrade: websocket") || !strings.Contains(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
		c.r.t.Fatalf("no switch: %q", got)
	}
	return rest
}

// TestUpgrade: bytes go both ways, those that came early included, and the
// exchange ends with the connection.
func TestUpgrade(t *testing.T) {
	inFakeTime(t, rigOptions{}, mirror, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerOf("WebSocket") + "early ")
		if got := c.wantSwitch(); got != "early " {
			t.Errorf("behind the switch came %q", got)
		}
		for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 100_000), "\x00\xff"} {
			c.send(text)
			if got := c.take(); got != text {
				t.Errorf("%d bytes came back of %d", len(got), len(text))
			}
		}
		if n := c.sent - c.consumed; n > turn.LowMark { // the last bytes may wait for the next
			t.Errorf("%d bytes are not credited", n)
		}
		if n := r.p.stats.Upgraded.Load(); n != 1 {
			t.Errorf("%d upgrades counted", n)
		}
		e := r.p.snap.Load().Backends()[0].Endpoints()
		if n := e[0].Active() + e[1].Active(); n != 1 {
			t.Errorf("%d connections are in use", n)
		}
		r.mu.Lock()
		early := len(r.seen)
		r.mu.Unlock()
		pass(time.Hour)
		c.end()
		if !c.fin.Load() || c.aborted.Load() {
			t.Errorf("fin %v, aborted %v", c.fin.Load(), c.aborted.Load())
		}
		o := r.outcome()
		sent := int64(6 + 18 + 100_000 + 2)
		if early != 0 || o.status != 101 || o.kind != fault.Kinds || o.received != sent || o.sent != sent {
			t.Errorf("%d outcomes before the end, then %v", early, o)
		}
		if n := e[0].Active() + e[1].Active(); n != 0 {
			t.Errorf("%d connections are in use after the end", n)
		}
		if n := len(r.p.live); n != 0 {
			t.Errorf("%d connections are remembered", n)
		}
		r.p.Metrics.Each(func(s *metrics.Series) {
			if s.Name == "istio_request_duration_milliseconds" && s.Histogram.Sum() > int64(time.Minute) {
				t.Errorf("an hour of bytes counts as %v until the answer", time.Duration(s.Histogram.Sum()))
			}
		})
	})
}

// TestUpgradeRefused: another answer than 101 is an ordinary one, and the
// connections go on.
func TestUpgradeRefused(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceOne)
		for i := range 3 {
			c.send(offerOf("websocket"))
			if got := c.wantStatus(200); got != "GET /chat " {
				t.Errorf("got %q", got)
			}
			if o := r.outcome(); o.status != 200 || len(r.apps) != 1 {
				t.Errorf("%d: %v on %d connections", i, o, len(r.apps))
			}
		}
		c.send(offerOf("websocket") + get("/next")) // kept until it is known whose it is
		if got := c.take(); strings.Count(got, "200 X") != 2 || !strings.Contains(got, "GET /next ") {
			t.Errorf("got %q", got)
		}
	})
}

// TestOffers: what is offered and not on the list is no offer.
func TestOffers(t *testing.T) {
	for _, row := range []struct {
		list  []string
		offer string
		want  string
	}{
		{nil, "websocket", "websocket"},
		{nil, "WebSocket", "WebSocket"},
		{nil, "h2c", ""},
		{nil, "SPDY/3.1", ""},
		{nil, "websocket, h2c", ""},
		{[]string{"SPDY/3.1"}, "spdy/3.1", "spdy/3.1"},
		{[]string{"SPDY/3.1"}, "websocket", ""},
		{[]string{"h2c"}, "h2c", ""},
		{[]string{}, "websocket", ""},
	} {
		o := rigOptions{more: func(o *Options) { o.Upgrades = row.list }}
		inFakeTime(t, o, func(a *app) {
			q, _ := a.request()
			a.reply(200, q.Header.Get("Upgrade"))
		}, func(r *rig) {
			c := r.open(serviceA)
			c.send(offerOf(row.offer))
			if got := c.wantStatus(200); got != row.want {
				t.Errorf("%s with %v: the endpoint saw %q, want %q", row.offer, row.list, got, row.want)
			}
		})
	}
}

// TestSwitchUnasked: a 101 that nobody asked for is no answer.
func TestSwitchUnasked(t *testing.T) {
	inFakeTime(t, rigOptions{}, func(a *app) { a.request(); a.send(switching) }, func(r *rig) {
		c := r.open(serviceA)
		c.send(get("/"))
		c.wantStatus(502)
		if o := r.outcome(); o.kind != fault.UpstreamProtocol {
			t.Errorf("got %v", o)
		}
	})
}

// TestUpgradeIsNotRetried: an endpoint that fails before it answers may have
// switched. A connection that was never made is another matter.
func TestUpgradeIsNotRetried(t *testing.T) {
	var tried atomic.Int32
	inFakeTime(t, rigOptions{}, func(a *app) { a.request(); tried.Add(1); a.Reset() }, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerOf("websocket"))
		c.wantStatus(503)
		if o := r.outcome(); len(o.attempts) != 1 || tried.Load() != 1 {
			t.Errorf("%d attempts, %v", tried.Load(), o)
		}
	})
	inFakeTime(t, rigOptions{}, mirror, func(r *rig) {
		r.dial = func(addr string) error {
			if tried.Add(1) == 2 {
				return syscall.ECONNREFUSED
			}
			return nil
		}
		c := r.open(serviceA)
		c.send(offerOf("websocket"))
		pass(time.Second)
		c.wantSwitch()
		c.end()
		if o := r.outcome(); o.status != 101 || len(o.attempts) != 2 {
			t.Errorf("got %v", o)
		}
	})
}

// TestUpgradeHalfClose: an end passes, and the other direction goes on.
func TestUpgradeHalfClose(t *testing.T) {
	goOn := make(chan string, 1)
	app := func(first bool) func(*app) {
		return func(a *app) {
			defer a.Close()
			a.request()
			a.send(switching + "hello")
			if first {
				a.CloseWrite()
			}
			got, err := io.ReadAll(a.r)
			if !first {
				a.send("goodbye")
			}
			goOn <- fmt.Sprintf("%s %v", got, err)
		}
	}
	for _, serverFirst := range []bool{false, true} {
		inFakeTime(t, rigOptions{}, app(serverFirst), func(r *rig) {
			c := r.open(serviceA)
			c.send(offerOf("websocket"))
			if got := c.wantSwitch(); got != "hello" || c.fin.Load() != serverFirst {
				t.Errorf("got %q, ended %v", got, c.fin.Load())
			}
			c.send("up")
			c.end()
			if got := <-goOn; got != "up <nil>" {
				t.Errorf("the endpoint read %s", got)
			}
			if got := c.take(); serverFirst != (got == "") || !c.fin.Load() || c.aborted.Load() {
				t.Errorf("got %q, ended %v, aborted %v", got, c.fin.Load(), c.aborted.Load())
			}
			if o := r.outcome(); o.kind != fault.Kinds {
				t.Errorf("got %v", o)
			}
		})
	}
	// The end came before the switch.
	inFakeTime(t, rigOptions{}, app(false), func(r *rig) {
		r.dial = func(string) error { <-time.After(time.Second); return nil }
		c := r.open(serviceA)
		c.send(offerOf("websocket") + "up")
		c.end()
		pass(2 * time.Second)
		if got := <-goOn; got != "up <nil>" {
			t.Errorf("the endpoint read %s", got)
		}
		if got := c.wantSwitch(); got != "hellogoodbye" || !c.fin.Load() {
			t.Errorf("got %q, ended %v", got, c.fin.Load())
		}
	})
}

// TestUpgradeReset: a reset of either side is one of the other, and is not taken
// for an end.
func TestUpgradeReset(t *testing.T) {
	gone := make(chan error, 1)
	app := func(a *app) {
		a.request()
		a.send(switching)
		line, err := a.r.ReadString('\n')
		if line == "die\n" {
			a.Reset()
		}
		gone <- err
	}
	inFakeTime(t, rigOptions{}, app, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerOf("websocket"))
		c.wantSwitch()
		c.reset()
		if err := <-gone; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the endpoint read %v", err)
		}
		if o := r.outcome(); o.kind != fault.ClientGone || o.status != 101 {
			t.Errorf("got %v", o)
		}
		c = r.open(serviceA)
		c.send(offerOf("websocket"))
		c.wantSwitch()
		c.send("die\n")
		<-gone
		synctest.Wait()
		if !c.aborted.Load() || c.code != hbone.CodeConnect {
			t.Errorf("aborted %v with %d", c.aborted.Load(), c.code)
		}
		if o := r.outcome(); o.kind != fault.UpstreamResetMidResponse {
			t.Errorf("got %v", o)
		}
	})
}

// TestUpgradeOutlivesTimeouts: the route's timeout ends with the switch; idle
// time counts only where it is asked for, and starts anew with every byte.
func TestUpgradeOutlivesTimeouts(t *testing.T) {
	doc := shop + `
httpRoutes:
- name: a
  parentRefs: [{group: "", kind: Service, name: a, port: 80}]
  rules: [{matches: [{path: {type: PathPrefix, value: /}}], timeouts: {request: 2s}, backendRefs: [{name: a, port: 80}]}]
`
	for _, idle := range []time.Duration{0, time.Minute} {
		o := rigOptions{doc: doc, more: func(o *Options) { o.Timeouts.Upgraded = idle }}
		inFakeTime(t, o, mirror, func(r *rig) {
			c := r.open(serviceA)
			c.send(offerOf("websocket"))
			c.wantSwitch()
			for range 3 {
				pass(59 * time.Second)
				c.send("x")
				if c.take() != "x" {
					t.Fatal("it has ended")
				}
			}
			pass(59 * time.Second)
			if c.aborted.Load() {
				t.Error("ended too early")
			}
			pass(48 * time.Hour)
			if c.aborted.Load() != (idle > 0) {
				t.Errorf("idle timeout %v: ended %v", idle, c.aborted.Load())
			}
			if idle > 0 {
				if o := r.outcome(); o.kind != fault.StreamIdle || o.status != 101 {
					t.Errorf("got %v", o)
				}
			}
		})
	}
}

// TestUpgradeSlowReader: what a client does not read stays with the endpoint.
func TestUpgradeSlowReader(t *testing.T) {
	var wrote atomic.Int64
	inFakeTime(t, rigOptions{}, func(a *app) {
		defer a.Close()
		a.request()
		a.send(switching)
		block := make([]byte, 4<<10)
		for range 1024 {
			n, err := a.Write(block)
			wrote.Add(int64(n))
			if err != nil {
				return
			}
		}
		a.CloseWrite()
		io.Copy(io.Discard, a.r)
	}, func(r *rig) {
		c := r.open(serviceA)
		c.slow = true
		c.send(offerOf("websocket"))
		if n := wrote.Load(); n > 256<<10 {
			t.Errorf("the endpoint got rid of %d bytes", n)
		}
		total := 0
		for range 1000 {
			c.read(1 << 20)
			total += len(c.take())
		}
		if total < 4<<20 {
			t.Errorf("%d bytes came", total)
		}
	})
}

// A phaseCount is a filter that counts its phases.
type phaseCount struct{ request, body, response, responseBody, done, upgraded atomic.Int32 }

func (p *phaseCount) Request(*filters.Stream) *filters.Reply { p.request.Add(1); return nil }
func (p *phaseCount) RequestBody(*filters.Stream, *message.Chunk) *filters.Reply {
	p.body.Add(1)
	return nil
}
func (p *phaseCount) Response(*filters.Stream) *filters.Reply { p.response.Add(1); return nil }
func (p *phaseCount) ResponseBody(*filters.Stream, *message.Chunk) *filters.Reply {
	p.responseBody.Add(1)
	return nil
}
func (p *phaseCount) Done(s *filters.Stream) {
	p.done.Add(1)
	if s.Upgraded {
		p.upgraded.Add(1)
	}
}

// TestUpgradeFilters: the head phases have their say, the bytes behind the
// switch pass no body phase, and Done comes once, at the end.
func TestUpgradeFilters(t *testing.T) {
	n := &phaseCount{}
	kind := filters.Kind{Name: "count", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return n, nil }}
	o := rigOptions{registry: []filters.Kind{kind}, guard: func(b *filters.Builder, _ string) error { return b.Add("count", "test", filters.NewSpec(nil)) }}
	inFakeTime(t, o, mirror, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerOf("websocket"))
		c.wantSwitch()
		c.send("bytes")
		if got := c.take(); got != "bytes" || n.done.Load() != 0 {
			t.Errorf("got %q, done %d", got, n.done.Load())
		}
		c.end()
		got := fmt.Sprint(n.request.Load(), n.response.Load(), n.responseBody.Load(), n.done.Load(), n.upgraded.Load())
		if got != "1 1 0 1 1" || n.body.Load() > 1 { // the end of no body may be told
			t.Errorf("phases %s, request body %d", got, n.body.Load())
		}
	})
}

// TestUpgradeAndApply: an upgraded connection lives on through a new document,
// with the snapshot that it began with.
func TestUpgradeAndApply(t *testing.T) {
	inFakeTime(t, rigOptions{}, mirror, func(r *rig) {
		c := r.open(serviceA)
		c.send(offerOf("websocket"))
		c.wantSwitch()
		r.apply(strings.Replace(shop, "10.96.0.1", "10.96.0.9", 1))
		pass(time.Minute)
		c.send("still here")
		if got := c.take(); got != "still here" {
			t.Errorf("got %q", got)
		}
		c.end()
		r.outcome()
	})
}

// TestUpgradeAllocatesNothing: what each run of bytes costs behind a switch is nothing.
func TestUpgradeAllocatesNothing(t *testing.T) {
	var lane turn.Lane
	var tn turn.Turn
	var r hbone.Relay
	r.Init(&lane, nil, (*exchange)(nil))
	r.JoinOpen(&tn, hbone.Detached{Tunnel: &nullTunnel{}}, hbone.Detached{Tunnel: &nullTunnel{}})
	p := make([]byte, 1000)
	if n := testing.AllocsPerRun(1000, func() { r.Near().Data(&tn, p, false); r.Far().Data(&tn, p, false) }); n != 0 {
		t.Errorf("%v allocations for two runs of bytes", n)
	}
}

// A nullTunnel takes everything.
type nullTunnel struct{ hbone.Tunnel }

func (*nullTunnel) Write(*turn.Turn, []byte) {}
func (*nullTunnel) Consume(*turn.Turn, int)  {}
func (*nullTunnel) Buffered() int            { return 0 }
