package interop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// payload is how much each side sends: more than every window on the way.
const payload = 600 << 10

// A talk is both sides of one connection.
type talk struct {
	client, server end
	oneWay         bool
	begun          chan struct{} // closed when something has arrived, for who aborts
}

// A side reports what is wrong with what it saw.
type side func() error

// orders are who ends a connection, and how.
var orders = []struct {
	name           string
	client, server func(k *talk) side
}{
	{"client first", func(k *talk) side {
		return func() error { // both talk at once; the client ends when it has heard all
			return all(both(send(k.client, 'c'), receive(k.client, 's', payload)), k.client.CloseWrite, receive(k.client, 's', 0))
		}
	}, func(k *talk) side {
		return func() error {
			return all(both(send(k.server, 's'), receive(k.server, 'c', payload)), receive(k.server, 'c', 0), k.server.CloseWrite)
		}
	}},
	{"server first", func(k *talk) side {
		return func() error {
			err := all(both(send(k.client, 'c'), receive(k.client, 's', payload)), receive(k.client, 's', 0))
			k.client.CloseWrite() // a response that is whole may have ended the request
			return err
		}
	}, func(k *talk) side {
		return func() error {
			err := all(both(send(k.server, 's'), receive(k.server, 'c', payload)), k.server.CloseWrite)
			if k.oneWay || err != nil {
				return err
			}
			return receive(k.server, 'c', 0)()
		}
	}},
	{"half-close", func(k *talk) side {
		return func() error {
			return all(send(k.client, 'c'), k.client.CloseWrite, receive(k.client, 's', payload), receive(k.client, 's', 0))
		}
	}, func(k *talk) side {
		return func() error {
			return all(receive(k.server, 'c', payload), receive(k.server, 'c', 0), send(k.server, 's'), k.server.CloseWrite)
		}
	}},
	{"client aborts", func(k *talk) side {
		return func() error { return k.abort(k.client, 'c') }
	}, func(k *talk) side { return func() error { return k.cut(k.server) } }},
	{"server aborts", func(k *talk) side { return func() error { return k.cut(k.client) } }, func(k *talk) side {
		return func() error { return k.abort(k.server, 's') }
	}},
}

// abort sends half of a side's payload and gives up, once some of it has arrived:
// before that there is nothing to be cut.
func (k *talk) abort(e end, who byte) error {
	_, err := e.Write(bread(who, payload/2))
	<-k.begun
	e.Abort()
	return err
}

// cut wants the connection to end, but not in order.
func (k *talk) cut(e end) error {
	_, err := io.ReadFull(e, make([]byte, 1))
	close(k.begun)
	if err != nil {
		return fmt.Errorf("nothing came: %w", err)
	}
	n, err := io.Copy(io.Discard, e)
	if err == nil {
		return fmt.Errorf("after %d bytes: the end, as if all were there", n+1)
	}
	return nil
}

// bread is n bytes that no other side sends.
func bread(who byte, n int) []byte {
	out := make([]byte, n)
	r := rand.NewChaCha8([32]byte{who})
	r.Read(out)
	return out
}

// all does one after the other up to the first that fails.
func all(steps ...func() error) error {
	for i, f := range steps {
		if err := f(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// both does two things at once.
func both(f, g func() error) func() error {
	return func() error {
		done := make(chan error, 1)
		go func() { done <- f() }()
		return errors.Join(g(), <-done)
	}
}

// send writes a side's payload, in pieces of no particular size.
func send(e end, who byte) func() error {
	return func() error {
		for rest := bread(who, payload); len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(32<<10))
			if _, err := e.Write(rest[:n]); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			rest = rest[n:]
		}
		return nil
	}
}

// receive reads n bytes of a side's payload and compares sums; for 0 it wants the
// end.
func receive(e end, who byte, n int) func() error {
	return func() error {
		if n == 0 {
			rest, err := io.ReadAll(e)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("at the end: %d bytes, %v", len(rest), err)
			}
			return nil
		}
		sum := sha256.New()
		got, err := io.CopyN(sum, e, int64(n))
		if err != nil {
			return fmt.Errorf("receive: after %d of %d bytes: %w", got, n, err)
		}
		if want := sha256.Sum256(bread(who, n)); string(sum.Sum(nil)) != string(want[:]) {
			return fmt.Errorf("received %d bytes with sum %x, want %x", n, sum.Sum(nil), want)
		}
		return nil
	}
}

// A station is an application of one protocol, and what comes to it.
type station struct {
	protocol
	addr     string
	accepted chan end
}

func newStation(t *testing.T, p protocol) *station {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &station{p, l.Addr().String(), make(chan end, 1)}
	p.serve(t, l, s.accepted)
	return s
}

// converse has both sides talk over a path that begins at addr.
func (s *station) converse(t *testing.T, addr string, client, server func(k *talk) side) {
	t.Helper()
	select {
	case e := <-s.accepted:
		t.Error("a connection that nobody asked for, from the case before")
		e.Abort()
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	opened := make(chan error, 1)
	k := &talk{oneWay: s.oneWay, begun: make(chan struct{})}
	go func() {
		var err error
		k.client, err = s.open(ctx, addr)
		opened <- err
	}()
	select {
	case k.server = <-s.accepted:
	case err := <-opened:
		if opened <- err; err != nil {
			t.Fatalf("client: %v", err)
		}
		select {
		case k.server = <-s.accepted:
		case <-ctx.Done():
			t.Fatal("nothing reaches the server")
		}
	case <-ctx.Done():
		t.Fatal("nothing reaches the server, nor comes back")
	}
	if err := <-opened; err != nil {
		t.Fatalf("client: %v", err)
	}
	stop := context.AfterFunc(ctx, func() { k.client.Abort(); k.server.Abort() })
	defer stop()
	heard := make(chan error, 1)
	go func() { heard <- server(k)() }()
	err := client(k)()
	if other := <-heard; err != nil || other != nil {
		t.Errorf("client: %v\nserver: %v", err, other)
	}
	if err := ctx.Err(); err != nil {
		t.Error(err)
	}
	k.client.Close()
	k.server.Close()
}

// TestEndsAgree: every protocol and order without anything on the way.
func TestEndsAgree(t *testing.T) {
	for _, p := range protocols {
		s := newStation(t, p)
		for _, o := range orders {
			t.Run(p.name+"/"+o.name, func(t *testing.T) { s.converse(t, s.addr, o.client, o.server) })
		}
	}
}

// A way is one service of the matrix.
type way struct {
	protocol
	out      string // HBONE or TCP
	declared bool   // else the protocol is found out
}

func (w way) service() string {
	if w.declared {
		return w.name + "-" + strings.ToLower(w.out)
	}
	return w.name + "-" + strings.ToLower(w.out) + "-undeclared"
}

func ways() (all []way) {
	for _, p := range protocols {
		for _, out := range []string{"HBONE", "TCP"} {
			all = append(all, way{p, out, true}, way{p, out, false})
		}
	}
	return all
}

// matrixDocument has a service for each way.
func matrixDocument(t *testing.T) *config.Config {
	t.Helper()
	var services, workloads strings.Builder
	for i, w := range ways() {
		speaks := ""
		if w.declared {
			speaks = ", appProtocol: " + w.app
		}
		fmt.Fprintf(&services, "- {name: %s, addresses: [10.96.0.%d], ports: [{port: 80%s}], endpoints: [{workload: %s}]}\n", w.service(), i+1, speaks, w.service())
		fmt.Fprintf(&workloads, "- {name: %s, address: 10.1.0.%d, protocol: %s}\n", w.service(), i+1, w.out)
	}
	text := "apiVersion: sandwich-mesh.io/v1alpha1\nkind: Waypoint\nmetadata: {namespace: demo}\nservices:\n" + services.String() + "workloads:\n" + workloads.String()
	c, problems := config.Decode(config.File{Name: "matrix.yaml", Data: []byte(text)})
	if c == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	return c
}

// TestMatrix: every protocol, declared and found out, in by HBONE and by PROXY,
// out by HBONE and plain, ended by either side in each way.
func TestMatrix(t *testing.T) {
	stations := map[string]*station{}
	for _, p := range protocols {
		stations[p.name] = newStation(t, p)
	}
	m, err := devmesh.Start(devmesh.Options{Config: matrixDocument(t), App: func(workload string) string {
		name, _, _ := strings.Cut(strings.TrimPrefix(workload, "demo/"), "-")
		return stations[name].addr
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	for _, w := range ways() {
		for _, in := range m.Modes {
			e, ok := m.Find(w.service(), in)
			if !ok {
				t.Fatalf("no entry for %s over %s", w.service(), in)
			}
			for _, o := range orders {
				t.Run(strings.Join([]string{w.service(), "in " + string(in), o.name}, "/"), func(t *testing.T) {
					stations[w.name].converse(t, e.Addr(), o.client, o.server)
				})
			}
		}
	}
	for _, in := range m.Modes {
		if s := m.Waypoint(in).Stats(); s.Panics.Load()+s.Impossible.Load() > 0 {
			t.Errorf("%s: %d panics and %d impossible events", in, s.Panics.Load(), s.Impossible.Load())
		}
	}
}
