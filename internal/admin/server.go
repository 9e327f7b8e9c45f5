package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
)

// Limits of callers, who are few and trusted, but may be broken.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
)

// A Server serves the three ports.
type Server struct {
	Metrics *metrics.Registry
	// Ready is nil while this program can serve, and else says what it waits
	// for.
	Ready   func() error
	Pages   []Page
	Actions []Action
}

// Listeners are where it serves. Each may be nil.
type Listeners struct {
	Admin, Ready, Metrics net.Listener
}

// CheckLoopback says what is wrong with an address for the admin port; nil if
// only this machine can reach it.
func CheckLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if host == "localhost" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines: write a loopback address, such as 127.0.0.1:15000", addr)
}

// Serve serves until ctx ends. What is being answered then has a second to end.
func (s *Server) Serve(ctx context.Context, l Listeners) error {
	var servers []*http.Server
	errs := make(chan error, 3)
	var wg sync.WaitGroup
	for _, one := range []struct {
		l net.Listener
		h http.Handler
	}{{l.Admin, s.Admin()}, {l.Ready, s.readyPort()}, {l.Metrics, s.metricsPort()}} {
		if one.l == nil {
			continue
		}
		srv := &http.Server{
			Handler: one.h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
			ErrorLog:    log.New(io.Discard, "", 0), // callers that go away are no news
			BaseContext: func(net.Listener) context.Context { return ctx },
		}
		servers = append(servers, srv)
		wg.Go(func() {
			if err := srv.Serve(one.l); !errors.Is(err, http.ErrServerClosed) {
				errs <- fmt.Errorf("listener %s: %w", one.l.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, srv := range servers {
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	}
	wg.Wait()
	return err
}

// Admin returns the admin port's handler.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	for _, p := range s.Pages {
		mux.HandleFunc(p.Path, only(http.MethodGet, p.serve))
	}
	for _, a := range s.Actions {
		mux.HandleFunc(a.Path, only(http.MethodPost, a.serve))
	}
	s.common(mux)
	for path, h := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.HandleFunc(path, h)
	}
	mux.HandleFunc("/{$}", only(http.MethodGet, s.index))
	return ours(mux)
}

func (s *Server) readyPort() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", only(http.MethodGet, s.ready))
	return mux
}

func (s *Server) metricsPort() http.Handler {
	mux := http.NewServeMux()
	s.common(mux)
	return mux
}

// common is what the metrics port and the admin port have both.
func (s *Server) common(mux *http.ServeMux) {
	mux.HandleFunc("/healthz/ready", only(http.MethodGet, s.ready))
	mux.HandleFunc("/metrics", only(http.MethodGet, s.metrics))
	mux.HandleFunc("/stats/prometheus", only(http.MethodGet, s.metrics))
}

// ours lets in who asks us, and not a name that was bent to our address, nor a
// page of somebody else's.
func ours(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
		w.Header().Set("Cache-Control", "no-store")
		if !loopbackName(r.Host) {
			refuse(w, http.StatusForbidden, "the admin port is asked by a loopback name, such as localhost:15000, and not by "+r.Host)
			return
		}
		if o := r.Header.Get("Origin"); o != "" {
			if u, err := url.Parse(o); err != nil || u.Host != r.Host {
				refuse(w, http.StatusForbidden, "the admin port does not answer pages of "+o)
				return
			}
		}
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "same-origin", "none":
		default:
			refuse(w, http.StatusForbidden, "the admin port does not answer pages of other sites")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopbackName(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

// only lets one method pass; HEAD counts as GET.
func only(method string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, r.URL.Path+" takes "+method)
			return
		}
		next(w, r)
	}
}

func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, sentence)
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.Ready != nil {
		if err := s.Ready(); err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	refuse(w, http.StatusOK, "ready")
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	f := metrics.Accepted(r.Header.Get("Accept"))
	w.Header().Set("Content-Type", f.ContentType())
	_ = s.Metrics.Expose(w, f) // the scraper has gone: nobody is left to tell
}

func (p *Page) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if p.Write != nil {
		w.Header().Set("Content-Type", p.ContentType)
		if p.ContentType == "" {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		}
		begun, c := false, http.NewResponseController(w)
		err := p.Write(r.Context(), q, func(b []byte) error {
			begun = true
			if _, err := w.Write(b); err != nil {
				return err
			}
			return c.Flush() // somebody may be waiting for the next line
		})
		if err != nil && !begun {
			refuse(w, http.StatusBadRequest, err.Error())
		}
		return
	}
	tables, err := p.Tables(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	_ = writeTables(w, formOf(r), p.About, tables) // the caller has gone
}

func (a *Action) serve(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxHeader)
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	sentence, err := a.Do(r.Form)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	refuse(w, http.StatusOK, sentence)
}

// index lists what there is.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	t := Table{Head: []string{"METHOD", "PATH", "WHAT"}}
	for _, p := range s.Pages {
		t.Rows = append(t.Rows, []string{"GET", p.Path, p.About})
	}
	for _, a := range s.Actions {
		t.Rows = append(t.Rows, []string{"POST", a.Path, a.About})
	}
	t.Rows = append(t.Rows,
		[]string{"GET", "/stats/prometheus", "metrics, as on the metrics port"},
		[]string{"GET", "/healthz/ready", "whether this proxy can serve"},
		[]string{"GET", "/debug/pprof/", "profiles of Go's runtime"})
	_ = writeTables(w, formOf(r), "what can be asked here; add ?format=json, text or html", []Table{t})
}
