package http1

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A payload is one raw request of the collection that lies beside the
// repository. Error says that llhttp refuses it when Type is "request", its
// strict mode.
type payload struct {
	Src, Name, B64, Type string
	Error                bool
	raw                  []byte
}

// payloads reads the collection.
func payloads(t testing.TB, path string) []payload {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []payload
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].raw, err = base64.StdEncoding.DecodeString(list[i].B64); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// withHost adds the Host that most fixtures lack, so that they are judged by
// what they were made for.
func withHost(raw []byte) []byte {
	line, rest, ok := bytes.Cut(raw, []byte("\r\n"))
	if !ok || bytes.Contains(bytes.ToLower(raw), []byte("host:")) {
		return raw
	}
	return slices.Concat(line, []byte("\r\nHost: a.test\r\n"), rest)
}

// A seen is a message as one parser saw it. Fields are in lower case, sorted,
// without those that speak of framing and the connection.
type seen struct {
	Method, Target, Host, Body string
	Fields, Trailers           []string
}

func (s seen) String() string {
	return fmt.Sprintf("%s %q host %q fields %q body %q trailers %q", s.Method, s.Target, s.Host, s.Fields, s.Body, s.Trailers)
}

// keep says which fields are compared.
func (s *seen) add(name, value string) {
	switch name = strings.ToLower(name); name {
	case "host":
		s.Host = value
	case "content-length", "transfer-encoding", "connection", "upgrade", "expect":
	default:
		s.Fields = append(s.Fields, name+": "+value)
	}
}

// A forwarder is a Server that hands what it reads to a Client: the codecs of a
// proxy with nothing between them. It remembers each message read in full.
type forwarder struct {
	down     Server
	up       Client
	in, out  sink
	req      message.Request
	resp     message.Response
	messages []seen
	err      error
}

// forward returns what is written upstream for raw, the messages that were read,
// and why reading ended. A request cut short by the end of raw is an error.
func forward(raw []byte) *forwarder {
	f := &forwarder{}
	f.down.Init(&f.in, f, nil)
	f.up.Init(&f.out, f, nil)
	var t turn.Turn
	f.down.Feed(&t, raw)
	f.down.EOF(&t)
	f.down.Release()
	return f
}

func (f *forwarder) note(err error) {
	if err != nil && f.err == nil {
		f.err = err
	}
}

func (f *forwarder) NewRequest(*turn.Turn) *message.Request { f.req.Reset(); return &f.req }

func (f *forwarder) Request(t *turn.Turn, q *message.Request, end bool) {
	s := seen{Method: string(q.Method), Target: string(q.Path), Host: string(q.Authority)}
	if s.Method == "CONNECT" {
		s.Target = s.Host
	}
	for name, value := range q.Header.All() {
		s.add(string(name), string(value))
	}
	slices.Sort(s.Fields)
	f.messages = append(f.messages, s)
	f.note(f.up.WriteHead(t, q, end))
	if end {
		f.answer(t)
	}
}

func (f *forwarder) RequestChunk(t *turn.Turn, c *message.Chunk) {
	s := &f.messages[len(f.messages)-1]
	s.Body += string(c.Data)
	if c.Trailer != nil {
		for name, value := range c.Trailer.All() {
			s.Trailers = append(s.Trailers, strings.ToLower(string(name))+": "+string(value))
		}
		slices.Sort(s.Trailers)
	}
	end := c.End
	f.note(f.up.WriteChunk(t, c))
	if end {
		f.answer(t)
	}
}

func (f *forwarder) RequestError(_ *turn.Turn, err *ParseError) {
	f.note(err)
	if n := len(f.messages); n > 0 && f.up.write == writeBody {
		f.messages = f.messages[:n-1] // it was never complete
	}
}

// answer plays the upstream, which says 200 to everything but CONNECT.
func (f *forwarder) answer(t *turn.Turn) {
	status := "200 OK"
	if f.up.asked.connect {
		status = "403 Forbidden"
	}
	f.up.Feed(t, []byte("HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n"))
}

func (f *forwarder) NewResponse(*turn.Turn) *message.Response    { f.resp.Reset(); return &f.resp }
func (f *forwarder) Informational(*turn.Turn, *message.Response) {}
func (f *forwarder) WholeResponse(t *turn.Turn, r *message.Response, body []byte) {
	f.Response(t, r, false)
}
func (f *forwarder) ResponseChunk(*turn.Turn, *message.Chunk) {}
func (f *forwarder) ResponseError(_ *turn.Turn, err error)    { f.note(err) }
func (f *forwarder) Response(t *turn.Turn, r *message.Response, end bool) {
	f.note(f.down.WriteHead(t, r, end))
	if f.down.KeepAlive() {
		f.down.Next(t)
	}
}

// goSees returns the complete messages net/http finds in a stream. policy is set
// if it stopped for a reason that is no matter of framing: it also parses URLs.
func goSees(stream string) (list []seen, policy string) {
	r := bufio.NewReader(strings.NewReader(stream))
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			if strings.HasPrefix(err.Error(), "parse ") {
				policy = err.Error()
			}
			return list, policy
		}
		s := seen{Method: q.Method, Target: q.RequestURI, Host: q.Host}
		for name, values := range q.Header {
			for _, v := range values {
				s.add(name, v)
			}
		}
		slices.Sort(s.Fields)
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return list, ""
		}
		s.Body = string(body)
		for name, values := range q.Trailer {
			for _, v := range values {
				s.Trailers = append(s.Trailers, strings.ToLower(name)+": "+v)
			}
		}
		slices.Sort(s.Trailers)
		list = append(list, s)
	}
}

// A nodeReport is what testdata/judge.mjs prints.
type nodeReport struct {
	Methods []string
	Views   []nodeView
}

// A nodeView is what Node saw of one stream.
type nodeView struct {
	Messages []struct {
		Method, Target, Body string
		Fields, Trailers     [][2]string
		Complete             bool
	}
	Error string
}

func decode(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nodeSees asks Node's parser about all streams at once.
func nodeSees(t *testing.T, streams []string) nodeReport {
	t.Helper()
	node := needs.Program(t, "node")
	in := make([]string, len(streams))
	for i, s := range streams {
		in[i] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	input, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "testdata/judge.mjs")
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.Bytes())
	}
	var report nodeReport
	if err := json.Unmarshal(out, &report); err != nil || len(report.Views) != len(streams) {
		t.Fatalf("node: %d views of %d streams, %v", len(report.Views), len(streams), err)
	}
	return report
}

// complete returns the messages Node saw in full.
func (v nodeView) complete(t *testing.T) (list []seen) {
	t.Helper()
	for _, m := range v.Messages {
		if !m.Complete {
			continue
		}
		s := seen{Method: m.Method, Target: decode(t, m.Target), Body: decode(t, m.Body)}
		for _, f := range m.Fields {
			s.add(f[0], decode(t, f[1]))
		}
		for _, f := range m.Trailers {
			s.Trailers = append(s.Trailers, f[0]+": "+decode(t, f[1]))
		}
		slices.Sort(s.Fields)
		slices.Sort(s.Trailers)
		list = append(list, s)
	}
	return list
}

func sameMessages(t *testing.T, who string, got, want []seen) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s sees %d messages, we read %d\n%s\nwant\n%s", who, len(got), len(want), g, w)
	}
}

// forwardAll forwards every payload, and again with a Host where it has none.
func forwardAll(t *testing.T, list []payload) (names, streams []string, runs []*forwarder) {
	t.Helper()
	type count struct{ refused, forwarded, both int }
	counts := map[string]*count{}
	for i, p := range list {
		variants := [][]byte{p.raw}
		if h := withHost(p.raw); !bytes.Equal(h, p.raw) {
			variants = append(variants, h)
		}
		for v, raw := range variants {
			f := forward(raw)
			key := p.Src + []string{"", ", Host added"}[v]
			if counts[key] == nil {
				counts[key] = &count{}
			}
			switch {
			case len(f.messages) == 0:
				counts[key].refused++
			case f.err == nil:
				counts[key].forwarded++
			default:
				counts[key].both++
			}
			names = append(names, fmt.Sprintf("%d %s %s variant %d", i, p.Src, p.Name, v))
			streams, runs = append(streams, f.out.out.String()), append(runs, f)
		}
	}
	for key, n := range counts {
		t.Logf("%s: %d refused, %d forwarded, %d forwarded up to a bad one", key, n.refused, n.forwarded, n.both)
	}
	return names, streams, runs
}

// TestPayloads: each payload is refused, or what is written upstream for it is
// the same messages to net/http and to Node as it was to us. What was read of a
// message that turns out bad is sent too, and must not look complete to anyone.
func TestPayloads(t *testing.T) {
	list := payloads(t, needs.Data(t, "http1/payloads.json"))
	names, streams, runs := forwardAll(t, list)
	t.Run("net/http", func(t *testing.T) {
		for i, f := range runs {
			got, policy := goSees(streams[i])
			if policy != "" {
				t.Logf("%s: not a matter of framing: %s", names[i], policy)
				continue
			}
			sameMessages(t, names[i]+": net/http", got, f.messages)
		}
	})
	t.Run("node", func(t *testing.T) {
		report := nodeSees(t, streams)
		for i, view := range report.Views {
			got, want := view.complete(t), runs[i].messages
			if len(got) < len(want) && !slices.Contains(report.Methods, want[len(got)].Method) {
				t.Logf("%s: Node does not know the method %s", names[i], want[len(got)].Method)
				want = want[:len(got)]
			}
			sameMessages(t, names[i]+": Node", got, want)
		}
	})
	t.Run("control", func(t *testing.T) {
		raw := make([]string, len(list))
		for i, p := range list {
			raw[i] = string(p.raw)
		}
		differ := 0
		for i, view := range nodeSees(t, raw).Views {
			if got, _ := goSees(raw[i]); fmt.Sprint(got) != fmt.Sprint(view.complete(t)) {
				differ++
			}
		}
		if t.Logf("sent as they are, %d payloads are not the same to both", differ); differ == 0 {
			t.Error("both parsers agree on every raw payload: the comparison sees nothing")
		}
	})
}

// milder are payloads that strict llhttp refuses and we do not, each with the
// reason.
var milder = map[string]string{
	"connection.md#3":  "bytes behind a last request are dropped, not told; the request itself is good",
	"connection.md#14": "llhttp stops for its caller to switch protocols: no fault",
	"method.md#2":      "llhttp stops for its caller to switch protocols: no fault",
	"method.md#3":      "llhttp stops for its caller to switch protocols: no fault",
	"uri.md#9":         "llhttp stops for its caller to switch protocols: no fault",
	"invalid.md#4":     "methods are tokens (RFC 9110, section 9.1); llhttp has a list",
	"invalid.md#14":    "methods are tokens (RFC 9110, section 9.1); llhttp has a list",
}

// TestStricterThanLLHTTP: what llhttp refuses in its strict mode is refused here,
// and not only for want of a Host.
func TestStricterThanLLHTTP(t *testing.T) {
	list := payloads(t, needs.Data(t, "http1/payloads.json"))
	tried := 0
	for _, p := range list {
		if p.Src != "llhttp" || p.Type != "request" || !p.Error {
			continue
		}
		tried++
		f := forward(withHost(p.raw))
		reason, excused := milder[p.Name]
		switch {
		case f.err == nil && !excused:
			t.Errorf("%s: accepted, llhttp refuses it: %q\n%s", p.Name, p.raw, f.messages)
		case f.err != nil && excused:
			t.Errorf("%s: refused (%v), so it needs no excuse: %s", p.Name, f.err, reason)
		}
	}
	t.Logf("%d fixtures that strict llhttp refuses: %d refused, %d excused", tried, tried-len(milder), len(milder))
}
