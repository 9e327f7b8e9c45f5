package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// A database is an application that speaks a protocol of its own, and what its
// own clients do with it.
type database struct {
	name  string
	start func(t *testing.T) application
	use   func(t *testing.T, addr string)
}

var databases = []database{
	{"redis", redis, useRedis},
	{"postgres", postgres, usePostgres},
}

// redis starts Redis, in memory only.
func redis(t *testing.T) application {
	t.Helper()
	path := needs.Program(t, "redis-server")
	dir, addr := folder(t), loopback(t)
	start(t, dir, path, []string{"--bind", "127.0.0.1", "--port", portOf(addr), "--save", "", "--appendonly", "no", "--dir", dir}, addr)
	return application{"redis", addr}
}

// mustRun runs a program and returns what it printed.
func mustRun(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(needs.Program(t, name), args...)
	cmd.WaitDelay, cmd.Stdin = 5*time.Second, bytes.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(runTimeout/2, func() { cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, &out, &complaint)
	}
	return out.String()
}

// useRedis stores and fetches, subscribes, and has many connections pipeline.
func useRedis(t *testing.T, addr string) {
	host, port, _ := strings.Cut(addr, ":")
	cli := func(stdin []byte, args ...string) string {
		t.Helper()
		return mustRun(t, stdin, "redis-cli", append([]string{"-h", host, "-p", port}, args...)...)
	}
	if got := cli(nil, "PING"); got != "PONG\n" {
		t.Errorf("got %q, want PONG", got)
	}
	big := loaf()
	if got := cli(big, "-x", "SET", "big"); got != "OK\n" {
		t.Errorf("SET: got %q, want OK", got)
	}
	if got := cli(nil, "GET", "big"); got != string(big)+"\n" {
		t.Errorf("GET: got %d bytes, want the %d that were set", len(got)-1, len(big))
	}
	subscriber, publisher := dial(t, addr), dial(t, addr)
	heard := bufio.NewReader(subscriber)
	fmt.Fprintf(subscriber, "SUBSCRIBE news\r\n")
	if got := replyOf(t, heard, 6); got != "*3 $9 subscribe $4 news :1" {
		t.Errorf("SUBSCRIBE: got %q", got)
	}
	fmt.Fprintf(publisher, "PUBLISH news hello\r\n")
	if got := replyOf(t, heard, 7); got != "*3 $7 message $4 news $5 hello" {
		t.Errorf("a message: got %q", got)
	}
	got := mustRun(t, nil, "redis-benchmark", "-h", host, "-p", port, "-q", "-n", "5000", "-c", "10", "-P", "8", "-t", "set,get,lrange_100")
	if strings.Count(got, "requests per second") != 4 { // lrange_100 fills its list first
		t.Errorf("redis-benchmark says %q", got)
	}
}

// replyOf reads lines of a reply of Redis.
func replyOf(t *testing.T, r *bufio.Reader, lines int) string {
	t.Helper()
	var all []string
	for range lines {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		all = append(all, strings.TrimSpace(line))
	}
	return strings.Join(all, " ")
}

// postgres starts PostgreSQL with a database of its own and TLS for who asks. It
// does not run as root.
func postgres(t *testing.T) application {
	t.Helper()
	initdb, server := needs.Program(t, "initdb"), needs.Program(t, "postgres")
	dir, addr, data := folder(t), loopback(t), ""
	data = filepath.Join(dir, "data")
	ca, err := devca.New("database")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue([]string{"spiffe://example/database"})
	if err != nil {
		t.Fatal(err)
	}
	cert := writeFile(t, filepath.Join(dir, "server.crt"), string(leaf.Chain))
	key := filepath.Join(dir, "server.key")
	if err := os.WriteFile(key, leaf.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	var as []string
	if os.Geteuid() == 0 {
		as = []string{needs.Program(t, "setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups"}
		for _, name := range []string{dir, key} {
			if err := os.Chown(name, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := append(as[:len(as):len(as)], initdb, "-D", data, "-U", "demo", "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync")
	cmd := exec.Command(first[0], first[1:]...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, text)
	}
	argv := append(as, server, "-D", data, "-k", dir, "-h", "127.0.0.1", "-p", portOf(addr),
		"-c", "fsync=off", "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	start(t, dir, argv[0], argv[1:], addr)
	p := &process{name: "postgres"}
	p.until(t, "it to be ready", func() bool {
		return exec.Command(needs.Program(t, "pg_isready"), "-h", "127.0.0.1", "-p", portOf(addr)).Run() == nil
	})
	return application{"postgres", addr}
}

// usePostgres asks in plain text and, by an SSLRequest, over TLS, and has many
// connections work.
func usePostgres(t *testing.T, addr string) {
	host, port, _ := strings.Cut(addr, ":")
	for _, mode := range []string{"disable", "require"} {
		psql := func(query string) string {
			t.Helper()
			return strings.TrimSpace(mustRun(t, nil, "psql", "-X", "-At", "-c", query, fmt.Sprintf("host=%s port=%s user=demo dbname=postgres sslmode=%s gssencmode=disable", host, port, mode)))
		}
		if got, want := psql("select ssl from pg_stat_ssl where pid = pg_backend_pid()"), map[string]string{"disable": "f", "require": "t"}[mode]; got != want {
			t.Errorf("sslmode %s: TLS is %s, want %s", mode, got, want)
		}
		big := strings.Repeat("a slice of bread", bigFile/16)
		if got := psql(fmt.Sprintf("select repeat('a slice of bread', %d)", bigFile/16)); got != big {
			t.Errorf("sslmode %s: got %d bytes, want %d", mode, len(got), len(big))
		}
		if got := psql("select sum(i) from generate_series(1, 100000) i"); got != "5000050000" {
			t.Errorf("sslmode %s: got %s", mode, got)
		}
	}
	bench := []string{"-h", host, "-p", port, "-U", "demo"}
	mustRun(t, nil, "pgbench", append(bench, "-i", "-q", "-s", "1", "postgres")...)
	got := mustRun(t, nil, "pgbench", append(bench, "-c", "4", "-j", "2", "-t", "100", "-n", "postgres")...)
	if !strings.Contains(got, "processed: 400/400") {
		t.Errorf("pgbench says %q", got)
	}
}

// TestDatabases: the clients and their servers, with nothing between.
func TestDatabases(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) { d.use(t, d.start(t).addr) })
	}
}

// undeclared is one service whose port declares nothing.
func undeclared(addr string, app application, account string) string {
	return strings.Replace(documentOf(addr, app, account), ", appProtocol: http", "", 1)
}

// TestDatabasesHBONE: through ports that declare nothing, between Envoy's tunnels.
func TestDatabasesHBONE(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			app, m := d.start(t), newMesh(t)
			far := envoyDestination(t, m, app)
			w := newWaypoint(t, m, &far)
			w.apply(t, undeclared(virtual, app, far.kind))
			near := envoyClient(t, m, w.mesh, virtual, m.id("waypoint"))
			d.use(t, near.addr)
		})
	}
}

// TestDatabasesPROXY: the same behind HAProxy's PROXY headers, out as plain TCP.
func TestDatabasesPROXY(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			app := d.start(t)
			w := newWaypoint(t, nil, nil)
			front := haproxyWriter(t, w.header, "")
			w.apply(t, undeclared(front, app, "app"))
			d.use(t, front)
		})
	}
}
