package proxy_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// A payload is one request of a collection of those that parsers understand
// differently. Most lack a Host, and come a second time with one, to be judged
// by what they were made for.
type payload struct {
	name string
	raw  []byte
}

func payloads(t *testing.T) (list []payload) {
	t.Helper()
	b, err := os.ReadFile(needs.Data(t, "http1/payloads.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Src, Name, B64 string }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		raw, err := base64.StdEncoding.DecodeString(p.B64)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d %s %s", i, p.Src, p.Name)
		list = append(list, payload{name, raw})
		line, rest, ok := bytes.Cut(raw, []byte("\r\n"))
		if ok && !bytes.Contains(bytes.ToLower(raw), []byte("host:")) {
			list = append(list, payload{name + ", Host added", slices.Concat(line, []byte("\r\nHost: a.test\r\n"), rest)})
		}
	}
	return list
}

// A message is a request as an application's parser saw it.
type message struct {
	method, target, host, body string
	fields, trailers           []string
}

func (m *message) field(name, value string) {
	switch name = strings.ToLower(name); name {
	case "host":
		m.host = value
	case "content-length", "transfer-encoding", "connection":
	case "x-request-id": // the proxy's, and another each time
	default:
		m.fields = append(m.fields, name+": "+value)
	}
}

func (m *message) sort() message {
	slices.Sort(m.fields)
	slices.Sort(m.trailers)
	return *m
}

// A court collects what applications saw.
type court struct {
	mu   sync.Mutex
	seen []message
}

func (c *court) note(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, m)
}

func (c *court) take() []message {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

func (c *court) await(t *testing.T, n int) {
	eventually(t, "Node to say what it saw", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.seen) >= n
	})
}

func count200(statuses []int) (n int) {
	for _, status := range statuses {
		if status == 200 {
			n++
		}
	}
	return n
}

// ServeHTTP is the application with net/http's parser.
func (c *court) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	m := message{method: q.Method, target: q.RequestURI, host: q.Host}
	for name, values := range q.Header {
		for _, v := range values {
			m.field(name, v)
		}
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // it was never whole
	}
	m.body = string(body)
	for name, values := range q.Trailer {
		for _, v := range values {
			m.trailers = append(m.trailers, strings.ToLower(name)+": "+v)
		}
	}
	c.note(m.sort())
}

// node runs the application with Node's parser, which prints each whole request
// before it answers it.
func (c *court) node(t *testing.T) (addr string, methods []string) {
	t.Helper()
	cmd := exec.Command(needs.Program(t, "node"), "testdata/court.mjs")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<22)
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	var hello struct {
		Addr    string
		Methods []string
	}
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &hello) != nil {
		t.Fatalf("node says %q", lines.Text())
	}
	go c.listen(lines)
	return hello.Addr, hello.Methods
}

func (c *court) listen(lines *bufio.Scanner) {
	text := func(s string) string {
		b, _ := base64.StdEncoding.DecodeString(s)
		return string(b)
	}
	for lines.Scan() {
		var v struct {
			Method, Target, Body string
			Fields, Trailers     [][2]string
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			c.note(message{method: "?", target: lines.Text()})
			continue
		}
		m := message{method: v.Method, target: text(v.Target), body: text(v.Body)}
		for _, f := range v.Fields {
			m.field(f[0], text(f[1]))
		}
		for _, f := range v.Trailers {
			m.trailers = append(m.trailers, f[0]+": "+text(f[1]))
		}
		c.note(m.sort())
	}
}

const courtDoc = head + `
services:
- {name: go, addresses: [10.96.0.1], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: go}]}
- {name: node, addresses: [10.96.0.2], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: node}]}
workloads:
- {name: go, address: 10.1.0.1, serviceAccount: a}
- {name: node, address: 10.1.0.2, serviceAccount: a}
`

// TestPayloads: each payload, sent through a whole path in both modes, is refused
// or reaches the application as what it is: Go's and Node's parser see the same
// messages, as many as were answered.
func TestPayloads(t *testing.T) {
	list := payloads(t)
	goCourt, nodeCourt := &court{}, &court{}
	nodeAddr, methods := nodeCourt.node(t)
	m := start(t, courtDoc, devmesh.Options{
		Handler: func(string) http.Handler { return goCourt },
		App: func(workload string) string {
			if workload == "shop/node" {
				return nodeAddr
			}
			return ""
		},
	})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		refused, forwarded := 0, 0
		for _, p := range list {
			goAnswers := m.ask(t, mode, "go", p)
			goSaw := goCourt.take()
			if !slices.ContainsFunc(goSaw, func(m message) bool { return !slices.Contains(methods, m.method) }) {
				nodeAnswers := m.ask(t, mode, "node", p)
				nodeCourt.await(t, count200(nodeAnswers)) // its lines come by another way than its answers
				if nodeSaw := nodeCourt.take(); fmt.Sprint(goSaw) != fmt.Sprint(nodeSaw) {
					t.Errorf("%s: net/http saw\n%q\nand Node\n%q\nanswers %v, %v", p.name, goSaw, nodeSaw, goAnswers, nodeAnswers)
				}
			}
			whole := count200(goAnswers)
			if whole != len(goSaw) {
				t.Errorf("%s: %d messages seen, %d answered: %v", p.name, len(goSaw), whole, goAnswers)
			}
			if whole > 0 {
				forwarded++
			} else {
				refused++
			}
		}
		t.Logf("%d payloads: %d refused, %d forwarded", len(list), refused, forwarded)
		if refused == 0 || forwarded == 0 {
			t.Error("the collection proves nothing")
		}
	})
	if n := cmp.Or(m.Waypoint(devmesh.HBONE).Stats().Panics.Load(), m.Waypoint(devmesh.Sandwich).Stats().Panics.Load()); n != 0 {
		t.Errorf("%d panics: %v", n, m.panics)
	}
}

// ask sends a payload and ends the client's side, and returns the statuses of
// what comes back.
func (m *mesh) ask(t *testing.T, mode devmesh.Mode, service string, p payload) (statuses []int) {
	t.Helper()
	nc := m.dial(service, mode)
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	go func() {
		nc.Write(p.raw)
		nc.CloseWrite()
	}()
	raw, err := io.ReadAll(nc)
	if err != nil && !isReset(err) {
		t.Errorf("%s: %v after %q", p.name, err, raw)
	}
	r := bufio.NewReader(bytes.NewReader(raw))
	isHead := bytes.HasPrefix(p.raw, []byte("HEAD "))
	for {
		method := "GET"
		if isHead && len(statuses) == 0 {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return statuses
		}
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode >= 200 {
			statuses = append(statuses, resp.StatusCode)
		}
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset by peer") }
