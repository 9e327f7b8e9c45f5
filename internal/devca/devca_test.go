package devca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"
)

const curl = "spiffe://cluster.local/ns/demo/sa/curl"

func TestIssue(t *testing.T) {
	root, err := New("root")
	if err != nil {
		t.Fatal(err)
	}
	mid, err := root.Intermediate("mid")
	if err != nil {
		t.Fatal(err)
	}
	if mid.Root() != root || root.Root() != root {
		t.Error("Root is not the root")
	}
	leaf, err := mid.Issue([]string{curl})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(pair.Certificate), 2; got != want {
		t.Errorf("got a chain of %d, want %d", got, want)
	}
	if got := leaf.Cert.URIs[0].String(); got != curl {
		t.Errorf("got identity %s, want %s", got, curl)
	}
	mids := x509.NewCertPool()
	mids.AppendCertsFromPEM(leaf.Chain)
	verify := func(ca *CA, use x509.ExtKeyUsage) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.PEM())
		_, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: mids, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if err := verify(root, use); err != nil {
			t.Error(err)
		}
	}
	other, err := New("root")
	if err != nil {
		t.Fatal(err)
	}
	if verify(other, x509.ExtKeyUsageClientAuth) == nil {
		t.Error("a root of the same name vouches for the certificate")
	}
	past, err := root.Issue([]string{curl}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	if err != nil || !past.Cert.NotAfter.Before(time.Now()) {
		t.Errorf("got %v, %v, want a certificate that has expired", past, err)
	}
}

func TestCRL(t *testing.T) {
	root, err := New("root")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := root.Issue([]string{curl})
	if err != nil {
		t.Fatal(err)
	}
	p, err := root.CRL(7, leaf.Cert)
	if err != nil {
		t.Fatal(err)
	}
	b, rest := pem.Decode(p)
	if b == nil || b.Type != "X509 CRL" || len(rest) > 0 {
		t.Fatalf("got %q, want one X509 CRL", p)
	}
	l, err := x509.ParseRevocationList(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignatureFrom(root.Cert); err != nil {
		t.Error(err)
	}
	if l.Number.Int64() != 7 || len(l.RevokedCertificateEntries) != 1 || l.RevokedCertificateEntries[0].SerialNumber.Cmp(leaf.Cert.SerialNumber) != 0 {
		t.Errorf("got number %v and %v", l.Number, l.RevokedCertificateEntries)
	}
}
