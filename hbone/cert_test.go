package hbone

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/devca"
)

const (
	curlURI = "spiffe://cluster.local/ns/demo/sa/curl"
	wayURI  = "spiffe://cluster.local/ns/demo/sa/waypoint"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func testID(s string) peer.ID { return must(peer.ParseID(s)) }

// issued is a set for one workload, as text.
func issued(ca *devca.CA, id string, edit ...func(*x509.Certificate)) PEM {
	leaf := must(ca.Issue([]string{id}, edit...))
	return PEM{Chain: leaf.Chain, Key: leaf.Key, Roots: ca.Root().PEM()}
}

// holding returns certificates whose current set is p.
func holding(p PEM, o CertificatesOptions) *Certificates {
	c := must(NewCertificates(o))
	c.Set(must(ParsePEM(p)))
	return c
}

// raw returns a TLS configuration that presents p and checks nothing.
func raw(p PEM) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"}}
	if p.Chain != nil {
		pair := must(tls.X509KeyPair(p.Chain, p.Key))
		c.Certificates = []tls.Certificate{pair}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c
}

// An end is what one side of a handshake saw.
type end struct {
	cs  tls.ConnectionState
	err error
}

// shake makes a handshake and sends one byte each way, so that a client hears
// of a refusal that came after its own part.
func shake(t *testing.T, server, client *tls.Config) (s, c end) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	b := must(net.Dial("tcp", l.Addr().String()))
	a := must(l.Accept())
	deadline := time.Now().Add(10 * time.Second)
	run := func(tc *tls.Conn, nc net.Conn, done chan<- end) {
		defer nc.Close()
		_ = nc.SetDeadline(deadline)
		err := tc.Handshake()
		if err == nil {
			written := make(chan error, 1)
			go func() {
				_, err := tc.Write([]byte{1})
				written <- err
			}()
			if _, err = io.ReadFull(tc, make([]byte, 1)); err == nil {
				err = <-written // the other end reads before it closes
			}
		}
		done <- end{tc.ConnectionState(), err}
		_ = nc.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, nc) // or RST would overtake an alert
	}
	sd, cd := make(chan end, 1), make(chan end, 1)
	go run(tls.Server(a, server), a, sd)
	go run(tls.Client(b, client), b, cd)
	return <-sd, <-cd
}

// wantReason checks that an error has a reason and says so in words.
func wantReason(t *testing.T, name string, err error, reason TLSReason, words string) {
	t.Helper()
	var f TLSFaults
	if err == nil {
		t.Errorf("%s: accepted", name)
		return
	}
	e, ok := errors.AsType[*TLSError](f.Explain(err))
	if !ok || e.Reason != reason || !strings.Contains(e.Error(), words) {
		t.Errorf("%s: got %v: %v, want %v and %q", name, e.Reason, err, reason, words)
	}
	for r, n := range f.All() {
		if want := map[bool]int64{true: 1}[r == reason]; n != want {
			t.Errorf("%s: %v counted %d times, want %d", name, r, n, want)
		}
	}
}

func TestHandshake(t *testing.T) {
	root := must(devca.New("root"))
	mid := must(root.Intermediate("mid"))
	way := holding(issued(mid, wayURI), CertificatesOptions{})
	curl := holding(issued(root, curlURI), CertificatesOptions{})

	server := way.ServerConfig()
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName != "" {
			t.Errorf("a server name was sent: %q", h.ServerName)
		}
		if !slices.Equal(h.SupportedVersions, []uint16{tls.VersionTLS13}) || !slices.Equal(h.SupportedProtos, []string{"h2"}) {
			t.Errorf("offered versions %x and protocols %q, want TLS 1.3 and h2 alone", h.SupportedVersions, h.SupportedProtos)
		}
		return nil, nil
	}
	s, c := shake(t, server, curl.ClientConfig([]peer.ID{testID(wayURI)}))
	if s.err != nil || c.err != nil {
		t.Fatalf("got %v, %v", s.err, c.err)
	}
	for _, side := range []struct {
		name string
		end  end
		want *Credentials
	}{{"server", s, curl.Current()}, {"client", c, way.Current()}} {
		p, err := PeerOf(side.end.cs)
		if err != nil {
			t.Errorf("%s: %v", side.name, err)
			continue
		}
		if p.ID != side.want.ID || !p.NotAfter.Equal(side.want.NotAfter) || p.Serial != side.want.Serial {
			t.Errorf("%s: got %+v, want %v until %v", side.name, p, side.want.ID, side.want.NotAfter)
		}
		if v := side.end.cs.Version; v != tls.VersionTLS13 {
			t.Errorf("%s: got version %x, want TLS 1.3", side.name, v)
		}
	}
}

// Every client here differs from an accepted one in one thing.
func TestServerRefuses(t *testing.T) {
	root := must(devca.New("root"))
	mid := must(root.Intermediate("mid"))
	way := holding(issued(root, wayURI), CertificatesOptions{TrustDomains: []string{"alias.example"}})
	server := way.ServerConfig()

	rows := []struct {
		name   string
		client *tls.Config
		reason TLSReason
		words  string
	}{
		{"no certificate", raw(PEM{}), TLSNoCertificate, "presented no certificate"},
		{"other authority", raw(issued(must(devca.New("other")), curlURI)), TLSUnknownAuthority, "not among the roots"},
		{"other authority of that name", raw(issued(must(devca.New("root")), curlURI)), TLSUnknownAuthority, "not among the roots"},
		{"intermediate missing", raw(leafOnly(issued(mid, curlURI))), TLSUnknownAuthority, "not among the roots"},
		{"expired", raw(issued(root, curlURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), TLSExpired, "expired at"},
		{"not valid yet", raw(issued(root, curlURI, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })), TLSExpired, "not valid before"},
		{"other trust domain", raw(issued(root, "spiffe://other.example/ns/demo/sa/curl")), TLSWrongTrustDomain, `peer certificate is for trust domain "other.example" (spiffe://other.example/ns/demo/sa/curl), want "cluster.local" or an alias`},
		{"no identity", raw(issued(root, "https://curl.example/")), TLSBadCertificate, "want spiffe://"},
		{"no names at all", raw(issued(root, curlURI, func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"curl"} })), TLSBadCertificate, "names no SPIFFE ID"},
		{"identity of another form", raw(issued(root, "spiffe://cluster.local/workload/curl")), TLSBadCertificate, "want spiffe://"},
		{"empty fragment", raw(issued(root, curlURI, rawSAN(curlURI+"#"))), TLSBadCertificate, `'#'`},
		{"upper case scheme", raw(issued(root, curlURI, rawSAN("SPIFFE"+curlURI[6:]))), TLSBadCertificate, "want spiffe://"},
		{"key usage of servers only", raw(issued(root, curlURI, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), TLSBadCertificate, "extended key usage"},
		{"authority's certificate", raw(issued(root, curlURI, func(c *x509.Certificate) { c.IsCA = true })), TLSBadCertificate, "authority's certificate"},
		{"may sign certificates", raw(issued(root, curlURI, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })), TLSBadCertificate, "authority's certificate"},
		{"endless chain", raw(longer(issued(root, curlURI), root, 10)), TLSBadCertificate, "chain of 11 certificates"},
		{"huge chain", raw(issued(root, curlURI, padded(64<<10))), TLSBadCertificate, "at most 10 and 65536 are accepted"},
		{"no ALPN", edited(raw(issued(root, curlURI)), func(c *tls.Config) { c.NextProtos = nil }), TLSNoALPN, `ALPN "h2"`},
		{"other ALPN", edited(raw(issued(root, curlURI)), func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), TLSNoALPN, `ALPN "h2"`},
		{"TLS 1.2", edited(raw(issued(root, curlURI)), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), TLSVersion, "TLS 1.3"},
	}
	for _, r := range rows {
		s, c := shake(t, server, r.client)
		wantReason(t, r.name, s.err, r.reason, r.words)
		if c.err == nil {
			t.Errorf("%s: the client was not told", r.name)
		} else if got := ReasonOf(c.err); got != TLSRefusedByPeer {
			t.Errorf("%s: the client's error has reason %v, want %v: %v", r.name, got, TLSRefusedByPeer, c.err)
		}
	}
	for name, client := range map[string]*tls.Config{
		"as it should be": raw(issued(root, curlURI)),
		"alias":           raw(issued(root, "spiffe://alias.example/ns/demo/sa/curl")),
		"intermediate":    raw(issued(mid, curlURI)),
		"chain of 10":     raw(longer(issued(root, curlURI), root, 9)),
		"second name is identity": raw(issued(root, curlURI, func(c *x509.Certificate) {
			c.URIs = append(must(root.Issue([]string{"https://curl.example/"})).Cert.URIs, c.URIs...)
		})),
		"big chain": raw(issued(root, curlURI, padded(62<<10))),
		"raw names": raw(issued(root, curlURI, rawSAN(curlURI))),
	} {
		if s, c := shake(t, server, client); s.err != nil || c.err != nil {
			t.Errorf("control: %s: got %v, %v", name, s.err, c.err)
		} else if p, err := PeerOf(s.cs); err != nil || p.ID.ServiceAccount() != "curl" {
			t.Errorf("control: %s: got peer %v, %v", name, p, err)
		}
	}
}

// leafOnly takes the intermediates away.
func leafOnly(p PEM) PEM {
	b, _ := pem.Decode(p.Chain)
	p.Chain = pem.EncodeToMemory(b)
	return p
}

// longer adds n certificates that lead nowhere.
func longer(p PEM, ca *devca.CA, n int) PEM {
	p.Chain = slices.Concat(p.Chain, bytes.Repeat(ca.PEM(), n))
	return p
}

// padded makes a certificate n bytes longer.
func padded(n int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, n)})
	}
}

// rawSAN puts a name into a certificate as it is.
func rawSAN(uri string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		c.ExtraExtensions = append(c.ExtraExtensions, sanExtension(uri))
	}
}

func edited(c *tls.Config, edit func(*tls.Config)) *tls.Config {
	edit(c)
	return c
}

// Every server here differs from an accepted one in one thing.
func TestClientRefuses(t *testing.T) {
	root := must(devca.New("root"))
	curl := holding(issued(root, curlURI), CertificatesOptions{})
	expected := []peer.ID{testID(wayURI), testID("spiffe://cluster.local/ns/demo/sa/service")}
	good := raw(issued(root, wayURI))

	rows := []struct {
		name     string
		server   *tls.Config
		expected []peer.ID
		reason   TLSReason
		words    string
	}{
		{"other identity", raw(issued(root, curlURI)), expected, TLSWrongIdentity, "peer certificate is for " + curlURI + ", want " + wayURI + " or spiffe://cluster.local/ns/demo/sa/service"},
		{"same account, other namespace", raw(issued(root, "spiffe://cluster.local/ns/other/sa/waypoint")), expected, TLSWrongIdentity, "want"},
		{"same account, other trust domain", raw(issued(root, "spiffe://other.example/ns/demo/sa/waypoint")), expected, TLSWrongIdentity, "want"},
		{"nobody is expected", good, nil, TLSWrongIdentity, "no identity is expected"},
		{"other authority", raw(issued(must(devca.New("root")), wayURI)), expected, TLSUnknownAuthority, "not among the roots"},
		{"expired", raw(issued(root, wayURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), expected, TLSExpired, "expired at"},
		{"key usage of clients only", raw(issued(root, wayURI, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), expected, TLSBadCertificate, "extended key usage"},
		{"no identity", raw(issued(root, "https://waypoint.example")), expected, TLSBadCertificate, "want spiffe://"},
		{"no ALPN", edited(raw(issued(root, wayURI)), func(c *tls.Config) { c.NextProtos = nil }), expected, TLSNoALPN, `ALPN "h2"`},
	}
	for _, r := range rows {
		s, c := shake(t, r.server, curl.ClientConfig(r.expected))
		wantReason(t, r.name, c.err, r.reason, r.words)
		if s.err == nil {
			t.Errorf("%s: the server was not told", r.name)
		}
	}
	s, c := shake(t, edited(raw(issued(root, wayURI)), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), curl.ClientConfig(expected))
	wantReason(t, "TLS 1.2", s.err, TLSVersion, "TLS 1.3")
	wantReason(t, "TLS 1.2", c.err, TLSRefusedByPeer, "refused")

	two := raw(issued(root, curlURI, func(c *x509.Certificate) { c.URIs = append(c.URIs, must(root.Issue([]string{wayURI})).Cert.URIs...) }))
	for name, server := range map[string]*tls.Config{
		"as it should be":       good,
		"service's name":        raw(issued(root, "spiffe://cluster.local/ns/demo/sa/service")),
		"a name beside another": two,
	} {
		if s, c := shake(t, server, curl.ClientConfig(expected)); s.err != nil || c.err != nil {
			t.Errorf("control: %s: got %v, %v", name, s.err, c.err)
		}
	}
}

func TestNotTLS(t *testing.T) {
	way := holding(issued(must(devca.New("root")), wayURI), CertificatesOptions{})
	for name, r := range map[string]struct{ says, words string }{
		"HTTP":      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "plain HTTP where mutual TLS"},
		"HTTP/2":    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "plain HTTP where mutual TLS"},
		"something": {"\x00\x01\x02\x03\x04\x05\x06", "not TLS where mutual TLS"},
	} {
		a, b := net.Pipe()
		go func() {
			_, _ = io.WriteString(b, r.says)
			_, _ = io.Copy(io.Discard, b)
		}()
		_ = a.SetDeadline(time.Now().Add(10 * time.Second))
		wantReason(t, name, tls.Server(a, way.ServerConfig()).Handshake(), TLSNotTLS, r.words)
		a.Close()
		b.Close()
	}
	wantReason(t, "lost", io.ErrUnexpectedEOF, TLSOther, "EOF")
}

// An end whose own certificate is missing or has expired refuses everybody,
// and so its certificate never goes out.
func TestOwnCertificateFailsClosed(t *testing.T) {
	root := must(devca.New("root"))
	way, curl := holding(issued(root, wayURI), CertificatesOptions{}), holding(issued(root, curlURI), CertificatesOptions{})
	expected := []peer.ID{testID(wayURI)}
	if s, c := shake(t, way.ServerConfig(), curl.ClientConfig(expected)); s.err != nil || c.err != nil {
		t.Fatalf("control: got %v, %v", s.err, c.err)
	}
	none := must(NewCertificates(CertificatesOptions{}))
	late := holding(issued(root, wayURI), CertificatesOptions{})
	late.now = func() time.Time { return late.Current().NotAfter.Add(time.Second) }
	early := holding(issued(root, wayURI), CertificatesOptions{})
	early.now = func() time.Time { return early.Current().NotBefore.Add(-time.Second) }
	for _, r := range []struct {
		name  string
		c     *Certificates
		words string
	}{{"none", none, "no certificate yet"}, {"expired", late, "has not been renewed"}, {"not valid yet", early, "a clock may be wrong"}} {
		s, _ := shake(t, r.c.ServerConfig(), raw(issued(root, curlURI)))
		wantReason(t, r.name+", server", s.err, TLSOwnCertificate, r.words)
		_, c := shake(t, raw(issued(root, wayURI)), r.c.ClientConfig(expected))
		wantReason(t, r.name+", client", c.err, TLSOwnCertificate, r.words)
		open := raw(issued(root, wayURI))
		open.ClientAuth = tls.NoClientCert
		_, c = shake(t, open, r.c.ClientConfig(expected))
		wantReason(t, r.name+", client that is not asked", c.err, TLSOwnCertificate, r.words)
	}
	if err := none.Recheck(&PeerCertificate{}); ReasonOf(err) != TLSOwnCertificate {
		t.Errorf("got %v, want %v", err, TLSOwnCertificate)
	}
}

// Nothing outlives its verification by a session ticket.
func TestNoResumption(t *testing.T) {
	root := must(devca.New("root"))
	way := holding(issued(root, wayURI), CertificatesOptions{})
	client := raw(issued(root, curlURI))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	client.ServerName = "way" // the cache's key
	resumed := func(server *tls.Config) bool {
		shake(t, server, client)
		s, c := shake(t, server, client)
		if s.err != nil || c.err != nil {
			t.Fatalf("got %v, %v", s.err, c.err)
		}
		return s.cs.DidResume
	}
	if resumed(way.ServerConfig()) {
		t.Error("a session was resumed")
	}
	lax := way.ServerConfig()
	lax.SessionTicketsDisabled = false
	if !resumed(lax) {
		t.Error("control: no session was resumed even with tickets")
	}
}

// Roots serve their own trust domain, and no others.
func TestRootsByTrustDomain(t *testing.T) {
	ours, theirs := must(devca.New("ours")), must(devca.New("theirs"))
	leaf := must(ours.Issue([]string{wayURI}))
	pair := must(tls.X509KeyPair(leaf.Chain, leaf.Key))
	way := must(NewCertificates(CertificatesOptions{TrustDomains: []string{"theirs.example", "unknown.example"}}))
	m := material{chain: []*x509.Certificate{leaf.Cert}, key: pair.PrivateKey, roots: map[string][]*x509.Certificate{
		"cluster.local": {ours.Cert}, "theirs.example": {theirs.Cert},
	}}
	way.Set(must(newCredentials(m, time.Now())))
	rows := []struct {
		name   string
		ca     *devca.CA
		id     string
		reason TLSReason // TLSOther: accepted
		words  string
	}{
		{"ours", ours, curlURI, TLSOther, ""},
		{"theirs", theirs, "spiffe://theirs.example/ns/a/sa/b", TLSOther, ""},
		{"theirs says it is ours", theirs, curlURI, TLSUnknownAuthority, "not among the roots"},
		{"ours says it is theirs", ours, "spiffe://theirs.example/ns/a/sa/b", TLSUnknownAuthority, "not among the roots"},
		{"alias without roots", ours, "spiffe://unknown.example/ns/a/sa/b", TLSUnknownAuthority, `no roots are known for trust domain "unknown.example"`},
	}
	for _, r := range rows {
		s, c := shake(t, way.ServerConfig(), raw(issued(r.ca, r.id)))
		if r.reason != TLSOther {
			wantReason(t, r.name, s.err, r.reason, r.words)
		} else if s.err != nil || c.err != nil {
			t.Errorf("%s: got %v, %v", r.name, s.err, c.err)
		}
	}
}

// A new set serves the next handshake, and whoever watches hears of it.
func TestSwap(t *testing.T) {
	old, next := must(devca.New("root")), must(devca.New("root"))
	way := holding(issued(old, wayURI), CertificatesOptions{})
	server := way.ServerConfig() // made once; the set behind it changes
	s, _ := shake(t, server, raw(issued(old, curlURI)))
	p, err := PeerOf(s.cs)
	if s.err != nil || err != nil {
		t.Fatalf("got %v, %v", s.err, err)
	}
	changed := way.Changed()
	set := issued(next, wayURI)
	set.Roots = slices.Concat(old.PEM(), next.PEM())
	way.Set(must(ParsePEM(set)))
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	for _, ca := range []*devca.CA{old, next} {
		if s, _ := shake(t, server, raw(issued(ca, curlURI))); s.err != nil {
			t.Errorf("two roots: %v", s.err)
		}
	}
	if err := way.Recheck(p); err != nil {
		t.Errorf("two roots: %v", err)
	}
	way.Set(must(ParsePEM(issued(next, wayURI))))
	s, _ = shake(t, server, raw(issued(old, curlURI)))
	wantReason(t, "old root gone", s.err, TLSUnknownAuthority, "not among the roots")
	wantReason(t, "old root gone, live connection", way.Recheck(p), TLSUnknownAuthority, "not among the roots")
	if got := way.Stats().Swaps.Load(); got != 3 {
		t.Errorf("got %d swaps, want 3", got)
	}
	s, _ = shake(t, server, raw(issued(next, curlURI)))
	if p, err = PeerOf(s.cs); err != nil {
		t.Fatal(err)
	}
	way.now = func() time.Time { return p.NotAfter.Add(time.Second) }
	wantReason(t, "expired, live connection", way.Recheck(p), TLSExpired, "expired at")
}

func TestTrustDomainAliases(t *testing.T) {
	if _, err := NewCertificates(CertificatesOptions{TrustDomains: []string{"Bad Domain"}}); err == nil || !strings.Contains(err.Error(), "Bad Domain") {
		t.Errorf("got %v, want an error that names the alias", err)
	}
	if _, err := NewCertificates(CertificatesOptions{TrustDomains: []string{"good.domain"}}); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestReasonLabels(t *testing.T) {
	seen := map[string]bool{}
	for r := range tlsReasons {
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("reason %d has label %q", r, s)
		} else {
			seen[s] = true
		}
	}
	if got := TLSReason(200).String(); got != "other" {
		t.Errorf("got %q, want other", got)
	}
}
