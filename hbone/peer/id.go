package peer

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of the SPIFFE ID standard, section 2.3: a longer ID is refused.
const (
	MaxID          = 2048 // bytes of the whole URI
	MaxTrustDomain = 255
)

const scheme = "spiffe://"

// An ID is a workload's identity, spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
// The zero ID is no identity. IDs are equal if == says so.
type ID struct {
	uri    string
	td, ns uint16 // where the trust domain and the namespace end
}

var errForm = errors.New("want spiffe://<trust domain>/ns/<namespace>/sa/<service account>")

// ParseID parses an identity of exactly the form that the mesh uses. Other
// SPIFFE IDs, though legal elsewhere, name nobody here.
func ParseID(s string) (ID, error) {
	id, err := parseID(s)
	if err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %.100q: %w", s, err)
	}
	return id, nil
}

func parseID(s string) (ID, error) {
	if len(s) > MaxID {
		return ID{}, fmt.Errorf("%d bytes long, at most %d are allowed", len(s), MaxID)
	}
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return ID{}, errForm
	}
	td, rest, _ := strings.Cut(rest, "/")
	if err := CheckTrustDomain(td); err != nil {
		return ID{}, err
	}
	rest, ok = strings.CutPrefix(rest, "ns/")
	if !ok {
		return ID{}, errForm
	}
	ns, rest, _ := strings.Cut(rest, "/")
	sa, ok := strings.CutPrefix(rest, "sa/")
	if !ok {
		return ID{}, errForm
	}
	if err := checkSegment("namespace", ns); err != nil {
		return ID{}, err
	}
	if err := checkSegment("service account", sa); err != nil {
		return ID{}, err
	}
	end := len(scheme) + len(td)
	return ID{uri: s, td: uint16(end), ns: uint16(end + len("/ns/") + len(ns))}, nil
}

// NewID puts an identity together.
func NewID(trustDomain, namespace, serviceAccount string) (ID, error) {
	return ParseID(scheme + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount)
}

// CheckTrustDomain says what is wrong with the name of a trust domain, nil if
// nothing is (SPIFFE ID, section 2.1).
func CheckTrustDomain(td string) error {
	switch {
	case td == "":
		return errors.New("the trust domain is empty")
	case len(td) > MaxTrustDomain:
		return fmt.Errorf("the trust domain is %d bytes long, at most %d are allowed", len(td), MaxTrustDomain)
	}
	for i := range len(td) {
		if c := td[i]; c >= 'A' && c <= 'Z' || !segmentByte(c) {
			return fmt.Errorf("the trust domain has %q, only a-z 0-9 . - _ are allowed", c)
		}
	}
	return nil
}

// checkSegment checks one path segment (SPIFFE ID, section 2.2).
func checkSegment(what, s string) error {
	switch s {
	case "":
		return fmt.Errorf("the %s is empty", what)
	case ".", "..":
		return fmt.Errorf("the %s is %q", what, s)
	}
	for i := range len(s) {
		if !segmentByte(s[i]) {
			return fmt.Errorf("the %s has %q, only letters, digits . - _ are allowed", what, s[i])
		}
	}
	return nil
}

func segmentByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_'
}

// IsZero reports whether there is no identity.
func (id ID) IsZero() bool { return id.uri == "" }

// String returns the URI, "" for the zero ID.
func (id ID) String() string { return id.uri }

// Principal returns the identity the way policies write it, without scheme.
func (id ID) Principal() string {
	if id.IsZero() {
		return ""
	}
	return id.uri[len(scheme):]
}

// TrustDomain returns who vouches for the identity.
func (id ID) TrustDomain() string {
	if id.IsZero() {
		return ""
	}
	return id.uri[len(scheme):id.td]
}

// Namespace returns the workload's Kubernetes namespace.
func (id ID) Namespace() string {
	if id.IsZero() {
		return ""
	}
	return id.uri[int(id.td)+len("/ns/") : id.ns]
}

// ServiceAccount returns the workload's Kubernetes service account.
func (id ID) ServiceAccount() string {
	if id.IsZero() {
		return ""
	}
	return id.uri[int(id.ns)+len("/sa/"):]
}
