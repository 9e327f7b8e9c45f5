package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

const startFormat = "2006-01-02T15:04:05.000Z"

// An entry is what a line says, of a request or of an opaque connection. Its
// slices are views.
type entry struct {
	start                   time.Time
	request                 *message.Request // nil of a connection
	status                  int
	flags, details, failure string
	received, sent          int64
	duration                time.Duration
	last                    *filters.Attempt
	to                      *filters.Service
	protocol                string // in the name of the cluster
	peer                    *peer.Info
	sni                     string
	route                   *filters.RouteInfo
	attempts                int
}

func entryOf(o *proxy.Outcome) entry {
	s := o.Stream
	return entry{
		start: s.Start, request: s.Request, status: o.Status,
		flags: measure.Flags(o.Kind(), o.Exhausted), details: details(o), failure: failure(o.Last()),
		received: o.Received, sent: o.Sent, duration: o.Duration, last: o.Last(), to: o.To(), protocol: "http",
		peer: s.Peer, route: s.Route, attempts: len(s.Attempts),
	}
}

func entryOfConn(o *proxy.ConnOutcome) entry {
	e := entry{
		start: o.Start, flags: measure.Flags(o.Kind(), false), failure: failure(o.Last()),
		received: o.Received, sent: o.Sent, duration: o.Duration, last: o.Last(), to: o.To(), protocol: "tcp",
		peer: o.Peer, sni: o.SNI, route: o.Route, attempts: len(o.Attempts),
	}
	if o.Fault != nil {
		e.details = o.Fault.Details()
	}
	return e
}

// AppendText appends a line in Istio's default format:
//
//	[START_TIME] "METHOD PATH PROTOCOL" CODE FLAGS DETAILS TERMINATION "FAILURE"
//	RECEIVED SENT DURATION UPSTREAM_TIME "X-FORWARDED-FOR" "USER-AGENT" "X-REQUEST-ID"
//	"AUTHORITY" "UPSTREAM_HOST" CLUSTER UPSTREAM_LOCAL LOCAL REMOTE SNI ROUTE
//
// in one line, with a dash for what is not there.
func AppendText(b []byte, o *proxy.Outcome) []byte {
	e := entryOf(o)
	return e.appendText(b)
}

func (e *entry) appendText(b []byte) []byte {
	b = append(b, '[')
	b = e.start.UTC().AppendFormat(b, startFormat)
	b = append(b, `] "`...)
	if r := e.request; r != nil {
		b = quoted(b, r.Method)
		b = append(b, ' ')
		var room [512]byte // a longer path costs an allocation
		b = quoted(b, message.AppendRedacted(room[:0], r.Path))
		b = append(b, ' ')
		b = append(b, r.Proto.String()...)
	} else {
		b = append(b, "- - -"...)
	}
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(e.status), 10)
	b = append(b, ' ')
	b = append(b, e.flags...)
	b = append(b, ' ')
	b = word(b, e.details)
	b = append(b, ` - "`...)
	b = quotedString(b, e.failure)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, e.received, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.sent, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.duration.Milliseconds(), 10)
	b = append(b, ' ')
	if took, ok := e.upstreamTime(); ok {
		b = strconv.AppendInt(b, took, 10)
	} else {
		b = append(b, '-')
	}
	for _, k := range [...]message.Known{message.XForwardedFor, message.UserAgent, message.XRequestID} {
		b = append(b, ` "`...)
		b = quoted(b, e.field(k))
		b = append(b, '"')
	}
	b = append(b, ` "`...)
	b = quoted(b, e.authority())
	b = append(b, `" "`...)
	b = appendAddress(b, e.upstreamHost())
	b = append(b, `" `...)
	b = e.appendCluster(b)
	b = append(b, " - "...)
	b = appendAddress(b, e.local())
	b = append(b, ' ')
	b = appendAddress(b, e.remote())
	b = append(b, ' ')
	b = word(b, e.sni)
	b = append(b, ' ')
	b = word(b, routeName(e.route))
	return append(b, '\n')
}

// AppendJSON appends the same as a line of JSON, with Istio's keys, and behind
// them ours: the rule, who called, and how often it was tried.
func AppendJSON(b []byte, o *proxy.Outcome) []byte {
	e := entryOf(o)
	return e.appendJSON(b)
}

func (e *entry) appendJSON(b []byte) []byte {
	w := object{b: append(b, '{')}
	w.key("start_time")
	w.b = append(w.b, '"')
	w.b = e.start.UTC().AppendFormat(w.b, startFormat)
	w.b = append(w.b, '"')
	w.text("route_name", routeName(e.route))
	if r := e.request; r != nil {
		w.bytes("method", r.Method)
		var room [512]byte // a longer path costs an allocation
		w.bytes("path", message.AppendRedacted(room[:0], r.Path))
		w.text("protocol", r.Proto.String())
	} else {
		w.text("method", "")
		w.text("path", "")
		w.text("protocol", "")
	}
	w.number("response_code", int64(e.status))
	w.text("response_flags", e.flags)
	w.text("response_code_details", e.details)
	w.text("connection_termination_details", "")
	w.number("bytes_received", e.received)
	w.number("bytes_sent", e.sent)
	w.number("duration", e.duration.Milliseconds())
	if took, ok := e.upstreamTime(); ok {
		w.number("upstream_service_time", took)
	} else {
		w.text("upstream_service_time", "")
	}
	w.bytes("x_forwarded_for", e.field(message.XForwardedFor))
	w.bytes("user_agent", e.field(message.UserAgent))
	w.bytes("request_id", e.field(message.XRequestID))
	w.bytes("authority", e.authority())
	w.address("upstream_host", e.upstreamHost())
	if e.to != nil {
		w.key("upstream_cluster")
		w.b = append(w.b, '"')
		w.b = e.appendCluster(w.b)
		w.b = append(w.b, '"')
	} else {
		w.text("upstream_cluster", "")
	}
	w.text("upstream_local_address", "")
	w.address("downstream_local_address", e.local())
	w.address("downstream_remote_address", e.remote())
	w.text("requested_server_name", e.sni)
	w.text("upstream_transport_failure_reason", e.failure)
	if e.route != nil {
		w.text("rule", e.route.Rule)
	}
	if e.peer != nil {
		w.text("source_principal", e.peer.ID.String())
	}
	w.number("attempts", int64(e.attempts))
	return append(w.b, "}\n"...)
}

// An object is a JSON object while it is written.
type object struct {
	b    []byte
	more bool
}

func (w *object) key(k string) {
	if w.more {
		w.b = append(w.b, ',')
	}
	w.more = true
	w.b = append(w.b, '"')
	w.b = append(w.b, k...)
	w.b = append(w.b, `":`...)
}

func (w *object) number(k string, n int64) {
	w.key(k)
	w.b = strconv.AppendInt(w.b, n, 10)
}

func (w *object) text(k, v string)         { w.value(k, len(v) > 0, func() { w.b = escaped(w.b, v) }) }
func (w *object) bytes(k string, v []byte) { w.value(k, len(v) > 0, func() { w.b = escaped(w.b, v) }) }
func (w *object) address(k string, a netip.AddrPort) {
	w.value(k, a.IsValid(), func() { w.b = a.AppendTo(w.b) })
}

// value writes a string, or null if there is none.
func (w *object) value(k string, ok bool, put func()) {
	w.key(k)
	if !ok {
		w.b = append(w.b, "null"...)
		return
	}
	w.b = append(w.b, '"')
	put()
	w.b = append(w.b, '"')
}

// details is RESPONSE_CODE_DETAILS.
func details(o *proxy.Outcome) string {
	switch f := o.Stream.Fault; {
	case o.Reason != "":
		return o.Reason
	case f != nil:
		return f.Details()
	}
	return "via_upstream"
}

// failure is UPSTREAM_TRANSPORT_FAILURE_REASON: why there was no connection to
// the endpoint.
func failure(a *filters.Attempt) string {
	if a == nil || a.Fault == nil || a.Fault.Flag() != fault.UF {
		return ""
	}
	return a.Fault.Error()
}

func (e *entry) field(name message.Known) []byte {
	if e.request == nil {
		return nil
	}
	v, _ := e.request.Header.ValueOf(name)
	return v
}

func (e *entry) authority() []byte {
	if e.request == nil {
		return nil
	}
	return e.request.Authority
}

func (e *entry) upstreamTime() (ms int64, ok bool) {
	if e.last != nil && e.last.Status > 0 {
		return e.last.Took.Milliseconds(), true
	}
	return 0, false
}

func (e *entry) upstreamHost() (a netip.AddrPort) {
	if e.last != nil {
		a = e.last.Endpoint
	}
	return a
}

func (e *entry) local() (a netip.AddrPort) {
	if e.peer != nil {
		a = e.peer.Destination
	}
	return a
}

func (e *entry) remote() (a netip.AddrPort) {
	if e.peer != nil {
		a = e.peer.Client()
	}
	return a
}

func routeName(r *filters.RouteInfo) string {
	if r == nil {
		return ""
	}
	return r.Name
}

// appendCluster writes a service as Istio names a waypoint's clusters.
func (e *entry) appendCluster(b []byte) []byte {
	if e.to == nil {
		return append(b, '-')
	}
	b = append(b, "inbound-vip|"...)
	b = strconv.AppendUint(b, uint64(e.to.Port), 10)
	b = append(b, '|')
	b = append(b, e.protocol...)
	b = append(b, '|')
	return escaped(b, e.to.Host)
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, '-')
	}
	return a.AppendTo(b)
}

// quoted writes text between quotes: nothing in it can end them, or the line.
func quoted(b, text []byte) []byte {
	if len(text) == 0 {
		return append(b, '-')
	}
	return escaped(b, text)
}

func quotedString(b []byte, text string) []byte {
	if text == "" {
		return append(b, '-')
	}
	return escaped(b, text)
}

// word writes what has no spaces; one that has gets quotes.
func word(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c == '"' {
			b = append(b, '"')
			b = escaped(b, text)
			return append(b, '"')
		}
	}
	return quotedString(b, text)
}

// escaped writes text so that JSON takes it as a string, and nobody for
// anything else. Bytes that are no text become U+FFFD.
func escaped[T string | []byte](b []byte, text T) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
			if r == 0x85 || r == 0x2028 || r == 0x2029 || r == utf8.RuneError { // line ends to some
				b = append(b, "�"...)
			} else {
				b = utf8.AppendRune(b, r)
			}
			i += n
			continue
		}
		i++
	}
	return b
}
