package main

// What DEFAULTS.md says of each default beside its value: Istio's, and why ours.
// None of these is written.

var flagRows = map[string]row{
	"--config":             {"istiod", "the document, or nothing is served"},
	"--state-dir":          {"none", "without it an object that is bad at start fails closed"},
	"--hbone-listen":       {"15008", "the mesh's port"},
	"--proxy-listen":       {none, "the sandwich's port is 15088 by convention, on loopback"},
	"--plain-listen":       {none, "bare connections carry no identity, so they are asked for"},
	"--cert":               {"from istiod's CA", "files or the Workload API say who we are"},
	"--key":                {"from istiod's CA", "as above"},
	"--roots":              {"from istiod's CA", "as above"},
	"--crl":                {"none", "revocation is used where it is given"},
	"--workload-api":       {"SDS", "SPIRE's way"},
	"--trust-domain-alias": {"MeshConfig.trustDomainAliases", "nobody from elsewhere unless it is said"},
	"--trust-proxy-from":   {none, "a PROXY header tells an identity: only loopback may"},
	"--proxy-v1":           {none, "version 1 carries no identity"},
	"--sandwiched":         {none, "the shape is chosen"},
	"--tunnel-port":        {"15008", "the mesh's port"},
	"--max-connections":    {"none", "running out of descriptors takes down what is there; 45 % leaves as many for endpoints"},
	"--drain":              {"45s, then 5s", "below Kubernetes' grace period of 30 s"},
	"--zone":               {"from the node", "only a counter looks at it"},
	"--event-loops":        {"a worker thread for each core", "same; a goroutine for each connection where the system has no loops"},
	"--admin-listen":       {"127.0.0.1:15000", "Istio's port, and loopback as there"},
	"--metrics-listen":     {"15020", "where scrapers look"},
	"--ready-listen":       {"15021", "where probes look"},
	"--access-log":         {"none, unless mesh or Telemetry says so", "failures are worth a line, and nobody asks for them before they happen"},
	"--access-log-format":  {"text", "same"},
	"--access-log-file":    {"/dev/stdout", "same"},
	"--record-every":       {none, "costs nothing that can be measured, and shows what is usual"},
	"--timeout-head":       {"none", "without it a client that stalls keeps a connection for ever"},
	"--timeout-body":       {"none", "same: uploads and streaming calls last"},
	"--timeout-idle":       {"1h", "same"},
	"--timeout-stream":     {"none on waypoints", "same: server-sent events and streaming calls are quiet for hours"},
	"--timeout-upgraded":   {"none on waypoints", "same"},
	"--timeout-tcp":        {"1h", "same"},
	"--timeout-detect":     {"protocol is declared, or HTTP", "a server that speaks first is heard at once; this bounds a client that says half a word"},
	"--upgrade":            {"websocket", "same: bytes behind a switch pass every filter, so what may switch is said"},
}

var tagRows = map[string]row{
	"BackendRef.kind":          {"Service", "Gateway API"},
	"BackendRef.weight":        {"1", "Gateway API"},
	"GRPCMethodMatch.type":     {"Exact", "Gateway API"},
	"HTTPHeaderMatch.type":     {"Exact", "Gateway API"},
	"HTTPPathMatch.type":       {"PathPrefix", "Gateway API"},
	"HTTPPathMatch.value":      {"/", "Gateway API"},
	"HTTPQueryParamMatch.type": {"Exact", "Gateway API"},
	"LoadBalancer.simple":      {"LEAST_REQUEST", "same: two at random, the less busy one"},
	"ParentReference.kind":     {"Gateway", "Gateway API"},
	"Workload.health":          {"HEALTHY", "same"},
	"Workload.protocol":        {"HBONE for captured pods", "plain text must be written"},
	"Workload.serviceAccount":  {"default", "Kubernetes"},
	"Workload.trustDomain":     {"cluster.local", "same"},
	"Workload.weight":          {"1", "same"},
}

var timeoutRows = map[string]row{
	"Head":     {"none", "slowloris"},
	"Body":     {"none", "same"},
	"Idle":     {"1h", "same"},
	"Stream":   {"none on waypoints", "same"},
	"Upgraded": {"none on waypoints", "same"},
	"TCP":      {"1h", "same"},
	"Detect":   {none, "no stall for servers that speak first"},
}

var http1Rows = map[string]row{
	"HeadBytes": {"60 KiB", "same"},
	"Fields":    {"100", "same"},
	"Options":   {none, "each is looked up among the fields: a bound on that work"},
	"Extension": {none, "nobody uses them, and they cost a reader"},
	"Overhead":  {none, "a body in chunks of one byte is work without use"},
	"Interim":   {none, "an endpoint that sends 1xx for ever holds a request"},
	"Kept":      {"a stream's window", "same: what is pipelined waits within the window"},
}

var http2Rows = map[string]row{
	"HeaderFields":  {"100", "same, cookie crumbs included"},
	"HeaderBlock":   {"60 KiB decoded", "compressed, it is never longer than what it says"},
	"Continuations": {"by size only", "CVE-2024-27316 and its family"},
	"EmptyData":     {"1", "a little more: some gateways end bodies clumsily"},
	"Resets":        {"after 500 streams, if half lived shorter than 1 s", "rapid reset, and resets that we are made to send"},
	"Settings":      {"1,000 queued control frames", "work without use"},
	"Pings":         {"1,000 queued control frames", "gRPC measures bandwidth with them, so those are free"},
	"Unknown":       {"none", "work without use"},
	"Priority":      {"100 × (1 + streams)", "same"},
	"Windows":       {"5 + 2 × (streams + 10 × DATA)", "the same slope, more room to begin with"},
	"Unread":        {"10,000 frames, 1,000 of control", "in bytes, since those are what memory is made of"},
}

var meshRows = map[string]row{
	"Client":        {none, "which end it is"},
	"MaxStreams":    {"100", "a tunnel is cheap here; node tunnels open at most 100 by themselves"},
	"StreamWindow":  {"16 MiB", "enough for 1 Gbit/s at 2 ms, and 64 × less to hold for a slow reader"},
	"ConnWindow":    {"24 MiB", "16 streams at full speed"},
	"MaxFrameSize":  {"16 KiB", "fewer frames for bulk; what we send is 16 KiB all the same"},
	"MaxHeaderList": {"60 KiB", "a CONNECT's head is short"},
}

var constantRows = []struct{ dir, name, about, istio, why string }{
	{"hbone", "ConnectTimeout", "TCP and TLS to an endpoint's node tunnel", "10s", "the mesh's connect timeout"},
	{"hbone", "HandshakeTimeout", "a client's TLS handshake", "15s at gateways", "a healthy one takes milliseconds"},
	{"hbone", "HeaderTimeout", "a PROXY header", none, "it is the first thing a node tunnel writes"},
	{"hbone", "MaxHandshakes", "TLS handshakes at once", "none", "each costs half a millisecond and 70 KB"},
	{"hbone", "IdleTimeout", "an unused mesh connection to an endpoint's node", "1h", "same"},
	{"hbone", "maxConns", "mesh connections to one destination", "none", "at 100 streams each it is more than a node has sockets for"},
	{"hbone", "spreadAt", "streams on a mesh connection before the next one", "100", "batches form on few connections"},
	{"hbone", "recheckEvery", "looks at the peers' certificates of live connections", "none", "authorities expire, and connections live for days"},
	{"internal/h2", "pingAfter", "silence before a PING", "10s", "same"},
	{"internal/h2", "pingTimeout", "for its answer", "20s", "same"},
	{"internal/h2", "settingsTimeout", "for the answer to SETTINGS", "none", "a peer that does not answer is broken"},
	{"internal/h2", "rateWindow", "in which counts of floods halve", "none", "bursts pass, streams of them do not"},
	{"proxy", "maxAttempts", "attempts of one request, whatever a policy asks for", "none", "a document must not make a storm"},
	{"proxy", "replayLimit", "request body kept for another attempt", "the stream's window", "longer uploads are not repeated"},
	{"proxy", "replayBudget", "of all requests together", "none", "memory"},
	{"proxy", "discardLimit", "unwanted request body that is read so that the connection lives", "none", "reading more would let a client hold it at no cost"},
	{"proxy", "maxWorkers", "filters that wait or work off the turn at once", none, "they wait for networks, so there are more than cores"},
	{"proxy", "maxStreams", "streams on a client's inner HTTP/2 connection", "100", "same"},
	{"proxy/upstream", "IdleTimeout", "an unused inner HTTP/1 connection to an endpoint", "1h", "applications close theirs after 5 s to 75 s, and a call that meets such an end is lost or repeated"},
	{"proxy/upstream", "maxIdle", "unused inner connections to one endpoint", "none", "memory"},
	{"filters/retry", "defaultAttempts", "retries where a route says nothing", "2", "same, on the same conditions; never after a byte of the response"},
	{"filters/retry", "defaultBackoff", "the first back-off", "25ms", "same, with the same growth and jitter"},
	{"proxy/accesslog", "MaxPending", "access log lines that wait for their writer", "a buffer that a thread flushes", "a slow disk must not slow a request: what has no room is dropped and counted"},
	{"proxy/measure", "MaxSets", "sets of series in the mesh's metrics", "none", "each is 70 lines of a scrape; beyond it requests count as overflow"},
	{"proxy/records", "Size", "decision records kept", none, "2 MiB when full of large heads"},
	{"internal/levels", "Longest", "how long a changed log level may last", "for good", "a log that was made talkative and forgotten fills disks"},
}

var behaviour = [][4]string{
	{"identity demanded of an endpoint", "its workload's", "any of the trust domain", "a wrong address must reach nobody"},
	{"destination that the document does not describe", "refused", "passed through or refused, by mesh setting", "an open relay is worse than an error"},
	{"underscores in header names", "allowed", "allowed", "same; no field of ours has one"},
	{"`x-forwarded-for`", "untouched", "untouched", "same; it proves nothing, so nothing here trusts it"},
	{"`x-forwarded-client-cert`", "removed", "removed", "same: who the client is, the mesh says"},
	{"`x-request-id`", "made if absent", "made if absent", "same: a UUID of version 4"},
	{"`server`, `x-envoy-*` of responses", "not added", "added", "they tell an attacker more than a user"},
	{"route timeout", "none unless the route says so", "none unless the route says so", "same"},
	{"trace fields", "passed untouched", "spans by 1 % sampling", "no spans yet"},
	{"query values in logs and records", "a star", "written", "tokens, and what people type"},
	{"TLS session tickets", "off", "off as a client", "a resumed session would outlive the checks on its certificate"},
}
