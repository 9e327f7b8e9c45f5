package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// starts measures how long it takes to be ready: beside a dependency that never
// answers, and from the state directory alone with many services.
func starts() Scenario {
	const without, cached = "ready-without-dependency", "ready-from-state-1000-services"
	const times = 5
	return Scenario{
		Bars: []Bar{{Name: without, Unit: "ms", Most: 6000}, {Name: cached, Unit: "ms", Most: 300}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			took, err := r.startCold(ctx)
			if err != nil {
				return err
			}
			f[without] = Figure{Spread: Spread{took, took, took}, Note: "a filter before every service asks to be waited for, and never is done"}
			h, err := r.newHouse()
			if err != nil {
				return err
			}
			if err := h.replace("waypoint.yaml", manyServices(1000, 2000)); err != nil {
				return err
			}
			if h.now, err = h.move(ctx); err != nil {
				return err
			}
			h.now.Stop()
			if err := os.Remove(h.file("waypoint.yaml")); err != nil {
				return err
			}
			var all, cpu []float64
			for range times {
				begun := time.Now()
				if h.now, err = h.move(ctx); err != nil {
					return err
				}
				all = append(all, ms(time.Since(begun)))
				used, err := account.Meter{PID: h.now.PID()}.Read()
				if err != nil {
					return err
				}
				cpu = append(cpu, ms(used.Coarse))
				h.now.Stop()
			}
			r.logf("  %.0f ms, %.0f of CPU time", all, cpu)
			f[cached] = Figure{Spread: spread(all), Note: fmt.Sprintf("1000 services with a route and 2 endpoints each, and no document but the last good one; %.0f ms of CPU time", spread(cpu).Median)}
			return nil
		},
	}
}

// startCold starts the part "cold" and returns after how long it is ready, in ms.
func (r *Rig) startCold(ctx context.Context) (float64, error) {
	file := upstream{Plain: "127.0.0.1:9"}
	doc, _, err := r.writeDocument(file)
	if err != nil {
		return 0, err
	}
	opts, err := json.Marshal(InsideOptions{Document: doc, Certs: r.certs["waypoint"]})
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	p, out, err := r.start("cold", anyCPU, append(r.self[:len(r.self):len(r.self)], "cold", string(opts)))
	if err != nil {
		return 0, err
	}
	defer p.Stop()
	ready := make(chan error, 1)
	go readLine(out, ready)
	select {
	case err := <-ready:
		return ms(time.Since(begun)), err
	case <-time.After(startTime):
		return 0, fmt.Errorf("not ready within %v: %s", startTime, p.log)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func readLine(in *bufio.Reader, to chan<- error) {
	_, err := in.ReadString('\n')
	to <- err
}

// coldPart runs the engine with a filter that is never done warming up, and says
// when it is ready all the same.
func coldPart(ctx context.Context, options string, out io.Writer) error {
	var o InsideOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	certs, err := hbone.NewCertificates(hbone.CertificatesOptions{})
	if err != nil {
		return err
	}
	creds, err := hbone.Files{Chain: o.Certs.Cert, Key: o.Certs.Key, Roots: []string{o.Certs.Roots}}.Load()
	if err != nil {
		return err
	}
	certs.Set(creds)
	doc, problems := config.Load(o.Document)
	if len(problems) > 0 {
		return errors.New(problems[0].String())
	}
	p := proxy.New(proxy.Options{
		Certificates: certs,
		Registry:     filters.NewRegistry(filters.Kind{Name: "cold", New: newCold}),
		Guard:        func(b *filters.Builder, _ string) error { return b.Add("cold", "demo/cold", filters.NewSpec(nil)) },
	})
	p.Apply(doc)
	go p.Serve(ctx, proxy.Listeners{})
	for p.Ready() != nil {
		<-time.After(time.Millisecond)
	}
	if p.Stats().Cold.Load() == 0 {
		return errors.New("nothing was asked to be waited for")
	}
	_, err = fmt.Fprintln(out, "ready")
	return err
}

// A cold filter lets everything through, and is never done.
type cold struct{}

func newCold(b *filters.Builder, _ filters.Spec) (filters.Filter, error) {
	b.WarmUp("a dependency that never answers")
	return cold{}, nil
}

func (cold) Request(*filters.Stream) *filters.Reply { return nil }

// routeChanges measures how long after its file was replaced a document's route is
// taken by a request.
func routeChanges() Scenario {
	const name = "route-change"
	const times = 20
	return Scenario{
		Bars: []Bar{{Name: name, Unit: "ms", Most: 50}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			h, err := r.newHouse()
			if err != nil {
				return err
			}
			if h.now, err = h.move(ctx); err != nil {
				return err
			}
			p, err := r.patrons(h.hbone, h.proxy, patronage{Meshes: 1, Tunnels: 1})
			if err != nil {
				return err
			}
			defer p.Leave()
			var all []float64
			for v := range int64(times) {
				begun := time.Now()
				if err := h.document(v + 1); err != nil {
					return err
				}
				if err := p.until(ctx, "the change", func() bool { return p.version.Load() == v+1 }); err != nil {
					return err
				}
				all = append(all, ms(time.Since(begun)))
			}
			r.logf("  %.1f ms", all)
			f[name] = Figure{Spread: spread(all), Note: fmt.Sprintf("%d changes, from writing the file to the first answer by it", times)}
			return nil
		},
	}
}
