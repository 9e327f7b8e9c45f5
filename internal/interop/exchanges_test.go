package interop

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An exchange is one thing that a client does with an application, over
// whatever path.
type exchange struct {
	name string
	app  string
	run  func(t *testing.T, addr string)
}

// exchanges are what every path must carry. They are sent to addr, where the
// path begins.
var exchanges = []exchange{
	{"get", "nginx", func(t *testing.T, addr string) {
		got := mustCurl(t, "-H", "X-Interop: yes", "-w", "%{http_code}", "http://"+addr+"/")
		if want := "nginx GET yes\n200"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}},
	{"head", "nginx", func(t *testing.T, addr string) {
		got := mustCurl(t, "--head", "http://"+addr+"/big")
		if want := fmt.Sprintf("content-length: %d\r\n", bigFile); !strings.Contains(strings.ToLower(got), want) {
			t.Errorf("got %q, want it to contain %q", got, want)
		}
	}},
	{"statuses without a body", "nginx", func(t *testing.T, addr string) {
		got := mustCurl(t, "-o", os.DevNull, "-o", os.DevNull, "-w", "%{http_code} ", "http://"+addr+"/gone", "http://"+addr+"/moved")
		if want := "410 302 "; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}},
	{"keep-alive", "nginx", func(t *testing.T, addr string) {
		url := "http://" + addr + "/"
		got := mustCurl(t, "-o", os.DevNull, "-o", os.DevNull, "-o", os.DevNull, "-w", "%{http_code}:%{num_connects} ", url, url, url)
		if want := "200:1 200:0 200:0 "; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}},
	{"big download", "nginx", func(t *testing.T, addr string) {
		got := mustCurl(t, "http://"+addr+"/big")
		if !bytes.Equal([]byte(got), loaf()) {
			t.Errorf("got %d bytes, want the %d of the file", len(got), bigFile)
		}
	}},
	{"range", "nginx", func(t *testing.T, addr string) {
		got := mustCurl(t, "-r", "2-6", "-w", "|%{http_code}", "http://"+addr+"/big")
		if want := "slice|206"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}},
	{"upload with a length", "node", func(t *testing.T, addr string) {
		upload(t, addr, "Content-Length: "+fmt.Sprint(bigFile))
	}},
	{"upload in chunks", "node", func(t *testing.T, addr string) {
		upload(t, addr, "Transfer-Encoding: chunked")
	}},
	{"upload after 100 Continue", "node", func(t *testing.T, addr string) {
		upload(t, addr, "Expect: 100-continue")
	}},
	{"early hints", "node", func(t *testing.T, addr string) {
		got := mustCurl(t, "-i", "http://"+addr+"/hints")
		hints := strings.Index(got, "HTTP/1.1 103 ")
		if final := strings.Index(got, "HTTP/1.1 200 "); hints < 0 || final < hints || !strings.Contains(got, "rel=preload") {
			t.Errorf("got %q, want a 103 with its link and then a 200", got)
		}
	}},
	{"trailers", "node", trailers},
	{"connection close", "node", func(t *testing.T, addr string) {
		url := "http://" + addr + "/close"
		got := mustCurl(t, "-o", os.DevNull, "-o", os.DevNull, "-w", "%{http_code}:%{num_connects} ", url, url)
		if !strings.HasPrefix(got, "200:1 200:") {
			t.Errorf("got %q, want two answers", got)
		}
	}},
	{"http/1.0", "node", func(t *testing.T, addr string) {
		got := mustCurl(t, "--http1.0", "-w", "|%{http_code}", "http://"+addr+"/old")
		if !strings.HasSuffix(got, "|200") || !strings.Contains(got, `"url":"/old"`) {
			t.Errorf("got %q, want a 200 for /old", got)
		}
	}},
	{"pipelining", "node", pipelining},
	{"upgrade", "node", func(t *testing.T, addr string) {
		if status := upgrade(t, addr, "websocket"); status != http.StatusSwitchingProtocols {
			t.Errorf("got %d, want 101", status)
		}
	}},
	// RFC 9110, section 7.8: an offer may be declined, but not half taken.
	{"upgrade, taken or declined", "node", func(t *testing.T, addr string) {
		if status := upgrade(t, addr, "echo"); status != http.StatusSwitchingProtocols && status != http.StatusOK {
			t.Errorf("got %d, want 101 or 200", status)
		}
	}},
}

func mustCurl(t *testing.T, args ...string) string {
	t.Helper()
	got, err := curl(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// understood is what the Node server says it received.
type understood struct {
	Method, URL, Host, SHA256 string
	N                         int
	Raw                       []string
}

func upload(t *testing.T, addr, header string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, loaf(), 0o644); err != nil {
		t.Fatal(err)
	}
	out := mustCurl(t, "-H", header, "-T", file, "-X", "POST", "http://"+addr+"/upload")
	var got understood
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(loaf())); got.N != bigFile || got.SHA256 != want || got.Method != "POST" {
		t.Errorf("got %s of %d bytes with sum %s; want POST of %d with %s", got.Method, got.N, got.SHA256, bigFile, want)
	}
}

// trailers are read with Go's client, because curl does not print them.
func trailers(t *testing.T, addr string) {
	nc := dial(t, addr)
	fmt.Fprintf(nc, "GET /trailers HTTP/1.1\r\nHost: app.demo\r\nTE: trailers\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	if got, want := res.Trailer.Get("X-Sum"), "done"; got != want {
		t.Errorf("trailer x-sum: got %q, want %q", got, want)
	}
}

// pipelining sends three requests at once and wants the answers in order.
func pipelining(t *testing.T, addr string) {
	nc := dial(t, addr)
	for _, path := range []string{"/one", "/two", "/three"} {
		fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: app.demo\r\n\r\n", path)
	}
	br := bufio.NewReader(nc)
	for _, path := range []string{"/one", "/two", "/three"} {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("answer to %s: %v", path, err)
		}
		var got understood
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.URL != path {
			t.Errorf("got %q, %v; want %q", got.URL, err, path)
		}
		io.Copy(io.Discard, res.Body)
	}
}

// upgrade offers to switch protocols. If it is taken, bytes go through, and one
// way is closed first.
func upgrade(t *testing.T, addr, protocol string) (status int) {
	nc := dial(t, addr)
	fmt.Fprintf(nc, "GET /echo HTTP/1.1\r\nHost: app.demo\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	br := bufio.NewReader(nc)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Error(err)
		}
		return res.StatusCode
	}
	sent := loaf()[:1<<20]
	go nc.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("echo: %v", err)
	}
	nc.(interface{ CloseWrite() error }).CloseWrite()
	if rest, err := io.ReadAll(br); err != nil || len(rest) != 0 {
		t.Errorf("after half-close: got %d bytes, %v; want the end", len(rest), err)
	}
	return res.StatusCode
}

// carry runs every exchange of the application over the path, but those that
// the path is known not to carry.
func carry(t *testing.T, app application, addr string, without []string) {
	t.Helper()
	ran := 0
	for _, x := range exchanges {
		if x.app == app.name && !slices.Contains(without, x.name) {
			ran++
			t.Run(x.name, func(t *testing.T) { x.run(t, addr) })
		}
	}
	if ran == 0 {
		t.Fatalf("no exchange is for %s", app.name)
	}
}
