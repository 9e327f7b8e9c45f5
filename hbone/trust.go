package hbone

import "time"

// recheckEvery is how often the peers of live connections are looked at when no
// certificate of ours has changed: authorities expire too.
const recheckEvery = 5 * time.Minute

// leaveAhead is how long before its certificates end a mesh connection takes no
// new streams, so that those it has can finish. Of a connection that has less than a
// minute it is the last half.
const leaveAhead = 30 * time.Second

// leaveAt is when a connection that is made now takes no new streams any more: a
// while before the first of its two certificates ends. By then both sides have
// newer ones, and the next connection is made with those.
func leaveAt(peer *PeerCertificate, own *Credentials, now time.Time) time.Time {
	end := peer.NotAfter
	if own != nil && own.NotAfter.Before(end) {
		end = own.NotAfter
	}
	return end.Add(-min(leaveAhead, end.Sub(now)/2))
}

// watch asks recheck to look at live connections after each change of the
// current set, and now and then, until done is closed. It is a goroutine's body.
func (c *Certificates) watch(done <-chan struct{}, recheck func()) {
	every := time.NewTicker(recheckEvery)
	defer every.Stop()
	for {
		changed := c.Changed() // before the look, so that no change is missed
		recheck()
		select {
		case <-changed:
		case <-every.C:
		case <-done:
			return
		}
	}
}
