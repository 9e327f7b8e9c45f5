package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// An application is a server that we did not write, at the end of the path.
type application struct {
	name string
	addr string
}

// bigFile is what nginx serves at /big: larger than every window on the way.
const bigFile = 8 << 20

// nginx starts nginx with a text at /, a file at /big, and a log of the Host
// and the connection that each request came with.
func nginx(t *testing.T) application {
	t.Helper()
	path := needs.Program(t, "nginx")
	dir, addr := folder(t), loopback(t)
	if err := os.WriteFile(filepath.Join(dir, "big"), loaf(), 0o644); err != nil {
		t.Fatal(err)
	}
	conf := writeFile(t, filepath.Join(dir, "nginx.conf"), `
daemon off; master_process off; worker_processes 1;
pid nginx.pid; error_log error.log warn;
events { worker_connections 256; }
http {
  log_format interop '$request|$http_host|$connection|$request_length';
  access_log access.log interop;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  default_type text/plain;
  server {
    listen `+addr+`; root `+dir+`;
    location = / { return 200 "nginx $request_method $http_x_interop\n"; }
    location = /gone { return 410; }
    location = /moved { return 302 /; }
    location = /big { }
  }
}
`)
	start(t, dir, path, []string{"-p", dir, "-c", conf, "-e", filepath.Join(dir, "start.log")}, addr)
	return application{"nginx", addr}
}

func loaf() []byte { return bytes.Repeat([]byte("a slice of bread"), bigFile/16) }

// nodeServer answers with what it understood of a request.
const nodeServer = `
const http = require('http');
const server = http.createServer((req, res) => {
  const hash = require('crypto').createHash('sha256');
  let n = 0;
  if (req.url === '/hints') res.writeEarlyHints({link: '</style.css>; rel=preload'});
  req.on('data', d => { n += d.length; hash.update(d); });
  req.on('end', () => {
    const body = JSON.stringify({method: req.method, url: req.url, host: req.headers.host, n,
      sha256: hash.digest('hex'), raw: req.rawHeaders, trailers: req.trailers});
    if (req.url === '/trailers') {
      res.writeHead(200, {Trailer: 'x-sum'});
      res.write(body);
      res.addTrailers({'x-sum': 'done'});
      res.end();
    } else if (req.url === '/close') {
      res.writeHead(200, {Connection: 'close'});
      res.end(body);
    } else {
      res.end(body);
    }
  });
});
server.on('upgrade', (req, socket, head) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ' + req.headers.upgrade + '\r\n\r\n');
  socket.write(head);
  socket.pipe(socket);
});
const [host, port] = process.argv[2].split(':');
server.listen(Number(port), host);
`

// node starts a Node http server.
func node(t *testing.T) application {
	t.Helper()
	path := needs.Program(t, "node", "nodejs")
	dir, addr := folder(t), loopback(t)
	script := writeFile(t, filepath.Join(dir, "server.js"), nodeServer)
	start(t, dir, path, []string{script, addr}, addr)
	return application{"node", addr}
}

// curl runs curl and returns what it printed. Its own --max-time bounds it.
func curl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path := needs.Program(t, "curl")
	args = append([]string{"--silent", "--show-error", "--http1.1", "--max-time", "20", "--noproxy", "*"}, args...)
	cmd := exec.Command(path, args...)
	cmd.WaitDelay = 5 * time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("curl %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out.String(), nil
}
