package accesslog

import (
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/measure"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

const startFormat = "2006-01-02T15:04:05.000Z"

// AppendText appends a line in Istio's default format:
//
//	[START_TIME] "METHOD PATH PROTOCOL" CODE FLAGS DETAILS TERMINATION "FAILURE"
//	RECEIVED SENT DURATION UPSTREAM_TIME "X-FORWARDED-FOR" "USER-AGENT" "X-REQUEST-ID"
//	"AUTHORITY" "UPSTREAM_HOST" CLUSTER UPSTREAM_LOCAL LOCAL REMOTE SNI ROUTE
//
// in one line, with a dash for what is not there.
func AppendText(b []byte, o *proxy.Outcome) []byte {
	s := o.Stream
	b = append(b, '[')
	b = s.Start.UTC().AppendFormat(b, startFormat)
	b = append(b, `] "`...)
	b = quoted(b, s.Request.Method)
	b = append(b, ' ')
	var room [512]byte // a longer path costs an allocation
	b = quoted(b, message.AppendRedacted(room[:0], s.Request.Path))
	b = append(b, ' ')
	b = append(b, s.Request.Proto.String()...)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(o.Status), 10)
	b = append(b, ' ')
	b = append(b, measure.Flags(o.Kind(), o.Exhausted)...)
	b = append(b, ' ')
	b = word(b, details(o))
	b = append(b, ` - "`...)
	b = quotedString(b, failure(o))
	b = append(b, `" `...)
	b = strconv.AppendInt(b, o.Received, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, o.Sent, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, o.Duration.Milliseconds(), 10)
	b = append(b, ' ')
	if took, ok := upstreamTime(o); ok {
		b = strconv.AppendInt(b, took, 10)
	} else {
		b = append(b, '-')
	}
	for _, k := range [...]message.Known{message.XForwardedFor, message.UserAgent, message.XRequestID} {
		v, _ := s.Request.Header.ValueOf(k)
		b = append(b, ` "`...)
		b = quoted(b, v)
		b = append(b, '"')
	}
	b = append(b, ` "`...)
	b = quoted(b, s.Request.Authority)
	b = append(b, `" "`...)
	b = appendAddress(b, upstreamHost(o))
	b = append(b, `" `...)
	b = appendCluster(b, o.To())
	b = append(b, " - "...)
	b = appendAddress(b, local(o))
	b = append(b, ' ')
	b = appendAddress(b, remote(o))
	b = append(b, " - "...)
	b = word(b, routeName(s.Route))
	return append(b, '\n')
}

// AppendJSON appends the same as a line of JSON, with Istio's keys, and behind
// them ours: the rule, who called, and how often it was tried.
func AppendJSON(b []byte, o *proxy.Outcome) []byte {
	s := o.Stream
	w := object{b: append(b, '{')}
	w.key("start_time")
	w.b = append(w.b, '"')
	w.b = s.Start.UTC().AppendFormat(w.b, startFormat)
	w.b = append(w.b, '"')
	w.text("route_name", routeName(s.Route))
	w.bytes("method", s.Request.Method)
	var room [512]byte // a longer path costs an allocation
	w.bytes("path", message.AppendRedacted(room[:0], s.Request.Path))
	w.text("protocol", s.Request.Proto.String())
	w.number("response_code", int64(o.Status))
	w.text("response_flags", measure.Flags(o.Kind(), o.Exhausted))
	w.text("response_code_details", details(o))
	w.text("connection_termination_details", "")
	w.number("bytes_received", o.Received)
	w.number("bytes_sent", o.Sent)
	w.number("duration", o.Duration.Milliseconds())
	if took, ok := upstreamTime(o); ok {
		w.number("upstream_service_time", took)
	} else {
		w.text("upstream_service_time", "")
	}
	w.field("x_forwarded_for", s, message.XForwardedFor)
	w.field("user_agent", s, message.UserAgent)
	w.field("request_id", s, message.XRequestID)
	w.bytes("authority", s.Request.Authority)
	w.address("upstream_host", upstreamHost(o))
	if to := o.To(); to != nil {
		w.key("upstream_cluster")
		w.b = append(w.b, '"')
		w.b = appendCluster(w.b, to)
		w.b = append(w.b, '"')
	} else {
		w.text("upstream_cluster", "")
	}
	w.text("upstream_local_address", "")
	w.address("downstream_local_address", local(o))
	w.address("downstream_remote_address", remote(o))
	w.text("requested_server_name", "")
	w.text("upstream_transport_failure_reason", failure(o))
	if s.Route != nil {
		w.text("rule", s.Route.Rule)
	}
	if s.Peer != nil {
		w.text("source_principal", s.Peer.ID.String())
	}
	w.number("attempts", int64(len(s.Attempts)))
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

func (w *object) field(k string, s *filters.Stream, name message.Known) {
	v, _ := s.Request.Header.ValueOf(name)
	w.bytes(k, v)
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
func failure(o *proxy.Outcome) string {
	a := o.Last()
	if a == nil || a.Fault == nil || a.Fault.Flag() != fault.UF {
		return ""
	}
	return a.Fault.Error()
}

func upstreamTime(o *proxy.Outcome) (ms int64, ok bool) {
	if a := o.Last(); a != nil && a.Status > 0 {
		return a.Took.Milliseconds(), true
	}
	return 0, false
}

func upstreamHost(o *proxy.Outcome) netip.AddrPort {
	if a := o.Last(); a != nil {
		return a.Endpoint
	}
	return netip.AddrPort{}
}

func local(o *proxy.Outcome) netip.AddrPort {
	if p := o.Stream.Peer; p != nil {
		return p.Destination
	}
	return netip.AddrPort{}
}

func remote(o *proxy.Outcome) netip.AddrPort {
	if p := o.Stream.Peer; p != nil {
		return p.Client()
	}
	return netip.AddrPort{}
}

func routeName(r *filters.RouteInfo) string {
	if r == nil {
		return ""
	}
	return r.Name
}

// appendCluster writes a service as Istio names a waypoint's clusters.
func appendCluster(b []byte, to *filters.Service) []byte {
	if to == nil {
		return append(b, '-')
	}
	b = append(b, "inbound-vip|"...)
	b = strconv.AppendUint(b, uint64(to.Port), 10)
	b = append(b, "|http|"...)
	return escaped(b, to.Host)
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
