package hbone

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
)

const alpn = "h2"

// Limits of what a peer may present, looked at before any signature is: path
// building is the costly part.
const (
	maxChain      = 10       // certificates
	maxChainBytes = 64 << 10 // all together
)

// A PeerCertificate is what a finished handshake proved about the other end.
type PeerCertificate struct {
	ID       peer.ID   // the first URI SAN that is an identity
	NotAfter time.Time // when the certificate ends, and the connection with it
	Serial   string    // its serial number, in hexadecimal

	chain []*x509.Certificate // as presented
}

func (p *PeerCertificate) expired() error {
	return tlsErrorf(TLSExpired, "peer certificate of %s expired at %s", p.ID, stamp(p.NotAfter))
}

// PeerOf returns what the handshake behind cs proved, for a connection whose
// configuration came from Certificates.
func PeerOf(cs tls.ConnectionState) (*PeerCertificate, error) {
	if cs.NegotiatedProtocol != alpn {
		return nil, tlsErrorf(TLSNoALPN, "the peer negotiated no HTTP/2: it must offer ALPN %q", alpn)
	}
	if len(cs.PeerCertificates) == 0 {
		return nil, tlsErrorf(TLSNoCertificate, "the peer presented no certificate")
	}
	leaf := cs.PeerCertificates[0]
	ids, err := identities(leaf)
	if err != nil {
		return nil, &TLSError{TLSBadCertificate, fmt.Errorf("peer certificate: %w", err)}
	}
	return &PeerCertificate{ID: ids[0], NotAfter: leaf.NotAfter, Serial: leaf.SerialNumber.Text(16), chain: cs.PeerCertificates}, nil
}

// Recheck says whether a peer that was accepted would still be, as far as
// roots, revocation and time go; the error says why not.
func (c *Certificates) Recheck(p *PeerCertificate) error {
	cr := c.current.Load()
	if cr == nil {
		return tlsErrorf(TLSOwnCertificate, "this end has no certificate yet")
	}
	return c.checkChain(cr, p, x509.ExtKeyUsageAny)
}

// verifyClient decides about a client: identity of our trust domain or an
// alias, chain to a root.
func (c *Certificates) verifyClient(cs tls.ConnectionState) error {
	cr, err := c.own()
	if err != nil {
		return err
	}
	p, err := PeerOf(cs)
	if err != nil {
		return err
	}
	if td, own := p.ID.TrustDomain(), cr.ID.TrustDomain(); td != own && !slices.Contains(c.TrustDomains, td) {
		return tlsErrorf(TLSWrongTrustDomain, "peer certificate is for trust domain %q (%s), want %q or an alias", td, p.ID, own)
	}
	return c.checkChain(cr, p, x509.ExtKeyUsageClientAuth)
}

// verifyServer decides about a server: one of the expected identities, chain
// to a root.
func (c *Certificates) verifyServer(cs tls.ConnectionState, expected []peer.ID) error {
	cr, err := c.own()
	if err != nil {
		return err
	}
	p, err := PeerOf(cs)
	if err != nil {
		return err
	}
	ids, err := identities(p.chain[0])
	if err != nil {
		return &TLSError{TLSBadCertificate, fmt.Errorf("peer certificate: %w", err)}
	}
	if !slices.ContainsFunc(ids, func(id peer.ID) bool { return slices.Contains(expected, id) }) {
		return tlsErrorf(TLSWrongIdentity, "peer certificate is for %s, want %s", listIDs(ids), listIDs(expected))
	}
	return c.checkChain(cr, p, x509.ExtKeyUsageServerAuth)
}

// listIDs writes identities for an error, the first few of them.
func listIDs(ids []peer.ID) string {
	const few = 3
	var s []string
	for _, id := range ids[:min(few, len(ids))] {
		s = append(s, id.String())
	}
	switch {
	case len(ids) == 0:
		return "none, as no identity is expected there"
	case len(ids) > few:
		s = append(s, fmt.Sprintf("%d others", len(ids)-few))
	}
	return strings.Join(s, " or ")
}

// checkChain verifies what p presented against the roots of its trust domain,
// and that nothing of it is revoked.
func (c *Certificates) checkChain(cr *Credentials, p *PeerCertificate, use x509.ExtKeyUsage) error {
	chains, err := cr.chains(p.chain, use, c.now())
	if err != nil {
		return &TLSError{ReasonOf(err), fmt.Errorf("peer certificate of %s: %w", p.ID, err)}
	}
	var revoked *x509.Certificate
	for _, chain := range chains {
		if revoked = cr.crl.first(chain); revoked == nil {
			return nil
		}
	}
	if revoked == p.chain[0] {
		return tlsErrorf(TLSRevoked, "peer certificate of %s (serial %s) has been revoked", p.ID, p.Serial)
	}
	return tlsErrorf(TLSRevoked, "peer certificate of %s: its authority %q (serial %s) has been revoked", p.ID, revoked.Subject, revoked.SerialNumber.Text(16))
}

// chains returns the ways from certs[0] to a root of its trust domain that are
// valid for use (RFC 5280, section 6; X509-SVID, sections 4 and 5).
func (cr *Credentials) chains(certs []*x509.Certificate, use x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	total := 0
	for _, c := range certs {
		total += len(c.Raw)
	}
	if len(certs) > maxChain || total > maxChainBytes {
		return nil, tlsErrorf(TLSBadCertificate, "a chain of %d certificates and %d bytes, at most %d and %d are accepted", len(certs), total, maxChain, maxChainBytes)
	}
	leaf := certs[0]
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return nil, tlsErrorf(TLSBadCertificate, "it is an authority's certificate, not a workload's")
	}
	ids, err := identities(leaf)
	if err != nil {
		return nil, &TLSError{TLSBadCertificate, err}
	}
	td := ids[0].TrustDomain()
	roots := cr.roots[td]
	if roots == nil {
		roots = cr.roots[anyDomain]
	}
	if roots == nil { // without this crypto/x509 would take the system's
		return nil, tlsErrorf(TLSUnknownAuthority, "no roots are known for trust domain %q", td)
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return nil, chainError(leaf, err, now)
	}
	return chains, nil
}

// chainError says in our words why crypto/x509 refused.
func chainError(leaf *x509.Certificate, err error, now time.Time) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &TLSError{TLSUnknownAuthority, fmt.Errorf("signed by an authority that is not among the roots: %w", err)}
	}
	ie, ok := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case ok && ie.Reason == x509.Expired && now.Before(leaf.NotBefore):
		return tlsErrorf(TLSExpired, "not valid before %s; a clock may be wrong", stamp(leaf.NotBefore))
	case ok && ie.Reason == x509.Expired:
		return tlsErrorf(TLSExpired, "expired at %s", stamp(leaf.NotAfter))
	case ok && ie.Reason == x509.IncompatibleUsage:
		return tlsErrorf(TLSBadCertificate, "its extended key usage does not allow this end of a connection")
	}
	return &TLSError{TLSBadCertificate, err}
}

// identities returns the URI SANs that are identities, at least one. They are
// read as they were signed: net/url would forgive what an ID may not have.
func identities(c *x509.Certificate) ([]peer.ID, error) {
	var ids []peer.ID
	var first string
	for _, e := range c.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &names); err != nil {
			return nil, fmt.Errorf("subject alternative names: %w", err)
		}
		for _, n := range names {
			if n.Class != asn1.ClassContextSpecific || n.Tag != 6 { // RFC 5280, section 4.2.1.6: URI
				continue
			}
			if first == "" {
				first = string(n.Bytes)
			}
			if id, err := peer.ParseID(string(n.Bytes)); err == nil {
				ids = append(ids, id)
			}
		}
	}
	switch {
	case len(ids) > 0:
		return ids, nil
	case first == "":
		return nil, errors.New("it names no SPIFFE ID; want a URI SAN spiffe://<trust domain>/ns/<namespace>/sa/<service account>")
	}
	_, err := peer.ParseID(first)
	return nil, err
}
