package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"

	"github.com/sandwich-mesh/sandwich/bench/relay"
	"github.com/sandwich-mesh/sandwich/bench/stock"
	"github.com/sandwich-mesh/sandwich/bench/traffic"
)

// A part is one of the programs that scenarios are made of. Parts are the same
// binary under another name, so that each has a process, hence CPU time and
// memory, of its own.
type part func(ctx context.Context, l net.Listener, o PartOptions) error

// PartOptions tell a part what to do; they cross process borders as JSON.
type PartOptions struct {
	To      string        `json:",omitempty"` // where relays connect to
	Certs   traffic.Certs `json:",omitzero"`  // of parts that speak TLS
	Calls   bool          `json:",omitempty"` // gRPC goes through it
	Metrics string        `json:",omitempty"` // where it serves metrics
	Listen  string        `json:",omitempty"` // a free port of loopback if not given
}

var parts = map[string]part{
	"echo": func(_ context.Context, l net.Listener, _ PartOptions) error {
		return traffic.Serve(l)
	},
	"known": serveKnown,
	"relay-byte": func(_ context.Context, l net.Listener, o PartOptions) error {
		return relay.Byte(l, o.To)
	},
	"tunnel": func(ctx context.Context, l net.Listener, o PartOptions) error {
		server, _, err := o.Certs.TLS()
		if err != nil {
			return err
		}
		return traffic.ServeTunnels(ctx, l, server)
	},
	"tunnel-grpc": func(ctx context.Context, l net.Listener, o PartOptions) error {
		server, _, err := o.Certs.TLS()
		if err != nil {
			return err
		}
		return traffic.ServeCalls(ctx, l, server)
	},
	"relay-tls": func(_ context.Context, l net.Listener, o PartOptions) error {
		server, client, err := o.Certs.TLS()
		if err != nil {
			return err
		}
		return relay.TLS(l, o.To, server, client)
	},
	"stock-proxy": func(_ context.Context, l net.Listener, o PartOptions) error {
		if err := serveMetrics(o.Metrics); err != nil {
			return err
		}
		return stock.New(stock.Options{Service: vip, Prefix: routePrefix, Application: o.To}).ServePROXY(l)
	},
	"stock-hbone": func(_ context.Context, l net.Listener, o PartOptions) error {
		if err := serveMetrics(o.Metrics); err != nil {
			return err
		}
		server, client, err := o.Certs.TLS()
		if err != nil {
			return err
		}
		so := stock.Options{Service: vip, Prefix: routePrefix, Application: application, Tunnel: o.To, Calls: o.Calls, Server: server, Client: client}
		if o.Calls {
			so.Prefix = path.Dir(traffic.Method)
		}
		return stock.New(so).ServeHBONE(l)
	},
}

// routePrefix begins the paths that all proxies route.
const routePrefix = "/api"

// serveMetrics lets addr be scraped, if there is one.
func serveMetrics(addr string) error {
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go stock.ServeMetrics(l)
	return nil
}

// Part runs a part: "load", "pace", "flood" and "generate", which read a plan and print results,
// "inside", which is the engine and looks into itself, or one that listens, prints its
// address and serves. All end when in ends, so a part never outlives who
// started it.
func Part(ctx context.Context, name, options string, in io.Reader, out io.Writer) error {
	switch name {
	case "load":
		return loadPart(ctx, in, out)
	case "pace":
		return pacePart(ctx, in, out)
	case attacker:
		return floodPart(ctx, in, out)
	case "generate":
		return generatePart(ctx, in, out)
	case "inside":
		return insidePart(ctx, options, in, out)
	case "cold":
		return coldPart(ctx, options, out)
	}
	serve := parts[name]
	if serve == nil {
		return fmt.Errorf("no part is called %q", name)
	}
	var o PartOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return fmt.Errorf("options of part %s: %w", name, err)
	}
	l, err := net.Listen("tcp", cmp.Or(o.Listen, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	fmt.Fprintln(out, l.Addr())
	if err := serve(ctx, l, o); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("part %s: %w", name, err)
	}
	return nil
}

// loadPart reads a plan, connects and says so; then it reads measurements and
// answers each with its result, until in ends.
func loadPart(ctx context.Context, in io.Reader, out io.Writer) error {
	lines, answers := json.NewDecoder(in), json.NewEncoder(out)
	var plan traffic.Plan
	if err := lines.Decode(&plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	run, err := traffic.Start(ctx, &plan)
	if err != nil {
		return err
	}
	if err := answers.Encode(traffic.Result{}); err != nil {
		return err
	}
	for {
		var m traffic.Measure
		if err := lines.Decode(&m); err != nil {
			os.Exit(0) // in ended; connections end with the process
		}
		res, err := run.Measure(ctx, m)
		if err != nil {
			return err
		}
		if err := answers.Encode(res); err != nil {
			return err
		}
	}
}

// floodPart reads a plan, then attacks, and answers each with its result, until in
// ends.
func floodPart(ctx context.Context, in io.Reader, out io.Writer) error {
	lines, answers := json.NewDecoder(in), json.NewEncoder(out)
	var plan traffic.FloodPlan
	if err := lines.Decode(&plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if err := answers.Encode(traffic.FloodResult{}); err != nil {
		return err
	}
	for {
		var f traffic.Flood
		if err := lines.Decode(&f); err != nil {
			os.Exit(0) // in ended
		}
		res, err := plan.Run(ctx, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Attack, err)
		}
		if err := answers.Encode(res); err != nil {
			return err
		}
	}
}
