package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

// schemes are what a target's URL may begin with.
var schemes = map[string]struct{ protocol, via, port string }{
	"http":  {load.HTTP1, load.ViaTCP, "80"},
	"https": {load.HTTP1, load.ViaTLS, "443"},
	"h2c":   {load.HTTP2, load.ViaTCP, "80"},
	"h2":    {load.HTTP2, load.ViaTLS, "443"},
	"grpc":  {load.GRPC, load.ViaTCP, "80"},
	"grpcs": {load.GRPC, load.ViaTLS, "443"},
	"ws":    {load.WebSocket, load.ViaTCP, "80"},
	"wss":   {load.WebSocket, load.ViaTLS, "443"},
	"tcp":   {load.Echo, load.ViaTCP, ""},
	"tls":   {load.Echo, load.ViaTLS, ""},
}

const targetHelp = `TARGET is a URL; its scheme says what is spoken:

  http h2c grpc ws tcp      HTTP/1.1, HTTP/2, gRPC, WebSocket, bytes that come back
  https h2 grpcs wss tls    the same in TLS

Its host and port are where the connection goes. With --via proxy or --via hbone
that is the mesh's way in, and --to is what the client asked for:

  waypoint-load run http://127.0.0.1:15008/api --via hbone --to 10.96.0.10:80 \
      --cert curl.pem --key curl-key.pem --roots roots.pem --rate 1000`

// loadFlags are what describes load on the command line.
type loadFlags struct {
	spec     load.Spec
	kind     load.Kind
	via      string
	closed   bool
	poisson  bool
	fields   []string
	bodyFile string
	mix      string
}

// add puts the flags on a command.
func (f *loadFlags) add(cmd *cobra.Command) {
	fs, s := cmd.Flags(), &f.spec
	t := &s.Target
	fs.StringVar(&f.via, "via", "", "how it is reached: tcp, tls, proxy (PROXY v2 over TCP) or hbone (CONNECT over mutual TLS)")
	fs.StringVar(&t.To, "to", "", "with --via proxy or hbone: the destination, IP:port or name:port")
	fs.StringVar(&t.Source, "source", "", "with --via proxy or hbone: the address that the client is said to have (10.1.0.5:40000)")
	fs.StringArrayVar(&t.Identities, "identity", nil, "with --via proxy: the client's identity, spiffe://…; more than one are told in turn")
	fs.StringVar(&t.Certs.Cert, "cert", "", "the client's certificate, PEM")
	fs.StringVar(&t.Certs.Key, "key", "", "its key, PEM")
	fs.StringVar(&t.Certs.Roots, "roots", "", "whom to trust in TLS, PEM")
	fs.StringVar(&t.ServerName, "server-name", "", "name to ask for in TLS; the URL's host if not given")
	fs.BoolVar(&t.Insecure, "insecure", false, "take any certificate of the target")
	fs.BoolVar(&t.AllowRemote, "allow-remote", false, "load a target that is not on this machine")
	fs.IntVar(&t.PID, "pid", 0, "process whose CPU time and memory are taken along")
	fs.IntVarP(&s.Connections, "connections", "c", 16, "connections of the application's; with --via hbone tunnels")
	fs.IntVar(&s.Streams, "streams", 1, "requests at once on each connection, with HTTP/2 and gRPC")
	fs.IntVar(&s.Mesh, "mesh-connections", 0, "with --via hbone: connections that carry the tunnels; one for each 100 if 0")
	fs.IntVar(&s.Workers, "workers", 0, "threads that make load; one for each CPU if 0")
	fs.DurationVar(&s.Timeout, "timeout", 10*time.Second, "how long an answer may take")
	fs.Float64Var(&s.LagShare, "lag-share", 0.1, "how much of the latency's p99 that of the generator's lag may be, until figures are its own")
	fs.Uint64Var(&s.Seed, "seed", 1, "of what is left to chance: the same seed, the same schedule")
	fs.StringVarP(&f.kind.Method, "method", "X", "", "method; GET, or POST with a body")
	fs.StringVar(&f.kind.Host, "host", "", "Host of requests; the destination if not given")
	fs.StringArrayVarP(&f.fields, "header", "H", nil, "a field of requests, 'name: value'")
	fs.IntVar(&f.kind.Size, "body-size", 0, "bytes of each request's body, message or echo")
	fs.StringVar(&f.bodyFile, "body-file", "", "file that is sent as the body, or as the gRPC message")
	fs.IntVar(&f.kind.Status, "expect-status", 0, "status that answers must have; any of 200 to 299 if 0 (gRPC: that grpc-status)")
	fs.Int64Var(&f.kind.Bytes, "expect-bytes", -1, "length that answers must have; any if -1")
	fs.StringVar(&f.mix, "mix", "", "file with the kinds of request, in place of the URL's path and of the flags above")
}

// addTimes puts the flags of one measurement on a command.
func (f *loadFlags) addTimes(cmd *cobra.Command, warm, measured time.Duration) {
	fs := cmd.Flags()
	fs.DurationVar(&f.spec.Warm, "warm", warm, "load before the part that counts")
	fs.DurationVar(&f.spec.For, "for", measured, "length of the part that counts")
}

// addRate puts the flags of the schedule on a command.
func (f *loadFlags) addRate(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.Float64VarP(&f.spec.Schedule.Rate, "rate", "r", 0, "requests a second, over all connections (open loop)")
	fs.Float64Var(&f.spec.Schedule.To, "ramp-to", 0, "requests a second at the end; the rate changes evenly from --rate on")
	fs.BoolVar(&f.closed, "closed", false, "closed loop: each connection asks again when it has its answer")
	fs.Int64Var(&f.spec.Requests, "requests", 0, "end after so many requests; 0 is no limit")
	f.addShape(cmd)
}

func (f *loadFlags) addShape(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.poisson, "poisson", false, "requests come as from many independent clients, and not evenly")
}

// target reads a URL into the spec.
func (f *loadFlags) target(raw string) (load.Spec, error) {
	s := f.spec
	u, err := url.Parse(raw)
	if err != nil {
		return s, fmt.Errorf("target %q: %w", raw, err)
	}
	sch, known := schemes[u.Scheme]
	if !known {
		return s, fmt.Errorf("target %q: write http://, https://, h2c://, h2://, grpc://, grpcs://, ws://, wss://, tcp:// or tls:// before the host", raw)
	}
	if u.User != nil || u.Fragment != "" || u.Host == "" {
		return s, fmt.Errorf("target %q: write scheme://host:port/path", raw)
	}
	s.Target.Protocol, s.Target.Via = sch.protocol, cmp.Or(f.via, sch.via)
	if f.via != "" && f.via != sch.via && sch.via == load.ViaTLS {
		return s, fmt.Errorf("target %q is TLS, and --via is %s: TLS within it is not spoken; write the scheme without TLS", raw, f.via)
	}
	s.Target.Addr = u.Host
	if u.Port() == "" {
		if sch.port == "" {
			return s, fmt.Errorf("target %q: write a port", raw)
		}
		s.Target.Addr = net.JoinHostPort(u.Hostname(), sch.port)
	}
	if s.Target.ServerName == "" && sch.via == load.ViaTLS {
		s.Target.ServerName = u.Hostname()
	}
	k, err := f.one(u)
	if err != nil {
		return s, err
	}
	if s.Mix, err = f.kinds(k); err != nil {
		return s, err
	}
	return s, f.schedule(&s.Schedule)
}

// one is the kind of request that flags and URL describe.
func (f *loadFlags) one(u *url.URL) (load.Kind, error) {
	k := f.kind
	k.Path = cmp.Or(u.RequestURI(), "/")
	for _, h := range f.fields {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return k, fmt.Errorf("--header %q: write 'name: value'", h)
		}
		k.Fields = append(k.Fields, load.Field{Name: name, Value: strings.TrimSpace(value)})
	}
	if f.bodyFile != "" {
		body, err := os.ReadFile(f.bodyFile)
		if err != nil {
			return k, fmt.Errorf("--body-file: %w", err)
		}
		if len(body) == 0 {
			return k, fmt.Errorf("--body-file %s is empty", f.bodyFile)
		}
		k.Body = body
	}
	return k, nil
}

func (f *loadFlags) kinds(one load.Kind) ([]load.Kind, error) {
	if f.mix == "" {
		return []load.Kind{one}, nil
	}
	text, err := os.ReadFile(f.mix)
	if err != nil {
		return nil, fmt.Errorf("--mix: %w", err)
	}
	kinds, err := load.ParseMix(f.mix, text)
	if err != nil {
		return nil, err
	}
	for i := range kinds { // what flags say of every request, a kind may say otherwise
		kinds[i].Host = cmp.Or(kinds[i].Host, one.Host)
		for _, h := range one.Fields {
			same := func(x load.Field) bool { return strings.EqualFold(x.Name, h.Name) }
			if !slices.ContainsFunc(kinds[i].Fields, same) {
				kinds[i].Fields = append(kinds[i].Fields, h)
			}
		}
	}
	return kinds, nil
}

func (f *loadFlags) schedule(s *load.Schedule) error {
	switch {
	case f.closed && (s.Rate != 0 || s.To != 0 || f.poisson):
		return errors.New("--closed goes without --rate, --ramp-to and --poisson: it asks again when it has an answer")
	case f.closed:
		s.Shape = load.Closed
	case s.Rate == 0:
		return errors.New("write --rate, in requests a second, or --closed")
	case f.poisson:
		s.Shape = load.Poisson
	default:
		s.Shape = load.Constant
	}
	return nil
}

// conditions reads --fail-if and the like.
func conditions(flag string, texts []string, s load.Spec) (all []*load.Condition, err error) {
	for _, text := range texts {
		c, err := load.ParseCondition(text)
		if err == nil {
			err = c.Check(s)
		}
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		all = append(all, c)
	}
	return all, nil
}
