package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/filesource"
	"github.com/sandwich-mesh/sandwich/internal/levels"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/accesslog"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/records"
)

// serveFlags are what needs a restart.
type serveFlags struct {
	config, stateDir    string
	hbone, proxy, plain []string
	files               hbone.Files
	workloadAPI         string
	useWorkloadAPI      bool
	aliases, trustProxy []string
	proxyV1, sandwiched bool
	tunnelPort          uint16
	maxConns, loops     int
	memory              string
	warmUp              time.Duration
	life                lifeFlags
	zone                string
	recordEvery         uint32
	admin               adminFlags
	log                 logFlags
	times               timeFlags
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve --config FILE-OR-DIR",
		Short: "Run the proxy",
		Long: `Serve runs the waypoint. It listens where the flags say: for HBONE (mutual TLS
carrying HTTP/2 CONNECT), for connections that a node tunnel hands over behind a
PROXY header, and for bare connections. The document is watched, and so are the
certificates; a change needs no restart.`,
		Example: `  waypoint serve --config waypoint.yaml --cert chain.pem --key key.pem --roots roots.pem
  waypoint serve --config conf.d --workload-api unix:///run/spire/agent.sock
  waypoint serve --config conf.d --hbone-listen '' --proxy-listen 127.0.0.1:15088,[::1]:15088 --sandwiched`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.useWorkloadAPI = cmd.Flags().Changed("workload-api")
			ctx, stop := signals(cmd.Context())
			defer stop()
			h := slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug})
			return f.run(ctx, levels.New(h, slog.LevelInfo), cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.config, "config", "c", "", "the document: a file, or a directory of *.yaml, *.yml and *.json")
	fl.StringVar(&f.stateDir, "state-dir", "", "where the last good document is kept over a restart")
	fl.StringSliceVar(&f.hbone, "hbone-listen", []string{":15008"}, "addresses for HBONE; empty for none")
	fl.StringSliceVar(&f.proxy, "proxy-listen", nil, "addresses for PROXY headers, as in 127.0.0.1:15088,[::1]:15088")
	fl.StringSliceVar(&f.plain, "plain-listen", nil, "addresses for bare connections (the NONE binding)")
	fl.StringVar(&f.files.Chain, "cert", "", "the workload's certificate and its intermediates, PEM")
	fl.StringVar(&f.files.Key, "key", "", "its key, PEM")
	fl.StringSliceVar(&f.files.Roots, "roots", nil, "the mesh's authorities, PEM; several files are one set")
	fl.StringVar(&f.files.CRL, "crl", "", "revocation lists, PEM")
	fl.StringVar(&f.workloadAPI, "workload-api", "", "SPIFFE Workload API in place of files; empty for $SPIFFE_ENDPOINT_SOCKET")
	fl.StringSliceVar(&f.aliases, "trust-domain-alias", nil, "trust domains whose workloads may connect besides our own")
	fl.StringSliceVar(&f.trustProxy, "trust-proxy-from", nil, "prefixes that may send PROXY headers besides loopback")
	fl.BoolVar(&f.proxyV1, "proxy-v1", false, "take PROXY headers of version 1 too; they carry no identity")
	fl.BoolVar(&f.sandwiched, "sandwiched", false, "our own node tunnel wraps what we dial: dial pods as plain TCP")
	fl.Uint16Var(&f.tunnelPort, "tunnel-port", 15008, "where node tunnels listen on endpoints")
	fl.IntVar(&f.maxConns, "max-connections", 0, "clients' connections at once; 0 is 45 % of the descriptor limit")
	fl.StringVar(&f.memory, "memory-limit", "cgroup", "how much memory this process may have, as in 512Mi; cgroup for the limit of its control group, or none")
	fl.IntVar(&f.loops, "event-loops", 0, "event loops that read connections; 0 is one for each processor, -1 a goroutine for each connection")
	f.life.add(fl)
	fl.DurationVar(&f.warmUp, "warm-up", proxy.DefaultWarmUp, "how long filters that fetch or compile something may keep the proxy from being ready, all together; 0 is not at all")
	fl.StringVar(&f.zone, "zone", "", "the zone we run in, for counting bytes between zones")
	fl.StringVar(&f.admin.admin, "admin-listen", "127.0.0.1:15000", "loopback address for operators; empty for none")
	fl.StringVar(&f.admin.metrics, "metrics-listen", ":15020", "address for metrics; empty for none")
	fl.StringVar(&f.admin.ready, "ready-listen", ":15021", "address for readiness; empty for none")
	fl.Uint32Var(&f.recordEvery, "record-every", 64, "one of so many requests has a decision record, besides all that failed or that we answered; 1 is all, 0 no others")
	f.log.add(fl)
	f.times.add(fl)
	return cmd
}

func (f *serveFlags) run(ctx context.Context, lv *levels.Levels, stdout io.Writer) error {
	log := slog.New(lv.Handler("serve"))
	if f.config == "" {
		return errors.New("no document: write --config FILE-OR-DIR")
	}
	requests, registry := slog.New(lv.Handler("requests")), new(metrics.Registry)
	alog, err := f.log.open(stdout, registry, requests)
	if err != nil {
		return err
	}
	defer closeLog(alog, log)
	sources, forget := context.WithCancel(context.WithoutCancel(ctx)) // which change while it drains too
	defer forget()
	opts, err := f.options(sources, lv)
	if err != nil {
		return err
	}
	l, err := f.life.begin(f.stateDir, log)
	if err != nil {
		return err
	}
	defer l.before.Close()
	ls, err := f.listeners(l.listen)
	if err != nil {
		return err
	}
	ports, err := f.admin.listeners(l.listen)
	if err != nil {
		return err
	}
	opts.Metrics = registry
	opts.OnFault = refusals(slog.New(lv.Handler("connections")), registry)
	ring := f.observe(&opts, alog)
	p := proxy.New(opts)
	registry.Collect(metrics.Process{Version: version})
	o := &operator{p: p, levels: lv, started: time.Now()}
	apply, report := f.document(p, l, slog.New(lv.Handler("document")))
	src := filesource.New(f.config, apply, report)
	prepare := func() {
		if !src.Once() {
			l.kept.restore()
		}
		go src.Run(sources)
		l.wait(ctx, p)
	}
	if l.before != nil { // which answers operators too until this process can serve
		prepare()
	}
	closePorts := serveAdmin(ctx, o.server(registry, p.Ready, recordsPage(ring)), ports, slog.New(lv.Handler("admin")))
	defer closePorts()
	if l.before == nil {
		prepare()
	}
	log.Info("serving", "hbone", addresses(ls.HBONE), "proxy", addresses(ls.Proxy), "plain", addresses(ls.Plain),
		"admin", f.admin.admin, "services", len(p.Snapshot().Services()), "max_connections", opts.MaxConns)
	serving, stop := l.serving(ctx, p)
	defer stop()
	if err := p.Serve(serving, ls); err != nil {
		return err
	}
	l.end(p, closePorts)
	return nil
}

// observe has requests and connections logged, and how they were decided on kept.
func (f *serveFlags) observe(o *proxy.Options, log *accesslog.Log) *records.Ring {
	ring := &records.Ring{Every: f.recordEvery}
	o.Watch = f.recordEvery
	o.Observe = func(out *proxy.Outcome) {
		log.Observe(out)
		ring.Observe(out)
	}
	o.ObserveConn = func(out *proxy.ConnOutcome) {
		log.ObserveConn(out)
		ring.ObserveConn(out)
	}
	return ring
}

// options are what the flags say of the proxy itself.
func (f *serveFlags) options(ctx context.Context, lv *levels.Levels) (o proxy.Options, err error) {
	requests := slog.New(lv.Handler("requests"))
	o = proxy.Options{
		Registry: kinds(), TunnelPort: f.tunnelPort, Sandwiched: f.sandwiched,
		ProxyV1: f.proxyV1, MaxConns: f.maxConns, Zone: f.zone,
		Upgrades: f.times.offers(), WarmUp: cmp.Or(f.warmUp, -1),
		OnCold: func(err error) {
			requests.Warn("ready, and some routes are not: their filters answer by their fail mode", "error", err)
		},
		OnPanic: func(err error) { requests.Error("a request crashed; the others go on", "error", err) },
	}
	if o.MaxConns == 0 {
		o.MaxConns = defaultMaxConns()
	}
	if o.MemoryLimit, err = memoryLimit(f.memory); err != nil {
		return o, err
	}
	tellCollector(o.MemoryLimit)
	o.OnMemory = steps(slog.New(lv.Handler("memory")), o.MemoryLimit)
	if o.Timeouts, err = f.times.timeouts(); err != nil {
		return o, err
	}
	if o.TrustProxyFrom, err = prefixes(f.trustProxy); err != nil {
		return o, err
	}
	if o.Certificates, err = f.certificates(ctx, slog.New(lv.Handler("certificates"))); err != nil {
		return o, err
	}
	o.Loops, err = eventLoops(f.loops, o.OnPanic)
	return o, err
}

// eventLoops starts what reads connections; it ends with the process.
func eventLoops(n int, crashed func(error)) (*wire.Loops, error) {
	if n < 0 {
		return nil, nil
	}
	return wire.NewLoops(n, crashed)
}

// document applies documents, keeps the last good one over a restart, and logs
// what is wrong with each.
func (f *serveFlags) document(p *proxy.Proxy, l *life, log *slog.Logger) (func(*config.Config) []config.Problem, func([]config.Problem)) {
	report := func(problems []config.Problem) {
		for i := range problems {
			level := slog.LevelError
			if problems[i].Severity == config.Warning {
				level = slog.LevelWarn
			}
			log.Log(context.Background(), level, "document", "problem", problems[i].String())
		}
		s := p.Snapshot().Settled()
		log.Info("document", "active", fmt.Sprintf("%d of %d objects", s.Active, s.Total), "stale", len(s.Stale), "closed", len(s.Closed))
	}
	if f.stateDir == "" {
		return p.Apply, report
	}
	l.kept = &keeper{state: config.NewState(f.stateDir), p: p, log: log, report: report, ours: l.before == nil,
		unsaved: p.Metrics.Counter("waypoint_state_unsaved_total", "Times the last good document could not be written to the state directory.")}
	return l.kept.apply, report
}

// certificates starts the source of certificates; nil if HBONE is not spoken.
func (f *serveFlags) certificates(ctx context.Context, log *slog.Logger) (*hbone.Certificates, error) {
	files := f.files.Chain != "" || f.files.Key != "" || len(f.files.Roots) > 0
	if !files && !f.useWorkloadAPI {
		if len(nonEmpty(f.hbone)) > 0 {
			return nil, errors.New("HBONE needs certificates: write --cert, --key and --roots, or --workload-api, or --hbone-listen '' to serve without HBONE")
		}
		return nil, nil
	}
	if files && f.useWorkloadAPI {
		return nil, errors.New("certificates come from files or from the Workload API: write --cert, --key and --roots, or --workload-api, not both")
	}
	certs, err := hbone.NewCertificates(hbone.CertificatesOptions{
		TrustDomains: f.aliases,
		OnProblem:    func(err error) { log.Error("certificates", "error", err) },
	})
	if err != nil {
		return nil, err
	}
	if f.useWorkloadAPI {
		go func() {
			if err := (hbone.WorkloadAPI{Addr: f.workloadAPI}).Watch(ctx, certs); err != nil {
				log.Error("certificates", "error", err)
			}
		}()
		return certs, nil
	}
	first, err := f.files.Load()
	if err != nil {
		return nil, err
	}
	certs.Set(first)
	go f.files.Watch(ctx, certs)
	return certs, nil
}

// listeners opens every address.
func (f *serveFlags) listeners(listen func(addr string) (net.Listener, error)) (ls proxy.Listeners, err error) {
	open := func(flag string, list []string) (out []net.Listener) {
		for _, a := range nonEmpty(list) {
			if err != nil {
				return out
			}
			var l net.Listener
			if l, err = listen(a); err != nil {
				err = fmt.Errorf("--%s %s: %w", flag, a, err)
				return out
			}
			out = append(out, l)
		}
		return out
	}
	ls.HBONE = open("hbone-listen", f.hbone)
	ls.Proxy = open("proxy-listen", f.proxy)
	ls.Plain = open("plain-listen", f.plain)
	if err == nil && len(ls.HBONE)+len(ls.Proxy)+len(ls.Plain) == 0 {
		err = errors.New("nothing to listen on: write --hbone-listen, --proxy-listen or --plain-listen")
	}
	return ls, err
}

func nonEmpty(list []string) (out []string) {
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func prefixes(list []string) (out []netip.Prefix, err error) {
	for _, s := range nonEmpty(list) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--trust-proxy-from %s: write a prefix such as 10.0.0.0/8: %w", s, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func addresses(ls []net.Listener) string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Addr().String())
	}
	return strings.Join(out, ",")
}
