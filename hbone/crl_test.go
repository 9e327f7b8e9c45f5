package hbone

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// sanExtension holds one URI as it is.
func sanExtension(uri string) pkix.Extension {
	names := []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must(asn1.Marshal(names))}
}

func TestRevocation(t *testing.T) {
	root := must(devca.New("root"))
	mid := must(root.Intermediate("mid"))
	leaf, other := must(mid.Issue([]string{curlURI})), must(mid.Issue([]string{curlURI}))
	curl, spare := PEM{Chain: leaf.Chain, Key: leaf.Key}, PEM{Chain: other.Chain, Key: other.Key}
	own := issued(root, wayURI)

	way := holding(own, CertificatesOptions{})
	s, _ := shake(t, way.ServerConfig(), raw(curl))
	live, err := PeerOf(s.cs)
	if s.err != nil || err != nil {
		t.Fatalf("control: got %v, %v", s.err, err)
	}
	revoke := func(lists ...[]byte) {
		p := own
		p.CRL = slices.Concat(lists...)
		way.Set(must(ParsePEM(p)))
	}

	revoke(must(mid.CRL(1, leaf.Cert)), must(root.CRL(1)))
	s, _ = shake(t, way.ServerConfig(), raw(curl))
	wantReason(t, "revoked", s.err, TLSRevoked, "peer certificate of "+curlURI+" (serial "+live.Serial+") has been revoked")
	wantReason(t, "revoked, live connection", way.Recheck(live), TLSRevoked, "has been revoked")
	if s, _ = shake(t, way.ServerConfig(), raw(spare)); s.err != nil {
		t.Errorf("another certificate of that authority: %v", s.err)
	}

	revoke(must(root.CRL(2, mid.Cert)))
	s, _ = shake(t, way.ServerConfig(), raw(spare))
	wantReason(t, "authority revoked", s.err, TLSRevoked, "its authority")

	revoke(must(root.CRL(3, leaf.Cert, other.Cert))) // their serial numbers, another authority
	if err := way.Recheck(live); err != nil {
		t.Errorf("another authority's list: %v", err)
	}
	revoke()
	if err := way.Recheck(live); err != nil {
		t.Errorf("no list: %v", err)
	}
}

func TestRevocationListRefused(t *testing.T) {
	root, same := must(devca.New("root")), must(devca.New("root"))
	leaf := must(root.Issue([]string{curlURI}))
	known := []*x509.Certificate{root.Cert}
	parsed := func(pem []byte) *x509.RevocationList { return must(revocationLists(pem))[0] }
	good := func() *x509.RevocationList { return parsed(must(root.CRL(1, leaf.Cert))) }

	forged := good()
	forged.Signature = slices.Clone(forged.Signature)
	forged.Signature[8] ^= 1
	delta := good()
	delta.Extensions = append(delta.Extensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true})
	indirect := good()
	indirect.RevokedCertificateEntries[0].Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true}}
	for _, r := range []struct {
		name  string
		list  *x509.RevocationList
		words string
	}{{"forged", forged, "signature is wrong"}, {"delta", delta, "changes only"}, {"indirect", indirect, "other authorities"}} {
		if _, err := newCRL([]*x509.RevocationList{r.list}, known); err == nil || !strings.Contains(err.Error(), r.words) {
			t.Errorf("%s: got %v, want an error with %q", r.name, err, r.words)
		}
	}
	for name, list := range map[string]*x509.RevocationList{
		"as it should be":            good(),
		"namesake with another key":  parsed(must(same.CRL(1))),
		"authority that is not here": parsed(must(must(devca.New("else")).CRL(1))),
	} {
		if _, err := newCRL([]*x509.RevocationList{list}, known); err != nil {
			t.Errorf("control: %s: %v", name, err)
		}
	}
}

func TestRevocationListStale(t *testing.T) {
	root := must(devca.New("root"))
	c := must(newCRL(must(revocationLists(must(root.CRL(1)))), []*x509.Certificate{root.Cert}))
	if at := c.stale(time.Now()); !at.IsZero() {
		t.Errorf("fresh list: stale since %v", at)
	}
	if at := c.stale(c.nextUpdate.Add(time.Second)); !at.Equal(c.nextUpdate) {
		t.Errorf("old list: got %v, want %v", at, c.nextUpdate)
	}
	if at := (*crl)(nil).stale(time.Now()); !at.IsZero() {
		t.Errorf("no list: stale since %v", at)
	}
}
