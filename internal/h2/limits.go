package h2

import (
	"errors"
	"sync/atomic"
)

// Limits bounds what a peer may make this end do. Zero fields mean the default.
//
// Rates are counts that halve every 30 s (rateWindow). Each has an allowance on
// top that grows with useful work, so that only work without use is bounded.
type Limits struct {
	HeaderFields  int // fields of one head, pseudo-header fields and cookie crumbs included
	HeaderBlock   int // compressed bytes of one head; also the longest control frame
	Continuations int // CONTINUATION frames of one head
	EmptyData     int // consecutive DATA frames without content or END_STREAM

	Resets   int // resets by the peer within a second or two and before an answer (in a tunnel, content), and resets it provoked, beyond one per stream answered; a head that is too large counts for four
	Settings int // SETTINGS frames
	Pings    int // PING frames, beyond one per DATA frame either way (gRPC measures bandwidth with them)
	Unknown  int // frames of unknown type, beyond one per stream opened
	Priority int // PRIORITY frames, times one plus the streams opened
	Windows  int // WINDOW_UPDATE frames, beyond 2 per stream opened and 20 per DATA frame sent
	Strays   int // other frames for streams that are gone, beyond one per stream opened and one per DATA frame for one that is not

	// Unread is how much may wait to leave before an answer that the peer
	// provokes (an acknowledgement, a reset) ends the connection instead.
	Unread int
}

// The defaults follow Envoy's advice for edges where it has a number
// (PRIORITY and WINDOW_UPDATE formulas) and otherwise leave ordinary peers an
// order of magnitude of room.
var defaultLimits = Limits{
	HeaderFields:  100,
	HeaderBlock:   64 << 10,
	Continuations: 8,
	EmptyData:     4,
	Resets:        200,
	Settings:      200,
	Pings:         200,
	Unknown:       200,
	Priority:      100,
	Windows:       200,
	Strays:        1000,
	Unread:        outCap + 256<<10,
}

func (l *Limits) fill() {
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&l.HeaderFields, defaultLimits.HeaderFields},
		{&l.HeaderBlock, defaultLimits.HeaderBlock},
		{&l.Continuations, defaultLimits.Continuations},
		{&l.EmptyData, defaultLimits.EmptyData},
		{&l.Resets, defaultLimits.Resets},
		{&l.Settings, defaultLimits.Settings},
		{&l.Pings, defaultLimits.Pings},
		{&l.Unknown, defaultLimits.Unknown},
		{&l.Priority, defaultLimits.Priority},
		{&l.Windows, defaultLimits.Windows},
		{&l.Strays, defaultLimits.Strays},
		{&l.Unread, defaultLimits.Unread},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
}

// Stats counts what happened on a connection since it began.
type Stats struct {
	StreamsOpened  uint64 // by either end
	StreamsRefused uint64 // beyond MaxStreams
	DataFramesIn   uint64
	DataFramesOut  uint64
	DataMerged     uint64 // writes that went into the frame before them
	DataBytesIn    uint64
	DataBytesOut   uint64
	DataIgnored    uint64 // bytes for streams reset here, credited and dropped
	ResetsIn       uint64
	ResetsOut      uint64
	Malformed      uint64 // heads refused for their form
	HeadsTooLarge  uint64
	SettingsIn     uint64
	PingsIn        uint64
	Flushes        uint64 // writes to the sink
}

// Stats returns the counters.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// A Limit is one of Limits, or a time that a peer may take.
type Limit uint8

// The limits. Those up to LimitStrays have a rate.
const (
	LimitResets Limit = iota
	LimitSettings
	LimitPings
	LimitUnknown
	LimitPriority
	LimitWindows
	LimitStrays

	LimitHeaderFields // and MaxHeaderList: a head was refused, the connection lives
	LimitHeaderBlock
	LimitContinuations
	LimitEmptyData
	LimitUnread
	LimitStreams // MaxStreams: a stream was refused, the connection lives

	LimitFrameTime    // a frame or a head was not finished in time
	LimitSettingsTime // our SETTINGS were not acknowledged in time
	LimitPingTime     // our PING was not answered in time

	LimitCount // how many there are

	costs = LimitStrays + 1
)

// limits says of each what it is called in metrics, and in a GOAWAY if it ends
// the connection. It is never written.
var limits = [LimitCount]struct{ name, reason string }{
	LimitResets:        {"resets", "too many stream resets"},
	LimitSettings:      {"settings", "too many SETTINGS"},
	LimitPings:         {"pings", "too many PING"},
	LimitUnknown:       {"unknown", "too many frames of unknown type"},
	LimitPriority:      {"priority", "too many PRIORITY"},
	LimitWindows:       {"windows", "too many WINDOW_UPDATE"},
	LimitStrays:        {"strays", "too many frames for streams that are gone"},
	LimitHeaderFields:  {"header_fields", "head too large"},
	LimitHeaderBlock:   {"header_block", "head or control frame too long"},
	LimitContinuations: {"continuations", "head in too many pieces"},
	LimitEmptyData:     {"empty_data", "too many empty DATA frames"},
	LimitUnread:        {"unread", "peer does not read what it asks for"},
	LimitStreams:       {"max_streams", "too many streams at once"},
	LimitFrameTime:     {"frame_time", "frame or head not finished in time"},
	LimitSettingsTime:  {"settings_time", ErrSettingsTimeout.Error()},
	LimitPingTime:      {"ping_time", ErrPingTimeout.Error()},
}

func (l Limit) String() string { return limits[l].name }

// Counters say how often a peer met each limit. Connections of one owner share
// them.
type Counters [LimitCount]atomic.Int64

// met counts that the peer met a limit.
func (c *Conn) met(l Limit) {
	if c.o.Counters != nil {
		c.o.Counters[l].Add(1)
	}
}

// Flooded reports whether err, from Feed, says that the peer went beyond a limit.
func Flooded(err error) bool {
	ce, ok := errors.AsType[*ConnError](err)
	return ok && ce.Code == CodeEnhanceYourCalm
}

// beyond is the connection error of a peer that went beyond a limit.
func (c *Conn) beyond(l Limit) error {
	c.met(l)
	return &ConnError{Code: CodeEnhanceYourCalm, Reason: limits[l].reason}
}

// rates counts costs and useful work, both fading with time.
type rates struct {
	spent    [costs]int
	opened   int // streams
	answered int // streams whose head went out; tunnels, whose content did
	dataIn   int // DATA frames for streams that are open
	dataOut  int
	empty    int // consecutive empty DATA frames; does not fade
}

// fade halves what was counted. Halving costs together with the work that
// justifies them leaves no edge between windows at which a lawful peer trips.
func (r *rates) fade() {
	for i := range r.spent {
		r.spent[i] /= 2
	}
	r.opened /= 2
	r.answered /= 2
	r.dataIn /= 2
	r.dataOut /= 2
}

// largeHead is for how many resets a client's head counts that is too large: all of
// it has been decoded, for nothing.
const largeHead = 4

// headTooLarge counts one, and all of what it costs but the reset that follows. A
// server's heads answer what this end has asked. c.mu is held.
func (c *Conn) headTooLarge() {
	c.stats.HeadsTooLarge++
	c.met(LimitHeaderFields)
	if !c.o.Client {
		c.rate.spent[LimitResets] += largeHead - 1
	}
}

// charge counts one k and reports the connection error that is due when there
// were too many. c.mu is held.
func (c *Conn) charge(k Limit) error {
	r, l := &c.rate, &c.o.Limits
	r.spent[k]++
	var most int
	switch k {
	case LimitResets:
		most = l.Resets + r.answered
	case LimitSettings:
		most = l.Settings
	case LimitPings:
		most = l.Pings + r.dataIn + r.dataOut
	case LimitUnknown:
		most = l.Unknown + r.opened
	case LimitPriority:
		most = l.Priority * (1 + r.opened)
	case LimitWindows:
		most = l.Windows + 2*r.opened + 20*r.dataOut
	case LimitStrays:
		most = l.Strays + r.opened + r.dataIn
	}
	if r.spent[k] > most {
		return c.beyond(k)
	}
	return nil
}

// chargeAnswer is charge for a frame that obliges this end to answer: a peer
// that does not read the answers must not make them pile up.
func (c *Conn) chargeAnswer(k Limit) error {
	if len(c.out)+c.sinkHeld > c.o.Limits.Unread {
		c.sinkHeld = c.sink.Buffered()
		if len(c.out)+c.sinkHeld > c.o.Limits.Unread {
			return c.beyond(LimitUnread)
		}
	}
	return c.charge(k)
}
