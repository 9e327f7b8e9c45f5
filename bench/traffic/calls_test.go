package traffic

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// startCalls serves gRPC with h and starts a run that loads it.
func startCalls(t *testing.T, h h2.ConnHandler, plan Plan) *Run {
	t.Helper()
	c := certs(t)
	server, _, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go ServeMesh(t.Context(), l, server, h)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	plan.Addr, plan.Via, plan.To, plan.Certs = l.Addr().String(), ViaHBONE, "10.96.0.10:80", c
	run, err := Start(ctx, &plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run.Close)
	return run
}

func TestCalls(t *testing.T) {
	for _, tc := range []struct {
		name string
		plan Plan
	}{
		{"as the bar has it", Plan{Conns: 4, Calls: 8, Groups: []Group{{Name: "calls", Streams: 32, Answer: 1024}}}},
		{"a channel that is not full", Plan{Conns: 1, Calls: 3, Groups: []Group{{Name: "calls", Streams: 7, Answer: 10}}}},
		{"nothing", Plan{Conns: 1, Calls: 1, Groups: []Group{{Name: "calls", Streams: 1}}}},
		{"larger than a window", Plan{Conns: 1, Calls: 2, Groups: []Group{{Name: "small", Streams: 1, Answer: 10}, {Name: "long", Streams: 1, Answer: 900_000}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := startCalls(t, callTunnels{}, tc.plan)
			streams := 0
			for _, g := range tc.plan.Groups {
				streams += g.Streams
			}
			for range 3 {
				res, err := run.Measure(t.Context(), Measure{Warm: 5 * time.Millisecond, For: 50 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				if err := res.Err(); err != nil {
					t.Fatal(err)
				}
				if res.Requests() == 0 {
					t.Error("no call was answered")
				}
				before := res.Total
				if res, err = run.Measure(t.Context(), Measure{Each: true}); err != nil {
					t.Fatal(err)
				}
				if got := res.Total - before; got != int64(streams) {
					t.Errorf("each of %d callers called once: %d answers", streams, got)
				}
			}
		})
	}
}

// A callLiar answers calls wrongly.
type callLiar struct {
	calls
	lie func(t *turn.Turn, s *h2.Stream, number []byte)
}

func (l callLiar) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, _ bool) {
	s.Handle(&lying{lie: l.lie})
}

type lying struct {
	answering
	lie func(t *turn.Turn, s *h2.Stream, number []byte)
}

func (l *lying) Data(t *turn.Turn, s *h2.Stream, p []byte, end bool) {
	l.asked = append(l.asked, p...)
	if end {
		l.lie(t, s, l.asked[callPrefix:callPrefix+tokenLen])
	}
}

// callLiars accept every CONNECT and lie inside.
type callLiars struct{ callLiar }

func (l callLiars) Request(t *turn.Turn, s *h2.Stream, _ []h2.Field, end bool) {
	e := &callTunnel{}
	s.Handle(e)
	s.SendHeaders(t, statusOK, end)
	e.engine = h2.NewConn(s, l.callLiar, h2.Options{MaxStreams: manyStreams})
	e.engine.Start(t)
}

// TestCallsNoticeLies: what is not the answer is an error. The first row is the
// control.
func TestCallsNoticeLies(t *testing.T) {
	message := func(number []byte, body string) []byte {
		return append(append(appendPrefix(nil, int64(tokenLen+len(body))), number...), body...)
	}
	right := string(body(0, 10, 10))
	for _, tc := range []struct {
		name, want string
		lie        func(t *turn.Turn, s *h2.Stream, number []byte)
	}{
		{"the truth", "", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message(number, right))
			s.SendHeaders(t, callEnd, true)
		}},
		{"another's number", "came for", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message([]byte("0123456789abcdef"), right))
			s.SendHeaders(t, callEnd, true)
		}},
		{"other bytes", "differs", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message(number, strings.Repeat("x", 10)))
			s.SendHeaders(t, callEnd, true)
		}},
		{"another length", "want 26 bytes", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message(number, right[:9]))
			s.SendHeaders(t, callEnd, true)
		}},
		{"half a message", "message whole: false", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message(number, right)[:20])
			s.SendHeaders(t, callEnd, true)
		}},
		{"more than a message", "nobody asked for", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, append(message(number, right), 0))
			s.SendHeaders(t, callEnd, true)
		}},
		{"another status", "status 13", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message(number, right))
			s.SendHeaders(t, []h2.Field{h2.NewField("grpc-status", "13")}, true)
		}},
		{"no status", "without a status", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, callOK, false)
			s.Write(t, message(number, right))
			s.CloseWrite(t)
		}},
		{"a status alone", "nothing but a status: 0", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, append(callOK[:len(callOK):len(callOK)], callEnd...), true)
		}},
		{"HTTP's status", "answered with 503", func(t *turn.Turn, s *h2.Stream, number []byte) {
			s.SendHeaders(t, []h2.Field{h2.NewField(":status", "503")}, true)
		}},
		{"a reset", "CANCEL", func(t *turn.Turn, s *h2.Stream, number []byte) { s.Abort(t, h2.CodeCancel) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := startCalls(t, callLiars{callLiar: callLiar{lie: tc.lie}}, Plan{Conns: 1, Calls: 1, Groups: []Group{{Name: "calls", Streams: 1, Answer: 10}}})
			res, err := run.Measure(t.Context(), Measure{For: 20 * time.Millisecond, Stay: true})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := res.Err(); err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCallsThatCannotBePlanned(t *testing.T) {
	for name, p := range map[string]Plan{
		"plain":       {Via: ViaPlain, Calls: 1, Groups: []Group{{Name: "x"}}},
		"uploads":     {Via: ViaHBONE, Calls: 1, Groups: []Group{{Name: "x", Upload: 1}}},
		"slow":        {Via: ViaHBONE, Calls: 1, Groups: []Group{{Name: "x", Rate: 1}}},
		"an old ship": {Via: "ship"},
	} {
		if _, err := Start(t.Context(), &p); err == nil || !strings.Contains(err.Error(), "plan") {
			t.Errorf("%s: got %v, want that it cannot be planned", name, err)
		}
	}
}
