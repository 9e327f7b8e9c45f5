package h2

// Limits bounds what a peer may make this end do. Zero fields mean the default.
//
// Rates are counts that halve every 30 s (rateWindow). Each has an allowance on
// top that grows with useful work, so that only work without use is bounded.
type Limits struct {
	HeaderFields  int // fields of one head, pseudo-header fields and cookie crumbs included
	HeaderBlock   int // compressed bytes of one head; also the longest control frame
	Continuations int // CONTINUATION frames of one head
	EmptyData     int // consecutive DATA frames without content or END_STREAM

	Resets   int // resets by the peer within a second or two and without an answer, and resets it provoked, beyond one per stream answered
	Settings int // SETTINGS frames
	Pings    int // PING frames, beyond one per DATA frame either way (gRPC measures bandwidth with them)
	Unknown  int // frames of unknown type, beyond one per stream opened
	Priority int // PRIORITY frames, times one plus the streams opened
	Windows  int // WINDOW_UPDATE frames, beyond 2 per stream opened and 20 per DATA frame sent

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

// A cost is a kind of frame, or of trouble, that has a rate.
type cost int

const (
	costReset cost = iota
	costSettings
	costPing
	costUnknown
	costPriority
	costWindow
	costs // how many there are
)

var costNames = [costs]string{"stream resets", "SETTINGS", "PING", "frames of unknown type", "PRIORITY", "WINDOW_UPDATE"}

// rates counts costs and useful work, both fading with time.
type rates struct {
	spent    [costs]int
	opened   int // streams
	answered int // streams whose head went out
	dataIn   int // DATA frames
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

// charge counts one k and reports the connection error that is due when there
// were too many. c.mu is held.
func (c *Conn) charge(k cost) error {
	r, l := &c.rate, &c.o.Limits
	r.spent[k]++
	var most int
	switch k {
	case costReset:
		most = l.Resets + r.answered
	case costSettings:
		most = l.Settings
	case costPing:
		most = l.Pings + r.dataIn + r.dataOut
	case costUnknown:
		most = l.Unknown + r.opened
	case costPriority:
		most = l.Priority * (1 + r.opened)
	case costWindow:
		most = l.Windows + 2*r.opened + 20*r.dataOut
	}
	if r.spent[k] > most {
		return &ConnError{Code: CodeEnhanceYourCalm, Reason: "too many " + costNames[k]}
	}
	return nil
}

// chargeAnswer is charge for a frame that obliges this end to answer: a peer
// that does not read the answers must not make them pile up.
func (c *Conn) chargeAnswer(k cost) error {
	if len(c.out)+c.sinkHeld > c.o.Limits.Unread {
		c.sinkHeld = c.sink.Buffered()
		if len(c.out)+c.sinkHeld > c.o.Limits.Unread {
			return &ConnError{Code: CodeEnhanceYourCalm, Reason: "peer does not read what it asks for"}
		}
	}
	return c.charge(k)
}
