package peer

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// longID is a legal identity of n bytes.
func longID(n int) string {
	const head = "spiffe://td/ns/n/sa/"
	return head + strings.Repeat("a", n-len(head))
}

func TestParseID(t *testing.T) {
	id, err := ParseID("spiffe://cluster.local/ns/demo/sa/curl")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, got, want string }{
		{"String", id.String(), "spiffe://cluster.local/ns/demo/sa/curl"},
		{"Principal", id.Principal(), "cluster.local/ns/demo/sa/curl"},
		{"TrustDomain", id.TrustDomain(), "cluster.local"},
		{"Namespace", id.Namespace(), "demo"},
		{"ServiceAccount", id.ServiceAccount(), "curl"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
	made, err := NewID("cluster.local", "demo", "curl")
	if err != nil || made != id {
		t.Errorf("NewID: got %v, %v, want the same ID", made, err)
	}
	if other, _ := NewID("cluster.local", "dem", "ocurl"); other == id {
		t.Error("two identities compare equal")
	}
	var zero ID
	if got := zero.String() + zero.Principal() + zero.TrustDomain() + zero.Namespace() + zero.ServiceAccount(); got != "" || !zero.IsZero() {
		t.Errorf("the zero ID says %q", got)
	}
}

// Every row is a legal identity with one thing changed.
func TestParseIDRefuses(t *testing.T) {
	rows := []struct{ name, bad, good string }{
		{"other scheme", "https://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b"},
		{"upper case scheme", "SPIFFE://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b"},
		{"no trust domain", "spiffe:///ns/a/sa/b", "spiffe://td/ns/a/sa/b"},
		{"upper case trust domain", "spiffe://Td/ns/a/sa/b", "spiffe://td/ns/a/sa/b"},
		{"port", "spiffe://td:8443/ns/a/sa/b", "spiffe://td/ns/a/sa/b"},
		{"userinfo", "spiffe://u@td/ns/a/sa/b", "spiffe://td/ns/a/sa/b"},
		{"long trust domain", "spiffe://" + strings.Repeat("t", 256) + "/ns/a/sa/b", "spiffe://" + strings.Repeat("t", 255) + "/ns/a/sa/b"},
		{"too long", longID(2049), longID(2048)},
		{"query", "spiffe://td/ns/a/sa/b?x", "spiffe://td/ns/a/sa/b"},
		{"fragment", "spiffe://td/ns/a/sa/b#x", "spiffe://td/ns/a/sa/b"},
		{"escape", "spiffe://td/ns/a/sa/b%2f", "spiffe://td/ns/a/sa/b"},
		{"NUL", "spiffe://td/ns/a/sa/b\x00", "spiffe://td/ns/a/sa/b"},
		{"trailing slash", "spiffe://td/ns/a/sa/b/", "spiffe://td/ns/a/sa/b"},
		{"further segment", "spiffe://td/ns/a/sa/b/c", "spiffe://td/ns/a/sa/b"},
		{"empty namespace", "spiffe://td/ns//sa/b", "spiffe://td/ns/a/sa/b"},
		{"dots", "spiffe://td/ns/../sa/b", "spiffe://td/ns/.../sa/b"},
		{"dot", "spiffe://td/ns/a/sa/.", "spiffe://td/ns/a/sa/.b"},
		{"empty account", "spiffe://td/ns/a/sa/", "spiffe://td/ns/a/sa/b"},
		{"no account", "spiffe://td/ns/a", "spiffe://td/ns/a/sa/b"},
		{"swapped", "spiffe://td/sa/b/ns/a", "spiffe://td/ns/a/sa/b"},
		{"other path", "spiffe://td/workload/a", "spiffe://td/ns/a/sa/b"},
		{"not ASCII", "spiffe://td/ns/ä/sa/b", "spiffe://td/ns/a/sa/b"},
		{"empty", "", "spiffe://td/ns/a/sa/b"},
	}
	for _, r := range rows {
		if id, err := ParseID(r.bad); err == nil {
			t.Errorf("%s: %q was taken as %v", r.name, r.bad, id)
		}
		if _, err := ParseID(r.good); err != nil {
			t.Errorf("%s: control: %v", r.name, err)
		}
	}
}

// The standard's own library must agree with everything we accept, and with
// what we refuse for the charset.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{"spiffe://cluster.local/ns/demo/sa/curl", "spiffe://td/ns/ns/sa/sa", "spiffe://td/ns/../sa/b", "spiffe://td//ns/a/sa/b", "spiffe://t:1/ns/a/sa/b", "spiffe://td/ns/a/sa/b/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		oracle, oerr := spiffeid.FromString(s)
		slow := oerr == nil && len(s) <= MaxID
		if slow {
			p := strings.Split(oracle.Path(), "/")
			slow = len(oracle.TrustDomain().Name()) <= MaxTrustDomain && len(p) == 5 && p[1] == "ns" && p[3] == "sa"
		}
		if got := err == nil; got != slow {
			t.Fatalf("ParseID(%q): got %v, want accepted %v (oracle says %v)", s, err, slow, oerr)
		}
		if err != nil {
			return
		}
		if got, want := id.TrustDomain(), oracle.TrustDomain().Name(); got != want {
			t.Errorf("trust domain: got %q, want %q", got, want)
		}
		if got, want := "/ns/"+id.Namespace()+"/sa/"+id.ServiceAccount(), oracle.Path(); got != want {
			t.Errorf("path: got %q, want %q", got, want)
		}
		if again, err := NewID(id.TrustDomain(), id.Namespace(), id.ServiceAccount()); err != nil || again != id {
			t.Errorf("put together again: got %v, %v, want %v", again, err, id)
		}
	})
}

func TestParseIDAllocates(t *testing.T) {
	s := "spiffe://cluster.local/ns/demo/sa/curl"
	if got := testing.AllocsPerRun(100, func() { _, _ = ParseID(s) }); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
