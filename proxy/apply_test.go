package proxy

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sandwich-mesh/sandwich/hbone"
)

// given reports whether a snapshot has been given up.
func given(r *rig, c *client) (now bool) {
	synctest.Wait()
	in := c.h.(*inner)
	in.Lock()
	defer in.Unlock()
	return in.snap == r.p.Snapshot()
}

// TestApplyRepins: an unused connection takes the new snapshot at once, one with
// an exchange when that is over; the old one is given up with the last of them.
func TestApplyRepins(t *testing.T) {
	gate := make(chan struct{})
	inFakeTime(t, rigOptions{}, func(a *app) {
		for {
			if q, _ := a.request(); q == nil {
				return
			}
			<-gate
			a.reply(200, "ok")
		}
	}, func(r *rig) {
		gate = make(chan struct{}, 1)
		idle, busy := r.open(serviceA), r.open(serviceOne)
		busy.send(get("/"))
		old := r.p.Snapshot()
		r.apply(shop)
		if !given(r, idle) {
			t.Error("an idle connection keeps the old snapshot")
		}
		if given(r, busy) {
			t.Error("a request in progress lost its snapshot")
		}
		if !old.Pin() {
			t.Fatal("the old snapshot is gone while a request runs on it")
		}
		old.Unpin()
		gate <- struct{}{}
		busy.wantStatus(200)
		if !given(r, busy) {
			t.Error("a connection that became idle keeps the old snapshot")
		}
		if old.Pin() {
			t.Error("the old snapshot is still held by somebody")
		}
	})
}

// TestApplyKeepsConnections: an upstream connection serves on across documents.
func TestApplyKeepsConnections(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceOne)
		for range 5 {
			c.send(get("/"))
			c.wantStatus(200)
			r.apply(shop)
		}
		if len(r.apps) != 1 {
			t.Errorf("%d connections for 5 requests", len(r.apps))
		}
	})
}

// TestApplyTakesServiceAway: requests on connections that stand are refused, and
// new tunnels are.
func TestApplyTakesServiceAway(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceA)
		c.send(get("/"))
		c.wantStatus(200)
		r.apply(strings.Replace(shop, "addresses: [10.96.0.1]", "addresses: [10.96.0.10]", 1))
		c.send(get("/"))
		c.wantStatus(404)
		_, err := r.tryOpen(serviceA)
		if ref, ok := err.(*hbone.Refusal); !ok || ref.Status != 400 {
			t.Errorf("got %v", err)
		}
	})
}

// TestApplyTakesEndpointsAway: no request goes to an endpoint that has gone.
func TestApplyTakesEndpointsAway(t *testing.T) {
	inFakeTime(t, rigOptions{}, echo, func(r *rig) {
		c := r.open(serviceOne)
		c.send(get("/"))
		c.wantStatus(200)
		r.apply(strings.Replace(shop, "appProtocol: http}], endpoints: [{workload: a-1}]}", "appProtocol: http}]}", 1))
		c.send(get("/"))
		c.wantStatus(503)
	})
}

// TestHostPicksNothing: the Host of a request changes neither its service nor its
// endpoint.
func TestHostPicksNothing(t *testing.T) {
	inFakeTime(t, rigOptions{}, func(a *app) {
		q, _ := a.request()
		a.reply(200, a.addr+" "+q.Host)
	}, func(r *rig) {
		c := r.open(serviceOne)
		c.send("GET / HTTP/1.1\r\nHost: none\r\n\r\n")
		if got := c.wantStatus(200); got != podA1+" none" {
			t.Errorf("got %q", got)
		}
		pod := r.open(podA2)
		pod.send("GET / HTTP/1.1\r\nHost: 10.1.0.1:9080\r\n\r\n")
		if got := pod.wantStatus(200); got != podA2+" 10.1.0.1:9080" {
			t.Errorf("got %q", got)
		}
	})
}
