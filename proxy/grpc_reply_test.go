package proxy

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// denier replies to every request.
type denier struct{ reply *filters.Reply }

func (d denier) Request(*filters.Stream) *filters.Reply { return d.reply }

// TestGRPCReplies: every answer of ours to a call is a status and nothing else, by
// the one table, faults included. What is no call gets what everybody gets.
func TestGRPCReplies(t *testing.T) {
	for _, row := range []struct {
		name    string
		dest    string
		doc     string
		dial    error
		after   time.Duration
		deny    *filters.Reply
		status  int
		message string
	}{
		{name: "no endpoint", dest: serviceGone2, status: 14, message: "no healthy upstream"},
		{name: "no route", doc: strings.Replace(doc2("retry: {attempts: 0}"), "value: /}", "value: /elsewhere}", 1), status: 12, message: "no route matches"},
		{name: "time is up", doc: doc2("timeouts: {request: 1s}"), dial: os.ErrDeadlineExceeded, after: 2 * time.Second, status: 14, message: "upstream timed out"},
		{name: "denied", deny: &filters.Reply{Status: 403, Body: []byte("no: 100 % sure, ü\n"), Reason: "x"}, status: 7, message: "no: 100 %25 sure, %C3%BC"},
		{name: "unauthentic", deny: &filters.Reply{Status: 401, Header: []filters.Field{{Name: "www-authenticate", Value: "Bearer"}, {Name: "content-type", Value: "text/html"}}}, status: 16},
		{name: "limited", deny: &filters.Reply{Status: 429}, status: 14},
		{name: "long", deny: &filters.Reply{Status: 500, Body: []byte(strings.Repeat("x", 5000))}, status: 2, message: strings.Repeat("x", maxMessage)},
		{name: "redirected", deny: &filters.Reply{Status: 301, Header: []filters.Field{{Name: "location", Value: "/y"}}}, status: 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := rigOptions{doc: row.doc}
			if o.doc == "" {
				o.doc = doc2("")
			}
			if row.deny != nil {
				o.registry = []filters.Kind{{Name: "verdict", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return denier{row.deny}, nil }}}
				o.guard = func(b *filters.Builder, _ string) error { return b.Add("verdict", "v", filters.NewSpec(nil)) }
			}
			inFakeTime(t, o, speaks2(echo2), func(r *rig) {
				r.dial = func(string) error { return row.dial }
				if row.dest == "" {
					row.dest = serviceTwo
				}
				c := r.open2(row.dest)
				c.head(1, true, callHead()...)
				c.flush()
				pass(row.after)
				want := "head 1 :status=200 content-type=application/grpc"
				if row.deny != nil && len(row.deny.Header) > 0 {
					want += " " + row.deny.Header[0].Name + "=" + row.deny.Header[0].Value
				}
				want += fmt.Sprintf(" grpc-status=%d", row.status)
				if row.message != "" {
					want += " grpc-message=" + row.message
				}
				c.want(want + " end")
				if o := r.outcome(); o.status != 200 {
					t.Errorf("got %v", o)
				}
				c.head(3, true, getHead("/")...) // the control
				c.flush()
				pass(row.after)
				c.pull()
				if len(c.frames) == 0 || strings.Contains(c.frames[0], "grpc-status") {
					t.Errorf("what is no call got %q", c.frames)
				}
				c.frames = nil
				c.settled2()
			})
		})
	}
}

// TestGRPCTable: the whole table, and what is not in it.
func TestGRPCTable(t *testing.T) {
	want := map[int]int{400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
	for status := 100; status < 600; status++ {
		w, ok := want[status]
		if !ok {
			w = 2
		}
		if got := grpcStatus(status); got != w {
			t.Errorf("HTTP %d is gRPC %d, want %d", status, got, w)
		}
	}
	for k := range fault.Kinds {
		if s := k.Row().Status; s != 0 && grpcStatus(s) == 0 {
			t.Errorf("%v would be OK", k)
		}
	}
}

// TestGRPCTimeout: a call's own word is its deadline, unless the route has a
// shorter one; what is no time is none.
func TestGRPCTimeout(t *testing.T) {
	parse := func(contentType, v string) time.Duration {
		var r message.Request
		r.Header.Add("content-type", contentType)
		r.Header.Add("grpc-timeout", v)
		return grpcTimeout(&r)
	}
	for v, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"00000001S": time.Second, "0m": 1, "99999999H": 0, "123456789n": 0, "1": 0, "S": 0, "1s": 0, "-1S": 0, "1.5S": 0, "": 0, "1 S": 0,
	} {
		if got := parse("application/grpc", v); got != want {
			t.Errorf("%q: got %v, want %v", v, got, want)
		}
	}
	for contentType, want := range map[string]time.Duration{
		"application/grpc+proto": time.Second, "Application/gRPC; x=y": time.Second, "application/grpc-web": 0, "application/grp": 0, "text/plain": 0,
	} {
		if got := parse(contentType, "1S"); got != want {
			t.Errorf("%s: got %v, want %v", contentType, got, want)
		}
	}
	for _, row := range []struct {
		name, rule, own string
		want            time.Duration
	}{
		{"its own", "", "2S", 2 * time.Second},
		{"the route's is shorter", "timeouts: {request: 1s}", "2S", time.Second},
		{"the route's is longer", "timeouts: {request: 3s}", "2S", 2 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFakeTime(t, rigOptions{doc: doc2(row.rule)}, speaks2(func(*app2, string) {}), func(r *rig) {
				c := r.open2(serviceTwo)
				c.head(1, true, callHead("grpc-timeout: "+row.own)...)
				c.flush()
				pass(row.want - 10*time.Millisecond)
				c.want()
				pass(30 * time.Millisecond)
				c.want("head 1 :status=200 content-type=application/grpc grpc-status=14 grpc-message=upstream timed out end")
				c.settled2()
			})
		})
	}
}
