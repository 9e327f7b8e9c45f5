package hbone

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
)

// A WorkloadAPI is a set kept by a SPIFFE Workload API, such as SPIRE's agent.
// The certificate is the first one whose ID has the mesh's form. Each trust
// domain is verified with its own bundle.
type WorkloadAPI struct {
	// Addr is where the API listens, as in unix:///run/spire/agent.sock. If it
	// is empty the environment variable SPIFFE_ENDPOINT_SOCKET says so.
	Addr string
}

// rewatch is the wait after a watch that the API cancelled; while the API
// cannot be reached go-spiffe waits one to thirty seconds.
const rewatch = time.Second

// Watch keeps c current until ctx ends, and returns nil then. It returns an
// error only for an address that can never be dialled. While the API is away,
// or what it sends is no use, the current set stays.
func (a WorkloadAPI) Watch(ctx context.Context, c *Certificates) error {
	w := &apiWatch{ctx: ctx, c: c, addr: a.Addr}
	var options []workloadapi.ClientOption
	if a.Addr == "" {
		w.addr = os.Getenv(workloadapi.SocketEnv)
	} else {
		options = append(options, workloadapi.WithAddr(a.Addr))
	}
	client, err := workloadapi.New(ctx, options...)
	if err != nil {
		return w.problem(err, "give an address such as unix:///run/spire/agent.sock")
	}
	defer client.Close()
	for ctx.Err() == nil {
		// It gives up when the API cancels, as one that shuts down may.
		_ = client.WatchX509Context(ctx, w) // w has heard the error
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
	return nil
}

// An apiWatch is called from the goroutine that called Watch.
type apiWatch struct {
	ctx      context.Context // ends the watch; what fails then is no problem
	c        *Certificates
	addr     string
	reported string // the last problem told
}

func (w *apiWatch) problem(err error, advice string) error {
	return &SourceError{fmt.Sprintf("SPIFFE Workload API %q", w.addr), err, advice}
}

// report tells of a problem, and not again until it is another one.
func (w *apiWatch) report(err error) {
	if s := err.Error(); s != w.reported {
		w.reported = s
		w.c.problem(err)
	}
}

// OnX509ContextUpdate takes a set that the API sent.
func (w *apiWatch) OnX509ContextUpdate(x *workloadapi.X509Context) {
	svid, err := ours(x.SVIDs)
	if err != nil {
		w.report(w.problem(err, "register the workload with an ID of that form"))
		return
	}
	m := material{chain: svid.Certificates, key: svid.PrivateKey, roots: map[string][]*x509.Certificate{}}
	for _, b := range x.Bundles.Bundles() {
		m.roots[b.TrustDomain().Name()] = b.X509Authorities()
	}
	cr, err := newCredentials(m, w.c.now())
	if err != nil {
		advice := ""
		if e, ok := errors.AsType[*partError](err); ok {
			err, advice = fmt.Errorf("%s: %w", e.part, e.err), e.advice
		}
		w.report(w.problem(err, advice))
		return
	}
	w.reported = ""
	w.c.Set(cr)
}

// ours picks the certificate whose ID has the mesh's form.
func ours(svids []*x509svid.SVID) (*x509svid.SVID, error) {
	err := errors.New("no certificate was sent")
	for _, s := range svids {
		if _, err = peer.ParseID(s.ID.String()); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// OnX509ContextWatchError tells of an API that is away.
func (w *apiWatch) OnX509ContextWatchError(err error) {
	if w.ctx.Err() != nil {
		return
	}
	w.report(w.problem(err, "see that the agent runs, its socket is mounted and the workload is registered; a current certificate is kept until it expires"))
}
