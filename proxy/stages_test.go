package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
)

// delay is what the tests put into one stage.
const delay = 50 * time.Millisecond

// A patient filter waits, and a Worker takes its time for it.
type patient struct{}

func (patient) Request(*filters.Stream) *filters.Reply { return filters.Wait }

func (patient) Work(context.Context, *filters.Stream, filters.Phase) *filters.Reply {
	<-time.After(delay)
	return nil
}

func patients() filters.Kind {
	return filters.Kind{Name: "patient", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return patient{}, nil }}
}

// A stageCase is one place to be slow in.
type stageCase struct {
	name  string
	want  filters.Stage
	waits bool // a filter does
	doc   string
	app   func(*app)
	dial  func(n int) error // the n-th dial, from 1
	send  func(c *client)
	after int // requests that come before the one that is looked at
}

func stageCases() []stageCase {
	whole := func(c *client) { c.send(post("/x", "hello")) }
	nap := func() { <-time.After(delay) }
	return []stageCase{
		{name: "the head comes in two pieces", want: filters.StageAccept, send: func(c *client) {
			c.send("POST /x HTTP/1.1\r\nHost: a\r\n")
			nap()
			c.send("Content-Length: 5\r\n\r\nhello")
		}},
		{name: "detection", want: filters.StageDetect, doc: strings.Replace(shop, ", appProtocol: http}], endpoints: [{workload: a-1}, {workload: a-2}]", "}], endpoints: [{workload: a-1}]", 1), send: func(c *client) {
			c.send("POS")
			nap()
			c.send(post("/x", "hello")[3:])
		}},
		{name: "a request before it", want: filters.StageQueue, after: 1, app: func(a *app) {
			for q, _ := a.request(); q != nil; q, _ = a.request() {
				if q.RequestURI == "/first" {
					nap()
				}
				a.reply(200, "")
			}
		}, send: func(c *client) { c.send(get("/first") + get("/second")) }},
		{name: "a filter that waits", want: filters.StageFilters, waits: true, send: whole},
		{name: "the dial", want: filters.StageConnect, dial: func(int) error { nap(); return nil }, send: whole},
		{name: "the back-off", want: filters.StageBackoff, doc: routed("retry: {attempts: 1, backoff: 50ms}"), dial: func(n int) error {
			if n == 1 {
				return errors.New("refused")
			}
			return nil
		}, send: whole},
		{name: "the endpoint", want: filters.StageFirstByte, app: func(a *app) { a.request(); nap(); a.reply(200, "") }, send: whole},
		{name: "the request's body", want: filters.StageFirstByte, send: func(c *client) {
			c.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
			nap()
			c.send("llo")
		}},
		{name: "the response's body", want: filters.StageBody, app: func(a *app) {
			a.request()
			a.send("HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\na")
			nap()
			a.send("b")
		}, send: whole},
	}
}

// TestStages puts a delay into each stage in turn: it appears in that stage and
// in no other, and the stages are together what passed.
func TestStages(t *testing.T) {
	for _, row := range stageCases() {
		t.Run(row.name, func(t *testing.T) {
			o := rigOptions{doc: row.doc}
			if row.waits {
				o.registry, o.guard = kinds(patients()), guardWith("patient", nil)
			}
			if row.app == nil {
				row.app = echo
			}
			inFakeTime(t, o, row.app, func(r *rig) {
				n := 0
				r.dial = func(string) error {
					if n++; row.dial != nil {
						return row.dial(n)
					}
					return nil
				}
				row.send(r.open(serviceA))
				pass(4 * delay)
				if len(r.seen) != row.after+1 {
					t.Fatalf("%d requests are over: %v", len(r.seen), r.seen)
				}
				got := r.seen[row.after]
				r.seen = nil
				lo, hi := delay, delay
				if row.want == filters.StageBackoff { // the policy's jitter
					lo, hi = time.Millisecond, 2*delay
				}
				for s, took := range got.times {
					if filters.Stage(s) == row.want && (took < lo || took > hi) || filters.Stage(s) != row.want && took > 0 {
						t.Errorf("%v in %s", took, filters.Stage(s))
					}
				}
				if got.times.Sum() != got.took {
					t.Errorf("the stages are %v together, the request took %v", got.times.Sum(), got.took)
				}
			})
		})
	}
}
