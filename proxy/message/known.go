package message

// A Known is the id of a well-known field name, so that a name is compared as
// one byte. Unknown is every other name.
type Known uint8

// The names up to Host speak of one connection, of framing or of routing: codecs
// turn them into Length, flags and Authority, and never copy them from one side
// to the other (RFC 9110, section 7.6.1).
const (
	Unknown Known = iota
	Connection
	ContentLength
	TransferEncoding
	KeepAlive
	ProxyConnection
	TE
	Trailer
	Upgrade
	HTTP2Settings
	Expect
	Host

	XRequestID // every request is asked for it: its bit in Header.has is no common name's

	Accept
	AcceptEncoding
	AcceptLanguage
	AcceptRanges
	AccessControlAllowOrigin
	AccessControlRequestMethod
	Age
	Allow
	Authorization
	B3
	Baggage
	CacheControl
	ContentDisposition
	ContentEncoding
	ContentLanguage
	ContentLocation
	ContentRange
	ContentType
	Cookie
	Date
	ETag
	Expires
	Forwarded
	From
	GRPCEncoding
	GRPCMessage
	GRPCStatus
	GRPCTimeout
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	LastModified
	Link
	Location
	MaxForwards
	Origin
	Pragma
	ProxyAuthenticate
	ProxyAuthorization
	Range
	Referer
	RetryAfter
	SecFetchMode
	SecWebSocketKey
	Server
	SetCookie
	StrictTransportSecurity
	Traceparent
	Tracestate
	UpgradeInsecureRequests
	UserAgent
	Vary
	Via
	Warning
	WWWAuthenticate
	XB3SpanID
	XB3TraceID
	XContentTypeOptions
	XForwardedClientCert
	XForwardedFor
	XForwardedHost
	XForwardedProto
	numKnown
)

// knownName is one row: the name as most senders write it, its lower case, and
// whether it may stand in a trailer.
type knownName struct {
	name, lower string
	noTrailer   bool
}

// names is the table of ids. What would change framing, routing, authentication
// or the meaning of the content is refused in trailers (RFC 9110, section 6.5.1).
var names = [numKnown]knownName{
	Connection:       {"Connection", "connection", true},
	ContentLength:    {"Content-Length", "content-length", true},
	TransferEncoding: {"Transfer-Encoding", "transfer-encoding", true},
	KeepAlive:        {"Keep-Alive", "keep-alive", true},
	ProxyConnection:  {"Proxy-Connection", "proxy-connection", true},
	TE:               {"TE", "te", true},
	Trailer:          {"Trailer", "trailer", true},
	Upgrade:          {"Upgrade", "upgrade", true},
	HTTP2Settings:    {"HTTP2-Settings", "http2-settings", true},
	Expect:           {"Expect", "expect", true},
	Host:             {"Host", "host", true},

	Accept:                     {"Accept", "accept", true},
	AcceptEncoding:             {"Accept-Encoding", "accept-encoding", true},
	AcceptLanguage:             {"Accept-Language", "accept-language", true},
	AcceptRanges:               {"Accept-Ranges", "accept-ranges", false},
	AccessControlAllowOrigin:   {"Access-Control-Allow-Origin", "access-control-allow-origin", true},
	AccessControlRequestMethod: {"Access-Control-Request-Method", "access-control-request-method", true},
	Age:                        {"Age", "age", true},
	Allow:                      {"Allow", "allow", false},
	Authorization:              {"Authorization", "authorization", true},
	B3:                         {"B3", "b3", true},
	Baggage:                    {"Baggage", "baggage", true},
	CacheControl:               {"Cache-Control", "cache-control", true},
	ContentDisposition:         {"Content-Disposition", "content-disposition", true},
	ContentEncoding:            {"Content-Encoding", "content-encoding", true},
	ContentLanguage:            {"Content-Language", "content-language", true},
	ContentLocation:            {"Content-Location", "content-location", true},
	ContentRange:               {"Content-Range", "content-range", true},
	ContentType:                {"Content-Type", "content-type", true},
	Cookie:                     {"Cookie", "cookie", true},
	Date:                       {"Date", "date", true},
	ETag:                       {"ETag", "etag", false},
	Expires:                    {"Expires", "expires", true},
	Forwarded:                  {"Forwarded", "forwarded", true},
	From:                       {"From", "from", true},
	GRPCEncoding:               {"grpc-encoding", "grpc-encoding", true},
	GRPCMessage:                {"grpc-message", "grpc-message", false},
	GRPCStatus:                 {"grpc-status", "grpc-status", false},
	GRPCTimeout:                {"grpc-timeout", "grpc-timeout", true},
	IfMatch:                    {"If-Match", "if-match", true},
	IfModifiedSince:            {"If-Modified-Since", "if-modified-since", true},
	IfNoneMatch:                {"If-None-Match", "if-none-match", true},
	IfRange:                    {"If-Range", "if-range", true},
	IfUnmodifiedSince:          {"If-Unmodified-Since", "if-unmodified-since", true},
	LastModified:               {"Last-Modified", "last-modified", false},
	Link:                       {"Link", "link", false},
	Location:                   {"Location", "location", true},
	MaxForwards:                {"Max-Forwards", "max-forwards", true},
	Origin:                     {"Origin", "origin", true},
	Pragma:                     {"Pragma", "pragma", true},
	ProxyAuthenticate:          {"Proxy-Authenticate", "proxy-authenticate", true},
	ProxyAuthorization:         {"Proxy-Authorization", "proxy-authorization", true},
	Range:                      {"Range", "range", true},
	Referer:                    {"Referer", "referer", true},
	RetryAfter:                 {"Retry-After", "retry-after", true},
	SecFetchMode:               {"Sec-Fetch-Mode", "sec-fetch-mode", true},
	SecWebSocketKey:            {"Sec-WebSocket-Key", "sec-websocket-key", true},
	Server:                     {"Server", "server", false},
	SetCookie:                  {"Set-Cookie", "set-cookie", true},
	StrictTransportSecurity:    {"Strict-Transport-Security", "strict-transport-security", true},
	Traceparent:                {"traceparent", "traceparent", true},
	Tracestate:                 {"tracestate", "tracestate", true},
	UpgradeInsecureRequests:    {"Upgrade-Insecure-Requests", "upgrade-insecure-requests", true},
	UserAgent:                  {"User-Agent", "user-agent", true},
	Vary:                       {"Vary", "vary", true},
	Via:                        {"Via", "via", true},
	Warning:                    {"Warning", "warning", true},
	WWWAuthenticate:            {"WWW-Authenticate", "www-authenticate", true},
	XB3SpanID:                  {"X-B3-SpanId", "x-b3-spanid", true},
	XB3TraceID:                 {"X-B3-TraceId", "x-b3-traceid", true},
	XContentTypeOptions:        {"X-Content-Type-Options", "x-content-type-options", true},
	XForwardedClientCert:       {"X-Forwarded-Client-Cert", "x-forwarded-client-cert", true},
	XForwardedFor:              {"X-Forwarded-For", "x-forwarded-for", true},
	XForwardedHost:             {"X-Forwarded-Host", "x-forwarded-host", true},
	XForwardedProto:            {"X-Forwarded-Proto", "x-forwarded-proto", true},
	XRequestID:                 {"X-Request-ID", "x-request-id", true},
}

// Hop reports whether a field of this name is for one connection only.
func (k Known) Hop() bool { return k-1 < Host }

// InTrailer reports whether a field of this name may follow a body.
func (k Known) InTrailer() bool { return !names[k].noTrailer }

// Name returns the name in lower case, or "" for Unknown.
func (k Known) Name() string { return names[k].lower }

// Bytes is Name as bytes, which must not be changed.
func (k Known) Bytes() []byte { return lowers[k] }

var lowers = func() (all [numKnown][]byte) {
	for k := range all {
		all[k] = []byte(names[k].lower)
	}
	return all
}()

// slots finds the one candidate for a name; a test sees to it that no two names
// share a slot.
const numSlots = 512

var slots = makeSlots()

func makeSlots() (all [numSlots]Known) {
	for k := Unknown + 1; k < numKnown; k++ {
		all[slotFor(names[k].lower)] = k
	}
	return all
}

// slotFor wants two bytes or more.
func slotFor[N string | []byte](name N) uint32 {
	n := len(name)
	middle := (n - 1) / 2
	return slotOf(pair(name[middle], name[middle+1]), pair(name[n-2], name[n-1]), uint(n))
}

func pair(a, b byte) uint16 { return uint16(a) | uint16(b)<<8 }

// slotOf mixes length, the two letters in the middle and the last two, without
// case. Or-ing 0x20 confuses some bytes that are no letters; that only costs a
// comparison. When a new name meets another, try other factors.
func slotOf(middle, last uint16, n uint) uint32 {
	return ((uint32(middle) | uint32(last)<<16 | 0x20202020) + uint32(n)) * 0x91739835 / (1 << 32 / numSlots)
}

// Lookup returns the id of name, whatever its letter case.
func Lookup(name []byte) Known { return lookup(name) }

// LookupString is Lookup for a string.
func LookupString(name string) Known { return lookup(name) }

// lookup is quickest for a name in lower case, as HTTP/2 has them.
func lookup[N string | []byte](name N) Known {
	if len(name) < 2 {
		return Unknown
	}
	known := slots[slotFor(name)]
	if lower := names[known].lower; len(name) == len(lower) && (string(name) == lower || equalFold(name, lower)) {
		return known
	}
	return Unknown
}
