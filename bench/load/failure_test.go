package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// answering serves a fixed answer, once for each read, on raw connections.
func answering(t *testing.T, answer func(c net.Conn, n int)) string {
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for n := 0; ; n++ {
					if _, err := c.Read(buf); err != nil {
						return
					}
					answer(c, n)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestFailures: each way to answer wrongly is a failure of its own sort, every
// request is one or an answer, and the run goes on.
func TestFailures(t *testing.T) {
	good := "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
	for name, c := range map[string]struct {
		answer  func(c net.Conn, n int)
		failure string
	}{
		"control":   {func(c net.Conn, _ int) { io.WriteString(c, good) }, ""},
		"status":    {func(c net.Conn, _ int) { io.WriteString(c, strings.Replace(good, "200", "503", 1)) }, "status"},
		"length":    {func(c net.Conn, _ int) { io.WriteString(c, strings.Replace(good, "2\r\n\r\nok", "3\r\n\r\nnot", 1)) }, "content"},
		"too much":  {func(c net.Conn, _ int) { io.WriteString(c, good+"x") }, "malformed"},
		"nonsense":  {func(c net.Conn, _ int) { io.WriteString(c, "SSH-2.0-x\r\n\r\n") }, "malformed"},
		"ended":     {func(c net.Conn, _ int) { c.Close() }, "disconnect"},
		"cut short": {func(c net.Conn, _ int) { io.WriteString(c, good[:len(good)-1]); c.Close() }, "disconnect"},
		"reset":     {func(c net.Conn, _ int) { c.(*net.TCPConn).SetLinger(0); c.Close() }, "reset"},
		"silence":   {func(c net.Conn, _ int) {}, "timeout"},
		"close": {func(c net.Conn, _ int) {
			io.WriteString(c, strings.Replace(good, "\r\n", "\r\nconnection: close\r\n", 1))
			c.Close()
		}, ""},
		"to the end": {func(c net.Conn, _ int) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nok"); c.Close() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := short(Target{Addr: answering(t, c.answer)}, Kind{Bytes: 2})
			s.Requests, s.Timeout = 30, 2*time.Second
			if c.failure == "timeout" {
				s.Requests, s.Timeout = 8, 50*time.Millisecond
			}
			r, err := Do(context.Background(), s, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if c.failure == "" {
				if r.Done != s.Requests || r.Failed != 0 || r.Lost != 0 {
					t.Errorf("%d answered of %d, %v, %d lost: %v", r.Done, s.Requests, r.Failures, r.Lost, r.Why)
				}
				return
			}
			if n := r.Failures[c.failure]; n != s.Requests || r.Done != 0 || r.Failed != s.Requests {
				t.Errorf("%d failures of that sort of %d, %d answered: %v %v", n, s.Requests, r.Done, r.Failures, r.Why)
			}
			if len(r.Why) == 0 {
				t.Error("nothing says why")
			}
		})
	}
}

// TestEchoDiffers: what comes back is compared byte by byte.
func TestEchoDiffers(t *testing.T) {
	for _, spoil := range []bool{false, true} {
		l := listen(t)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					buf := make([]byte, 100)
					for {
						if _, err := io.ReadFull(c, buf); err != nil {
							return
						}
						if spoil {
							buf[99] ^= 1
						}
						c.Write(buf)
					}
				}()
			}
		}()
		s := short(Target{Addr: l.Addr().String(), Protocol: Echo}, Kind{Size: 100})
		s.Requests = 20
		r, err := Do(context.Background(), s, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if spoil && r.Failures["content"] != 20 || !spoil && r.Done != 20 {
			t.Errorf("spoilt %v: %d answered, %v", spoil, r.Done, r.Failures)
		}
	}
}

// TestRemote: other machines are loaded only by those who say so.
func TestRemote(t *testing.T) {
	s := Spec{Target: Target{Addr: "192.0.2.1:80"}, Schedule: Schedule{Rate: 1}, For: time.Second}
	if _, err := Start(t.Context(), s, Options{}); !errors.Is(err, errRemote) {
		t.Errorf("a remote target: %v", err)
	}
	// A name that leads here at first may lead elsewhere when it is dialled.
	tg := Target{Addr: "localhost:80"}
	l := listen(t)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := tg.local(remote(c)); err != nil {
		t.Errorf("a connection on loopback: %v", err)
	}
	s.Target.AllowRemote = true
	dialled := errors.New("dialled")
	_, err = Start(t.Context(), s, Options{dial: func(context.Context, string) (net.Conn, error) { return nil, dialled }})
	if !errors.Is(err, dialled) {
		t.Errorf("a remote target that was allowed: %v", err)
	}
}

// TestSpecErrors: what is wrong is said with what to write, before anything is
// connected to.
func TestSpecErrors(t *testing.T) {
	good := func() Spec {
		return Spec{Target: Target{Addr: "127.0.0.1:1"}, Schedule: Schedule{Rate: 1}, For: time.Second}
	}
	for want, spoil := range map[string]func(s *Spec){
		"write host:port":                    func(s *Spec) { s.Target.Addr = "localhost" },
		"is no port":                         func(s *Spec) { s.Target.Addr = "localhost:http" },
		"via \"x\" is unknown":               func(s *Spec) { s.Target.Via = "x" },
		"protocol \"x\" is unknown":          func(s *Spec) { s.Target.Protocol = "x" },
		"needs the destination":              func(s *Spec) { s.Target.Via = ViaProxy },
		"of one family":                      func(s *Spec) { s.Target.Via, s.Target.To = ViaProxy, "[::1]:80" },
		"needs a client's certificate":       func(s *Spec) { s.Target.Via, s.Target.To = ViaHBONE, "10.0.0.1:80" },
		"told in PROXY headers":              func(s *Spec) { s.Target.Identities = []string{"spiffe://a/b"} },
		"write spiffe://":                    func(s *Spec) { s.Target.Via, s.Target.To, s.Target.Identities = ViaProxy, "1.2.3.4:80", []string{"a"} },
		"rate is 0":                          func(s *Spec) { s.Schedule.Rate = 0 },
		"the ramp's end is -1":               func(s *Spec) { s.Schedule.To = -1 },
		"a closed loop has no rate":          func(s *Spec) { s.Schedule.Shape = Closed },
		"schedule \"x\" is unknown":          func(s *Spec) { s.Schedule.Shape = "x" },
		"connections is 20001":               func(s *Spec) { s.Connections = maxConnections + 1 },
		"one request at a time":              func(s *Spec) { s.Streams = 2 },
		"only with via hbone":                func(s *Spec) { s.Mesh = 1 },
		"measured time is 0s":                func(s *Spec) { s.For = 0 },
		"timeout is 1h0m1s":                  func(s *Spec) { s.Timeout = time.Hour + time.Second },
		"lag share is 2":                     func(s *Spec) { s.LagShare = 2 },
		"gRPC wants /package.Service":        func(s *Spec) { s.Target.Protocol, s.Mix = GRPC, []Kind{{Path: "/x"}} },
		"it is the length of what is echoed": func(s *Spec) { s.Target.Protocol = Echo },
		"control character":                  func(s *Spec) { s.Mix = []Kind{{Fields: []Field{{"a", "b\r\nc: d"}}}} },
		"written by the tool itself":         func(s *Spec) { s.Mix = []Kind{{Fields: []Field{{"Content-Length", "1"}}}} },
		"there are two of that name":         func(s *Spec) { s.Mix = []Kind{{Name: "a"}, {Name: "a"}} },
	} {
		s := good()
		spoil(&s)
		if _, err := Start(t.Context(), s, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	s := good().withDefaults()
	if err := s.check(); err != nil {
		t.Errorf("the spec without what is wrong: %v", err)
	}
}

// TestConnectErrors: a target that cannot be reached, or is not what it should
// be, is an error and no run.
func TestConnectErrors(t *testing.T) {
	closed := listen(t)
	closed.Close()
	plain := answering(t, func(c net.Conn, _ int) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") })
	few := listen(t)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: page, Protocols: p, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 2}}
	go server.Serve(few)
	t.Cleanup(func() { server.Close() })
	for want, tg := range map[string]Target{
		"connection refused":            {Addr: closed.Addr().String()},
		"h2 with":                       {Addr: plain, Protocol: HTTP2},
		"upgrade was answered with 400": {Addr: plain, Protocol: WebSocket},
		"TLS with":                      {Addr: plain, Via: ViaTLS, Insecure: true},
		"takes 2 streams on a connection, and 3 were asked for: write --streams 2": {Addr: few.Addr().String(), Protocol: HTTP2},
	} {
		r, err := Do(t.Context(), short(tg, Kind{Size: 1, Bytes: -1}), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v and %+v", want, err, r)
		}
	}
}

// refusing answers every CONNECT with a status.
type refusing struct{ status string }

func (x refusing) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, _ bool) {
	s.Handle(nobody{})
	s.SendHeaders(t, []h2.Field{h2.NewField(":status", x.status)}, true)
}
func (refusing) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (refusing) Idle(*turn.Turn)                             {}

type nobody struct{}

func (nobody) Headers(*turn.Turn, *h2.Stream, []h2.Field, bool) {}
func (nobody) Data(*turn.Turn, *h2.Stream, []byte, bool)        {}
func (nobody) Left(*turn.Turn, *h2.Stream)                      {}
func (nobody) Closed(*turn.Turn, *h2.Stream, error)             {}

func TestRefusedTunnel(t *testing.T) {
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go traffic.ServeMesh(context.Background(), l, server, refusing{"403"})
	s := short(Target{Addr: l.Addr().String(), Via: ViaHBONE, To: "10.96.0.10:80", Certs: c}, Kind{})
	if _, err = Do(t.Context(), s, Options{}); err == nil || !strings.Contains(err.Error(), "CONNECT was answered with 403") {
		t.Errorf("a refused tunnel: %v", err)
	}
}

// TestRestart: connections of a target that goes away are made anew when it is
// back, requests of an open loop wait for them, and each is accounted for.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := listen(t)
	serve := func(l net.Listener) *http.Server {
		s := &http.Server{Handler: page, Protocols: new(http.Protocols)}
		s.Protocols.SetUnencryptedHTTP2(true)
		s.Protocols.SetHTTP1(true)
		go s.Serve(l)
		return s
	}
	for _, p := range []string{HTTP1, HTTP2} {
		if p == HTTP2 {
			l = listen(t)
		}
		first := serve(l)
		var again atomic.Pointer[http.Server]
		s := short(Target{Addr: l.Addr().String(), Protocol: p}, Kind{Bytes: 0})
		s.For, s.Requests, s.Schedule = 2200*time.Millisecond, 0, Schedule{Rate: 200}
		n := 0
		r, err := Do(t.Context(), s, Options{Progress: func(Point, *Running) {
			if n++; n == 1 {
				first.Close()
				back, err := net.Listen("tcp", l.Addr().String())
				if err != nil {
					t.Errorf("listen again: %v", err)
					return
				}
				again.Store(serve(back))
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Load().Close()
		if r.Sent != r.Done+r.Failed || r.Sent < 430 || r.Failed > 20 || r.Lost != int64(s.Connections) {
			t.Errorf("%s: %d requests, %d answered, %d failed (%v), %d connections lost", p, r.Sent, r.Done, r.Failed, r.Failures, r.Lost)
		}
	}
}

// TestGoAway: a target that goes in order loses no request.
func TestGoAway(t *testing.T) {
	t.Parallel()
	l := listen(t)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	first := &http.Server{Handler: page, Protocols: p}
	go first.Serve(l)
	var second http.Server
	defer func() { second.Close() }()
	s := short(Target{Addr: l.Addr().String(), Protocol: HTTP2}, Kind{Bytes: 0})
	s.For, s.Requests, s.Schedule = 2200*time.Millisecond, 0, Schedule{Rate: 100}
	n := 0
	r, err := Do(t.Context(), s, Options{Progress: func(Point, *Running) {
		if n++; n != 1 {
			return
		}
		go first.Shutdown(context.Background()) // closes the listener first
		for {
			back, err := net.Listen("tcp", l.Addr().String())
			if err == nil {
				second.Handler, second.Protocols = page, p
				go second.Serve(back)
				return
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed != 0 || r.Done < 215 || r.Lost != int64(s.Connections) {
		t.Errorf("%d answered, %d failed (%v), %d connections ended: %v", r.Done, r.Failed, r.Failures, r.Lost, r.Why)
	}
}

// TestMix: kinds are drawn by weight, and each is judged for itself.
func TestMix(t *testing.T) {
	l := listen(t)
	serveHTTP(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(500)
		}
		fmt.Fprint(w, r.Header.Get("x-a"))
	}))
	s := short(Target{Addr: l.Addr().String()}, Kind{})
	s.Requests = 4000
	s.Schedule = Schedule{Shape: Closed}
	s.Mix = []Kind{{Name: "good", Weight: 3, Path: "/good", Bytes: 3, Fields: []Field{{"x-a", "abc"}}}, {Name: "bad", Path: "/bad", Bytes: -1}}
	r, err := Do(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := r.Kinds[0], r.Kinds[1]
	if good.Failed != 0 || bad.Done != 0 || good.Done+bad.Failed != 4000 || r.Statuses[500] != bad.Failed || r.Failures["status"] != bad.Failed {
		t.Errorf("%+v %+v %v %v", good, bad, r.Statuses, r.Failures)
	}
	if bad.Failed < 900 || bad.Failed > 1100 { // 3.6 standard deviations
		t.Errorf("%d of 4000 were of the kind that has a quarter of the weight", bad.Failed)
	}
	// As JSON and back it says the same.
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Load(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []float64{1, 50, 99, 100} {
		if a, b := r.Latency.At(p), back.Latency.At(p); a != b || a == 0 {
			t.Errorf("p%v is %v, and read back %v", p, a, b)
		}
	}
	if _, err := Load([]byte(`{"schema": 99}`)); err == nil {
		t.Error("a result of another schema was read")
	}
}

// TestSearch finds the rate at which a made-up target becomes too slow, and
// repeats a step that fails by a hiccup.
func TestSearch(t *testing.T) {
	goal, err := ParseCondition("p99<10ms and errors=0")
	if err != nil {
		t.Fatal(err)
	}
	at := func(limit float64) func(context.Context, float64) (*Result, error) {
		n := 0
		return func(_ context.Context, rate float64) (*Result, error) {
			h := newHistogram()
			n++
			if rate > limit || n == 2 { // the second step has a hiccup
				add(h, int64(20*time.Millisecond))
			} else {
				add(h, int64(time.Millisecond))
			}
			s, err := summarize(h)
			return &Result{Latency: s, Sent: 1, Done: 1}, err
		}
	}
	for _, limit := range []float64{100, 1234, 3, 50_000} {
		g := Search{Goal: goal, From: 100, Most: 20_000, Precision: 0.02, Steps: 40}
		f, err := g.Find(t.Context(), at(limit))
		if err != nil {
			t.Fatal(err)
		}
		want := min(limit, g.Most)
		if f.Rate > want || f.Rate < want/1.03 || limit < g.Most && (f.Above <= limit || f.Above > f.Rate*1.021) {
			t.Errorf("limit %v: found %v, and not at %v, in %d steps", limit, f.Rate, f.Above, len(f.Steps))
		}
	}
	g := Search{Goal: goal, From: 100, Most: 20_000, Precision: 0.02, Steps: 3}
	if f, err := g.Find(t.Context(), at(0)); err != nil || len(f.Steps) != 3 || f.Rate != 0 {
		t.Errorf("three steps at most: %+v, %v", f, err)
	}
	g.Most = 10
	if _, err := g.Find(t.Context(), at(0)); err == nil {
		t.Error("a search that ends below its beginning was made")
	}
}
