package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

// generatePart reads a spec, connects and says so; then each line has it make the
// load once and answer with the whole result, until in ends.
func generatePart(ctx context.Context, in io.Reader, out io.Writer) error {
	lines, answers := json.NewDecoder(in), json.NewEncoder(out)
	var s load.Spec
	if err := lines.Decode(&s); err != nil {
		return fmt.Errorf("read the spec: %w", err)
	}
	run, err := load.Start(ctx, s, load.Options{})
	if err != nil {
		return err
	}
	if err := answers.Encode(load.Result{}); err != nil {
		return err
	}
	for {
		var again bool
		if err := lines.Decode(&again); err != nil {
			os.Exit(0) // in ended; connections end with the process
		}
		res, err := run.Measure(ctx)
		if err != nil {
			return err
		}
		if err := answers.Encode(res); err != nil {
			return err
		}
	}
}

// A generator is the load tool at work, with a CPU of its own.
type generator struct {
	*talk
	spec load.Spec
}

func (r *Rig) generate(ctx context.Context, p *Process, s load.Spec) (*generator, error) {
	t, err := r.talk(ctx, loadCPU, "generate", p, s)
	if err != nil {
		return nil, err
	}
	return &generator{t, s}, nil
}

// measure makes the load once. A run with failures measures something else.
func (g *generator) measure(ctx context.Context) (*load.Result, error) {
	res := &load.Result{}
	if err := g.ask(ctx, true, res, g.spec.Warm+g.spec.For+g.spec.Timeout+startTime); err != nil {
		return nil, err
	}
	if res.Failed > 0 || res.Done == 0 {
		return nil, g.blame(fmt.Errorf("%d requests were answered and %d failed, first: %v", res.Done, res.Failed, res.Why))
	}
	return res, nil
}

// generatorCost compares what a request costs the waypoint, under the load tool's
// load, with what it costs the load tool when nothing is between it and the end
// that answers: so many times more than the waypoint can carry the tool generates
// from as much CPU. Both have their turn in each round.
func generatorCost(streams, conns int) Scenario {
	name := fmt.Sprintf("load-tool-vs-waypoint-%d-on-%d", streams, conns)
	return Scenario{
		Bars: []Bar{{Name: name, Least: 2}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			end, err := r.Part("tunnel", loadCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			direct, err := r.Part("tunnel", proxyCPU, PartOptions{Certs: r.certs["echo"]})
			if err != nil {
				return err
			}
			way, err := r.waypoint(ctx, proxyCPU, upstream{Tunnel: end.Addr})
			if err != nil {
				return err
			}
			var both [2]*generator
			for i, p := range []*Process{way.hbone, direct} {
				s := r.paceOf(Work{Mesh: true, Streams: streams, Conns: conns}, p, false)
				s.Schedule, s.For, s.Target.PID = load.Schedule{Shape: load.Closed}, r.For, p.PID()
				if both[i], err = r.generate(ctx, p, s); err != nil {
					return err
				}
				defer both[i].End()
			}
			var ratios, proxy, tool []float64
			for range r.Rounds {
				through, err := both[0].measure(ctx)
				if err != nil {
					return fmt.Errorf("through the waypoint: %w", err)
				}
				alone, err := both[1].measure(ctx)
				if err != nil {
					return fmt.Errorf("without it: %w", err)
				}
				proxy = append(proxy, inMicros(through.Target.PerRequest))
				tool = append(tool, inMicros(alone.Generator.PerRequest))
				ratios = append(ratios, proxy[len(proxy)-1]/tool[len(tool)-1])
				r.logf("  %6.2f µs CPU a request in the waypoint (%.2f µs in the tool), %6.2f µs in the tool without it", inMicros(through.Target.PerRequest),
					inMicros(through.Generator.PerRequest), inMicros(alone.Generator.PerRequest))
			}
			f[name] = Figure{Spread: spread(ratios), Note: fmt.Sprintf("%.2f µs waypoint, %.2f µs load tool", spread(proxy).Median, spread(tool).Median)}
			return nil
		},
	}
}

// truthRounds are enough where answers take seconds.
const truthRounds = 3

// generatorTruth compares percentiles of the load tool with those of a server
// that keeps its own times.
func generatorTruth() Scenario {
	const name = "load-tool-percentiles"
	return Scenario{
		Bars: []Bar{{Name: name, Unit: "off", Most: 0.01}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			known, err := r.Part("known", proxyCPU, PartOptions{})
			if err != nil {
				return err
			}
			s := load.Spec{
				Target:      load.Target{Addr: known.Addr},
				Schedule:    load.Schedule{Shape: load.Poisson, Rate: 200},
				Connections: 2000, Workers: 1, For: max(5*r.For, 3*time.Second), Timeout: time.Minute,
			}
			g, err := r.generate(ctx, known, s)
			if err != nil {
				return err
			}
			defer g.End()
			var offs []float64
			var note string
			for range min(r.Rounds, truthRounds) {
				res, err := g.measure(ctx)
				if err != nil {
					return err
				}
				served, err := servedBy(ctx, known.Addr)
				if err != nil {
					return err
				}
				got := []time.Duration{res.Service.P50, res.Service.P90, res.Service.P99}
				worst := 0.0
				for i, q := range []float64{.5, .9, .99} {
					worst = max(worst, beyond(got[i], served, q))
				}
				offs = append(offs, worst)
				note = fmt.Sprintf("the worst of p50, p90 and p99, which were %v, of %d requests; p99 of the generator's lag %v", got, len(served), res.Lag.P99)
				r.logf("  %.4f off: %s", worst, note)
			}
			f[name] = Figure{Spread: spread(offs), Note: note}
			return nil
		},
	}
}

// beyond is how far a percentile is from the two of sorted times that it lies
// between, as a share.
func beyond(got time.Duration, sorted []time.Duration, q float64) float64 {
	rank := q * float64(len(sorted))
	low := sorted[max(0, int(math.Floor(rank))-1)]
	high := sorted[max(0, int(math.Ceil(rank))-1)]
	return max(0, float64(got)/float64(high)-1, 1-float64(got)/float64(low))
}

// served is a server that keeps how long it took for each request.
type served struct {
	mu     sync.Mutex
	random *rand.Rand
	took   []time.Duration
}

// wait is how long the next request is to take: a second and a half in the
// middle, spread as answers of real services are. It is that long so that what a busy
// machine adds between the two ends is small beside it.
func (k *served) wait() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return 750*time.Millisecond + time.Duration(float64(750*time.Millisecond)*math.Exp(0.7*k.random.NormFloat64()))
}

// serveKnown answers after times that it draws and takes down.
func serveKnown(_ context.Context, l net.Listener, _ PartOptions) error {
	k := &served{random: rand.New(rand.NewPCG(1, 1))}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go k.converse(c)
	}
}

// reportPath is asked for what was taken down, and has it forgotten.
const reportPath = "/served"

func (k *served) converse(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		came := time.Now()
		if req.URL.Path == reportPath {
			k.report(c)
			return
		}
		time.Sleep(k.wait())
		took := time.Since(came)
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"); err != nil {
			return
		}
		k.mu.Lock()
		k.took = append(k.took, took)
		k.mu.Unlock()
	}
}

func (k *served) report(c net.Conn) {
	k.mu.Lock()
	b, err := json.Marshal(k.took)
	k.took = nil
	k.mu.Unlock()
	if err == nil {
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s", len(b), b)
	}
}

// servedBy fetches what a known server has taken down, sorted.
func servedBy(ctx context.Context, addr string) (took []time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+reportPath, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&took); err != nil {
		return nil, err
	}
	if len(took) == 0 {
		return nil, errors.New("the server took nothing down")
	}
	slices.Sort(took)
	return took, nil
}

func inMicros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
