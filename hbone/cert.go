package hbone

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
)

// Certificates hold what this end proves itself with and whom it trusts. The
// set is swapped whole while connections are made, so each handshake sees the
// certificates of its moment.
type Certificates struct {
	CertificatesOptions
	stats CertificatesStats
	now   func() time.Time

	current atomic.Pointer[Credentials]

	mu      sync.Mutex
	changed chan struct{} // closed at the next swap
}

// CertificatesOptions say what Certificates need to know; the zero value will do.
type CertificatesOptions struct {
	// TrustDomains lists trust domains besides our own whose workloads may
	// connect to us.
	TrustDomains []string
	// OnProblem hears of each set that was refused, and of sources that cannot
	// be read; what was current stays current. It may be called from any
	// goroutine.
	OnProblem func(error)
}

// CertificatesStats count what happened to certificates. They only grow.
type CertificatesStats struct {
	Swaps    atomic.Int64 // sets made current
	Problems atomic.Int64 // sets refused and sources that could not be read
}

// NewCertificates returns Certificates without a set: until the first one has
// come every handshake is refused.
func NewCertificates(o CertificatesOptions) (*Certificates, error) {
	for _, td := range o.TrustDomains {
		if err := peer.CheckTrustDomain(td); err != nil {
			return nil, fmt.Errorf("trust domain alias %q: %w", td, err)
		}
	}
	return &Certificates{CertificatesOptions: o, now: time.Now, changed: make(chan struct{})}, nil
}

// Current returns the current set, nil if there has been none.
func (c *Certificates) Current() *Credentials { return c.current.Load() }

// Stats returns the counters.
func (c *Certificates) Stats() *CertificatesStats { return &c.stats }

// Set makes a set current.
func (c *Certificates) Set(cr *Credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.Store(cr)
	c.stats.Swaps.Add(1)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next swap. To miss none, take
// the channel first and look at Current after; to end connections that are no
// longer trusted, ask Recheck for each.
func (c *Certificates) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *Certificates) problem(err error) {
	c.stats.Problems.Add(1)
	if c.OnProblem != nil {
		c.OnProblem(err)
	}
}

// Valid is nil while a handshake may begin with the current set.
func (c *Certificates) Valid() error {
	_, err := c.own()
	return err
}

// own returns the current set if a handshake may begin with it. An expired
// certificate fails closed, here and for both sides.
func (c *Certificates) own() (*Credentials, error) {
	cr := c.current.Load()
	switch now := c.now(); {
	case cr == nil:
		return nil, tlsErrorf(TLSOwnCertificate, "this end has no certificate yet")
	case now.After(cr.NotAfter):
		return nil, tlsErrorf(TLSOwnCertificate, "this end's own certificate (%s) expired at %s and has not been renewed", cr.ID, stamp(cr.NotAfter))
	case now.Before(cr.NotBefore):
		return nil, tlsErrorf(TLSOwnCertificate, "this end's own certificate (%s) is not valid before %s; a clock may be wrong", cr.ID, stamp(cr.NotBefore))
	}
	return cr, nil
}

// ServerConfig returns the TLS configuration for accepting mesh connections:
// TLS 1.3, ALPN h2, no session tickets, and a client certificate of our own
// trust domain or an alias.
func (c *Certificates) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{alpn},
		ClientAuth:                  tls.RequireAnyClientCert, // verified by VerifyConnection, against the roots of the moment
		SessionTicketsDisabled:      true,                     // a resumed session would outlive what was verified
		DynamicRecordSizingDisabled: true,
		Time:                        c.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cr, err := c.own()
			if err != nil {
				return nil, err
			}
			return &cr.cert, nil
		},
		VerifyConnection: c.verifyClient,
	}
}

// ClientConfig returns the TLS configuration for a mesh connection to one of
// the expected identities. No server name is sent: identities are compared,
// not names.
func (c *Certificates) ClientConfig(expected []peer.ID) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{alpn},
		InsecureSkipVerify:          true, // it would compare names; verifyServer verifies all the rest
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		Time:                        c.now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cr, err := c.own()
			if err != nil {
				return nil, err
			}
			return &cr.cert, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error { return c.verifyServer(cs, expected) },
	}
}

// Credentials are one complete set. They never change.
type Credentials struct {
	ID        peer.ID   // whom the certificate is for
	NotBefore time.Time // when the certificate begins
	NotAfter  time.Time // when it ends
	Serial    string    // its serial number, in hexadecimal

	cert  tls.Certificate
	roots map[string]*x509.CertPool // by trust domain; anyDomain is for those not listed
	crl   *crl
}

// anyDomain stands for trust domains that have no roots of their own.
const anyDomain = ""

// material is what credentials are made of.
type material struct {
	chain []*x509.Certificate // leaf first
	key   crypto.PrivateKey
	roots map[string][]*x509.Certificate
	lists []*x509.RevocationList
}

// A setPart names what is wrong with a set, so that a source can say where it
// came from.
type setPart string

const (
	partChain setPart = "certificate"
	partKey   setPart = "key"
	partRoots setPart = "roots"
	partCRL   setPart = "revocation list"
)

// A partError says what is wrong with a part and what to do about it.
type partError struct {
	part   setPart
	err    error
	advice string
}

func (e *partError) Error() string { return fmt.Sprintf("%s: %v; %s", e.part, e.err, e.advice) }
func (e *partError) Unwrap() error { return e.err }

// newCredentials checks that a set is whole: the key is the leaf's, the leaf
// names an identity and chains to a root for both ends of a connection.
func newCredentials(m material, now time.Time) (*Credentials, error) {
	if len(m.chain) == 0 {
		return nil, &partError{partChain, errors.New("no certificate"), "give the workload's certificate and then its intermediates"}
	}
	leaf := m.chain[0]
	if err := matches(leaf, m.key); err != nil {
		return nil, &partError{partKey, err, "replace certificate and key together"}
	}
	ids, err := identities(leaf)
	if err != nil {
		return nil, &partError{partChain, err, "have it issued with a URI SAN of that form"}
	}
	cr := &Credentials{
		ID: ids[0], NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Serial: leaf.SerialNumber.Text(16),
		cert:  tls.Certificate{PrivateKey: m.key, Leaf: leaf},
		roots: make(map[string]*x509.CertPool, len(m.roots)),
	}
	for _, c := range m.chain {
		cr.cert.Certificate = append(cr.cert.Certificate, c.Raw)
	}
	known := m.chain[1:]
	for td, certs := range m.roots {
		pool := x509.NewCertPool()
		for _, r := range certs {
			if !r.IsCA {
				return nil, &partError{partRoots, fmt.Errorf("%q is no CA certificate", r.Subject), "list only certificates of authorities"}
			}
			pool.AddCert(r)
		}
		cr.roots[td] = pool
		known = append(known[:len(known):len(known)], certs...)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cr.chains(m.chain, use, now); err != nil {
			return nil, &partError{partChain, err, chainAdvice(err)}
		}
	}
	if cr.crl, err = newCRL(m.lists, known); err != nil {
		return nil, &partError{partCRL, err, "give the complete list as its authority signed it"}
	}
	return cr, nil
}

func chainAdvice(err error) string {
	switch ReasonOf(err) {
	case TLSExpired:
		return "renew it, or set the clock right"
	case TLSUnknownAuthority:
		return "add the authority to the roots, or the intermediate to the certificate's chain"
	}
	return "have it issued for a workload, with key usage for both client and server"
}

// matches reports whether key is leaf's private key.
func matches(leaf *x509.Certificate, key crypto.PrivateKey) error {
	s, ok := key.(crypto.Signer)
	if !ok {
		return errors.New("no private key")
	}
	pub, ok := s.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(leaf.PublicKey) {
		return errors.New("the key does not belong to the certificate")
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
