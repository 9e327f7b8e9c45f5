package interop

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/proxyproto"
	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// A writer starts a program that begins each connection it forwards to `to`
// with a PROXY header, and returns where it listens.
type writer struct {
	name     string
	identity bool // it can write Istio's TLV
	start    func(t *testing.T, to, identity string) string
}

var writers = []writer{
	{"haproxy", false, haproxyWriter},
	{"envoy", true, envoyWriter},
}

func haproxyWriter(t *testing.T, to, _ string) string {
	t.Helper()
	path := needs.Program(t, "haproxy")
	dir, addr := folder(t), loopback(t)
	conf := writeFile(t, filepath.Join(dir, "haproxy.cfg"), `
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
listen writer
  bind `+addr+`
  server waypoint `+to+` send-proxy-v2 proxy-v2-options unique-id,crc32c
`)
	start(t, dir, path, []string{"-f", conf, "-db"}, addr)
	return addr
}

// envoyWriter writes Istio's TLV with the identity, besides one that nobody
// knows.
func envoyWriter(t *testing.T, to, identity string) string {
	t.Helper()
	return startEnvoy(t, "envoy", loopback(t), `
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: @HOST@, port_value: @LISTEN@}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": "@TYPES@filters.network.tcp_proxy.v3.TcpProxy"
          stat_prefix: writer
          cluster: waypoint
  clusters:
  - name: waypoint
    type: STATIC
    connect_timeout: 5s
    transport_socket:
      name: proxy
      typed_config:
        "@type": "@TYPES@transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
        config:
          version: V2
          added_tlvs:
          - {type: 0xE7, value: `+base64.StdEncoding.EncodeToString([]byte("unknown"))+`}
          - {type: 0xD0, value: `+base64.StdEncoding.EncodeToString([]byte(identity))+`}
        transport_socket:
          name: raw
          typed_config: {"@type": "@TYPES@transport_sockets.raw_buffer.v3.RawBuffer"}
    load_assignment:
      cluster_name: waypoint
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: @HOST@, port_value: @TO@}}}}]}]
`, "@TO@", portOf(to)).addr
}

// TestWeReadTheirHeaders: what HAProxy and Envoy write, hbone/proxyproto reads.
func TestWeReadTheirHeaders(t *testing.T) {
	for _, w := range writers {
		t.Run(w.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			id := (*mesh)(nil).id("curl")
			front := w.start(t, ln.Addr().String(), id)
			client := dial(t, front)
			fmt.Fprint(client, "after the header")
			h, rest := readHeader(t, ln)
			if got, want := h.Source.String(), client.LocalAddr().String(); got != want {
				t.Errorf("source: got %s, want %s", got, want)
			}
			if got := h.Destination.String(); got != front {
				t.Errorf("destination: got %s, want %s", got, front)
			}
			if want := map[bool]string{true: id}[w.identity]; h.Identity != want {
				t.Errorf("identity: got %q, want %q", h.Identity, want)
			}
			if rest != "after the header" {
				t.Errorf("after the header: got %q", rest)
			}
		})
	}
}

// readHeader accepts until a connection brings bytes; the rig's probe brings
// none, and HAProxy writes a header for it.
func readHeader(t *testing.T, ln net.Listener) (proxyproto.Header, string) {
	t.Helper()
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(startTimeout))
	for {
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		nc.SetReadDeadline(time.Now().Add(startTimeout))
		var all []byte
		for p := make([]byte, 4096); ; {
			n, err := nc.Read(p)
			all = append(all, p[:n]...)
			if err != nil || strings.HasSuffix(string(all), "header") {
				break
			}
		}
		nc.Close()
		if !strings.HasSuffix(string(all), "header") {
			continue
		}
		h, n, err := proxyproto.Parse(all, proxyproto.Options{})
		if err != nil || n == 0 {
			t.Fatalf("parse %x: %d, %v", all, n, err)
		}
		return h, string(all[n:])
	}
}

// TestTheyReadOurHeaders: what hbone/proxyproto writes, nginx and HAProxy read;
// they skip Istio's TLV.
func TestTheyReadOurHeaders(t *testing.T) {
	readers := []struct {
		name  string
		start func(*testing.T) string
	}{{"nginx", nginxReader}, {"haproxy", haproxyReader}}
	headers := []struct {
		name string
		h    proxyproto.Header
		want string
		only string
	}{
		{"IPv4", proxyproto.Header{
			Source: netip.MustParseAddrPort("10.1.2.3:4567"), Destination: netip.MustParseAddrPort("10.96.0.10:80"),
			Identity: (*mesh)(nil).id("curl"),
		}, "10.1.2.3 4567", ""},
		{"IPv6", proxyproto.Header{
			Source: netip.MustParseAddrPort("[2001:db8::1]:4567"), Destination: netip.MustParseAddrPort("[2001:db8::2]:80"),
			Identity: (*mesh)(nil).id("curl"),
		}, "2001:db8::1 4567", ""},
		// nginx 1.22 reads no header that is longer than version 1 could be.
		{"long identity", proxyproto.Header{
			Source: netip.MustParseAddrPort("10.1.2.3:4567"), Destination: netip.MustParseAddrPort("10.96.0.10:80"),
			Identity: (*mesh)(nil).id(strings.Repeat("a", 2000)),
		}, "10.1.2.3 4567", "haproxy"},
	}
	for _, r := range readers {
		t.Run(r.name, func(t *testing.T) {
			addr := r.start(t)
			for _, c := range headers {
				if c.only != "" && c.only != r.name {
					continue
				}
				head, err := proxyproto.Append(nil, c.h)
				if err != nil {
					t.Fatal(err)
				}
				nc := dial(t, addr)
				nc.Write(append(head, "GET / HTTP/1.1\r\nHost: app.demo\r\nConnection: close\r\n\r\n"...))
				res, err := http.ReadResponse(bufio.NewReader(nc), nil)
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
					continue
				}
				if got, err := io.ReadAll(res.Body); string(got) != c.want {
					t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
				}
			}
		})
	}
}

func nginxReader(t *testing.T) string {
	t.Helper()
	path := needs.Program(t, "nginx")
	dir, addr := folder(t), loopback(t)
	conf := writeFile(t, filepath.Join(dir, "nginx.conf"), `
daemon off; master_process off; worker_processes 1;
pid nginx.pid; error_log error.log warn;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen `+addr+` proxy_protocol; location / { return 200 "$proxy_protocol_addr $proxy_protocol_port"; } }
}
`)
	start(t, dir, path, []string{"-p", dir, "-c", conf, "-e", filepath.Join(dir, "start.log")}, addr)
	return addr
}

func haproxyReader(t *testing.T) string {
	t.Helper()
	path := needs.Program(t, "haproxy")
	dir, addr := folder(t), loopback(t)
	conf := writeFile(t, filepath.Join(dir, "haproxy.cfg"), `
global
  maxconn 100
defaults
  mode http
  timeout client 20s
frontend reader
  bind `+addr+` accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port]"
`)
	start(t, dir, path, []string{"-f", conf, "-db"}, addr)
	return addr
}
