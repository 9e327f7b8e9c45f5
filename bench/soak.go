package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/bench/load"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// SoakTime is how long a soak is looked at if nothing else is asked for.
const SoakTime = 20 * time.Minute

// settleTime is how long it goes on before, if it is looked at for so long. A heap
// that is collected once in two minutes takes some of them to find its size, and
// that is growth too.
func settleTime(soak time.Duration) time.Duration { return soak / 4 }

// A soak is looked at so many times, but not more often than every soakLeast.
const (
	soakLooks = 600
	soakLeast = 50 * time.Millisecond
)

// soakBars are what may be left of growth when chance is taken off: a step of one
// in the middle of 20 minutes, a few pages. What is lost with each request, or
// once a minute, is a hundred times that.
var soakBars = []Bar{
	{Name: "soak-rss-growth", Unit: "KiB/h", Most: 1024},
	{Name: "soak-goroutines-growth", Unit: "/h", Most: 12},
	{Name: "soak-descriptors-growth", Unit: "/h", Most: 12},
}

// soak looks whether mixed load leaves anything behind: requests and calls over
// kept connections, bulk both ways, connections that come and go in all manners,
// and documents that change.
func soak() Scenario {
	return Scenario{
		Bars: soakBars,
		Long: true,
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			w, err := r.soakedWaypoints(ctx)
			if err != nil {
				return err
			}
			defer w.end()
			return r.soak(ctx, w.seen, w.work, f)
		},
	}
}

func (r *Rig) soakInterval() time.Duration { return max(r.Soak/soakLooks, soakLeast) }

// A soaked process is looked at from outside.
type soaked struct {
	proc    *Process
	metrics string // where it serves them
}

// soak has work done and looks at the processes meanwhile.
func (r *Rig) soak(ctx context.Context, seen []soaked, work func(context.Context) (int64, error), f Figures) error {
	interval := r.soakInterval()
	var samples [3][]float64
	var done int64
	tick := time.NewTicker(interval)
	defer tick.Stop()
	start := time.Now()
	began := start.Add(settleTime(r.Soak))
	for told := start; time.Since(began) < r.Soak; {
		n, err := work(ctx)
		if err != nil {
			return fmt.Errorf("after %v: %w", time.Since(start).Round(time.Second), err)
		}
		done += n
		var sum [3]float64
		for _, s := range seen {
			one, err := s.look(ctx)
			if err != nil {
				return err
			}
			for i := range sum {
				sum[i] += one[i]
			}
		}
		for i := range sum {
			if time.Since(began) >= 0 {
				samples[i] = append(samples[i], sum[i])
			}
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			r.logf("  %3.0f min: %.0f KiB, %.0f goroutines, %.0f descriptors, %d requests", time.Since(start).Minutes(), sum[0], sum[1], sum[2], done)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := grown(samples, time.Since(began)/time.Duration(max(len(samples[0]), 1)), done, f); err != nil {
		return err
	}
	for _, b := range soakBars {
		r.logf("  %s: %s", b.Name, f[b.Name].Note)
	}
	return nil
}

// grown makes figures of samples that were taken at that interval.
func grown(samples [3][]float64, interval time.Duration, done int64, f Figures) error {
	const hour = 3600
	for i, b := range soakBars {
		t, ok := trendOf(samples[i], interval.Seconds())
		if !ok {
			return fmt.Errorf("%d looks are too few to see a trend: let it last longer than %v", len(samples[i]), 2*trendBlocks*soakLeast)
		}
		v := max(0, t.Least*hour)
		last := samples[i][len(samples[i])-1]
		f[b.Name] = Figure{Spread: Spread{v, v, v}, Note: fmt.Sprintf("slope %+.1f %s, certain %+.1f; at the end %.0f; %d requests, %d looks", t.Slope*hour, b.Unit, t.Least*hour, last, done, len(samples[i]))}
	}
	return nil
}

// look returns a process's memory in KiB, its goroutines and its descriptors.
func (s soaked) look(ctx context.Context) (v [3]float64, err error) {
	goroutines, err := s.goroutines(ctx)
	if err != nil {
		return v, err
	}
	open, err := os.ReadDir("/proc/" + strconv.Itoa(s.proc.PID()) + "/fd")
	if err != nil {
		return v, fmt.Errorf("descriptors of %s: %w", s.proc.Name, err)
	}
	held, err := account.Resident(s.proc.PID())
	return [3]float64{float64(held) / 1024, goroutines, float64(len(open))}, err
}

func (s soaked) goroutines(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	q.Close = true
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", s.proc.Name, err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("metrics of %s tell no goroutines", s.proc.Name)
}

// soakedWaypoints are two of them, for requests and for calls, and their load.
type soakedWaypoints struct {
	seen  []soaked
	loads []*talk
	step  time.Duration // of load, between two looks
	way   *waypoint
	file  string // the document of way
	text  string
	turns int

	done, late int64
}

func (w *soakedWaypoints) end() {
	for _, t := range w.loads {
		t.End()
	}
}

func (r *Rig) soakedWaypoints(ctx context.Context) (*soakedWaypoints, error) {
	w := &soakedWaypoints{step: r.soakInterval() * 3 / 4}
	for _, kind := range []struct {
		part string
		grpc bool
	}{{"tunnel", false}, {"tunnel-grpc", true}} {
		end, err := r.Part(kind.part, loadCPU, PartOptions{Certs: r.certs["echo"]})
		if err != nil {
			return w, err
		}
		metrics, err := r.freeAddr()
		if err != nil {
			return w, err
		}
		u := upstream{Tunnel: end.Addr, GRPC: kind.grpc}
		// Records are kept until 512 are there: that is to be soon.
		way, err := r.waypoint(ctx, proxyCPU, u, "--metrics-listen", metrics, "--record-every", "4")
		if err != nil {
			return w, err
		}
		w.seen = append(w.seen, soaked{way.proxy, metrics})
		if !kind.grpc {
			w.way, w.file = way, way.document
			if w.text, err = u.document(); err != nil {
				return w, err
			}
		}
		for _, spec := range r.soakLoads(way, kind.grpc, w.step) {
			t, err := r.talk(ctx, loadCPU, "pace", way.proxy, spec)
			if err != nil {
				return w, err
			}
			w.loads = append(w.loads, t)
		}
	}
	return w, nil
}

// soakLoads are what is asked of one of the waypoints, at rates that do not change:
// what a heap takes depends on how fast it is used.
func (r *Rig) soakLoads(way *waypoint, grpc bool, step time.Duration) []load.Spec {
	get := func(bytes int64) load.Kind {
		return load.Kind{
			Name: strconv.FormatInt(bytes, 10), Path: fmt.Sprintf("%s/items?bytes=%d", routePrefix, bytes), Host: "svc.bench",
			Fields: []load.Field{{Name: "x-echo", Value: "0000000000000000"}}, Bytes: bytes, Weight: 10,
		}
	}
	bulk, upload := get(256<<10), get(1000)
	bulk.Weight, upload.Weight = 1, 1
	upload.Name, upload.Method, upload.Size = "upload", "POST", 256<<10
	mesh := load.Target{Addr: way.hbone.Addr, Via: load.ViaHBONE, Protocol: load.HTTP1, To: vip, Certs: r.certs["curl"]}
	two, calls := mesh, mesh
	two.Protocol, calls.Protocol = load.HTTP2, load.GRPC
	proxied := load.Target{Addr: way.proxy.Addr, Via: load.ViaProxy, Protocol: load.HTTP1, To: vip, Identities: []string{clientID}}
	at := func(t load.Target, rate float64, streams int, mix ...load.Kind) load.Spec {
		return load.Spec{Target: t, Schedule: load.Schedule{Shape: load.Constant, Rate: rate}, Mix: mix, Connections: 8, Streams: streams, Workers: 1, For: step}
	}
	if grpc {
		return []load.Spec{at(calls, 100, 8, load.Kind{Path: traffic.Method, Body: []byte("0123456789abcdef00000400"), Bytes: 1024 + 16})}
	}
	return []load.Spec{at(mesh, 150, 1, get(1024), bulk, upload), at(two, 100, 8, get(1024), bulk), at(proxied, 100, 1, get(1024))}
}

// work makes all loads at once for a step, and some connections.
func (w *soakedWaypoints) work(ctx context.Context) (n int64, err error) {
	w.turns++
	if w.turns%10 == 0 {
		// A comment alone would be another document too, but another rule is another
		// chain.
		text := strings.ReplaceAll(w.text, `value: "1"`, fmt.Sprintf("value: %q", strconv.Itoa(w.turns)))
		if err := os.WriteFile(w.file+".new", []byte(text), 0o644); err != nil {
			return 0, err
		}
		if err := os.Rename(w.file+".new", w.file); err != nil {
			return 0, err
		}
	}
	paces, errs := make([]pace, len(w.loads)), make([]error, len(w.loads))
	var all sync.WaitGroup
	for i, t := range w.loads {
		all.Go(func() { errs[i] = t.ask(ctx, true, &paces[i], w.step+startTime) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	for i := range paces {
		p := &paces[i]
		if len(p.Why) > 0 {
			return n, fmt.Errorf("%d of %d requests failed, first: %v", p.Failed, p.Failed+p.Done, p.Why)
		}
		// Failures without words were not sent in time, because the machine was busy
		// elsewhere. With many of them the rate has changed, which was not to be.
		w.late += p.Failed
		n += paces[i].Done
	}
	w.done += n
	if w.late > max(1000, w.done/100) {
		return n, fmt.Errorf("%d of %d requests could not be sent in time: the machine is too busy", w.late, w.late+w.done)
	}
	const comers = 20
	for i := range comers {
		if err := comeAndGo(ctx, w.way.proxy.Addr, (w.turns+i)%len(manners)); err != nil {
			return n, err
		}
	}
	return n + comers, nil
}

// manners are how clients come and go: what they send, and how they end.
var manners = []struct {
	text   string
	answer bool // is read to its end
	reset  bool
}{
	{text: "GET /api/items HTTP/1.1\r\nHost: svc\r\nConnection: close\r\n\r\n", answer: true},
	{text: "GET /api/items HTTP/1.1\r\nHost: svc\r\n\r\n", reset: true},
	{text: "GET /api/it", reset: true},
	{text: "POST /api/items HTTP/1.1\r\nHost: svc\r\nContent-Length: 1000\r\n\r\nhalf", reset: true},
	{text: "GET /api/items HTTP/1.1\r\nHost: svc\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n", reset: true},
	{text: "GET /elsewhere HTTP/1.1\r\nHost: svc\r\nConnection: close\r\n\r\n", answer: true},
	{text: "\x00 nonsense \r\n\r\n", answer: true},
	{text: ""},
}

// comeAndGo makes one connection.
func comeAndGo(ctx context.Context, addr string, manner int) error {
	m := manners[manner]
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(startTime))
	head := traffic.ProxyHeader(netip.AddrPortFrom(netip.MustParseAddr("10.1.0.5"), uint16(1024+rand.IntN(60000))), netip.MustParseAddrPort(vip), clientID)
	if _, err := nc.Write(append(head, m.text...)); err != nil {
		return err
	}
	if m.answer {
		n, err := io.Copy(io.Discard, nc)
		if err == nil && n == 0 {
			err = errors.New("no answer")
		}
		if err != nil {
			return fmt.Errorf("%q: %w", m.text, err)
		}
	}
	if m.reset {
		return nc.(*net.TCPConn).SetLinger(0)
	}
	return nil
}
