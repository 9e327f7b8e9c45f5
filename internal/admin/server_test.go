package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
)

func server() *Server {
	r := new(metrics.Registry)
	r.Counter("a_total", "").Add(1)
	return &Server{
		Metrics: r,
		Ready:   func() error { return nil },
		Pages: []Page{
			{Path: "/things", About: "things", Tables: func(q url.Values) ([]Table, error) {
				if q.Get("bad") != "" {
					return nil, errors.New("bad is not understood: leave it out")
				}
				return []Table{{Title: "Big Things", Head: []string{"NAME", "HOW MANY"}, Rows: [][]string{{"a", "1"}, {"<b>\"", "22"}}}, {Rows: nil}}, nil
			}},
			{Path: "/lines", About: "lines", ContentType: "application/x-lines", Write: func(ctx context.Context, q url.Values, emit func([]byte) error) error {
				if q.Get("bad") != "" {
					return errors.New("no")
				}
				if err := emit([]byte("0\n")); err != nil || q.Get("f") == "" {
					return err
				}
				<-ctx.Done()
				return nil
			}},
		},
		Actions: []Action{{Path: "/act", About: "acts", Do: func(q url.Values) (string, error) {
			if q.Get("x") == "" {
				return "", errors.New("write x")
			}
			return "done " + q.Get("x"), nil
		}}},
	}
}

func TestAdmin(t *testing.T) {
	h := server().Admin()
	for _, tc := range []struct {
		name, method, target, body string
		header                     [2]string
		status                     int
		want, kind                 string
	}{
		{name: "text", target: "/things", status: 200, want: "Big Things\nNAME  HOW MANY\na     1\n<b>\"  22\n\n", kind: "text/plain"},
		{name: "json", target: "/things?format=json", status: 200, want: "{\n\"big_things\": [\n  {\"name\": \"a\", \"how_many\": \"1\"},", kind: "application/json"},
		{name: "json by Accept", target: "/things", header: [2]string{"Accept", "application/json"}, status: 200, want: `"rows": []`, kind: "application/json"},
		{name: "html", target: "/things", header: [2]string{"Accept", "text/html,*/*"}, status: 200, want: "<td>&lt;b&gt;&#34;</td>", kind: "text/html"},
		{name: "a page refuses", target: "/things?bad=1", status: 400, want: "leave it out"},
		{name: "lines", target: "/lines", status: 200, want: "0\n", kind: "application/x-lines"},
		{name: "lines refuse", target: "/lines?bad=1", status: 400, want: "no"},
		{name: "index", target: "/", status: 200, want: "POST    /act"},
		{name: "elsewhere", target: "/none", status: 404},
		{name: "metrics", target: "/stats/prometheus", status: 200, want: "a_total 1\n", kind: "text/plain; version=0.0.4"},
		{name: "open metrics", target: "/metrics", header: [2]string{"Accept", "application/openmetrics-text"}, status: 200, want: "# EOF", kind: "application/openmetrics-text"},
		{name: "ready", target: "/healthz/ready", status: 200, want: "ready"},
		{name: "profiles", target: "/debug/pprof/goroutine?debug=1", status: 200, want: "goroutine profile"},
		{name: "action", method: "POST", target: "/act", body: "x=1", status: 200, want: "done 1"},
		{name: "action by query", method: "POST", target: "/act?x=2", status: 200, want: "done 2"},
		{name: "action refuses", method: "POST", target: "/act", status: 400, want: "write x"},
		{name: "action by GET", target: "/act?x=1", status: 405, want: "/act takes POST"},
		{name: "page by POST", method: "POST", target: "/things", status: 405, want: "/things takes GET"},
		{name: "page by HEAD", method: "HEAD", target: "/things", status: 200},
		{name: "other Host", target: "http://evil.example/things", status: 403, want: "and not by evil.example"},
		{name: "address that is no loopback", target: "http://10.0.0.1:15000/things", status: 403},
		{name: "localhost", target: "http://localhost:15000/things", status: 200},
		{name: "IPv6", target: "http://[::1]:15000/things", status: 200},
		{name: "other Origin", target: "/things", header: [2]string{"Origin", "https://evil.example"}, status: 403, want: "pages of https://evil.example"},
		{name: "other port's Origin", method: "POST", target: "/act?x=1", header: [2]string{"Origin", "http://127.0.0.1:8080"}, status: 403},
		{name: "own Origin", method: "POST", target: "/act?x=1", header: [2]string{"Origin", "http://127.0.0.1:15000"}, status: 200},
		{name: "null Origin", target: "/things", header: [2]string{"Origin", "null"}, status: 403},
		{name: "other site", target: "/things", header: [2]string{"Sec-Fetch-Site", "cross-site"}, status: 403},
		{name: "own site", target: "/things", header: [2]string{"Sec-Fetch-Site", "same-origin"}, status: 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = "GET"
			}
			if strings.HasPrefix(tc.target, "/") {
				tc.target = "http://127.0.0.1:15000" + tc.target
			}
			r := httptest.NewRequest(tc.method, tc.target, strings.NewReader(tc.body))
			if tc.body != "" {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			if tc.header[0] != "" {
				r.Header.Set(tc.header[0], tc.header[1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := w.Body.String()
			if w.Code != tc.status || !strings.Contains(got, tc.want) || !strings.HasPrefix(w.Header().Get("Content-Type"), tc.kind) {
				t.Errorf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), got)
			}
			if tc.kind == "application/json" && !json.Valid(w.Body.Bytes()) {
				t.Errorf("no JSON: %s", got)
			}
		})
	}
}

func TestNotReady(t *testing.T) {
	s := server()
	s.Ready = func() error { return errors.New("waiting for a certificate") }
	w := httptest.NewRecorder()
	s.readyPort().ServeHTTP(w, httptest.NewRequest("GET", "http://10.0.0.1:15021/healthz/ready", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "waiting for a certificate") {
		t.Errorf("%d %s", w.Code, w.Body.String())
	}
}

func TestCheckLoopback(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:15000": true, "[::1]:0": true, "localhost:1": true, "127.1.2.3:1": true,
		":15000": false, "0.0.0.0:15000": false, "10.0.0.1:1": false, "[::]:1": false, "15000": false,
	} {
		if err := CheckLoopback(addr); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// TestServe asks each port over the network, and ends while somebody follows.
func TestServe(t *testing.T) {
	var ls [3]net.Listener
	for i := range ls {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls[i] = l
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server().Serve(ctx, Listeners{ls[0], ls[1], ls[2]}) }()
	get := func(i int, path string) *http.Response {
		t.Helper()
		r, err := http.Get("http://" + ls[i].Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Body.Close() })
		return r
	}
	for _, tc := range []struct {
		port   int
		path   string
		status int
	}{
		{0, "/things", 200}, {1, "/healthz/ready", 200}, {1, "/metrics", 404}, {1, "/things", 404}, {2, "/metrics", 200},
		{2, "/stats/prometheus", 200}, {2, "/healthz/ready", 200}, {2, "/things", 404}, {2, "/debug/pprof/", 404}, {2, "/act", 404},
	} {
		if r := get(tc.port, tc.path); r.StatusCode != tc.status {
			t.Errorf("port %d %s: %d, want %d", tc.port, tc.path, r.StatusCode, tc.status)
		}
	}
	follow := get(0, "/lines?f=1")
	first := make([]byte, 2)
	if _, err := io.ReadFull(follow.Body, first); err != nil || string(first) != "0\n" {
		t.Fatalf("%q, %v", first, err)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("serves on")
	}
}

func TestServeTellsOfAListenerThatFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := server().Serve(t.Context(), Listeners{Ready: l}); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
