package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/filters/filtertest"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// TestHeaderTimeout: a head that does not end in 10 s is answered 408, however
// its bytes trickle, and the connection ends although the client never does.
func TestHeaderTimeout(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		c.send("GET / HT")
		for range 9 {
			pass(time.Second)
			c.send("x"[:0])
		}
		if c.take() != "" {
			t.Fatal("answered before its time")
		}
		pass(1100 * time.Millisecond)
		p, _ := c.response("GET")
		if p.StatusCode != 408 || !p.Close {
			t.Errorf("status %d, close %v, want 408 and close", p.StatusCode, p.Close)
		}
		if o := r.outcome(); o.kind != fault.HeaderTimeout || o.status != 408 {
			t.Errorf("got %v", o)
		}
		if c.aborted.Load() {
			t.Error("reset at once")
		}
		pass(lingerTime + time.Second)
		if !c.aborted.Load() || c.code != hbone.CodeNoError {
			t.Errorf("aborted %v with %d after the linger", c.aborted.Load(), c.code)
		}
		c.wantCredit()
	})
}

// TestHeaderTimeoutIsPerHead: the clock starts with each head and stops with it.
func TestHeaderTimeoutIsPerHead(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		for range 5 {
			c.send("GET /a HTTP/1.1\r\n")
			pass(8 * time.Second)
			c.send("Host: a\r\n\r\n")
			c.wantStatus(200)
			pass(8 * time.Second)
		}
	})
}

// TestIdleTimeout: an unused connection ends after an hour, and not before.
func TestIdleTimeout(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		pass(50 * time.Minute)
		c.send(get("/"))
		c.wantStatus(200)
		pass(50 * time.Minute)
		if c.fin.Load() {
			t.Fatal("ended while it was in use")
		}
		pass(11 * time.Minute)
		if !c.fin.Load() {
			t.Fatal("not ended after an hour unused")
		}
		pass(lingerTime + time.Second)
		if !c.aborted.Load() {
			t.Error("not cut after the linger")
		}
	})
}

// TestLingerWaitsForAReader: a closed connection stays as long as the client
// reads, and no longer.
func TestLingerWaitsForAReader(t *testing.T) {
	big := strings.Repeat("x", 60<<10)
	inFakeTime(t, rigOptions{}, func(a *app) { a.request(); a.reply(200, big) }, func(r *rig) {
		c := r.open(serviceA)
		c.slow = true
		c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		for range 5 {
			pass(4 * time.Second)
			c.read(10 << 10)
		}
		if c.aborted.Load() {
			t.Fatal("cut while the client was reading")
		}
		pass(3 * lingerTime)
		if !c.aborted.Load() {
			t.Error("not cut although the client has stopped reading")
		}
	})
}

// TestHalfClose: a client that has ended its side still gets its answer.
func TestHalfClose(t *testing.T) {
	gate := make(chan struct{})
	inFakeTime(t, rigOptions{}, func(a *app) { a.request(); <-gate; a.reply(200, "late"); a.request() }, func(r *rig) {
		gate = make(chan struct{})
		c := r.open(serviceA)
		c.send(get("/"))
		c.end()
		if c.fin.Load() {
			t.Fatal("ended with the response pending")
		}
		close(gate)
		if got := c.wantStatus(200); got != "late" {
			t.Errorf("got %q", got)
		}
		if !c.fin.Load() || c.aborted.Load() || !c.told {
			t.Errorf("fin %v, aborted %v, told %v", c.fin.Load(), c.aborted.Load(), c.told)
		}
	})
}

// TestHalfCloseInARequest: a request cut short is answered 400 and counted.
func TestHalfCloseInARequest(t *testing.T) {
	for _, text := range []string{"GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"} {
		inFakeTime(t, rigOptions{}, echo, func(r *rig) {
			c := r.open(serviceA)
			c.send(text)
			c.end()
			c.wantStatus(400)
			if o := r.outcome(); o.kind != fault.BadRequest {
				t.Errorf("%q: %v", text, o)
			}
		})
	}
}

// TestPipelining: answers come in order, and a turn's worth of requests makes no
// deep stack.
func TestPipelining(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceOne)
		var text strings.Builder
		const n = 300
		for i := range n {
			text.WriteString(post(fmt.Sprintf("/%d", i), "b"))
		}
		c.send(text.String())
		got := c.take()
		at := 0
		for i := range n {
			k := strings.Index(got[at:], fmt.Sprintf("POST /%d b", i))
			if k < 0 {
				t.Fatalf("answer %d is missing or out of order", i)
			}
			at += k
		}
		c.wantCredit()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.apps) != 1 {
			t.Errorf("%d connections upstream, want 1", len(r.apps))
		}
	})
}

// TestPipeliningSlowReader: while more than 64 KiB of answers are unread the
// next request waits, unlost and unhurried by the header timeout.
func TestPipeliningSlowReader(t *testing.T) {
	asked := 0
	inFakeTime(t, rigOptions{}, func(a *app) {
		for {
			if q, _ := a.request(); q == nil {
				return
			}
			asked++
			a.reply(200, strings.Repeat("x", 40<<10))
		}
	}, func(r *rig) {
		asked = 0
		c := r.open(serviceA)
		c.slow = true
		c.send(strings.Repeat(get("/"), 10))
		if asked != 2 {
			t.Errorf("%d requests went upstream with 80 KiB unread, want 2", asked)
		}
		pass(time.Second)
		c.send("GET /part") // the head of another, cut in two
		pass(20 * time.Second)
		if c.fin.Load() || c.aborted.Load() {
			t.Fatal("a request that waits was taken for a late head")
		}
		for range 20 {
			c.read(1 << 20)
		}
		if asked != 10 {
			t.Errorf("%d requests, want 10", asked)
		}
		c.send("ial HTTP/1.1\r\nHost: a\r\n\r\n")
		c.read(1 << 20)
		if asked != 11 {
			t.Errorf("%d requests, want 11", asked)
		}
		c.wantCredit()
	})
}

// TestContinue: 100 comes from here, and only when the request is on its way.
func TestContinue(t *testing.T) {
	head := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	inFakeTime(t, rigOptions{}, func(a *app) {
		for {
			q, err := http.ReadRequest(a.r)
			if err != nil {
				return
			}
			if q.Header.Get("Expect") != "" {
				a.reply(500, "Expect went on")
			}
			a.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
			body, _ := io.ReadAll(q.Body)
			a.reply(200, string(body))
		}
	}, func(r *rig) {
		c := r.open(serviceA)
		c.send(head)
		if got := c.take(); got != "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" {
			t.Fatalf("before the body: %q", got)
		}
		c.send("body")
		if got := c.wantStatus(200); got != "body" {
			t.Errorf("got %q", got)
		}
		c.send(get("/next")) // the connection is whole
		c.take()
		r.mu.Lock()
		r.seen = nil
		r.mu.Unlock()

		refused := r.open(serviceNone)
		refused.send(head)
		p, _ := refused.response("POST")
		if p.StatusCode != 503 || !p.Close {
			t.Errorf("status %d, close %v: a client that waits for 100 may send its body or not", p.StatusCode, p.Close)
		}
	})
}

// TestBodiless: HEAD, 204 and 304 have no body whatever their fields say, and the
// connections go on.
func TestBodiless(t *testing.T) {
	inFakeTime(t, rigOptions{}, func(a *app) {
		for {
			q, _ := a.request()
			if q == nil {
				return
			}
			switch q.URL.Path {
			case "/head":
				a.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			case "/204":
				a.send("HTTP/1.1 204 No Content\r\n\r\n")
			case "/304":
				a.send("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")
			default:
				a.reply(200, "ok")
			}
		}
	}, func(r *rig) {
		c := r.open(serviceOne)
		c.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n")
		if p, body := c.response("HEAD"); p.ContentLength != 1000 || body != "" {
			t.Errorf("HEAD: length %d, body %q", p.ContentLength, body)
		}
		for _, status := range []int{204, 304} {
			c.send(get(fmt.Sprintf("/%d", status)))
			if body := c.wantStatus(status); body != "" {
				t.Errorf("%d has a body: %q", status, body)
			}
		}
		c.send(get("/"))
		if body := c.wantStatus(200); body != "ok" {
			t.Errorf("then %q", body)
		}
		if len(r.apps) != 1 {
			t.Errorf("%d connections upstream, want 1", len(r.apps))
		}
		c.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n")
		if p, body := c.response("HEAD"); p.StatusCode != 200 || body != "" {
			t.Errorf("HEAD: %d %q", p.StatusCode, body)
		}
	})
}

// TestHTTP10: an old client gets no chunks, and its connection ends unless it
// asked otherwise.
func TestHTTP10(t *testing.T) {
	inFakeTime(t, rigOptions{}, func(a *app) {
		for {
			q, _ := a.request()
			if q == nil {
				return
			}
			if q.Proto != "HTTP/1.1" {
				a.reply(500, q.Proto)
			}
			if q.URL.Path == "/chunks" {
				a.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
				continue
			}
			a.reply(200, "ok")
		}
	}, func(r *rig) {
		for _, row := range []struct {
			head, body string
			keep       bool
		}{
			{"GET / HTTP/1.0\r\n\r\n", "ok", false},
			{"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "ok", true},
			{"GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "abc", false},
		} {
			c := r.open(serviceA)
			c.send(row.head)
			raw := c.take()
			head, body, _ := strings.Cut(raw, "\r\n\r\n")
			if body != row.body || strings.Contains(strings.ToLower(head), "transfer-encoding") || c.fin.Load() == row.keep {
				t.Errorf("%q: %q, ended %v", row.head, raw, c.fin.Load())
			}
		}
	})
}

// TestReplyBeforeTheBody: an answer made here while the request's body is still
// coming. A short rest is thrown away and the connection kept; for a long one, or
// one of unknown length, the connection ends.
func TestReplyBeforeTheBody(t *testing.T) {
	for _, row := range []struct {
		name, framing string
		keep          bool
	}{
		{"short", "Content-Length: 1000", true},
		{"64 KiB", "Content-Length: 65536", true},
		{"longer", "Content-Length: 65537", false},
		{"unknown", "Transfer-Encoding: chunked", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{}, echo, func(r *rig) {
				c := r.open(serviceNone)
				c.send("POST / HTTP/1.1\r\nHost: a\r\n" + row.framing + "\r\n\r\n")
				p, _ := c.response("POST")
				if p.StatusCode != 503 || p.Close == row.keep || c.fin.Load() == row.keep {
					t.Fatalf("status %d, close %v, ended %v", p.StatusCode, p.Close, c.fin.Load())
				}
				if !row.keep {
					c.send("10\r\n") // thrown away
					c.wantCredit()
					return
				}
				var n int
				fmt.Sscanf(row.framing, "Content-Length: %d", &n)
				c.send(strings.Repeat("x", n))
				c.send(get("/"))
				c.wantStatus(503)
				c.wantCredit()
			})
		})
	}
}

// TestDiscardEnds: a client that does not send the rest of what nobody wants
// loses its connection.
func TestDiscardEnds(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceNone)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
		c.wantStatus(503)
		pass(discardTime - time.Second)
		if c.fin.Load() {
			t.Fatal("ended before its time")
		}
		pass(2 * time.Second)
		if !c.fin.Load() {
			t.Error("waits for ever")
		}
		if o := r.outcome(); o.kind != fault.NoEndpoint {
			t.Errorf("got %v", o)
		}
	})
}

// TestResponseOvertakes: an endpoint that answers before it has read the request
// is believed; its connection is not used again, and the client's ends.
func TestResponseOvertakes(t *testing.T) {
	inFakeTime(t, rigOptions{}, func(a *app) {
		if q, err := http.ReadRequest(a.r); err == nil && q != nil {
			a.reply(413, "too much")
		}
		io.Copy(io.Discard, a)
	}, func(r *rig) {
		c := r.open(serviceA)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
		if got := c.wantStatus(413); got != "too much" {
			t.Errorf("got %q", got)
		}
		if !c.fin.Load() {
			t.Error("the client's connection goes on in the middle of a request")
		}
		c.send(strings.Repeat("x", 1000))
		c.wantCredit()
		d := r.open(serviceOne)
		d.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
		d.wantStatus(413)
		d.send(strings.Repeat("x", 997) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if d.wantStatus(413); len(r.apps) != 3 {
			t.Errorf("%d connections upstream, want 3: each is of no use after its answer", len(r.apps))
		}
	})
}

// TestDrain: after Drain the next response is a connection's last, that of a new
// tunnel too: its client cannot have heard. When the time is up unused connections
// end in order, and then nobody is let in any more.
func TestDrain(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		c.send(get("/1"))
		if p, _ := c.response("GET"); p.Close {
			t.Error("closed before the drain")
		}
		r.p.Drain()
		c.send(get("/2"))
		if p, _ := c.response("GET"); !p.Close || p.StatusCode != 200 || !c.fin.Load() {
			t.Errorf("status %d, close %v, ended %v", p.StatusCode, p.Close, c.fin.Load())
		}
		c = r.open(serviceA)
		c.send(get("/3"))
		if p, _ := c.response("GET"); !p.Close || p.StatusCode != 200 {
			t.Errorf("a tunnel that came later: status %d, close %v", p.StatusCode, p.Close)
		}
		unused, begun := r.open(serviceA), r.open(serviceA)
		begun.send("GET / HTTP/1.1\r\nHost:")
		synctest.Wait()
		late, cancel := context.WithCancel(context.Background())
		cancel()
		r.p.endIdle(late)
		if !unused.fin.Load() || unused.aborted.Load() {
			t.Error("an unused connection is not ended in order")
		}
		if begun.fin.Load() || begun.aborted.Load() {
			t.Error("a connection with half a request on it is ended as unused")
		}
		r.p.cutting.Store(true)
		if _, err := r.tryOpen(serviceA); err == nil {
			t.Error("a tunnel was taken at the end")
		}
	})
}

// TestNoInnerConnect: a CONNECT inside a tunnel is not carried.
func TestNoInnerConnect(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		c.send("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n")
		c.wantStatus(501)
	})
}

// TestMalformed: each refusal of the codec becomes its status and its fault.
func TestMalformed(t *testing.T) {
	for _, row := range []struct {
		text   string
		status int
		kind   fault.Kind
	}{
		{"GET / HTTP/1.1\r\n\r\n", 400, fault.BadRequest},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, fault.BadRequest},
		{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, fault.VersionNotSupported},
		{"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, fault.NotImplemented},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 431, fault.HeadTooLarge},
		{"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 101) + "\r\n", 431, fault.HeadTooLarge},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, fault.BadRequest},
	} {
		inFakeTime(t, rigOptions{}, func(a *app) { a.request() }, func(r *rig) {
			c := r.open(serviceA)
			c.send(row.text)
			p, _ := c.response("GET")
			if p.StatusCode != row.status || !p.Close || !c.fin.Load() {
				t.Errorf("%.60q: %d, close %v, ended %v, want %d", row.text, p.StatusCode, p.Close, c.fin.Load(), row.status)
			}
			if o := r.outcome(); o.kind != row.kind || r.p.stats.Faults[row.kind].Load() != 1 {
				t.Errorf("%.60q: %v", row.text, o)
			}
			c.wantCredit()
		})
	}
}

// TestSlowReader: a response larger than every window, read slowly: what the
// endpoint may send ahead is bounded, and all of it arrives.
func TestSlowReader(t *testing.T) {
	const size = 8 << 20
	inFakeTime(t, rigOptions{}, func(a *app) {
		a.request()
		a.reply(200, strings.Repeat("x", size))
		a.request()
	}, func(r *rig) {
		c := r.open(serviceA)
		c.slow = true
		c.send(get("/"))
		var worst, total int
		for total < size {
			c.mu.Lock()
			worst = max(worst, c.unread)
			c.mu.Unlock()
			before := len(c.take())
			total += before
			c.read(1 << 20)
			if before == 0 {
				break
			}
		}
		synctest.Wait()
		total += len(c.take())
		if total < size {
			t.Errorf("%d of %d bytes arrived: it has stalled", total, size)
		}
		if worst > 256<<10 {
			t.Errorf("%d bytes waited here for a client that did not read", worst)
		}
	})
}

// TestConnFilterDenies: a denied client gets no tunnel, and the fault counts.
func TestConnFilterDenies(t *testing.T) {
	guard := guardWith("test-deny", map[string]any{"ids": []string{""}})
	inFakeTime(t, rigOptions{guard: guard, registry: kinds(filtertest.Deny())}, echo, func(r *rig) {
		_, err := r.tryOpen(serviceA)
		if ref, ok := err.(*hbone.Refusal); !ok || ref.Status != 401 {
			t.Errorf("got %v, want 401", err)
		}
		if n := r.p.stats.Faults[fault.PolicyDenied].Load(); n != 1 {
			t.Errorf("%d denials counted", n)
		}
	})
}

// TestUnknownDestination: what is not ours is refused, and the Host of a request
// does not change that.
func TestUnknownDestination(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		for _, dest := range []string{"10.96.0.9:80", "10.96.0.1:81", "b.shop.svc.cluster.local:80"} {
			_, err := r.tryOpen(dest)
			if ref, ok := err.(*hbone.Refusal); !ok || ref.Status != 400 {
				t.Errorf("%s: got %v, want 400", dest, err)
			}
		}
		if n := r.p.stats.Faults[fault.NotOurs].Load(); n != 3 {
			t.Errorf("%d counted, want 3", n)
		}
	})
}
