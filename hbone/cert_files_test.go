package hbone

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
)

func TestParsePEM(t *testing.T) {
	root := must(devca.New("root"))
	good := issued(root, wayURI)
	good.CRL = must(root.CRL(1))
	if cr, err := ParsePEM(good); err != nil || cr.ID.String() != wayURI {
		t.Fatalf("control: got %v, %v", cr, err)
	}
	combined := good
	combined.Chain = slices.Concat([]byte("# a comment\n"), good.Key, good.Chain)
	combined.Key = slices.Concat([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), combined.Chain)
	if _, err := ParsePEM(combined); err != nil {
		t.Errorf("key and chain in one file: %v", err)
	}

	rows := []struct {
		name  string
		edit  func(*PEM)
		words string
	}{
		{"no chain", func(p *PEM) { p.Chain = nil }, "certificate: no certificate in PEM form"},
		{"chain cut short", func(p *PEM) { p.Chain = p.Chain[:len(p.Chain)/2] }, "certificate: a PEM block is cut short"},
		{"chain damaged", func(p *PEM) { p.Chain = encode("CERTIFICATE", []byte{1, 2, 3}) }, "certificate: certificate 1:"},
		{"no key", func(p *PEM) { p.Key = good.Chain }, "key: no private key in PEM form"},
		{"key damaged", func(p *PEM) { p.Key = encode("PRIVATE KEY", []byte{1, 2, 3}) }, "key: "},
		{"key encrypted", func(p *PEM) { p.Key = encode("ENCRYPTED PRIVATE KEY", []byte{1}) }, "encrypted"},
		{"another's key", func(p *PEM) { p.Key = issued(root, wayURI).Key }, "the key does not belong to the certificate; replace certificate and key together"},
		{"no roots", func(p *PEM) { p.Roots = nil }, "roots: no certificate"},
		{"another's root", func(p *PEM) { p.Roots = must(devca.New("root")).PEM() }, "not among the roots"},
		{"a workload as root", func(p *PEM) { p.Roots = slices.Concat(p.Roots, p.Chain) }, "is no CA certificate"},
		{"expired", func(p *PEM) {
			*p = issued(root, wayURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
		}, "expired at"},
		{"no identity", func(p *PEM) { *p = issued(root, "https://waypoint.example") }, "want spiffe://"},
		{"for clients only", func(p *PEM) {
			*p = issued(root, wayURI, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}, "have it issued for a workload, with key usage for both client and server"},
		{"for servers only", func(p *PEM) {
			*p = issued(root, wayURI, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		}, "extended key usage"},
		{"list of another kind", func(p *PEM) { p.CRL = p.Roots }, `revocation list: a PEM block of type "CERTIFICATE"`},
		{"list damaged", func(p *PEM) { p.CRL = encode("X509 CRL", []byte{1}) }, "revocation list: list 1:"},
	}
	for _, r := range rows {
		p := good
		r.edit(&p)
		if cr, err := ParsePEM(p); err == nil || !strings.Contains(err.Error(), r.words) {
			t.Errorf("%s: got %v, %v, want an error with %q", r.name, cr, err, r.words)
		}
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestPrivateKeyForms(t *testing.T) {
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	r := must(rsa.GenerateKey(rand.Reader, 2048))
	for name, text := range map[string][]byte{
		"PKCS #8": encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec))),
		"SEC 1":   encode("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec))),
	} {
		if key, err := privateKey(text); err != nil || !ec.Equal(key) {
			t.Errorf("%s: got %v, %v", name, key, err)
		}
	}
	if key, err := privateKey(encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r))); err != nil || !r.Equal(key) {
		t.Errorf("PKCS #1: got %v, %v", key, err)
	}
}

// A testWatch watches files in a directory, and says what came of it.
type testWatch struct {
	*fileWatch
	t        *testing.T
	dir      string
	problems chan error
}

// newWatch starts to watch the set that lies in dir.
func newWatch(t *testing.T, dir string, edit ...func(*fileWatch)) *testWatch {
	t.Helper()
	w := &testWatch{t: t, dir: dir, problems: make(chan error, 16)}
	c := must(NewCertificates(CertificatesOptions{OnProblem: func(err error) { w.problems <- err }}))
	in := func(name string) string { return filepath.Join(dir, name) }
	f := Files{Chain: in("tls.crt"), Key: in("tls.key"), Roots: []string{in("ca.crt")}}
	w.fileWatch = &fileWatch{Files: f, c: c, settle: settle, poll: time.Hour}
	for _, e := range edit {
		e(w.fileWatch)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	changed := c.Changed()
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case <-changed:
	case err := <-w.problems:
		w.problems <- err
	case <-time.After(10 * time.Second):
		t.Fatal("no first set")
	}
	return w
}

func (w *testWatch) write(p PEM) {
	w.t.Helper()
	for name, text := range map[string][]byte{"tls.crt": p.Chain, "tls.key": p.Key, "ca.crt": p.Roots, "crl.pem": p.CRL} {
		if text != nil {
			w.put(name, text)
		}
	}
}

func (w *testWatch) put(name string, text []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// wantSwap makes a change and waits for the set to be swapped.
func (w *testWatch) wantSwap(name string, change func()) {
	w.t.Helper()
	changed := w.c.Changed()
	change()
	select {
	case <-changed:
	case err := <-w.problems:
		w.t.Fatalf("%s: %v", name, err)
	case <-time.After(10 * time.Second):
		w.t.Fatalf("%s: no swap", name)
	}
}

// wantProblem makes a change and waits for it to be refused.
func (w *testWatch) wantProblem(name string, change func(), words ...string) {
	w.t.Helper()
	before, problems := w.c.Current(), w.c.Stats().Problems.Load()
	change()
	select {
	case err := <-w.problems:
		for _, s := range words {
			if !strings.Contains(err.Error(), s) {
				w.t.Errorf("%s: got %v, want %q in it", name, err, s)
			}
		}
		if _, ok := errors.AsType[*SourceError](err); !ok {
			w.t.Errorf("%s: got a %T, want a *SourceError", name, err)
		}
	case <-time.After(10 * time.Second):
		w.t.Fatalf("%s: no problem", name)
	}
	if w.c.Current() != before {
		w.t.Errorf("%s: the current set was not kept", name)
	}
	if got := w.c.Stats().Problems.Load(); got != problems+1 {
		w.t.Errorf("%s: %d problems counted, want 1", name, got-problems)
	}
}

func writeSet(t *testing.T, dir string, p PEM) {
	t.Helper()
	(&testWatch{t: t, dir: dir}).write(p)
}

func TestFilesWatch(t *testing.T) {
	root := must(devca.New("root"))
	dir := t.TempDir()
	good := issued(root, wayURI)
	writeSet(t, dir, good)
	w := newWatch(t, dir)
	if got, want := w.c.Current().Serial, must(ParsePEM(good)).Serial; got != want {
		t.Errorf("got serial %s, want %s", got, want)
	}

	next := issued(root, wayURI)
	w.wantProblem("another's key", func() { w.put("tls.key", next.Key) },
		"key file "+filepath.Join(dir, "tls.key"), "does not belong to the certificate", "replace certificate and key together")
	w.wantSwap("the certificate follows", func() { w.put("tls.crt", next.Chain) })
	w.wantProblem("cut short", func() { w.put("tls.crt", next.Chain[:100]) }, "certificate file "+filepath.Join(dir, "tls.crt"), "cut short")
	w.wantProblem("root gone", func() { _ = os.Remove(filepath.Join(dir, "ca.crt")) }, "roots file "+filepath.Join(dir, "ca.crt"), "no such file")
	w.wantProblem("another's root", func() {
		w.put("tls.crt", next.Chain)
		w.put("ca.crt", must(devca.New("root")).PEM())
	}, "not among the roots", "add the authority to the roots")
	w.wantProblem("expired", func() {
		w.write(issued(root, wayURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	}, "expired at", "renew it")
	w.wantProblem("no identity", func() { w.write(issued(root, "https://waypoint.example")) }, "SPIFFE ID", "URI SAN")
	swaps := w.c.Stats().Swaps.Load()
	w.wantSwap("whole again", func() { w.write(issued(root, wayURI)) })
	if got := w.c.Stats().Swaps.Load(); got != swaps+1 {
		t.Errorf("%d swaps, want 1", got-swaps)
	}
	// The same contents written anew, and a file that is not ours, are no change.
	w.wantSwap("last", func() {
		w.put("tls.crt", must(os.ReadFile(w.Chain)))
		w.put("other.pem", []byte("x"))
		w.write(issued(root, wayURI))
	})
	if got := w.c.Stats().Swaps.Load(); got != swaps+2 {
		t.Errorf("%d swaps, want 2", got-swaps)
	}
}

// A Kubernetes volume shows files through a link to a directory that is
// replaced in one step.
func TestFilesWatchKubernetesVolume(t *testing.T) {
	root := must(devca.New("root"))
	dir := t.TempDir()
	publish := func(version string, p PEM) {
		old, _ := os.Readlink(filepath.Join(dir, "..data"))
		if err := errors.Join(
			os.Mkdir(filepath.Join(dir, version), 0o700),
			os.Symlink(version, filepath.Join(dir, "..data_tmp")),
		); err != nil {
			t.Fatal(err)
		}
		writeSet(t, filepath.Join(dir, version), p)
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if old != "" {
			_ = os.RemoveAll(filepath.Join(dir, old))
		}
	}
	publish("..1", issued(root, wayURI))
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWatch(t, dir)
	for _, version := range []string{"..2", "..3", "..4"} {
		next := issued(root, wayURI)
		w.wantSwap(version, func() { publish(version, next) })
		if got, want := w.c.Current().Serial, must(ParsePEM(next)).Serial; got != want {
			t.Errorf("%s: got serial %s, want %s", version, got, want)
		}
	}
	if swaps, problems := w.c.Stats().Swaps.Load(), w.c.Stats().Problems.Load(); swaps != 4 || problems != 0 {
		t.Errorf("got %d swaps and %d problems, want 4 and 0", swaps, problems)
	}
}

// Where nothing tells of changes they are found all the same.
func TestFilesWatchPolls(t *testing.T) {
	root := must(devca.New("root"))
	dir, elsewhere := t.TempDir(), t.TempDir()
	writeSet(t, elsewhere, issued(root, wayURI))
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join(elsewhere, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWatch(t, dir, func(w *fileWatch) { w.poll = 20 * time.Millisecond })
	next := issued(root, wayURI)
	for deadline := time.Now().Add(10 * time.Second); w.c.Current().Serial != must(ParsePEM(next)).Serial; {
		changed := w.c.Changed()
		writeSet(t, elsewhere, next)
		select {
		case <-changed:
		case <-w.problems: // a set half written, seen by a poll
		case <-time.After(time.Until(deadline)):
			t.Fatal("no swap")
		}
	}
}

// A set that is not there yet is waited for, and told of once.
func TestFilesWatchWaits(t *testing.T) {
	root := must(devca.New("root"))
	dir := filepath.Join(t.TempDir(), "later")
	w := newWatch(t, dir, func(w *fileWatch) { w.poll = 20 * time.Millisecond })
	if err := <-w.problems; !strings.Contains(err.Error(), filepath.Join(dir, "tls.crt")) || !strings.Contains(err.Error(), "put the certificate there") {
		t.Errorf("got %v", err)
	}
	if w.c.Current() != nil {
		t.Error("there is a set")
	}
	whole := filepath.Join(filepath.Dir(dir), "whole")
	if err := os.Mkdir(whole, 0o700); err != nil {
		t.Fatal(err)
	}
	writeSet(t, whole, issued(root, wayURI))
	w.wantSwap("the directory appears", func() {
		if err := os.Rename(whole, dir); err != nil {
			t.Fatal(err)
		}
	})
	if got := w.c.Stats().Problems.Load(); got != 1 {
		t.Errorf("%d problems told, want 1", got)
	}
}

func TestFilesWatchRevocationList(t *testing.T) {
	root := must(devca.New("root"))
	dir := t.TempDir()
	leaf := must(root.Issue([]string{curlURI}))
	set := issued(root, wayURI)
	set.CRL = must(root.CRL(1))
	writeSet(t, dir, set)
	w := newWatch(t, dir, func(w *fileWatch) { w.CRL = filepath.Join(dir, "crl.pem") })
	curl := PEM{Chain: leaf.Chain, Key: leaf.Key}
	s, _ := shake(t, w.c.ServerConfig(), raw(curl))
	if s.err != nil {
		t.Fatalf("control: %v", s.err)
	}
	live := must(PeerOf(s.cs))
	w.wantProblem("damaged", func() { w.put("crl.pem", []byte("-----BEGIN X509 CRL-----\n")) }, "revocation list file "+filepath.Join(dir, "crl.pem"))
	w.wantSwap("revoked", func() { w.put("crl.pem", must(root.CRL(2, leaf.Cert))) })
	wantReason(t, "live connection", w.c.Recheck(live), TLSRevoked, "has been revoked")
	s, _ = shake(t, w.c.ServerConfig(), raw(curl))
	wantReason(t, "new connection", s.err, TLSRevoked, "has been revoked")
}

func TestFilesWatchStaleRevocationList(t *testing.T) {
	root := must(devca.New("root"))
	dir := t.TempDir()
	set := issued(root, wayURI, func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(5, 0, 0) })
	set.CRL = must(root.CRL(1))
	writeSet(t, dir, set)
	w := &fileWatch{Files: Files{Chain: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: []string{filepath.Join(dir, "ca.crt")}, CRL: filepath.Join(dir, "crl.pem")}}
	var problems []string
	w.c = must(NewCertificates(CertificatesOptions{OnProblem: func(err error) { problems = append(problems, err.Error()) }}))
	w.check()
	w.check()
	if len(problems) != 0 || w.c.Current() == nil {
		t.Fatalf("control: got %v, %q", w.c.Current(), problems)
	}
	due := w.c.Current().crl.nextUpdate
	w.c.now = func() time.Time { return due.Add(time.Minute) }
	w.check()
	w.check()
	if len(problems) != 1 || !strings.Contains(problems[0], "a newer list was due at") {
		t.Errorf("got %q, want to be told once", problems)
	}
}

func TestFilesLoad(t *testing.T) {
	root := must(devca.New("root"))
	dir := t.TempDir()
	writeSet(t, dir, issued(root, wayURI))
	writeSet(t, dir, PEM{CRL: must(devca.New("other")).PEM()})
	f := Files{Chain: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: []string{filepath.Join(dir, "crl.pem"), filepath.Join(dir, "ca.crt")}}
	if cr, err := f.Load(); err != nil || cr.ID != testID(wayURI) {
		t.Errorf("two root files: got %v, %v", cr, err)
	}
	for _, r := range []struct {
		name  string
		edit  func(*Files)
		words string
	}{
		{"no key named", func(f *Files) { f.Key = "" }, "key file: no file is named"},
		{"no roots named", func(f *Files) { f.Roots = nil }, "no certificate in PEM form"},
		{"a directory", func(f *Files) { f.Chain = dir }, "certificate file " + dir},
		{"no such list", func(f *Files) { f.CRL = filepath.Join(dir, "none") }, "revocation list file " + filepath.Join(dir, "none") + ": no such file"},
	} {
		g := f
		r.edit(&g)
		if _, err := g.Load(); err == nil || !strings.Contains(err.Error(), r.words) {
			t.Errorf("%s: got %v, want an error with %q", r.name, err, r.words)
		}
	}
	c := must(NewCertificates(CertificatesOptions{OnProblem: func(err error) { t.Error(err) }}))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	changed := c.Changed()
	go func() {
		<-changed
		cancel()
	}()
	if f.Watch(ctx, c); c.Current() == nil || c.Current().ID != testID(wayURI) {
		t.Errorf("Watch: got %v", c.Current())
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Chain = big
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("big file: got %v", err)
	}
}
