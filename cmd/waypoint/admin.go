package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/admin"
	"github.com/sandwich-mesh/sandwich/internal/levels"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/records"
)

// adminFlags say where operators ask.
type adminFlags struct{ admin, ready, metrics string }

// listeners opens the ports.
func (f *adminFlags) listeners(listen func(addr string) (net.Listener, error)) (ls admin.Listeners, err error) {
	if f.admin != "" {
		if err := admin.CheckLoopback(f.admin); err != nil {
			return ls, fmt.Errorf("--admin-listen %w", err)
		}
	}
	for _, one := range []struct {
		flag, addr string
		l          *net.Listener
	}{{"admin-listen", f.admin, &ls.Admin}, {"ready-listen", f.ready, &ls.Ready}, {"metrics-listen", f.metrics, &ls.Metrics}} {
		if one.addr == "" {
			continue
		}
		if *one.l, err = listen(one.addr); err != nil {
			return ls, fmt.Errorf("--%s %s: %w (write another address, or '' for none)", one.flag, one.addr, err)
		}
	}
	return ls, nil
}

// An operator is what the pages are made of.
type operator struct {
	p       *proxy.Proxy
	levels  *levels.Levels
	started time.Time
}

func recordsPage(r *records.Ring) admin.Page {
	return admin.Page{
		Path: "/records", About: "how requests were decided on: ?n=20&id=REQUEST-ID&service=PART&failed=1&f=1&format=line|text|json",
		Write: r.Query,
	}
}

// server puts pages and actions together.
func (o *operator) server(r *metrics.Registry, ready func() error, more ...admin.Page) *admin.Server {
	pages := []admin.Page{
		{Path: "/objects", About: "the document's objects: how many are in force, which are not", Tables: o.objects},
		{Path: "/document", About: "the document in force, as JSON, without secrets", Write: o.document, ContentType: "application/json"},
		{Path: "/services", About: "what is served, and by which endpoints", Tables: o.services},
		{Path: "/connections", About: "clients' inner connections now", Tables: o.connections},
		{Path: "/levels", About: "log levels", Tables: o.showLevels},
	}
	return &admin.Server{
		Metrics: r, Ready: ready, Pages: append(pages, more...),
		Actions: []admin.Action{
			{Path: "/drain", About: "ask clients to go elsewhere, and be not ready", Do: o.drain},
			{Path: "/logging", About: "change a log level for a while: ?component=NAME&level=debug&for=10m", Do: o.setLevel},
		},
	}
}

func (o *operator) objects(url.Values) ([]admin.Table, error) {
	s := o.p.Snapshot().Settled()
	sum := admin.Table{Head: []string{"OBJECTS", "ACTIVE", "STALE", "CLOSED", "NOT RUN", "DOCUMENTS", "UP SINCE"}, Rows: [][]string{{
		strconv.Itoa(s.Total), strconv.Itoa(s.Active), strconv.Itoa(len(s.Stale)), strconv.Itoa(len(s.Closed)), strconv.Itoa(len(s.Inactive)),
		strconv.FormatInt(o.p.Stats().Documents.Load(), 10), o.started.UTC().Format(time.RFC3339),
	}}}
	list := admin.Table{Title: "not as written", Head: []string{"OBJECT", "STATE"}}
	for _, of := range []struct {
		ids   []config.ID
		state string
	}{
		{s.Closed, "closed: it has no good version, and what it guards or routes is refused"},
		{s.Stale, "stale: its last good version is in force"},
		{s.Inactive, "not run by this version"},
	} {
		for _, id := range of.ids {
			list.Rows = append(list.Rows, []string{id.String(), of.state})
		}
	}
	if len(list.Rows) == 0 {
		return []admin.Table{sum}, nil
	}
	return []admin.Table{sum, list}, nil
}

func (o *operator) document(_ context.Context, _ url.Values, emit func([]byte) error) error {
	b, err := o.p.Snapshot().Settled().Config.Redacted()
	if err != nil {
		return err
	}
	return emit(append(b, '\n'))
}

func (o *operator) services(q url.Values) ([]admin.Table, error) {
	s := o.p.Snapshot()
	services := admin.Table{Title: "services", Head: []string{"SERVICE", "PROTOCOL", "HOST"}}
	wanted := func(name string) bool { return strings.Contains(name, q.Get("name")) }
	for _, v := range s.Services() {
		host := "-"
		if v.Info != nil {
			host = v.Info.Host
		}
		if wanted(v.Name) {
			services.Rows = append(services.Rows, []string{v.Name, v.Protocol.String(), host})
		}
	}
	endpoints := admin.Table{Title: "endpoints", Head: []string{"BACKEND", "ENDPOINT", "WORKLOAD", "HEALTH", "WEIGHT", "TUNNEL", "CALLS", "IDLE", "ZONE"}}
	for _, b := range s.Backends() {
		if !wanted(b.Name()) {
			continue
		}
		for _, e := range b.Members() {
			workload, zone, health, tunnel := "-", "-", "healthy", "HBONE"
			if w := e.Workload(); w != nil {
				workload, zone = w.Namespace+"/"+w.Name, cmp.Or(w.Zone, "-")
			}
			if !e.Healthy {
				health = "unhealthy"
			}
			if e.Plain() {
				tunnel = "plain"
			}
			endpoints.Rows = append(endpoints.Rows, []string{
				b.Name(), e.Addr().String(), workload, health, strconv.Itoa(int(e.Weight)), tunnel,
				strconv.Itoa(e.Active()), strconv.Itoa(e.Idle()), zone,
			})
		}
	}
	return []admin.Table{services, endpoints}, nil
}

func (o *operator) connections(url.Values) ([]admin.Table, error) {
	now := time.Now()
	t := admin.Table{Head: []string{"CLIENT", "IDENTITY", "BY", "SERVICE", "SPEAKS", "STATE", "FOR"}}
	for _, c := range o.p.Connections() {
		state := "idle"
		if c.Busy {
			state = "busy"
		}
		t.Rows = append(t.Rows, []string{
			c.Peer.Client().String(), cmp.Or(c.Peer.ID.String(), "-"), c.Peer.How.String(), cmp.Or(c.Service, "-"),
			c.Speaks, state, now.Sub(c.Since).Round(time.Millisecond).String(),
		})
	}
	return []admin.Table{t}, nil
}

func (o *operator) showLevels(url.Values) ([]admin.Table, error) {
	t := admin.Table{Head: []string{"COMPONENT", "LEVEL", "UNTIL"}}
	for _, s := range o.levels.All() {
		until := "-"
		if !s.Until.IsZero() {
			until = s.Until.UTC().Format(time.RFC3339)
		}
		t.Rows = append(t.Rows, []string{s.Component, strings.ToLower(s.Level.String()), until})
	}
	return []admin.Table{t}, nil
}

// defaultFor is how long a changed level lasts if nobody says.
const defaultFor = 10 * time.Minute

func (o *operator) setLevel(q url.Values) (string, error) {
	level, err := levels.Parse(q.Get("level"))
	if err != nil {
		return "", err
	}
	while := defaultFor
	if s := q.Get("for"); s != "" {
		if while, err = time.ParseDuration(s); err != nil {
			return "", fmt.Errorf("for %q is no time: write 10m", s)
		}
	}
	name := cmp.Or(q.Get("component"), "*")
	if err := o.levels.Set(name, level, while); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s is at %s for %v", name, strings.ToLower(level.String()), while), nil
}

func (o *operator) drain(url.Values) (string, error) {
	o.p.Drain()
	return "draining: clients are asked to go elsewhere; the process runs on until it is told to end", nil
}

// serveAdmin serves the ports to the end, whatever becomes of ctx, or until what it
// returns is called.
func serveAdmin(ctx context.Context, s *admin.Server, ls admin.Listeners, log *slog.Logger) (closePorts func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, ls); err != nil {
			log.Error("admin ports", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
