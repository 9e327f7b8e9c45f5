package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// An end is one side of a connection, whatever it speaks.
type end interface {
	io.ReadWriter
	// CloseWrite ends what this side sends. A server of HTTP or gRPC is over with
	// it.
	CloseWrite() error
	// Abort gives both directions up, so that the other side can tell.
	Abort()
	// Close is called last, whatever was before.
	Close() error
}

// A protocol is how to be both ends of it.
type protocol struct {
	name, app string // app is the word for its ports
	open      func(ctx context.Context, addr string) (end, error)
	serve     func(t *testing.T, l net.Listener, accepted chan<- end)
	// oneWay says that a server which has ended its side hears no more.
	oneWay bool
}

var protocols = []protocol{
	{"http1", "http", openHTTP(false), serveHTTP, true},
	{"websocket", "kubernetes.io/ws", openWebSocket, serveWebSocket, false},
	{"h2c", "kubernetes.io/h2c", openHTTP(true), serveHTTP, true},
	{"grpc", "grpc", openGRPC, serveGRPC, true},
	{"tcp", "tcp", openTCP, serveTCP, false},
	{"tls", "tls", openTLS, serveTLS, false},
}

// A tcpEnd is bytes and nothing else.
type tcpEnd struct {
	*net.TCPConn
	r io.Reader
}

func (e tcpEnd) Read(p []byte) (int, error) { return e.r.Read(p) }

func (e tcpEnd) Abort() {
	e.SetLinger(0) // a RST instead of a FIN
	e.TCPConn.Close()
}

func openTCP(ctx context.Context, addr string) (end, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return tcpEnd{nc.(*net.TCPConn), nc}, nil
}

// accept hands each connection of l to begin, which makes an end of it.
func accept(l net.Listener, accepted chan<- end, begin func(nc *net.TCPConn) (end, error)) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			if e, err := begin(nc.(*net.TCPConn)); err == nil {
				accepted <- e
			} else {
				nc.Close()
			}
		}()
	}
}

func serveTCP(_ *testing.T, l net.Listener, accepted chan<- end) {
	go accept(l, accepted, func(nc *net.TCPConn) (end, error) { return tcpEnd{nc, nc}, nil })
}

// A tlsEnd closes by close_notify; without one it was cut.
type tlsEnd struct {
	*tls.Conn
	under tcpEnd
}

func (e tlsEnd) Abort() { e.under.Abort() }

func openTLS(ctx context.Context, addr string) (end, error) {
	under, err := openTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(under.(tcpEnd).TCPConn, &tls.Config{ServerName: "app.example", InsecureSkipVerify: true})
	return tlsEnd{tc, under.(tcpEnd)}, tc.HandshakeContext(ctx)
}

func serveTLS(t *testing.T, l net.Listener, accepted chan<- end) {
	t.Helper()
	ca, err := devca.New("application")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue([]string{"spiffe://example/app"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != "app.example" {
			return nil, fmt.Errorf("asked for %q", hello.ServerName)
		}
		return nil, nil
	}}
	go accept(l, accepted, func(nc *net.TCPConn) (end, error) {
		tc := tls.Server(nc, config)
		return tlsEnd{tc, tcpEnd{nc, nc}}, tc.Handshake()
	})
}

func openWebSocket(ctx context.Context, addr string) (end, error) {
	under, err := openTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(under, "GET /chat HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(under)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("answered with %s", res.Status)
	}
	return tcpEnd{under.(tcpEnd).TCPConn, r}, nil
}

// serveWebSocket takes upgrades. What follows them is no frames: who carries
// them does not look.
func serveWebSocket(_ *testing.T, l net.Listener, accepted chan<- end) {
	go accept(l, accepted, func(nc *net.TCPConn) (end, error) {
		r := bufio.NewReader(nc)
		q, err := http.ReadRequest(r)
		if err != nil || q.Header.Get("Upgrade") != "websocket" {
			return nil, fmt.Errorf("no upgrade: %v", err)
		}
		_, err = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		return tcpEnd{nc, r}, err
	})
}

// An httpEnd is a request body and a response body.
type httpEnd struct {
	io.Reader
	io.Writer
	closeWrite func() error
	abort      func()
}

func (e *httpEnd) CloseWrite() error { return e.closeWrite() }
func (e *httpEnd) Abort()            { e.abort() }
func (e *httpEnd) Close() error      { return e.closeWrite() }

func openHTTP(two bool) func(ctx context.Context, addr string) (end, error) {
	return func(ctx context.Context, addr string) (end, error) {
		transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		transport.Protocols.SetHTTP1(!two)
		transport.Protocols.SetUnencryptedHTTP2(two)
		ctx, cancel := context.WithCancel(ctx)
		context.AfterFunc(ctx, transport.CloseIdleConnections)
		body, w := io.Pipe()
		q, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/chat", body)
		if err != nil {
			cancel()
			return nil, err
		}
		res, err := transport.RoundTrip(q)
		if err != nil {
			cancel()
			return nil, err
		}
		if res.StatusCode != http.StatusOK {
			cancel()
			return nil, fmt.Errorf("answered with %s", res.Status)
		}
		return &httpEnd{res.Body, w, w.Close, func() { cancel(); w.CloseWithError(context.Canceled) }}, nil // the body's reader does not look at ctx
	}
}

// serveHTTP speaks HTTP/1 and HTTP/2. A handler goes on until its end is closed.
func serveHTTP(t *testing.T, l net.Listener, accepted chan<- end) {
	handle := func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		rc.Flush()
		over, aborted := make(chan struct{}), false
		finish := sync.OnceFunc(func() { close(over) })
		accepted <- &httpEnd{r.Body, flushed{w, rc}, func() error { finish(); return nil }, func() { aborted = true; finish() }}
		<-over
		if !aborted {
			return
		}
		if nc, _, err := rc.Hijack(); err == nil { // HTTP/1: a server that panics would read the request's rest first
			tcpEnd{TCPConn: nc.(*net.TCPConn)}.Abort()
			return
		}
		panic(http.ErrAbortHandler)
	}
	server := &http.Server{Handler: http.HandlerFunc(handle), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

type flushed struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

// rawCodec makes gRPC messages of bytes.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "raw" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// A grpcStream is what a grpc.ClientStream and a grpc.ServerStream have.
type grpcStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// A grpcEnd cuts bytes into messages.
type grpcEnd struct {
	grpcStream
	rest       []byte
	closeWrite func() error
	abort      func()
}

func (e *grpcEnd) Read(p []byte) (int, error) {
	for len(e.rest) == 0 {
		if err := e.RecvMsg(&e.rest); err != nil {
			return 0, err
		}
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *grpcEnd) Write(p []byte) (int, error) { return len(p), e.SendMsg(&p) }
func (e *grpcEnd) CloseWrite() error           { return e.closeWrite() }
func (e *grpcEnd) Abort()                      { e.abort() }
func (e *grpcEnd) Close() error                { return e.closeWrite() }

func openGRPC(ctx context.Context, addr string) (end, error) {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { cc.Close() })
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/chat.v1.Chat/Talk")
	if err != nil {
		cancel()
		return nil, err
	}
	return &grpcEnd{grpcStream: s, closeWrite: s.CloseSend, abort: cancel}, nil
}

func serveGRPC(t *testing.T, l net.Listener, accepted chan<- end) {
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		over := make(chan error, 1)
		var once sync.Once
		finish := func(err error) error { once.Do(func() { over <- err }); return nil }
		accepted <- &grpcEnd{grpcStream: s, closeWrite: func() error { return finish(nil) }, abort: func() { finish(status.Error(codes.Aborted, "given up")) }}
		return <-over
	}))
	go server.Serve(l)
	t.Cleanup(server.Stop)
}
