package hbone

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// PEM is a set as text.
type PEM struct {
	Chain []byte // the workload's certificate, then its intermediates
	Key   []byte // PKCS #8, SEC 1 (EC) or PKCS #1 (RSA), not encrypted
	Roots []byte // one or more authorities
	CRL   []byte // revocation lists; may be empty
}

// ParsePEM returns the set if it is whole and valid now.
func ParsePEM(p PEM) (*Credentials, error) { return parsePEM(p, time.Now()) }

func parsePEM(p PEM, now time.Time) (*Credentials, error) {
	var m material
	var err error
	if m.chain, err = certificates(p.Chain); err != nil {
		return nil, &partError{partChain, err, "give PEM blocks of type CERTIFICATE, the workload's own first"}
	}
	if m.key, err = privateKey(p.Key); err != nil {
		return nil, &partError{partKey, err, "give a PEM block of type PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY"}
	}
	roots, err := certificates(p.Roots)
	if err != nil {
		return nil, &partError{partRoots, err, "give PEM blocks of type CERTIFICATE, one for each authority"}
	}
	m.roots = map[string][]*x509.Certificate{anyDomain: roots}
	if m.lists, err = revocationLists(p.CRL); err != nil {
		return nil, &partError{partCRL, err, "give PEM blocks of type X509 CRL"}
	}
	return newCredentials(m, now)
}

// blocks calls f for each PEM block. What stands between blocks is ignored, as
// everywhere; text that begins a block and does not end it is an error.
func blocks(text []byte, f func(*pem.Block) error) error {
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			if strings.Contains(string(text), "-----BEGIN") {
				return errors.New("a PEM block is cut short or damaged")
			}
			return nil
		}
		if err := f(b); err != nil {
			return err
		}
		text = rest
	}
}

// certificates reads certificates and passes over other blocks: a key and its
// chain are often kept in one file.
func certificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	err := blocks(text, func(b *pem.Block) error {
		if b.Type != "CERTIFICATE" {
			return nil
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
		return nil
	})
	if err == nil && len(certs) == 0 {
		err = errors.New("no certificate in PEM form")
	}
	return certs, err
}

// privateKey reads the first key and passes over other blocks, such as the
// EC PARAMETERS that openssl writes.
func privateKey(text []byte) (key crypto.PrivateKey, err error) {
	err = blocks(text, func(b *pem.Block) (err error) {
		if key != nil {
			return nil
		}
		switch b.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(b.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			err = errors.New("the key is encrypted, and there is nobody to ask for its password")
		}
		return err
	})
	if err == nil && key == nil {
		err = errors.New("no private key in PEM form")
	}
	return key, err
}

func revocationLists(text []byte) ([]*x509.RevocationList, error) {
	var lists []*x509.RevocationList
	err := blocks(text, func(b *pem.Block) error {
		if b.Type != "X509 CRL" {
			return fmt.Errorf("a PEM block of type %q", b.Type)
		}
		l, err := x509.ParseRevocationList(b.Bytes)
		if err != nil {
			return fmt.Errorf("list %d: %w", len(lists)+1, err)
		}
		lists = append(lists, l)
		return nil
	})
	return lists, err
}
