package hbone

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// A crl is what revocation lists say: which certificates of which authorities
// are no longer to be trusted. Nil revokes nothing.
type crl struct {
	revoked    map[revocation]struct{}
	nextUpdate time.Time // the earliest of the lists; zero if none says so
}

// A revocation names a certificate as lists do (RFC 5280, section 5.1.2.6).
type revocation struct {
	issuer string // DER of the issuer's name
	serial string
}

// newCRL reads complete lists. A list of an authority that is known must carry
// its signature. One of an authority that is not, such as an intermediate that
// only peers present, is taken as it is: whoever can write the list could also
// have written the roots.
func newCRL(lists []*x509.RevocationList, known []*x509.Certificate) (*crl, error) {
	if len(lists) == 0 {
		return nil, nil
	}
	c := &crl{revoked: map[revocation]struct{}{}}
	for _, l := range lists {
		if err := c.add(l, known); err != nil {
			return nil, fmt.Errorf("list of %q: %w", l.Issuer, err)
		}
	}
	return c, nil
}

func (c *crl) add(l *x509.RevocationList, known []*x509.Certificate) error {
	if err := signedBy(l, known); err != nil {
		return err
	}
	for _, e := range l.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 27}) { // section 5.2.4
			return errors.New("it holds changes only (a delta list)")
		}
	}
	for _, r := range l.RevokedCertificateEntries {
		for _, e := range r.Extensions {
			if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 29}) { // section 5.3.3
				return errors.New("it speaks for other authorities (an indirect list)")
			}
		}
		c.revoked[revocation{string(l.RawIssuer), string(r.SerialNumber.Bytes())}] = struct{}{}
	}
	if !l.NextUpdate.IsZero() && (c.nextUpdate.IsZero() || l.NextUpdate.Before(c.nextUpdate)) {
		c.nextUpdate = l.NextUpdate
	}
	return nil
}

// signedBy checks l's signature if its authority is known. Two authorities may
// have one name, as after a rotation, so their key identifiers count.
func signedBy(l *x509.RevocationList, known []*x509.Certificate) error {
	var last error
	for _, ca := range known {
		if !bytes.Equal(ca.RawSubject, l.RawIssuer) || len(l.AuthorityKeyId) > 0 && len(ca.SubjectKeyId) > 0 && !bytes.Equal(ca.SubjectKeyId, l.AuthorityKeyId) {
			continue
		}
		if last = l.CheckSignatureFrom(ca); last == nil {
			return nil
		}
	}
	if last != nil {
		return fmt.Errorf("its signature is wrong: %w", last)
	}
	return nil
}

// first returns the first certificate of a chain that is revoked; the root at
// its end is trusted because we were told so.
func (c *crl) first(chain []*x509.Certificate) *x509.Certificate {
	if c == nil {
		return nil
	}
	for _, cert := range chain[:len(chain)-1] {
		if _, ok := c.revoked[revocation{string(cert.RawIssuer), string(cert.SerialNumber.Bytes())}]; ok {
			return cert
		}
	}
	return nil
}

// stale returns when the lists ought to have been replaced, zero while they
// need not be. Stale lists still hold: nothing is ever un-revoked by time.
func (c *crl) stale(now time.Time) time.Time {
	if c == nil || c.nextUpdate.IsZero() || now.Before(c.nextUpdate) {
		return time.Time{}
	}
	return c.nextUpdate
}
