package devmesh

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/proxy/config"
)

//go:embed dev.yaml
var devDocument []byte

// DevDocument is what `waypoint dev` runs when it is given no document.
func DevDocument() (*config.Config, []config.Problem) {
	return config.Decode(config.File{Name: "dev.yaml", Data: devDocument})
}

// A Result is how one check went.
type Result struct {
	Mode  Mode
	Check string
	Took  time.Duration
	Err   error // nil: passed
}

// checks are what Check asks of every mode. They hold for DevDocument.
var checks = []struct {
	name string
	run  func(c *checker) error
}{
	{"a request and its answer", (*checker).plain},
	{"a body both ways, by hash", (*checker).body},
	{"chunked, with a trailer", (*checker).trailer},
	{"8 MiB of response", (*checker).bulk},
	{"HEAD has no body", (*checker).head},
	{"HTTP/1.0", (*checker).http10},
	{"100-continue", (*checker).expectContinue},
	{"pipelined requests in order", (*checker).pipeline},
	{"a route by header, with header edits", (*checker).headerRoute},
	{"a route by weight", (*checker).canary},
	{"404 if no route matches", (*checker).noRoute},
	{"503 if there is no endpoint", (*checker).noEndpoint},
	{"504 when the time is up", (*checker).timeout},
	{"as many retries as the route says", (*checker).retry},
	{"400 for what is no request", (*checker).malformed},
	{"HTTP/2 in the tunnel", (*checker).http2},
	{"a gRPC call, its messages and its status", (*checker).call},
	{"UNIMPLEMENTED for a call without a route", (*checker).unrouted},
	{"a WebSocket, a message there and back", (*checker).webSocket},
	{"TCP, bytes both ways, each side's end", (*checker).tcp},
	{"a server that speaks first, unasked and undeclared", (*checker).serverFirst},
	{"requests beside it, on a port that declares nothing", (*checker).undeclared},
	{"TLS end to end, by the name asked for", (*checker).tls},
}

// Check sends a fixed set of requests through every mode and tells each result
// as it comes. The mesh must run DevDocument.
func (m *Mesh) Check(tell func(Result)) (ok bool) {
	ok = true
	for _, mode := range m.Modes {
		c := &checker{m: m, mode: mode, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
		for _, one := range checks {
			start := time.Now()
			err := one.run(c)
			ok = ok && err == nil
			tell(Result{Mode: mode, Check: one.name, Took: time.Since(start), Err: err})
		}
		c.client.CloseIdleConnections()
	}
	return ok
}

// A checker asks one mode's waypoint.
type checker struct {
	m      *Mesh
	mode   Mode
	client *http.Client
}

func (c *checker) url(service, path string) (string, error) {
	e, ok := c.m.Find(service, c.mode)
	if !ok {
		return "", fmt.Errorf("no entry for %s", service)
	}
	return e.URL + path, nil
}

// A question is one request, and the status that its answer should have.
type question struct {
	method, service, path string
	status                int
	body                  io.Reader
	head                  map[string]string
}

// get is a question without a body.
func get(service, path string, status int) question {
	return question{method: "GET", service: service, path: path, status: status}
}

// do asks and wants a status.
func (c *checker) do(q question) (*http.Response, []byte, error) {
	u, err := c.url(q.service, q.path)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequest(q.method, u, q.body)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range q.head {
		req.Header.Set(name, value)
	}
	r, err := c.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != q.status {
		err = fmt.Errorf("status %d, want %d: %s", r.StatusCode, q.status, bytes.TrimSpace(got))
	}
	return r, got, err
}

func want(text []byte, parts ...string) error {
	for _, p := range parts {
		if !bytes.Contains(text, []byte(p)) {
			return fmt.Errorf("the answer lacks %q:\n%s", p, text)
		}
	}
	return nil
}

func (c *checker) plain() error {
	_, got, err := c.do(get("reviews", "/hello?q=1", 200))
	if err != nil {
		return err
	}
	return want(got, "request: GET /hello?q=1 HTTP/1.1")
}

func (c *checker) body() error {
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	_, got, err := c.do(question{method: "POST", service: "reviews", path: "/body", status: 200, body: bytes.NewReader(sent)})
	if err == nil && sha256.Sum256(got) != sha256.Sum256(sent) {
		err = fmt.Errorf("%d bytes came back, and not those that were sent", len(got))
	}
	return err
}

func (c *checker) trailer() error {
	sent := []byte("so long that it is a chunk")
	r, _, err := c.do(question{method: "POST", service: "reviews", path: "/body", status: 200, body: io.NopCloser(bytes.NewReader(sent))})
	if err != nil {
		return err
	}
	if got, want := r.Trailer.Get("x-sum"), fmt.Sprintf("%x", sha256.Sum256(sent)); got != want {
		return fmt.Errorf("trailer x-sum is %q, want %q", got, want)
	}
	return nil
}

func (c *checker) bulk() error {
	_, got, err := c.do(get("reviews", "/bytes/8388608", 200))
	if err == nil && len(got) != 8<<20 {
		err = fmt.Errorf("%d bytes came, want %d", len(got), 8<<20)
	}
	return err
}

func (c *checker) head() error {
	r, got, err := c.do(question{method: "HEAD", service: "reviews", path: "/bytes/1000", status: 200})
	if err == nil && (len(got) != 0 || r.ContentLength != 1000) {
		err = fmt.Errorf("%d bytes and content-length %d, want 0 and 1000", len(got), r.ContentLength)
	}
	return err
}

// connect opens a connection to a service's entry.
func (c *checker) connect(service string) (*net.TCPConn, error) {
	e, ok := c.m.Find(service, c.mode)
	if !ok {
		return nil, fmt.Errorf("no entry for %s", service)
	}
	nc, err := net.Dial("tcp", e.Addr())
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc.(*net.TCPConn), nil
}

// raw sends bytes as they are and reads all that comes back.
func (c *checker) raw(service, text string) ([]byte, error) {
	nc, err := c.connect(service)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, text); err != nil {
		return nil, err
	}
	return io.ReadAll(nc)
}

func (c *checker) http10() error {
	got, err := c.raw("reviews", "GET /old HTTP/1.0\r\nHost: reviews\r\n\r\n")
	if err != nil {
		return err
	}
	if bytes.Contains(bytes.ToLower(got), []byte("transfer-encoding")) {
		return fmt.Errorf("HTTP/1.0 was answered in chunks:\n%s", got)
	}
	return want(got, " 200 OK", "request: GET /old HTTP/1.1")
}

func (c *checker) expectContinue() error {
	nc, err := c.connect("reviews")
	if err != nil {
		return err
	}
	defer nc.Close()
	fmt.Fprint(nc, "POST /up HTTP/1.1\r\nHost: reviews\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	r := bufio.NewReader(nc)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		return fmt.Errorf("first line %q (%v), want 100", line, err)
	}
	fmt.Fprint(nc, "body")
	got, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return want(got, " 200 OK", "body: 4 bytes")
}

func (c *checker) pipeline() error {
	var text strings.Builder
	for i := range 5 {
		fmt.Fprintf(&text, "GET /%d HTTP/1.1\r\nHost: reviews\r\n", i)
		if i == 4 {
			text.WriteString("Connection: close\r\n")
		}
		text.WriteString("\r\n")
	}
	got, err := c.raw("reviews", text.String())
	if err != nil {
		return err
	}
	at := 0
	for i := range 5 {
		n := bytes.Index(got[at:], fmt.Appendf(nil, "request: GET /%d ", i))
		if n < 0 {
			return fmt.Errorf("answer %d is missing or out of order", i)
		}
		at += n
	}
	return nil
}

func (c *checker) headerRoute() error {
	r, got, err := c.do(question{method: "GET", service: "reviews", path: "/", status: 200, head: map[string]string{"x-tier": "gold", "x-secret": "hush"}})
	if err != nil {
		return err
	}
	if v := r.Header.Get("x-tier-served"); v != "gold" {
		return fmt.Errorf("response field x-tier-served is %q, want gold", v)
	}
	if bytes.Contains(bytes.ToLower(got), []byte("x-secret")) {
		return fmt.Errorf("x-secret was not removed:\n%s", got)
	}
	return want(got, "workload: shop/reviews-v2", "header: X-Routed-By: waypoint")
}

func (c *checker) canary() error {
	seen := map[string]int{}
	for range 200 {
		r, _, err := c.do(get("reviews", "/", 200))
		if err != nil {
			return err
		}
		seen[r.Header.Get("x-workload")]++
	}
	// 20 are expected; fewer than 3 or more than 50 come up less than once in a million.
	if n := seen["shop/reviews-v2"]; n < 3 || n > 50 || n+seen["shop/reviews-v1"] != 200 {
		return fmt.Errorf("90 to 10 became %v", seen)
	}
	return nil
}

func (c *checker) noRoute() error {
	_, _, err := c.do(get("ratings", "/elsewhere", 404))
	return err
}

func (c *checker) noEndpoint() error {
	_, _, err := c.do(get("empty", "/", 503))
	return err
}

func (c *checker) timeout() error {
	_, _, err := c.do(get("ratings", "/slow/5s", 504))
	return err
}

func (c *checker) retry() error {
	before := c.m.waypoints[c.mode].Stats().Retries.Load()
	_, _, err := c.do(get("ratings", "/status/503", 503))
	if n := c.m.waypoints[c.mode].Stats().Retries.Load() - before; err == nil && n != 2 {
		err = fmt.Errorf("%d retries, want 2", n)
	}
	return err
}

func (c *checker) malformed() error {
	got, err := c.raw("reviews", "GET / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	if err != nil {
		return err
	}
	return want(got, "HTTP/1.1 400 ")
}
