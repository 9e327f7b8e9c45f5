package proxy

import (
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// TestRig2 shows how tests of HTTP/2 read: requests with and without content, one
// beside the other, and trailers both ways.
func TestRig2(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, true, getHead("/x", "x-a: 1", "cookie: a=b", "cookie: c=d")...)
		c.want("head 1 :status=200", `data 1 ":method=GET :scheme=http :authority=two :path=/x x-a=1 cookie=a=b; c=d" end`)
		if o := r.outcome(); o.status != 200 || o.kind != fault.Kinds || len(o.attempts) != 1 {
			t.Errorf("got %v", o)
		}
		c.head(3, false, postHead("/y")...)
		c.want("head 3 :status=200")
		c.data(3, "hello", false)
		c.want(`data 3 "hello"`)
		c.head(5, false, callHead()...)
		c.data(5, "five", false)
		c.data(3, "world", false)
		c.want("head 5 :status=200", `data 5 "five"`, `data 3 "world"`)
		c.head(3, true, "sum: 1")
		c.want("head 3 got=sum=1 end")
		c.data(5, "", true)
		c.want(`data 5 "" end`)
		c.settled2()
		if len(r.apps) != 1 {
			t.Errorf("%d connections to the endpoint, want the one that the calls share", len(r.apps))
		}
	})
}

// TestHeads: what becomes of the fields of requests and responses, both ways.
func TestHeads(t *testing.T) {
	seen := newSeen2()
	app := func(a *app2, frame string) {
		seen.frames <- frame
		switch {
		case strings.Contains(frame, "HEAD"):
			a.head(1, true, ":status: 200", "content-length: 1000")
		case strings.HasPrefix(frame, "head"):
			a.head(1, false, ":status: 103", "link: </a>")
			a.head(1, false, ":status: 200", "content-length: 2", "set-cookie: a=b", "set-cookie: c=d")
			a.data(1, "ok", true)
		}
	}
	for _, row := range []struct {
		name string
		sent []string
		want string   // at the endpoint
		got  []string // at the client
	}{
		{"a request", getHead("/?q=1", "X-Upper: no")[:4], ":method=GET :scheme=http :authority=two :path=/?q=1",
			[]string{"head 1 :status=103 link=</a>", "head 1 :status=200 set-cookie=a=b set-cookie=c=d content-length=2", `data 1 "ok" end`}},
		{"host in place of :authority", []string{":method: GET", ":scheme: http", ":path: /", "host: two:80"}, ":method=GET :scheme=http :authority=two:80 :path=/", nil},
		{"host as well", getHead("/", "host: TWO"), ":method=GET :scheme=http :authority=two :path=/", nil},
		{"te", getHead("/", "te: trailers"), ":method=GET :scheme=http :authority=two :path=/ te=trailers", nil},
		{"trailer names", getHead("/", "trailer: x"), ":method=GET :scheme=http :authority=two :path=/", nil},
		{"https", []string{":method: GET", ":scheme: https", ":authority: two", ":path: /"}, ":method=GET :scheme=https :authority=two :path=/", nil},
		{"HEAD", []string{":method: HEAD", ":scheme: http", ":authority: two", ":path: /"}, ":method=HEAD :scheme=http :authority=two :path=/", []string{"head 1 :status=200 content-length=1000 end"}},
		{"who the client says it is", getHead("/", "x-forwarded-client-cert: By=me"), ":method=GET :scheme=http :authority=two :path=/", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen = newSeen2()
			inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(app), func(r *rig) {
				seen = newSeen2()
				c := r.open2(serviceTwo)
				c.head(1, true, row.sent...)
				c.flush()
				seen.want(t, "head 1 "+row.want+" end")
				if row.got != nil {
					c.want(row.got...)
				}
			})
		})
	}
}

// TestBadHeads: a request of good form that makes no sense is answered, counted
// and gone, and the connection lives. One of bad form is reset by the engine.
func TestBadHeads(t *testing.T) {
	for _, row := range []struct {
		name   string
		sent   []string
		status string
		kind   fault.Kind
	}{
		{"two hosts", getHead("/", "host: two", "host: two"), "400", fault.BadRequest},
		{"another host", getHead("/", "host: three"), "400", fault.BadRequest},
		{"no host", []string{":method: GET", ":scheme: http", ":path: /"}, "400", fault.BadRequest},
		{"a bad host", []string{":method: GET", ":scheme: http", ":path: /", ":authority: a,b"}, "400", fault.BadRequest},
		{"a bad path", getHead("/a#b"), "400", fault.BadRequest},
		{"get", []string{":method: get", ":scheme: http", ":path: /", ":authority: two"}, "400", fault.BadRequest},
		{"another scheme", []string{":method: GET", ":scheme: ftp", ":path: /", ":authority: two"}, "400", fault.BadRequest},
		{"another expectation", getHead("/", "expect: more"), "400", fault.BadRequest},
		{"a length with zeros", postHead("/", "content-length: 05"), "400", fault.BadRequest},
		{"CONNECT", []string{":method: CONNECT", ":authority: two:80"}, "501", fault.NotImplemented},
		{"extended CONNECT for what is not on the list", []string{":method: CONNECT", ":protocol: ssh", ":scheme: http", ":path: /", ":authority: two"}, "501", fault.NotImplemented},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
				c := r.open2(serviceTwo)
				c.head(1, false, row.sent...)
				c.flush()
				c.pull()
				if len(c.frames) < 2 || !strings.HasPrefix(c.frames[0], "head 1 :status="+row.status) || c.frames[len(c.frames)-1] != "reset 1 NO_ERROR" {
					t.Fatalf("got %q", c.frames)
				}
				c.frames = nil
				if o := r.outcome(); o.kind != row.kind {
					t.Errorf("got %v", o)
				}
				c.head(3, true, getHead("/")...)
				c.want("head 3 :status=200", `data 3 ":method=GET :scheme=http :authority=two :path=/" end`)
				if len(r.apps) != 1 {
					t.Error("a bad request went upstream")
				}
				c.settled2()
			})
		})
	}
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, true, getHead("/", "connection: close")...)
		c.want("reset 1 PROTOCOL_ERROR")
		c.client.reset()
		if n := r.p.stats.Faults[fault.BadRequest].Load(); n != 1 {
			t.Errorf("%d bad requests counted", n)
		}
	})
}

// TestEitherHTTP: which HTTP a client speaks, its first bytes say, whatever the
// port is declared to speak; to endpoints the declaration holds.
func TestEitherHTTP(t *testing.T) {
	t.Run("HTTP/1 where HTTP/2 is declared", func(t *testing.T) {
		inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
			for _, text := range []string{get("/x"), post("/x", "body")} {
				c := r.open(serviceTwo)
				c.send(text[:1]) // P could become PRI
				c.send(text[1:])
				c.wantStatus(200)
				c.wantCredit()
			}
		})
	})
	t.Run("HTTP/2 where HTTP/1 is declared", func(t *testing.T) {
		inFakeTime(t, rigOptions{doc: doc2("")}, echo, func(r *rig) {
			old := r.p.Snapshot()
			c := r.open2(serviceOne)
			c.head(1, false, postHead("/x")...)
			c.data(1, "body", true)
			c.want("head 1 :status=200 content-length=12", `data 1 "POST /x body" end`)
			c.settled2()
			r.apply(doc2(""))
			if old.Pin() {
				t.Error("an unused connection holds an old snapshot")
			}
			c.client.reset()
			if n := len(r.p.allLive()); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	})
	t.Run("neither", func(t *testing.T) {
		inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
			for _, text := range []string{"PRI * HTTP/1.1\r\nHost: two\r\n\r\n", "INVALID CONNECTION PREFACE\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} {
				c := &client2{client: r.open(serviceTwo), talker: newTalker(t)}
				c.client.send(text)
				c.want("goaway 0 PROTOCOL_ERROR")
				if !c.fin.Load() {
					t.Error("the connection is not ended")
				}
			}
		})
	})
}
