package proxy

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
	"golang.org/x/net/http2"
)

// greetings are what servers say first.
var greetings = map[string]string{
	"SMTP":  "220 mail.example ESMTP\r\n",
	"MySQL": "\x4a\x00\x00\x00\x0a8.4.0\x00\x08\x00\x00\x00abcdefgh\x00",
	"SSH":   "SSH-2.0-OpenSSH_9.7\r\n",
	"FTP":   "220 ready\r\n",
}

// TestServerFirst: a server that greets is heard at once, without a byte of the
// client and without a moment's delay.
func TestServerFirst(t *testing.T) {
	for name, greeting := range greetings {
		inFakeTime(t, rigOptions{doc: harbour}, func(a *app) {
			defer a.Close()
			a.send(greeting)
			got, _ := io.ReadAll(a.r)
			a.send("re:" + string(got))
		}, func(r *rig) {
			start := time.Now()
			c := r.open(guessService)
			if err, ok := c.answer(); !ok || err != nil {
				t.Errorf("%s: the CONNECT was answered %v, %v", name, err, ok)
			}
			if got := c.take(); got != greeting {
				t.Errorf("%s: got %q", name, got)
			}
			if d := time.Since(start); d != 0 {
				t.Errorf("%s: heard after %v", name, d)
			}
			c.send("EHLO x\r\n")
			c.end()
			if got := c.take(); got != "re:EHLO x\r\n" {
				t.Errorf("%s: got %q", name, got)
			}
			o := r.conn()
			if o.Kind() != measure.NoFault || o.Verdict != (sniff.Verdict{Protocol: sniff.Opaque, Reason: sniff.ServerFirst}) || r.p.stats.Settled[sniff.ServerFirst].Load() != 1 {
				t.Errorf("%s: got %+v", name, o)
			}
			c.wantCredit()
		})
	}
}

// TestClientFirst: what clients say first, and what is made of it.
func TestClientFirst(t *testing.T) {
	for _, row := range []struct {
		name, sends string
		want        sniff.Reason
	}{
		{"Redis", "*1\r\n$4\r\nPING\r\n", sniff.NotHTTP},
		{"Postgres", "\x00\x00\x00\x08\x04\xd2\x16\x2f", sniff.NotHTTP},
		{"Postgres, startup", "\x00\x00\x00\x0b\x00\x03\x00\x00a\x00\x00", sniff.NotHTTP},
		{"memcached", "get key\r\n", sniff.NotHTTP},
		{"TLS", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", sniff.ClientHello},
		{"HTTP/0.9", "GET /\r\n", sniff.NotHTTP},
	} {
		for _, cut := range []int{1, 3, 1 << 10} {
			inFakeTime(t, rigOptions{doc: harbour}, parrot, func(r *rig) {
				c := r.open(guessService)
				for rest := row.sends; rest != ""; rest = rest[min(cut, len(rest)):] {
					c.send(rest[:min(cut, len(rest))])
				}
				if got := c.take(); got != row.sends {
					t.Errorf("%s in runs of %d: got %q", row.name, cut, got)
				}
				c.end()
				if o := r.conn(); o.Verdict.Reason != row.want || o.Kind() != measure.NoFault {
					t.Errorf("%s in runs of %d: by %v, %v", row.name, cut, o.Verdict.Reason, o.Fault)
				}
			})
		}
	}
}

// TestDetectHTTP1: requests are found in writes of a byte too, are routed as
// requests, and the connection dialled meanwhile serves the first of them.
func TestDetectHTTP1(t *testing.T) {
	for _, cut := range []int{1, 5, 1 << 10} {
		for _, slow := range []time.Duration{0, time.Second / 2} {
			inFakeTime(t, rigOptions{doc: harbour}, echo, func(r *rig) {
				r.dial = func(string) error { <-time.After(slow); return nil }
				c := r.open(guessService)
				for i := range 3 {
					text := post(fmt.Sprint("/", i), "body")
					for rest := text; rest != ""; rest = rest[min(cut, len(rest)):] {
						c.send(rest[:min(cut, len(rest))])
					}
					pass(slow)
					if got := c.wantStatus(200); got != fmt.Sprintf("POST /%d body", i) {
						t.Errorf("got %q", got)
					}
					if o := r.outcome(); o.verdict != (sniff.Verdict{Protocol: sniff.HTTP1, Reason: sniff.RequestLine}) {
						t.Errorf("got %v", o.verdict)
					}
				}
				if len(r.apps) != 1 {
					t.Errorf("%d connections were made, want 1", len(r.apps))
				}
				c.wantCredit()
				c.end()
				if len(r.conns) != 0 || len(r.p.live) != 0 || r.p.stats.Settled[sniff.RequestLine].Load() != 1 {
					t.Errorf("%d told as opaque, %d live", len(r.conns), len(r.p.live))
				}
				e := r.p.snap.Load().Backends()
				for _, b := range e {
					for _, e := range b.Endpoints() {
						if e.Active() != 0 {
							t.Errorf("%s: %d in use", e.Addr(), e.Active())
						}
					}
				}
			})
		}
	}
}

// TestDetectKeepsFewConnections: many clients that speak HTTP do not leave a
// connection each behind.
func TestDetectKeepsFewConnections(t *testing.T) {
	inFakeTime(t, rigOptions{doc: harbour}, echo, func(r *rig) {
		for range 50 {
			c := r.open(guessService)
			c.send(get("/"))
			c.wantStatus(200)
			c.end()
		}
		n := 0
		for _, b := range r.p.snap.Load().Backends() {
			for _, e := range b.Endpoints() {
				n += e.Idle()
			}
		}
		if n > 2 {
			t.Errorf("%d connections are kept for one client at a time", n)
		}
	})
}

// TestDetectNoEndpoint: a client that speaks HTTP is told why in HTTP; another is
// reset, without delay if it has spoken.
func TestDetectNoEndpoint(t *testing.T) {
	for _, dest := range []string{guessNone, guessService} {
		o := rigOptions{doc: harbour}
		inFakeTime(t, o, parrot, func(r *rig) {
			r.dial = func(string) error { return syscall.ECONNREFUSED }
			c := r.open(dest)
			pass(time.Second / 4)
			c.send(get("/"))
			pass(time.Second)
			c.wantStatus(503)
			c = r.open(dest)
			pass(time.Second / 4)
			c.send("\x00")
			if o := r.conn(); o.Kind().Row().Status != 503 || !c.aborted.Load() || o.Verdict.Reason != sniff.NotHTTP {
				t.Errorf("%s: %v, aborted %v", dest, o.Fault, c.aborted.Load())
			}
			c = r.open(dest) // and says nothing
			pass(3 * time.Second)
			if o := r.conn(); o.Kind().Row().Status != 503 || !c.aborted.Load() {
				t.Errorf("%s: %v, aborted %v", dest, o.Fault, c.aborted.Load())
			}
		})
	}
}

// TestDetectElsewhere: a service without endpoints of its own whose requests go
// elsewhere waits for them.
func TestDetectElsewhere(t *testing.T) {
	doc := harbour + `
httpRoutes:
- {name: none, parentRefs: [{group: "", kind: Service, name: none, port: 2}], rules: [{backendRefs: [{name: one, port: 1}]}]}
`
	inFakeTime(t, rigOptions{doc: doc}, echo, func(r *rig) {
		c := r.open(guessNone)
		pass(time.Minute)
		c.send(get("/x"))
		if got := c.wantStatus(200); got != "GET /x " {
			t.Errorf("got %q", got)
		}
		c = r.open(guessNone)
		c.send("\x00")
		if o := r.conn(); o.Kind() != fault.NoEndpoint || !c.aborted.Load() {
			t.Errorf("%v, aborted %v", o.Fault, c.aborted.Load())
		}
	})
}

// TestDetectTimes: a silent client holds nothing up and is waited for; one that
// leaves it open is waited for a second, from its first byte.
func TestDetectTimes(t *testing.T) {
	inFakeTime(t, rigOptions{doc: harbour}, parrot, func(r *rig) {
		c := r.open(guessService)
		pass(10 * time.Minute)
		c.send("GE")
		pass(900 * time.Millisecond)
		if got := c.take(); got != "" {
			t.Errorf("after 0.9 s: %q", got)
		}
		pass(200 * time.Millisecond)
		if got := c.take(); got != "GE" {
			t.Errorf("after 1.1 s: %q", got)
		}
		c.send("T / HTTP/1.1\r\n")
		if got := c.take(); got != "T / HTTP/1.1\r\n" {
			t.Errorf("then: %q", got)
		}
		c.end()
		if o := r.conn(); o.Verdict != (sniff.Verdict{Protocol: sniff.Opaque, Reason: sniff.TimeUp}) {
			t.Errorf("got %v", o.Verdict)
		}
		c = r.open(guessService)
		c.send("GET /" + strings.Repeat("x", sniff.Limit))
		if got := c.take(); len(got) != sniff.Limit+5 {
			t.Errorf("%d bytes came", len(got))
		}
		c.end()
		if o := r.conn(); o.Verdict.Reason != sniff.LimitHit {
			t.Errorf("got %v", o.Verdict)
		}
		c = r.open(guessService)
		c.send("GE")
		c.end()
		if got := c.take(); got != "GE" || !c.fin.Load() {
			t.Errorf("at the client's end: %q", got)
		}
		if o := r.conn(); o.Verdict.Reason != sniff.ClientEnd {
			t.Errorf("got %v", o.Verdict)
		}
		c = r.open(guessService)
		pass(61 * time.Minute)
		if o := r.conn(); o.Kind() != fault.StreamIdle || !c.aborted.Load() {
			t.Errorf("a client that says nothing: %v", o.Fault)
		}
	})
}

// TestClientBeatsServer: what the client has begun to say counts for more than
// what the server says meanwhile, and nothing is lost.
func TestClientBeatsServer(t *testing.T) {
	inFakeTime(t, rigOptions{doc: harbour}, func(a *app) {
		if a.n == 1 {
			<-time.After(100 * time.Millisecond)
			a.send("220 hello\r\n")
		}
		if q, _ := a.request(); q != nil {
			a.reply(200, "http")
		}
	}, func(r *rig) {
		c := r.open(guessService)
		c.send("GET / HT")
		pass(200 * time.Millisecond)
		c.send("TP/1.1\r\nHost: a\r\n\r\n")
		if got := c.wantStatus(200); got != "http" || len(r.apps) != 2 { // the one that had spoken is of no use
			t.Errorf("got %q on %d connections", got, len(r.apps))
		}
	})
	inFakeTime(t, rigOptions{doc: harbour}, func(a *app) {
		<-time.After(100 * time.Millisecond)
		a.send("220 hello\r\n")
		io.Copy(a.Conn, a.r)
	}, func(r *rig) {
		c := r.open(guessService)
		c.send("USER")
		pass(200 * time.Millisecond)
		c.send(" x\r\n")
		if got := c.take(); got != "220 hello\r\nUSER x\r\n" {
			t.Errorf("got %q", got)
		}
	})
}

// TestSegmentations: 100,000 connections of many protocols, cut into runs at
// random while endpoints take their time: each gets the treatment that is its
// protocol's, and every byte arrives.
func TestSegmentations(t *testing.T) {
	n := 100_000
	if slowBuild {
		n = 5000
	}
	r := rand.New(rand.NewPCG(5, 6))
	texts := []struct {
		text string
		http bool
	}{
		{"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", true},
		{"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", true},
		{"*1\r\n$4\r\nPING\r\n", false},
		{"\x00\x00\x00\x08\x04\xd2\x16\x2f", false},
		{"EHLO client.example\r\n", false},
		{"GET key\r\n", false},
		{"set foo 0 0 3\r\nbar\r\n", false},
		{"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x03", false},
		{"SSH-2.0-x\r\n", false},
		{"GET /\r\n", false},
		{"OPTIONS rtsp://a RTSP/1.0\r\n\r\n", false},
	}
	for range n / 1000 {
		inFakeTime(t, rigOptions{doc: harbour}, either, func(rg *rig) {
			for range 1000 {
				row := &texts[r.IntN(len(texts))]
				c := rg.open(guessService)
				if r.IntN(2) == 0 {
					synctest.Wait()
				}
				most := 1 + r.IntN(40)
				var tn turn.Turn
				for rest := row.text; rest != ""; {
					k := min(1+r.IntN(most), len(rest))
					c.h.Data(&tn, []byte(rest[:k]), false)
					if r.IntN(4) == 0 {
						tn.End()
					}
					rest = rest[k:]
				}
				tn.End()
				got := c.take()
				if http := strings.HasPrefix(got, "HTTP/1.1 200 "); http != row.http || !http && got != row.text {
					t.Fatalf("%q in runs of up to %d: got %q", row.text, most, got)
				}
				c.end()
			}
			if n := rg.p.stats.Settled[sniff.TimeUp].Load() + rg.p.stats.Settled[sniff.LimitHit].Load(); n != 0 {
				t.Errorf("%d were never settled", n)
			}
			rg.seen, rg.conns = nil, nil
		})
	}
}

// either answers what is HTTP and sends everything else back.
func either(a *app) {
	for {
		p, err := a.r.Peek(7)
		if err != nil && len(p) == 0 {
			a.CloseWrite()
			return
		}
		if strings.HasPrefix(string(p), "GET /a?") || strings.HasPrefix(string(p), "POST /x") {
			a.request()
			a.reply(200, "")
			continue
		}
		mirrorAll(a.r, a)
		return
	}
}

func mirrorAll(r *bufio.Reader, a *app) {
	io.Copy(a.Conn, r)
	a.CloseWrite()
}

// TestDetectHTTP2: the preface, whole and byte by byte, makes it HTTP/2 on both
// sides.
func TestDetectHTTP2(t *testing.T) {
	for _, cut := range []int{1, 10, 1 << 10} {
		inFakeTime(t, rigOptions{doc: harbour}, speaks2(echo2), func(r *rig) {
			c := &client2{client: r.open(guessService), talker: newTalker(r.t)}
			c.out.WriteString(http2.ClientPreface)
			c.fw.WriteSettings()
			c.head(1, true, getHead("/x")...)
			text := c.out.String()
			c.out.Reset()
			for rest := text; rest != ""; rest = rest[min(cut, len(rest)):] {
				c.send(rest[:min(cut, len(rest))])
			}
			c.want("head 1 :status=200", `data 1 ":method=GET :scheme=http :authority=two :path=/x" end`)
			if o := r.outcome(); o.verdict != (sniff.Verdict{Protocol: sniff.HTTP2, Reason: sniff.Preface}) {
				t.Errorf("got %v", o.verdict)
			}
			c.settled2()
			c.client.end()
			if len(r.conns) != 0 || len(r.p.live) != 0 {
				t.Errorf("%d told as opaque, %d live", len(r.conns), len(r.p.live))
			}
		})
	}
}
