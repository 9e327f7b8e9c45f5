package fault

// A Kind is one way a stream can fail.
type Kind uint8

// The kinds, in the order of a stream's life.
const (
	Internal Kind = iota // nobody classified it: a bug

	// The client and what it sent.
	BadRequest          // malformed head or body
	HeadTooLarge        // more header bytes or fields than allowed
	TargetTooLong       // request target beyond its limit
	NotImplemented      // transfer coding or method that we do not speak
	VersionNotSupported // not HTTP/1.x
	HeaderTimeout       // the head did not arrive in time
	RequestTimeout      // the body did not arrive in time
	StreamIdle          // nothing moved in either direction
	DurationExceeded    // longer than a stream may last
	ClientGone          // the client left before the end
	BodyTooLarge        // request body beyond a limit
	ResponseTooLarge    // response body beyond a filter's limit

	// Where it should go.
	NotOurs       // the tunnel's destination is no service of ours
	NoRoute       // routes are present and none matches
	NoBackend     // the rule names a backend that does not exist
	NoCallBackend // the same of a gRPC rule, where the client hears UNAVAILABLE
	BadConfig     // an object on the way is invalid and fails closed
	NoEndpoint    // the backend has no endpoint to pick
	RetryOverflow // the retry budget is spent
	Overflow      // the backend's connection or request limit is reached

	// Filters.
	FilterDenied  // a filter's verdict
	PolicyDenied  // an authorization policy's verdict
	Unauthentic   // the credentials are missing or wrong
	ExternalDeny  // an external authorizer's verdict
	Revoked       // a verdict of a document that came while it was under way
	RateLimited   // beyond a rate
	FilterFailed  // the filter itself failed, or its time was up
	FilterTrapped // the filter panicked

	// Getting to the endpoint.
	ConnectFailed    // no transport connection
	ConnectTimeout   // no answer in time
	ConnectRefused   // CONNECT answered with a status that says not now
	ConnectDenied    // CONNECT answered with a status that says never
	TLSFailed        // the transport stands, TLS does not
	IdentityMismatch // the far end is not who the endpoint should be

	// The call.
	RefusedStream             // the far end did not process the stream: REFUSED_STREAM
	GoneAway                  // the stream lay beyond the far end's GOAWAY
	StaleConnection           // a reused connection closed before a byte of the response
	UpstreamReset             // reset before the response
	UpstreamResetMidResponse  // reset in the middle of the response
	UpstreamClosed            // connection closed before the response
	UpstreamClosedMidResponse // connection closed in the middle of the response
	UpstreamProtocol          // the response is malformed
	TryTimeout                // one attempt took too long
	UpstreamTimeout           // the request's time is up

	// This proxy.
	Overload // out of memory, connections or descriptors
	Draining // shutting down

	// Kinds is how many there are.
	Kinds
)

// A Flag is the short name that access logs of the field show.
type Flag string

// The flags in use; None is what the log shows for no flag.
const (
	None Flag = "-"
	DC   Flag = "DC"   // DownstreamConnectionTermination
	DPE  Flag = "DPE"  // DownstreamProtocolError
	DT   Flag = "DT"   // DurationTimeout
	NC   Flag = "NC"   // NoClusterFound
	NR   Flag = "NR"   // NoRouteFound
	OM   Flag = "OM"   // OverloadManagerTerminated
	RL   Flag = "RL"   // RateLimited
	SI   Flag = "SI"   // StreamIdleTimeout
	UAEX Flag = "UAEX" // UnauthorizedExternalService
	UC   Flag = "UC"   // UpstreamConnectionTermination
	UF   Flag = "UF"   // UpstreamConnectionFailure
	UH   Flag = "UH"   // NoHealthyUpstream
	UO   Flag = "UO"   // UpstreamOverflow
	UPE  Flag = "UPE"  // UpstreamProtocolError
	UR   Flag = "UR"   // UpstreamRemoteReset
	URX  Flag = "URX"  // UpstreamRetryLimitExceeded
	UT   Flag = "UT"   // UpstreamRequestTimeout
)

// A Retry is the condition under which a retry policy looks at a kind. The
// names are those of the field's retryOn lists.
type Retry uint8

const (
	Never          Retry = iota
	ConnectFailure       // "connect-failure": nothing reached the endpoint
	Refused              // "refused-stream": the endpoint said that it processed nothing
	Stale                // a reused connection was dead; ours to repeat if the method allows
	Reset                // "reset": lost before the response, the request may have been processed
	Timeout              // one attempt was too slow; counts as a 504 where codes are listed
)

// Default is the answer of the default policy: repeat what reached nobody.
// (A stale connection needs an idempotent method besides, or nothing sent.)
func (r Retry) Default() bool { return r == ConnectFailure || r == Refused || r == Stale }

// A Row says what becomes of a kind.
type Row struct {
	Status  int    // for the client, or in answer to its CONNECT; 0: nobody is left to answer
	Flag    Flag   // RESPONSE_FLAGS
	Retry   Retry  // what a retry policy sees in it
	Details string // RESPONSE_CODE_DETAILS; Envoy's string where Envoy has the fact
	Text    string // for people, in messages and bodies
}

// Row returns the kind's line of the table.
func (k Kind) Row() *Row {
	if k >= Kinds {
		k = Internal
	}
	return &table[k]
}

func (k Kind) String() string { return k.Row().Text }

// table is never written.
var table = [Kinds]Row{
	Internal: {500, None, Never, "internal_error", "internal error"},

	BadRequest:          {400, DPE, Never, "codec_error", "malformed request"},
	HeadTooLarge:        {431, DPE, Never, "headers_too_large", "request head too large"},
	TargetTooLong:       {414, DPE, Never, "request_target_too_long", "request target too long"},
	NotImplemented:      {501, DPE, Never, "not_implemented", "not implemented"},
	VersionNotSupported: {505, DPE, Never, "http_version_not_supported", "HTTP version not supported"},
	HeaderTimeout:       {408, DPE, Never, "request_header_timeout", "request head not received in time"},
	RequestTimeout:      {408, DPE, Never, "request_overall_timeout", "request body not received in time"},
	StreamIdle:          {408, SI, Never, "stream_idle_timeout", "stream idle for too long"},
	DurationExceeded:    {408, DT, Never, "max_duration_timeout", "stream lasted too long"},
	ClientGone:          {0, DC, Never, "downstream_remote_disconnect", "client gone"},
	BodyTooLarge:        {413, None, Never, "request_payload_too_large", "request body too large"},
	ResponseTooLarge:    {500, None, Never, "response_payload_too_large", "response body too large"},

	NotOurs:       {404, NR, Never, "unknown_destination", "destination is not served here"},
	NoRoute:       {404, NR, Never, "route_not_found", "no route matches"},
	NoBackend:     {500, NC, Never, "cluster_not_found", "backend does not exist"},
	NoCallBackend: {503, NC, Never, "cluster_not_found{grpc}", "backend of a gRPC route does not exist"},
	BadConfig:     {500, NC, Never, "invalid_configuration", "invalid configuration fails closed"},
	NoEndpoint:    {503, UH, Never, "no_healthy_upstream", "no healthy upstream"},
	RetryOverflow: {503, URX, Never, "upstream_retry_budget_exceeded", "retry budget spent"},
	Overflow:      {503, UO, Never, "upstream_reset_before_response_started{overflow}", "upstream limit reached"},

	FilterDenied:  {403, None, Never, "filter_denied", "denied by a filter"},
	PolicyDenied:  {403, None, Never, "rbac_access_denied", "access denied"},
	Unauthentic:   {401, None, Never, "jwt_authn_access_denied", "not authenticated"},
	ExternalDeny:  {403, UAEX, Never, "ext_authz_denied", "denied by an external authorizer"},
	Revoked:       {403, None, Never, "access_denied_by_new_document", "access denied by a document that came later"},
	RateLimited:   {429, RL, Never, "local_rate_limited", "rate limited"},
	FilterFailed:  {500, None, Never, "filter_failed", "a filter failed"},
	FilterTrapped: {500, None, Never, "filter_trapped", "a filter crashed"},

	ConnectFailed:    {503, UF, ConnectFailure, "upstream_reset_before_response_started{remote_connection_failure}", "upstream connection failed"},
	ConnectTimeout:   {503, UF, ConnectFailure, "upstream_reset_before_response_started{connection_timeout}", "upstream connection timed out"},
	ConnectRefused:   {503, UF, ConnectFailure, "upstream_reset_before_response_started{connect_refused}", "upstream tunnel refused"},
	ConnectDenied:    {503, UF, Never, "upstream_reset_before_response_started{connect_denied}", "upstream tunnel denied"},
	TLSFailed:        {503, UF, ConnectFailure, "upstream_reset_before_response_started{tls_failure}", "TLS with the upstream failed"},
	IdentityMismatch: {503, UF, ConnectFailure, "upstream_reset_before_response_started{identity_mismatch}", "upstream has another identity"},

	RefusedStream:             {503, UR, Refused, "upstream_reset_before_response_started{remote_refused_stream_reset}", "upstream refused the stream"},
	GoneAway:                  {503, UR, Refused, "upstream_reset_before_response_started{goaway}", "upstream went away before the stream"},
	StaleConnection:           {503, UC, Stale, "upstream_reset_before_response_started{stale_connection}", "reused upstream connection was closed"},
	UpstreamReset:             {503, UR, Reset, "upstream_reset_before_response_started{remote_reset}", "upstream reset the stream"},
	UpstreamResetMidResponse:  {502, UR, Never, "upstream_reset_after_response_started{remote_reset}", "upstream reset the response"},
	UpstreamClosed:            {503, UC, Reset, "upstream_reset_before_response_started{connection_termination}", "upstream closed the connection"},
	UpstreamClosedMidResponse: {502, UC, Never, "upstream_reset_after_response_started{connection_termination}", "upstream closed the connection in its response"},
	UpstreamProtocol:          {502, UPE, Never, "upstream_reset_before_response_started{protocol_error}", "malformed upstream response"},
	TryTimeout:                {504, UT, Timeout, "upstream_per_try_timeout", "upstream attempt timed out"},
	UpstreamTimeout:           {504, UT, Never, "response_timeout", "upstream timed out"},

	Overload: {503, OM, Never, "overload", "overloaded"},
	Draining: {503, None, Never, "draining", "shutting down"},
}
