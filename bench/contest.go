package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/bench/peers"
	"github.com/sandwich-mesh/sandwich/bench/rank"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// A Work is something that several proxies can do, to be compared at.
type Work struct {
	Name    string `json:"name"`    // in flags and files
	Title   string `json:"title"`   // in tables
	Mesh    bool   `json:"mesh"`    // HBONE in and out; otherwise PROXY in and plain out
	Calls   bool   `json:"calls"`   // gRPC; otherwise HTTP/1.1
	Streams int    `json:"streams"` // requests at once
	Conns   int    `json:"conns"`   // mesh connections that carry them
	Latency bool   `json:"latency"` // it is measured too
}

// Works are all there are, in the order in which they are done.
func Works() []Work {
	return []Work{
		{Name: "proxy-32", Title: "PROXY in, plain out: 32 connections", Streams: 32, Latency: true},
		{Name: "hbone-32", Title: "HBONE in and out: 32 streams on 4 connections", Mesh: true, Streams: 32, Conns: 4, Latency: true},
		{Name: "hbone-256", Title: "HBONE in and out: 256 streams on 8 connections", Mesh: true, Streams: 256, Conns: 8},
		{Name: "grpc-32", Title: "gRPC, HBONE in and out: 32 calls on 4 connections", Mesh: true, Calls: true, Streams: 32, Conns: 4},
	}
}

func (r *Rig) planOf(w Work) traffic.Plan {
	switch {
	case w.Calls:
		return r.callsPlan(w.Conns, w.Streams)
	case w.Mesh:
		return r.meshPlan(w.Conns, small(w.Streams))
	}
	return proxyPlan(small(w.Streams))
}

// A contestant is a proxy that takes part.
type contestant struct {
	name string
	note string
	does func(w Work) bool
	// start runs it before the answering end, and says where it serves metrics.
	start func(ctx context.Context, r *Rig, w Work, end *Process) (*Process, string, error)
	// version says which release it is.
	version func() string
}

// Ours is the name of the proxy under test; ratios are to it.
const Ours = "Sandwich"

// contestants are all there are, ours first.
func contestants() []contestant {
	any := func(Work) bool { return true }
	none := func() string { return "" }
	list := []contestant{{
		name: Ours, does: any, start: startOurs, version: none,
		note: "gives a request id, keeps the mesh's metrics, checks the endpoint's identity",
	}}
	for _, p := range []peers.Peer{peers.EnvoyWaypoint(), peers.Envoy(), peers.HAProxy(), peers.Nginx()} {
		list = append(list, contestant{
			name: p.Name, note: p.Note, version: p.Version,
			does: func(w Work) bool { return w.Mesh == p.Mesh },
			start: func(ctx context.Context, r *Rig, w Work, end *Process) (*Process, string, error) {
				at := peers.Place{Application: end.Addr}
				if w.Mesh {
					at = peers.Place{Application: application, Tunnel: end.Addr, Calls: w.Calls}
				}
				proc, err := r.Peer(ctx, p, at)
				return proc, "", err
			},
		})
	}
	return append(list,
		contestant{
			name: "Go's libraries", does: any, start: startStock, version: none,
			note: "net/http, ReverseProxy, x/net/http2; gives a request id; keeps no metrics, checks no identity but the root",
		},
		contestant{
			name: "Relay", does: any, start: startRelay, version: none,
			note: "the floor: bytes, of TLS it ends and begins the connections, and no HTTP",
		})
}

func startOurs(ctx context.Context, r *Rig, w Work, end *Process) (*Process, string, error) {
	metrics, err := r.freeAddr()
	if err != nil {
		return nil, "", err
	}
	u := upstream{Plain: end.Addr}
	if w.Mesh {
		u = upstream{Tunnel: end.Addr, GRPC: w.Calls}
	}
	way, err := r.waypoint(ctx, proxyCPU, u, "--metrics-listen", metrics)
	if err != nil {
		return nil, "", err
	}
	if w.Mesh {
		return way.hbone, metrics, nil
	}
	return way.proxy, metrics, nil
}

func startStock(_ context.Context, r *Rig, w Work, end *Process) (*Process, string, error) {
	metrics, err := r.freeAddr()
	if err != nil {
		return nil, "", err
	}
	name := "stock-proxy"
	if w.Mesh {
		name = "stock-hbone"
	}
	p, err := r.Part(name, proxyCPU, PartOptions{To: end.Addr, Certs: r.certs["waypoint"], Calls: w.Calls, Metrics: metrics})
	return p, metrics, err
}

func startRelay(_ context.Context, r *Rig, w Work, end *Process) (*Process, string, error) {
	name := "relay-byte"
	if w.Mesh {
		name = "relay-tls"
	}
	p, err := r.Part(name, proxyCPU, PartOptions{To: end.Addr, Certs: r.certs["waypoint"]})
	return p, "", err
}

// end starts what answers.
func (r *Rig) end(w Work) (*Process, error) {
	name, o := "echo", PartOptions{}
	switch {
	case w.Calls:
		name, o.Certs = "tunnel-grpc", r.certs["echo"]
	case w.Mesh:
		name, o.Certs = "tunnel", r.certs["echo"]
	}
	return r.Part(name, loadCPU, o)
}

// An Entry is what was found of one proxy at one work.
type Entry struct {
	Name    string          `json:"name"`
	Version string          `json:"version,omitempty"`
	Note    string          `json:"note"`
	Missing string          `json:"missing,omitempty"` // why nothing was found
	CPU     *Spread         `json:"cpu,omitempty"`     // µs a request
	Ratio   *Spread         `json:"ratio,omitempty"`   // of it to ours, round by round
	Allocs  *float64        `json:"allocs,omitempty"`  // objects a request, where the program tells
	Idle    *account.Memory `json:"idle,omitempty"`    // before the first request
	Loaded  *account.Memory `json:"loaded,omitempty"`  // the most at the end of a round
	P50     *Added          `json:"p50,omitempty"`
	P99     *Added          `json:"p99,omitempty"`

	proc    *Process
	metrics string
}

// A Contest is one work and all who did it.
type Contest struct {
	Work
	// Neighbours is the part of the machine's CPU time that others used meanwhile.
	Neighbours float64  `json:"neighbours,omitempty"`
	Direct     *Direct  `json:"direct,omitempty"` // without a proxy, where latency is measured
	Entries    []*Entry `json:"entries"`
}

// settle is how long processes are left alone before idle memory is read.
const settle = 500 * time.Millisecond

// A race is a contest under way.
type race struct {
	*Contest
	costs  []Costs // of those that are here, ours first
	others usage
}

// turn makes one round of a race. The last one finds what is not measured in rounds,
// too. Proxies and load change their CPUs from one to the next: a core may have a
// second thread that is another machine's, and is as slow as that one is busy.
func (r *Rig) turn(ctx context.Context, c *race, round int) error {
	defer r.Clear()
	r.swapped = round%2 > 0
	others := r.watch()
	f, err := r.lineUp(ctx, c.Contest)
	if err != nil {
		return err
	}
	if round == 0 {
		if err := idleOfAll(ctx, f.ran); err != nil {
			return err
		}
	}
	if c.costs, err = r.round(ctx, round, f.variants, contestCut, c.costs); err != nil {
		return err
	}
	if round == r.Rounds-1 {
		if err := r.finish(ctx, c, f); err != nil {
			return err
		}
	}
	c.others.add(others.usage())
	c.Neighbours = c.others.share()
	return nil
}

// finish compares what the rounds of a race have found, and measures the rest.
func (r *Rig) finish(ctx context.Context, c *race, f *lineUp) error {
	for i, e := range f.ran {
		cpu, held := spread(c.costs[i].Costs), c.costs[i].Held
		ratio, err := against(c.costs[i], c.costs[0])
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		e.CPU, e.Ratio, e.Loaded = &cpu, &ratio, &held
		if e.metrics == "" {
			continue
		}
		n, err := r.allocsOf(ctx, e, f.variants[i].Plan)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		e.Allocs = &n
	}
	if c.Latency {
		return r.added(ctx, c.Contest, f.end, f.ran)
	}
	return nil
}

// against compares two of a field round by round. Its median is that of the means of
// any two rounds, as in all of the load tool's comparisons: of two runs in a row it
// differs a seventh less than the plain one.
func against(of, to Costs) (Spread, error) {
	r, err := rank.Paired(to.Costs, of.Costs)
	s := Ratio(of, to)
	s.Median = r.Ratio
	return s, err
}

// A lineUp is everybody who does a work, started.
type lineUp struct {
	end      *Process // what answers
	ran      []*Entry
	variants []Variant // of ran
}

// lineUp starts them. What a first one finds, who takes part and who is missing, is
// noted and holds for the others.
func (r *Rig) lineUp(ctx context.Context, c *Contest) (*lineUp, error) {
	end, err := r.end(c.Work)
	if err != nil {
		return nil, err
	}
	f, first, n := &lineUp{end: end}, len(c.Entries) == 0, 0
	for _, who := range contestants() {
		if !who.does(c.Work) {
			continue
		}
		if first {
			c.Entries = append(c.Entries, &Entry{Name: who.name, Note: who.note, Version: who.version()})
		}
		e := c.Entries[n]
		n++
		if e.Missing != "" {
			continue
		}
		e.proc, e.metrics, err = who.start(ctx, r, c.Work, end)
		switch {
		case err != nil && (who.name == Ours || !first): // there is nothing to compare
			return nil, err
		case err != nil:
			e.Missing = strings.Join(strings.Fields(err.Error()), " ")
			r.logf("  %s: %s", e.Name, e.Missing)
			continue
		}
		f.ran = append(f.ran, e)
		f.variants = append(f.variants, Variant{Name: e.Name, Proc: e.proc, Plan: r.planOf(c.Work)})
	}
	return f, nil
}

func idleOfAll(ctx context.Context, ran []*Entry) error {
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, e := range ran {
		m, err := account.Held(e.proc.PID())
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", e.Name, err), e.proc.alive())
		}
		e.Idle = &m
	}
	return nil
}

// allocsOf counts what a program says that it allocates for a request, with all
// that its libraries allocate, in as much time as a round takes.
func (r *Rig) allocsOf(ctx context.Context, e *Entry, plan traffic.Plan) (float64, error) {
	s, err := r.Load(ctx, e.proc, plan)
	if err != nil {
		return 0, err
	}
	defer s.End()
	before, err := s.Measure(ctx, traffic.Measure{For: r.For / 4, Whole: true})
	if err != nil {
		return 0, err
	}
	from, err := mallocs(ctx, e.metrics)
	if err != nil {
		return 0, err
	}
	after, err := s.Measure(ctx, traffic.Measure{For: r.For, Whole: true})
	if err != nil {
		return 0, err
	}
	to, err := mallocs(ctx, e.metrics)
	if err != nil {
		return 0, err
	}
	n := after.Total - before.Total
	if n == 0 {
		return 0, errors.New("no request was answered while allocations were counted")
	}
	return max(0, to-from) / float64(n), nil
}

const mallocsName = "go_memstats_mallocs_total"

// mallocs scrapes how many objects a Go program has allocated.
func mallocs(ctx context.Context, addr string) (float64, error) {
	return scrape(ctx, addr, mallocsName)
}

// scrape reads the value of a series.
func scrape(ctx context.Context, addr, series string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, fmt.Errorf("scrape metrics: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return 0, fmt.Errorf("scrape metrics: %w", err)
	}
	_, after, ok := strings.Cut("\n"+string(text), "\n"+series+" ")
	var n float64
	if _, err := fmt.Sscan(after, &n); !ok || err != nil {
		return 0, fmt.Errorf("scrape metrics: there is no %s", series)
	}
	return n, nil
}
