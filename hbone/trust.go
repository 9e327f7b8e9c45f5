package hbone

import "time"

// recheckEvery is how often the peers of live connections are looked at when no
// certificate of ours has changed: authorities expire too.
const recheckEvery = 5 * time.Minute

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
