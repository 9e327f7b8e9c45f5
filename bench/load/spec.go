package load

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// Ways to a target.
const (
	ViaTCP   = "tcp"
	ViaTLS   = "tls"
	ViaProxy = "proxy" // TCP, behind a PROXY v2 header with the client's identity
	ViaHBONE = "hbone" // CONNECT streams of mutual-TLS HTTP/2 connections
)

// Protocols that are spoken to it.
const (
	HTTP1     = "http1"
	HTTP2     = "h2"
	GRPC      = "grpc" // unary calls
	WebSocket = "ws"   // messages that come back
	Echo      = "tcp"  // bytes that come back
)

// Shapes of a schedule.
const (
	Constant = "constant" // evenly spaced
	Poisson  = "poisson"  // as from many independent clients
	Closed   = "closed"   // the next when the last is answered
)

// Bounds of one run, so that a slip of the pen cannot fill a machine.
const (
	maxConnections = 20_000
	maxStreams     = 4_096
	maxRate        = 10_000_000
	maxTime        = 24 * time.Hour
	maxBody        = 16 << 20
	maxQueue       = 1 << 20 // requests that wait for a free connection, over all workers
)

// A Spec says what load to make on what.
type Spec struct {
	Target      Target        `json:"target"`
	Schedule    Schedule      `json:"schedule"`
	Mix         []Kind        `json:"mix"`
	Connections int           `json:"connections"` // of the application's; in HBONE tunnels
	Streams     int           `json:"streams"`     // requests at once on each, with HTTP/2
	Mesh        int           `json:"mesh,omitempty"`
	Workers     int           `json:"workers"`
	Warm        time.Duration `json:"warm"`
	For         time.Duration `json:"for"`
	Requests    int64         `json:"requests,omitempty"` // at most; 0 is no limit
	Timeout     time.Duration `json:"timeout"`
	Seed        uint64        `json:"seed"`
	// LagShare is how much of the latency's p99 that of the generator's lag may be.
	LagShare float64 `json:"lagShare"`
}

// A Target is what is loaded, and how it is reached.
type Target struct {
	Addr     string `json:"addr"` // host:port to connect to
	Via      string `json:"via"`
	Protocol string `json:"protocol"`
	// To is what PROXY headers and CONNECT are bound for.
	To string `json:"to,omitempty"`
	// Source is where PROXY headers and CONNECT say that the client is.
	Source string `json:"source,omitempty"`
	// Identities are told in PROXY headers, one to a connection, in turn.
	Identities []string      `json:"identities,omitempty"`
	Certs      traffic.Certs `json:"certs,omitzero"`
	// ServerName is asked for in TLS, and checked unless Insecure.
	ServerName  string `json:"serverName,omitempty"`
	Insecure    bool   `json:"insecure,omitempty"`
	AllowRemote bool   `json:"allowRemote,omitempty"`
	// PID is the process whose CPU time and memory are taken along; 0: none.
	PID int `json:"pid,omitempty"`
}

// A Schedule says when requests are to be sent.
type Schedule struct {
	Shape string `json:"shape"`
	// Rate is in requests a second; of a ramp where it begins.
	Rate float64 `json:"rate,omitempty"`
	// To is where a ramp ends; 0 is no ramp.
	To float64 `json:"to,omitempty"`
}

// A Kind is one sort of request.
type Kind struct {
	Name   string  `json:"name"`
	Weight float64 `json:"weight"`
	Method string  `json:"method,omitempty"`
	Path   string  `json:"path,omitempty"`
	Host   string  `json:"host,omitempty"`
	Fields []Field `json:"fields,omitempty"`
	// Size is the length of the body, of the message, or of what is echoed.
	Size int `json:"size,omitempty"`
	// Body is sent in its place if it is not empty.
	Body []byte `json:"body,omitempty"`
	// Status is what the answer must have; 0 is any of 200 to 299.
	Status int `json:"status,omitempty"`
	// Bytes is how long the answer's body must be; -1 is any.
	Bytes int64 `json:"bytes"`
}

// A Field is a field of a request's head.
type Field struct{ Name, Value string }

// withDefaults fills in what was left out.
func (s Spec) withDefaults() Spec {
	t := &s.Target
	t.Via = cmp.Or(t.Via, ViaTCP)
	t.Protocol = cmp.Or(t.Protocol, HTTP1)
	t.Source = cmp.Or(t.Source, "10.1.0.5:40000")
	s.Schedule.Shape = cmp.Or(s.Schedule.Shape, Constant)
	s.Connections = cmp.Or(s.Connections, 16)
	s.Streams = cmp.Or(s.Streams, 1)
	s.Timeout = cmp.Or(s.Timeout, 10*time.Second)
	s.Seed = cmp.Or(s.Seed, 1)
	s.LagShare = cmp.Or(s.LagShare, 0.10)
	if t.Via == ViaHBONE && s.Mesh == 0 {
		s.Mesh = (s.Connections + 99) / 100 // ztunnel puts 100 on one
	}
	// A worker without connections would have nobody to send its share. Tunnels of
	// one mesh connection have the same worker.
	s.Workers = min(cmp.Or(s.Workers, runtime.NumCPU()), max(s.Connections, 1), cmp.Or(s.Mesh, maxConnections))
	if len(s.Mix) == 0 {
		s.Mix = []Kind{{Bytes: -1}}
	}
	s.Mix = slices.Clone(s.Mix)
	for i := range s.Mix {
		s.Mix[i] = s.Mix[i].withDefaults(*t)
	}
	return s
}

func (k Kind) withDefaults(t Target) Kind {
	k.Weight = cmp.Or(k.Weight, 1)
	k.Path = cmp.Or(k.Path, "/")
	k.Name = cmp.Or(k.Name, k.Path)
	k.Host = cmp.Or(k.Host, t.ServerName, t.To, t.Addr)
	if len(k.Body) > 0 {
		k.Size = len(k.Body)
	}
	method := "GET"
	if k.Size > 0 {
		method = "POST"
	}
	if t.Protocol == GRPC {
		method = "POST"
	}
	k.Method = cmp.Or(k.Method, method)
	return k
}

// check says what cannot be run, and what to write. s has its defaults.
func (s *Spec) check() error {
	inRange := func(what string, n, most int) error {
		if n < 1 || n > most {
			return fmt.Errorf("%s is %d: it must be 1 to %d", what, n, most)
		}
		return nil
	}
	for _, err := range []error{
		s.Target.check(),
		s.Schedule.check(),
		inRange("connections", s.Connections, maxConnections),
		inRange("streams", s.Streams, maxStreams),
		inRange("workers", s.Workers, 256),
		s.checkTimes(),
		s.checkMix(),
	} {
		if err != nil {
			return err
		}
	}
	t := &s.Target
	switch multi := t.Protocol == HTTP2 || t.Protocol == GRPC; {
	case !multi && s.Streams > 1:
		return fmt.Errorf("streams is %d: %s has one request at a time on a connection; ask for more connections", s.Streams, t.Protocol)
	case t.Via != ViaHBONE && s.Mesh != 0:
		return fmt.Errorf("mesh connections are only with via %s", ViaHBONE)
	case t.Via == ViaHBONE && (s.Mesh < 1 || s.Mesh > s.Connections):
		return fmt.Errorf("mesh connections are %d: they must be 1 to %d, the number of connections", s.Mesh, s.Connections)
	}
	return nil
}

func (s *Spec) checkTimes() error {
	switch {
	case s.For <= 0 || s.For > maxTime:
		return fmt.Errorf("measured time is %v: it must be more than 0 and at most %v", s.For, maxTime)
	case s.Warm < 0 || s.Warm > maxTime:
		return fmt.Errorf("warm-up is %v: it must be 0 to %v", s.Warm, maxTime)
	case s.Timeout < time.Millisecond || s.Timeout > time.Hour:
		return fmt.Errorf("timeout is %v: it must be 1ms to 1h", s.Timeout)
	case !(s.LagShare > 0) || s.LagShare > 1:
		return fmt.Errorf("lag share is %v: it must be more than 0 and at most 1", s.LagShare)
	case s.Requests < 0:
		return fmt.Errorf("requests is %d: it must be 0, for no limit, or more", s.Requests)
	}
	return nil
}

func (s *Spec) checkMix() error {
	if len(s.Mix) > maxKinds {
		return fmt.Errorf("the mix has %d kinds of request, the limit is %d", len(s.Mix), maxKinds)
	}
	names := map[string]bool{}
	for i := range s.Mix {
		k := &s.Mix[i]
		if err := k.check(s.Target.Protocol); err != nil {
			return fmt.Errorf("request %q: %w", k.Name, err)
		}
		if names[k.Name] {
			return fmt.Errorf("request %q: there are two of that name; give each a name of its own", k.Name)
		}
		names[k.Name] = true
	}
	return nil
}

func (k *Kind) check(protocol string) error {
	switch {
	case !(k.Weight > 0) || k.Weight > 1e9:
		return fmt.Errorf("weight is %v: it must be more than 0", k.Weight)
	case k.Size < 0 || k.Size > maxBody:
		return fmt.Errorf("size is %d: it must be 0 to %d", k.Size, maxBody)
	case (protocol == Echo || protocol == WebSocket) && k.Size == 0:
		return fmt.Errorf("size is 0: with %s it is the length of what is echoed, and must be more", protocol)
	case k.Status != 0 && (k.Status < 200 || k.Status > 599):
		return fmt.Errorf("status is %d: it must be 200 to 599", k.Status)
	case k.Bytes < -1:
		return fmt.Errorf("bytes is %d: it must be the length of the answer, or -1 for any", k.Bytes)
	case !token(k.Method):
		return fmt.Errorf("method %q is no method", k.Method)
	case !strings.HasPrefix(k.Path, "/") || !plain(k.Path, ' '):
		return fmt.Errorf("path %q: it must begin with / and have no blanks in it", k.Path)
	case protocol == GRPC && strings.Count(k.Path, "/") != 2:
		return fmt.Errorf("path %q: gRPC wants /package.Service/Method", k.Path)
	case k.Host == "" || !plain(k.Host, ' '):
		return fmt.Errorf("host %q is no host", k.Host)
	}
	for _, f := range k.Fields {
		if err := f.check(); err != nil {
			return err
		}
	}
	return nil
}

// framing fields are written from Size, and are nobody else's.
var framing = []string{"content-length", "transfer-encoding", "connection", "host", "upgrade", "te", "trailer", "keep-alive", "expect"}

func (f Field) check() error {
	switch {
	case !token(f.Name):
		return fmt.Errorf("field %q has no proper name", f.Name)
	case slices.Contains(framing, strings.ToLower(f.Name)):
		return fmt.Errorf("field %q is written by the tool itself; take it out", f.Name)
	case !plain(f.Value, 0):
		return fmt.Errorf("field %q has a control character in its value", f.Name)
	}
	return nil
}

// token reports whether s is a token of RFC 9110, section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// plain reports whether s has no control characters, and not the one given.
func plain(s string, not byte) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7F || c == not && not != 0 {
			return false
		}
	}
	return true
}

func (c Schedule) check() error {
	rate := func(what string, v float64) error {
		if !(v > 0) || v > maxRate {
			return fmt.Errorf("%s is %v requests a second: it must be more than 0 and at most %d", what, v, maxRate)
		}
		return nil
	}
	switch {
	case c.Shape == Closed:
		if c.Rate != 0 || c.To != 0 {
			return errors.New("a closed loop has no rate: it asks again when it has an answer")
		}
		return nil
	case c.Shape != Constant && c.Shape != Poisson:
		return fmt.Errorf("schedule %q is unknown: write %s, %s or %s", c.Shape, Constant, Poisson, Closed)
	}
	if err := rate("rate", c.Rate); err != nil {
		return err
	}
	if c.To != 0 {
		return rate("the ramp's end", c.To)
	}
	return nil
}

func (t *Target) check() error {
	if err := t.checkNames(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(t.Addr)
	if err != nil || host == "" {
		return fmt.Errorf("target %q: write host:port", t.Addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("target %q: port %q is no port", t.Addr, port)
	}
	if t.Via == ViaProxy || t.Via == ViaHBONE {
		if _, _, err := net.SplitHostPort(t.To); err != nil {
			return fmt.Errorf("via %s needs the destination that the client asks for: write IP:port, not %q", t.Via, t.To)
		}
		if _, err := netip.ParseAddrPort(t.Source); err != nil {
			return fmt.Errorf("source %q: write IP:port", t.Source)
		}
	}
	if t.Via == ViaProxy {
		to, err := netip.ParseAddrPort(t.To)
		from := netip.MustParseAddrPort(t.Source)
		if err != nil || to.Addr().Is4() != from.Addr().Is4() {
			return fmt.Errorf("via %s: destination %q and source %q must be IP:port of one family", t.Via, t.To, t.Source)
		}
	}
	if t.Via == ViaHBONE && (t.Certs.Cert == "" || t.Certs.Key == "" || t.Certs.Roots == "") {
		return errors.New("via hbone needs a client's certificate, its key and the mesh's roots")
	}
	return nil
}

func (t *Target) checkNames() error {
	if !slices.Contains([]string{ViaTCP, ViaTLS, ViaProxy, ViaHBONE}, t.Via) {
		return fmt.Errorf("via %q is unknown: write %s, %s, %s or %s", t.Via, ViaTCP, ViaTLS, ViaProxy, ViaHBONE)
	}
	if !slices.Contains([]string{HTTP1, HTTP2, GRPC, WebSocket, Echo}, t.Protocol) {
		return fmt.Errorf("protocol %q is unknown: write %s, %s, %s, %s or %s", t.Protocol, HTTP1, HTTP2, GRPC, WebSocket, Echo)
	}
	for _, id := range t.Identities {
		if t.Via != ViaProxy {
			return fmt.Errorf("identities are told in PROXY headers, and via is %s", t.Via)
		}
		if !strings.HasPrefix(id, "spiffe://") || len(id) > 2048 {
			return fmt.Errorf("identity %.60q: write spiffe://…, at most 2048 bytes", id)
		}
	}
	return nil
}

// errRemote refuses targets that are not on this machine.
var errRemote = errors.New("is not on this machine: load may harm others; write --allow-remote if it is yours to load")

// local returns the addresses of the target, and refuses those that are not of
// this machine unless that was allowed.
func (t *Target) local(addrs []netip.Addr) error {
	if t.AllowRemote {
		return nil
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return fmt.Errorf("target %s (%s) %w", t.Addr, a, errRemote)
		}
	}
	return nil
}
