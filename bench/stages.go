package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy"
)

// injected is how long something takes that is made slow.
const injected = 50 * time.Millisecond

// stageTries is how often a stage may be looked at until it has them.
const stageTries = 3

// within is by how much the stages of a request may be off.
const within = 0.02

// A stageBook adds up what an engine says of the stages of requests.
type stageBook struct {
	mu   sync.Mutex
	seen stageLook
}

// A stageLook is what a stageBook has seen since the last look.
type stageLook struct {
	Requests int64
	Within   int64         // whose stages are their time
	Worst    float64       // by how much one was off
	Last     filters.Times // of the latest request
}

func (b *stageBook) observe(o *proxy.Outcome) {
	wall := time.Since(o.Stream.Start)
	off := float64(wall-o.Stream.Times.Sum()) / float64(wall)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen.Requests++
	b.seen.Last = o.Stream.Times
	off = max(off, -off)
	if off <= within {
		b.seen.Within++
	}
	b.seen.Worst = max(b.seen.Worst, off)
}

func (b *stageBook) look() (l stageLook) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, b.seen = b.seen, stageLook{}
	return l
}

// slowed makes a part of the engine slow: its filter, or its dialler.
func slowed(what string, o *proxy.Options) error {
	switch what {
	case "":
	case "filters":
		o.Registry = filters.NewRegistry(filters.Kind{Name: "slow", New: func(*filters.Builder, filters.Spec) (filters.Filter, error) { return slowFilter{}, nil }})
		o.Guard = func(b *filters.Builder, _ string) error { return b.Add("slow", "slow", filters.NewSpec(nil)) }
	case "dial":
		o.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			select {
			case <-time.After(injected):
			case <-ctx.Done():
			}
			return new(net.Dialer).DialContext(ctx, "tcp", a.String())
		}
	default:
		return fmt.Errorf("nothing is called %q that can be made slow", what)
	}
	return nil
}

// A slowFilter takes its time off the turn.
type slowFilter struct{}

func (slowFilter) Request(*filters.Stream) *filters.Reply { return filters.Wait }
func (slowFilter) Work(context.Context, *filters.Stream, filters.Phase) *filters.Reply {
	<-time.After(injected)
	return nil
}

// A stageTest is one place to be slow in, and the stage that has to show it.
type stageTest struct {
	stage filters.Stage
	slow  string // part of the engine; or
	path  string // the application is, by the path; or
	split bool   // the client is, in the middle of its head; or
	after string // a request is that comes before
}

var stageTests = []stageTest{
	{stage: filters.StageAccept, path: "/", split: true},
	{stage: filters.StageQueue, path: "/", after: "/head"},
	{stage: filters.StageFilters, path: "/", slow: "filters"},
	{stage: filters.StageConnect, path: "/", slow: "dial"},
	{stage: filters.StageFirstByte, path: "/head"},
	{stage: filters.StageBody, path: "/body"},
}

// stagesInPlace makes one thing after the other slow by 50 ms, and looks whether
// those are found in its stage.
func stagesInPlace() Scenario {
	const name = "stages-50ms-in-place"
	return Scenario{
		// A hundredth less, because an arrival is seen some microseconds late.
		Bars: []Bar{{Name: name, Unit: "ms", Least: 49.5}},
		Run: func(ctx context.Context, r *Rig, f Figures) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			go serveSlowly(l)
			var found []float64
			note := ""
			for _, one := range stageTests {
				var took filters.Times
				// Who is given a CPU late sees the beginning of a stage late: once more.
				for range stageTries {
					var err error
					if took, err = r.stageOf(ctx, l.Addr().String(), one); err != nil {
						return fmt.Errorf("%s: %w", one.stage, err)
					}
					if took[one.stage] >= injected*99/100 {
						break
					}
				}
				in := float64(took[one.stage]) / float64(time.Millisecond)
				found = append(found, in)
				note += fmt.Sprintf("%s %.1f ms and %.1f elsewhere; ", one.stage, in, float64(took.Sum()-took[one.stage])/float64(time.Millisecond))
			}
			s := spread(found)
			f[name] = Figure{Spread: Spread{s.Low, s.Low, s.High}, Note: note}
			return nil
		},
	}
}

// stageOf makes one request and returns its stages.
func (r *Rig) stageOf(ctx context.Context, app string, one stageTest) (took filters.Times, err error) {
	in, err := r.insideWith(ctx, upstream{Plain: app}, InsideOptions{Stages: true, Slow: one.slow})
	if err != nil {
		return took, err
	}
	defer in.proxy.Stop()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", in.proxy.Addr)
	if err != nil {
		return took, err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(startTime))
	answers := 1
	text := traffic.ProxyHeader(netip.MustParseAddrPort("10.1.0.5:40000"), netip.MustParseAddrPort(vip), clientID)
	if one.after != "" {
		text = fmt.Appendf(text, "GET %s HTTP/1.1\r\nHost: svc\r\n\r\n", routePrefix+one.after)
		answers++
	}
	text = fmt.Appendf(text, "GET %s HTTP/1.1\r\n", routePrefix+one.path)
	if one.split {
		if _, err := nc.Write(text); err != nil {
			return took, err
		}
		text = nil
		<-time.After(injected)
	}
	if _, err := nc.Write(append(text, "Host: svc\r\n\r\n"...)); err != nil {
		return took, err
	}
	for br := bufio.NewReader(nc); answers > 0; answers-- {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return took, err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return took, err
		}
		if res.StatusCode != 200 {
			return took, fmt.Errorf("answered %s", res.Status)
		}
	}
	look, err := in.Look(ctx)
	if err == nil && look.Stages.Requests == 0 {
		err = errors.New("no request was looked at")
	}
	return look.Stages.Last, err
}

// serveSlowly is an application that waits before its head or in its body, by the
// path.
func serveSlowly(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go answerSlowly(nc)
	}
}

func answerSlowly(nc net.Conn) {
	defer nc.Close()
	for br := bufio.NewReader(nc); ; {
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if q.URL.Path == routePrefix+"/head" {
			<-time.After(injected)
		}
		io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
		if q.URL.Path == routePrefix+"/body" {
			<-time.After(injected)
		}
		if _, err := io.WriteString(nc, "k"); err != nil {
			return
		}
	}
}
