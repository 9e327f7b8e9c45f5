package hbone

import (
	"context"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// A fakeAgent is a SPIFFE Workload API on a unix socket.
type fakeAgent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	t      *testing.T
	socket string
	server *grpc.Server
	send   chan any // *workload.X509SVIDResponse, or the error that ends the stream
}

func newAgent(t *testing.T) *fakeAgent {
	dir := must(os.MkdirTemp("", "api")) // the path of a socket must be short
	a := &fakeAgent{t: t, socket: filepath.Join(dir, "s"), send: make(chan any, 8)}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return a
}

func (a *fakeAgent) start() {
	a.t.Helper()
	l := must(net.Listen("unix", a.socket))
	server := grpc.NewServer()
	a.server = server
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	go server.Serve(l)
	a.t.Cleanup(server.Stop)
}

func (a *fakeAgent) FetchX509SVID(_ *workload.X509SVIDRequest, s grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "security header missing")
	}
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case m := <-a.send:
			switch m := m.(type) {
			case error:
				return m
			case *workload.X509SVIDResponse:
				if err := s.Send(m); err != nil {
					return err
				}
			}
		}
	}
}

// svid returns what the API says of a certificate.
func svid(id string, p PEM) *workload.X509SVID {
	return &workload.X509SVID{SpiffeId: id, X509Svid: ders(p.Chain), X509SvidKey: ders(p.Key), Bundle: ders(p.Roots)}
}

// ders puts the contents of PEM blocks end to end.
func ders(text []byte) (der []byte) {
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			return der
		}
		der, text = append(der, b.Bytes...), rest
	}
}

// A testAPIWatch watches a fakeAgent.
type testAPIWatch struct {
	t        *testing.T
	c        *Certificates
	problems chan error
}

func watchAgent(t *testing.T, a *fakeAgent) *testAPIWatch {
	w := &testAPIWatch{t: t, problems: make(chan error, 16)}
	w.c = must(NewCertificates(CertificatesOptions{TrustDomains: []string{"theirs.example"}, OnProblem: func(err error) { w.problems <- err }}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- WorkloadAPI{Addr: "unix://" + a.socket}.Watch(ctx, w.c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: got %v, want nil when its context ends", err)
		}
	})
	return w
}

func (w *testAPIWatch) wantSwap(name string, change func()) {
	w.t.Helper()
	changed := w.c.Changed()
	change()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		w.t.Fatalf("%s: no swap", name)
	}
}

func (w *testAPIWatch) wantProblem(name string, change func(), words string) {
	w.t.Helper()
	before := w.c.Current()
	change()
	select {
	case err := <-w.problems:
		if !strings.Contains(err.Error(), words) || !strings.HasPrefix(err.Error(), "SPIFFE Workload API \"unix://") {
			w.t.Errorf("%s: got %v, want the API and %q in it", name, err, words)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("%s: no problem", name)
	}
	if w.c.Current() != before {
		w.t.Errorf("%s: the current set was not kept", name)
	}
}

func TestWorkloadAPI(t *testing.T) {
	root, theirs := must(devca.New("root")), must(devca.New("theirs"))
	a := newAgent(t)
	answer := func(svids ...*workload.X509SVID) {
		a.send <- &workload.X509SVIDResponse{Svids: svids, FederatedBundles: map[string][]byte{"spiffe://theirs.example": theirs.Cert.Raw}}
	}
	w := watchAgent(t, a)
	w.wantProblem("not there yet", func() {}, "see that the agent runs")
	if w.c.Current() != nil {
		t.Fatal("there is a set")
	}

	first := issued(must(root.Intermediate("mid")), wayURI)
	w.wantSwap("first", func() {
		a.start()
		answer(svid("spiffe://cluster.local/other/form", issued(root, "spiffe://cluster.local/other/form")), svid(wayURI, first))
	})
	cr := w.c.Current()
	if cr.ID != testID(wayURI) || cr.Serial != must(ParsePEM(first)).Serial {
		t.Errorf("got %v, serial %s", cr.ID, cr.Serial)
	}
	server := w.c.ServerConfig()
	for name, r := range map[string]struct {
		ca     *devca.CA
		id     string
		reason TLSReason
	}{
		"ours":                 {root, curlURI, TLSOther},
		"federated":            {theirs, "spiffe://theirs.example/ns/a/sa/b", TLSOther},
		"theirs in our domain": {theirs, curlURI, TLSUnknownAuthority},
	} {
		s, c := shake(t, server, raw(issued(r.ca, r.id)))
		if r.reason != TLSOther {
			wantReason(t, name, s.err, r.reason, "not among the roots")
		} else if s.err != nil || c.err != nil {
			t.Errorf("%s: got %v, %v", name, s.err, c.err)
		}
	}

	second := issued(root, wayURI)
	w.wantSwap("rotation", func() { answer(svid(wayURI, second)) })
	if got, want := w.c.Current().Serial, must(ParsePEM(second)).Serial; got != want {
		t.Errorf("got serial %s, want %s", got, want)
	}
	w.wantProblem("no identity of ours", func() {
		answer(svid("spiffe://cluster.local/x", issued(root, "spiffe://cluster.local/x")))
	}, "register the workload with an ID of that form")
	w.wantProblem("another's root", func() {
		p := issued(root, wayURI)
		p.Roots = theirs.PEM()
		answer(svid(wayURI, p))
	}, "not among the roots")
	w.wantProblem("no sense", func() { a.send <- &workload.X509SVIDResponse{} }, "no SVIDs in response")
	w.wantSwap("sense again", func() { answer(svid(wayURI, second)) })
}

// A certificate outlives its source, but not its own end.
func TestWorkloadAPIAway(t *testing.T) {
	root := must(devca.New("root"))
	a := newAgent(t)
	a.start()
	w := watchAgent(t, a)
	w.wantSwap("first", func() {
		a.send <- &workload.X509SVIDResponse{Svids: []*workload.X509SVID{svid(wayURI, issued(root, wayURI))}}
	})
	curl := holding(issued(root, curlURI), CertificatesOptions{}).ClientConfig([]peer.ID{testID(wayURI)})

	w.wantProblem("away", a.server.Stop, "see that the agent runs")
	if s, c := shake(t, w.c.ServerConfig(), curl); s.err != nil || c.err != nil {
		t.Errorf("away: got %v, %v, want the certificate to be kept", s.err, c.err)
	}
	late := must(NewCertificates(CertificatesOptions{}))
	late.Set(w.c.Current())
	late.now = func() time.Time { return w.c.Current().NotAfter.Add(time.Second) }
	s, _ := shake(t, late.ServerConfig(), curl)
	wantReason(t, "away for too long", s.err, TLSOwnCertificate, "has not been renewed")

	next := issued(root, wayURI)
	w.wantSwap("back", func() {
		a.start()
		a.send <- &workload.X509SVIDResponse{Svids: []*workload.X509SVID{svid(wayURI, next)}}
	})
	if got, want := w.c.Current().Serial, must(ParsePEM(next)).Serial; got != want {
		t.Errorf("got serial %s, want %s", got, want)
	}
	// One that cancels, as some do when they shut down, is asked again.
	w.wantProblem("cancelled", func() { a.send <- status.Error(codes.Canceled, "shutting down") }, "shutting down")
	w.wantSwap("asked again", func() {
		a.send <- &workload.X509SVIDResponse{Svids: []*workload.X509SVID{svid(wayURI, next)}}
	})
}

func TestWorkloadAPIBadAddress(t *testing.T) {
	c := must(NewCertificates(CertificatesOptions{}))
	for addr, words := range map[string]string{
		"http://localhost": "give an address such as unix:///",
		"unix:relative":    "give an address such as unix:///",
		"":                 "give an address such as unix:///",
	} {
		t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := (WorkloadAPI{Addr: addr}).Watch(ctx, c); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: got %v, want an error with %q", addr, err, words)
		}
		cancel()
	}
}
