package bench

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answering serves HTTP/1 behind PROXY headers, with whatever a test does to the
// answers.
func answering(t *testing.T, answer func(w http.ResponseWriter, number string)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r.Header.Get("x-echo")) })}
	go s.Serve(unheaded{l})
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// unheaded drops the PROXY header, whose length is its bytes 14 and 15.
type unheaded struct{ net.Listener }

func (l unheaded) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	head := make([]byte, 16)
	if _, err := c.Read(head); err != nil {
		return nil, err
	}
	_, err = c.Read(make([]byte, int(head[14])<<8|int(head[15])))
	return c, err
}

// TestPatronsSeeFailures: an answer that is not right is a failure, one that is
// right and says that it is the last is none, and nothing is asked twice.
func TestPatronsSeeFailures(t *testing.T) {
	good := func(w http.ResponseWriter, number string) {
		w.Header().Set("x-echo", number)
		fmt.Fprint(w, strings.Repeat("x", answerSize))
	}
	for name, row := range map[string]struct {
		answer func(w http.ResponseWriter, number string)
		fails  bool
	}{
		"right":          {good, false},
		"right and last": {func(w http.ResponseWriter, n string) { w.Header().Set("connection", "close"); good(w, n) }, false},
		"another's":      {func(w http.ResponseWriter, n string) { good(w, "x"+n) }, true},
		"short":          {func(w http.ResponseWriter, n string) { w.Header().Set("x-echo", n); fmt.Fprint(w, "x") }, true},
		"an error":       {func(w http.ResponseWriter, n string) { w.WriteHeader(503); good(w, n) }, true},
		"cut":            {func(w http.ResponseWriter, n string) { good(w, n); panic(http.ErrAbortHandler) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			p := &Patrons{proxy: answering(t, row.answer), stop: make(chan struct{})}
			p.wg.Add(1)
			go p.serially(1, p.headed)
			if err := p.until(t.Context(), "requests", func() bool { return p.asked.Load() >= 20 }); err != nil {
				t.Fatal(err)
			}
			err := p.Leave()
			failed, asked := p.failed.Load(), p.asked.Load()
			if row.fails != (err != nil) || row.fails && failed != asked || !row.fails && failed != 0 {
				t.Errorf("%d of %d failed: %v", failed, asked, err)
			}
			if n := p.failedSince(begun); int64(n) != failed {
				t.Errorf("%d failed since the beginning, want %d", n, failed)
			}
			if n := p.failedSince(time.Now()); n != 0 {
				t.Errorf("%d failed in the future", n)
			}
		})
	}
	// A port where nobody listens is no request that failed.
	p := &Patrons{proxy: closedPort(t), stop: make(chan struct{})}
	p.wg.Add(1)
	go p.serially(1, p.headed)
	if err := p.until(t.Context(), "a refusal", func() bool { return p.refused.Load() > 0 }); err != nil {
		t.Fatal(err)
	}
	if err := p.Leave(); err != nil || p.failed.Load() != 0 {
		t.Errorf("%d failed: %v", p.failed.Load(), err)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	a, err := (&Rig{}).freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return a
}
