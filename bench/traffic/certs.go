package traffic

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Certs are the files of one end's identity.
type Certs struct {
	Cert  string `json:",omitempty"`
	Key   string `json:",omitempty"`
	Roots string `json:",omitempty"`
}

// Pool returns the roots.
func (c Certs) Pool() (*x509.CertPool, error) {
	pem, err := os.ReadFile(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("load roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", c.Roots)
	}
	return roots, nil
}

// TLS returns what one end needs for mutual TLS as mesh connections have it:
// TLS 1.3, ALPN h2, the peer's chain checked and no name asked for.
func (c Certs) TLS() (server, client *tls.Config, err error) {
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("load certificate: %w", err)
	}
	roots, err := c.Pool()
	if err != nil {
		return nil, nil, err
	}
	server = &tls.Config{
		Certificates:                []tls.Certificate{cert},
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{"h2"},
		ClientAuth:                  tls.RequireAndVerifyClientCert,
		ClientCAs:                   roots,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
	client = &tls.Config{
		Certificates:                []tls.Certificate{cert},
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{"h2"},
		InsecureSkipVerify:          true, // mesh certificates have no DNS name: the chain is checked below
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("peer has no certificate")
			}
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		},
	}
	return server, client, nil
}
