package interop

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// A mesh is a certificate authority whose files programs read. It issues from
// an intermediate, as cluster authorities do, so every peer must send its chain
// and verify one.
type mesh struct {
	dir    string
	issuer *devca.CA
	root   string // file
}

// A leaf is a certificate with its key, as files.
type leaf struct{ id, cert, key string }

func newMesh(t *testing.T) *mesh {
	t.Helper()
	root, err := devca.New("interop")
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{dir: folder(t)}
	if m.issuer, err = root.Intermediate("interop-issuer"); err != nil {
		t.Fatal(err)
	}
	m.root = writeFile(t, filepath.Join(m.dir, "root.pem"), string(root.PEM()))
	return m
}

// id is the identity of a service account.
func (m *mesh) id(name string) string { return "spiffe://cluster.local/ns/demo/sa/" + name }

// leaf issues a certificate for a service account.
func (m *mesh) leaf(t *testing.T, name string) leaf {
	t.Helper()
	l, err := m.issuer.Issue([]string{m.id(name)})
	if err != nil {
		t.Fatal(err)
	}
	return leaf{
		id:   m.id(name),
		cert: writeFile(t, filepath.Join(m.dir, name+".pem"), string(l.Chain)),
		key:  writeFile(t, filepath.Join(m.dir, name+".key"), string(l.Key)),
	}
}

// clientTLS is what an honest client of the mesh would use, but for the name
// of the server, which these tests do not look at.
func (m *mesh) clientTLS(t *testing.T, name string) *tls.Config {
	t.Helper()
	l := m.leaf(t, name)
	pair, err := tls.LoadX509KeyPair(l.cert, l.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(m.issuer.Root().Cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair},
		InsecureSkipVerify: true, // SPIFFE certificates name no host; the chain is verified below
		VerifyConnection: func(cs tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between})
			return err
		},
	}
}
