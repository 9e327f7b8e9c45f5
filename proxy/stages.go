package proxy

import (
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// stageOf says where the time in a state goes. xConnecting has three stages.
// It is never written.
var stageOf = [states]filters.Stage{
	xNew:        filters.StageAccept,
	xFiltering:  filters.StageFilters,
	xConnecting: filters.StageConnect,
	xSending:    filters.StageFirstByte,
	xResponding: filters.StageFilters,
	xStreaming:  filters.StageBody,
	xUpgraded:   filters.StageBody,
	xDone:       filters.StageBody,
	xOver:       filters.StageBody,
}

// to changes the state: what went before was a stage, which ends now.
//
// Stages end at the clock of the turn, which costs nothing: what takes long
// leaves the turn. Only where filters run, and at the end, is a clock read for
// it.
func (x *exchange) to(t *turn.Turn, s state) {
	x.spend(t)
	x.state = s
}

// spend ends the stage of the present state.
func (x *exchange) spend(t *turn.Turn) {
	now := t.Tick().Sub(x.began)
	if x.stream.Spent(now) {
		return
	}
	if x.state != xConnecting {
		x.stream.Spend(stageOf[x.state], now)
		return
	}
	if x.call == nil {
		x.stream.Spend(filters.StageBackoff, now)
		return
	}
	at, mesh := x.call.Attached()
	switch {
	case !mesh:
		x.stream.Spend(filters.StageConnect, now)
	case at == 0:
		x.stream.Spend(filters.StagePool, now)
	default:
		x.stream.Spend(filters.StagePool, at.Sub(x.began))
		x.stream.Spend(filters.StageConnect, now)
	}
}

// spendNow ends a stage by a look at the clock.
func (x *exchange) spendNow(s filters.Stage) { x.stream.Spend(s, x.began.Ago()) }

// meetFilters ends a stage before filters run. They may wait, and who wakes them
// comes from anywhere.
func (x *exchange) meetFilters(before filters.Stage) {
	x.publish()
	x.spendNow(before)
}

// waited says that the first byte of a request came before anybody could look at
// it, and why.
func (x *exchange) waited(t *turn.Turn, since turn.Tick, why filters.Stage) {
	x.stream.Start, x.began = since.Time(), since
	x.stream.Spend(why, t.Tick().Sub(since))
}

// requestPhase and responsePhase run a chain, and time it if it has anything to
// run. What went before in this turn were the others of its connection.
func (x *exchange) requestPhase(c *filters.Chain) *filters.Reply {
	if !c.SeesRequest() {
		return c.Request(&x.stream)
	}
	x.keepHead()
	x.meetFilters(filters.StageQueue)
	r := c.Request(&x.stream)
	x.spendNow(filters.StageFilters)
	return r
}

func (x *exchange) responsePhase(c *filters.Chain) *filters.Reply {
	if !c.SeesResponse() {
		return c.Response(&x.stream)
	}
	x.meetFilters(filters.StageQueue)
	r := c.Response(&x.stream)
	x.spendNow(filters.StageFilters)
	return r
}
