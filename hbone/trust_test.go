package hbone

import (
	"crypto/x509"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// TestRevokedWhileConnected: a change of certificates ends the connections of
// those that would not be let in any more, at both ends, and no others.
func TestRevokedWhileConnected(t *testing.T) {
	s := newServer(t)
	addr := s.mesh()
	own := issued(s.ca, wayURI)
	bad, good := must(s.ca.Issue([]string{curlURI})), must(s.ca.Issue([]string{curlURI}))
	use := func(chain, key []byte) *Certificates {
		return holding(PEM{Chain: chain, Key: key, Roots: s.ca.PEM()}, CertificatesOptions{})
	}
	revoked, kept := dialMesh(t, addr, use(bad.Chain, bad.Key)), dialMesh(t, addr, use(good.Chain, good.Key))
	for _, tc := range []*testConn{revoked, kept} {
		tc.connect(1, "10.0.0.7:8080")
		tc.wantStatus(1, 200, false)
	}
	first := s.tunnel()
	s.certs.Set(must(ParsePEM(own))) // a renewal alone ends nothing
	revoked.wantQuiet()
	kept.wantQuiet()

	crl := own
	crl.CRL = must(s.ca.CRL(1, bad.Cert))
	s.certs.Set(must(ParsePEM(crl)))
	revoked.wantGoAway(1, http2.ErrCodeNo, "has been revoked")
	revoked.wantEOF()
	first.closed()
	s.wantFault("has been revoked", bad.Cert.SerialNumber.Text(16))
	wantCount(t, "Distrusted", s.Stats().Distrusted.Load, 1)
	kept.wantQuiet()
	revoked.nc.Close()
	wantCount(t, "Conns", s.Stats().Conns.Load, 1)
}

// TestNodeRevoked: the same for node tunnels that the pool has connected to.
func TestNodeRevoked(t *testing.T) {
	s := newServer(t)
	leaf := must(s.ca.Issue([]string{wayURI}, func(c *x509.Certificate) {}))
	s.certs.Set(must(ParsePEM(PEM{Chain: leaf.Chain, Key: leaf.Key, Roots: s.ca.PEM()})))
	mine := issued(s.ca, curlURI)
	certs := holding(mine, CertificatesOptions{})
	p := newPool(t, certs)
	d := dest(s.mesh(), wayURI)
	h := p.open(d)
	h.want("opened")
	mine.CRL = slices.Concat(must(s.ca.CRL(1, leaf.Cert)))
	certs.Set(must(ParsePEM(mine)))
	if err := h.closed(); err == nil {
		t.Error("the tunnel ended in order")
	}
	wantCount(t, "Distrusted", p.Stats().Distrusted.Load, 1)
	wantCount(t, "Conns", p.Stats().Conns.Load, 0)
	if e := wantError[*HandshakeError](t, p.open(d).closed(), "has been revoked"); ReasonOf(e) != TLSRevoked {
		t.Errorf("got reason %v", ReasonOf(e))
	}
	mine.CRL = nil
	certs.Set(must(ParsePEM(mine)))
	p.open(d).want("opened")
}

// TestChangedMeanwhile: a change between a handshake and the first look at the
// connection is not missed.
func TestChangedMeanwhile(t *testing.T) {
	s := newServer(t)
	mine := issued(s.ca, curlURI)
	certs := holding(mine, CertificatesOptions{})
	p := newPool(t, certs)
	h := p.open(dest(s.mesh(), wayURI))
	h.want("opened")
	conns, _ := p.group(dest(s.tunnel().tun.Peer().Local.String(), wayURI)).current()
	if c := conns[0]; c.trusted != certs.Current() {
		t.Errorf("the connection remembers %p, want the set of its handshake %p", c.trusted, certs.Current())
	}
	if c := s.meshConns()[0]; c.trusted != s.certs.Current() {
		t.Errorf("the server's connection remembers %p, want %p", c.trusted, s.certs.Current())
	}
}
