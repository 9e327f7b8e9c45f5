package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/wire"
	"github.com/sandwich-mesh/sandwich/proxy"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"golang.org/x/net/http2/hpack"
)

const benchDocument = `
apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: bench, namespace: demo}
services:
- {name: svc, addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: svc-1}]}
workloads:
- {name: svc-1, address: 10.1.0.1, serviceAccount: echo, protocol: HBONE}
httpRoutes:
- name: svc
  parentRefs: [{kind: Service, name: svc, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}, headers: [{name: x-canary, value: "1"}]}]
    backendRefs: [{name: svc, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: svc, port: 80}]
`

// The messages of the bars: 6 fields one way, 4 and 1 KiB the other.
var (
	benchRequest = []byte("GET /api/items?bytes=1024 HTTP/1.1\r\n" +
		"host: svc.bench\r\n" +
		"user-agent: bars/1.0\r\n" +
		"accept: */*\r\n" +
		"x-canary: 0\r\n" +
		"authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789\r\n" +
		"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
		"x-echo: 0000000000000000\r\n\r\n")
	benchResponse = []byte("HTTP/1.1 200 OK\r\n" +
		"date: Thu, 01 Jan 2026 00:00:00 GMT\r\n" +
		"content-type: application/json\r\n" +
		"content-length: 1024\r\n" +
		"x-echo: 0000000000000000\r\n\r\n" + strings.Repeat("x", 1024))
)

// BenchmarkWaypoint is whole requests through the empty chain, HBONE in and out,
// over loopback with mutual TLS, in lock step: every client connection asks on
// all its streams in one write, and reads all answers. Its peers are as bare as
// they can be, and in the same process; BenchmarkDirect is what they cost
// themselves. Run it with -cpu 1: then the least time of a round is what it costs
// when no neighbour disturbs it.
func BenchmarkWaypoint(b *testing.B) {
	for _, row := range []struct{ conns, streams int }{{1, 32}, {4, 8}, {8, 32}} {
		b.Run(fmt.Sprintf("%d×%d", row.conns, row.streams), func(b *testing.B) {
			m := newBenchMesh(b)
			m.run(b, m.waypoint(b), row.conns, row.streams)
		})
	}
}

// BenchmarkDirect is the peers of BenchmarkWaypoint without anything between.
func BenchmarkDirect(b *testing.B) {
	m := newBenchMesh(b)
	m.run(b, m.app, 1, 32)
}

// A benchMesh is the far ends and what they agree on.
type benchMesh struct {
	ca  *devca.CA
	app string // address of the node tunnel that answers in the application's place
}

func newBenchMesh(b *testing.B) *benchMesh {
	ca, err := devca.New("bench")
	if err != nil {
		b.Fatal(err)
	}
	m := &benchMesh{ca: ca}
	ln := benchListen(b)
	m.app = ln.Addr().String()
	cfg := m.tls(b, "echo")
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			b.Cleanup(func() { nc.Close() })
			go (&benchPeer{Conn: tls.Server(nc, cfg)}).answer()
		}
	}()
	return m
}

func benchListen(b *testing.B) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	return ln
}

func (m *benchMesh) leaf(b *testing.B, account string) *devca.Leaf {
	l, err := m.ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/" + account})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (m *benchMesh) tls(b *testing.B, account string) *tls.Config {
	l := m.leaf(b, account)
	cert, err := tls.X509KeyPair(l.Chain, l.Key)
	if err != nil {
		b.Fatal(err)
	}
	return &tls.Config{
		Certificates:                []tls.Certificate{cert},
		NextProtos:                  []string{"h2"},
		InsecureSkipVerify:          true,
		ClientAuth:                  tls.RequestClientCert,
		DynamicRecordSizingDisabled: true,
	}
}

// waypoint starts a proxy that dials m.app whatever node tunnel it looks for.
func (m *benchMesh) waypoint(b *testing.B) (addr string) {
	dir, l := b.TempDir(), m.leaf(b, "waypoint")
	files := hbone.Files{Chain: filepath.Join(dir, "chain"), Key: filepath.Join(dir, "key"), Roots: []string{filepath.Join(dir, "root")}}
	for name, text := range map[string][]byte{files.Chain: l.Chain, files.Key: l.Key, files.Roots[0]: m.ca.PEM()} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	set, err := files.Load()
	if err != nil {
		b.Fatal(err)
	}
	certs, err := hbone.NewCertificates(hbone.CertificatesOptions{})
	if err != nil {
		b.Fatal(err)
	}
	certs.Set(set)
	doc, problems := config.Decode(config.File{Name: "bench.yaml", Data: []byte(benchDocument)})
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	var d net.Dialer
	loops, err := wire.NewLoops(0, nil)
	if err != nil {
		b.Fatal(err)
	}
	p := proxy.New(proxy.Options{
		Loops:        loops,
		Certificates: certs,
		Registry:     filters.NewRegistry(),
		Dial:         func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { return d.DialContext(ctx, "tcp", m.app) },
		OnFault:      func(_ net.Addr, err error) { b.Log(err) },
	})
	if problems := p.Apply(doc); len(problems) > 0 {
		b.Fatal(problems)
	}
	ln := benchListen(b)
	go p.Serve(b.Context(), proxy.Listeners{HBONE: []net.Listener{ln}})
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		p.Shutdown(ctx)
		loops.Close()
	})
	return ln.Addr().String()
}

// run measures n clients of so many streams each, per request.
func (m *benchMesh) run(b *testing.B, addr string, n, streams int) {
	cfg := m.tls(b, "curl")
	var clients []*benchPeer
	for range n {
		nc, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		c := &benchPeer{Conn: nc}
		if err := c.open(streams); err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
	}
	round := func() {
		for _, c := range clients {
			if _, err := c.Write(c.batch); err != nil {
				b.Fatal(err)
			}
		}
		for _, c := range clients {
			if err := c.collect(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range 100 { // buffers, stacks and windows have their sizes then
		round()
	}
	b.ReportAllocs()
	rounds, least := 0, time.Hour
	before, last := cpuTime(), time.Now()
	for b.Loop() {
		round()
		rounds++
		now := time.Now()
		last, least = now, min(least, now.Sub(last))
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(rounds*n*streams), "cpu-ns/request")
	b.ReportMetric(float64(least)/float64(n*streams), "least-ns/request")
}

// cpuTime is what the process has used: on a busy machine wall time is useless.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// A benchPeer is the least HTTP/2 there is: it knows the frames that come.
type benchPeer struct {
	net.Conn
	in     []byte
	at     int
	out    []byte
	batch  []byte // a client's requests, one for each stream
	expect int    // bytes of the answers to them
	credit uint32
}

const (
	frameData     = 0
	frameHeaders  = 1
	frameSettings = 4
	framePing     = 6
	frameWindow   = 8

	endHeaders, ack = 4, 1
	allWindow       = 1<<31 - 1
	greeting        = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

func appendFrame(b []byte, typ, flags byte, id uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), typ, flags)
	return append(binary.BigEndian.AppendUint32(b, id), payload...)
}

// begin says that this end takes anything.
func (p *benchPeer) begin() {
	settings := []byte{0, 3, 0, 0, 4, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 5, 0, 0, 0xff, 0xff} // streams, window, frame size
	p.out = appendFrame(p.out, frameSettings, 0, 0, settings)
	p.out = appendFrame(p.out, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, allWindow-65535))
}

func (p *benchPeer) flush() error {
	_, err := p.Write(p.out)
	p.out = p.out[:0]
	return err
}

// frame returns the next frame, and sends what was to be sent before it waits.
func (p *benchPeer) frame() (typ, flags byte, id uint32, payload []byte, err error) {
	for {
		if h := p.in[p.at:]; len(h) >= 9 {
			if n := int(h[0])<<16 | int(h[1])<<8 | int(h[2]); len(h) >= 9+n {
				p.at += 9 + n
				return h[3], h[4], binary.BigEndian.Uint32(h[5:]), h[9 : 9+n], nil
			}
		}
		if len(p.out) > 0 {
			if err := p.flush(); err != nil {
				return 0, 0, 0, nil, err
			}
		}
		if p.in == nil {
			p.in = make([]byte, 0, 256<<10)
		}
		p.in = p.in[:copy(p.in[:cap(p.in)], p.in[p.at:])]
		p.at = 0
		n, err := p.Read(p.in[len(p.in):cap(p.in)])
		if err != nil {
			return 0, 0, 0, nil, err
		}
		p.in = p.in[:len(p.in)+n]
	}
}

// common sees to frames that both ends treat alike.
func (p *benchPeer) common(typ, flags byte, payload []byte) {
	switch {
	case typ == frameSettings && flags&ack == 0:
		p.out = appendFrame(p.out, frameSettings, ack, 0, nil)
	case typ == framePing && flags&ack == 0:
		p.out = appendFrame(p.out, framePing, ack, 0, payload)
	case typ == frameData:
		if p.credit += uint32(len(payload)); p.credit > allWindow/2 {
			p.out = appendFrame(p.out, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, p.credit))
			p.credit = 0
		}
	}
}

// answer takes every CONNECT, and each DATA frame for a request.
func (p *benchPeer) answer() {
	defer p.Close()
	hello := make([]byte, len(greeting))
	if _, err := p.Read(hello); err != nil {
		return
	}
	p.begin()
	for {
		typ, flags, id, payload, err := p.frame()
		if err != nil {
			return
		}
		switch p.common(typ, flags, payload); typ {
		case frameHeaders:
			p.out = appendFrame(p.out, frameHeaders, endHeaders, id, []byte{0x88})
		case frameData:
			if bytes.HasSuffix(payload, benchRequest[len(benchRequest)-4:]) {
				p.out = appendFrame(p.out, frameData, 0, id, benchResponse)
			}
		}
	}
}

// open opens streams, and learns from one request each how long answers are.
func (p *benchPeer) open(streams int) error {
	p.out = append(p.out, greeting...)
	if err := p.flush(); err != nil { // alone, since answer reads it so
		return err
	}
	p.begin()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for i := range streams {
		head.Reset()
		enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"})
		enc.WriteField(hpack.HeaderField{Name: ":authority", Value: "10.96.0.1:80"})
		id := uint32(2*i + 1)
		p.out = appendFrame(p.out, frameHeaders, endHeaders, id, head.Bytes())
		p.batch = appendFrame(p.batch, frameData, 0, id, benchRequest)
	}
	for accepted := 0; accepted < streams; {
		typ, flags, _, payload, err := p.frame()
		if err != nil {
			return err
		}
		if p.common(typ, flags, payload); typ == frameHeaders {
			accepted++
		}
	}
	var first []byte
	if _, err := p.Write(appendFrame(nil, frameData, 0, 1, benchRequest)); err != nil {
		return err
	}
	for !bytes.HasSuffix(first, benchResponse[len(benchResponse)-1024:]) {
		typ, flags, _, payload, err := p.frame()
		if err != nil {
			return err
		}
		if p.common(typ, flags, payload); typ == frameData {
			first = append(first, payload...)
		}
	}
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 200 OK\r\n")) {
		return fmt.Errorf("answer is %q", first)
	}
	p.expect = streams * len(first)
	return nil
}

// collect reads the answers to a batch.
func (p *benchPeer) collect() error {
	for got := 0; got < p.expect; {
		typ, flags, _, payload, err := p.frame()
		if err != nil {
			return err
		}
		if p.common(typ, flags, payload); typ == frameData {
			got += len(payload)
		}
	}
	if len(p.out) > 0 {
		return p.flush()
	}
	return nil
}
