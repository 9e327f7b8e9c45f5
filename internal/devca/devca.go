package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// How long things last unless the caller says otherwise. Certificates begin
// two minutes early, as Istio's do, for clocks that are behind.
const (
	caValidity   = 365 * 24 * time.Hour
	leafValidity = 30 * 24 * time.Hour
	skew         = 2 * time.Minute
)

// A CA signs certificates: a root, or an intermediate under one.
type CA struct {
	Cert *x509.Certificate

	key    *ecdsa.PrivateKey
	parent *CA // nil for a root
}

// New makes a root. Roots of the same name have the same subject and different
// keys, as after a rotation.
func New(name string) (*CA, error) {
	return newCA(name, nil)
}

// Intermediate makes a CA under c.
func (c *CA) Intermediate(name string) (*CA, error) {
	return newCA(name, c)
}

func newCA(name string, parent *CA) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"throw-away"}, CommonName: name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	signer, signerKey := t, key
	if parent != nil {
		signer, signerKey = parent.Cert, parent.key
	}
	cert, err := create(t, signer, key, signerKey)
	if err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", name, err)
	}
	return &CA{Cert: cert, key: key, parent: parent}, nil
}

func create(t, signer *x509.Certificate, key, signerKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, signer, &key.PublicKey, signerKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns a random number of 127 bits: positive, and never twice.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// PEM returns c's own certificate.
func (c *CA) PEM() []byte { return encode("CERTIFICATE", c.Cert.Raw) }

// Root returns the root above c, or c itself.
func (c *CA) Root() *CA {
	for c.parent != nil {
		c = c.parent
	}
	return c
}

// A Leaf is a workload's certificate with its key.
type Leaf struct {
	Cert  *x509.Certificate
	Chain []byte // PEM: the certificate and the intermediates, without the root
	Key   []byte // PEM, PKCS #8
}

// Issue makes a certificate for the identities given, good for both ends of
// mutual TLS. Each edit may change it before it is signed.
func (c *CA) Issue(ids []string, edit ...func(*x509.Certificate)) (*Leaf, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(leafValidity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", id, err)
		}
		t.URIs = append(t.URIs, u)
	}
	for _, e := range edit {
		e(t)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	l := &Leaf{}
	if l.Cert, err = create(t, c.Cert, key, c.key); err != nil {
		return nil, fmt.Errorf("certificate for %v: %w", ids, err)
	}
	l.Chain = encode("CERTIFICATE", l.Cert.Raw)
	for ca := c; ca.parent != nil; ca = ca.parent {
		l.Chain = append(l.Chain, ca.PEM()...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	l.Key = encode("PRIVATE KEY", der)
	return l, nil
}

// CRL returns a revocation list, in PEM, that names the certificates given.
// Lists of a CA are told apart by their number.
func (c *CA) CRL(number int64, revoked ...*x509.Certificate) ([]byte, error) {
	now := time.Now()
	t := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-skew), NextUpdate: now.Add(caValidity)}
	for _, r := range revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, c.Cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("revocation list of %s: %w", c.Cert.Subject.CommonName, err)
	}
	return encode("X509 CRL", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
