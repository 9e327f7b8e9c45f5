package devmesh

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An app is a workload's application.
type app struct {
	addr   string
	server io.Closer // nil for one that is not ours
}

// app returns the application of a workload, started if it does not run yet.
func (m *Mesh) app(workload string) (*app, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.apps[workload]; ok {
		return a, nil
	}
	if m.App != nil {
		if addr := m.App(workload); addr != "" {
			m.apps[workload] = &app{addr: addr}
			return m.apps[workload], nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := Echo(workload)
	if m.Handler != nil {
		if own := m.Handler(workload); own != nil {
			h = own
		}
	}
	server := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	a := &app{addr: l.Addr().String(), server: server}
	leaf, err := m.ca.Issue([]string{"spiffe://cluster.local/ns/default/sa/echo"}) // for who speaks TLS end to end
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
	if err != nil {
		return nil, err
	}
	go server.Serve(eitherListener{l, &tls.Config{Certificates: []tls.Certificate{pair}}})
	m.apps[workload] = a
	return a, nil
}

// raw returns what answers on a workload's ports that carry no requests, started
// if it does not run yet.
func (m *Mesh) raw(workload, greeting string) (*app, error) {
	if m.App != nil {
		if addr := m.App(workload); addr != "" {
			return &app{addr: addr}, nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.apps["raw "+workload]; ok {
		return a, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := newRawServer(l, greeting)
	go server.serve()
	a := &app{addr: l.Addr().String(), server: server}
	m.apps["raw "+workload] = a
	return a, nil
}

func (a *app) close() {
	if a.server != nil {
		a.server.Close()
	}
}

// StopApp ends a workload's application, as a crash does.
func (m *Mesh) StopApp(workload string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.apps[workload]; a != nil {
		a.close()
	}
}

// Echo answers with what it was asked: which workload answered, the request's
// line and fields, and the length and SHA-256 of its body.
//
//	/status/503   answers with that status
//	/bytes/1000   answers with so many bytes
//	/body         answers with the request's body
//	/slow/100ms   waits first
//
//	/chat         takes a WebSocket upgrade and sends messages back
//
// A gRPC call gets its messages back, and the workload in x-workload. Who speaks
// TLS is answered in TLS.
func Echo(workload string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.Header().Set("x-workload", workload)
		w.WriteHeader(code)
	})
	mux.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.PathValue("n"), 10, 64)
		w.Header().Set("content-length", strconv.FormatInt(n, 10))
		block := make([]byte, 32<<10)
		for n > 0 {
			k, err := w.Write(block[:min(n, int64(len(block)))])
			if err != nil {
				return
			}
			n -= int64(k)
		}
	})
	mux.HandleFunc("/body", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("trailer", "x-sum")
		sum := sha256.New()
		io.Copy(w, io.TeeReader(r.Body, sum))
		w.Header().Set("x-sum", fmt.Sprintf("%x", sum.Sum(nil)))
	})
	mux.HandleFunc("/slow/{d}", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.PathValue("d"))
		select {
		case <-r.Context().Done():
		case <-time.After(d):
			fmt.Fprintln(w, workload, "after", d)
		}
	})
	mux.HandleFunc("/chat", chat)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { describe(w, r, workload) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
			echoCall(w, r, workload)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// echoCall sends a call's messages back as they come: framed they arrive, framed
// they go.
func echoCall(w http.ResponseWriter, r *http.Request, workload string) {
	w.Header().Set("content-type", r.Header.Get("content-type"))
	w.Header().Set("x-workload", workload)
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	out.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			w.Write(buf[:n])
			out.Flush()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the caller has gone
		}
	}
	w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
}

func describe(w http.ResponseWriter, r *http.Request, workload string) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("content-type", "text/plain")
	w.Header().Set("x-workload", workload)
	fmt.Fprintf(w, "workload: %s\nrequest: %s %s %s\nhost: %s\n", workload, r.Method, r.URL.RequestURI(), r.Proto, r.Host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			fmt.Fprintf(w, "header: %s: %s\n", name, v)
		}
	}
	fmt.Fprintf(w, "body: %d bytes, sha256 %x\n", n, sum.Sum(nil))
}
