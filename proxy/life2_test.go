package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// TestTranslation: requests and responses pass between HTTP/1 and HTTP/2, with
// their framing made anew, cookies joined and trailers kept.
func TestTranslation(t *testing.T) {
	t.Run("HTTP/1 to HTTP/2", func(t *testing.T) {
		seen := newSeen2()
		inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) {
			seen.frames <- frame
			if strings.HasSuffix(frame, "end") {
				a.head(1, false, ":status: 200", "x-a: b")
				a.data(1, "answer", false)
				a.head(1, true, "grpc-status: 0")
			}
		}), func(r *rig) {
			seen = newSeen2()
			c := r.open(serviceToTwo)
			c.send("POST /x HTTP/1.1\r\nHost: a\r\nX-Upper: 1\r\nCookie: a=b\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-t: 1\r\n\r\n")
			seen.want(t, "head 1 :method=POST :scheme=http :authority=a :path=/x x-upper=1 cookie=a=b", `data 1 "body"`, "head 1 x-t=1 end")
			p, body := c.response("POST")
			if p.StatusCode != 200 || body != "answer" || p.Header.Get("x-a") != "b" || p.Trailer.Get("grpc-status") != "0" || p.ContentLength >= 0 {
				t.Errorf("got %v %q, trailer %v", p, body, p.Trailer)
			}
			c.wantCredit()
		})
	})
	t.Run("HTTP/1 to HTTP/2, without a body", func(t *testing.T) {
		seen := newSeen2()
		inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) {
			seen.frames <- frame
			a.head(1, true, ":status: 404")
		}), func(r *rig) {
			seen = newSeen2()
			c := r.open(serviceToTwo)
			c.send(get("/x"))
			seen.want(t, "head 1 :method=GET :scheme=http :authority=a :path=/x end")
			if p, body := c.response("GET"); p.StatusCode != 404 || body != "" || p.ContentLength != 0 {
				t.Errorf("got %v %q", p, body)
			}
		})
	})
	t.Run("HTTP/2 to HTTP/1", func(t *testing.T) {
		inFakeTime(t, rigOptions{doc: doc2("")}, func(a *app) {
			defer a.Close()
			for {
				q, body := a.request()
				if q == nil {
					return
				}
				a.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\n%.5s\r\n0\r\nX-Sum: %v %q %v\r\n\r\n",
					body+"     ", q.TransferEncoding, q.Header["Cookie"], q.Trailer["X-T"]))
			}
		}, func(r *rig) {
			c := r.open2(serviceToOne)
			c.head(1, false, postHead("/", "cookie: a=b", "cookie: c=d", "te: trailers")...)
			c.data(1, "hello", false)
			c.head(1, true, "x-t: 2")
			c.want("head 1 :status=200", `data 1 "hello"`, `head 1 x-sum=[chunked] ["a=b; c=d"] [2] end`)
			c.head(3, false, postHead("/", "content-length: 2")...)
			c.data(3, "hi", true)
			c.want("head 3 :status=200", `data 3 "hi   "`, `head 3 x-sum=[] [] [] end`)
			c.settled2()
			if len(r.apps) != 1 {
				t.Errorf("%d connections, want one kept", len(r.apps))
			}
		})
	})
}

// TestSharing: calls share a connection as far as its endpoint allows, and have
// another beyond.
func TestSharing(t *testing.T) {
	two := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 2}}
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2With(two, func(a *app2, frame string) {
		if strings.HasPrefix(frame, "data") {
			echo2(a, frame)
		}
	}), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, false, postHead("/")...)
		c.want()
		for i := range uint32(4) {
			c.head(2*i+3, false, postHead("/")...)
			c.want()
		}
		if n := len(r.apps); n != 3 {
			t.Errorf("%d connections for 5 calls, 2 each", n)
		}
		for i := range uint32(5) {
			c.giveUp(2*i + 1)
		}
		for i := range uint32(4) {
			c.head(2*i+11, false, postHead("/")...)
			c.want()
		}
		if n := len(r.apps); n != 3 {
			t.Errorf("%d connections, want those that there were", n)
		}
	})
}

// TestStreamLimit: more requests at once than were offered are refused, and not
// begun.
func TestStreamLimit(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(*app2, string) {}), func(r *rig) {
		c := r.open2(serviceTwo)
		for i := range uint32(maxStreams + 1) {
			c.head(2*i+1, false, postHead("/")...)
		}
		c.want(fmt.Sprintf("reset %d REFUSED_STREAM", 2*maxStreams+1))
		if n := r.p.stats.Requests.Load(); n != 0 {
			t.Errorf("%d requests are over", n)
		}
		c.giveUp(1)
		c.head(2*maxStreams+3, false, postHead("/")...)
		c.want()
	})
}

// TestPins2: a request keeps the snapshot it began with, another one has the new
// one, and the old is given up with the last request that it has.
func TestPins2(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
		c := r.open2(serviceTwo)
		for _, id := range []uint32{1, 3} {
			c.head(id, false, postHead("/old")...)
			c.want(fmt.Sprintf("head %d :status=200", id))
		}
		old := r.p.Snapshot()
		pinned := func(s *snapshot.Snapshot) bool {
			if !s.Pin() {
				return false
			}
			s.Unpin()
			return true
		}
		r.apply(doc2("filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-new, value: '1'}]}}]"))
		if !pinned(old) {
			t.Fatal("the snapshot of a request in progress was given up")
		}
		c.head(5, false, postHead("/new")...)
		c.data(1, "x", true)
		c.want("head 5 :status=200 x-new=1", `data 1 "x" end`)
		if !pinned(old) {
			t.Fatal("there is one request more")
		}
		c.data(3, "y", true)
		c.want(`data 3 "y" end`)
		if pinned(old) {
			t.Error("the old snapshot is still held")
		}
		c.data(5, "z", true)
		c.want(`data 5 "z" end`)
		last := r.p.Snapshot()
		r.apply(doc2(""))
		if pinned(last) {
			t.Error("an unused connection holds an old snapshot")
		}
	})
}

// TestPinEndsWithConnection: a connection that ends with requests in progress
// leaves nothing pinned.
func TestPinEndsWithConnection(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(*app2, string) {}), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, false, postHead("/")...)
		c.flush()
		old := r.p.Snapshot()
		r.apply(doc2(""))
		c.client.reset()
		synctest.Wait()
		if old.Pin() {
			t.Error("the snapshot is still held")
		}
	})
}

// TestIdle2: an unused connection is asked to go after an hour, and one that is
// used is not.
func TestIdle2(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
		c, used := r.open2(serviceTwo), r.open2(serviceTwo)
		used.head(1, false, postHead("/")...)
		used.want("head 1 :status=200")
		used.pass(59 * time.Minute)
		c.want()
		used.pass(2 * time.Minute)
		c.want("goaway 2147483647 NO_ERROR", "goaway 0 NO_ERROR")
		if !c.fin.Load() {
			t.Error("the connection is not ended")
		}
		c.end()
		used.want()
		used.data(1, "still", true)
		used.want(`data 1 "still" end`)
	})
}

// TestDrain2: clients are asked to go, requests in progress finish, and one that
// was under way when the client was asked is still taken.
func TestDrain2(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, false, postHead("/")...)
		c.want("head 1 :status=200")
		r.p.Drain()
		c.head(3, true, getHead("/")...)
		c.want("goaway 2147483647 NO_ERROR", "head 3 :status=200", `data 3 ":method=GET :scheme=http :authority=two :path=/" end`, "goaway 3 NO_ERROR")
		c.data(1, "last", true)
		c.want(`data 1 "last" end`)
		if !c.fin.Load() {
			t.Error("the connection is not ended behind the last request")
		}
	})
}

// TestEndpointGoesAway: calls in progress finish on a connection that is going
// away, new ones have another.
func TestEndpointGoesAway(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(func(a *app2, frame string) {
		if frame == `data 1 "go"` && a.a.n == 1 {
			a.fw.WriteGoAway(1, http2.ErrCodeNo, nil)
			return
		}
		echo2(a, frame)
	}), func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, false, postHead("/")...)
		c.data(1, "go", false)
		c.want("head 1 :status=200")
		c.head(3, true, getHead("/")...)
		c.want("head 3 :status=200", `data 3 ":method=GET :scheme=http :authority=two :path=/" end`)
		if len(r.apps) != 2 {
			t.Errorf("%d connections, want 2", len(r.apps))
		}
		c.data(1, "end", true)
		c.want(`data 1 "end" end`)
		c.settled2()
	})
}

// TestUnusedConnectionEnds: an endpoint's connection without calls is let go after
// an hour, by GOAWAY and not in the middle of anything.
func TestUnusedConnectionEnds(t *testing.T) {
	var ended atomic.Bool
	inFakeTime(t, rigOptions{doc: doc2("")}, func(a *app) {
		speaks2(echo2)(a)
		ended.Store(true)
	}, func(r *rig) {
		c := r.open2(serviceTwo)
		c.head(1, true, getHead("/")...)
		c.want("head 1 :status=200", `data 1 ":method=GET :scheme=http :authority=two :path=/" end`)
		pass(59 * time.Minute)
		if ended.Load() {
			t.Fatal("ended within the hour")
		}
		pass(2 * time.Minute)
		if !ended.Load() {
			t.Error("still there after an hour")
		}
	})
}

// TestBackPressure2: what the client does not take is not taken from the endpoint
// either, beyond the window that it was given; and the other way round.
func TestBackPressure2(t *testing.T) {
	const bulk = 1 << 20
	sent := 0
	inFakeTime(t, rigOptions{doc: doc2("")}, func(a *app) {
		defer a.Close()
		k := newTalker(nil)
		k.fw.WriteSettings()
		k.head(1, false, ":status: 200")
		a.send(k.out.String())
		k.out.Reset()
		preface := make([]byte, len(http2.ClientPreface))
		a.r.Read(preface)
		fr := http2.NewFramer(nil, a.r)
		stream, conn := 65535, 65535
		for sent < bulk {
			for sent < bulk && min(stream, conn) > 0 {
				n := min(stream, conn, 16<<10, bulk-sent)
				k.data(1, strings.Repeat("x", n), sent+n == bulk)
				a.send(k.out.String())
				k.out.Reset()
				sent, stream, conn = sent+n, stream-n, conn-n
			}
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
					stream += int(v) - 65535
				}
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					conn += int(f.Increment)
				} else {
					stream += int(f.Increment)
				}
			}
		}
	}, func(r *rig) {
		sent = 0
		c := r.open2(serviceTwo, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		c.head(1, true, getHead("/")...)
		c.want("head 1 :status=200")
		if sent == 0 || sent > 300<<10 {
			t.Fatalf("the endpoint could send %d bytes to a client that takes none", sent)
		}
		stalled := sent
		c.fw.WriteWindowUpdate(1, 4<<20)
		c.fw.WriteWindowUpdate(0, 4<<20)
		c.flush()
		pass(time.Second)
		c.pull()
		if sent != bulk {
			t.Errorf("the endpoint could send %d bytes, %d before", sent, stalled)
		}
		if c.talker.got != bulk {
			t.Errorf("the client got %d bytes, want %d", c.talker.got, bulk)
		}
		c.frames = nil
		c.settled2()
	})
}

// TestEngineKeepsTime: a client that sends half a frame and no more is given up.
func TestEngineKeepsTime(t *testing.T) {
	inFakeTime(t, rigOptions{doc: doc2("")}, speaks2(echo2), func(r *rig) {
		c := r.open2(serviceTwo)
		c.client.send("\x00\x00\x10\x01\x04\x00\x00\x00\x01")
		pass(15 * time.Second)
		c.want("goaway 0 ENHANCE_YOUR_CALM")
		if r.p.stats.Faults[fault.Internal].Load() != 0 {
			t.Error("that is no fault of ours")
		}
	})
}
