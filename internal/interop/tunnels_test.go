package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// A tunnel is a node tunnel that we did not write.
type tunnel struct {
	kind string
	addr string // where it listens
	log  string // file with one line for each tunnel that it carried
	*process
}

// destination starts a node tunnel in front of an application.
type destination func(t *testing.T, m *mesh, app application) tunnel

// httpd starts Apache as a destination tunnel: mutual TLS, HTTP/2, CONNECT to
// the authority that it is given, if the port is the application's.
func httpd(t *testing.T, m *mesh, app application) tunnel {
	t.Helper()
	path := needs.Program(t, "apache2", "httpd")
	dir, addr, l := folder(t), loopback(t), m.leaf(t, "httpd")
	user := ""
	if os.Geteuid() == 0 {
		user = "User #65534\nGroup #65534\n"
	}
	conf := writeFile(t, filepath.Join(dir, "httpd.conf"), `
ServerRoot "`+dir+`"
ServerName httpd.interop
DefaultRuntimeDir "`+dir+`"
PidFile httpd.pid
Mutex pthread
Listen `+addr+`
`+user+loadModules(t, "mpm_event", "authz_core", "ssl", "http2", "proxy", "proxy_connect")+`
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
ErrorLog error.log
LogLevel warn http2:info proxy_connect:info
LogFormat "%r|%H|%>s|%{SSL_PROTOCOL}x|%{SSL_CLIENT_S_DN}x" interop
CustomLog tunnels.log interop
Protocols h2
SSLEngine on
SSLProtocol TLSv1.3
SSLCertificateFile "`+l.cert+`"
SSLCertificateKeyFile "`+l.key+`"
SSLCACertificateFile "`+m.root+`"
SSLVerifyClient require
SSLVerifyDepth 2
ProxyRequests on
H2ProxyRequests on
AllowCONNECT `+portOf(app.addr)+`
ProxyTimeout 20
<Proxy "*">
  Require all granted
</Proxy>
`)
	p := start(t, dir, path, []string{"-f", conf, "-D", "FOREGROUND"}, addr)
	return tunnel{"httpd", addr, filepath.Join(dir, "tunnels.log"), p}
}

// moduleDirs is where systems keep Apache's modules.
var moduleDirs = []string{"/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/opt/homebrew/lib/httpd/modules", "/usr/libexec/apache2"}

func loadModules(t *testing.T, names ...string) string {
	t.Helper()
	for _, dir := range moduleDirs {
		if _, err := os.Stat(filepath.Join(dir, "mod_http2.so")); err != nil {
			continue
		}
		text := ""
		for _, n := range names {
			text += fmt.Sprintf("LoadModule %s_module \"%s/mod_%s.so\"\n", n, dir, n)
		}
		return text
	}
	needs.Missing(t, "Apache's module http2")
	return ""
}

// envoyTLS is the same on both sides: TLS 1.3, h2, a certificate, the root.
func envoyTLS(m *mesh, l leaf, peer string) string {
	san := ""
	if peer != "" {
		san = fmt.Sprintf("match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: %q}}]", peer)
	}
	return strings.NewReplacer("@CERT@", l.cert, "@KEY@", l.key, "@ROOT@", m.root, "@SAN@", san).Replace(`
          common_tls_context:
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: @CERT@}, private_key: {filename: @KEY@}}]
            validation_context:
              trusted_ca: {filename: @ROOT@}
              @SAN@
`)
}

const envoyTypes = "type.googleapis.com/envoy.extensions."

// startEnvoy runs Envoy with a configuration, in which words like @THIS@ are
// replaced.
func startEnvoy(t *testing.T, kind, listen, config string, replace ...string) tunnel {
	t.Helper()
	path := needs.Program(t, "envoy")
	dir := folder(t)
	log := filepath.Join(dir, "tunnels.log")
	host, port := "127.0.0.1", portOf(listen)
	config = strings.NewReplacer(append(replace, "@LOG@", log, "@HOST@", host, "@LISTEN@", port, "@TYPES@", envoyTypes)...).Replace(config)
	file := writeFile(t, filepath.Join(dir, "envoy.yaml"), config)
	p := start(t, dir, path, []string{
		"-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning",
	}, listen)
	return tunnel{kind, listen, log, p}
}

// envoyDestination starts Envoy as a destination tunnel: mutual TLS, HTTP/2,
// CONNECT terminated, bytes to the application.
func envoyDestination(t *testing.T, m *mesh, app application) tunnel {
	t.Helper()
	return envoyDestinationAt(t, m, app, loopback(t))
}

func envoyDestinationAt(t *testing.T, m *mesh, app application, listen string) tunnel {
	t.Helper()
	return startEnvoy(t, "envoy", listen, `
static_resources:
  listeners:
  - name: hbone
    address: {socket_address: {address: @HOST@, port_value: @LISTEN@}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": "@TYPES@transport_sockets.tls.v3.DownstreamTlsContext"
          require_client_certificate: true
@MTLS@
      filters:
      - name: http
        typed_config:
          "@type": "@TYPES@filters.network.http_connection_manager.v3.HttpConnectionManager"
          stat_prefix: hbone
          codec_type: HTTP2
          http2_protocol_options: {allow_connect: true, max_concurrent_streams: 100}
          upgrade_configs: [{upgrade_type: CONNECT}]
          access_log:
          - name: file
            typed_config:
              "@type": "@TYPES@access_loggers.file.v3.FileAccessLog"
              path: @LOG@
              log_format: {text_format_source: {inline_string: "CONNECT %REQ(:AUTHORITY)%|%PROTOCOL%|%RESPONSE_CODE%|%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_PEER_URI_SAN%\n"}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {connect_matcher: {}}
                route:
                  cluster: application
                  timeout: 0s
                  upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]
          http_filters:
          - name: router
            typed_config: {"@type": "@TYPES@filters.http.router.v3.Router"}
  clusters:
  - name: application
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: application
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: @HOST@, port_value: @APPLICATION@}}}}]}]
`, "@MTLS@", envoyTLS(m, m.leaf(t, "envoy"), ""), "@APPLICATION@", portOf(app.addr))
}

// envoyClient starts Envoy as a client's node tunnel: what connects to it goes
// as CONNECT to authority over HTTP/2 and mutual TLS to the address `to`, whose
// identity must be peer.
func envoyClient(t *testing.T, m *mesh, to, authority, peer string) tunnel {
	t.Helper()
	return startEnvoy(t, "envoy", loopback(t), `
static_resources:
  listeners:
  - name: application
    address: {socket_address: {address: @HOST@, port_value: @LISTEN@}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": "@TYPES@filters.network.tcp_proxy.v3.TcpProxy"
          stat_prefix: tunnel
          cluster: mesh
          access_log:
          - name: file
            typed_config:
              "@type": "@TYPES@access_loggers.file.v3.FileAccessLog"
              path: @LOG@
              log_format: {text_format_source: {inline_string: "%RESPONSE_FLAGS%|%UPSTREAM_HOST%|%BYTES_SENT%\n"}}
          tunneling_config:
            hostname: "@AUTHORITY@"
            headers_to_add:
            - {header: {key: baggage, value: "k8s.namespace.name=demo,k8s.deployment.name=curl,service.name=curl"}}
            - {header: {key: forwarded, value: 'for="%DOWNSTREAM_REMOTE_ADDRESS%"'}}
  clusters:
  - name: mesh
    type: STATIC
    connect_timeout: 5s
    transport_socket:
      name: tls
      typed_config:
        "@type": "@TYPES@transport_sockets.tls.v3.UpstreamTlsContext"
@MTLS@
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": "@TYPES@upstreams.http.v3.HttpProtocolOptions"
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: mesh
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: @HOST@, port_value: @MESHPORT@}}}}]}]
`, "@MTLS@", strings.ReplaceAll(envoyTLS(m, m.leaf(t, "curl"), peer), "\n  ", "\n"), "@AUTHORITY@", authority, "@MESHPORT@", portOf(to))
}
