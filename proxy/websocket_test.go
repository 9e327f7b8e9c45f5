package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"golang.org/x/net/http2"
)

var takesConnect = []http2.Setting{{ID: http2.SettingEnableConnectProtocol, Val: 1}}

// connectHead is an extended CONNECT.
func connectHead(more ...string) []string {
	return append([]string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /chat", ":authority: a", "sec-websocket-version: 13"}, more...)
}

const wsOffer = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func wsProof(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// ws1 is an endpoint of HTTP/1 that takes the offer and sends everything back, and
// "bye" behind the client's end.
func ws1(proof func(q *http.Request) string) func(*app) {
	return func(a *app) {
		defer a.Close()
		q, _ := a.request()
		if q == nil {
			return
		}
		a.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + proof(q) + "\r\n\r\n")
		io.Copy(a.Conn, a.r)
		a.send("bye")
	}
}

func goodProof(q *http.Request) string { return wsProof(q.Header.Get("Sec-Websocket-Key")) }

// ws2 is the same of HTTP/2.
func ws2(a *app2, frame string) {
	var kind string
	var id uint32
	fmt.Sscan(frame, &kind, &id)
	if kind == "head" {
		a.head(id, false, ":status: 200", "x-got: "+strings.ReplaceAll(frame, ":", ""))
		return
	}
	if text, end := strings.CutSuffix(frame, " end"); end {
		echo2(a, text)
		a.data(id, "bye", true)
		return
	}
	echo2(a, frame)
}

// TestWebSocket2: a WebSocket between each two of the protocols: opening, bytes
// that came early, both directions, and ends in order.
func TestWebSocket2(t *testing.T) {
	for _, row := range []struct {
		name string
		dest string
		app  func(*app)
	}{
		{"HTTP/2 to HTTP/1", serviceToOne, ws1(goodProof)},
		{"HTTP/2 to HTTP/2", serviceTwo, speaks2With(takesConnect, ws2)},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{doc: doc2("")}, row.app, func(r *rig) {
				c := r.open2(row.dest)
				c.head(1, false, connectHead()...)
				c.data(1, "early", false)
				c.flush()
				c.pull()
				if len(c.frames) != 2 || !strings.HasPrefix(c.frames[0], "head 1 :status=200") || strings.Contains(c.frames[0], "accept") || c.frames[1] != `data 1 "early"` {
					t.Fatalf("got %q", c.frames)
				}
				c.frames = nil
				for range 3 {
					c.data(1, "message", false)
					c.want(`data 1 "message"`)
				}
				c.head(3, false, connectHead()...) // another on the same connection
				c.flush()
				c.frames = nil
				c.data(1, "last", true)
				c.flush()
				c.pull()
				if got := strings.Join(c.frames, "|"); !strings.Contains(got, "bye") || !strings.HasSuffix(got, "end") {
					t.Errorf("got %q", c.frames)
				}
				if o := r.outcome(); o.status != 101 || o.kind != fault.Kinds {
					t.Errorf("got %v", o)
				}
				c.frames = nil
				c.giveUp(3)
				if o := r.outcome(); o.kind != fault.ClientGone {
					t.Errorf("got %v", o)
				}
				c.settled2()
			})
		})
	}
	t.Run("HTTP/1 to HTTP/2", func(t *testing.T) {
		inFakeTime(t, rigOptions{doc: doc2("")}, speaks2With(takesConnect, ws2), func(r *rig) {
			c := r.open(serviceToTwo)
			c.send(wsOffer + "early")
			got := c.take()
			if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.Contains(strings.ToLower(got), "sec-websocket-accept: s3ppl") && !strings.Contains(got, wsProof("dGhlIHNhbXBsZSBub25jZQ==")) ||
				!strings.Contains(got, "method=CONNECT scheme=http authority=a path=/chat protocol=websocket") || !strings.HasSuffix(got, "\r\n\r\nearly") {
				t.Fatalf("got %q", got)
			}
			c.send("message")
			if got := c.take(); got != "message" {
				t.Errorf("got %q", got)
			}
			c.end()
			if got := c.take(); got != "bye" || !c.fin.Load() {
				t.Errorf("got %q, fin %v", got, c.fin.Load())
			}
			c.wantCredit()
		})
	})
}

// TestNoWebSocket2: offers that an endpoint does not take, and answers that are
// none.
func TestNoWebSocket2(t *testing.T) {
	reply1 := func(text string) func(*app) {
		return func(a *app) { defer a.Close(); a.request(); a.send(text); a.request() }
	}
	reply2 := func(status string) func(*app) {
		return speaks2With(takesConnect, func(a *app2, f string) { a.head(1, true, ":status: "+status) })
	}
	for _, row := range []struct {
		name   string
		dest   string
		app    func(*app)
		status int
		kind   fault.Kind
	}{
		{"refused by HTTP/1", serviceToOne, reply1("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), 403, fault.Kinds},
		{"passed over by HTTP/1", serviceToOne, reply1("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), 501, fault.NotImplemented},
		{"without proof", serviceToOne, ws1(func(*http.Request) string { return "x" }), 502, fault.UpstreamProtocol},
		{"refused by HTTP/2", serviceTwo, reply2("403"), 403, fault.Kinds},
		{"not known to HTTP/2", serviceTwo, speaks2(ws2), 502, fault.UpstreamProtocol},
		{"the control", serviceTwo, speaks2With(takesConnect, ws2), 200, fault.Kinds},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{doc: doc2("")}, row.app, func(r *rig) {
				c := r.open2(row.dest)
				c.head(1, false, connectHead()...)
				c.flush()
				c.pull()
				if len(c.frames) == 0 || !strings.HasPrefix(c.frames[0], fmt.Sprintf("head 1 :status=%d", row.status)) {
					t.Fatalf("got %q", c.frames)
				}
				if row.status == 200 {
					c.giveUp(1)
					return
				}
				if last := c.frames[len(c.frames)-1]; last != "reset 1 NO_ERROR" {
					t.Errorf("got %q, want the stream stopped", c.frames)
				}
				if o := r.outcome(); o.kind != row.kind {
					t.Errorf("got %v", o)
				}
				synctest.Wait()
				c.frames = nil
				c.settled2()
			})
		})
	}
}
