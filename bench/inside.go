package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// InsideOptions tell the part "inside" what to run.
type InsideOptions struct {
	Document   string // file
	Certs      traffic.Certs
	TunnelPort uint16
	Profile    bool   // every allocation is recorded, which costs
	Stages     bool   // where the time of each request went is looked at
	Slow       string // what takes longer than it should, of "filters" and "dial"
}

// A look is what the part "inside" answers to each line it reads.
type look struct {
	HBONE, Proxy string // first answer only: where it listens
	Live         int64  // bytes of heap and stacks that a collection leaves
	Resident     int64  // bytes of anonymous memory in RAM after that
	Goroutines   int
	Allocs       allocs // since the last look
	Stages       stageLook
}

// allocs are numbers of heap objects, by who made them.
type allocs struct {
	Ours int64
	TLS  int64    // by crypto/tls for itself
	Top  []string // where ours are made, most first
}

// insidePart runs the proxy's engine in this process, so that its memory can be
// looked at from inside. The built binary has no door for that.
func insidePart(ctx context.Context, options string, in io.Reader, out io.Writer) error {
	var o InsideOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return fmt.Errorf("options of part inside: %w", err)
	}
	if o.Profile {
		runtime.MemProfileRate = 1
	}
	book := new(stageBook)
	first, err := serveInside(ctx, o, book)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(first); err != nil {
		return err
	}
	seen := allocations{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		l := &look{Stages: book.look()}
		if !o.Stages {
			if l, err = seen.look(o.Profile); err != nil {
				return err
			}
		}
		if err := answers.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// serveInside starts the engine as the waypoint program does.
func serveInside(ctx context.Context, o InsideOptions, book *stageBook) (*look, error) {
	certs, err := hbone.NewCertificates(hbone.CertificatesOptions{})
	if err != nil {
		return nil, err
	}
	creds, err := hbone.Files{Chain: o.Certs.Cert, Key: o.Certs.Key, Roots: []string{o.Certs.Roots}}.Load()
	if err != nil {
		return nil, err
	}
	certs.Set(creds)
	doc, problems := config.Load(o.Document)
	if len(problems) > 0 {
		return nil, errors.New(problems[0].String())
	}
	loops, err := wire.NewLoops(0, nil)
	if err != nil {
		return nil, err
	}
	po := proxy.Options{Certificates: certs, Registry: filters.NewRegistry(), TunnelPort: o.TunnelPort, Loops: loops,
		OnPanic: func(err error) { fmt.Fprintln(os.Stderr, err) }}
	if o.Stages {
		po.Observe = book.observe
	}
	if err := slowed(o.Slow, &po); err != nil {
		return nil, err
	}
	p := proxy.New(po)
	if problems := p.Apply(doc); len(problems) > 0 {
		return nil, errors.New(problems[0].String())
	}
	var ls [2]net.Listener
	for i := range ls {
		if ls[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	go p.Serve(ctx, proxy.Listeners{HBONE: ls[:1], Proxy: ls[1:]})
	return &look{HBONE: ls[0].Addr().String(), Proxy: ls[1].Addr().String()}, nil
}

// allocations are how many objects were allocated at each place so far.
type allocations map[[32]uintptr]int64

func (a allocations) look(profile bool) (*look, error) {
	l := &look{Goroutines: runtime.NumGoroutine()}
	if profile {
		l.Allocs = a.since()
		return l, nil
	}
	// An idle connection has seen many collections: pools have emptied, and each
	// has halved a stack that a request made grow.
	for range 5 {
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	l.Live = int64(m.HeapAlloc + m.StackInuse)
	var err error
	l.Resident, err = account.Resident(os.Getpid())
	return l, err
}

// since counts what was allocated since the last call, by place. Collections
// come first because the profile lags two of them behind.
func (a allocations) since() (got allocs) {
	for range 3 {
		runtime.GC()
	}
	n, _ := runtime.MemProfile(nil, true)
	records := make([]runtime.MemProfileRecord, n+200)
	n, ok := runtime.MemProfile(records, true)
	if !ok {
		return allocs{Ours: -1}
	}
	type place struct {
		n    int64
		text string
	}
	var places []place
	now := allocations{}
	for i := range records[:n] { // one for each size that a place allocates
		now[records[i].Stack0] += records[i].AllocObjects
	}
	for at, count := range now {
		d := count - a[at]
		a[at] = count
		end := slices.Index(at[:], 0)
		if end < 0 {
			end = len(at)
		}
		switch who, text := whose(at[:end]); {
		case d == 0 || who == "harness":
		case who == "tls":
			got.TLS += d
		default:
			got.Ours += d
			places = append(places, place{d, text})
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(b.n, a.n) })
	for _, p := range places[:min(len(places), 5)] {
		got.Top = append(got.Top, fmt.Sprintf("%d %s", p.n, p.text))
	}
	return got
}

// whose says who an allocation is to be laid to, by its stack, and where it is.
func whose(stack []uintptr) (who, text string) {
	frames := runtime.CallersFrames(stack)
	who = "ours"
	for {
		f, more := frames.Next()
		switch {
		case strings.Contains(f.Function, "/bench.") || strings.Contains(f.Function, "/bench/"):
			return "harness", ""
		case strings.HasPrefix(f.Function, "crypto/tls."):
			who = "tls"
		case text == "" && strings.Contains(f.Function, "/sandwich/"):
			_, at, _ := strings.Cut(f.Function, "/sandwich/")
			text = fmt.Sprintf("%s:%d", at, f.Line)
		}
		if !more {
			break
		}
	}
	if text == "" {
		f, _ := runtime.CallersFrames(stack).Next()
		text = f.Function
	}
	return who, text
}

// An Inside is the engine in a process of ours.
type Inside struct {
	*waypoint
	in  io.Writer
	out *bufio.Reader
}

// inside starts the part before an upstream.
func (r *Rig) inside(ctx context.Context, u upstream, profile bool) (*Inside, error) {
	return r.insideWith(ctx, u, InsideOptions{Profile: profile})
}

func (r *Rig) insideWith(ctx context.Context, u upstream, o InsideOptions) (*Inside, error) {
	file, port, err := r.writeDocument(u)
	if err != nil {
		return nil, err
	}
	o.Document, o.Certs, o.TunnelPort = file, r.certs["waypoint"], port
	opts, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p, out, err := r.start("inside", proxyCPU, append(r.self[:len(r.self):len(r.self)], "inside", string(opts)))
	if err != nil {
		return nil, err
	}
	i := &Inside{in: p.in.(io.Writer), out: out}
	i.waypoint = &waypoint{proxy: p}
	first, err := i.read(ctx)
	if err != nil {
		return nil, err
	}
	tunnels := *p
	tunnels.Addr, p.Addr = first.HBONE, first.Proxy
	i.hbone = &tunnels
	return i, nil
}

// Look asks what the engine holds, and what it has allocated since the last
// look.
func (i *Inside) Look(ctx context.Context) (*look, error) {
	if _, err := io.WriteString(i.in, "look\n"); err != nil {
		return nil, fmt.Errorf("speak to the engine: %w: %s", err, i.proxy.log)
	}
	return i.read(ctx)
}

func (i *Inside) read(ctx context.Context) (*look, error) {
	type answer struct {
		look look
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		line, err := i.out.ReadBytes('\n')
		if a.err = err; err == nil {
			a.err = json.Unmarshal(line, &a.look)
		}
		got <- a
	}()
	select {
	case a := <-got:
		if a.err != nil {
			i.proxy.Stop()
			return nil, fmt.Errorf("engine: %w: %s", a.err, i.proxy.log)
		}
		return &a.look, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(startTime):
		return nil, fmt.Errorf("engine does not answer: %s", i.proxy.log)
	}
}
