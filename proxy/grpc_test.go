package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw is a gRPC codec whose messages are bytes.
type raw struct{}

var _ encoding.Codec = raw{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }

// grpcApp is a gRPC server that tests ask for things by the method's name.
type grpcApp struct {
	*grpc.Server
	addr     string
	mu       sync.Mutex
	ended    []error // of calls whose context ended
	metadata []metadata.MD
}

func newGRPCApp(t testing.TB, o ...grpc.ServerOption) *grpcApp {
	t.Helper()
	a := &grpcApp{}
	a.Server = grpc.NewServer(append(o, grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(a.serve))...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.addr = l.Addr().String()
	go a.Serve(l)
	t.Cleanup(a.Stop)
	return a
}

// serve answers every call.
func (a *grpcApp) serve(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	md, _ := metadata.FromIncomingContext(s.Context())
	a.mu.Lock()
	a.metadata = append(a.metadata, md)
	a.mu.Unlock()
	switch method[strings.LastIndexByte(method, '/')+1:] {
	case "Fail":
		return status.Error(codes.FailedPrecondition, "not like that: ü")
	case "FailLate":
		s.SetTrailer(metadata.Pairs("why", "late"))
		var p []byte
		if err := s.RecvMsg(&p); err != nil {
			return err
		}
		if err := s.SendMsg(&p); err != nil {
			return err
		}
		return status.Error(codes.DataLoss, "half of it")
	case "Wait":
		<-s.Context().Done()
		a.mu.Lock()
		a.ended = append(a.ended, s.Context().Err())
		a.mu.Unlock()
		return s.Context().Err()
	case "Early": // answers before the request has ended
		p := []byte("early")
		return s.SendMsg(&p)
	}
	s.SetHeader(metadata.Pairs("served-by", "app"))
	s.SetTrailer(metadata.Pairs("sum", "1"))
	for {
		var p []byte
		if err := s.RecvMsg(&p); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(&p); err != nil {
			return err
		}
	}
}

// grpcDoc has a service of gRPC and what its rule says.
func grpcDoc(rule string) string {
	return strings.ReplaceAll(plainDoc(rule), "appProtocol: http}", "appProtocol: grpc}")
}

// dialGRPC opens a channel to service a in a mode.
func dialGRPC(t testing.TB, m *mesh, mode devmesh.Mode) *grpc.ClientConn {
	t.Helper()
	e, ok := m.Find("a", mode)
	if !ok {
		t.Fatal("no entry")
	}
	c, err := grpc.NewClient("passthrough:///"+e.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eachGRPC runs a test in both modes.
func eachGRPC(t *testing.T, doc string, test func(t *testing.T, m *mesh, c *grpc.ClientConn, a *grpcApp)) {
	for _, mode := range []devmesh.Mode{devmesh.HBONE, devmesh.Sandwich} {
		t.Run(string(mode), func(t *testing.T) {
			a := newGRPCApp(t)
			m := start(t, doc, devmesh.Options{Modes: []devmesh.Mode{mode}, App: func(string) string { return a.addr }})
			test(t, m, dialGRPC(t, m, mode), a)
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, err := range m.panics {
				t.Error(err)
			}
		})
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// TestGRPC: calls of all four shapes, with metadata and statuses, unchanged from
// end to end.
func TestGRPC(t *testing.T) {
	eachGRPC(t, grpcDoc(once), func(t *testing.T, m *mesh, c *grpc.ClientConn, a *grpcApp) {
		t.Run("unary", func(t *testing.T) {
			in, out := []byte("hello"), []byte(nil)
			var head, trail metadata.MD
			ctx := metadata.AppendToOutgoingContext(within(t), "x-token", "abc", "data-bin", "\x00\xff")
			if err := c.Invoke(ctx, "/test/Echo", &in, &out, grpc.Header(&head), grpc.Trailer(&trail)); err != nil {
				t.Fatal(err)
			}
			if string(out) != "hello" || head.Get("served-by")[0] != "app" || trail.Get("sum")[0] != "1" {
				t.Errorf("got %q, head %v, trailer %v", out, head, trail)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			md := a.metadata[len(a.metadata)-1]
			if md.Get("x-token")[0] != "abc" || md.Get("data-bin")[0] != "\x00\xff" {
				t.Errorf("the server got %v", md)
			}
		})
		t.Run("statuses", func(t *testing.T) {
			in, out := []byte("x"), []byte(nil)
			err := c.Invoke(within(t), "/test/Fail", &in, &out)
			if s, _ := status.FromError(err); s.Code() != codes.FailedPrecondition || s.Message() != "not like that: ü" {
				t.Errorf("got %v", err)
			}
			var trail metadata.MD
			err = c.Invoke(within(t), "/test/FailLate", &in, &out, grpc.Trailer(&trail))
			if s, _ := status.FromError(err); s.Code() != codes.DataLoss || len(trail.Get("why")) != 1 {
				t.Errorf("got %v, trailer %v", err, trail)
			}
		})
		t.Run("bidirectional", func(t *testing.T) { bidirectional(t, c) })
		t.Run("large", func(t *testing.T) {
			in, out := bytes.Repeat([]byte("0123456789abcdef"), 200<<10), []byte(nil)
			if err := c.Invoke(within(t), "/test/Echo", &in, &out, grpc.MaxCallRecvMsgSize(8<<20)); err != nil {
				// the server takes 4 MiB
				t.Fatal(err)
			}
			if !bytes.Equal(in, out) {
				t.Errorf("%d bytes came back", len(out))
			}
		})
		t.Run("early", func(t *testing.T) {
			s, err := c.NewStream(within(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Early")
			if err != nil {
				t.Fatal(err)
			}
			var p []byte
			if err := s.RecvMsg(&p); err != nil || string(p) != "early" {
				t.Fatalf("got %q, %v", p, err)
			}
			if err := s.RecvMsg(&p); err != io.EOF {
				t.Errorf("got %v, want the end", err)
			}
		})
		t.Run("cancel", func(t *testing.T) {
			ctx, cancel := context.WithCancel(within(t))
			s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Wait")
			if err != nil {
				t.Fatal(err)
			}
			p := []byte("x")
			if err := s.SendMsg(&p); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the call arrives", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.metadata) > 0 })
			cancel()
			eventually(t, "the server hears of it", func() bool {
				a.mu.Lock()
				defer a.mu.Unlock()
				return len(a.ended) == 1 && errors.Is(a.ended[0], context.Canceled)
			})
		})
		t.Run("at once", func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() {
					in, out := fmt.Appendf(nil, "%d", i), []byte(nil)
					if err := c.Invoke(within(t), "/test/Echo", &in, &out); err != nil || !bytes.Equal(in, out) {
						t.Errorf("call %d: %q, %v", i, out, err)
					}
				})
			}
			wg.Wait()
		})
	})
}

// bidirectional asks and answers in lock step on one stream.
func bidirectional(t *testing.T, c *grpc.ClientConn) {
	s, err := c.NewStream(within(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Chat")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		in, out := fmt.Appendf(nil, "message %d", i), []byte(nil)
		if err := s.SendMsg(&in); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
			t.Fatalf("got %q, %v", out, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var p []byte
	if err := s.RecvMsg(&p); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
	if s.Trailer().Get("sum") == nil {
		t.Errorf("trailer %v", s.Trailer())
	}
}
